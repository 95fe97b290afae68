"""The key authority machine: what it makes, what it decides, what it forgets."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from secagg.crypto.signing import verify_statement
from secagg.derive.ring_opening import MaskedSum
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import authority
from secagg.protocol.one_shot.authority_rules import MadeKey, check_request, check_sets, read_open
from secagg.protocol.one_shot.authority_states import (
    AUTHORITY_PERSISTENCE,
    Answered,
    AuthorityPolicy,
    AuthorityState,
    ClosedSum,
    Deciding,
    Refused,
    SumCertified,
    SumNotCertified,
)
from secagg.runtime.institutions import PreparedContext
from secagg.transcript.openers import Committee, NamedMembers, PreparedKey
from secagg.transcript.statements import AuthorityAnswer
from tests.support.authority_stage import (
    ATTESTORS,
    AUTHORITY,
    COORDINATOR,
    POLICY,
    SESSION,
    Closed,
    prepared,
    stage_of,
)
from tests.support.one_shot import honest_session
from tests.support.published import evidence_of
from tests.support.rng import CountingRng

STAGE = stage_of()
MADE = STAGE.made
CLOSE = STAGE.closed.close_digest
CLOSED = ClosedSum(STAGE.session.digest, CLOSE)
DECIDING = Deciding(MADE, STAGE.session.digest, CLOSE)
CERTIFIED = SumCertified(CLOSE, STAGE.secret_sum.astype("<i4").tobytes())
ANSWERED = authority.step(AUTHORITY, DECIDING, CERTIFIED).state
REFUSED = authority.step(AUTHORITY, DECIDING, SumNotCertified(CLOSE, "words")).state
STATES: dict[str, AuthorityState] = {"made": MADE, "deciding": DECIDING, "answered": ANSWERED, "refused": REFUSED}


def masked_sum() -> MaskedSum:
    lanes = np.sum([each.lanes for each in STAGE.uploads], axis=0, dtype=np.uint64)
    return MaskedSum(STAGE.session.ring_mask, STAGE.session.public_key, lanes, len(STAGE.uploads))


def test_a_key_is_made_of_fresh_bytes_and_the_authority_signs_which_session_it_is_for() -> None:
    body, signature = authority.statement_of(AUTHORITY, MADE)
    verify_statement(AUTHORITY.key.public_bytes, body, signature)
    digest = hashlib.sha256(authority.public_context(MADE)).digest()
    assert PreparedKey.from_bytes(body) == PreparedKey(
        SESSION, COORDINATOR.public_bytes, AUTHORITY.key.public_bytes, digest
    )
    assert prepared(rng=CountingRng(b"other")).context != MADE.context


def test_the_way_of_an_honest_session() -> None:
    deciding = authority.step(AUTHORITY, MADE, CLOSED).state
    assert deciding == DECIDING
    outcome = authority.certify(MADE.key, STAGE.closed.ciphertext_sum, masked_sum(), CLOSE)
    assert outcome == CERTIFIED
    answered = authority.step(AUTHORITY, deciding, outcome).state
    assert isinstance(answered, Answered)
    assert isinstance(answered.signed.statement, AuthorityAnswer)
    assert authority.answer_to(answered, CLOSE) == answered.signed
    body = answered.signed.statement.to_bytes()
    verify_statement(AUTHORITY.key.public_bytes, body, answered.signed.signature)


@pytest.mark.parametrize("name", ["answered", "refused"])
def test_a_final_state_has_no_key(name: str) -> None:
    state = STATES[name]
    assert MADE.key.expose() not in AUTHORITY_PERSISTENCE.encode(state)
    assert MADE.key.expose()[16:80] not in AUTHORITY_PERSISTENCE.encode(state)
    with pytest.raises(RemoteProtocolError) as caught:
        authority.public_context(state)
    assert caught.value.reason is RejectReason.SESSION_OVER


@pytest.mark.parametrize("name", list(STATES))
def test_states_come_back_from_a_store_as_they_were(name: str) -> None:
    state = STATES[name]
    assert AUTHORITY_PERSISTENCE.decode(AUTHORITY_PERSISTENCE.encode(state)) == state


@pytest.mark.parametrize("name", ["deciding", "answered", "refused"])
def test_after_a_decision_no_other_close_is_decided_on(name: str) -> None:
    other = dataclasses.replace(CLOSED, close=bytes(32))
    for judge in (
        lambda: authority.step(AUTHORITY, STATES[name], other),
        lambda: authority.answer_to(STATES[name], other.close),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            judge()
        assert caught.value.reason is RejectReason.OPENED_BEFORE


def test_repetitions_change_nothing() -> None:
    assert authority.step(AUTHORITY, DECIDING, CLOSED).state is DECIDING
    assert authority.step(AUTHORITY, ANSWERED, CLOSED).state is ANSWERED
    for event in (CERTIFIED, SumNotCertified(CLOSE, "words")):
        assert authority.step(AUTHORITY, ANSWERED, event).state is ANSWERED
        assert authority.step(AUTHORITY, REFUSED, event).state is REFUSED


def test_a_refusal_is_final() -> None:
    assert isinstance(REFUSED, Refused)
    for judge in (lambda: authority.answer_to(REFUSED, CLOSE), lambda: authority.step(AUTHORITY, REFUSED, CLOSED)):
        with pytest.raises(RemoteProtocolError, match="words") as caught:
            judge()
        assert caught.value.reason is RejectReason.WRONG_OPENING


@pytest.mark.parametrize("state", [MADE, dataclasses.replace(DECIDING, close=bytes(32))], ids=["made", "other"])
@pytest.mark.parametrize("event", [CERTIFIED, SumNotCertified(CLOSE, "words")])
def test_an_outcome_of_what_was_not_decided_on_is_a_fault_of_this_side(state: AuthorityState, event: object) -> None:
    with pytest.raises(LocalProtocolError):
        authority.step(AUTHORITY, state, event)


def test_certification_refuses_what_is_too_large_and_what_does_not_open() -> None:
    wrong = dataclasses.replace(masked_sum(), contributors=1)
    outcome = authority.certify(MADE.key, STAGE.closed.ciphertext_sum, wrong, CLOSE)
    assert outcome == SumNotCertified(CLOSE, "the decryption is larger than any sum of so many mask secrets")
    wrong = dataclasses.replace(masked_sum(), public_key=bytes(32))
    outcome = authority.certify(MADE.key, STAGE.closed.ciphertext_sum, wrong, CLOSE)
    assert outcome == SumNotCertified(CLOSE, "the decryption does not open the masked sum")


# Rules


def made_key(**changes: object) -> MadeKey:
    return dataclasses.replace(MadeKey(MADE.session, MADE.coordinator, MADE.context), **changes)


def reason_of(closed: Closed, made: MadeKey | None = None, **changes: object) -> RejectReason:
    with pytest.raises(RemoteProtocolError) as caught:
        check_request(AUTHORITY, made or made_key(), closed.request(**changes))
    return caught.value.reason


def test_a_request_in_order_passes_and_so_do_its_lists() -> None:
    asked = check_request(AUTHORITY, made_key(), STAGE.closed.request())
    assert asked.close_digest == CLOSE
    assert check_sets(asked, STAGE.closed.committed, STAGE.closed.contributions) == CLOSED


def test_the_key_belongs_to_session_coordinator_and_context() -> None:
    assert reason_of(STAGE.closed, made_key(session=bytes(16))) is RejectReason.WRONG_SESSION
    assert reason_of(STAGE.closed, made_key(coordinator=bytes(32))) is RejectReason.WRONG_SESSION
    assert reason_of(STAGE.closed, made_key(context=bytes(32))) is RejectReason.NOT_SERVED


def test_a_close_that_names_members_is_not_opened() -> None:
    closed = STAGE.closed.edited("close_entry", opener=NamedMembers((0,)))
    assert reason_of(closed, attestations=()) is RejectReason.WRONG_CIPHERTEXT


def test_more_than_the_session_takes_are_not_opened() -> None:
    assert reason_of(STAGE.closed.edited("close_entry", count=65)) is RejectReason.COHORT_FULL


def test_a_session_of_a_committee_is_none_of_its_business() -> None:
    session, _ = honest_session()
    assert isinstance(session.opening, Committee)
    evidence = evidence_of(COORDINATOR, [session.entry])
    files = dataclasses.replace(STAGE.closed.files(), evidence=evidence)
    assert reason_of(STAGE.closed, files=files) is RejectReason.WRONG_PROTOCOL


@pytest.mark.parametrize("entries", [[], [b"nonsense"]])
def test_evidence_without_an_open_entry_is_malformed(entries: list[bytes]) -> None:
    files = dataclasses.replace(STAGE.closed.files(), evidence=evidence_of(COORDINATOR, entries))
    with pytest.raises(RemoteProtocolError) as caught:
        read_open(files)
    assert caught.value.reason is RejectReason.MALFORMED_MESSAGE


def test_a_roster_that_is_not_the_sessions_is_refused() -> None:
    files = STAGE.closed.files()
    assert reason_of(STAGE.closed, files=dataclasses.replace(files, roster=files.roster[:-1])) is (
        RejectReason.LOG_MISMATCH
    )
    other = dataclasses.replace(files, roster=(b"nonsense", *files.roster[1:]))
    assert reason_of(STAGE.closed, files=other) is RejectReason.MALFORMED_MESSAGE


@pytest.mark.parametrize(
    "changes",
    [
        {"min_contributors": 1},
        {"attestations": 0},
        {"attestations": 4},
        {"attestors": frozenset(), "attestations": 1},
        {"attestors": frozenset(bytes([number]) * 32 for number in range(17))},
    ],
    ids=["a sum of one", "no attestation", "more than attestors", "no attestor", "too many attestors"],
)
def test_a_policy_that_protects_nobody_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"min_contributors|attest"):
        dataclasses.replace(POLICY, **changes)
    assert isinstance(POLICY, AuthorityPolicy)


# What a coordinator checks of a prepared key


def prepared_context() -> PreparedContext:
    return PreparedContext(*authority.statement_of(AUTHORITY, MADE), authority.public_context(MADE))


def test_a_prepared_key_is_checked_against_session_coordinator_and_authority() -> None:
    made = prepared_context()
    own, coordinator = AUTHORITY.key.public_bytes, COORDINATOR.public_bytes
    assert made.checked(SESSION, coordinator, own) == MADE.context
    other = authority.public_context(prepared(rng=CountingRng(b"other")))
    for wrong, arguments, reason in (
        (made, (bytes(16), coordinator, own), RejectReason.WRONG_SESSION),
        (made, (SESSION, bytes(32), own), RejectReason.BAD_KEY),
        (made, (SESSION, coordinator, ATTESTORS[0].public_bytes), RejectReason.BAD_SIGNATURE),
        (dataclasses.replace(made, context=other), (SESSION, coordinator, own), RejectReason.BAD_KEY),
        (dataclasses.replace(made, context=b""), (SESSION, coordinator, own), RejectReason.BAD_KEY),
        (dataclasses.replace(made, signature=bytes(64)), (SESSION, coordinator, own), RejectReason.BAD_SIGNATURE),
        (dataclasses.replace(made, prepared=b"{}"), (SESSION, coordinator, own), RejectReason.MALFORMED_MESSAGE),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            wrong.checked(*arguments)
        assert caught.value.reason is reason
