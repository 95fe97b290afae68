"""The client machine of one-shot sessions, and a coordinator that lies to it: each lie fails for its own reason."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from fractions import Fraction

import pytest

from secagg.crypto.secret import Secret
from secagg.protocol.errors import LocalProtocolError, ProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.messages import SessionEnded
from secagg.protocol.one_shot import client
from secagg.protocol.one_shot.client_states import (
    ONE_SHOT_CLIENT_PERSISTENCE,
    Abandoned,
    Aborted,
    Committed,
    Contributed,
    Delivered,
    Masking,
    MaskInput,
    Send,
)
from secagg.protocol.one_shot.messages import CommitContribution, CommittedList, OneShotContribution
from secagg.runtime.committee_member import member_sealing_key
from secagg.transcript import merkle
from secagg.transcript.entries import ContributionsCommitted, OneShotClose, OneShotResult, SessionAbort
from secagg.transcript.openers import CommitteeMember, NamedMembers
from secagg.transcript.policy import LogPolicy
from secagg.transcript.statements import ConfirmStatement, Signed
from tests.support.aggregates import some_adapter
from tests.support.cohort import key_of
from tests.support.one_shot_client import (
    AUTHORITY,
    COORDINATOR_KEY,
    KEYS,
    Speaker,
    committed_list,
    committed_speaker,
    context_of,
    first_view,
    header_of,
    masked_of,
    one_shot_session,
    receipt_for,
    shown,
    signed_header,
    trusting_policy,
)
from tests.support.one_shot_cohort import committee_of, member_key
from tests.support.rng import CountingRng

SESSION = one_shot_session()
WITH_AUTHORITY = one_shot_session(opening=AUTHORITY)


def refused(act: Callable[[], object], reason: RejectReason, error: type[ProtocolError] = RemoteProtocolError) -> str:
    with pytest.raises(error) as caught:
        act()
    assert type(caught.value) is error
    assert caught.value.reason is reason
    return caught.value.detail


def everybody() -> list[Signed]:
    return [signed_header(WITH_AUTHORITY, number) for number in range(5)]


def abort_entry(session=WITH_AUTHORITY) -> SessionAbort:
    return SessionAbort(session.parameters.session, "too few", 0, merkle.root([]))


def ending(session=SESSION) -> tuple[OneShotClose, OneShotResult]:
    identifier, some = session.parameters.session, bytes(32)
    close = OneShotClose(identifier, 3, 0, 0, some, some, some, NamedMembers((0, 1, 2)))
    return close, OneShotResult(identifier, 3, some, some, some, some_adapter(), some, (0, 1, 2), ())


def sealed_by(member: CommitteeMember, place: int) -> CommitteeMember:
    """The member under a sealing key of the coordinator's."""
    return dataclasses.replace(member, sealing_key=member_sealing_key(key_of(f"coordinator's {place}")).public_bytes)


