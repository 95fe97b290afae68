"""What clients and coordinators try on a key authority.

The two attacks on malleable ciphertexts are carried out on a naive authority first, where they succeed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import authority
from secagg.protocol.one_shot.authority_states import (
    AUTHORITY_PERSISTENCE,
    Answered,
    Authority,
    AuthorityState,
    Deciding,
    Ended,
    Prepared,
    Refused,
    SumRequest,
)
from secagg.runtime.key_authority import KeyAuthorityHost, store_name
from secagg.runtime.log_trust import CheckpointMemory, ForgetfulMemory
from secagg.runtime.memory import MemorySessionStore
from secagg.runtime.ports import Commit, SessionStore, StaleStoreError, StoreError
from secagg.store.sealed import SealedSessionStore
from secagg.store.sqlite import SqliteSessionStore, mark_restored
from secagg.transcript.entries import SessionAbort
from secagg.transcript.note import SignatureType, VerifierKey
from secagg.transcript.policy import LogPolicy, WitnessRule
from secagg.transcript.statements import Attestation, AuthorityAnswer, Signed
from tests.support.authority_stage import (
    ATTESTORS,
    AUTHORITY,
    CLIENTS,
    COORDINATOR,
    SESSION,
    Closed,
    Upload,
    authority_on,
    encryption_of,
    honest_upload,
    masked,
    opening_of,
    plain_of,
    prepared,
    secret_of,
    session_of,
    signed_by,
    stage_of,
    total_ciphertext,
)
from tests.support.cohort import key_of
from tests.support.he_attacks import decrypt_with, key_probe, leaked_secret_key, negated
from tests.support.naive_authority import NaiveAuthority, opened
from tests.support.published import evidence_of
from tests.support.rng import CountingRng

STAGE = stage_of()
NAME = store_name(SESSION, COORDINATOR.public_bytes)
VICTIM, ATTACKER = 0, 5


def host_on(
    store: SessionStore, own: Authority = AUTHORITY, memory: CheckpointMemory | None = None
) -> KeyAuthorityHost:
    """The real authority; its first key is the stage's."""
    return authority_on(store, own, memory or ForgetfulMemory())


async def state_in(store: SessionStore) -> AuthorityState:
    stored = await store.load(NAME)
    assert stored is not None
    state: AuthorityState = AUTHORITY_PERSISTENCE.decode(stored.state)
    return state


async def ask(host: KeyAuthorityHost, closed: Closed, request: SumRequest | None = None) -> Signed:
    return await host.decrypt(SESSION, request or closed.request(), closed.pieces())


def opens_to(signed: Signed, secret_sum: np.ndarray) -> bool:
    assert isinstance(signed.statement, AuthorityAnswer)
    return np.array_equal(np.frombuffer(signed.statement.secret_sum, "<i4"), secret_sum)


def refusal(closed: Closed, request: SumRequest | None = None, own: Authority = AUTHORITY) -> RejectReason:
    """Why the real authority refuses; it must, stay as it was, and answer the honest close afterwards."""

    async def asking() -> RejectReason:
        store = MemorySessionStore()
        host = host_on(store, own)
        await host.prepare(SESSION, COORDINATOR.public_bytes)
        before = await store.load(NAME)
        with pytest.raises(RemoteProtocolError) as caught:
            await ask(host, closed, request)
        assert await store.load(NAME) == before
        if own is AUTHORITY:
            # Another log than the one that was refused: the coordinator's memory is not what is tested here.
            assert opens_to(await ask(host_on(store), STAGE.closed), STAGE.secret_sum)
        return caught.value.reason

    return asyncio.run(asking())


def test_an_honest_closed_set_is_answered_with_the_sum_of_the_mask_secrets() -> None:
    async def asking() -> None:
        store = MemorySessionStore()
        host = host_on(store)
        await host.prepare(SESSION, COORDINATOR.public_bytes)
        signed = await ask(host, STAGE.closed)
        assert opens_to(signed, STAGE.secret_sum)
        expected = sum(plain_of(STAGE.session, number) for number in range(len(CLIENTS)))
        assert np.array_equal(opened(STAGE.session, STAGE.uploads, STAGE.secret_sum), expected)
        assert isinstance(await state_in(store), Answered)

    asyncio.run(asking())


# A client that waits for what the others send, and sends what cancels all of it but one victim's.


