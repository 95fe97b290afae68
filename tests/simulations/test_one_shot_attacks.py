"""Attacks on one-shot sessions fail against the real machines, and succeed once the rule that stops them is gone."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.fields import FieldLayout
from secagg.arith.ring_mask import RingMask
from secagg.arith.seeded_shamir import LARGEST_LIFT
from secagg.derive import ring_opening
from secagg.derive.ring_opening import MaskedSum
from secagg.protocol.one_shot import admission, member, tables
from secagg.protocol.one_shot import coordinator as coordinator_machine
from secagg.protocol.rows import StagedRow
from secagg.runtime import opened_sum
from secagg.transcript.openers import Committee
from simulations.attacks import one_shot_coordinator as coordinator
from simulations.attacks import one_shot_parties as parties
from simulations.attacks.attack import AttackResult
from simulations.attacks.interrogation import Scheme, attempt, plan_of
from simulations.attacks.one_shot_liars import WrongSums
from simulations.world.loop import run_virtually
from simulations.world.plan import CommitteePlan, Plan
from tests.simulations.broken_rules import any_order, members_forget

SEED = 7
PARTIES = {attack.name: attack for attack in parties.ATTACKS}
COORDINATOR = {attack.name: attack for attack in coordinator.ATTACKS}


@functools.cache
def played(name: str) -> AttackResult:
    """An attack on everything as it is; played once for all tests."""
    return {**COORDINATOR, **PARTIES}[name].run(SEED)


def tried(scheme: Scheme, plan: Plan | None = None) -> AttackResult:
    return run_virtually(attempt(plan or plan_of(SEED), scheme))


def weak_committee(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Four of seven open, two may be corrupt: 2 r is not above m + c."""
    monkeypatch.setattr(CommitteePlan, "__post_init__", lambda _: None)
    monkeypatch.setattr(Committee, "check", lambda _: None)
    return plan_of(SEED, CommitteePlan(members=7, needed=4, max_corrupt=2))


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
        result = played(name)
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


def only_the_first_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first five answers are used, whatever they give."""
    everything = opened_sum.open_with_shares

    def first(committee, answers, masked):
        used = sorted(answers)[: committee.needed]
        return everything(committee, {place: answers[place] for place in used}, masked)

    monkeypatch.setattr(opened_sum, "open_with_shares", first)


def nothing_is_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the answers give is taken for the secret sum, and whatever comes out of it for the sum."""
    unpack, unmask = FieldLayout.unpack_sum, RingMask._unmask
    reconstruct = ring_opening.reconstruct_sum

    def uncertified(masked: MaskedSum, secret_sum: np.ndarray) -> np.ndarray:
        lanes = masked.lanes.copy()
        bound = masked.mask.secret_bound(masked.contributors)
        masked.mask.certify_and_unmask(
            lanes, np.clip(secret_sum, -bound, bound), masked.contributors, masked.public_key
        )
        return lanes

    def unpacked(layout: FieldLayout, lanes: np.ndarray, contributors: int) -> np.ndarray:
        try:
            return unpack(layout, lanes, contributors)
        except ArithmeticInputError:
            return np.ones(layout.dimension, dtype=np.int64)

    def unmasked(*arguments: object) -> int:
        unmask(*arguments)
        return 0

    monkeypatch.setattr(RingMask, "_unmask", unmasked)
    monkeypatch.setattr(MaskedSum, "certified", uncertified)
    monkeypatch.setattr(
        ring_opening, "reconstruct_sum", lambda points, shares, _: reconstruct(points, shares, LARGEST_LIFT)
    )
    monkeypatch.setattr(opened_sum, "without_padding", lambda lanes, encoded: lanes[:encoded])
    monkeypatch.setattr(FieldLayout, "unpack_sum", unpacked)


class TestMembersAndClients:
    @pytest.mark.parametrize("name", list(PARTIES))
    def test_they_get_nothing_wrong_published_and_see_nothing_more(self, name: str) -> None:
        result = played(name)
        assert not result.succeeded
        assert result.learned == ()

    def test_two_liars_are_outvoted_and_listed(self) -> None:
        result = played("members-wrong-sums")
        assert result.ended == "finished"
        assert result.steps[-2:] == (
            "The sum of clients 0, 1, 2, 3, 4 and 5 is published, which is what they contributed.",
            "The record lists member-0 and member-1 as not fitting the sum, without blame.",
        )

    def test_two_liars_whose_errors_cancel_have_honest_members_listed_and_the_sum_is_right(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of members 0, 1, 4, 5 and 6 the first two count 7/2 and -7/2 times: who is listed proves nothing."""
        error = np.zeros(4096, dtype=np.uint64)
        error[0] = 1
        monkeypatch.setattr(WrongSums, "error", lambda _: error)
        result = PARTIES["members-wrong-sums"].run(SEED)
        assert not result.succeeded
        assert result.steps[-2:] == (
            "The sum of clients 0, 1, 2, 3, 4 and 5 is published, which is what they contributed.",
            "The record lists member-2 and member-3 as not fitting the sum, without blame.",
        )

    @pytest.mark.parametrize("name", ["members-wrong-sums", "client-inconsistent-shares"])
    def test_where_other_answers_are_not_tried_liars_end_the_session(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        only_the_first_answers(monkeypatch)
        result = PARTIES[name].run(SEED)
        assert result.succeeded
        assert result.ended == "aborted: no set of answers opens the sum"

    @pytest.mark.parametrize("name", ["members-wrong-sums-too-many", "client-foreign-shares"])
    def test_where_nothing_is_certified_a_wrong_sum_is_published(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        assert played(name).ended == "aborted: no set of answers opens the sum"
        nothing_is_certified(monkeypatch)
        result = PARTIES[name].run(SEED)
        assert result.succeeded
        assert "which is wrong" in " ".join(result.steps)

    def test_where_every_member_has_to_hold_everything_two_complaints_end_the_session(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def everybody(rows, staged, _session, committee):
            everywhere = (1 << len(committee.members)) - 1
            held = tuple(at for at in staged if tables.holdings(rows, at).held == everywhere)
            return tables.NamedSet(tuple(range(len(committee.members))), held)

        monkeypatch.setattr(coordinator_machine.tables, "choose_named", everybody)
        result = PARTIES["members-false-complaints"].run(SEED)
        assert result.succeeded
        assert result.ended == "aborted: too few shares are held by enough members"

    def test_where_any_bytes_count_under_a_header_an_altered_retry_ends_the_session(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        honest = played("client-altered-retry")
        assert honest.refusals == (
            "the coordinator refused other bytes under the header that was signed: WRONG_UPLOAD",
            "the coordinator refused a second header of the same client: EQUIVOCATION",
        )
        monkeypatch.setattr(admission, "staged_row", lambda _rows, _position, digest: StagedRow(digest))
        assert PARTIES["client-altered-retry"].run(SEED).succeeded

    def test_with_one_member_fewer_needed_four_open_the_sum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert played("members-silent").ended == "aborted: too few answers to open the sum"
        result = run_virtually(parties.silent_members(weak_committee(monkeypatch)))
        assert result.succeeded
        assert result.ended == "finished"

    def test_with_one_member_more_those_who_listen_open_one_client(self) -> None:
        result = run_virtually(parties.listening_members(SEED, (0, 1, 2, 3, 4)))
        assert result.succeeded
        assert result.learned == (
            "the sum of client 0 alone, exactly what they contributed (16383 for a 1): 16383, 0, 0, 0, 0, 0, 0, 0",
        )
