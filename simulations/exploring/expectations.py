"""What a session owes to whoever plays it: it ends, it accuses nobody honest, and where it can succeed it does."""

from __future__ import annotations

import math
from dataclasses import dataclass

from secagg.derive.threshold import quorum
from secagg.protocol.errors import RejectReason
from secagg.protocol.phases import Phase
from secagg.runtime.participant import LONGEST_DELAY_S
from simulations.exploring.operations import (
    Advance,
    ClientLie,
    Crash,
    Delay,
    Drop,
    Forge,
    Join,
    Kill,
    Lie,
    Lose,
    Operation,
    Partition,
    Reorder,
)
from simulations.exploring.scripts import Script, liars_of, traitors_of
from simulations.judging.watched import Assumption, Watched
from simulations.world.cast import client_name
from simulations.world.network import TIMEOUT_S
from simulations.world.plan import Protocol
from simulations.world.world import World


@dataclass(frozen=True, slots=True)
class Finding:
    """An invariant that was violated, by name, and how. The reason is for people; the name decides what is the same."""

    invariant: str
    reason: str


UNDESERVED = frozenset(
    {
        RejectReason.BAD_SIGNATURE,
        RejectReason.BELOW_MINIMUM,
        RejectReason.DOUBLED_UPLOAD,
        RejectReason.EQUIVOCATION,
        RejectReason.LOG_FORKED,
        RejectReason.LOG_MISMATCH,
        RejectReason.LOG_ORDER,
        RejectReason.LOG_SIGNATURE,
        RejectReason.LOG_UNWITNESSED,
        RejectReason.MALFORMED_MESSAGE,
        RejectReason.WITHHELD_BOXES,
        RejectReason.WRONG_BOX_LENGTH,
        RejectReason.WRONG_BOX_ROOT,
        RejectReason.WRONG_LENGTH,
        RejectReason.WRONG_LINEAR_HASH,
        RejectReason.WRONG_PARTS,
        RejectReason.WRONG_RECEIPT,
        RejectReason.WRONG_RECIPIENTS,
        RejectReason.WRONG_SHARES,
        RejectReason.WRONG_UPLOAD,
    }
)
"""Reasons that accuse somebody: between an honest client and an honest coordinator none of them comes up."""

_UNSAFE = "no safe degree and threshold for this cohort"
"""Why a session is rightly aborted in which a few less advertised keys than could have."""


def at_the_end(world: World, script: Script) -> Finding | None:
    """What is missing after everybody had the chance to finish."""
    if any(isinstance(each, Forge) for each in script.operations):
        return None  # a coordinator that lies owes nobody an end
    if not world.is_over:
        where = world.phase.value if world.coordinator.is_up else "no coordinator"
        return Finding("sessions-end", f"long after all deadlines: {where}")
    liars = liars_of(script.operations)
    waiting = [client.number for client in world.clients if client.process is not None]
    if set(waiting) - liars:
        return Finding("clients-end", f"the session is over, and clients {sorted(set(waiting) - liars)} still wait")
    accused = _accused(world, liars)
    if accused is not None:
        return accused
    return _unsuccessful(world, due_in_the_sum(script))


def one_close_answered(watched: Watched) -> Finding | None:
    """Whether the answers of honest clients are all over one close entry: more than half of the honest confirm it."""
    if not watched.holds(Assumption.FEW_CORRUPT):
        return None
    closes = {each.close for number in watched.answers for each in watched.answers_of(number)}
    if len(closes) < 2:
        return None
    return Finding("one-close-answered", f"honest clients answered {len(closes)} close entries")


def _accused(world: World, liars: frozenset[int]) -> Finding | None:
    names = {client_name(number) for number in range(world.plan.clients) if number not in liars}
    undeserved = {reason.name for reason in UNDESERVED}
    for happening in world.happenings:
        if happening.what == "refused" and happening.node in names and happening.detail in undeserved:
            return Finding("honest-are-not-accused", f"{happening.node}: {happening.detail}")
    return None


def _unsuccessful(world: World, due: frozenset[int] | None) -> Finding | None:
    if due is None:
        return None
    if world.phase is not Phase.FINISHED:
        reason = world.aborted_because()
        if reason == _UNSAFE:
            return None
        return Finding("sessions-that-can-succeed-do", f"aborted: {reason}")
    left_out = sorted(due - world.accepted())
    if left_out:
        return Finding("sessions-that-can-succeed-do", f"the sum is without clients {left_out}, who came in time")
    return None


def due_in_the_sum(script: Script) -> frozenset[int] | None:
    """Numbers of the clients that have to be in the published sum; None where none is owed.

    One is owed if nothing lasts longer than the deadlines allow for, and who neither lies nor drops out is enough: to
    be a sum at all, and to open it.
    """
    plan, operations = script.plan, script.operations
    if not _is_in_time(script):
        return None
    drops = {each.client for each in operations if isinstance(each, Drop)}
    joined = {each.client for each in operations if isinstance(each, Join)}
    due = frozenset(joined - drops - liars_of(operations))
    if len(due) < plan.minimum:
        return None
    if plan.protocol is Protocol.ONE_SHOT:
        loyal = plan.committee.members - len(traitors_of(operations))
        return due if loyal >= plan.committee.needed else None
    # In a complete graph, which cohorts of this size have: the threshold, and half of all who may have advertised.
    threshold, half = (plan.clients - 1 + plan.corrupt) // 2 + 1, quorum(plan.clients, plan.corrupt)
    return due if len(due) >= max(half, threshold + 1) else None


def _is_in_time(script: Script) -> bool:
    """Whether everybody who comes comes early, and nothing is held up for longer than half a deadline."""
    joins = [number for number, each in enumerate(script.operations) if isinstance(each, Join)]
    if not joins:
        return False
    late_s = sum(each.seconds for each in script.operations[: joins[-1]] if isinstance(each, Advance))
    return late_s + sum(map(lost_s, script.operations)) < script.plan.phase_s / 2


def lost_s(operation: Operation) -> float:
    """How much later something may come because of it; infinite where it may never come, or nothing is owed."""
    match operation:
        case Kill() | Forge() | Lie(_, ClientLie.FALSE_MISSING):
            # Who is falsely said to be missing may be left out together with whoever says so.
            return math.inf
        case Delay(_, _, seconds):
            return seconds + LONGEST_DELAY_S
        case Crash(_, _, _, seconds) | Partition(seconds, _):
            return seconds + TIMEOUT_S
        case Reorder(seconds):
            return 2.0 * seconds + TIMEOUT_S
        case Lose(_, call, _, times):
            slow = call in {"watch", "member-hold", "member-open"}
            return math.inf if slow else times * 2 * TIMEOUT_S
        case _:
            return 0.0
