"""Forged records of a session that follows another: the second session of ``two-session`` or ``pilot-basis``.

Edits by their name alone are of the second session, as ``first.close`` of the first, as ``attempt 0.open`` of an
attempt at the second that was aborted.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from secagg.arith.ring_mask import usable_bits_for
from secagg.crypto.signing import SigningKey
from secagg.lora.container import read_header, read_tensors
from secagg.lora.maps import FixedTensors
from secagg.transcript.merge import contributors_digest, is_pilot, second_session
from tests.support import forged_merges
from tests.support.forge import POLICY, Forge
from tests.support.forge_closing import SessionForge
from tests.support.forge_one_shot import OneShotForge, OneShotPlan
from tests.support.forge_one_shot_record import openers_table
from tests.support.forge_session import Edit, Plan

MEMBERS = (0, 2, 3, 5, 8)
OPENED_AT_S = 1_700_000_000
SHARE = Fraction(1, 2)


@dataclass(frozen=True)
class Pair:
    """Plans of two sessions, of which the second is made from what the first published.

    Attributes:
        first: the plan of the first, by the roster's keys.
        second: the plan of the second.
    """

    first: Callable[[tuple[SigningKey, ...]], Plan]
    second: Callable[[SessionForge], Plan]


class FollowingForge(Forge):
    """A record in the making; ``run`` plays the first session, attempts that fail, and the second session, ``main``."""

    def __init__(self, pair: Pair, edits: Mapping[str, Edit] | None = None, failed_attempts: int = 0) -> None:
        super().__init__(edits)
        self.pair, self.failed_attempts = pair, failed_attempts
        self.first = self._session(self.around, "first", pair.first(self.around.identities))
        self.attempts: list[SessionForge] = []

    @property
    def sessions(self) -> list[SessionForge]:
        """All sessions."""
        return [self.first, *self.attempts, self.main]

    def run(self) -> FollowingForge:
        """Play everything, one session after the other."""
        self.append(self.roster_entry())
        self.play(self.first)
        for attempt in range(self.failed_attempts):
            failed = self.session_after(f"attempt {attempt}", attempt)
            self.attempts.append(failed)
            for step in (failed.open, failed.abort):
                self.append(step())
        self.main = self.session_after("main", self.failed_attempts)
        self.play(self.main)
        return self

    def play(self, session: SessionForge) -> None:
        """All steps of a session."""
        for step in (session.open, session.advertise, session.share, session.close, session.result):
            self.append(step())

    def session_after(self, name: str, attempt: int) -> SessionForge:
        """An attempt at the second session, not played yet."""
        session = self._session(self.around, name, self.pair.second(self.first))
        session.session_id = second_session(self.first.session_id, attempt)
        return session


class OneShotFollowingForge(FollowingForge):
    """The same two sessions as one-shot ones, opened by a committee."""

    policy_text = POLICY + openers_table()

    def play(self, session: Any) -> None:
        """All steps of a session, which is told where its open entry stands."""
        session.opened_at = len(self.entries)
        for step in (session.open, session.close, session.result):
            self.append(step())

    def _session_forge(self, around: Any, name: str, plan: Plan, edits: Mapping[str, Edit]) -> Any:
        dimension = plan.encoding.dimension
        usable_bits = usable_bits_for(15, 16, dimension)
        one_shot = OneShotPlan(
            plan.members,
            encoding=replace(plan.encoding, value_bits=15, max_contributors=16, usable_bits=usable_bits),
            shapes=plan.shapes,
            adapter=plan.adapter,
            merge=plan.merge,
            fixed=plan.fixed,
            min_contributors=plan.min_contributors,
            opened_at_s=plan.opened_at_s,
        )
        return OneShotForge(around, name, one_shot, edits)


def basis_of(session: Any) -> FixedTensors:
    """The bases that a first session published."""
    data = session.aggregate["basis.safetensors"]
    file = io.BytesIO(data)
    return dict(read_tensors(file, read_header(file, len(data))))


def contributors_of(session: Any) -> list[bytes]:
    """The identities in the sum of a session."""
    return [signed.statement.identity for signed in session.contributed]


def _plan(members: tuple[int, ...], later_s: int, merging: dict[str, Any]) -> Plan:
    return Plan(members=members, opened_at_s=OPENED_AT_S + later_s, min_contributors=len(members), **merging)


def two_session() -> Pair:
    """Five people, of whom all are in both sums."""

    def second(first: SessionForge) -> Plan:
        contributors = contributors_digest(contributors_of(first))
        merging = forged_merges.projections(first.session_id, basis_of(first), contributors)
        return _plan(MEMBERS, 100, merging)

    return Pair(lambda _: _plan(MEMBERS, 0, forged_merges.ranges()), second)


def pilot_basis(sides: int = 1) -> Pair:
    """Those who are drawn as pilots, then five of the others."""
    plan = forged_merges.pilots(sides, SHARE)

    def drawn(keys: tuple[SigningKey, ...]) -> list[bool]:
        return [is_pilot(forged_merges.SEED, SHARE, key.public_bytes) for key in keys]

    def first(keys: tuple[SigningKey, ...]) -> Plan:
        members = tuple(place for place, pilot in enumerate(drawn(keys)) if pilot)
        return _plan(members, 0, plan)

    def second(before: SessionForge) -> Plan:
        members = [place for place, pilot in enumerate(drawn(before.around.identities)) if not pilot]
        merging = forged_merges.others(before.session_id, basis_of(before), plan["merge"])
        return _plan(tuple(members), 100, merging)

    return Pair(first, second)


def without(plan: Plan, member: int) -> Plan:
    """The same session without one person."""
    members = tuple(one for one in plan.members if one != member)
    return replace(plan, members=members, min_contributors=min(plan.min_contributors, len(members)))