def isolating(uploads: tuple[Upload, ...]) -> tuple[Upload, ...]:
    """The uploads with the attacker's: its own minus those of all honest clients but the victim."""
    session, own = uploads[0].session, uploads[ATTACKER]
    others = [each for number, each in enumerate(uploads) if number not in {VICTIM, ATTACKER}]
    silent = masked(session, np.zeros_like(own.lanes), secret_of(ATTACKER), ATTACKER)
    lanes = silent - np.sum([each.lanes for each in others], axis=0, dtype=np.uint64)
    ciphertext = total_ciphertext([own.ciphertext, *(negated(each.ciphertext) for each in others)])
    return (*uploads[:ATTACKER], Upload(own.key, session, lanes, ciphertext), *uploads[ATTACKER + 1 :])


def test_naively_whoever_uploads_last_isolates_one_victim_and_every_count_and_certification_is_right() -> None:
    naive = NaiveAuthority(CountingRng(b"naive"))
    uploads = tuple(honest_upload(STAGE.session, naive.context, number) for number in range(len(CLIENTS)))
    everybody = isolating(uploads)
    lanes = opened(STAGE.session, everybody, naive.decrypted(everybody))
    assert np.array_equal(lanes, plain_of(STAGE.session, VICTIM))


def test_the_isolating_upload_does_not_count_because_it_was_not_committed_to() -> None:
    closed = dataclasses.replace(Closed.of(isolating(STAGE.uploads)), committed=STAGE.closed.committed)
    assert refusal(closed) is RejectReason.NOT_COMMITTED


def test_a_second_list_of_commitments_made_for_it_is_never_answered() -> None:
    late = Closed.of(isolating(STAGE.uploads))
    parameters = STAGE.session.parameters
    first, second = STAGE.closed.committed_entry, late.committed_entry
    files = late.files(entries=[parameters, first, second, late.close_entry])
    assert refusal(late, late.request(files=files)) is RejectReason.LOG_ORDER


def test_who_commits_to_the_digests_of_a_victim_before_it_sent_them_counts_for_nothing() -> None:
    victim = STAGE.uploads[VICTIM]
    copied = Upload(CLIENTS[ATTACKER], STAGE.session, victim.lanes, victim.ciphertext)
    assert refusal(Closed.of((*STAGE.uploads[:ATTACKER], copied))) is RejectReason.DOUBLED_UPLOAD


# A client whose ciphertext makes the decryption depend on the key.


def probing(uploads: tuple[Upload, ...], made: Prepared, multiplier: int = 1) -> tuple[Upload, ...]:
    """The uploads with the attacker's: lanes as everybody's, ``(0, K Delta)`` added to its ciphertext."""
    own = uploads[ATTACKER]
    probe = key_probe(encryption_of(made), secret_of(ATTACKER), multiplier, CountingRng(b"probe"))
    return (*uploads[:ATTACKER], Upload(own.key, own.session, own.lanes, probe))


def test_naively_a_malformed_ciphertext_yields_the_key_and_the_key_every_contribution() -> None:
    naive = NaiveAuthority(CountingRng(b"naive"))
    uploads = tuple(honest_upload(STAGE.session, naive.context, number) for number in range(len(CLIENTS)))
    probe = key_probe(naive.context, secret_of(ATTACKER), 1, CountingRng(b"probe"))
    last = Upload(CLIENTS[ATTACKER], STAGE.session, uploads[ATTACKER].lanes, probe)
    decrypted = naive.decrypted((*uploads[:ATTACKER], last))
    # What the sum would have been, the attacker knows from an honest answer for the same set.
    leaked = leaked_secret_key(decrypted, naive.decrypted(uploads))
    assert set(leaked.tolist()) == {-1, 0, 1}
    stolen = decrypt_with(leaked, uploads[VICTIM].ciphertext)
    assert np.array_equal(stolen, secret_of(VICTIM))
    assert np.array_equal(opened(STAGE.session, uploads[:1], stolen), plain_of(STAGE.session, VICTIM))
    # And what it sends in any later session, since the key stays.
    later = naive.context.encrypt(secret_of(VICTIM), CountingRng(b"later"))
    assert np.array_equal(decrypt_with(leaked, later), secret_of(VICTIM))


