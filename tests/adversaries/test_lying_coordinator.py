"""A coordinator that deviates, against the real client machines: every lie is refused for its own reason.

The session behind it is honest up to the lie; the coordinator holds its key and signs whatever it wants.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import pytest

from secagg.crypto.sealing import SealingKey, seal
from secagg.crypto.secret import Secret
from secagg.derive import boxes, threshold
from secagg.derive.graph import masking_graph
from secagg.derive.threshold import graph_parameters
from secagg.protocol.errors import ProtocolError, RejectReason
from secagg.protocol.messages import (
    AdvertisedList,
    ClosedList,
    Confirmations,
    IncomingBoxes,
    NeighbourKeys,
    SessionEnded,
    SharedList,
    SignedReceipt,
)
from secagg.protocol.pairwise.client_states import Aborted, Answered, ClientState, Confirmed
from secagg.protocol.pairwise.coordinator_states import Folding, Publishing
from secagg.protocol.phases import Phase
from secagg.protocol.rows import SetupRow
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.transcript import merkle
from secagg.transcript.entries import (
    KeysAdvertised,
    KeysShared,
    SessionAbort,
    SessionClose,
    SessionOpen,
    SessionResult,
    decode_entry,
)
from secagg.transcript.statements import (
    Absent,
    Accepted,
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    Dropped,
    Receipt,
    Signed,
)
from tests.support.aggregates import some_adapter
from tests.support.cohort import key_of, signed_roster
from tests.support.liars import advance, cohort_of, stop
from tests.support.published import HeldLog, evidence_of
from tests.support.rng import CountingRng
from tests.support.stage import (
    Stage,
    close_with,
    closed_list,
    closing,
    corrupt_confirmation,
    dispositions,
    header_of,
    refusal,
    restarted,
    sent,
    shares_of,
    signed_by,
    signed_log,
    stage_of,
    step,
    tell,
    unmasked,
)

ALL = frozenset(range(7))
CORRUPT = 6
"""The client that colludes: ``max_corrupt`` is 1."""


@pytest.fixture(scope="module")
def stage() -> Stage:
    return stage_of()


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A sparse graph of 24, by the product's formulas for larger cohorts."""
    threshold._parameters.cache_clear()
    monkeypatch.setattr(threshold, "COMPLETE_UP_TO", 10)
    yield stage_of(24, 12, 1, Fraction(1, 10))
    threshold._parameters.cache_clear()
    stage_of.cache_clear()


def confirmed(stage: Stage, index: int, shown: ClosedList) -> Confirmed:
    state = step(stage, index, stage.contributed[index], shown).state
    assert isinstance(state, Confirmed)
    return state


def around(stage: Stage, index: int, shown: ClosedList, among: set[int] | frozenset[int] = ALL) -> Confirmations:
    """Confirmations of a close by the neighbours of ``index`` among some clients."""
    return Confirmations(tuple(corrupt_confirmation(stage, other, shown) for other in sorted(among - {index})))


def u1_list(stage: Stage, leaves: list[bytes], honest: AdvertisedList, count: int | None = None) -> AdvertisedList:
    session = stage.session.parameters.session
    entry = KeysAdvertised(session, len(leaves) if count is None else count, merkle.root(leaves))
    return AdvertisedList(signed_log(stage.session, stage.log[0], entry), tuple(leaves), honest.keys)


def u2_list(stage: Stage, leaves: list[bytes], honest: SharedList, count: int) -> SharedList:
    entry = KeysShared(stage.session.parameters.session, count, merkle.root(leaves))
    inbox = tuple(item for item in honest.inbox if b"absent" not in leaves[item.sender])
    return SharedList(signed_log(stage.session, *stage.log[:2], entry), tuple(leaves), inbox)


def test_the_honest_story_opens_the_exact_sum(stage: Stage) -> None:
    assert unmasked(stage, sorted(ALL), [tell(stage, stage.closed, ALL)]) == [16383] * 7


class TestListsANeighbourAsAliveToSomeAndDroppedToOthers:
    @pytest.mark.parametrize("victim", [0, 3])
    @pytest.mark.parametrize("told_alive", range(6))
    def test_both_secrets_of_the_victim_stay_out_of_reach(self, stage: Stage, victim: int, told_alive: int) -> None:
        honest = [index for index in sorted(ALL) if index not in {victim, CORRUPT}]
        forks = [
            tell(stage, close_with(stage, ALL), [*honest[:told_alive], victim], {CORRUPT}),
            tell(stage, close_with(stage, ALL - {victim}), honest[told_alive:], {CORRUPT}),
        ]
        self_masks, roots = shares_of(stage, victim, forks, {CORRUPT})
        assert min(self_masks, roots) < stage.threshold
        assert not (forks[0].answers and forks[1].answers)

    def test_one_confirmation_of_another_close_shows_the_fork(self, stage: Stage) -> None:
        alive, dropped = close_with(stage, ALL), close_with(stage, ALL - {3})
        signed = (*around(stage, 0, alive, ALL - {1}).signed, corrupt_confirmation(stage, 1, dropped))
        reason = refusal(stage, 0, confirmed(stage, 0, alive), Confirmations(signed))
        assert reason is RejectReason.LOG_FORKED


