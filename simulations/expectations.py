"""What a session owes to whoever plays it: it ends, it fails nobody honest, and undisturbed it succeeds."""

from __future__ import annotations

from dataclasses import dataclass

from secagg.protocol.errors import RejectReason
from secagg.protocol.phases import Phase
from simulations.cast import client_name
from simulations.network import TIMEOUT_S
from simulations.operations import (
    Advance,
    Betray,
    Crash,
    Delay,
    Drop,
    Duplicate,
    Equivocate,
    Forge,
    Join,
    Kill,
    Lie,
    Lose,
    Operation,
    Partition,
    Reorder,
)
from simulations.scripts import Script, liars_of
from simulations.world import World


@dataclass(frozen=True, slots=True)
class Finding:
    """An invariant that was violated, by name, and how. The reason is for people; the name decides what is the same."""

    invariant: str
    reason: str


UNDESERVED = frozenset(
    {
        RejectReason.BAD_SIGNATURE,
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
    if is_undisturbed(script):
        return _unsuccessful(world, script)
    return None


def _accused(world: World, liars: frozenset[int]) -> Finding | None:
    names = {client_name(number) for number in range(world.plan.clients) if number not in liars}
    undeserved = {reason.name for reason in UNDESERVED}
    for happening in world.happenings:
        if happening.what == "refused" and happening.node in names and happening.detail in undeserved:
            return Finding("honest-are-not-accused", f"{happening.node}: {happening.detail}")
    return None


def _unsuccessful(world: World, script: Script) -> Finding | None:
    if world.phase is not Phase.FINISHED:
        return Finding("undisturbed-sessions-succeed", f"aborted: {world.aborted_because()}")
    left_out = sorted(set(range(script.plan.clients)) - world.accepted())
    if left_out:
        return Finding("undisturbed-sessions-succeed", f"the sum is without clients {left_out}, who came in time")
    return None


def is_undisturbed(script: Script) -> bool:
    """Whether everybody comes in time and nothing lasts longer than the deadlines allow for."""
    everybody = {each.client for each in script.operations if isinstance(each, Join)}
    if len(everybody) < script.plan.clients:
        return False
    before_last = [not isinstance(each, Join) for each in reversed(script.operations)].index(False)
    late_s = sum(each.seconds for each in script.operations[: -before_last or None] if isinstance(each, Advance))
    lost_s = [_lost_s(each) for each in script.operations]
    return late_s + sum(lost_s) < script.plan.phase_s / 2


def _lost_s(operation: Operation) -> float:
    """How much later something may come because of it; infinite where it may never come."""
    match operation:
        case Drop() | Kill() | Forge() | Lie() | Equivocate() | Betray():
            return float("inf")
        case Crash(_, _, _, seconds) | Delay(_, _, seconds) | Partition(seconds, _):
            return seconds + TIMEOUT_S
        case Reorder(seconds):
            return 2.0 * seconds + TIMEOUT_S
        case Lose(_, call, _, times):
            return times * 2 * TIMEOUT_S if not call.startswith("member-h") else float("inf")
        case Duplicate():
            return 0.0
        case _:
            return 0.0