@pytest.mark.parametrize("multiplier", [1, 2, 1000])
def test_what_a_malformed_ciphertext_decrypts_to_is_certified_first_and_never_said(multiplier: int) -> None:
    closed = Closed.of(probing(STAGE.uploads, STAGE.made, multiplier))

    async def asking() -> None:
        store = MemorySessionStore()
        host = host_on(store)
        await host.prepare(SESSION, COORDINATOR.public_bytes)
        texts = []
        for _ in range(2):
            with pytest.raises(RemoteProtocolError) as caught:
                await ask(host, closed)
            assert caught.value.reason is RejectReason.WRONG_OPENING
            texts.append(caught.value.detail)
        # Nothing that depends on the key is in the text, and there is no second question: the key is gone.
        assert texts == ["the decryption is larger than any sum of so many mask secrets"] * 2
        state = await state_in(store)
        assert isinstance(state, Refused)
        assert STAGE.made.key.expose()[16:144] not in AUTHORITY_PERSISTENCE.encode(state)
        with pytest.raises(RemoteProtocolError) as another:
            await ask(host_on(store), STAGE.closed)
        assert another.value.reason is RejectReason.OPENED_BEFORE

    asyncio.run(asking())


def test_lanes_and_ciphertext_that_do_not_belong_together_are_refused_for_good() -> None:
    own = STAGE.uploads[ATTACKER]
    foreign = masked(STAGE.session, plain_of(STAGE.session, ATTACKER), secret_of(99), ATTACKER)
    closed = Closed.of((*STAGE.uploads[:ATTACKER], dataclasses.replace(own, lanes=foreign)))

    async def asking() -> None:
        store = MemorySessionStore()
        host = host_on(store)
        await host.prepare(SESSION, COORDINATOR.public_bytes)
        with pytest.raises(RemoteProtocolError, match="does not open the masked sum") as caught:
            await ask(host, closed)
        assert caught.value.reason is RejectReason.WRONG_OPENING
        assert isinstance(await state_in(store), Refused)

    asyncio.run(asking())


def test_every_session_has_a_key_of_its_own() -> None:
    async def asking() -> None:
        host = host_on(MemorySessionStore())
        first = await host.prepare(SESSION, COORDINATOR.public_bytes)
        second = await host.prepare(CountingRng(b"another").bytes(16), COORDINATOR.public_bytes)
        again = await host.prepare(SESSION, COORDINATOR.public_bytes)
        assert first == again
        assert first.context != second.context

    asyncio.run(asking())


# A coordinator that asks twice.


def smaller() -> Closed:
    """The same commitments, one contribution fewer: with the honest sum it would show the missing one."""
    return Closed.of(STAGE.uploads, counted=range(len(CLIENTS) - 1))


def test_the_same_question_has_the_same_answer() -> None:
    async def asking() -> None:
        host = host_on(MemorySessionStore())
        await host.prepare(SESSION, COORDINATOR.public_bytes)
        assert await ask(host, STAGE.closed) == await ask(host, STAGE.closed)

    asyncio.run(asking())


@pytest.mark.parametrize("first", [STAGE.closed, smaller()], ids=["all", "fewer"])
def test_a_second_closed_set_is_refused_whichever_came_first(first: Closed) -> None:
    second = smaller() if first is STAGE.closed else STAGE.closed

    async def asking() -> None:
        store = MemorySessionStore()
        await host_on(store).prepare(SESSION, COORDINATOR.public_bytes)
        answer = await ask(host_on(store), first)
        # Even with a log that this authority's memory does not contradict.
        with pytest.raises(RemoteProtocolError) as caught:
            await ask(host_on(store), second)
        assert caught.value.reason is RejectReason.OPENED_BEFORE
        assert await ask(host_on(store), first) == answer

    asyncio.run(asking())


def test_two_closes_in_one_log_are_never_answered() -> None:
    files = STAGE.closed.files(smaller().close_entry)
    assert refusal(STAGE.closed, STAGE.closed.request(files=files)) is RejectReason.LOG_ORDER


def test_a_fork_of_the_log_that_was_seen_is_refused() -> None:
    async def asking() -> None:
        memory = ForgetfulMemory()
        first, second = MemorySessionStore(), MemorySessionStore()
        for store in (first, second):
            await host_on(store).prepare(SESSION, COORDINATOR.public_bytes)
        await ask(host_on(first, memory=memory), STAGE.closed)
        # This store knows of no decision: what refuses is that the log had another close at that size.
        with pytest.raises(RemoteProtocolError) as caught:
            await ask(host_on(second, memory=memory), smaller())
        assert caught.value.reason is RejectReason.LOG_FORKED
        assert isinstance(await state_in(second), Prepared)

    asyncio.run(asking())