class TestJoining:
    def test_draws_every_seed_once_and_sends_nothing(self):
        speaker = Speaker(SESSION)
        assert isinstance(speaker.state, Masking)
        (effect,) = speaker.effects
        assert isinstance(effect, MaskInput)
        seeds = [effect.rounding, effect.mask, *effect.shares]
        assert [len(seed) for seed in seeds] == [32] * 4
        assert len({seed.expose() for seed in seeds}) == 4

    def test_with_an_authority_there_are_no_shares(self):
        (effect,) = Speaker(WITH_AUTHORITY).effects
        assert isinstance(effect, MaskInput)
        assert effect.shares == ()

    def test_of_a_committee_as_many_may_be_strangers_as_the_session_says_may_be_corrupt(self):
        pinned = [member_key(place).public_bytes for place in range(4)]
        Speaker(SESSION, policy=trusting_policy(SESSION, openers=frozenset(pinned[1:])))
        few = trusting_policy(SESSION, openers=frozenset(pinned[2:]))
        detail = refused(lambda: Speaker(SESSION, policy=few), RejectReason.BELOW_POLICY, LocalProtocolError)
        assert "2 of 4" in detail
        assert pinned[0].hex() in detail

    def test_a_committee_in_which_nobody_may_be_corrupt_is_refused_even_if_all_are_pinned(self):
        session = one_shot_session(opening=committee_of(3, 3, 0))
        pinned = frozenset(member_key(place).public_bytes for place in range(3))
        policy = trusting_policy(session, openers=pinned)
        detail = refused(lambda: Speaker(session, policy=policy), RejectReason.BELOW_POLICY, LocalProtocolError)
        assert "max_corrupt is 0" in detail

    def test_an_authority_has_to_be_pinned(self):
        others = frozenset({key_of("another authority").public_bytes, *AUTHORITY.attestors})
        policy = trusting_policy(WITH_AUTHORITY, openers=others)
        detail = refused(lambda: Speaker(WITH_AUTHORITY, policy=policy), RejectReason.BELOW_POLICY, LocalProtocolError)
        assert AUTHORITY.identity.hex() in detail

    def test_members_whose_sealing_key_is_not_the_one_that_they_signed_are_strangers(self):
        committee = committee_of()
        theirs = [sealed_by(member, place) for place, member in enumerate(committee.members)]
        for wrong, acceptable in ((1, True), (2, False), (4, False)):
            members = (*theirs[:wrong], *committee.members[wrong:])
            session = one_shot_session(opening=dataclasses.replace(committee, members=members))
            if acceptable:
                Speaker(session)
            else:
                refused(lambda s=session: Speaker(s), RejectReason.BELOW_POLICY, LocalProtocolError)

    @pytest.mark.parametrize(
        "changes", [{"context": b"c" * 32}, {"prepared": bytes(64)}, {"identity": key_of("another").public_bytes}]
    )
    def test_a_context_that_the_authority_did_not_make_for_this_session_is_refused(self, changes):
        session = one_shot_session(opening=dataclasses.replace(AUTHORITY, **changes))
        refused(lambda: Speaker(session), RejectReason.BELOW_POLICY, LocalProtocolError)
        other = one_shot_session(opening=AUTHORITY, session=bytes(16))
        refused(lambda: Speaker(other), RejectReason.BELOW_POLICY, LocalProtocolError)

    def test_with_an_authority_somebody_has_to_vouch_for_the_log(self):
        context = dataclasses.replace(context_of(WITH_AUTHORITY), log=LogPolicy.without_witnesses())
        act = lambda: client.start(context, first_view(WITH_AUTHORITY), CountingRng(b""))  # noqa: E731
        refused(act, RejectReason.LOG_UNWITNESSED, LocalProtocolError)
        committee = dataclasses.replace(context_of(SESSION), log=LogPolicy.without_witnesses())
        assert client.start(committee, first_view(SESSION), CountingRng(b"")).effects

    @pytest.mark.parametrize(
        "floor",
        [
            {"min_contributors": 4},
            {"tolerated_corrupt": Fraction(1, 2)},
            {"base_models": frozenset({b"b" * 32})},
            {"registrars": frozenset({b"r" * 32})},
        ],
    )
    def test_the_floors_of_pairwise_sessions_hold_here_too(self, floor):
        policy = trusting_policy(SESSION, **floor)
        refused(lambda: Speaker(SESSION, policy=policy), RejectReason.BELOW_POLICY, LocalProtocolError)

    def test_whoever_is_not_in_the_roster_does_not_join(self):
        context = dataclasses.replace(context_of(SESSION), identity=key_of("nobody"))
        act = lambda: client.start(context, first_view(SESSION), CountingRng(b""))  # noqa: E731
        refused(act, RejectReason.UNKNOWN_IDENTITY, LocalProtocolError)

    def test_a_log_that_opens_another_session_is_refused(self):
        other = first_view(one_shot_session(retention_s=7))
        act = lambda: client.start(context_of(SESSION), other, CountingRng(b""))  # noqa: E731
        refused(act, RejectReason.LOG_MISMATCH)


