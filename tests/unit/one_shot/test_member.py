"""The machine of a committee member, step by step."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from secagg.crypto.sealing import seal
from secagg.crypto.secret import Secret
from secagg.crypto.signing import verify_statement
from secagg.protocol.errors import LocalProtocolError, ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import member
from secagg.protocol.one_shot.member_states import (
    MEMBER_PERSISTENCE,
    Answered,
    Answering,
    BoxesStored,
    HeldRow,
    HeldShare,
    Holding,
    LogShown,
    MemberEvent,
    MemberState,
    OpenAsked,
    Over,
    RetentionPassed,
    Row,
    SharesLost,
    SharesSummed,
    StoredShare,
    SumShares,
    row_key,
)
from secagg.protocol.one_shot.messages import HeldBox
from secagg.protocol.one_shot.session import OneShotSession
from secagg.transcript import merkle
from secagg.transcript.entries import OneShotClose
from secagg.transcript.merkle import leaf_hash
from secagg.transcript.openers import Committee, SummedCiphertext
from secagg.transcript.statements import MemberAnswer
from tests.support import one_shot
from tests.support.one_shot import Contribution, abort_of, close_of, evidence_of, honest_session, result_of

SUM = bytes(4 * 4096)
PLACE = 3
"""The last member: its boxes hold shares in full."""


class Machine:
    """The machine of one member, whose state and rows pass through the store's encoding after every step."""

    def __init__(self, session: OneShotSession, place: int = PLACE, **rules: object) -> None:
        self.context = one_shot.member_context(session, place, **rules)
        first = member.start(self.context, one_shot.joined_view(session), one_shot.NOW_S)
        self.state: MemberState = first.state
        self.rows: dict[int, Row] = dict(first.rows)  # type: ignore[arg-type]
        self.effects: list[SumShares] = []

    def feed(self, event: MemberEvent) -> None:
        transition = member.step(self.context, self.rows, self.state, event)
        self.state = restored(transition.state)
        self.rows |= {key: restored(row) for key, row in transition.rows.items()}
        self.effects += [restored(effect) for effect in transition.effects]

    def hold(self, *contributions: Contribution) -> None:
        first = len(self.rows)
        shares = [judged(self, each.item(self.context.place)) for each in contributions]
        self.feed(BoxesStored(tuple(StoredShare(share, first + at) for at, share in enumerate(shares))))

    def refusal(self, event: MemberEvent) -> RejectReason:
        before = self.state, dict(self.rows)
        with pytest.raises(ProtocolError) as caught:
            self.feed(event)
        assert (self.state, self.rows) == before
        return caught.value.reason


def restored(value):
    return MEMBER_PERSISTENCE.decode(MEMBER_PERSISTENCE.encode(value))


def judged(machine: Machine, item: HeldBox) -> HeldShare:
    return member.judge(machine.context, one_shot.sealing_key(machine.context.place), machine.rows, item)


def complaint(machine: Machine, item: HeldBox) -> RejectReason:
    with pytest.raises(RemoteProtocolError) as caught:
        judged(machine, item)
    return caught.value.reason


def leaves(contributions) -> bytes:
    return b"".join(leaf_hash(each.leaf) for each in contributions)


def asked(session: OneShotSession, chosen, *entries: object, **changes: object) -> OpenAsked:
    shown = entries or (close_of(session, chosen, **changes),)
    return OpenAsked(evidence_of(session, *shown), leaves(chosen))


@pytest.fixture
def session() -> OneShotSession:
    return honest_session()[0]


@pytest.fixture
def everybody() -> tuple[Contribution, ...]:
    return honest_session()[1]


@pytest.fixture
def holding(session, everybody) -> Machine:
    machine = Machine(session)
    machine.hold(*everybody)
    return machine