def test_a_session_that_has_ended_is_not_opened_any_more() -> None:
    abort = SessionAbort(SESSION, "too late", 0, bytes(32))
    request = STAGE.closed.request(files=STAGE.closed.files(abort))

    async def asking() -> None:
        store = MemorySessionStore()
        host = host_on(store, AUTHORITY)
        await host.prepare(SESSION, COORDINATOR.public_bytes)
        for _ in range(2):
            with pytest.raises(RemoteProtocolError) as caught:
                await ask(host, STAGE.closed, request)
            assert caught.value.reason is RejectReason.SESSION_OVER
        stored = await store.load(NAME)
        assert AUTHORITY_PERSISTENCE.decode(stored.state) == Ended()

    asyncio.run(asking())


def test_a_session_that_is_not_closed_is_not_opened() -> None:
    entries = [STAGE.session.parameters, STAGE.closed.committed_entry]
    request = STAGE.closed.request(files=STAGE.closed.files(entries=entries))
    assert refusal(STAGE.closed, request) is RejectReason.WRONG_PHASE


# Whom and what it serves.


def changed(**changes: object) -> Closed:
    """An honest session with other parameters, closed."""
    session = session_of(STAGE.made, **changes)
    context = encryption_of(STAGE.made)
    return Closed.of([honest_upload(session, context, number) for number in range(len(CLIENTS))])


def with_policy(**changes: object) -> Authority:
    return dataclasses.replace(AUTHORITY, policy=dataclasses.replace(AUTHORITY.policy, **changes))


STRANGER = key_of("stranger")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"registrar": STRANGER.public_bytes}, RejectReason.NOT_SERVED),
        ({"opening": opening_of(STAGE.made, identity=STRANGER.public_bytes)}, RejectReason.NOT_SERVED),
        ({"opening": opening_of(STAGE.made, context=bytes(32))}, RejectReason.NOT_SERVED),
        ({"min_contributors": 2, "max_corrupt": 0}, RejectReason.BELOW_POLICY),
    ],
    ids=["registrar", "another authority", "context of another session", "below its own floor"],
)
def test_a_session_that_it_does_not_serve_is_not_opened(changes: dict[str, object], reason: RejectReason) -> None:
    assert refusal(changed(**changes)) is reason


def test_a_key_is_made_for_nobody_that_it_does_not_serve() -> None:
    async def asking() -> None:
        store = MemorySessionStore()
        with pytest.raises(RemoteProtocolError) as caught:
            await host_on(store).prepare(SESSION, STRANGER.public_bytes)
        assert caught.value.reason is RejectReason.NOT_SERVED
        assert await store.sessions() == []

    asyncio.run(asking())


def test_another_sessions_close_is_not_opened_with_this_sessions_key() -> None:
    other = prepared(session=CountingRng(b"another").bytes(16), rng=CountingRng(b"another key"))

    async def asking() -> None:
        store = MemorySessionStore()
        host = host_on(store)
        await host.prepare(SESSION, COORDINATOR.public_bytes)
        stage = stage_of(other)
        with pytest.raises(RemoteProtocolError) as caught:
            await ask(host, stage.closed)
        assert caught.value.reason is RejectReason.WRONG_SESSION
        # Nor under its own name: no key was made for it here.
        with pytest.raises(RemoteProtocolError) as unknown:
            await host.decrypt(other.session, stage.closed.request(), stage.closed.pieces())
        assert unknown.value.reason is RejectReason.UNKNOWN_SESSION
        assert isinstance(await state_in(store), Prepared)

    asyncio.run(asking())


def test_a_log_that_its_own_witnesses_did_not_cosign_is_refused() -> None:
    key = VerifierKey("witness.example", SignatureType.COSIGNATURE_V1, key_of("witness").public_bytes)
    asks = LogPolicy((), (WitnessRule("w", key),), (), "w")
    assert refusal(STAGE.closed, own=with_policy(log=asks)) is RejectReason.LOG_UNWITNESSED


