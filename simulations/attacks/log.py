"""Attacks on the log: two histories of it, one that goes back, and one that is shown as it was long ago.

How many witnesses have to lie for two histories is computed by letting them lie: each attack counts who believes what.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from secagg.runtime.log_trust import LogTrust
from secagg.transcript import merkle
from secagg.transcript.evidence import LogEvidence
from simulations.attacks.attack import Attack, AttackResult
from simulations.attacks.forgery_one_shot import close_over
from simulations.attacks.histories import Historian, TwoHistories, Watcher, corrupt_witnesses, cosigners_of
from simulations.attacks.interrogation import PHASE_S, VICTIM, LyingCoordinator, plan_of
from simulations.attacks.notebook import Notebook, how_it_ended, named, numbered
from simulations.world.cast import client_name, witness_name
from simulations.world.coordinator import CoordinatorNode, Front
from simulations.world.loop import run_virtually
from simulations.world.network import Event, Mishap
from simulations.world.plan import Plan, Protocol
from simulations.world.witnesses import NetworkCosigners
from simulations.world.world import World

WITNESSES = 4
DECEIVED = frozenset({3, 4, 5})
"""The clients that are shown the second history."""
_MOST_S = 3600.0


def pairwise_plan(seed: int, witnesses: int = WITNESSES) -> Plan:
    """Six clients in a pairwise session."""
    return Plan(
        Protocol.PAIRWISE,
        clients=6,
        dimension=8,
        seed=seed,
        min_contributors=3,
        phase_s=4 * PHASE_S,
        witnesses=witnesses,
    )


def sides(plan: Plan, corrupt: int) -> tuple[list[int], list[int]]:
    """Who cosigns the real log, and who the other: the corrupt witnesses both, each honest one the first it is shown.

    The real log gets as few honest witnesses as it needs.
    """
    liars, honest = list(range(corrupt)), list(range(corrupt, plan.witnesses))
    needed = max(0, plan.quorum - corrupt)
    return [*liars, *honest[:needed]], [*liars, *honest[needed:]]


# Two histories at once


async def split_view(seed: int, witnesses: int, corrupt: int) -> AttackResult:
    """Half of the clients are shown the real log, half another one; whether both halves believe theirs."""
    world, notes = World(pairwise_plan(seed, witnesses)), Notebook()
    real, other = sides(world.plan, corrupt)
    corrupt_witnesses(world, range(corrupt))
    _ask_only(world, real)
    historian = Historian(world, notes)
    front = TwoHistories(world.coordinator, historian, DECEIVED, other)
    world.front = front
    await world.open()
    for number in range(world.plan.clients):
        world.join(number)
    await world.until_over(_MOST_S)
    note_refusals(world, notes)
    ended = how_it_ended(world)
    believers = {name: _believers(world, log) for name, log in (("real", real_log(world)), ("other", _last(front)))}
    for name, asked in (("real", real), ("other", other)):
        who = named([witness_name(number) for number in asked]) if asked else "nobody"
        notes.step(f"The {name} history is put to {who}; {world.plan.quorum} of {witnesses} have to cosign it.")
    for name, clients in believers.items():
        notes.step(f"The {name} history is believed by {numbered(clients)}.")
    succeeded = all(believers.values())
    learned = []
    if succeeded:
        both = sorted(set(cosigners_of(world, real_log(world))) & set(cosigners_of(world, _last(front))))
        proof = f"{named(both)} signed both, which is evidence for all who compare" if both else "nobody else signed it"
        learned = [f"nothing about inputs; but there are two histories that people believe, and {proof}"]
    return notes.result(ended, learned, succeeded=succeeded)


def _ask_only(world: World, numbers: Sequence[int]) -> None:
    asked = [world.witnesses[number] for number in numbers]
    world.coordinator.cosigners = lambda _: NetworkCosigners(world.coordinator, asked, world.network, world.plan.quorum)


def real_log(world: World) -> LogEvidence:
    """The log as the coordinator's own machine has it."""
    return world.coordinator.host.evidence()


def _last(front: TwoHistories) -> LogEvidence:
    return front.told[max(front.told)]