class TestJoining:
    def test_a_session_is_joined_before_it_is_closed(self, session, everybody):
        context = one_shot.member_context(session)
        view = one_shot.log.join(
            session.parameters, one_shot.WITNESSED, evidence_of(session, close_of(session, everybody))
        )
        with pytest.raises(RemoteProtocolError) as caught:
            member.start(context, view, one_shot.NOW_S)
        assert caught.value.reason is RejectReason.WRONG_PHASE

    @pytest.mark.parametrize(
        ("rules", "reason"),
        [
            ({"coordinators": frozenset({bytes(32)})}, RejectReason.NOT_SERVED),
            ({"coordinators": frozenset()}, RejectReason.NOT_SERVED),
            ({"registrars": frozenset({bytes(32)})}, RejectReason.NOT_SERVED),
            ({"min_contributors": 4}, RejectReason.NOT_SERVED),
            ({"restored_at_s": one_shot.NOW_S - 600}, RejectReason.OPENED_BEFORE),
        ],
    )
    def test_a_session_that_is_none_for_this_member_is_not_joined(self, session, rules, reason):
        context = one_shot.member_context(session, **rules)
        with pytest.raises(RemoteProtocolError) as caught:
            member.start(context, one_shot.joined_view(session), one_shot.NOW_S)
        assert caught.value.reason is reason

    def test_an_empty_list_of_registrars_takes_any(self, session):
        assert isinstance(Machine(session, registrars=frozenset()).state, Holding)

    def test_a_restored_member_serves_what_was_opened_well_after_the_restore(self, session):
        assert isinstance(Machine(session, restored_at_s=one_shot.NOW_S - 601).state, Holding)

    def test_a_session_from_the_future_could_outlive_a_restore_and_is_not_joined(self, session):
        context = one_shot.member_context(session)
        member.start(context, one_shot.joined_view(session), one_shot.NOW_S - 300)
        with pytest.raises(RemoteProtocolError) as caught:
            member.start(context, one_shot.joined_view(session), one_shot.NOW_S - 301)
        assert caught.value.reason is RejectReason.NOT_SERVED

    def test_a_member_stands_in_the_committee_with_both_of_its_keys_or_not_at_all(self, session):
        own = one_shot.member_key(2).public_bytes
        assert member.place_of(session.parameters, own, one_shot.sealing_key(2).public_bytes) == 2
        for identity, sealing in ((own, 1), (one_shot.member_key(9).public_bytes, 2)):
            with pytest.raises(RemoteProtocolError) as caught:
                member.place_of(session.parameters, identity, one_shot.sealing_key(sealing).public_bytes)
            assert caught.value.reason is RejectReason.NOT_SERVED


