"""One-shot contributors over stores that fail, processes that die and coordinators that lose answers.

Whatever happens, what leaves a contributor is one header and the bytes that it names.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pytest

from secagg.arith.linear_hash import HASH_BYTES
from secagg.he.bfv import DecryptionKey, EncryptionContext
from secagg.he.errors import HeUnavailableError
from secagg.he.residues import CIPHERTEXT_BYTES
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.protocol.messages import SessionEnded, SignedReceipt
from secagg.protocol.one_shot.client_states import Aborted, Committed, Delivered, OneShotClientState
from secagg.protocol.one_shot.messages import CommitContribution, CommittedList, OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.phases import Phase
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.memory import MemoryBlobStore, MemorySessionStore
from secagg.runtime.one_shot_participant import OneShotParticipant
from secagg.runtime.participant import Milestone, ParticipantPorts, TransportError
from secagg.runtime.ports import BlobStore, SessionStore, StoreError
from secagg.runtime.shown import Status
from secagg.runtime.vectors import linear_hash_of
from secagg.transcript import merkle
from secagg.transcript.entries import SessionAbort
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.statements import Signed
from tests.support.cohort import key_of, one_hot
from tests.support.faults import FaultTime, FaultyStore
from tests.support.jumping_loop import JumpingLoop
from tests.support.one_shot_client import (
    authority_of,
    committed_list,
    context_of,
    first_view,
    one_shot_session,
    receipt_for,
    shown,
    signed_header,
)
from tests.support.rng import CountingRng

T = TypeVar("T")
KEY = DecryptionKey.generate(CountingRng(b"authority"))
ENCRYPTION = EncryptionContext.from_bytes(KEY.public_context())
COMMITTEE = one_shot_session()
WITH_AUTHORITY = one_shot_session(opening=authority_of(hashlib.sha256(KEY.public_context()).digest()))
BOTH = pytest.mark.parametrize("session", [COMMITTEE, WITH_AUTHORITY], ids=["committee", "authority"])


def play(run: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(run)


@dataclass
class Coordinator:
    """Takes what it is given and writes it down; ``loses`` names calls whose next answer, or request, is lost."""

    session: OneShotSession
    committed: list[bytes] = field(default_factory=list)
    uploads: list[tuple[bytes, bytes, tuple[bytes, ...], bytes]] = field(default_factory=list)
    loses: list[tuple[str, FaultTime]] = field(default_factory=list)
    refuses: dict[str, RejectReason] = field(default_factory=dict)
    watched: int = 0
    lists: bool = True
    ended: LogEvidence | None = None

    @property
    def distinct(self) -> tuple[int, int]:
        """How many different headers left the contributor, and how many different contributions."""
        return len({header for header, *_ in self.uploads} | set(self.committed)), len(set(self.uploads))

    def watch(self, session: bytes) -> AsyncIterator[Status]:
        self.watched += 1
        return self._statuses()

    async def _statuses(self) -> AsyncIterator[Status]:
        phase = Phase.MASKED_INPUT if self.committed else Phase.COMMIT
        yield Status(phase if self.ended is None else Phase.ABORTED, 0, 0, 0, 2 if self.committed and self.lists else 1)

    async def send(self, session: bytes, message: CommitContribution) -> None:
        assert isinstance(message, CommitContribution)
        self._pass("send", lambda: self.committed.append(message.signed.to_bytes()))

    async def upload(self, session: bytes, message: OneShotContribution, blobs: BlobStore) -> SignedReceipt:
        header = message.signed.statement
        if message.signed.to_bytes() not in {held for held, *_ in self.uploads}:
            data = blobs.get(header.upload)
            assert hashlib.sha256(data).digest() == header.upload
            assert len(data) == self.session.upload_bytes
        else:
            data = next(data for held, _, _, data in self.uploads if held == message.signed.to_bytes())
        assert tuple(hashlib.sha256(part).digest() for part in message.parts) == header.parts
        sent = (message.signed.to_bytes(), message.linear_hash, message.parts, data)
        await asyncio.sleep(1)  # of the loop's time: others go on meanwhile
        self._pass("upload", lambda: self.uploads.append(sent))
        return receipt_for(self.session, message.signed)

    async def committed_list(self, session: bytes) -> CommittedList:
        self._pass("list", lambda: None)
        others = [signed_header(self.session, number) for number in range(1, 4)]
        return committed_list(self.session, [Signed.from_bytes(self.committed[0]), *others])

    async def outcome(self, session: bytes) -> SessionEnded:
        if self.ended is None:
            raise RemoteProtocolError(RejectReason.WRONG_PHASE)
        return SessionEnded(self.ended)

    def abort(self) -> None:
        identifier = self.session.parameters.session
        self.ended = shown(self.session, SessionAbort(identifier, "too few", 0, merkle.root([])))

    def _pass(self, call: str, take: Any) -> None:
        if call in self.refuses:
            raise RemoteProtocolError(self.refuses[call])
        lost = next((each for each in self.loses if each[0] == call), None)
        if lost is not None:
            self.loses.remove(lost)
        if lost != (call, FaultTime.BEFORE):
            take()
        if lost is not None:
            raise TransportError(f"{call} was lost")


@dataclass
class Contributor:
    """What of a contributor outlives a process: its stores; and what was heard of each life."""

    session: OneShotSession
    coordinator: Coordinator
    store: MemorySessionStore = field(default_factory=MemorySessionStore)
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)
    milestones: list[Milestone] = field(default_factory=list)
    lives: int = 0
    participant: OneShotParticipant | None = None

    def born(self, store: SessionStore | None = None, blobs: Any = None) -> OneShotParticipant:
        """A process of this contributor; its randomness is its own."""
        self.lives += 1
        rng = CountingRng(b"life %d" % self.lives)
        ports = ParticipantPorts(
            store or self.store, blobs or self.blobs, self.coordinator, rng, self.milestones.append
        )
        encryption = None if self.session.opening == COMMITTEE.opening else ENCRYPTION
        vector = one_hot(self.session.parameters.encoding.dimension, 0)
        self.participant = OneShotParticipant(context_of(self.session), vector, ports, LogTrust.nobody(), encryption)
        return self.participant

    async def live(self, store: SessionStore | None = None, blobs: Any = None) -> OneShotClientState:
        """One process, to its end."""
        participant = self.born(store, blobs)
        try:
            await participant.join(first_view(self.session))
            return await participant.run()
        finally:
            await participant.close()


def contributor(session: OneShotSession, **coordinator: Any) -> Contributor:
    return Contributor(session, Coordinator(session, **coordinator))


class DyingStore:
    """``inner``; the process dies at the n-th call, before or after it took effect: nothing ever returns again."""

    def __init__(self, inner: Any, dies_at: int, when: FaultTime) -> None:
        self._inner, self._dies_at, self._when = inner, dies_at, when
        self.calls = 0
        self.died = asyncio.Event()

    async def load(self, *arguments: Any) -> Any:
        return await self._pass(self._inner.load, arguments)

    async def commit(self, *arguments: Any) -> Any:
        return await self._pass(self._inner.commit, arguments)

    async def effect_done(self, *arguments: Any) -> Any:
        return await self._pass(self._inner.effect_done, arguments)

    async def _pass(self, call: Any, arguments: tuple[Any, ...]) -> Any:
        self.calls += 1
        if self.calls < self._dies_at:
            return await call(*arguments)
        if self.calls == self._dies_at and self._when is FaultTime.AFTER:
            await call(*arguments)
        self.died.set()
        return await asyncio.Event().wait()


class FailingBlobs:
    """Blobs of which the n-th ``put`` fails, before or after it took effect."""

    def __init__(self, inner: MemoryBlobStore, when: FaultTime) -> None:
        self._inner, self._when = inner, when
        self.puts: list[bytes] = []

    def put(self, data: bytes | memoryview) -> bytes:
        self.puts.append(bytes(data))
        if len(self.puts) == 1:
            if self._when is FaultTime.AFTER:
                self._inner.put(data)
            raise StoreError("the disk is full")
        return self._inner.put(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def said(one: Contributor) -> None:
    """What must be true of everything that left a contributor, whatever happened."""
    headers, bodies = one.coordinator.distinct
    assert headers <= 1
    assert bodies <= 1


@BOTH
def test_a_contributor_delivers_and_leaves(session):
    one = contributor(session)
    state = play(one.live())
    assert isinstance(state, Delivered)
    assert one.coordinator.distinct == (1, 1)
    assert one.participant.receipt == state.receipt == receipt_for(session, state.sent)
    assert one.participant.report.clamped == 0
    middle = [] if session is COMMITTEE else [Milestone.COMMITTED]
    assert one.milestones == [Milestone.MASKING, *middle, Milestone.CONTRIBUTED, Milestone.DELIVERED]
    assert not one.blobs.has(state.sent.statement.upload)
    assert one.coordinator.committed == ([] if session is COMMITTEE else [state.sent.to_bytes()])


def test_with_a_committee_nobody_watches_the_session():
    one = contributor(COMMITTEE)
    play(one.live())
    assert one.coordinator.watched == 0


@BOTH
def test_a_process_that_comes_back_after_delivery_has_the_receipt_and_sends_nothing(session):
    one = contributor(session)
    state = play(one.live())
    again = play(one.live())
    assert again == state
    assert one.participant.receipt == state.receipt
    assert len(one.coordinator.uploads) == 1


@BOTH
@pytest.mark.parametrize("when", FaultTime)
def test_a_process_that_dies_at_any_commit_sends_the_same_bytes_in_its_next_life(session, when):
    async def two_lives(dies_at: int) -> tuple[Contributor, bool]:
        one = contributor(session)
        store = DyingStore(one.store, dies_at, when)
        first = asyncio.ensure_future(one.live(store))
        death = asyncio.ensure_future(store.died.wait())
        await asyncio.wait({first, death}, return_when=asyncio.FIRST_COMPLETED)
        died = store.died.is_set()
        for task in (first, death, *one.participant._tasks.values()):
            task.cancel()
        for task in list(one.participant._driver._in_flight):
            task.cancel()
        await asyncio.wait({first, death})
        state = await one.live()
        assert isinstance(state, Delivered)
        return one, died

    deaths = 0
    for dies_at in range(1, 30):
        one, died = play(two_lives(dies_at))
        said(one)
        assert one.coordinator.distinct == (1, 1)
        deaths += died
        if not died:
            break
    assert deaths >= 6
    assert not died


@BOTH
@pytest.mark.parametrize("when", FaultTime)
def test_a_store_that_fails_at_any_call_costs_time_and_nothing_else(session, when):
    async def life(fail_at: int) -> tuple[Contributor, int]:
        one = contributor(session)
        store = FaultyStore(one.store, fail_at, when)
        try:
            state = await one.live(store)
        except StoreError:
            state = await one.live()
        assert isinstance(state, Delivered)
        return one, store.calls

    for fail_at in range(1, 30):
        one, calls = play(life(fail_at))
        said(one)
        if calls < fail_at:
            break
    assert calls < fail_at


@BOTH
@pytest.mark.parametrize("when", FaultTime)
def test_a_disk_that_fails_while_the_input_is_stored_gives_the_same_upload_again(session, when):
    one = contributor(session)
    blobs = FailingBlobs(one.blobs, when)
    assert isinstance(play(one.live(blobs=blobs)), Delivered)
    assert len(blobs.puts) == 2
    assert blobs.puts[0] == blobs.puts[1]
    assert one.coordinator.distinct == (1, 1)


@BOTH
@pytest.mark.parametrize("when", FaultTime)
@pytest.mark.parametrize("call", ["send", "upload", "list"])
def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_bytes(session, when, call):
    one = contributor(session, loses=[(call, when)] * 3)
    assert isinstance(play(one.live()), Delivered)
    assert one.coordinator.distinct == (1, 1)


@BOTH
def test_an_upload_that_is_refused_ends_the_participation_for_good(session):
    one = contributor(session, refuses={"upload": RejectReason.DOUBLED_UPLOAD})
    with pytest.raises(RemoteProtocolError) as caught:
        play(one.live())
    assert caught.value.reason is RejectReason.DOUBLED_UPLOAD
    one.coordinator.refuses.clear()
    assert play(one.live()) == Aborted(one.participant.state.view, RejectReason.DOUBLED_UPLOAD)
    assert one.coordinator.uploads == []


@BOTH
def test_an_upload_that_comes_too_late_is_refused_with_the_coordinators_word(session):
    one = contributor(session, refuses={"upload": RejectReason.WRONG_PHASE})
    with pytest.raises(RemoteProtocolError) as caught:
        play(one.live())
    assert caught.value.reason is RejectReason.WRONG_PHASE


def test_an_upload_to_a_session_that_was_aborted_ends_with_its_log():
    one = contributor(COMMITTEE, refuses={"upload": RejectReason.SESSION_OVER})
    real = one.coordinator.outcome

    async def aborted(identifier: bytes) -> SessionEnded:
        one.coordinator.abort()
        return await real(identifier)

    one.coordinator.outcome = aborted
    state = play(one.live())
    assert state == Aborted(state.view, RejectReason.ABORTED)
    assert state.view.abort.reason == "too few"


def test_a_session_that_is_aborted_while_others_commit_ends_the_wait():
    one = contributor(WITH_AUTHORITY, lists=False)
    real = one.coordinator.send

    async def send(session: bytes, message: CommitContribution) -> None:
        await real(session, message)
        one.coordinator.abort()

    one.coordinator.send = send
    state = play(one.live())
    assert state == Aborted(state.view, RejectReason.ABORTED)
    assert one.coordinator.uploads == []


def test_a_commitment_that_comes_too_late_leaves_the_word_to_the_list():
    one = contributor(WITH_AUTHORITY, refuses={"send": RejectReason.WRONG_PHASE})
    others = [signed_header(WITH_AUTHORITY, number) for number in range(1, 4)]

    async def without_it(session: bytes) -> CommittedList:
        return committed_list(WITH_AUTHORITY, others)

    async def listed() -> AsyncIterator[Status]:
        yield Status(Phase.MASKED_INPUT, 0, 0, 0, 2)

    one.coordinator.committed_list = without_it
    one.coordinator._statuses = listed
    state = play(one.live())
    assert state == Aborted(state.view, RejectReason.LEFT_OUT)
    assert one.coordinator.uploads == []


@BOTH
def test_the_linear_hash_that_is_sent_is_that_of_the_upload(session):
    one = contributor(session)
    play(one.live())
    ((_, linear_hash, _, data),) = one.coordinator.uploads
    assert linear_hash == linear_hash_of(np.frombuffer(data, dtype="<u8"))


def test_a_receipt_that_is_wrong_is_not_taken():
    one = contributor(COMMITTEE)
    real = one.coordinator.upload

    async def upload(*arguments: Any) -> SignedReceipt:
        receipt = await real(*arguments)
        return SignedReceipt(receipt.receipt, bytes(64))

    one.coordinator.upload = upload
    with pytest.raises(RemoteProtocolError) as caught:
        play(one.live())
    assert caught.value.reason is RejectReason.WRONG_RECEIPT
    assert one.participant.receipt is None


def test_encryption_that_is_not_installed_is_said_and_nothing_is_sent(monkeypatch):
    def missing() -> None:
        raise HeUnavailableError

    monkeypatch.setattr("secagg.he.seal.load_api", missing)
    one = contributor(WITH_AUTHORITY)
    with pytest.raises(HeUnavailableError, match="pip install"):
        play(one.live())
    assert one.coordinator.committed == []


@BOTH
def test_whoever_is_not_in_the_roster_sends_nothing(session, monkeypatch):
    one = contributor(session)
    outsider = dataclasses.replace(context_of(session), identity=key_of("outsider"))
    monkeypatch.setattr("tests.unit.one_shot.test_participant.context_of", lambda _: outsider)
    with pytest.raises(LocalProtocolError) as caught:
        play(one.live())
    assert caught.value.reason is RejectReason.UNKNOWN_IDENTITY
    assert (one.coordinator.committed, one.coordinator.uploads) == ([], [])


def test_a_stored_session_of_other_parameters_is_not_gone_on_with():
    one = contributor(COMMITTEE)
    play(one.live())
    other = one_shot_session(retention_s=7)
    one.session = other
    one.coordinator.session = other
    with pytest.raises(RemoteProtocolError) as caught:
        play(one.live())
    assert caught.value.reason is RejectReason.LOG_FORKED


def test_what_waits_for_others_holds_no_upload_in_memory():
    """With an authority the masked bytes are on disk, and the state has hash and ciphertext only."""
    one = contributor(WITH_AUTHORITY, lists=False)
    sizes = []
    real = one.coordinator.send

    async def send(session: bytes, message: CommitContribution) -> None:
        await real(session, message)
        state = one.participant.state
        assert isinstance(state, Committed)
        assert one.blobs.has(state.sent.statement.upload)
        sizes.append(len(state.linear_hash) + sum(map(len, state.parts)))
        one.coordinator.lists = True

    one.coordinator.send = send
    assert isinstance(play(one.live()), Delivered)
    assert sizes == [HASH_BYTES + CIPHERTEXT_BYTES]