def _believers(world: World, history: LogEvidence) -> frozenset[int]:
    """Clients that hold a checkpoint, verified, that is one of this history and of no other."""
    hashes = [*history.prefix, *map(merkle.leaf_hash, history.entries)]
    found = set()
    for client in world.clients:
        seen = LogTrust(world.cast.log_policy, client.memory).seen().checkpoint
        # Up to the open entry both histories are the same.
        if seen is None or not history.start + 1 < seen.size <= len(hashes):
            continue
        if merkle.root_of_hashes(hashes[: seen.size]) == seen.root:
            found.add(client.number)
    return frozenset(found)


def note_refusals(world: World, notes: Notebook) -> None:
    """What clients refused."""
    for happening in world.happenings:
        if happening.what == "refused":
            notes.refused(happening.node, "what it was shown of the log", happening.detail)


async def split_members(seed: int, corrupt: int) -> AttackResult:
    """Half of the honest members are shown one close, half another; whether closes of both kinds are answered."""
    world = World(plan_of(seed, witnesses=WITNESSES))
    liar = LyingCoordinator(world)
    real, other = sides(world.plan, corrupt)
    corrupt_witnesses(world, range(corrupt))
    historian = Historian(world, liar.notes)
    await world.open()
    contributions = await liar.collect(range(world.plan.clients - 1))
    everybody = list(contributions.values())
    others = [each for each in everybody if each.number != VICTIM]
    half = (len(liar.honest) + 1) // 2
    answered = []
    for chosen, witnesses, places in ((everybody, real, liar.honest[:half]), (others, other, liar.honest[half:])):
        before = real_log(world)
        entries = (before.entries[0], close_over(world.cast, chosen).to_bytes())
        evidence = await historian.told(before, entries, witnesses)
        liar.notes.step(
            f"{len(cosigners_of(world, evidence))} of {WITNESSES} witnesses cosign a log that closes over "
            f"{numbered([each.number for each in chosen])}; {world.plan.quorum} are needed."
        )
        what = f"the sum of {numbered([each.number for each in chosen])}"
        answered.append(await liar.ask(what, chosen, evidence, places))
    result = await liar.finish()
    both = all(answered)
    words = "two closes of one session were answered, by different members"
    learned = [*result.learned, *([words] if both else [])]
    return liar.notes.result(result.ended, learned, succeeded=result.succeeded or both)


# A history that goes back


async def goes_back(seed: int, corrupt: int = 0) -> AttackResult:
    """The coordinator's disk is put back to before the victim contributed; it closes once more, without it."""
    world = World(plan_of(seed, witnesses=WITNESSES))
    liar = LyingCoordinator(world)
    corrupt_witnesses(world, range(corrupt))
    world.network.observers.append(Watcher(liar.notes))
    await world.open()
    await liar.collect([1, 2, 3, 4])
    disk = world.coordinator.disk
    kept = copy.deepcopy((disk.sessions, disk.log))
    world.join(VICTIM)
    await world.until_over(_MOST_S)
    liar.take_what_was_published()
    size = real_log(world).size
    liar.notes.step(f"The session ends: {how_it_ended(world)}. The log has {size} entries.")
    world.kill(world.coordinator.name)
    disk.sessions, disk.log = kept
    await world.restart(world.coordinator.name)
    liar.notes.step(
        f"The coordinator goes back to a copy of its disk with {real_log(world).size} entries in the log, from "
        f"before client {VICTIM} contributed, and closes without it."
    )
    result = await liar.finish()
    waits = sum(1 for each in world.happenings if each.what == "log-not-cosigned")
    liar.notes.step(f"{waits} times its new close finds too few witnesses.")
    return liar.notes.result(result.ended, result.learned, succeeded=result.succeeded)


# A history as it was


class OldLog(Front):
    """Shows a client that comes back what it was shown when it came first."""

    def __init__(self, node: CoordinatorNode, victim: int) -> None:
        super().__init__(node)
        self._victim = node.cast.clients[victim].public_bytes
        self._first: tuple[LogEvidence, tuple[bytes, ...]] | None = None

    async def session_files(self, caller: bytes, log_size: int) -> tuple[LogEvidence, tuple[bytes, ...]]:
        """The log; for the victim always the first."""
        shown = await super().session_files(caller, log_size)
        if caller != self._victim:
            return shown
        self._first = self._first or shown
        return self._first