class TestAMaskedInput:
    def test_is_signed_and_sent_whole_where_a_committee_opens(self):
        speaker = Speaker(SESSION)
        sent, masked = speaker.mask(), masked_of(SESSION, 0)
        assert sent == signed_header(SESSION, 0)
        assert speaker.effects[1:] == [Send(OneShotContribution(sent, masked.linear_hash, masked.parts))]
        assert isinstance(speaker.state, Contributed)

    def test_is_only_committed_to_where_an_authority_opens(self):
        speaker = committed_speaker()
        sent = signed_header(WITH_AUTHORITY, 0)
        assert speaker.effects[1:] == [Send(CommitContribution(sent))]
        assert isinstance(speaker.state, Committed)
        assert speaker.state.sent == sent

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"lanes": 8192}, RejectReason.WRONG_LENGTH),
            ({"linear_hash": bytes(100)}, RejectReason.WRONG_LINEAR_HASH),
            ({"parts": masked_of(SESSION, 0).parts[:3]}, RejectReason.WRONG_PARTS),
            ({"parts": masked_of(SESSION, 0).parts[::-1]}, RejectReason.WRONG_BOX_LENGTH),
        ],
    )
    def test_of_wrong_lengths_is_never_signed(self, changes, reason):
        speaker = Speaker(SESSION)
        masked = dataclasses.replace(masked_of(SESSION, 0), **changes)
        refused(lambda: speaker.feed(masked), reason, LocalProtocolError)
        assert isinstance(speaker.state, Masking)

    @pytest.mark.parametrize("session", [SESSION, WITH_AUTHORITY], ids=["committee", "authority"])
    def test_a_second_encoding_is_never_signed(self, session):
        speaker = Speaker(session)
        speaker.mask()
        before = speaker.state
        second = dataclasses.replace(masked_of(session, 0), digest=bytes(32))
        refused(lambda: speaker.feed(second), RejectReason.WRONG_PHASE, LocalProtocolError)
        assert speaker.state is before

    def test_a_list_means_nothing_before_it_or_without_an_authority(self):
        listed = committed_list(WITH_AUTHORITY, everybody())
        refused(lambda: Speaker(WITH_AUTHORITY).feed(listed), RejectReason.WRONG_PHASE, LocalProtocolError)
        speaker = Speaker(SESSION)
        speaker.mask()
        refused(lambda: speaker.feed(listed), RejectReason.WRONG_PHASE, LocalProtocolError)