def test_a_log_that_another_key_signed_is_refused() -> None:
    files = STAGE.closed.files()
    entries = [STAGE.session.entry, STAGE.closed.committed_entry.to_bytes(), STAGE.closed.close_entry.to_bytes()]
    forged = dataclasses.replace(files, evidence=evidence_of(STRANGER, entries))
    assert refusal(STAGE.closed, STAGE.closed.request(files=forged)) is RejectReason.LOG_SIGNATURE


def test_a_roster_that_its_registrar_did_not_sign_is_refused() -> None:
    files = STAGE.closed.files()
    forged = dataclasses.replace(files, roster_signature=STRANGER.sign_statement(files.roster_head))
    assert refusal(STAGE.closed, STAGE.closed.request(files=forged)) is RejectReason.BAD_SIGNATURE


# The closed set.


def test_fewer_than_the_sessions_minimum_are_not_opened() -> None:
    assert refusal(Closed.of(STAGE.uploads, counted=range(2))) is RejectReason.BELOW_MINIMUM


def test_a_contribution_of_a_stranger_is_not_opened() -> None:
    upload = dataclasses.replace(STAGE.uploads[ATTACKER], key=STRANGER)
    assert refusal(Closed.of((*STAGE.uploads[:ATTACKER], upload))) is RejectReason.OUTSIDE_ROSTER


def test_a_contribution_that_its_identity_did_not_sign_is_not_opened() -> None:
    honest = STAGE.uploads[ATTACKER].header
    forged = Signed(honest.statement, STRANGER.sign_statement(honest.statement.to_bytes())).to_bytes()
    leaves = (*STAGE.closed.committed[:ATTACKER], forged)
    closed = dataclasses.replace(STAGE.closed, committed=leaves, contributions=leaves)
    assert refusal(closed) is RejectReason.BAD_SIGNATURE


def test_a_contribution_of_another_session_is_not_opened() -> None:
    elsewhere = session_of(STAGE.made, retention_s=1)
    foreign = dataclasses.replace(STAGE.uploads[ATTACKER], session=elsewhere)
    assert refusal(Closed.of((*STAGE.uploads[:ATTACKER], foreign))) is RejectReason.WRONG_SESSION


def test_a_contribution_counts_once() -> None:
    leaves = (*STAGE.closed.contributions, STAGE.closed.contributions[-1])
    assert refusal(dataclasses.replace(STAGE.closed, contributions=leaves)) is RejectReason.LOG_MISMATCH


def test_contributions_stand_in_the_order_of_the_roster() -> None:
    leaves = STAGE.closed.contributions
    swapped = dataclasses.replace(STAGE.closed, contributions=(leaves[1], leaves[0], *leaves[2:]))
    assert refusal(swapped) is RejectReason.LOG_MISMATCH
    swapped = dataclasses.replace(STAGE.closed, committed=(leaves[1], leaves[0], *leaves[2:]))
    assert refusal(swapped) is RejectReason.LOG_MISMATCH


@pytest.mark.parametrize("count", [5, 7])
@pytest.mark.parametrize("entry", ["committed_entry", "close_entry"])
def test_a_count_that_is_not_the_lists_is_refused(entry: str, count: int) -> None:
    assert refusal(STAGE.closed.edited(entry, count=count)) is RejectReason.LOG_MISMATCH


@pytest.mark.parametrize(
    ("entry", "changes"),
    [
        ("committed_entry", {"root": bytes(32)}),
        ("close_entry", {"contributions": bytes(32)}),
        ("close_entry", {"limb_sum": bytes(32)}),
    ],
    ids=["committed", "contributions", "limb sum"],
)
def test_what_is_not_what_the_log_says_is_refused(entry: str, changes: dict[str, object]) -> None:
    assert refusal(STAGE.closed.edited(entry, **changes)) is RejectReason.LOG_MISMATCH


def test_a_limb_sum_that_so_many_contributions_cannot_add_up_to_is_refused() -> None:
    # The lanes are the same, their sum modulo 2^64 opens: only the range shows that these are no sums of 16-bit limbs.
    entries = np.frombuffer(STAGE.closed.limb_sum, "<u8").copy()
    entries[0] += 1 << 24
    entries[1] -= 1 << 8
    assert refusal(dataclasses.replace(STAGE.closed, limb_sum=entries.tobytes())) is RejectReason.LOG_MISMATCH