class TestForgesBoxes:
    def forged(self, stage: Stage, item: IncomingBoxes) -> IncomingBoxes:
        mask_public = stage.advertised_lists[0].keys[-1].mask_public
        info = boxes.pair_box_info(stage.session.digest, stage.cohort.root, item.sender, 6)
        return dataclasses.replace(item, pair_box=seal(mask_public, info, Secret(b"known to the liar".ljust(32))))

    def test_a_pair_seed_forged_towards_the_highest_index_is_under_no_root(self, stage: Stage) -> None:
        honest = stage.shared_lists[6]
        lie = dataclasses.replace(honest, inbox=(self.forged(stage, honest.inbox[0]), *honest.inbox[1:]))
        assert refusal(stage, 6, stage.shared[6], lie) is RejectReason.WITHHELD_BOXES

    def test_every_pair_seed_forged_towards_the_highest_index_is_no_better(self, stage: Stage) -> None:
        honest = stage.shared_lists[6]
        lie = dataclasses.replace(honest, inbox=tuple(self.forged(stage, item) for item in honest.inbox))
        assert refusal(stage, 6, stage.shared[6], lie) is RejectReason.WITHHELD_BOXES

    def test_a_root_over_forged_boxes_needs_the_signature_of_the_sender(self, stage: Stage) -> None:
        honest = stage.shared_lists[6]
        signed = Signed.from_bytes(honest.leaves[0])
        statement = dataclasses.replace(signed.statement, boxes=bytes(32))
        leaves = [Signed(statement, signed.signature).to_bytes(), *honest.leaves[1:]]
        assert refusal(stage, 6, stage.shared[6], u2_list(stage, leaves, honest, 7)) is RejectReason.BAD_SIGNATURE

    def test_boxes_of_another_sender_in_this_ones_name_are_refused(self, stage: Stage) -> None:
        honest = stage.shared_lists[6]
        swapped = dataclasses.replace(honest.inbox[1], sender=0)
        lie = dataclasses.replace(honest, inbox=(swapped, *honest.inbox[1:]))
        assert refusal(stage, 6, stage.shared[6], lie) is RejectReason.WITHHELD_BOXES

    def test_a_box_for_somebody_else_is_refused(self, stage: Stage) -> None:
        honest = stage.shared_lists[5]
        lie = dataclasses.replace(honest, inbox=(stage.shared_lists[4].inbox[0], *honest.inbox[1:]))
        assert lie.inbox[0].sender == honest.inbox[0].sender
        assert refusal(stage, 5, stage.shared[5], lie) is RejectReason.WITHHELD_BOXES


class TestThinsTheGraph:
    def test_withholding_one_box_is_refused(self, stage: Stage) -> None:
        honest = stage.shared_lists[2]
        lie = dataclasses.replace(honest, inbox=honest.inbox[1:])
        assert refusal(stage, 2, stage.shared[2], lie) is RejectReason.WITHHELD_BOXES

    def test_a_box_that_is_sent_twice_takes_no_other_ones_place(self, stage: Stage) -> None:
        honest = stage.shared_lists[2]
        lie = dataclasses.replace(honest, inbox=(honest.inbox[1], *honest.inbox[1:]))
        assert refusal(stage, 2, stage.shared[2], lie) is RejectReason.WITHHELD_BOXES

    def test_declaring_neighbours_absent_stops_the_client_below_the_threshold(self, stage: Stage) -> None:
        gone = {0, 1, 3}
        leaves = [Absent(i).to_bytes() if i in gone else leaf for i, leaf in enumerate(stage.shared_lists[2].leaves)]
        lie = u2_list(stage, leaves, stage.shared_lists[2], 4)
        assert stage.threshold > 4 - 1
        assert refusal(stage, 2, stage.shared[2], lie) is RejectReason.TOO_FEW_NEIGHBOURS

    def test_declaring_more_absent_than_the_minimum_allows_is_refused(self, stage: Stage) -> None:
        gone = {0, 1, 3, 4}
        leaves = [Absent(i).to_bytes() if i in gone else leaf for i, leaf in enumerate(stage.shared_lists[2].leaves)]
        lie = u2_list(stage, leaves, stage.shared_lists[2], 3)
        assert refusal(stage, 2, stage.shared[2], lie) is RejectReason.BELOW_MINIMUM

    def test_counting_the_absent_as_present_is_refused(self, stage: Stage) -> None:
        leaves = [Absent(0).to_bytes(), *stage.shared_lists[2].leaves[1:]]
        lie = u2_list(stage, leaves, stage.shared_lists[2], 7)
        assert refusal(stage, 2, stage.shared[2], lie) is RejectReason.LOG_MISMATCH

    def test_an_absent_leaf_in_the_place_of_another_is_refused(self, stage: Stage) -> None:
        leaves = [Absent(1).to_bytes(), *stage.shared_lists[2].leaves[1:]]
        lie = u2_list(stage, leaves, stage.shared_lists[2], 6)
        assert refusal(stage, 2, stage.shared[2], lie) is RejectReason.LOG_MISMATCH

    def test_declaring_the_client_itself_absent_is_refused(self, stage: Stage) -> None:
        honest = stage.shared_lists[2]
        leaves = [Absent(2).to_bytes() if i == 2 else leaf for i, leaf in enumerate(honest.leaves)]
        assert refusal(stage, 2, stage.shared[2], u2_list(stage, leaves, honest, 6)) is RejectReason.OWN_ENTRY_MISSING

    def test_a_shorter_list_than_the_cohort_is_refused(self, stage: Stage) -> None:
        honest = stage.shared_lists[2]
        lie = u2_list(stage, list(honest.leaves[:6]), dataclasses.replace(honest, inbox=honest.inbox[:5]), 6)
        assert refusal(stage, 2, stage.shared[2], lie) is RejectReason.LOG_MISMATCH

    def test_shares_signed_over_another_u1_are_refused(self, stage: Stage) -> None:
        honest = stage.shared_lists[2]
        statement = dataclasses.replace(Signed.from_bytes(honest.leaves[0]).statement, advertised=bytes(32))
        leaves = [signed_by(stage.keys[0], statement).to_bytes(), *honest.leaves[1:]]
        assert refusal(stage, 2, stage.shared[2], u2_list(stage, leaves, honest, 7)) is RejectReason.WRONG_LOG_ROOT