class TestHolding:
    @pytest.mark.parametrize("place", range(4))
    def test_an_honest_contribution_is_held_by_every_member(self, session, everybody, place):
        machine = Machine(session, place)
        machine.hold(everybody[1])
        assert machine.rows[row_key(1)] == HeldRow(leaf_hash(everybody[1].leaf), 1)

    def test_the_same_box_again_changes_nothing(self, holding, everybody):
        before = dict(holding.rows)
        holding.hold(everybody[0])
        assert holding.rows == before

    def test_of_two_headers_of_one_identity_the_first_stays(self, session, holding, everybody):
        other = one_shot.contribute(session, everybody[0].key, seed=b"other")
        assert complaint(holding, other.item(PLACE)) is RejectReason.EQUIVOCATION
        share = HeldShare(0, leaf_hash(other.leaf))
        before = dict(holding.rows)
        holding.feed(BoxesStored((StoredShare(share, 99),)))
        assert holding.rows == before

    def test_of_two_headers_in_one_batch_the_first_stays(self, session, everybody):
        machine = Machine(session)
        other = one_shot.contribute(session, everybody[0].key, seed=b"other")
        machine.hold(everybody[0], other)
        assert machine.rows[row_key(0)].leaf == leaf_hash(everybody[0].leaf)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"session": bytes(32)}, RejectReason.WRONG_SESSION),
            ({"lanes": 8192}, RejectReason.WRONG_LENGTH),
            ({"parts": (bytes(32),) * 3}, RejectReason.WRONG_PARTS),
            ({"parts": (bytes(32),) * 4}, RejectReason.WRONG_PARTS),
        ],
    )
    def test_a_header_that_does_not_fit_the_session_is_complained_of(self, session, everybody, changes, reason):
        header = dataclasses.replace(everybody[0].header, **changes)
        item = HeldBox(one_shot.signed_by(everybody[0].key, header), everybody[0].boxes[PLACE])
        assert complaint(Machine(session), item) is reason

    def test_a_stranger_s_contribution_is_complained_of(self, session):
        stranger = one_shot.contribute(session, one_shot.key_of("stranger"))
        assert complaint(Machine(session), stranger.item(PLACE)) is RejectReason.UNKNOWN_IDENTITY

    def test_a_header_that_its_identity_did_not_sign_is_complained_of(self, session, everybody):
        signed = one_shot.signed_by(everybody[1].key, everybody[0].header)
        item = HeldBox(signed, everybody[0].boxes[PLACE])
        assert complaint(Machine(session), item) is RejectReason.BAD_SIGNATURE

    def test_another_statement_is_no_header(self, session, everybody):
        answer = MemberAnswer(session.digest, bytes(32), everybody[0].key.public_bytes, SUM)
        item = HeldBox(one_shot.signed_by(everybody[0].key, answer), everybody[0].boxes[PLACE])  # type: ignore[arg-type]
        assert complaint(Machine(session), item) is RejectReason.MALFORMED_MESSAGE

    def test_a_box_that_the_header_does_not_name_is_complained_of(self, session, everybody):
        box = everybody[0].boxes[PLACE]
        altered = box[:-1] + bytes([box[-1] ^ 1])
        assert complaint(Machine(session), HeldBox(everybody[0].signed, altered)) is RejectReason.WRONG_PARTS

    def test_a_box_of_another_length_is_complained_of(self, session, everybody):
        item = HeldBox(everybody[0].signed, everybody[0].boxes[0])
        assert complaint(Machine(session), item) is RejectReason.WRONG_BOX_LENGTH

    def test_a_box_that_does_not_open_is_complained_of_though_the_header_names_it(self, session, everybody):
        """A contributor can hand one member's box to another, or seal what is no share."""
        boxes = everybody[0].boxes
        parts = (*everybody[0].header.parts[:3], hashlib.sha256(boxes[2]).digest())
        header = dataclasses.replace(everybody[0].header, parts=parts)
        item = HeldBox(one_shot.signed_by(everybody[0].key, header), boxes[2])
        assert complaint(Machine(session), item) is RejectReason.SHARE_NOT_HELD

    def test_what_is_sealed_must_be_field_elements(self, session, everybody):
        info = one_shot.member_box_info(session.digest, everybody[0].key.public_bytes, PLACE)
        key = one_shot.sealing_key(PLACE).public_bytes
        box = seal(key, info, Secret(b"\xff" * (4 * 4096)))
        parts = (*everybody[0].header.parts[:3], hashlib.sha256(box).digest())
        header = dataclasses.replace(everybody[0].header, parts=parts)
        item = HeldBox(one_shot.signed_by(everybody[0].key, header), box)
        assert complaint(Machine(session), item) is RejectReason.SHARE_NOT_HELD