class TestTheCommittedList:
    def refused(self, listed: CommittedList, reason: RejectReason) -> str:
        """The reason why a list is refused; nothing is sent for it, and the honest one still is heard."""
        speaker = committed_speaker()
        before, asked_for = speaker.state, len(speaker.effects)
        detail = refused(lambda: speaker.feed(listed), reason)
        assert (speaker.state, len(speaker.effects)) == (before, asked_for)
        assert isinstance(speaker.feed(committed_list(WITH_AUTHORITY, everybody())), Contributed)
        return detail

    def test_with_the_own_header_lets_the_same_bytes_go(self):
        speaker = committed_speaker()
        speaker.feed(committed_list(WITH_AUTHORITY, everybody()))
        masked = masked_of(WITH_AUTHORITY, 0)
        sent = signed_header(WITH_AUTHORITY, 0)
        assert speaker.effects[2:] == [Send(OneShotContribution(sent, masked.linear_hash, masked.parts))]
        assert speaker.state == Contributed(speaker.state.view, sent)

    def test_that_leaves_the_client_out_ends_its_part_for_good(self):
        speaker = committed_speaker()
        assert speaker.feed(committed_list(WITH_AUTHORITY, everybody()[1:])) == Aborted(
            speaker.state.view, RejectReason.LEFT_OUT
        )
        assert len(speaker.effects) == 2
        whole = committed_list(WITH_AUTHORITY, everybody())
        refused(lambda: speaker.feed(whole), RejectReason.SESSION_OVER, LocalProtocolError)

    def test_that_alters_the_own_header_is_refused(self):
        altered = signed_header(WITH_AUTHORITY, 0, upload=bytes(32))
        self.refused(committed_list(WITH_AUTHORITY, [altered, *everybody()[1:]]), RejectReason.OWN_ENTRY_MISSING)

    def test_that_alters_the_own_header_without_the_own_key_is_refused(self):
        forged = signed_header(WITH_AUTHORITY, 0, key=KEYS[1], upload=bytes(32))
        self.refused(committed_list(WITH_AUTHORITY, [forged, *everybody()[1:]]), RejectReason.BAD_SIGNATURE)

    def test_that_invents_the_header_of_another_is_refused(self):
        forged = signed_header(WITH_AUTHORITY, 3, key=COORDINATOR_KEY)
        self.refused(committed_list(WITH_AUTHORITY, [*everybody()[:3], forged]), RejectReason.BAD_SIGNATURE)

    def test_of_fewer_than_the_minimum_is_refused(self):
        self.refused(committed_list(WITH_AUTHORITY, everybody()[:2]), RejectReason.BELOW_MINIMUM)

    def test_of_fewer_than_the_minimum_that_are_counted_as_enough_is_refused(self):
        listed = committed_list(WITH_AUTHORITY, everybody()[:2], count=3)
        assert "count" in self.refused(listed, RejectReason.LOG_MISMATCH)

    def test_of_more_than_the_sum_has_room_for_is_refused(self):
        session = one_shot_session(
            opening=AUTHORITY, encoding=dataclasses.replace(SESSION.parameters.encoding, max_contributors=4)
        )
        speaker = Speaker(session)
        speaker.mask()
        listed = committed_list(session, [signed_header(session, number) for number in range(5)])
        refused(lambda: speaker.feed(listed), RejectReason.COHORT_FULL)

    def test_that_is_not_under_the_logged_root_is_refused(self):
        listed = committed_list(WITH_AUTHORITY, everybody())
        another = signed_header(WITH_AUTHORITY, 4, upload=bytes(32))
        other = CommittedList(listed.evidence, (*listed.leaves[:4], another.to_bytes()))
        assert "root" in self.refused(other, RejectReason.LOG_MISMATCH)

    def test_with_somebody_outside_the_roster_is_refused(self):
        stranger = key_of("stranger")
        header = header_of(WITH_AUTHORITY, 4, identity=stranger.public_bytes)
        signed = Signed(header, stranger.sign_statement(header.to_bytes()))
        self.refused(committed_list(WITH_AUTHORITY, [*everybody()[:4], signed]), RejectReason.OUTSIDE_ROSTER)

    @pytest.mark.parametrize("places", [(0, 1, 1), (0, 2, 1), (4, 0, 1)], ids=["twice", "swapped", "last first"])
    def test_in_another_order_than_the_rosters_is_refused(self, places):
        listed = committed_list(WITH_AUTHORITY, [everybody()[place] for place in places])
        self.refused(listed, RejectReason.LOG_MISMATCH)

    def test_with_headers_of_another_session_is_refused(self):
        old = signed_header(WITH_AUTHORITY, 4, session=bytes(32))
        self.refused(committed_list(WITH_AUTHORITY, [*everybody()[:4], old]), RejectReason.WRONG_SESSION)

    def test_with_headers_of_other_lengths_is_refused(self):
        long = signed_header(WITH_AUTHORITY, 4, lanes=8192)
        self.refused(committed_list(WITH_AUTHORITY, [*everybody()[:4], long]), RejectReason.WRONG_LENGTH)
        many = signed_header(WITH_AUTHORITY, 4, parts=(b"a" * 32, b"b" * 32))
        self.refused(committed_list(WITH_AUTHORITY, [*everybody()[:4], many]), RejectReason.WRONG_PARTS)

    @pytest.mark.parametrize("field", ["upload", "linear_hash", "parts"])
    def test_with_a_copy_of_what_the_client_committed_to_is_refused(self, field):
        own = getattr(header_of(WITH_AUTHORITY, 0), field)
        copy = signed_header(WITH_AUTHORITY, 4, **{field: own})
        self.refused(committed_list(WITH_AUTHORITY, [*everybody()[:4], copy]), RejectReason.DOUBLED_UPLOAD)

    def test_with_leaves_that_are_no_headers_is_refused(self):
        confirm = ConfirmStatement(WITH_AUTHORITY.digest, bytes(32), KEYS[4].public_bytes)
        other = Signed(confirm, KEYS[4].sign_statement(confirm.to_bytes()))
        for leaf in (b"{}", other.to_bytes()):
            self.refused(committed_list(WITH_AUTHORITY, [*everybody()[:4], leaf]), RejectReason.LOG_MISMATCH)

    def test_without_its_entry_is_refused(self):
        leaves = tuple(signed.to_bytes() for signed in everybody())
        self.refused(CommittedList(shown(WITH_AUTHORITY), leaves), RejectReason.LOG_MISMATCH)

    def test_a_second_list_in_one_log_is_refused(self):
        leaves = tuple(signed.to_bytes() for signed in everybody())
        root = merkle.root(leaves)
        first = ContributionsCommitted(WITH_AUTHORITY.parameters.session, 5, root)
        second = dataclasses.replace(first, count=4, root=merkle.root(leaves[:4]))
        for entries in ((first, first), (second, first), (first, second)):
            self.refused(CommittedList(shown(WITH_AUTHORITY, *entries), leaves), RejectReason.LOG_ORDER)

    def test_in_a_log_that_is_not_what_the_client_saw_is_refused(self):
        other = one_shot_session(opening=AUTHORITY, retention_s=9)
        listed = committed_list(WITH_AUTHORITY, everybody())
        forked = dataclasses.replace(committed_list(other, everybody()), leaves=listed.leaves)
        self.refused(forked, RejectReason.LOG_FORKED)

    def test_in_a_log_of_another_key_is_refused(self):
        listed = committed_list(WITH_AUTHORITY, everybody())
        entry = ContributionsCommitted(WITH_AUTHORITY.parameters.session, 5, merkle.root(listed.leaves))
        evidence = shown(WITH_AUTHORITY, entry, key=key_of("another coordinator"))
        self.refused(CommittedList(evidence, listed.leaves), RejectReason.LOG_SIGNATURE)

    def test_of_another_session_is_not_this_sessions(self):
        leaves = tuple(signed.to_bytes() for signed in everybody())
        entry = ContributionsCommitted(b"another session!", 5, merkle.root(leaves))
        self.refused(CommittedList(shown(WITH_AUTHORITY, entry), leaves), RejectReason.LOG_MISMATCH)

    def test_whoever_acted_on_one_list_never_acts_on_another(self):
        speaker = committed_speaker()
        speaker.feed(committed_list(WITH_AUTHORITY, everybody()[:4]))
        other = committed_list(WITH_AUTHORITY, everybody())
        refused(lambda: speaker.feed(other), RejectReason.WRONG_PHASE, LocalProtocolError)
        assert len(speaker.effects) == 3

    def test_an_abort_in_its_place_ends_the_clients_part(self):
        speaker = committed_speaker()
        listed = CommittedList(shown(WITH_AUTHORITY, abort_entry()), ())
        assert speaker.feed(listed) == Aborted(speaker.state.view, RejectReason.ABORTED)