class TestLogsTwoCloses:
    def test_a_second_close_in_one_log_is_refused(self, stage: Stage) -> None:
        first, second = close_with(stage, ALL), close_with(stage, ALL - {3})
        log = (*first.evidence.entries, second.evidence.entries[3])
        lie = ClosedList(signed_log(stage.session, *log), second.leaves)
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_ORDER

    def test_two_forked_logs_are_never_both_answered(self, stage: Stage) -> None:
        honest = ALL - {CORRUPT}
        for size in range(len(honest) + 1):
            for half in itertools.combinations(sorted(honest), size):
                shown = close_with(stage, ALL - {3}), close_with(stage, ALL - {4})
                forks = [
                    tell(stage, shown[0], half, {CORRUPT}),
                    tell(stage, shown[1], honest - set(half), {CORRUPT}),
                ]
                assert not (forks[0].answers and forks[1].answers)

    def test_who_confirmed_one_close_confirms_no_other(self, stage: Stage) -> None:
        state = confirmed(stage, 0, close_with(stage, ALL))
        assert refusal(stage, 0, state, close_with(stage, ALL - {3})) is RejectReason.WRONG_PHASE

    def test_a_log_that_is_not_what_the_client_saw_is_refused(self, stage: Stage) -> None:
        shared = KeysShared(stage.session.parameters.session, 7, bytes(32))
        close = close_with(stage, ALL)
        evidence = signed_log(stage.session, *stage.log[:2], shared, close.evidence.entries[3])
        lie = ClosedList(evidence, close.leaves)
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_FORKED

    def test_a_shorter_log_than_the_client_saw_is_refused(self, stage: Stage) -> None:
        lie = ClosedList(signed_log(stage.session, *stage.log[:2]), close_with(stage, ALL).leaves)
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_FORKED

    @pytest.mark.parametrize(
        "entries",
        [
            pytest.param((0, 2, 1, 3), id="out of order"),
            pytest.param((0, 1, 2, 2, 3), id="keys shared twice"),
            pytest.param((0, 1, 1, 2, 3), id="keys advertised twice"),
            pytest.param((0, 0, 1, 2, 3), id="opened twice"),
        ],
    )
    def test_entries_out_of_their_only_order_are_refused(self, stage: Stage, entries: tuple[int, ...]) -> None:
        state = stage.advertised[0]
        evidence = signed_log(stage.session, *(stage.log[i] for i in entries))
        lie = dataclasses.replace(stage.advertised_lists[0], evidence=evidence)
        assert refusal(stage, 0, state, lie) is RejectReason.LOG_ORDER

    def test_an_abort_in_the_middle_is_refused(self, stage: Stage) -> None:
        session_abort = SessionAbort(stage.session.parameters.session, "regrets", 0, merkle.root(()))
        lie = ClosedList(
            signed_log(stage.session, *stage.log[:3], session_abort, stage.log[3]), close_with(stage, ALL).leaves
        )
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_ORDER

    def test_after_an_abort_nobody_answers(self, stage: Stage) -> None:
        session_abort = SessionAbort(stage.session.parameters.session, "regrets", 0, merkle.root(()))
        state = confirmed(stage, 0, stage.closed)
        evidence = signed_log(stage.session, *stage.closed.evidence.entries, session_abort)
        after = step(stage, 0, state, SessionEnded(evidence)).state
        assert isinstance(after, Aborted)
        assert refusal(stage, 0, after, around(stage, 0, stage.closed)) is RejectReason.SESSION_OVER

    def test_a_result_in_a_forked_log_ends_nothing(self, stage: Stage) -> None:
        state = confirmed(stage, 0, stage.closed)
        other = close_with(stage, ALL - {3}).evidence.entries
        result = SessionResult(stage.session.parameters.session, 6, *[bytes(32)] * 3, some_adapter())
        lie = SessionEnded(signed_log(stage.session, *other, result))
        assert refusal(stage, 0, state, lie) is RejectReason.LOG_FORKED