class TestOpening:
    def test_an_honest_close_is_answered_with_the_sum_over_exactly_its_set(self, session, holding, everybody):
        chosen = [everybody[0], everybody[2], everybody[4]]
        holding.feed(asked(session, chosen))
        assert isinstance(holding.state, Answering)
        (effect,) = holding.effects
        assert effect.positions == bytes([0b10101])
        holding.feed(SharesSummed(effect.close, SUM))
        assert isinstance(holding.state, Answered)
        signed = holding.state.answer
        own = one_shot.member_key(PLACE).public_bytes
        assert signed.statement == MemberAnswer(session.digest, effect.close, own, SUM)
        verify_statement(own, signed.statement.to_bytes(), signed.signature)

    def test_the_same_request_again_changes_nothing_before_and_after_the_answer(self, session, holding, everybody):
        request = asked(session, everybody)
        holding.feed(request)
        before = holding.state
        holding.feed(request)
        assert holding.state == before
        assert len(holding.effects) == 1
        holding.feed(SharesSummed(holding.effects[0].close, SUM))
        answered = holding.state
        holding.feed(request)
        later = OpenAsked(evidence_of(session, close_of(session, everybody), result_of(session, 5)), leaves(everybody))
        holding.feed(later)
        assert holding.state == answered
        assert len(holding.effects) == 1

    @pytest.mark.parametrize("answered", [False, True])
    def test_another_close_is_never_answered(self, session, holding, everybody, answered):
        holding.feed(asked(session, everybody))
        if answered:
            holding.feed(SharesSummed(holding.effects[0].close, SUM))
        assert holding.refusal(asked(session, everybody[:4])) is RejectReason.OPENED_BEFORE
        named_otherwise = asked(session, everybody, close_of(session, everybody, (0, 1, PLACE)))
        assert holding.refusal(named_otherwise) is RejectReason.OPENED_BEFORE

    @pytest.mark.parametrize("answered", [False, True])
    def test_another_close_is_not_even_taken_note_of(self, session, holding, everybody, answered):
        """Its checkpoint would become what the true log is measured by."""
        holding.feed(asked(session, everybody))
        if answered:
            holding.feed(SharesSummed(holding.effects[0].close, SUM))
        shown = LogShown(evidence_of(session, close_of(session, everybody[:4])))
        assert holding.refusal(shown) is RejectReason.OPENED_BEFORE

    @pytest.mark.parametrize("answered", [False, True])
    def test_another_set_under_the_answered_close_is_refused(self, session, holding, everybody, answered):
        close = close_of(session, everybody)
        holding.feed(asked(session, everybody))
        if answered:
            holding.feed(SharesSummed(holding.effects[0].close, SUM))
        assert holding.refusal(asked(session, everybody[:4], close)) is RejectReason.LOG_MISMATCH

    def test_a_close_that_was_only_shown_is_the_first_one_already(self, session, holding, everybody):
        holding.feed(LogShown(evidence_of(session, close_of(session, everybody))))
        assert holding.refusal(asked(session, everybody[:4])) is RejectReason.LOG_FORKED
        holding.feed(asked(session, everybody))
        assert isinstance(holding.state, Answering)

    def test_two_closes_in_one_log_are_refused(self, session, holding, everybody):
        first, second = close_of(session, everybody), close_of(session, everybody[:4])
        for order in ((first, second), (second, first)):
            assert holding.refusal(asked(session, everybody[:4], *order)) is RejectReason.LOG_ORDER

    def test_without_a_close_there_is_nothing_to_answer(self, session, holding, everybody):
        event = OpenAsked(evidence_of(session), leaves(everybody))
        assert holding.refusal(event) is RejectReason.WRONG_PHASE

    def test_a_log_that_the_witness_did_not_cosign_is_refused(self, session, holding, everybody):
        evidence = evidence_of(session, close_of(session, everybody), witnesses=())
        assert holding.refusal(OpenAsked(evidence, leaves(everybody))) is RejectReason.LOG_UNWITNESSED

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"named": (0, 1, 2)}, RejectReason.NOT_NAMED),
            ({"opener": SummedCiphertext(bytes(32))}, RejectReason.NOT_NAMED),
            ({"count": 2}, RejectReason.BELOW_MINIMUM),
            ({"count": 65}, RejectReason.COHORT_FULL),
            ({"count": 4}, RejectReason.LOG_MISMATCH),
            ({"contributions": bytes(32)}, RejectReason.LOG_MISMATCH),
        ],
    )
    def test_a_close_that_breaks_a_rule_is_not_answered(self, session, holding, everybody, changes, reason):
        assert holding.refusal(asked(session, everybody, **changes)) is reason
        assert holding.effects == []

    def test_the_member_s_own_minimum_counts_also_where_it_was_raised_later(self, session, holding, everybody):
        rules = dataclasses.replace(holding.context.rules, min_contributors=5)
        holding.context = dataclasses.replace(holding.context, rules=rules)
        assert holding.refusal(asked(session, everybody[:4])) is RejectReason.BELOW_MINIMUM
        holding.feed(asked(session, everybody))
        assert isinstance(holding.state, Answering)

    def test_a_coordinator_that_is_not_served_any_more_gets_no_answer(self, session, holding, everybody):
        rules = dataclasses.replace(holding.context.rules, coordinators=frozenset())
        holding.context = dataclasses.replace(holding.context, rules=rules)
        assert holding.refusal(asked(session, everybody)) is RejectReason.NOT_SERVED

    def test_fewer_than_the_session_s_minimum_are_never_opened(self, session, holding, everybody):
        assert holding.refusal(asked(session, everybody[:2])) is RejectReason.BELOW_MINIMUM

    @pytest.mark.parametrize("order", [(0, 1, 1), (0, 2, 1), (0, 1, 2, 2), (2, 1, 0)])
    def test_a_set_in_another_order_or_with_a_repetition_is_refused(self, session, holding, everybody, order):
        chosen = [everybody[at] for at in order]
        assert holding.refusal(asked(session, chosen)) is RejectReason.LOG_MISMATCH

    def test_a_contribution_that_is_not_held_cannot_be_in_the_set(self, session, everybody):
        machine = Machine(session)
        machine.hold(*everybody[:4])
        assert machine.refusal(asked(session, everybody)) is RejectReason.SHARE_NOT_HELD

    def test_another_header_of_the_same_identity_cannot_be_in_the_set(self, session, holding, everybody):
        other = one_shot.contribute(session, everybody[0].key, seed=b"other")
        assert holding.refusal(asked(session, [other, *everybody[1:]])) is RejectReason.SHARE_NOT_HELD

    def test_leaf_hashes_of_half_a_leaf_are_no_set(self, session, holding, everybody):
        event = dataclasses.replace(asked(session, everybody), leaves=leaves(everybody)[:-1])
        assert holding.refusal(event) is RejectReason.LOG_MISMATCH

    def test_a_sum_for_another_close_or_out_of_turn_changes_nothing(self, session, holding, everybody):
        holding.feed(SharesSummed(bytes(32), SUM))
        assert isinstance(holding.state, Holding)
        holding.feed(asked(session, everybody))
        before = holding.state
        holding.feed(SharesSummed(bytes(32), SUM))
        holding.feed(SharesLost(bytes(32)))
        assert holding.state == before

    def test_boxes_are_not_taken_any_more_once_the_set_is_answered(self, session, holding, everybody):
        holding.feed(asked(session, everybody[:4]))
        with pytest.raises(RemoteProtocolError) as caught:
            holding.hold(everybody[4])
        assert caught.value.reason is RejectReason.WRONG_PHASE