def test_a_limb_sum_of_another_length_is_refused() -> None:
    longer = dataclasses.replace(STAGE.closed, limb_sum=STAGE.closed.limb_sum + bytes(8))
    shorter = dataclasses.replace(STAGE.closed, limb_sum=STAGE.closed.limb_sum[:-8])
    assert refusal(longer) is refusal(shorter) is RejectReason.WRONG_LENGTH


# Ciphertext and attestations.


def test_the_sum_of_another_sets_ciphertexts_is_not_decrypted() -> None:
    fewer = total_ciphertext(each.ciphertext for each in STAGE.uploads[:-1])
    request = dataclasses.replace(STAGE.closed.request(), ciphertext_sum=fewer)
    assert refusal(STAGE.closed, request) is RejectReason.WRONG_CIPHERTEXT


def test_a_sum_that_the_close_binds_and_no_attestor_recomputed_is_not_decrypted() -> None:
    # A single victim's ciphertext in place of the sum: the close binds it, the attestors saw what was published.
    closed = dataclasses.replace(STAGE.closed, ciphertext_sum=STAGE.uploads[VICTIM].ciphertext)
    digest_of_all = Attestation(
        STAGE.session.digest, closed.close_digest, ATTESTORS[0].public_bytes, STAGE.closed.close_entry.opener.digest
    )
    theirs = tuple(signed_by(key, dataclasses.replace(digest_of_all, identity=key.public_bytes)) for key in ATTESTORS)
    assert refusal(closed, closed.request(attestations=theirs)) is RejectReason.TOO_FEW_ATTESTATIONS


def test_bytes_that_are_no_ciphertext_are_not_decrypted() -> None:
    closed = dataclasses.replace(STAGE.closed, ciphertext_sum=b"\0" * len(STAGE.closed.ciphertext_sum))
    assert refusal(closed) is RejectReason.WRONG_CIPHERTEXT


def attested(closed: Closed) -> dict[str, tuple[Signed, ...]]:
    """Attestations of which fewer than two count."""
    good = closed.attestations(ATTESTORS[0])
    statement = good[0].statement
    assert isinstance(statement, Attestation)
    second = dataclasses.replace(statement, identity=ATTESTORS[1].public_bytes)
    return {
        "none": (),
        "one": good,
        "one twice": good * 2,
        "a stranger": (*good, *closed.attestations(STRANGER)),
        "a stranger in an attestor's name": (*good, signed_by(STRANGER, second)),
        "of another close": (*good, signed_by(ATTESTORS[1], dataclasses.replace(second, close=bytes(32)))),
        "of another session": (*good, signed_by(ATTESTORS[1], dataclasses.replace(second, session=bytes(32)))),
        "of another sum": (*good, signed_by(ATTESTORS[1], dataclasses.replace(second, ciphertext_sum=bytes(32)))),
        "a statement of another kind": (*good, STAGE.uploads[0].header),
    }


@pytest.mark.parametrize("which", list(attested(STAGE.closed)))
def test_fewer_different_attestors_than_it_asks_for_are_too_few(which: str) -> None:
    request = STAGE.closed.request(attestations=attested(STAGE.closed)[which])
    assert refusal(STAGE.closed, request) is RejectReason.TOO_FEW_ATTESTATIONS


def test_attestors_of_the_session_that_it_is_not_configured_with_count_for_nothing() -> None:
    strangers = tuple(key_of(f"friend {number}") for number in range(2))
    opening = opening_of(STAGE.made, attestors=tuple(each.public_bytes for each in strangers))
    closed = changed(opening=opening)
    request = closed.request(attestations=closed.attestations(*strangers))
    assert refusal(closed, request) is RejectReason.TOO_FEW_ATTESTATIONS


def test_a_session_that_asks_for_more_attestations_than_the_authority_is_held_to_that() -> None:
    closed = changed(opening=opening_of(STAGE.made, attestations=3))
    assert refusal(closed) is RejectReason.TOO_FEW_ATTESTATIONS


def test_a_session_that_asks_for_fewer_attestations_than_the_authority_is_held_to_the_authoritys_number() -> None:
    closed = changed(opening=opening_of(STAGE.made, attestations=1))
    request = closed.request(attestations=closed.attestations(ATTESTORS[0]))
    assert refusal(closed, request) is RejectReason.TOO_FEW_ATTESTATIONS


# Crashes and backups.