class TestSignsWhatItShouldNot:
    def test_a_head_under_another_key_is_refused(self, stage: Stage) -> None:
        close = close_with(stage, ALL)
        honest = close.evidence
        forged = evidence_of(key_of("somebody else"), honest.entries, [signed_roster(stage.session).to_bytes()])
        lie = dataclasses.replace(close, evidence=forged)
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_SIGNATURE

    def test_a_head_over_other_entries_is_refused(self, stage: Stage) -> None:
        close, other = close_with(stage, ALL), close_with(stage, ALL - {3})
        evidence = dataclasses.replace(other.evidence, entries=close.evidence.entries)
        lie = dataclasses.replace(close, evidence=evidence)
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_SIGNATURE

    def test_a_receipt_for_another_header_is_refused(self, stage: Stage) -> None:
        receipt = Receipt(stage.session.digest, bytes(32)).to_bytes()
        lie = SignedReceipt(receipt, key_of("coordinator").sign_statement(receipt))
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.WRONG_RECEIPT

    def test_an_unsigned_receipt_is_refused(self, stage: Stage) -> None:
        digest = hashlib.sha256(header_of(stage, 0).to_bytes()).digest()
        lie = SignedReceipt(Receipt(stage.session.digest, digest).to_bytes(), bytes(64))
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.WRONG_RECEIPT