async def old_checkpoint(seed: int) -> AttackResult:
    """A client dies after it has seen the close, starts again, and is shown the log of the session's first minute."""
    world, notes = World(pairwise_plan(seed)), Notebook()
    world.front = OldLog(world.coordinator, VICTIM)
    await world.open()
    world.network.mishaps.append(Mishap(Event.CALLER_DIES_BEFORE, client_name(VICTIM), "UnmaskAnswer"))
    for number in range(world.plan.clients):
        world.join(number)
    await asyncio.sleep(4 * PHASE_S)
    seen = LogTrust(world.cast.log_policy, world.clients[VICTIM].memory).seen().size
    notes.step(f"{client_name(VICTIM)} has seen a log of {seen} entries when it dies. It starts again.")
    world.join(VICTIM)
    await world.until_over(_MOST_S)
    note_refusals(world, notes)
    is_refused = any(each.node == client_name(VICTIM) and each.what == "refused" for each in world.happenings)
    notes.step(f"It is shown a log of {real_log(world).start + 1} entries: {'refused' if is_refused else 'taken'}.")
    learned = [] if is_refused else [f"{client_name(VICTIM)} takes an old log for the current one"]
    return notes.result(how_it_ended(world), learned, succeeded=not is_refused)


def _attack(
    name: str, protocol: Protocol, texts: tuple[str, str, str], play: Callable[[int], Coroutine[Any, Any, AttackResult]]
) -> Attack:
    goal, adversary, why = texts
    return Attack(name, protocol, goal, adversary, why, lambda seed: run_virtually(play(seed)))


ATTACKS: tuple[Attack, ...] = (
    _attack(
        "log-split-view",
        Protocol.PAIRWISE,
        (
            "Have two halves of the clients believe in two histories of one log.",
            "the coordinator with 1 of 4 witnesses, who signs both; clients want 3 cosignatures",
            "An honest witness signs one history. Two histories need 2 * 3 cosignatures, and there are 3 honest ones "
            "and 2 of the liar.",
        ),
        lambda seed: split_view(seed, WITNESSES, 1),
    ),
    _attack(
        "log-split-view-beyond-quorum",
        Protocol.PAIRWISE,
        (
            "Have two halves of the clients believe in two histories of one log.",
            "the coordinator with 2 of 4 witnesses, who sign both; clients want 3 cosignatures",
            "It succeeds: 2 k - n = 2 witnesses that lie are one too many. What they signed proves it to anybody who "
            "compares two checkpoints. Inputs stay secret: what clients release rests on thresholds, not on the log "
            "alone.",
        ),
        lambda seed: split_view(seed, WITNESSES, 2),
    ),
    _attack(
        "log-split-view-unwitnessed",
        Protocol.PAIRWISE,
        (
            "Have two halves of the clients believe in two histories of one log.",
            "the coordinator alone; clients ask for no witnesses",
            "It succeeds: without witnesses a client knows only that the log does not contradict what it has seen "
            "itself. Inputs stay secret: what clients release rests on thresholds.",
        ),
        lambda seed: split_view(seed, 0, 0),
    ),
    _attack(
        "log-split-committee",
        Protocol.ONE_SHOT,
        (
            "Show some members a close with the victim and others one without it, and have both answered.",
            "the coordinator with 1 of 4 witnesses and 2 of 7 committee members",
            "Members want 3 cosignatures, and both closes stand in the same place of the log: honest witnesses sign "
            "one of them. With more liars among the witnesses both are answered, and 2 r > m + c still keeps either "
            "from having enough answers.",
        ),
        lambda seed: split_members(seed, 1),
    ),
    _attack(
        "log-goes-back",
        Protocol.ONE_SHOT,
        (
            "Put the coordinator's disk back to before a client contributed, and close and open the session again.",
            "the coordinator with 2 of 7 committee members; 4 honest witnesses",
            "Witnesses have cosigned a longer log and sign nothing that contradicts it, so the second close is never "
            "published. Members have answered the first close and keep what they saw of the log.",
        ),
        goes_back,
    ),
    _attack(
        "log-old-checkpoint",
        Protocol.PAIRWISE,
        (
            "Show a client that comes back the log as it was before it left.",
            "the coordinator alone; 4 honest witnesses, whose old cosignatures are genuine",
            "A client keeps the last checkpoint that it verified. A log that is shorter, or does not continue it, is "
            "a fork.",
        ),
        old_checkpoint,
    ),
)
"""Attacks on the log. Two succeed, and say why."""
