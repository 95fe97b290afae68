"""Attacks on one-shot sessions fail against the real machines, and succeed once the rule that stops them is gone."""

from __future__ import annotations

import dataclasses

import pytest

from secagg.protocol import log
from secagg.protocol.one_shot import member
from secagg.protocol.one_shot.member_states import (
    SESSION_ROW,
    Holding,
    LogShown,
    OpenAsked,
    SessionRow,
    row_key,
)
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.member_session import MemberSession
from secagg.transcript.openers import Committee
from simulations.attacks import one_shot_coordinator as coordinator
from simulations.attacks.attack import AttackResult
from simulations.attacks.interrogation import Scheme, attempt, plan_of
from simulations.loop import run_virtually
from simulations.plan import CommitteePlan, Plan

SEED = 7
COORDINATOR = {attack.name: attack for attack in coordinator.ATTACKS}


def tried(scheme: Scheme, plan: Plan | None = None) -> AttackResult:
    return run_virtually(attempt(plan or plan_of(SEED), scheme))


def weak_committee(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Four of seven open, two may be corrupt: 2 r is not above m + c."""
    monkeypatch.setattr(CommitteePlan, "__post_init__", lambda _: None)
    monkeypatch.setattr(Committee, "check", lambda _: None)
    return plan_of(SEED, CommitteePlan(members=7, needed=4, max_corrupt=2))


def members_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member takes every request for the first one, and every log for the first that it sees."""
    step = member.step

    def forgetful(context, rows, state, event):
        if not isinstance(event, OpenAsked | LogShown):
            return step(context, rows, state, event)
        row = rows[row_key(SESSION_ROW)]
        evidence = event.evidence
        view = log.LogView(evidence.start, evidence.prefix, evidence.entries[:1], evidence.entries[:1])
        rows = {**rows, row_key(SESSION_ROW): SessionRow(view, row.joined_at_s)}
        return step(context, rows, Holding(), event)

    monkeypatch.setattr(member, "step", forgetful)
    monkeypatch.setattr(LogTrust, "check", lambda *_: None)
    monkeypatch.setattr(LogTrust, "remember", lambda *_: None)

    async def keep(_: MemberSession) -> None:
        return

    monkeypatch.setattr(MemberSession, "forget_boxes", keep)


def any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log may have two closes, and the last one counts."""
    monkeypatch.setattr(log, "_check_entry", lambda *_: None)
    monkeypatch.setattr(
        log.LogView,
        "_entry",
        lambda view, kind: next(
            (each for each in map(log.decode_entry, reversed(view.entries)) if isinstance(each, kind)), None
        ),
    )
    monkeypatch.setattr(log.LogView, "close_entry", property(lambda view: view.close.to_bytes()))


REFUSALS = {
    "committee-two-sets": ["member-2 to member-6 refused the sum of clients 1, 2, 3 and 4: LOG_FORKED"],
    "committee-split": [],
    "committee-below-minimum": [
        "member-2 to member-6 refused the sum of two contributions, three are the minimum: BELOW_MINIMUM"
    ],
    "committee-single-contribution": [
        "member-2 to member-6 refused one contribution under a close that counts three: LOG_MISMATCH"
    ],
    "committee-repeated-contribution": [
        "member-2 to member-6 refused a set that has one contribution three times: LOG_MISMATCH"
    ],
    "committee-strangers": [
        "member-2 to member-6 refused contributions of strangers: UNKNOWN_IDENTITY",
        "member-2 to member-6 refused a set of one client and 3 contributions of strangers: SHARE_NOT_HELD",
    ],
    "committee-impersonation": [
        "member-2 to member-6 refused contributions in the names of others: BAD_SIGNATURE",
        "member-2 to member-6 refused a set of one client and 4 contributions in the names of others: SHARE_NOT_HELD",
    ],
}


class TestACoordinatorAgainstItsCommittee:
    @pytest.mark.parametrize("name", list(COORDINATOR))
    def test_it_opens_nothing_below_the_minimum(self, name: str) -> None:
        result = COORDINATOR[name].run(SEED)
        assert not result.succeeded
        assert result.learned == ()
        assert result.ended == "finished" or result.ended.startswith("aborted: ")
        if name in REFUSALS:
            assert list(result.refusals) == REFUSALS[name]

    def test_the_same_seed_tells_the_same_story(self) -> None:
        attack = COORDINATOR["committee-impersonation"]
        assert attack.run(3) == attack.run(3)

    def test_members_that_forget_what_they_answered_open_two_sets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        members_forget(monkeypatch)
        result = tried(coordinator.two_sets)
        assert result.succeeded
        assert result.learned == (
            "the sum of client 0 alone, exactly what they contributed (16383 for a 1): 16383, 0, 0, 0, 0, 0, 0, 0",
        )

    def test_members_that_forget_in_a_crash_open_two_sets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        members_forget(monkeypatch)
        assert tried(coordinator.crashed).succeeded

    def test_a_committee_of_which_too_few_are_needed_opens_two_sets_and_nobody_refuses(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = tried(coordinator.split, weak_committee(monkeypatch))
        assert result.succeeded
        assert result.refusals == ()

    def test_in_such_a_committee_the_order_of_the_log_still_stops_two_closes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = weak_committee(monkeypatch)
        result = tried(coordinator.two_closes, plan)
        assert not result.succeeded
        assert any("LOG_ORDER" in each for each in result.refusals)
        any_order(monkeypatch)
        assert tried(coordinator.two_closes, plan).succeeded

    def test_a_member_that_does_not_count_opens_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(member, "_why_over", lambda *_: None)
        result = tried(coordinator.below_minimum)
        assert result.succeeded
        assert "alone, exactly what they contributed" in result.learned[0]

    def test_a_member_that_does_not_compare_the_set_with_the_close_opens_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(member, "_check_set", lambda event, *_: event.hashes)
        result = tried(coordinator.single)
        assert result.succeeded
        assert "client 0 alone, exactly" in result.learned[0]

    def test_a_member_that_takes_a_contribution_twice_opens_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        positions = member._positions
        monkeypatch.setattr(
            member, "_positions", lambda rows, hashes, size: positions(rows, list(dict.fromkeys(hashes)), size)
        )
        result = tried(coordinator.repeated)
        assert result.succeeded
        assert "client 0 alone, exactly" in result.learned[0]

    def test_strangers_whom_the_registrar_put_into_the_roster_fill_a_set_up(self) -> None:
        result = tried(coordinator.strangers, dataclasses.replace(plan_of(SEED), clients=9))
        assert result.succeeded
        assert "client 0 alone, exactly" in result.learned[0]

    def test_members_that_verify_no_signature_let_the_coordinator_fill_a_set_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(member, "check_signature", lambda *_: None)
        result = tried(coordinator.impersonation)
        assert result.succeeded
        assert "client 0 alone, exactly" in result.learned[0]