class TestTheReceipt:
    def contributed(self) -> Speaker:
        speaker = Speaker(SESSION)
        speaker.mask()
        return speaker

    def test_ends_the_clients_part_and_is_kept(self):
        speaker = self.contributed()
        sent = speaker.state.sent
        receipt = receipt_for(SESSION, sent)
        assert speaker.feed(receipt) == Delivered(speaker.state.view, sent, receipt)
        for event in (receipt, masked_of(SESSION, 0), Abandoned(RejectReason.ABORTED)):
            refused(lambda event=event: speaker.feed(event), RejectReason.SESSION_OVER, LocalProtocolError)

    @pytest.mark.parametrize(
        "changes",
        [{"contribution": hashlib.sha256(b"another").digest()}, {"session": bytes(32)}, {"key": key_of("somebody")}],
        ids=["another contribution", "another session", "another key"],
    )
    def test_that_is_wrong_is_refused_and_the_client_goes_on_asking(self, changes):
        speaker = self.contributed()
        sent = speaker.state.sent
        refused(lambda: speaker.feed(receipt_for(SESSION, sent, **changes)), RejectReason.WRONG_RECEIPT)
        assert isinstance(speaker.state, Contributed)
        assert isinstance(speaker.feed(receipt_for(SESSION, sent)), Delivered)

    def test_for_what_was_not_sent_is_refused(self):
        sent = signed_header(WITH_AUTHORITY, 0)
        receipt = receipt_for(WITH_AUTHORITY, sent)
        for speaker in (Speaker(WITH_AUTHORITY), committed_speaker()):
            refused(lambda one=speaker: one.feed(receipt), RejectReason.WRONG_PHASE, LocalProtocolError)


