"""Whole sessions in memory over stores that fail at the n-th call, before or after it took effect, for every n.

Real registry, host, log, upload desk and participants; time jumps ahead whenever nobody has anything left to do.
Whatever was published, shown, sent or acknowledged in a run is written down and judged at its end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pytest

from secagg.arith.linear_hash import HASH_BYTES
from secagg.client import Coordinator, SessionDetails
from secagg.crypto.notes import log_key
from secagg.crypto.secret import Secret
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import (
    AdvertisedList,
    AdvertiseKeys,
    ClientMessage,
    ClosedList,
    Confirmations,
    ConfirmClose,
    Contribution,
    SessionEnded,
    SharedList,
    ShareKeys,
    SignedReceipt,
    UnmaskAnswer,
)
from secagg.protocol.pairwise.client import ClientContext
from secagg.protocol.pairwise.client_states import ClientState, Completed
from secagg.protocol.pairwise.coordinator_states import (
    COORDINATOR_PERSISTENCE,
    Aborted,
    AdvertiseRow,
    AnswerRow,
    ConfirmRow,
    Finished,
    Row,
    ShareRow,
)
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import HeaderRow, RejectedRow, RowKind, SetupRow, StagedRow, row_key
from secagg.protocol.session import ClientPolicy
from secagg.remote import SessionFiles
from secagg.runtime.log_ports import CosignError, Cosigners, NoCosigners
from secagg.runtime.log_state import open_log
from secagg.runtime.log_trust import CheckpointMemory, ForgetfulMemory, LogTrust
from secagg.runtime.memory import MemoryBlobStore, MemoryRecord, MemorySessionStore
from secagg.runtime.memory_log import MemoryLogFiles
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.runtime.pairwise_participant import PairwiseParticipant
from secagg.runtime.participant import Milestone, ParticipantPorts, TransportError
from secagg.runtime.ports import BlobStore, Commit, LogPort, SessionStore, StoreError, UploadError
from secagg.runtime.registry import Registry
from secagg.runtime.session_host import CoordinatorPorts
from secagg.runtime.shown import Status
from secagg.runtime.transparency_log import TransparencyLog
from secagg.services.uploads import Chunk, UploadDesk
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.entries import (
    KeysAdvertised,
    KeysShared,
    LogEntry,
    PairwiseOpen,
    SessionAbort,
    SessionClose,
    SessionResult,
    SignedRoster,
    decode_entry,
)
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.note import Note, NoteSignature
from secagg.transcript.statements import ContributionHeader, SelfMaskShare, UnmaskStatement
from secagg.v1 import aggregation_pb2 as pb
from secagg.wire import convert
from tests.support.cohort import key_of, one_hot, session_of, setup_of
from tests.support.faults import FaultTime, FaultyStore, InjectedFaultError
from tests.support.jumping_loop import JumpingLoop
from tests.support.published import NO_WITNESSES, ORIGIN, memory_log
from tests.support.record_rules import FILES_OF, broken_rules
from tests.support.rng import CountingRng
from tests.support.stage import UNIT, signed_by, sorted_keys

SIZE = 5
T = TypeVar("T")
WHEN = pytest.mark.parametrize("when", FaultTime)


# A clock that follows the loop, in which time passes only where somebody would otherwise wait for it.


class LoopClock:
    """The loop's time as a wall clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()

    def now_s(self) -> int:
        return 1_000_000 + int(self._loop.time() - self._start_s)


def play(run: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(run)


# What goes wrong.


class DyingStore(FaultyStore):
    """A FaultyStore of a process that dies with the fault: afterwards nothing reaches ``inner`` any more."""

    def __init__(self, inner: SessionStore, fail_at: int, when: FaultTime) -> None:
        super().__init__(inner, fail_at, when)
        self.fault = asyncio.Event()

    async def _pass(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.fault.is_set():
            raise InjectedFaultError("the process is dead")
        try:
            return await super()._pass(call)
        except InjectedFaultError:
            self.fault.set()
            raise


class SlowStore:
    """A store whose calls take a moment, in their order: so that many are under way at once, as on a disk."""

    def __init__(self, inner: SessionStore) -> None:
        self.sessions, self.load, self._inner = inner.sessions, inner.load, inner

    async def commit(self, session: bytes, expected_version: int, commit: Commit) -> Sequence[int]:
        await asyncio.sleep(0.002)
        return await self._inner.commit(session, expected_version, commit)

    async def effect_done(self, session: bytes, effect: int) -> None:
        await asyncio.sleep(0.002)
        await self._inner.effect_done(session, effect)


class Flaky:
    """A port whose methods block, and whose ``fail_at``-th call raises, before or after it took effect."""

    def __init__(self, inner: Any, fail_at: int, when: FaultTime) -> None:
        self._inner, self._fail_at, self._when = inner, fail_at, when
        self.calls = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inner, name)

        def call(*args: Any) -> Any:
            self.calls += 1
            fails = self.calls == self._fail_at
            if fails and self._when is FaultTime.BEFORE:
                raise InjectedFaultError(f"{name}, before")
            answer = method(*args)
            if fails:
                raise InjectedFaultError(f"{name}, after")
            return answer

        return call


class FlakyLogFiles:
    """The files of a log, whose ``fail_at``-th writing call raises, before or after it took effect.

    ``fault`` is set with it, for who wants the process to die there: then nothing is written any more.
    """

    _WRITES = frozenset({"settle", "add", "keep_signed", "publish", "remove_partials"})

    def __init__(self, inner: Any, fail_at: int, when: FaultTime, *, dies: bool) -> None:
        self._inner, self._fail_at, self._when, self._dies = inner, fail_at, when, dies
        self.calls = 0
        self.fault = asyncio.Event()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inner, name)
        if name not in self._WRITES:
            return method

        async def call(*args: Any) -> Any:
            if self.fault.is_set():
                raise InjectedFaultError("the process is dead")
            self.calls += 1
            fails = self.calls == self._fail_at
            if fails and self._when is FaultTime.BEFORE:
                self._fail(name)
            answer = await method(*args)
            if fails:
                self._fail(name)
            return answer

        return call

    def _fail(self, name: str) -> None:
        if self._dies:
            self.fault.set()
        raise InjectedFaultError(f"{name}, {self._when.value}")