class TestTheEnd:
    def test_an_abort_in_the_log_ends_the_session(self, session, holding, everybody):
        holding.feed(LogShown(evidence_of(session, abort_of(session))))
        assert holding.state == Over(RejectReason.ABORTED)
        assert holding.refusal(asked(session, everybody)) is RejectReason.ABORTED
        with pytest.raises(RemoteProtocolError):
            holding.hold(everybody[0])

    @pytest.mark.parametrize("ending", ["abort", "result"])
    def test_an_open_request_whose_log_has_ended_is_not_answered(self, session, holding, everybody, ending):
        close = close_of(session, everybody)
        last = abort_of(session) if ending == "abort" else result_of(session, 5)
        reason = RejectReason.ABORTED if ending == "abort" else RejectReason.SESSION_OVER
        assert holding.refusal(asked(session, everybody, close, last)) is reason
        holding.feed(LogShown(evidence_of(session, close, last)))
        assert holding.state == Over(reason)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [({"named": (0, 1, 2)}, RejectReason.NOT_NAMED), ({"count": 2}, RejectReason.BELOW_MINIMUM)],
    )
    def test_a_first_close_that_will_never_be_answered_ends_the_session(
        self, session, holding, everybody, changes, reason
    ):
        holding.feed(LogShown(evidence_of(session, close_of(session, everybody, **changes))))
        assert holding.state == Over(reason)

    def test_a_damaged_box_ends_the_session_without_an_answer(self, session, holding, everybody):
        holding.feed(asked(session, everybody))
        holding.feed(SharesLost(holding.effects[0].close))
        assert holding.state == Over(RejectReason.SHARE_NOT_HELD)
        assert holding.refusal(asked(session, everybody)) is RejectReason.SHARE_NOT_HELD

    def test_retention_ends_what_was_never_closed_and_no_answer_that_was_given(self, session, holding, everybody):
        holding.feed(RetentionPassed())
        assert holding.state == Over(RejectReason.SESSION_OVER)
        again = Machine(session)
        again.hold(*everybody)
        again.feed(asked(session, everybody))
        again.feed(SharesSummed(again.effects[0].close, SUM))
        before = again.state
        again.feed(RetentionPassed())
        assert again.state == before

    def test_an_answer_that_never_came_is_not_waited_for_longer_than_its_session_is_kept(
        self, session, holding, everybody
    ):
        holding.feed(asked(session, everybody))
        holding.feed(RetentionPassed())
        assert holding.state == Over(RejectReason.SHARE_NOT_HELD)
        assert holding.refusal(asked(session, everybody)) is RejectReason.SHARE_NOT_HELD
        holding.feed(SharesSummed(holding.effects[0].close, SUM))
        assert holding.state == Over(RejectReason.SHARE_NOT_HELD)

    def test_evidence_that_does_not_hold_is_refused_in_every_state(self, session, holding, everybody):
        bad = LogShown(evidence_of(session, close_of(session, everybody), witnesses=()))
        assert holding.refusal(bad) is RejectReason.LOG_UNWITNESSED
        holding.feed(asked(session, everybody))
        assert holding.refusal(bad) is RejectReason.LOG_UNWITNESSED
        holding.feed(SharesSummed(holding.effects[0].close, SUM))
        assert holding.refusal(bad) is RejectReason.LOG_UNWITNESSED

    def test_a_machine_without_its_session_row_is_the_runtime_s_fault(self, session, everybody):
        context = one_shot.member_context(session)
        with pytest.raises(LocalProtocolError):
            member.step(context, {}, Holding(), LogShown(evidence_of(session)))


def test_any_set_of_positions_fits_the_bitmap_of_a_roster_of_any_size():
    for size in (1, 7, 8, 9, 17):
        rows = {row_key(at): HeldRow(leaf_hash(b"%d" % at), at) for at in range(size)}
        chosen = list(range(0, size, 2))
        bitmap = member._positions(rows, [leaf_hash(b"%d" % at) for at in chosen], size)
        assert [at for at in range(8 * len(bitmap)) if bitmap[at // 8] >> at % 8 & 1] == chosen
        assert len(bitmap) == (size + 7) // 8


def test_the_root_of_a_set_is_that_of_its_leaves(session, everybody):
    close = close_of(session, everybody)
    assert isinstance(close, OneShotClose)
    assert close.contributions == merkle.root_of_hashes([leaf_hash(each.leaf) for each in everybody])
    assert isinstance(session.opening, Committee)