class TestGrindsTheCohort:
    @pytest.mark.parametrize(("cohort", "corrupt"), [(120, 12), (200, 20), (300, 60)])
    def test_however_the_circle_falls_the_threshold_keeps_both_kinds_apart(self, cohort: int, corrupt: int) -> None:
        parameters = graph_parameters(cohort, corrupt, cohort // 2, stage_of().session.parameters.expected_dropout)
        colluding = set(range(corrupt))
        worst = 0
        for attempt in range(60):
            graph = masking_graph(CountingRng(b"grind %d" % attempt).bytes(32), cohort, parameters.degree)
            counts = (len(colluding.intersection(graph.neighbours(index))) for index in range(corrupt, cohort))
            worst = max(worst, *counts)
        # Each honest neighbour gives one kind, each colluding one both.
        assert 2 * parameters.threshold > parameters.degree + worst

    @pytest.mark.parametrize(("cohort", "corrupt"), [(120, 12), (200, 20), (300, 60)])
    def test_even_2_to_the_100_tries_would_not_find_a_circle_that_is_bad_enough(
        self, cohort: int, corrupt: int
    ) -> None:
        parameters = graph_parameters(cohort, corrupt, cohort // 2, Fraction(0))
        needed = 2 * parameters.threshold - parameters.degree
        bad = sum(
            math.comb(corrupt, count) * math.comb(cohort - 1 - corrupt, parameters.degree - count)
            for count in range(needed, min(corrupt, parameters.degree) + 1)
        )
        assert Fraction(cohort * bad, math.comb(cohort - 1, parameters.degree)) < Fraction(1, 2**128)

    @pytest.mark.parametrize("corrupt", [{6}, {0}, {3}])
    def test_the_admitted_corrupt_client_does_not_open_both_kinds_wherever_it_stands(
        self, stage: Stage, corrupt: set[int]
    ) -> None:
        honest = sorted(ALL - corrupt)
        victim = honest[2]
        for size in range(len(honest) + 1):
            forks = [
                tell(stage, close_with(stage, ALL), honest[:size], corrupt),
                tell(stage, close_with(stage, ALL - {victim}), honest[size:], corrupt),
            ]
            assert min(shares_of(stage, victim, forks, corrupt)) < stage.threshold

    def test_one_corrupt_client_more_than_stated_is_what_the_threshold_does_not_survive(self) -> None:
        """The measure of the tests above: in the smallest cohort the bound is tight."""
        tight = stage_of(6, 3, 1)
        assert 2 * tight.threshold <= (tight.size - 1) + 1 + 2
        assert 2 * tight.threshold > (tight.size - 1) + 1


class TestAsksTwice:
    def test_who_answered_answers_no_second_set(self, stage: Stage) -> None:
        state = confirmed(stage, 0, stage.closed)
        answered = step(stage, 0, state, around(stage, 0, stage.closed)).state
        assert isinstance(answered, Answered)
        other = close_with(stage, ALL - {3})
        assert refusal(stage, 0, answered, other) is RejectReason.WRONG_PHASE
        assert refusal(stage, 0, answered, around(stage, 0, other)) is RejectReason.WRONG_PHASE
        assert refusal(stage, 0, answered, around(stage, 0, stage.closed)) is RejectReason.WRONG_PHASE

    def test_an_answer_leaves_no_share_behind(self, stage: Stage) -> None:
        state = confirmed(stage, 0, stage.closed)
        answered = step(stage, 0, state, around(stage, 0, stage.closed)).state
        assert {field.name for field in dataclasses.fields(answered)} == {"view", "contributions"}

    def test_the_first_list_of_keys_is_the_only_one(self, stage: Stage) -> None:
        assert refusal(stage, 0, stage.shared[0], stage.advertised_lists[0]) is RejectReason.WRONG_PHASE

    def test_the_first_list_of_boxes_is_the_only_one(self, stage: Stage) -> None:
        assert refusal(stage, 0, stage.contributed[0], stage.shared_lists[0]) is RejectReason.WRONG_PHASE


class TestReplaysAnotherSession:
    def test_an_old_close_entry_is_refused(self, stage: Stage) -> None:
        leaves = dispositions(stage, ALL)
        old = closing(leaves, b"another session!")
        lie = ClosedList(signed_log(stage.session, *stage.log[:3], old), tuple(leaf.to_bytes() for leaf in leaves))
        # It stands in the log as any entry of another session does; of this one there is none.
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_MISMATCH

    def test_headers_of_another_session_with_the_same_identifier_are_refused(self, stage: Stage) -> None:
        statement = dataclasses.replace(header_of(stage, 1).statement, session=bytes(32))
        leaves = dispositions(stage, ALL)
        leaves[1] = Accepted(1, signed_by(stage.keys[1], statement))
        assert refusal(stage, 0, stage.contributed[0], closed_list(stage, leaves)) is RejectReason.WRONG_SESSION

    def test_keys_of_another_session_are_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        statement = dataclasses.replace(Signed.from_bytes(honest.leaves[1]).statement, session=bytes(32))
        leaves = [honest.leaves[0], signed_by(stage.keys[1], statement).to_bytes(), *honest.leaves[2:]]
        assert refusal(stage, 0, stage.advertised[0], u1_list(stage, leaves, honest)) is RejectReason.WRONG_SESSION

    def test_shares_of_another_session_are_refused(self, stage: Stage) -> None:
        honest = stage.shared_lists[0]
        statement = dataclasses.replace(Signed.from_bytes(honest.leaves[1]).statement, session=bytes(32))
        leaves = [honest.leaves[0], signed_by(stage.keys[1], statement).to_bytes(), *honest.leaves[2:]]
        assert refusal(stage, 0, stage.shared[0], u2_list(stage, leaves, honest, 7)) is RejectReason.WRONG_SESSION

    def test_confirmations_of_another_session_are_refused(self, stage: Stage) -> None:
        state = confirmed(stage, 0, stage.closed)
        statement = ConfirmStatement(bytes(32), state.view.close_digest, stage.keys[1].public_bytes)
        lie = Confirmations((signed_by(stage.keys[1], statement),))
        assert refusal(stage, 0, state, lie) is RejectReason.WRONG_SESSION


class TestSubstitutesKeys:
    def substituted(self, stage: Stage, index: int) -> AdvertiseStatement:
        statement = Signed.from_bytes(stage.advertised_lists[0].leaves[index]).statement
        assert isinstance(statement, AdvertiseStatement)
        return dataclasses.replace(statement, share_key=bytes(32))

    def test_an_own_key_with_a_stolen_signature_is_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        leaves = [signed_by(stage.keys[0], self.substituted(stage, 0)).to_bytes(), *honest.leaves[1:]]
        assert refusal(stage, 0, stage.advertised[0], u1_list(stage, leaves, honest)) is RejectReason.OWN_ENTRY_MISSING

    def test_leaving_the_client_out_is_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        lie = u1_list(stage, list(honest.leaves[1:]), honest)
        assert refusal(stage, 0, stage.advertised[0], lie) is RejectReason.OWN_ENTRY_MISSING

    def test_a_neighbours_key_without_its_signature_is_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        old = Signed.from_bytes(honest.leaves[1]).signature
        leaves = [honest.leaves[0], Signed(self.substituted(stage, 1), old).to_bytes(), *honest.leaves[2:]]
        assert refusal(stage, 0, stage.advertised[0], u1_list(stage, leaves, honest)) is RejectReason.BAD_SIGNATURE

    @pytest.mark.parametrize("name", ["mask_public", "share_public"])
    def test_a_neighbours_key_that_is_not_the_signed_one_is_refused(self, stage: Stage, name: str) -> None:
        honest = stage.advertised_lists[0]
        ours = SealingKey(Secret(bytes(32))).public_bytes
        keys = (dataclasses.replace(honest.keys[0], **{name: ours}), *honest.keys[1:])
        lie = dataclasses.replace(honest, keys=keys)
        assert refusal(stage, 0, stage.advertised[0], lie) is RejectReason.BAD_KEY

    def test_keys_in_the_name_of_another_neighbour_are_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        second = honest.keys[1]
        renamed = NeighbourKeys(honest.keys[0].index, second.mask_public, second.share_public)
        lie = dataclasses.replace(honest, keys=(renamed, *honest.keys[1:]))
        assert refusal(stage, 0, stage.advertised[0], lie) is RejectReason.BAD_KEY

    def test_keys_of_fewer_neighbours_are_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        lie = dataclasses.replace(honest, keys=honest.keys[1:])
        assert refusal(stage, 0, stage.advertised[0], lie) is RejectReason.WRONG_RECIPIENTS


class TestPresentsClientsThatDoNotExist:
    def stranger(self, stage: Stage, after: bytes) -> bytes:
        """A leaf signed by an identity outside the roster that sorts behind all others."""
        for number in itertools.count():
            key = key_of(f"stranger {number}")
            if key.public_bytes > after:
                statement = AdvertiseStatement(stage.session.digest, key.public_bytes, bytes(32), bytes(32))
                return signed_by(key, statement).to_bytes()
        raise AssertionError

    def test_an_identity_outside_the_roster_is_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        last = stage.keys[5].public_bytes
        lie = u1_list(stage, [*honest.leaves[:6], self.stranger(stage, last)], honest)
        assert refusal(stage, 0, stage.advertised[0], lie) is RejectReason.OUTSIDE_ROSTER

    def test_an_identity_that_is_listed_twice_is_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        lie = u1_list(stage, [*honest.leaves, honest.leaves[6]], honest)
        assert refusal(stage, 0, stage.advertised[0], lie) is RejectReason.LOG_MISMATCH

    def test_a_list_that_is_not_under_the_logged_root_is_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        lie = dataclasses.replace(honest, leaves=(*honest.leaves[:6], honest.leaves[5]))
        assert refusal(stage, 0, stage.advertised[0], lie) is RejectReason.LOG_MISMATCH

    def test_a_count_that_is_not_the_lists_is_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        lie = u1_list(stage, list(honest.leaves), honest, count=8)
        assert refusal(stage, 0, stage.advertised[0], lie) is RejectReason.LOG_MISMATCH

    def test_fewer_keys_than_the_minimum_are_refused(self, stage: Stage) -> None:
        honest = stage.advertised_lists[0]
        lie = u1_list(stage, list(honest.leaves[:3]), honest)
        assert refusal(stage, 0, stage.advertised[0], lie) is RejectReason.BELOW_MINIMUM

    def test_a_confirmation_by_a_stranger_counts_for_nothing(self, stage: Stage) -> None:
        state = confirmed(stage, 0, stage.closed)
        key = key_of("stranger")
        statement = ConfirmStatement(stage.session.digest, state.view.close_digest, key.public_bytes)
        lie = Confirmations((*around(stage, 0, stage.closed).signed, signed_by(key, statement)))
        assert refusal(stage, 0, state, lie) is RejectReason.NOT_IN_COHORT


class TestClosesWhatMustNotBeClosed:
    def test_fewer_than_the_minimum_are_refused(self, stage: Stage) -> None:
        lie = close_with(stage, {0, 1, 2})
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.BELOW_MINIMUM

    def test_fewer_than_the_minimum_that_are_counted_as_enough_are_refused(self, stage: Stage) -> None:
        lie = closed_list(stage, dispositions(stage, {0, 1, 2}), count=4)
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_MISMATCH

    @pytest.mark.parametrize("counts", [(1, 0), (0, 0), (0, 2), (2, 0)])
    def test_counts_of_rejected_and_dropped_that_are_not_the_lists_are_refused(
        self, stage: Stage, counts: tuple[int, int]
    ) -> None:
        good = close_with(stage, ALL - {3})
        entry = SessionClose.from_bytes(good.evidence.entries[3])
        assert (entry.rejected, entry.dropped) == (0, 1)
        entry = dataclasses.replace(entry, rejected=counts[0], dropped=counts[1])
        lie = ClosedList(signed_log(stage.session, *stage.log[:3], entry), good.leaves)
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_MISMATCH

    def test_the_minimum_itself_is_accepted_and_opens_the_sum_of_exactly_those(self, stage: Stage) -> None:
        # Five of seven: the threshold needs four neighbours that confirm.
        accepted = [0, 1, 2, 4, 6]
        fork = tell(stage, close_with(stage, accepted), accepted)
        assert unmasked(stage, accepted, [fork]) == [16383 * (index in accepted) for index in range(7)]

    def test_a_close_that_leaves_the_client_out_ends_the_session_for_it(self, stage: Stage) -> None:
        transition = step(stage, 0, stage.contributed[0], close_with(stage, ALL - {0}))
        assert isinstance(transition.state, Aborted)
        assert (transition.state.reason, transition.effects) == (RejectReason.LEFT_OUT, ())
        assert refusal(stage, 0, transition.state, close_with(stage, ALL)) is RejectReason.SESSION_OVER

    def test_a_close_with_another_header_of_the_client_ends_the_session_for_it(self, stage: Stage) -> None:
        statement = dataclasses.replace(header_of(stage, 0).statement, upload=bytes(32))
        leaves = dispositions(stage, ALL)
        leaves[0] = Accepted(0, signed_by(stage.keys[0], statement))
        transition = step(stage, 0, stage.contributed[0], closed_list(stage, leaves))
        assert isinstance(transition.state, Aborted)
        assert (transition.state.reason, transition.effects) == (RejectReason.LEFT_OUT, ())

    def test_a_contribution_that_its_client_did_not_sign_is_refused(self, stage: Stage) -> None:
        signed = header_of(stage, 1)
        statement = dataclasses.replace(signed.statement, upload=bytes(32))
        leaves = dispositions(stage, ALL)
        leaves[1] = Accepted(1, Signed(statement, signed.signature))
        assert refusal(stage, 0, stage.contributed[0], closed_list(stage, leaves)) is RejectReason.BAD_SIGNATURE

    def test_one_contribution_in_two_places_is_refused(self, stage: Stage) -> None:
        leaves = dispositions(stage, ALL)
        leaves[2] = Accepted(2, header_of(stage, 1))
        assert refusal(stage, 0, stage.contributed[0], closed_list(stage, leaves)) is RejectReason.LOG_MISMATCH

    def test_a_disposition_out_of_its_place_is_refused(self, stage: Stage) -> None:
        leaves = dispositions(stage, ALL)
        leaves[2] = Dropped(3, "masked-input")
        assert refusal(stage, 0, stage.contributed[0], closed_list(stage, leaves)) is RejectReason.LOG_MISMATCH

    def test_fewer_dispositions_than_clients_are_refused(self, stage: Stage) -> None:
        lie = closed_list(stage, dispositions(stage, ALL)[:6])
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_MISMATCH

    def test_a_contribution_root_over_others_is_refused(self, stage: Stage) -> None:
        leaves = dispositions(stage, ALL)
        entry: SessionClose = closing(leaves, stage.session.parameters.session)
        entry = dataclasses.replace(entry, contributions=bytes(32))
        lie = ClosedList(signed_log(stage.session, *stage.log[:3], entry), tuple(leaf.to_bytes() for leaf in leaves))
        assert refusal(stage, 0, stage.contributed[0], lie) is RejectReason.LOG_MISMATCH

    def test_a_contribution_over_another_u2_is_refused(self, stage: Stage) -> None:
        statement = dataclasses.replace(header_of(stage, 1).statement, shared=bytes(32))
        leaves = dispositions(stage, ALL)
        leaves[1] = Accepted(1, signed_by(stage.keys[1], statement))
        assert refusal(stage, 0, stage.contributed[0], closed_list(stage, leaves)) is RejectReason.WRONG_LOG_ROOT

    def test_a_contribution_of_another_length_is_refused(self, stage: Stage) -> None:
        statement = dataclasses.replace(header_of(stage, 1).statement, lanes=1)
        leaves = dispositions(stage, ALL)
        leaves[1] = Accepted(1, signed_by(stage.keys[1], statement))
        assert refusal(stage, 0, stage.contributed[0], closed_list(stage, leaves)) is RejectReason.WRONG_LENGTH

    def test_a_contribution_masked_without_an_honest_neighbour_is_refused(self, stage: Stage) -> None:
        statement = header_of(stage, 1).statement
        assert isinstance(statement, ContributionHeader)
        leaves = dispositions(stage, ALL)
        leaves[1] = Accepted(1, signed_by(stage.keys[1], dataclasses.replace(statement, missing=(2,))))
        assert refusal(stage, 0, stage.contributed[0], closed_list(stage, leaves)) is RejectReason.ASYMMETRIC_EDGE

    def test_a_contribution_that_misses_who_is_no_neighbour_is_refused(self, stage: Stage) -> None:
        statement = header_of(stage, 1).statement
        assert isinstance(statement, ContributionHeader)
        leaves = dispositions(stage, ALL)
        leaves[1] = Accepted(1, signed_by(stage.keys[1], dataclasses.replace(statement, missing=(1,))))
        assert refusal(stage, 0, stage.contributed[0], closed_list(stage, leaves)) is RejectReason.WRONG_MISSING

    def test_a_contribution_without_shared_keys_is_refused(self) -> None:
        thin = stage_of(7, 3, 1)
        state = dataclasses.replace(thin.contributed[0], present=(0, 2, 3, 4, 5, 6))
        assert refusal(thin, 0, state, close_with(thin, ALL)) is RejectReason.LOG_MISMATCH

    def test_fewer_confirmations_than_the_threshold_open_nothing(self, stage: Stage) -> None:
        state = confirmed(stage, 0, stage.closed)
        few = around(stage, 0, stage.closed, set(range(stage.threshold)))
        assert len(few.signed) == stage.threshold - 1
        assert refusal(stage, 0, state, few) is RejectReason.TOO_FEW_CONFIRMATIONS

    def test_confirmations_of_all_neighbours_but_no_quorum_open_nothing(self, sparse: Stage) -> None:
        state = confirmed(sparse, 0, sparse.closed)
        neighbours = frozenset(sparse.graph.neighbours(0))
        assert sparse.threshold <= len(neighbours) < sparse.session.quorum(sparse.size) - 1
        few = around(sparse, 0, sparse.closed, neighbours)
        assert refusal(sparse, 0, state, few) is RejectReason.TOO_FEW_CONFIRMATIONS

    def test_a_quorum_is_enough_and_one_fewer_is_not(self, sparse: Stage) -> None:
        state = confirmed(sparse, 0, sparse.closed)
        neighbours = sparse.graph.neighbours(0)
        others = [*neighbours, *(index for index in range(1, sparse.size) if index not in neighbours)]
        quorum = sparse.session.quorum(sparse.size)
        enough = around(sparse, 0, sparse.closed, frozenset(others[: quorum - 1]))
        few = around(sparse, 0, sparse.closed, frozenset(others[: quorum - 2]))
        assert isinstance(step(sparse, 0, state, enough).state, Answered)
        assert refusal(sparse, 0, state, few) is RejectReason.TOO_FEW_CONFIRMATIONS

    def test_a_quorum_without_enough_neighbours_opens_nothing(self, sparse: Stage) -> None:
        state = confirmed(sparse, 0, sparse.closed)
        neighbours = sparse.graph.neighbours(0)
        strangers = frozenset(range(1, sparse.size)) - frozenset(neighbours[: 1 + len(neighbours) - sparse.threshold])
        assert len(strangers) >= sparse.session.quorum(sparse.size)
        assert refusal(sparse, 0, state, around(sparse, 0, sparse.closed, strangers)) is (
            RejectReason.TOO_FEW_CONFIRMATIONS
        )

    def test_one_confirmation_repeated_counts_once(self, stage: Stage) -> None:
        state = confirmed(stage, 0, stage.closed)
        repeated = Confirmations(around(stage, 0, stage.closed, {1}).signed * stage.threshold)
        assert refusal(stage, 0, state, repeated) is RejectReason.TOO_FEW_CONFIRMATIONS

    def test_the_clients_own_confirmation_counts_for_nothing(self, stage: Stage) -> None:
        state = confirmed(stage, 0, stage.closed)
        lie = Confirmations((corrupt_confirmation(stage, 0, stage.closed),))
        assert refusal(stage, 0, state, lie) is RejectReason.NOT_IN_COHORT

    def test_a_confirmation_of_who_is_not_in_the_sum_counts_for_nothing(self, stage: Stage) -> None:
        shown = close_with(stage, ALL - {1})
        lie = Confirmations((corrupt_confirmation(stage, 1, shown),))
        assert refusal(stage, 0, confirmed(stage, 0, shown), lie) is RejectReason.NOT_IN_COHORT

    def test_forged_confirmations_are_refused(self, stage: Stage) -> None:
        state = confirmed(stage, 0, stage.closed)
        forged = Confirmations(tuple(Signed(s.statement, bytes(64)) for s in around(stage, 0, stage.closed).signed))
        assert refusal(stage, 0, state, forged) is RejectReason.BAD_SIGNATURE


class TestRestartsInTheMiddle:
    @pytest.mark.parametrize("victim", [1, 5])
    def test_a_restarted_client_does_not_give_the_opposite_share(self, stage: Stage, victim: int) -> None:
        alive, dropped = close_with(stage, ALL), close_with(stage, ALL - {victim})
        state: ClientState = restarted(confirmed(stage, 0, alive))
        assert refusal(stage, 0, state, dropped) is RejectReason.WRONG_PHASE
        assert refusal(stage, 0, state, around(stage, 0, dropped)) is RejectReason.LOG_FORKED
        state = restarted(step(stage, 0, state, around(stage, 0, alive)).state)
        assert refusal(stage, 0, state, dropped) is RejectReason.WRONG_PHASE
        assert refusal(stage, 0, state, around(stage, 0, dropped)) is RejectReason.WRONG_PHASE

    def test_a_client_that_restarts_in_every_phase_answers_as_if_it_had_not(self, stage: Stage) -> None:
        state = restarted(stage.contributed[0])
        transition = step(stage, 0, state, stage.closed)
        assert transition == step(stage, 0, stage.contributed[0], stage.closed)
        state = restarted(transition.state)
        answer = sent(step(stage, 0, state, around(stage, 0, stage.closed)))
        assert answer == tell(stage, stage.closed, ALL).answers[0]

    @pytest.mark.parametrize("position", [1, 2, 3, 4])
    def test_a_coordinator_that_crashes_while_it_publishes_publishes_the_same_entry(self, position: int) -> None:
        """The log takes the entry, the process dies before it hears so, and another process goes on."""
        kind = (SessionOpen, KeysAdvertised, KeysShared, SessionClose, SessionResult)[position]

        async def run() -> list[bytes]:
            cohort = await cohort_of(5)
            log = cohort.host._ports.log
            dying = HeldLog(log, lambda entry: isinstance(entry, kind), after=True)
            cohort.host._ports = dataclasses.replace(cohort.host._ports, log=dying)
            acts = [cohort.advertise, cohort.share, cohort.upload, cohort.confirm, cohort.answer]
            for act in acts[: min(position, 3)]:
                await act(cohort.clients)
                if act is not acts[min(position, 3) - 1]:
                    await _settle(cohort.host)
            if position == 4:
                await cohort.reach(Phase.CONSISTENCY_CHECK)
                await cohort.confirm(cohort.clients)
                await cohort.answer(cohort.clients)
            for _ in range(2000):
                if log.size == position + 2:  # and the roster's entry
                    break
                await asyncio.sleep(0.001)
            await stop(cohort.host)
            again = HeldLog(log, after=True)
            ports = dataclasses.replace(cohort.host._ports, log=again)
            cohort.host = PairwiseHost(cohort.session, ports)
            await cohort.host.resume()
            for _ in range(2000):
                if not isinstance(cohort.host.driver.state, Publishing):
                    break
                await asyncio.sleep(0.001)
            assert len(cohort.host.evidence().entries) == position + 1
            await stop(cohort.host)
            return [dying.taken[-1], again.taken[0]]

        first, second = asyncio.run(run())
        assert isinstance(decode_entry(first), kind)
        assert first == second

    def test_a_session_in_the_store_is_not_opened_again(self) -> None:
        async def run() -> None:
            cohort = await cohort_of(4)
            again = PairwiseHost(cohort.session, cohort.host._ports)
            with pytest.raises(Exception, match="version"):
                await again.open(SetupRow(b"", b"", b"", b"", b""))
            await stop(again)
            await stop(cohort.host)

        asyncio.run(run())


async def _settle(host: PairwiseHost) -> None:
    """Wait until the phase that everybody has acted in is over."""
    for _ in range(2000):
        if not isinstance(host.driver.state, Publishing | Folding):
            return
        await asyncio.sleep(0.001)


def test_the_lists_of_the_real_host_are_accepted_where_the_lies_are_not(stage: Stage) -> None:
    """The measure of this module: the lies differ from these in one thing each."""
    for index in sorted(ALL):
        step(stage, index, stage.advertised[index], stage.advertised_lists[index])
        step(stage, index, stage.shared[index], stage.shared_lists[index])
        step(stage, index, stage.contributed[index], stage.closed)


def test_a_cohort_below_the_minimum_never_starts() -> None:
    async def run() -> str:
        cohort = await cohort_of(4, min_contributors=4)
        await advance(cohort, Phase.ADVERTISE_KEYS)
        await cohort.advertise(cohort.clients[:3])
        await cohort.end_phase(Phase.ABORTED)
        with pytest.raises(ProtocolError):
            cohort.host.advertised_list(cohort.clients[0].identity)
        reason = cohort.host.driver.state.reason
        await stop(cohort.host)
        return reason

    assert asyncio.run(run()) == "fewer than min_contributors advertised keys"