class TestTheEndOfTheSession:
    def test_with_an_abort_is_heard_in_any_state(self):
        masking, contributed = Speaker(SESSION), Speaker(SESSION)
        contributed.mask()
        for speaker in (masking, contributed):
            ended = SessionEnded(shown(SESSION, abort_entry(SESSION)))
            assert speaker.feed(ended) == Aborted(speaker.state.view, RejectReason.ABORTED)
            assert speaker.state.view.abort is not None

    def test_with_a_result_ends_what_was_not_acknowledged(self):
        speaker = Speaker(SESSION)
        speaker.mask()
        assert speaker.feed(SessionEnded(shown(SESSION, *ending()))) == Aborted(
            speaker.state.view, RejectReason.SESSION_OVER
        )

    def test_that_is_not_in_the_log_is_refused(self):
        speaker = Speaker(SESSION)
        refused(lambda: speaker.feed(SessionEnded(shown(SESSION))), RejectReason.LOG_MISMATCH)
        refused(lambda: speaker.feed(SessionEnded(shown(SESSION, ending()[0]))), RejectReason.LOG_MISMATCH)

    def test_what_is_given_up_is_over(self):
        speaker = Speaker(SESSION)
        assert speaker.feed(Abandoned(RejectReason.EQUIVOCATION)) == Aborted(
            speaker.state.view, RejectReason.EQUIVOCATION
        )


class TestWhatIsStored:
    def every_state(self) -> list[Speaker]:
        masking, contributed, delivered = Speaker(SESSION), Speaker(SESSION), Speaker(SESSION)
        contributed.mask()
        delivered.feed(receipt_for(SESSION, delivered.mask()))
        over = Speaker(SESSION)
        over.feed(Abandoned(RejectReason.LEFT_OUT))
        listed = committed_speaker()
        listed.feed(committed_list(WITH_AUTHORITY, everybody()))
        return [masking, contributed, delivered, over, committed_speaker(), listed]

    def test_states_and_effects_read_back_equal(self):
        for speaker in self.every_state():
            for value in (speaker.state, *speaker.effects):
                assert ONE_SHOT_CLIENT_PERSISTENCE.decode(ONE_SHOT_CLIENT_PERSISTENCE.encode(value)) == value

    def test_no_state_holds_a_secret_and_no_message_either(self):
        for speaker in self.every_state():
            mask, *sends = speaker.effects
            assert isinstance(mask, MaskInput)
            seeds = [mask.rounding, mask.mask, *mask.shares]
            assert all(isinstance(seed, Secret) for seed in seeds)
            stored = b"".join(ONE_SHOT_CLIENT_PERSISTENCE.encode(value) for value in (speaker.state, *sends))
            for seed in seeds:
                assert seed.expose() not in stored
                assert seed.expose().hex().encode() not in stored