class AbsentWitnesses:
    """Cosigners that are away from request number ``first`` (counted from 1) on, for so many ``times``."""

    def __init__(self, first: int, times: int) -> None:
        self._away = range(first, first + times)
        self.asked: list[bytes] = []

    async def cosign(self, checkpoint: Note, consistency: object) -> tuple[NoteSignature, ...]:
        self.asked.append(checkpoint.to_bytes())
        if len(self.asked) in self._away:
            raise CosignError("nobody is there")
        return ()


# Who takes part, and what is written down of it.


@dataclass
class Journal:
    """Everything that anybody but its sender could have seen in one run."""

    entries: dict[int, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    heads: dict[int, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    published: set[bytes] = field(default_factory=set)
    fixed: dict[str, bytes] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    sent: dict[tuple[bytes, type[ClientMessage]], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    messages: list[ClientMessage] = field(default_factory=list)
    uploads: dict[bytes, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    acknowledged: list[ClientMessage] = field(default_factory=list)
    receipts: set[bytes] = field(default_factory=set)

    def show(self, evidence: LogEvidence) -> None:
        for position, entry in enumerate(evidence.entries, start=evidence.start):
            self.entries[position].add(entry)
        self.heads[evidence.size].add(evidence.checkpoint)
        if evidence.checkpoint not in self.published:
            self.broken.append(f"a log of {evidence.size} entries was shown before it was published")

    def entry_published(self, entry: LogEntry, record: Callable[[str], bytes | None]) -> None:
        """From now on everybody may fetch what this entry is about."""
        self.broken += [f"{entry.TYPE} was published without its {name}" for name in broken_rules(entry, record)]
        for name in FILES_OF[type(entry)]:
            self.fixed.setdefault(name, record(name) or b"")

    def send(self, message: ClientMessage, data: bytes) -> None:
        self.sent[message.signed.statement.identity, type(message)].add(data)
        self.messages.append(message)


class WatchedFiles:
    """The files of the log as they are on disk: every publication is judged at the moment it happens."""

    def __init__(self, site: Site) -> None:
        self.disk = MemoryLogFiles()
        self._site = site

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.disk, name)

    def entries(self) -> list[LogEntry]:
        """Those under the published checkpoint."""
        state = open_log(self.disk, log_key(ORIGIN, key_of("coordinator").public_bytes))
        return [decode_entry(entry) for entry in state.entries(0, state.published_size)]

    async def publish(self, checkpoint: bytes) -> None:
        await self.disk.publish(checkpoint)
        self._site.journal.published.add(checkpoint)
        for entry in self.entries():
            self._site.journal.entry_published(entry, self._site.published_file)


class Site:
    """A coordinator that is kept running: started again from its store whenever it has died.

    Participants see it as a CoordinatorPort; every message passes through the wire codec.
    """

    def __init__(self, session: PairwiseSession, journal: Journal) -> None:
        self.session = session
        self.journal = journal
        self.inner = MemorySessionStore()
        self.blobs: BlobStore = MemoryBlobStore()
        self.disk = WatchedFiles(self)
        self.files: Any = self.disk
        self.cosigners: Cosigners = NoCosigners()
        self.published = MemoryRecord()
        self.record: Any = self.published
        self.clock = LoopClock()
        self.reports: list[Any] = []
        self.starts = 0
        self.gone: set[bytes] = set()
        self._registry: Registry | None = None
        self._desk: UploadDesk | None = None
        self._down = asyncio.Event()

    async def serve(self, store: SessionStore) -> None:
        """Serve until cancelled; after a deadly fault of store or log start again over what is on the disk."""
        key = key_of("coordinator")
        while True:
            faults = [each.fault for each in (store, self.files) if isinstance(each, DyingStore | FlakyLogFiles)]
            fault = faults[0] if faults else asyncio.Event()
            log = TransparencyLog(self.files, self.cosigners, key, ORIGIN, self._report)
            ports = CoordinatorPorts(store, self.blobs, log, self.record, self.clock, key, self._report)
            registry, desk = Registry(ports), UploadDesk(self.blobs, Secret(bytes(32)))
            self._down = asyncio.Event()
            self.starts += 1
            operator: asyncio.Task[None] | None = None
            try:
                await registry.start()
                await desk.sweep(registry.hosts())
                self._registry, self._desk = registry, desk
                operator = asyncio.ensure_future(self._open(registry))
                await fault.wait()
            except InjectedFaultError:
                pass  # it did not start
            finally:
                self._registry = None
                self._down.set()
                if operator is not None:
                    operator.cancel()
                    await asyncio.gather(operator, return_exceptions=True)
                await desk.close()
                await registry.close()
                await log.close()
            store, self.files = self.inner, self.disk

    async def _open(self, registry: Registry) -> None:
        """What an operator does, who tries again until it works."""
        while True:
            try:
                await registry.open(self.session, setup_of(self.session, self.blobs))
                return
            except StoreError:
                await asyncio.sleep(0.1)

    def _report(self, *report: Any) -> None:
        self.reports.append(report)

    def published_file(self, name: str) -> bytes | None:
        """A file of the session in the record."""
        return self.published.files.get((self.session.parameters.session, name))

    async def _call(self, work: Callable[[PairwiseHost, UploadDesk], Awaitable[T]]) -> T:
        """One call to whoever serves now; it breaks off when that process dies."""
        registry, desk, down = self._registry, self._desk, self._down
        if registry is None or desk is None:
            raise TransportError("nobody listens")

        async def answer() -> T:
            return await work(await registry.find(self.session.parameters.session), desk)

        task, gone = asyncio.ensure_future(answer()), asyncio.ensure_future(down.wait())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if down.is_set():
                raise TransportError("the connection broke")
            return task.result()
        except (StoreError, UploadError) as error:
            raise TransportError(type(error).__name__) from None
        except RemoteProtocolError as error:
            if error.reason in {RejectReason.UNKNOWN_SESSION, RejectReason.UNKNOWN_UPLOAD}:
                raise TransportError(error.reason.name) from None
            raise
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def watch(self, session: bytes) -> AsyncIterator[Status]:
        last: Status | None = None
        version = -1
        while last is None or last.phase not in {Phase.FINISHED, Phase.ABORTED}:

            async def change(host: PairwiseHost, _: UploadDesk, version: int = version) -> tuple[int, Status]:
                await host.driver.wait_for_change(version)
                return host.driver.version, host.status()

            version, status = await self._call(change)
            if status != last:
                yield status
            last = status

    async def send(self, session: bytes, message: ClientMessage) -> None:
        data, decoded = _over_the_wire(session, message)
        self.journal.send(message, data)
        if isinstance(decoded, ShareKeys):
            await self._call(lambda host, _: host.share_keys(decoded))
        else:
            await self._call(lambda host, _: host.submit(decoded))
        self.journal.acknowledged.append(message)

    async def upload(self, session: bytes, message: Contribution, blobs: BlobStore) -> SignedReceipt:
        data, decoded = _over_the_wire(session, message)
        header = message.signed.statement
        assert isinstance(decoded, Contribution)
        assert isinstance(header, ContributionHeader)
        if header.identity in self.gone:
            await asyncio.Event().wait()  # until its process has left
        self.journal.send(message, data)
        # A client that has its receipt may have deleted what it announces again.
        body = blobs.get(header.upload) if blobs.has(header.upload) else b""
        if body:
            self.journal.uploads[header.identity].add(body)
        token, committed, receipt = await self._call(lambda host, desk: desk.begin(host, decoded))
        self.journal.acknowledged.append(message)
        while committed < len(body):
            chunk = Chunk(committed, piece := body[committed : committed + 16], zlib.crc32(piece))
            committed = await self._call(lambda _, desk, chunk=chunk: desk.write(token, chunk))
        if receipt is None:
            receipt = await self._call(lambda _, desk: desk.finish(token))
        self.journal.receipts.add(header.identity)
        return receipt

    async def advertised_list(self, session: bytes, identity: bytes) -> AdvertisedList:
        return await self._shown(lambda host, _: _now(host.advertised_list(identity)))

    async def shared_list(self, session: bytes, identity: bytes) -> SharedList:
        return await self._shown(lambda host, _: host.shared_list(identity))

    async def closed_list(self, session: bytes) -> ClosedList:
        return await self._shown(lambda host, _: _now(host.closed_list()))

    async def confirmations(self, session: bytes, identity: bytes) -> Confirmations:
        return await self._call(lambda host, _: _now(host.confirmations(identity)))

    async def outcome(self, session: bytes) -> SessionEnded:
        return await self._shown(lambda host, _: _now(host.outcome()))

    async def session_files(self, session: bytes, log_size: int) -> SessionFiles:
        def shown(host: PairwiseHost) -> SessionFiles:
            setup, get = host.setup(), self.blobs.get
            roster = tuple(get(setup.roster).splitlines())
            layout, adapter = get(setup.layout), get(setup.adapter)
            head, signature, consistency = setup.roster_head, setup.roster_signature, host.consistency(log_size)
            return SessionFiles(host.evidence(), roster, head, signature, layout, adapter, consistency, b"")

        files = await self._call(lambda host, _: asyncio.to_thread(shown, host))
        self.journal.show(files.evidence)
        return files

    async def _shown(self, work: Callable[[PairwiseHost, UploadDesk], Awaitable[T]]) -> T:
        answer = await self._call(work)
        assert isinstance(answer, AdvertisedList | SharedList | ClosedList | SessionEnded)
        self.journal.show(answer.evidence)
        return answer


async def _now(value: T) -> T:
    return value


def _over_the_wire(session: bytes, message: ClientMessage) -> tuple[bytes, ClientMessage]:
    match message:
        case AdvertiseKeys():
            data = convert.advertise_keys_to_pb(session, message).SerializeToString()
            return data, convert.advertise_keys_from_pb(pb.AdvertiseKeysRequest.FromString(data))
        case ShareKeys():
            data = convert.share_keys_to_pb(session, message).SerializeToString()
            return data, convert.share_keys_from_pb(pb.ShareKeysRequest.FromString(data))
        case Contribution():
            data = convert.contribution_to_pb(session, message).SerializeToString()
            return data, convert.contribution_from_pb(pb.StartUploadRequest.FromString(data))
        case ConfirmClose():
            data = convert.confirm_close_to_pb(session, message).SerializeToString()
            return data, convert.confirm_close_from_pb(pb.ConfirmCloseRequest.FromString(data))
        case UnmaskAnswer():
            data = convert.unmask_answer_to_pb(session, message).SerializeToString()
            return data, convert.unmask_answer_from_pb(pb.UnmaskRequest.FromString(data))


class Contributor:
    """One client, started again from its store whenever it has died, every time with other randomness."""

    def __init__(self, number: int, site: Site) -> None:
        self.number = number
        self.site = site
        self.inner: SessionStore = MemorySessionStore()
        self.blobs: BlobStore = MemoryBlobStore()
        self.memory: CheckpointMemory = ForgetfulMemory()
        self.key = sorted_keys(SIZE)[number]
        self.starts = 0
        self.leaves_at: Milestone | None = None

    def leave_before_uploading(self) -> None:
        """Share keys, mask, and never send anything again."""
        self.leaves_at = Milestone.MASKING
        self.site.gone.add(self.key.public_bytes)

    async def take_part(self, store: SessionStore) -> ClientState | None:
        """Until the session is over for this client; None if it left."""
        while True:
            self.starts += 1
            fault = store.fault if isinstance(store, DyingStore) else asyncio.Event()
            life = asyncio.ensure_future(self._live(store))
            gone = asyncio.ensure_future(fault.wait())
            try:
                await asyncio.wait({life, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not fault.is_set():
                    return life.result()
            except InjectedFaultError:
                pass  # a process that tells its user so and ends
            except _LeftError:
                return None
            finally:
                gone.cancel()
                life.cancel()
                await asyncio.gather(life, gone, return_exceptions=True)
            store = self.inner

    async def _live(self, store: SessionStore) -> ClientState:
        rng = CountingRng(b"client %d, life %d" % (self.number, self.starts))
        left = asyncio.get_running_loop().create_future()

        def progress(milestone: Milestone) -> None:
            if milestone is self.leaves_at and not left.done():
                left.set_exception(_LeftError())

        running = asyncio.ensure_future(self._run(ParticipantPorts(store, self.blobs, self.site, rng, progress)))
        try:
            await asyncio.wait({running, left}, return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                left.result()
            return running.result()
        finally:
            left.cancel()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _run(self, ports: ParticipantPorts) -> ClientState:
        trust = LogTrust(NO_WITNESSES, self.memory)
        details = await self._details(Coordinator(self.site, key_of("coordinator").public_bytes, trust))
        context = ClientContext(self.key, details.session, ClientPolicy(), NO_WITNESSES)
        participant = PairwiseParticipant(context, one_hot(SIZE, self.number), ports, trust)
        try:
            await participant.join(details.view)
            return await participant.run()
        finally:
            await participant.close()

    async def _details(self, coordinator: Coordinator) -> SessionDetails:
        """What a client checks before it joins; until the operator could open the session, nobody has heard of it."""
        while True:
            try:
                return await coordinator.details(self.site.session.parameters.session)
            except TransportError:
                pass
            except RemoteProtocolError as error:
                if error.reason is not RejectReason.WRONG_PHASE:
                    raise
            await asyncio.sleep(0.1)


class _LeftError(Exception):
    """The client left as planned."""


@dataclass
class Scene:
    """One run: a coordinator, its contributors, and how it ended."""

    site: Site
    contributors: list[Contributor]
    journal: Journal
    states: list[ClientState | BaseException | None] = field(default_factory=list)

    @classmethod
    def set_up(cls) -> Scene:
        journal = Journal()
        session = session_of(sorted_keys(SIZE), dimension=SIZE)
        site = Site(session, journal)
        return cls(site, [Contributor(number, site) for number in range(SIZE)], journal)

    async def run(self, store: SessionStore | None = None, stores: dict[int, SessionStore] | None = None) -> None:
        """Let everybody take part until the coordinator's session and all clients are done."""
        serving = asyncio.ensure_future(self.site.serve(store or self.site.inner))
        try:
            async with asyncio.timeout(3600):  # of the loop's time: deadlines add up to 300 s
                self.states = await asyncio.gather(
                    *(one.take_part((stores or {}).get(one.number, one.inner)) for one in self.contributors),
                    return_exceptions=True,
                )
                while not isinstance(await self.state(), Finished | Aborted):
                    await asyncio.sleep(1.0)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def state(self) -> object:
        stored = await self.site.inner.load(self.site.session.parameters.session)
        return None if stored is None else COORDINATOR_PERSISTENCE.decode(stored.state)

    async def rows(self) -> dict[int, Row]:
        stored = await self.site.inner.load(self.site.session.parameters.session)
        assert stored is not None
        return {key: COORDINATOR_PERSISTENCE.decode(row) for key, row in stored.rows.items()}

    async def judge(self) -> None:
        """What must hold at the end of every run, however it went."""
        assert self.journal.broken == []
        for position, entries in self.journal.entries.items():
            assert len(entries) == 1, f"log position {position} had {len(entries)} entries"
        for size, heads in self.journal.heads.items():
            assert len(heads) == 1, f"a log of {size} entries had {len(heads)} heads"
        for contributor in self.contributors:
            pinned = contributor.memory.load()
            assert pinned is None or pinned in self.journal.published, "a client remembers what nobody published"
        for name, content in self.journal.fixed.items():
            assert self.site.published_file(name) == content, f"{name} was changed after its entry"
        for (identity, kind), sent in self.journal.sent.items():
            assert len(sent) == 1, f"{identity.hex()[:8]} sent {len(sent)} different {kind.__name__}"
        for identity, uploads in self.journal.uploads.items():
            assert len(uploads) == 1, f"{identity.hex()[:8]} sent {len(uploads)} different masked inputs"
        assert not _both_kinds(self.journal.messages)
        rows = await self.rows()
        for message in self.journal.acknowledged:
            assert _is_kept(self.site.session, rows, message), f"lost {type(message).__name__}"
        state = await self.state()
        kinds = [type(entry) for entry in self.site.disk.entries()]
        ending = [SessionResult] if isinstance(state, Finished) else [SessionAbort]
        assert kinds == [*_ORDER[: len(kinds) - 1], *ending], "the log has not one entry of each kind"
        assert not isinstance(state, Finished) or len(kinds) == len(_ORDER) + 1
        if isinstance(state, Finished):
            accepted = {state.cohort.positions[index] for index in state.accepted}
            expected = [UNIT if position in accepted else 0 for position in range(SIZE)]
            found = np.frombuffer(self.site.blobs.get(state.integer_sum), dtype="<i8")
            assert found.tolist() == expected
        for identity in self.journal.receipts:
            position = self.site.session.positions[identity]
            assert isinstance(rows.get(row_key(position, RowKind.STAGED)), StagedRow)
            if isinstance(state, Finished):
                assert position in accepted, "a receipt was given, and the contribution left out"

    def completed(self) -> list[int]:
        return [number for number, state in enumerate(self.states) if isinstance(state, Completed)]


_ORDER: list[type[LogEntry]] = [SignedRoster, PairwiseOpen, KeysAdvertised, KeysShared, SessionClose]


def _both_kinds(messages: Sequence[ClientMessage]) -> set[int]:
    """Owners of whom shares of both kinds were ever sent, by whomever."""
    kinds: dict[int, set[bool]] = defaultdict(set)
    for message in messages:
        if isinstance(message.signed.statement, UnmaskStatement):
            for share in message.signed.statement.shares:
                kinds[share.index].add(isinstance(share, SelfMaskShare))
    return {index for index, seen in kinds.items() if len(seen) > 1}


def _is_kept(session: PairwiseSession, rows: dict[int, Row], message: ClientMessage) -> bool:
    position = session.positions[message.signed.statement.identity]
    match message:
        case AdvertiseKeys(signed, mask_public, share_public):
            row: Row = AdvertiseRow(signed, mask_public, share_public)
            return rows.get(row_key(position, RowKind.ADVERTISE)) == row
        case ShareKeys(signed):
            found = rows.get(row_key(position, RowKind.SHARE))
            return isinstance(found, ShareRow) and found.signed == signed
        case Contribution(signed):
            return rows.get(row_key(position, RowKind.HEADER)) == HeaderRow(signed)
        case ConfirmClose(signed):
            return rows.get(row_key(position, RowKind.CONFIRM)) == ConfirmRow(signed)
        case UnmaskAnswer(signed):
            return rows.get(row_key(position, RowKind.ANSWER)) == AnswerRow(signed.to_bytes())


FAULTS_AT_MOST = 400


async def _sweep(one_run: Callable[[int], Awaitable[bool]]) -> int:
    """Run with the fault at the first call, the second and so on, until no fault fires; how many did."""
    for call in range(1, FAULTS_AT_MOST):
        try:
            if not await one_run(call):
                return call - 1
        except BaseException as error:
            error.add_note(f"the fault was at call {call}")
            raise
    raise AssertionError("the faults have no end")


def _with_a_dropout() -> Scene:
    """Everybody contributes but number 1, which shares its keys and leaves: shares of both kinds are needed."""
    scene = Scene.set_up()
    scene.contributors[1].leave_before_uploading()
    return scene


async def _all_but_the_dropout_are_in_the_sum(scene: Scene) -> None:
    await scene.judge()
    state = await scene.state()
    assert isinstance(state, Finished)
    assert state.accepted == (0, 2, 3, 4)
    assert scene.completed() == [0, 2, 3, 4]


def test_a_session_without_faults_ends_with_the_sum() -> None:
    async def run() -> None:
        scene = _with_a_dropout()
        await scene.run()
        await _all_but_the_dropout_are_in_the_sum(scene)
        assert scene.site.starts == 1

    play(run())


def test_receipts_that_never_come_keep_no_confirmation_back() -> None:
    """Uploads may go another way than messages, where a connection can be lost in silence; an hour may pass then."""

    async def run() -> None:
        scene = _with_a_dropout()
        deliver = scene.site.upload

        async def upload(session: bytes, message: Contribution, blobs: BlobStore) -> SignedReceipt:
            await deliver(session, message, blobs)
            return await asyncio.Event().wait()

        scene.site.upload = upload
        await scene.run()
        await _all_but_the_dropout_are_in_the_sum(scene)

    play(run())


@WHEN
def test_a_coordinator_that_dies_at_any_call_of_its_store_goes_on_from_it(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        store = DyingStore(scene.site.inner, call, when)
        await scene.run(store)
        await _all_but_the_dropout_are_in_the_sum(scene)
        assert scene.site.starts == 1 + store.fault.is_set()
        return store.fault.is_set()

    assert play(_sweep(one_run)) >= 40


def _with_a_liar() -> Scene:
    """Everybody contributes; number 2 signs the hash of another vector, the same one whenever it is asked."""
    scene = Scene.set_up()
    site, key = scene.site, scene.contributors[2].key
    honest_upload, lie = site.upload, bytes(HASH_BYTES)

    async def upload(session: bytes, message: Contribution, blobs: BlobStore) -> SignedReceipt:
        header = message.signed.statement
        if header.identity == key.public_bytes:
            header = dataclasses.replace(header, linear_hash=hashlib.sha256(lie).digest())
            message = Contribution(signed_by(key, header), lie)
        receipt = await honest_upload(session, message, blobs)
        # Nothing was promised to who lied.
        site.journal.receipts.discard(key.public_bytes)
        return receipt

    site.upload = upload
    return scene


async def _all_but_the_liar_are_in_the_sum(scene: Scene) -> None:
    await scene.judge()
    state, rows = await scene.state(), await scene.rows()
    assert isinstance(state, Finished)
    assert state.accepted == (0, 1, 3, 4)
    assert scene.completed() == [0, 1, 3, 4]
    rejected = {key: row for key, row in rows.items() if isinstance(row, RejectedRow)}
    assert rejected == {row_key(state.cohort.positions[2], RowKind.REJECTED): RejectedRow("WRONG_LINEAR_HASH")}


@WHEN
def test_a_coordinator_that_dies_at_any_call_of_its_store_finds_the_liar_all_the_same(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_liar()
        store = DyingStore(scene.site.inner, call, when)
        await scene.run(store)
        await _all_but_the_liar_are_in_the_sum(scene)
        return store.fault.is_set()

    assert play(_sweep(one_run)) >= 40


@pytest.mark.long
@WHEN
def test_a_coordinator_whose_blob_store_fails_at_any_one_call_finds_the_liar_all_the_same(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_liar()
        setup_of(scene.site.session, scene.site.blobs)
        inner = scene.site.blobs
        flaky: Any = Flaky(inner, call, when)
        scene.site.blobs = flaky
        await scene.run()
        scene.site.blobs = inner
        await _all_but_the_liar_are_in_the_sum(scene)
        return flaky.calls >= call

    assert play(_sweep(one_run)) >= 60


@WHEN
def test_a_coordinator_whose_store_fails_at_any_one_call_goes_on_without_a_restart(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        store = FaultyStore(SlowStore(scene.site.inner), call, when)
        await scene.run(store)
        await _all_but_the_dropout_are_in_the_sum(scene)
        return store.calls >= call

    assert play(_sweep(one_run)) >= 40


@WHEN
def test_a_coordinator_whose_blob_store_fails_at_any_one_call_goes_on(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        setup_of(scene.site.session, scene.site.blobs)
        inner = scene.site.blobs
        assert isinstance(inner, MemoryBlobStore)
        flaky: Any = Flaky(inner, call, when)
        scene.site.blobs = flaky
        await scene.run()
        scene.site.blobs = inner
        await _all_but_the_dropout_are_in_the_sum(scene)
        return flaky.calls >= call

    assert play(_sweep(one_run)) >= 20


@WHEN
def test_a_coordinator_whose_log_files_fail_at_any_one_write_goes_on(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        scene.site.files = FlakyLogFiles(scene.site.disk, call, when, dies=False)
        flaky = scene.site.files
        await scene.run()
        await _all_but_the_dropout_are_in_the_sum(scene)
        assert scene.site.starts == 1
        return flaky.calls >= call

    assert play(_sweep(one_run)) >= 20


@WHEN
def test_a_coordinator_that_dies_at_any_write_of_its_log_goes_on_from_it(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        scene.site.files = FlakyLogFiles(scene.site.disk, call, when, dies=True)
        flaky = scene.site.files
        await scene.run()
        await _all_but_the_dropout_are_in_the_sum(scene)
        assert scene.site.starts == 1 + flaky.fault.is_set()
        return flaky.fault.is_set()

    assert play(_sweep(one_run)) >= 20


@WHEN
def test_a_coordinator_whose_record_fails_at_any_one_write_goes_on(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        flaky = Flaky(scene.site.published, call, when)
        scene.site.record = flaky
        await scene.run()
        await _all_but_the_dropout_are_in_the_sum(scene)
        return flaky.calls >= call

    assert play(_sweep(one_run)) == sum(map(len, FILES_OF.values()))


def test_while_its_witnesses_are_away_a_session_waits_and_nobody_sees_what_comes_next() -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        witnesses = AbsentWitnesses(call, 20)
        scene.site.cosigners = witnesses
        start_s = asyncio.get_running_loop().time()
        await scene.run()
        await _all_but_the_dropout_are_in_the_sum(scene)
        away = len(witnesses.asked) > call
        if away:
            assert asyncio.get_running_loop().time() - start_s > 600
            # Every request after the first was for the same checkpoint: nothing was added to it meanwhile.
            assert len(set(witnesses.asked[call - 1 : call + 20])) == 1
        return away

    assert play(_sweep(one_run)) == 5


@WHEN
def test_a_client_whose_memory_of_the_log_fails_at_any_one_call_goes_on(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        inner = ForgetfulMemory()
        flaky: Any = Flaky(inner, call, when)
        scene.contributors[2].memory = flaky
        await scene.run()
        scene.contributors[2].memory = inner
        await _all_but_the_dropout_are_in_the_sum(scene)
        pinned = inner.load()
        assert pinned is not None
        assert Checkpoint.parse(Note.parse(pinned).text).size == 6
        return flaky.calls >= call

    assert play(_sweep(one_run)) >= 15


@WHEN
def test_a_client_that_dies_at_any_call_of_its_store_goes_on_from_it(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        store = DyingStore(scene.contributors[2].inner, call, when)
        await scene.run(stores={2: store})
        await _all_but_the_dropout_are_in_the_sum(scene)
        assert scene.contributors[2].starts == 1 + store.fault.is_set()
        return store.fault.is_set()

    assert play(_sweep(one_run)) >= 10


@WHEN
def test_a_client_whose_store_fails_at_any_one_call_goes_on(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        store = FaultyStore(scene.contributors[2].inner, call, when)
        await scene.run(stores={2: store})
        await _all_but_the_dropout_are_in_the_sum(scene)
        return store.calls >= call

    assert play(_sweep(one_run)) >= 10


@WHEN
def test_a_client_whose_blob_store_fails_at_any_one_call_goes_on(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = _with_a_dropout()
        flaky: Any = Flaky(MemoryBlobStore(), call, when)
        scene.contributors[2].blobs = flaky
        await scene.run()
        await _all_but_the_dropout_are_in_the_sum(scene)
        return flaky.calls >= call

    assert play(_sweep(one_run)) >= 2


@WHEN
def test_without_a_client_that_dies_for_good_at_any_call_the_session_ends(when: FaultTime) -> None:
    async def one_run(call: int) -> bool:
        scene = Scene.set_up()
        victim = scene.contributors[2]
        store = DyingStore(victim.inner, call, when)
        victim.inner = _Nowhere()
        await scene.run(stores={2: store})
        await scene.judge()
        state = await scene.state()
        assert isinstance(state, Finished)
        survivors = [0, 1, 3, 4]
        if len(state.accepted) == SIZE:
            assert set(scene.completed()) >= set(survivors)
        else:
            assert len(state.accepted) == SIZE - 1
            assert scene.completed() == survivors
        return store.fault.is_set()

    assert play(_sweep(one_run)) >= 10


class _Nowhere(MemorySessionStore):
    """The disk of a client that never comes back."""

    async def load(self, session: bytes) -> None:
        raise _LeftError

    async def commit(self, session: bytes, expected_version: int, commit: Commit) -> Sequence[int]:
        raise _LeftError


def test_a_session_that_loses_too_many_aborts_and_publishes_nothing() -> None:
    async def run() -> None:
        scene = Scene.set_up()
        for number in (0, 1, 2):
            scene.contributors[number].leave_before_uploading()
        await scene.run()
        await scene.judge()
        assert isinstance(await scene.state(), Aborted)
        assert not scene.completed()

    play(run())


# Single mishaps, each of which once had a consequence.


def test_a_client_whose_signature_comes_after_the_end_still_takes_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        scene = Scene.set_up()
        site, slow = scene.site, scene.contributors[3].key.public_bytes
        send, refused = site.send, []

        async def send_late(session: bytes, message: ClientMessage) -> None:
            late = isinstance(message, ConfirmClose) and message.signed.statement.identity == slow
            while late and not isinstance(await scene.state(), Finished):
                await asyncio.sleep(1.0)
            try:
                await send(session, message)
            except RemoteProtocolError as error:
                if late:
                    refused.append(error.reason)
                raise

        monkeypatch.setattr(site, "send", send_late)
        # It could be slower than the session only if it does not look where that stands.
        watch = site.watch

        async def watch_late(session: bytes) -> AsyncIterator[Status]:
            async for status in watch(session):
                while status.phase is Phase.FINISHED and not refused:
                    await asyncio.sleep(1.0)
                yield status

        monkeypatch.setattr(site, "watch", watch_late)
        await scene.run()
        await scene.judge()
        assert scene.completed() == [0, 1, 2, 3, 4]
        assert refused == [RejectReason.SESSION_OVER]

    play(run())


@pytest.mark.parametrize("call", ["advertised_list", "shared_list", "closed_list", "confirmations"])
def test_a_client_that_asks_for_what_the_session_has_left_behind_looks_again(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def run() -> None:
        scene = Scene.set_up()
        ask, times = getattr(scene.site, call), []

        async def ask_too_late(session: bytes, *identity: bytes) -> object:
            times.append(call)
            if len(times) == 1:
                raise RemoteProtocolError(RejectReason.WRONG_PHASE)
            return await ask(session, *identity)

        monkeypatch.setattr(scene.site, call, ask_too_late)
        await scene.run()
        await scene.judge()
        assert scene.completed() == [0, 1, 2, 3, 4]

    play(run())


class FailsOnRow(MemorySessionStore):
    """Refuses one commit that writes a row of a kind."""

    def __init__(self, kind: RowKind) -> None:
        super().__init__()
        self._kind: RowKind | None = kind

    async def commit(self, session: bytes, expected_version: int, commit: Commit) -> Sequence[int]:
        if any(key % 16 == self._kind for key in commit.rows):
            self._kind = None
            raise InjectedFaultError("refused")
        return await super().commit(session, expected_version, commit)


def test_no_receipt_is_given_for_an_upload_whose_row_did_not_reach_the_disk() -> None:
    async def run() -> None:
        scene = Scene.set_up()
        site = scene.site
        serving = asyncio.ensure_future(site.serve(store := FailsOnRow(RowKind.STAGED)))
        site.inner = store
        refused: list[str] = []

        async def upload(session: bytes, message: Contribution, blobs: BlobStore) -> SignedReceipt:
            """An upload that is finished again, without announcing it again, as soon as that is refused."""
            _, decoded = _over_the_wire(session, message)
            header = message.signed.statement
            body = blobs.get(header.upload)
            token, _, receipt = await site._call(lambda host, desk: desk.begin(host, decoded))
            await site._call(lambda _, desk: desk.write(token, Chunk(0, body, zlib.crc32(body))))
            while receipt is None:
                try:
                    receipt = await site._call(lambda _, desk: desk.finish(token))
                except TransportError as error:
                    refused.append(str(error))
            rows = await scene.rows()
            staged = row_key(site.session.positions[header.identity], RowKind.STAGED)
            assert rows[staged] == StagedRow(hashlib.sha256(body).digest())
            return receipt

        site.upload = upload
        try:
            states = await asyncio.gather(*(one.take_part(one.inner) for one in scene.contributors))
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        assert all(isinstance(state, Completed) for state in states)
        assert refused

    play(run())


def _registry(store: SessionStore, blobs: MemoryBlobStore, log: LogPort | None = None) -> Registry:
    key = key_of("coordinator")
    log = log or memory_log(key)
    return Registry(CoordinatorPorts(store, blobs, log, MemoryRecord(), LoopClock(), key, lambda *_: None))


def _opening() -> tuple[PairwiseSession, MemoryBlobStore, SetupRow]:
    session, blobs = session_of(sorted_keys(SIZE), dimension=SIZE), MemoryBlobStore()
    return session, blobs, setup_of(session, blobs)


def test_a_session_that_could_not_be_read_once_is_read_when_somebody_asks_again() -> None:
    async def run() -> None:
        session, blobs, setup = _opening()
        inner, log = MemorySessionStore(), memory_log(key_of("coordinator"))
        first = _registry(inner, blobs, log)
        await first.open(session, setup)
        await first.close()
        # Calls of `find` on an empty registry: load, and load again to resume.
        for call in (1, 2):
            registry = _registry(FaultyStore(inner, call, FaultTime.BEFORE), blobs, log)
            with pytest.raises(StoreError):
                await registry.find(session.parameters.session)
            host = await registry.find(session.parameters.session)
            assert host.status().phase is Phase.ADVERTISE_KEYS
            assert host.evidence().entries == (session.entry,)
            await registry.close()

    play(run())


def test_a_session_that_is_asked_for_while_it_is_being_opened_has_one_host() -> None:
    async def run() -> None:
        session, blobs, setup = _opening()
        registry = _registry(MemorySessionStore(), blobs)
        opening = asyncio.ensure_future(registry.open(session, setup))
        found: set[PairwiseHost] = set()
        while not opening.done():
            with suppress(RemoteProtocolError):
                found.add(await registry.find(session.parameters.session))
            await asyncio.sleep(0)
        assert found == {opening.result()}
        await registry.close()

    play(run())


def test_opening_the_same_session_twice_gives_one_host_and_another_one_under_its_name_is_refused() -> None:
    async def run() -> None:
        session, blobs, setup = _opening()
        registry = _registry(MemorySessionStore(), blobs)
        first, second = await asyncio.gather(registry.open(session, setup), registry.open(session, setup))
        assert first is second
        other = session_of(sorted_keys(SIZE), dimension=SIZE + 1)
        with pytest.raises(RemoteProtocolError) as caught:
            await registry.open(other, setup)
        assert caught.value.reason is RejectReason.EQUIVOCATION
        await registry.close()

    play(run())


def test_what_was_staged_is_kept_over_a_restart_while_it_can_count_and_goes_with_the_end() -> None:
    async def run() -> None:
        scene = Scene.set_up()
        site, halves = scene.site, []
        blobs = site.blobs
        assert isinstance(blobs, MemoryBlobStore)
        stray = "0" * 32
        blobs.begin_upload(stray, 1, bytes(32))
        full_upload = site.upload

        async def half(session: bytes, message: Contribution, blobs: BlobStore) -> SignedReceipt:
            header = message.signed.statement
            if header.identity != scene.contributors[1].key.public_bytes:
                return await full_upload(session, message, blobs)
            body = blobs.get(header.upload)
            token, _, _ = await site._call(lambda host, desk: desk.begin(host, message))
            chunk = Chunk(0, body[:16], zlib.crc32(body[:16]))
            assert await site._call(lambda _, desk: desk.write(token, chunk)) == 16
            store.fault.set()  # the coordinator dies
            while True:
                await asyncio.sleep(1.0)
                with suppress(TransportError):
                    again, committed, _ = await site._call(lambda host, desk: desk.begin(host, message))
                    halves.append((again == token, committed))
                    break
            await asyncio.Event().wait()
            raise AssertionError

        site.upload = half
        store = DyingStore(site.inner, FAULTS_AT_MOST, FaultTime.BEFORE)
        serving = asyncio.ensure_future(site.serve(store))
        async with asyncio.timeout(3600):
            await asyncio.gather(*(one.take_part(one.inner) for one in scene.contributors), return_exceptions=True)
            assert halves == [(True, 16)]
            assert isinstance(await scene.state(), Finished)
            while blobs._uploads:
                await asyncio.sleep(1.0)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    play(run())