class Recorder:
    """A store that says what was durable when something happened."""

    def __init__(self, inner: MemorySessionStore) -> None:
        self._inner = inner
        self.states: list[type[AuthorityState]] = []
        self.refuses: Callable[[type[AuthorityState]], bool] = lambda _: False

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def commit(self, session: bytes, expected_version: int, commit: Commit) -> object:
        kind = type(AUTHORITY_PERSISTENCE.decode(commit.state))
        if self.refuses(kind):
            raise StoreError("the power failed")
        done = await self._inner.commit(session, expected_version, commit)
        self.states.append(kind)
        return done


def test_what_it_decided_is_durable_before_anything_is_decrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Recorder(MemorySessionStore())
    decrypting: list[list[type[AuthorityState]]] = []
    certify = authority.certify

    def watched(*arguments: object) -> object:
        decrypting.append(list(store.states))
        return certify(*arguments)

    monkeypatch.setattr(authority, "certify", watched)

    async def asking() -> None:
        host = host_on(store)
        await host.prepare(SESSION, COORDINATOR.public_bytes)
        await ask(host, STAGE.closed)

    asyncio.run(asking())
    assert decrypting == [[Prepared, Deciding]]
    assert store.states == [Prepared, Deciding, Answered]


def test_after_a_crash_between_decision_and_answer_the_decided_set_is_answered_and_no_other() -> None:
    store = Recorder(MemorySessionStore())

    async def asking() -> None:
        await host_on(store).prepare(SESSION, COORDINATOR.public_bytes)
        store.refuses = lambda kind: kind is Answered
        with pytest.raises(StoreError):
            await ask(host_on(store), STAGE.closed)
        store.refuses = lambda _: False
        assert isinstance(await state_in(store), Deciding)
        with pytest.raises(RemoteProtocolError) as caught:
            await ask(host_on(store), smaller())
        assert caught.value.reason is RejectReason.OPENED_BEFORE
        assert opens_to(await ask(host_on(store), STAGE.closed), STAGE.secret_sum)

    asyncio.run(asking())


def test_a_crash_before_the_decision_leaves_everything_open() -> None:
    store = Recorder(MemorySessionStore())

    async def asking() -> None:
        await host_on(store).prepare(SESSION, COORDINATOR.public_bytes)
        store.refuses = lambda kind: kind is Deciding
        with pytest.raises(StoreError):
            await ask(host_on(store), smaller())
        store.refuses = lambda _: False
        assert opens_to(await ask(host_on(store), STAGE.closed), STAGE.secret_sum)

    asyncio.run(asking())


def test_two_closed_sets_asked_for_at_once_get_one_answer() -> None:
    async def asking() -> None:
        store = MemorySessionStore()
        await host_on(store).prepare(SESSION, COORDINATOR.public_bytes)
        host, other = host_on(store), smaller()
        # Each without the other's log: only the decision stands between them.
        host._remember = lambda *_: None
        found = await asyncio.gather(ask(host, STAGE.closed), ask(host, other), return_exceptions=True)
        refused = [each for each in found if isinstance(each, RemoteProtocolError)]
        assert [each.reason for each in refused] == [RejectReason.OPENED_BEFORE]
        assert sum(isinstance(each, Signed) for each in found) == 1

    asyncio.run(asking())


def test_a_restored_authority_opens_nothing_that_it_knew_before(tmp_path: Path) -> None:
    path, backup = tmp_path / "sessions.db", tmp_path / "backup.db"

    def sealed(store: SqliteSessionStore) -> SealedSessionStore:
        return SealedSessionStore(store, b"k" * 32, CountingRng(b"nonce").bytes)

    async def asking() -> None:
        store = SqliteSessionStore(path)
        await host_on(sealed(store)).prepare(SESSION, COORDINATOR.public_bytes)
        await store.close()
        shutil.copy(path, backup)
        store = SqliteSessionStore(path)
        await ask(host_on(sealed(store)), smaller())
        await store.close()
        path.unlink()
        shutil.copy(backup, path)
        with pytest.raises(StaleStoreError):
            SqliteSessionStore(path)
        assert mark_restored(path) == 1
        store = SqliteSessionStore(path)
        host = host_on(sealed(store))
        for again in (ask(host, STAGE.closed), ask(host, smaller()), host.prepare(SESSION, COORDINATOR.public_bytes)):
            with pytest.raises(RemoteProtocolError) as caught:
                await again
            assert caught.value.reason is RejectReason.OPENED_BEFORE
        await store.close()

    asyncio.run(asking())
