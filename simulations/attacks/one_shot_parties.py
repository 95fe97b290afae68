"""Attacks of committee members and clients on one-shot sessions: lying ones, silent ones, and those that only listen.

Liars want a wrong sum published, a client left out, or a session without an end; the coordinator is honest. Whether
they got it is read off the session: what is published is compared with what the accepted clients really contributed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from secagg.runtime.ports import BlobStore
from secagg.transcript.entries import OneShotResult
from simulations.attacks.attack import Attack, AttackResult
from simulations.attacks.interrogation import PHASE_S, VICTIM, LyingCoordinator, plan_of
from simulations.attacks.notebook import Notebook, how_it_ended, named, numbered
from simulations.attacks.one_shot_liars import AlteringRetrier, InconsistentDealer, let_members_lie
from simulations.exploring.operations import MemberLie
from simulations.world.cast import client_name, member_name
from simulations.world.loop import run_virtually
from simulations.world.plan import Plan, Protocol
from simulations.world.world import World

LIAR = 5
"""The client that lies."""
_TOLD = {"share_refused": "a share", "answer_refused": "an answer"}


@dataclass(frozen=True, slots=True)
class Published:
    """How a session ended, compared with what it should have added up."""

    ended: str
    accepted: frozenset[int]
    total: tuple[int, ...] | None
    is_right: bool

    @classmethod
    def of(cls, world: World) -> Published:
        """Of a session that has ended, or goes on for ever."""
        ended, accepted, total = how_it_ended(world), world.accepted(), world.integer_sum()
        if total is None:
            return cls(ended, accepted, None, is_right=False)
        is_right = np.array_equal(total, world.expected_sum(accepted))
        return cls(ended, accepted, tuple(map(int, total)), is_right)

    @property
    def is_wrong(self) -> bool:
        """Whether a sum is published that is none."""
        return self.total is not None and not self.is_right


Prepare = Callable[[World, Notebook], None]
"""Puts liars into a world before the session is opened."""
Judge = Callable[[Published], bool]
"""Whether the liars got what they wanted."""


async def played(seed: int, prepare: Prepare, judge: Judge) -> AttackResult:
    """A session of six clients, all of which contribute, with liars in it."""
    world, notes = World(plan_of(seed)), Notebook()
    prepare(world, notes)
    await world.open()
    for number in range(world.plan.clients):
        world.join(number)
    await world.until_over(20 * PHASE_S)
    for happening in world.happenings:
        if happening.node == "coordinator" and happening.what in _TOLD:
            notes.refused("the coordinator", _TOLD[happening.what], happening.detail)
    found = Published.of(world)
    _tell(world, notes, found)
    return notes.result(found.ended, (), succeeded=judge(found))


def _tell(world: World, notes: Notebook, found: Published) -> None:
    notes.step(f"The session ends: {found.ended}.")
    if found.total is None:
        notes.step("No sum is published.")
        return
    verdict = "which is what they contributed" if found.is_right else f"which is wrong: {found.total}"
    notes.step(f"The sum of {numbered(found.accepted)} is published, {verdict}.")
    for entry in world.entries():
        if isinstance(entry, OneShotResult) and entry.dissenting:
            names = named([member_name(place) for place in entry.dissenting])
            notes.step(f"The record lists {names} as not fitting the sum, without blame.")


# Members that lie


def lying_members(world: World, notes: Notebook, places: Sequence[int] = (0, 1)) -> None:
    """Members that sign wrong sums of shares, off by one at most in every place."""
    let_members_lie(world, places, MemberLie.WRONG_SUM)
    notes.step(
        f"{named([member_name(at) for at in places])} answer with share sums that are off by one in most places."
    )


def three_lying_members(world: World, notes: Notebook) -> None:
    """One more than may be corrupt."""
    lying_members(world, notes, (0, 1, 2))


def complaining_members(world: World, notes: Notebook) -> None:
    """Members that say they do not hold what they hold."""
    let_members_lie(world, (0, 1), MemberLie.COMPLAINS)
    notes.step("member-0 and member-1 complain of every box, though all boxes are in order.")


# Clients that lie


def inconsistent_for(places: Sequence[int]) -> Prepare:
    """A client that deals the members in these places shares of another secret."""

    def prepare(world: World, notes: Notebook) -> None:
        world.wrapped[LIAR] = lambda client, port: InconsistentDealer(client, port, tuple(places))
        notes.step(f"{client_name(LIAR)} deals {len(places)} of {len(world.members)} members shares of another secret.")

    return prepare


def altered_retry(world: World, notes: Notebook) -> None:
    """A client that uploads several times, and other bytes each time."""

    def heard(what: str, reason: str) -> None:
        notes.refused("the coordinator", what, reason)

    world.wrapped[LIAR] = lambda client, port: AlteringRetrier(client, port, heard)
    notes.step(f"{client_name(LIAR)} uploads three times: altered, honest, and altered under a second header.")


# Too few members


async def silent_members(plan: Plan, silent: Sequence[int] = (4, 5, 6)) -> AttackResult:
    """Members that hold their shares and never answer: the others are too few."""
    liar = LyingCoordinator(World(plan), frozenset())
    world = liar.world
    await world.open()
    contributions = await liar.collect(range(world.plan.clients - 1))
    for place in silent:
        world.kill(member_name(place))
    liar.notes.step(f"{named([member_name(place) for place in silent])} die before they are asked.")
    result = await liar.finish()
    kept = [number for number, each in contributions.items() if _is_kept(world, each.upload_name)]
    liar.notes.step(
        f"Of {len(contributions)} contributions that were acknowledged the coordinator still has {len(kept)}."
    )
    is_open, is_lost = world.integer_sum() is not None, len(kept) < len(contributions)
    return liar.notes.result(result.ended, result.learned, succeeded=is_open or is_lost)


def _is_kept(world: World, digest: bytes) -> bool:
    blobs: BlobStore = world.coordinator.disk.blobs
    return blobs.has(digest)


async def listening_members(seed: int, corrupt: Sequence[int] = (0, 1, 2, 3)) -> AttackResult:
    """Members that do all they should, and give the coordinator every share that they hold."""
    liar = LyingCoordinator(World(plan_of(seed)), frozenset(corrupt))
    await liar.world.open()
    contributions = await liar.collect(range(liar.world.plan.clients - 1))
    held = ", ".join(liar.view.explain())
    liar.notes.step(f"Before anything is opened, {len(corrupt)} shares of every client determine: {held}.")
    liar.spoils.add_corrupt([contributions[VICTIM]])
    return await liar.finish()


def _sessions(name: str, prepare: Prepare, judge: Judge, texts: tuple[str, str, str]) -> Attack:
    goal, adversary, why = texts

    def run(seed: int) -> AttackResult:
        return run_virtually(played(seed, prepare, judge))

    return Attack(name, Protocol.ONE_SHOT, goal, adversary, why, run)


def is_wrong_or_none(found: Published) -> bool:
    """They wanted a wrong sum, or none."""
    return not found.is_right


def is_wrong(found: Published) -> bool:
    """They wanted a wrong sum; that there is none is not what they wanted."""
    return found.is_wrong


def leaves_out_victim(found: Published) -> bool:
    """They wanted a client left out, or no sum."""
    return VICTIM not in found.accepted or not found.is_right


ATTACKS: tuple[Attack, ...] = (
    _sessions(
        "members-wrong-sums",
        lying_members,
        is_wrong_or_none,
        (
            "Have a wrong sum published, or none at all.",
            "2 of 7 committee members; any 5 open the sum",
            "The first 5 answers whose secret sum certifies count: it is small, and leaves a small error in every "
            "lane. 5 honest members are enough. Those that do not fit are listed, which proves nothing: two liars "
            "whose errors cancel each other can be used, and honest members listed.",
        ),
    ),
    _sessions(
        "members-wrong-sums-too-many",
        three_lying_members,
        is_wrong,
        (
            "Have a wrong sum published.",
            "3 of 7 committee members, one more than the session says may be corrupt",
            "No 5 answers certify, so nothing is published. The liars do end the session: beyond the assumed number "
            "of corrupt members nobody promises that it ends with a sum.",
        ),
    ),
    _sessions(
        "members-false-complaints",
        complaining_members,
        leaves_out_victim,
        (
            "Have clients left out, or the session ended, by complaints of boxes that are in order.",
            "2 of 7 committee members",
            "Members that lack contributions are not named in the close, as long as 5 others hold all of them. Nobody "
            "is blamed: a complaint and a bad box look the same.",
        ),
    ),
    _sessions(
        "client-inconsistent-shares",
        inconsistent_for((0, 1)),
        is_wrong_or_none,
        (
            "Have a wrong sum published, or none, by shares that do not belong together.",
            "1 client of 6; it deals 2 of 7 members shares of another secret",
            "The sums of these members do not fit those of the others. 5 that fit each other are enough.",
        ),
    ),
    _sessions(
        "client-foreign-shares",
        inconsistent_for(range(7)),
        is_wrong,
        (
            "Have a wrong sum published, by shares of a secret that does not mask the lanes.",
            "1 client of 6; it deals all members shares of another secret",
            "The members agree, and the secret sum they give leaves a large error in the lanes, so it does not "
            "certify and nothing is published. The client does end the session, and nobody can be named for it. "
            "Smaller sessions bound that damage.",
        ),
    ),
    _sessions(
        "client-altered-retry",
        altered_retry,
        is_wrong_or_none,
        (
            "Be counted twice, or with other bytes than were signed, by uploads that are not the same twice.",
            "1 client of 6",
            "Of each client one header counts, the first. Bytes count if they are those that the header signed.",
        ),
    ),
    Attack(
        "members-silent",
        Protocol.ONE_SHOT,
        "Open the sum with fewer members than are needed, or lose what was acknowledged.",
        "3 of 7 committee members die before they answer; any 5 open the sum",
        "4 shares of a polynomial of degree 4 say nothing of its value at 0. The session waits for its deadline and "
        "aborts; the contributions stay at the coordinator for the time that the session states.",
        lambda seed: run_virtually(silent_members(plan_of(seed))),
    ),
    Attack(
        "members-listening",
        Protocol.ONE_SHOT,
        "Compute one client's vector from shares and from everything that the coordinator has.",
        "the coordinator with 4 of 7 committee members, who act honestly and give all shares away; any 5 open",
        "Whatever the secret is, there is exactly one fifth share for it, so 4 shares fit every secret. Only the "
        "published sum follows. 4 are more than the 2 that may be corrupt: if they also answered twice, two sets "
        "could be opened.",
        lambda seed: run_virtually(listening_members(seed)),
    ),
)
"""Attacks of members and clients."""
