"""Sessions and uploads over gRPC: ``python -m benchmarks.service --clients N --dimension D --json OUT``.

The coordinator is a process of its own: the real server on TLS, SQLite, blobs, log and record in a temporary directory,
every flush included; nobody cosigns its log. Clients are real ones (``secagg.client``), many to a worker process; by
default each has a TLS connection of its own, as contributors on machines of their own have. Their stores are in memory,
sealed as those on disk are: a thousand databases on the disk under test would be measured instead of it. Clients that
drop out do so after SHARE_KEYS: they never upload. The sum that each client downloads is compared with a plain sum of
what all of them encoded.

``--ingest-only`` measures uploads by themselves: sessions are written into the store as they stand after SHARE_KEYS,
then uploads are pushed as fast as possible by 1, 4 and 16 uploaders at once, as streams and in unary chunks. Before
and after each, the same files are written by as many threads without any of our code, because the disk varies.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import random
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeAlias

import grpc.aio
import numpy as np

from benchmarks import pairwise
from benchmarks.pairwise import NO_WITNESSES, ORIGIN, Report, adapter_of, memory_mib, write_json
from benchmarks.pairwise import _key as identity_key
from secagg.arith.linear_hash import HASH_BYTES
from secagg.client import Coordinator, SessionDetails
from secagg.crypto.rng import SystemRng
from secagg.identity.channels import open_channel
from secagg.identity.tls import PinnedCertificate, create_certificate
from secagg.participation import PairwiseParticipation
from secagg.protocol.messages import Contribution, SignedReceipt
from secagg.protocol.pairwise import lists
from secagg.protocol.pairwise.client import ClientContext
from secagg.protocol.pairwise.coordinator_states import COORDINATOR_PERSISTENCE, Cohort, Collecting
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import LogRow, RowKind, SetupRow, row_key
from secagg.protocol.session import ClientPolicy
from secagg.remote import GrpcCoordinator
from secagg.remote_operator import end_phase, open_session
from secagg.runtime import vectors
from secagg.runtime.clock import SystemClock
from secagg.runtime.log_trust import LogTrust
from secagg.runtime.memory import MemoryBlobStore, MemorySessionStore
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.runtime.pairwise_participant import PairwiseParticipant
from secagg.runtime.participant import ParticipantPorts
from secagg.runtime.ports import BlobStore, Commit
from secagg.runtime.registry import Registry
from secagg.runtime.session_host import CoordinatorPorts
from secagg.runtime.transparency_log import NoCosigners, TransparencyLog
from secagg.services.logs import EventLog
from secagg.services.server import CoordinatorServer, ServerSocket, server_credentials
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.log_files import LogDirectory
from secagg.store.sealed import SealedSessionStore
from secagg.store.session_files import SessionDirectory
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript import canonical
from secagg.transcript.statements import ContributionHeader, Signed
from secagg.v1 import aggregation_pb2 as pb

CALL_TIMEOUT_S = 1800.0
SAMPLE_S = 0.01
"""How often the coordinator's process looks which state its session is in, to charge CPU and time to it."""

DISK_FILES = 24
SPAWN = multiprocessing.get_context("spawn")
PACKAGES = ("numpy", "cryptography", "grpcio", "protobuf")
Pipe: TypeAlias = "connection.Connection[Any, Any]"

NAMES = {
    "Advertising": "advertise",
    "Sharing": "share",
    "Collecting": "upload",
    "Folding": "fold",
    "Confirming": "confirm",
    "Unmasking": "unmask",
    "Recovering": "recover",
    "Finished": "result",
    "Publishing": "publish",
}


@dataclass(frozen=True)
class Plan:
    """What to play. ``connections`` is ``client`` or ``worker``: who has one; ``checks`` the same for list checks."""

    clients: int
    dimension: int
    dropped: int
    workers: int
    connections: str
    checks: str
    uploaders: tuple[int, ...]

    def session(self, name: bytes) -> PairwiseSession:
        """A session with the threat parameters of ``benchmarks.pairwise``, and a layout that a server accepts."""
        plan = pairwise.Plan(self.clients, self.dimension, self.dropped, self.dropped, self.workers, None)
        base = plan.session()
        return PairwiseSession(dataclasses.replace(base.parameters, session=name), base.roster)

    def gone(self) -> frozenset[int]:
        """Who never uploads."""
        draws = random.Random(self.clients)  # noqa: S311 - decides who drops out, nothing secret
        return frozenset(draws.sample(range(self.clients), self.dropped))


@dataclass(frozen=True)
class Where:
    """Where a coordinator is, how to know it, and what it serves."""

    address: str
    tls: PinnedCertificate
    key: bytes
    sessions: tuple[bytes, ...]
    pid: int


# The coordinator's process.


@dataclass(frozen=True)
class Service:
    """A coordinator that serves."""

    where: Where
    registry: Registry
    state: Path
    failures: list[tuple[str, bytes, str]]


@asynccontextmanager
async def serving(
    state: Path, prepare: Callable[[SqliteSessionStore, BlobStore], Coroutine[Any, Any, None]]
) -> AsyncIterator[Service]:
    """Serve from ``state`` on a free port, TLS and all, what ``prepare`` puts into the stores."""
    create_certificate(state, ["localhost"], SystemClock().now_s(), 30)
    pem = (state / "tls.crt").read_bytes()
    key = identity_key(-1)
    store, blobs = SqliteSessionStore(state / "sessions.db"), DirectoryBlobStore(state / "blobs")
    await prepare(store, blobs)
    failures: list[tuple[str, bytes, str]] = []
    record = state / "record"
    files = LogDirectory(record, state)
    log = TransparencyLog(
        files, NoCosigners(), key, ORIGIN, lambda event, reason: failures.append((event, b"", reason))
    )
    ports = CoordinatorPorts(
        store, blobs, log, SessionDirectory(record), SystemClock(), key, lambda *why: failures.append(why)
    )
    registry = Registry(ports)
    server = CoordinatorServer(registry, state, EventLog())
    credentials = server_credentials(pem, (state / "tls.key").read_bytes(), None)
    port = await server.start(ServerSocket("127.0.0.1:0", credentials))
    sessions = tuple(await registry.keys())
    where = Where(f"127.0.0.1:{port}", PinnedCertificate(pem, "localhost"), key.public_bytes, sessions, os.getpid())
    try:
        yield Service(where, registry, state, failures)
    finally:
        await server.stop()
        await log.close()
        await files.close()
        await store.close()


class Recorder:
    """Charges CPU seconds and time of this process to the state its session is in."""

    def __init__(self, host: PairwiseHost) -> None:
        self._host = host
        self.wall: defaultdict[str, float] = defaultdict(float)
        self.user: defaultdict[str, float] = defaultdict(float)
        self.system: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)

    def charge(self) -> str:
        """The name of the state now."""
        now, usage = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        then, before = self._last
        self._last = now, usage
        state = type(self._host.driver.state).__name__
        name = NAMES.get(state, state)
        self.wall[name] += now - then
        self.user[name] += usage.ru_utime - before.ru_utime
        self.system[name] += usage.ru_stime - before.ru_stime
        return name

    async def run(self, service: Service, survivors: int, dropped: int) -> None:
        """Sample for ever, and end the upload phase when all who upload have done so: nobody waits for a deadline."""
        ended = False
        while True:
            await asyncio.sleep(SAMPLE_S)
            if self.charge() == "upload" and dropped and not ended and self._host.status().received == survivors:
                ended = True
                await end_phase(
                    service.state, self._host.session.parameters.session, Phase.MASKED_INPUT, CALL_TIMEOUT_S
                )

    def report(self) -> Report:
        """What was charged so far."""
        cpu = {name: round(self.user[name] + self.system[name], 3) for name in self.wall}
        return {
            "cpu_s": {**cpu, "total": round(sum(cpu.values()), 3)},
            "cpu_s_in_the_kernel": {name: round(seconds, 3) for name, seconds in self.system.items()},
            "wall_s": {name: round(seconds, 3) for name, seconds in self.wall.items()},
        }


async def nothing(_store: SqliteSessionStore, _blobs: BlobStore) -> None:
    """Leave the stores empty."""


async def coordinate(plan: Plan, state: Path, pipe: Pipe) -> None:
    """Open a session, serve it until the parent says stop, report."""
    async with serving(state, nothing) as service:
        session = plan.session(os.urandom(16))
        layout, template = adapter_of(plan.dimension)
        head = session.roster.head(identity_key(-1).public_bytes).to_bytes()
        request = pb.OpenSessionRequest(
            parameters=session.entry,
            roster=session.roster.leaves(),
            roster_head=head,
            roster_signature=identity_key(-1).sign_statement(head),
            layout=canonical.encode(layout.to_json_value()),
            adapter=canonical.encode(template.to_json_value()),
        )
        name = await open_session(state, request, 60.0)
        host = await service.registry.find(name)
        start_mib = memory_mib("VmRSS")
        recorder = Recorder(host)
        sampling = asyncio.ensure_future(recorder.run(service, plan.clients - plan.dropped, plan.dropped))
        pipe.send(dataclasses.replace(service.where, sessions=(name,)))
        await asyncio.to_thread(pipe.recv)
        recorder.charge()
        sampling.cancel()
        final: Any = host.driver.state
        pipe.send(
            {
                "degree": final.cohort.degree,
                "threshold": final.cohort.threshold,
                "contributors": len(final.accepted),
                **recorder.report(),
                "rss_start_mib": start_mib,
                "rss_peak_mib": memory_mib("VmHWM"),
                "failures": [[event, reason] for event, _, reason in service.failures],
                "database_bytes": (state / "sessions.db").stat().st_size,
            }
        )


async def keep(plan: Plan, state: Path, pipe: Pipe) -> None:
    """Serve one session for each way to upload, as it stands after SHARE_KEYS, until the parent says stop."""

    async def prepare(store: SqliteSessionStore, blobs: BlobStore) -> None:
        for _ in range(2 * len(plan.uploaders)):
            session = plan.session(os.urandom(16))
            roster = blobs.put(b"".join(leaf + b"\n" for leaf in session.roster.leaves()))
            everybody = tuple(range(plan.clients))
            parameters = session.graph_parameters(plan.clients)
            cohort = Cohort(everybody, bytes(32), parameters.degree, parameters.threshold)
            collecting = Collecting(SystemClock().now_s() + 10**6, cohort, everybody, bytes(32), 0)
            rows = {
                row_key(0, RowKind.SETUP): SetupRow(roster, b"", b"", b"", b""),
                row_key(0, RowKind.LOG): LogRow(session.entry, 0),
            }
            encoded = {key: COORDINATOR_PERSISTENCE.encode(row) for key, row in rows.items()}
            commit = Commit(COORDINATOR_PERSISTENCE.encode(collecting), encoded)
            await store.commit(session.parameters.session, 0, commit)

    async with serving(state, prepare) as service:
        pipe.send(service.where)
        await asyncio.to_thread(pipe.recv)
        pipe.send({"rss_peak_mib": memory_mib("VmHWM"), "failures": len(service.failures)})


# The workers' processes.


class CountingChannel:
    """A channel that counts the bytes of all messages by method."""

    def __init__(self, channel: grpc.aio.Channel, up: Counter[str], down: Counter[str]) -> None:
        self._channel, self._up, self._down = channel, up, down

    def __getattr__(self, kind: str) -> Any:  # noqa: ANN401 - unary_unary and the like
        return lambda path, **serializers: self._method(kind, path, **serializers)

    async def close(self) -> None:
        await self._channel.close()

    def _method(
        self,
        kind: str,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **more: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        name = path.rsplit("/", 1)[1]

        def serialize(message: Any) -> bytes:  # noqa: ANN401
            data = request_serializer(message)
            self._up[name] += len(data)
            return data

        def deserialize(data: bytes) -> Any:  # noqa: ANN401
            self._down[name] += len(data)
            return response_deserializer(data)

        make = getattr(self._channel, kind)
        return make(path, request_serializer=serialize, response_deserializer=deserialize, **more)


async def own_channel(where: Where) -> grpc.aio.Channel:
    """A connection of its own: channels with equal arguments in one process would share one."""
    options = [
        ("grpc.max_receive_message_length", 16 << 20),
        ("grpc.max_send_message_length", 16 << 20),
        ("grpc.ssl_target_name_override", where.tls.name),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    channel = grpc.aio.secure_channel(where.address, grpc.ssl_channel_credentials(where.tls.pem), options)
    await asyncio.wait_for(channel.channel_ready(), CALL_TIMEOUT_S)
    return channel


class Port(GrpcCoordinator):
    """Times the upload and forgets it once it is acknowledged; whoever drops out goes instead of uploading."""

    def __init__(self, channel: Any, worker: Worker, vector: Any, *, drops: bool) -> None:  # noqa: ANN401
        super().__init__(channel, CALL_TIMEOUT_S)
        self._worker = worker
        self._vector = vector
        self._drops = drops
        self.gone = asyncio.Event()

    async def upload(self, session: bytes, message: Contribution, blobs: BlobStore) -> SignedReceipt:
        if self._drops:
            self.gone.set()
            await asyncio.Event().wait()
        header = message.signed.statement
        start = time.perf_counter()
        receipt = await super().upload(session, message, blobs)
        self._worker.uploads.append((start, time.perf_counter()))
        blobs.delete(header.upload)  # type: ignore[union-attr]
        self._worker.add_up(self._vector)
        return receipt


class Keeper:
    """The stores of a client, in memory: nothing to close, and no budget."""

    budget = None

    async def close(self) -> None:
        """Nothing to do."""


class Worker:
    """Plays some of the clients in one event loop."""

    def __init__(self, plan: Plan, where: Where) -> None:
        self.plan, self.where = plan, where
        self.up: Counter[str] = Counter()
        self.down: Counter[str] = Counter()
        self.uploads: list[tuple[float, float]] = []
        self.integers = np.zeros(plan.dimension, dtype=np.int64)
        self.unequal = 0
        self.sums: list[bytes] = []
        self._base = np.random.default_rng(1).random(plan.dimension + plan.clients, dtype=np.float32) - np.float32(0.5)
        self._encoded: dict[int, Any] = {}
        self._details: SessionDetails | None = None
        self._channel: Any = None

    async def run(self, numbers: Sequence[int]) -> None:
        """All of them take part until the session has ended."""
        gone = self.plan.gone()
        if self.plan.connections == "worker":
            self._channel = self._counted(await open_channel(self.where.address, self.where.tls, CALL_TIMEOUT_S))
        encode = vectors.encode

        def encode_and_keep(encoding: Any, noise: Any, vector: Any, *more: Any) -> Any:  # noqa: ANN401
            lanes, report = encode(encoding, noise, vector, *more)
            self._encoded[id(vector)] = lanes.copy()
            return lanes, report

        vectors.encode = encode_and_keep
        if self.plan.checks == "worker":
            share_checks()
        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(self._client(number, drops=number in gone))

    async def _client(self, number: int, *, drops: bool) -> None:
        channel = self._channel or self._counted(await own_channel(self.where))
        vector = self._base[number : number + self.plan.dimension]
        port = Port(channel, self, vector, drops=drops)
        trust = LogTrust.nobody()
        coordinator = Coordinator(port, self.where.key, trust)
        details = self._shared(await coordinator.details(self.where.sessions[0]))
        identity = identity_key(number)
        store = SealedSessionStore(MemorySessionStore(), bytes(32), SystemRng().bytes)
        context = ClientContext(identity, details.session, ClientPolicy(), NO_WITNESSES)
        ports = ParticipantPorts(store, MemoryBlobStore(), port, SystemRng(), lambda _: None)
        participant = PairwiseParticipant(context, vector, ports, trust)
        participation = PairwiseParticipation(coordinator, details, participant, Keeper())  # type: ignore[arg-type]
        await participant.join(details.view)
        result = asyncio.ensure_future(participation.result())
        gone = asyncio.ensure_future(port.gone.wait())
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if result.done():
            digest = hashlib.sha256(result.result().integer_sum.tobytes()).digest()
            self.sums.append(digest)
        else:
            result.cancel()
            await asyncio.wait({result})
        if channel is not self._channel:
            await channel.close()

    def add_up(self, vector: Any) -> None:  # noqa: ANN401
        """Count what was encoded of ``vector``, which was uploaded, into the plain sum."""
        layout = self._details.session.field_layout  # type: ignore[union-attr]
        self.integers += layout.unpack_sum(self._encoded.pop(id(vector)), 1)

    def _counted(self, channel: grpc.aio.Channel) -> CountingChannel:
        return CountingChannel(channel, self.up, self.down)

    def _shared(self, details: SessionDetails) -> SessionDetails:
        """A client of its own keeps its own; here all share one that is equal, to save memory."""
        if self._details is None:
            self._details = details
        if details.session.digest != self._details.session.digest:
            raise SystemExit("two clients saw different sessions")
        return dataclasses.replace(details, session=self._details.session)


def share_checks() -> None:
    """Let clients of one process check each list once between them: their CPU is then not that of a client alone."""
    known: dict[tuple[str, bytes], Any] = {}

    def shared(name: str, check: Callable[..., Any]) -> Callable[..., Any]:
        def checked(session: PairwiseSession, entry: Any, leaves: Sequence[bytes], *more: Any) -> Any:  # noqa: ANN401
            key = name, entry.to_bytes()
            if key not in known:
                known[key] = check(session, entry, leaves, *more)
            return known[key]

        return checked

    for name in ("check_advertised", "check_shared", "check_closed"):
        setattr(lists, name, shared(name, getattr(lists, name)))


class Stamped:
    """The part of a blob store that uploading reads from: one random vector under as many numbers as there are."""

    def __init__(self, length_bytes: int) -> None:
        self._data = np.random.default_rng().bytes(length_bytes)
        self._stamps: dict[bytes, bytes] = {}

    def make(self) -> bytes:
        """Another blob; its digest."""
        stamp = os.urandom(16)
        digest = hashlib.sha256(stamp)
        digest.update(memoryview(self._data)[16:])
        self._stamps[digest.digest()] = stamp
        return digest.digest()

    def read(self, digest: bytes, offset: int, length_bytes: int) -> bytes:
        """As a ``BlobStore`` reads."""
        piece = self._data[offset : offset + length_bytes]
        return piece if offset else self._stamps[digest] + piece[16:]


class Pusher:
    """Uploads for some of the identities of a session, several at once."""

    def __init__(self, plan: Plan, where: Where) -> None:
        self.where = where
        self.sessions = {name: plan.session(name) for name in where.sessions}
        self.length_bytes = self.sessions[where.sessions[0]].upload_bytes
        self.ports: list[GrpcCoordinator] = []

    async def prepare(self, session: PairwiseSession, numbers: Sequence[int], uploaders: int) -> None:
        """Sign headers, connect."""
        self.blobs = Stamped(self.length_bytes)
        self.session, self.messages = session, [self._message(session, number) for number in numbers]
        self.ports = [GrpcCoordinator(await own_channel(self.where), CALL_TIMEOUT_S) for _ in range(uploaders)]

    def _message(self, session: PairwiseSession, number: int) -> Contribution:
        identity = identity_key(number)
        lanes = session.field_layout.lanes
        # Nobody closes these sessions, so nobody checks the hash; but each is another one, to be stored.
        linear_hash = os.urandom(16) + bytes(HASH_BYTES - 16)
        digest = hashlib.sha256(linear_hash).digest()
        header = ContributionHeader(
            session.digest, bytes(32), identity.public_bytes, self.blobs.make(), digest, lanes, missing=()
        )
        return Contribution(Signed(header, identity.sign_statement(header.to_bytes())), linear_hash)

    async def push(self, way: str) -> list[float]:
        """All uploads; how long each took."""
        waits: list[float] = []
        todo = iter(self.messages)
        name = self.session.parameters.session

        async def uploader(port: GrpcCoordinator) -> None:
            blobs: Any = self.blobs
            for message in todo:
                start = time.perf_counter()
                if way == "stream":
                    await port.upload(name, message, blobs)
                else:
                    await port._resume(name, message, blobs)  # noqa: SLF001 - the unary way
                waits.append(time.perf_counter() - start)

        await asyncio.gather(*(uploader(port) for port in self.ports))
        await asyncio.gather(*(port.close() for port in self.ports))
        return waits


async def push(plan: Plan, where: Where, pipe: Pipe) -> None:
    """Push what the parent names, until it names nothing."""
    pusher = Pusher(plan, where)
    while True:
        order = await asyncio.to_thread(pipe.recv)
        if order is None:
            return
        name, way, numbers, uploaders = order
        await pusher.prepare(pusher.sessions[name], numbers, uploaders)
        pipe.send("ready")
        await asyncio.to_thread(pipe.recv)
        start = time.process_time()
        waits = await pusher.push(way)
        pipe.send((waits, time.process_time() - start))


async def play(plan: Plan, where: Where, numbers: Sequence[int], pipe: Pipe) -> None:
    """Play these clients; what they saw and cost."""
    worker = Worker(plan, where)
    start = time.process_time()
    await worker.run(numbers)
    pipe.send(
        {
            "cpu_s": time.process_time() - start,
            "uploads": worker.uploads,
            "up": dict(worker.up),
            "down": dict(worker.down),
            "rss": memory_mib("VmHWM"),
            "sums": worker.sums,
            "integers": worker.integers.astype("<i8").tobytes(),
        }
    )


# The parent's process.


def in_process(function: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[Any, ...]) -> None:
    """Body of every process."""
    soft_and_hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft_and_hard, soft_and_hard))
    asyncio.run(function(*arguments))


@contextmanager
def processes() -> Iterator[Callable[..., Pipe]]:
    """A function that starts a process and returns the pipe to it; all of them are ended afterwards."""
    started: list[Any] = []

    def start(function: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> Pipe:  # noqa: ANN401
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=in_process, args=(function, (*arguments, there)))
        process.start()
        there.close()
        started.append(process)
        return here

    try:
        yield start
        for process in started:
            process.join(30)
    except EOFError:
        raise SystemExit("a process of the benchmark failed; see above") from None
    finally:
        for process in started:
            process.kill()


def disk_mb_per_s(directory: Path, length_bytes: int, threads: int) -> float:
    """What the disk does without our code: files written and flushed by these threads, renamed, directories flushed."""
    data = os.urandom(length_bytes)
    shelf = directory / f"disk-{time.monotonic_ns()}"
    shelf.mkdir()

    def write(number: int) -> None:
        path = shelf / f"{number}.new"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        view = memoryview(data)
        for start in range(0, length_bytes, 1 << 20):
            os.write(descriptor, view[start : start + (1 << 20)])
        os.fdatasync(descriptor)
        os.close(descriptor)
        path.rename(shelf / str(number))
        parent = os.open(shelf, os.O_RDONLY)
        os.fsync(parent)
        os.close(parent)

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(DISK_FILES)))
    elapsed = time.perf_counter() - start
    for path in shelf.iterdir():
        path.unlink()
    return round(DISK_FILES * length_bytes / elapsed / 1e6, 1)


def cpu_s(pid: int) -> float:
    """User and system seconds of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ingest(plan: Plan, uploads: int) -> Report:
    """Uploads by themselves, with 1, 4 and 16 uploaders, streamed and in unary chunks."""
    cases: list[Report] = []
    length_bytes = plan.session(bytes(16)).upload_bytes
    with tempfile.TemporaryDirectory(prefix="secagg-bench-") as name, processes() as start:
        coordinator = start(keep, plan, Path(name))
        where: Where = coordinator.recv()
        print(f"the coordinator is process {where.pid}", file=sys.stderr)
        workers = [start(push, plan, where) for _ in range(plan.workers)]
        ways = [(uploaders, way) for uploaders in plan.uploaders for way in ("stream", "unary")]
        for session, (uploaders, way) in zip(where.sessions, ways, strict=True):
            busy = workers[: min(uploaders, len(workers))]
            before = disk_mb_per_s(Path(name), length_bytes, uploaders)
            for place, worker in enumerate(busy):
                numbers = range(uploads)[place :: len(busy)]
                worker.send((session, way, numbers, uploaders // len(busy)))
            for worker in busy:
                worker.recv()
            started, cpu = time.perf_counter(), cpu_s(where.pid)
            for worker in busy:
                worker.send("go")
            answers = [worker.recv() for worker in busy]
            elapsed, cpu = time.perf_counter() - started, cpu_s(where.pid) - cpu
            after = disk_mb_per_s(Path(name), length_bytes, uploaders)
            waits = [wait for answer in answers for wait in answer[0]]
            megabytes = uploads * length_bytes / 1e6
            rate, disk = megabytes / elapsed, statistics.fmean((before, after))
            cases.append(
                {
                    "uploaders": uploaders,
                    "way": way,
                    "uploads_per_s": round(uploads / elapsed, 1),
                    "mb_per_s": round(rate, 1),
                    "disk_mb_per_s": [before, after],
                    "ratio_to_disk": round(rate / disk, 3),
                    "coordinator_cpu_s_per_gb": round(1000 * cpu / megabytes, 2),
                    "uploaders_cpu_s_per_gb": round(1000 * sum(answer[1] for answer in answers) / megabytes, 2),
                    **_quantiles(waits),
                    "load_average": round(os.getloadavg()[0], 2),
                }
            )
            print(json.dumps(cases[-1]), file=sys.stderr)
        for worker in workers:
            worker.send(None)
        coordinator.send("stop")
        final = coordinator.recv()
    return {"uploads": uploads, "upload_bytes": length_bytes, "cases": cases, "coordinator": final}


def _quantiles(waits: Sequence[float]) -> Report:
    ordered = sorted(waits)
    return {
        "p50_ms": round(1e3 * ordered[len(ordered) // 2], 1),
        "p95_ms": round(1e3 * ordered[len(ordered) * 95 // 100], 1),
    }


def whole_session(plan: Plan) -> Report:
    """One session from the first call to the last client's sum."""
    length_bytes = plan.session(bytes(16)).upload_bytes
    with tempfile.TemporaryDirectory(prefix="secagg-bench-") as name, processes() as start:
        disk = [disk_mb_per_s(Path(name), length_bytes, 4)]
        coordinator = start(coordinate, plan, Path(name))
        where: Where = coordinator.recv()
        print(f"the coordinator is process {where.pid}", file=sys.stderr)
        begun = time.perf_counter()
        pipes = [start(play, plan, where, range(plan.clients)[place :: plan.workers]) for place in range(plan.workers)]
        workers = [pipe.recv() for pipe in pipes]
        elapsed = time.perf_counter() - begun
        coordinator.send("stop")
        served = coordinator.recv()
        disk.append(disk_mb_per_s(Path(name), length_bytes, 4))
    integers = np.sum([np.frombuffer(worker["integers"], dtype="<i8") for worker in workers], axis=0)
    digest = hashlib.sha256(integers.astype(np.int64).tobytes()).digest()
    sums = [seen for worker in workers for seen in worker["sums"]]
    survivors = plan.clients - plan.dropped
    return {
        "exact": len(sums) == survivors and set(sums) == {digest},
        "coordinator": served,
        "ingest": _ingest_report(workers, length_bytes, served["wall_s"]["upload"]),
        "client": _client_report(workers, plan.clients, survivors),
        "disk_mb_per_s": disk,
        "wall_s": round(elapsed, 1),
    }


def _ingest_report(workers: Sequence[Report], length_bytes: int, phase_s: float) -> Report:
    spans = [span for worker in workers for span in worker["uploads"]]
    span_s = max(end for _, end in spans) - min(start for start, _ in spans)
    megabytes = len(spans) * length_bytes / 1e6
    return {
        "uploads": len(spans),
        "upload_bytes": length_bytes,
        "phase_s": phase_s,
        "from_first_to_last_s": round(span_s, 3),
        "uploads_per_s": round(len(spans) / span_s, 1),
        "mb_per_s_in_phase": round(megabytes / phase_s, 1),
        "mb_per_s_from_first_to_last": round(megabytes / span_s, 1),
        **_quantiles([end - start for start, end in spans]),
    }


def _client_report(workers: Sequence[Report], clients: int, survivors: int) -> Report:
    up: Counter[str] = Counter()
    down: Counter[str] = Counter()
    for worker in workers:
        up.update(worker["up"])
        down.update(worker["down"])
    return {
        "cpu_s_mean": round(sum(worker["cpu_s"] for worker in workers) / clients, 4),
        "cpu_s_all": round(sum(worker["cpu_s"] for worker in workers), 1),
        "bytes_up_mean": {name: round(count / clients) for name, count in up.items()},
        "bytes_down_mean": {name: round(count / clients) for name, count in down.items()},
        "bytes_up_all": sum(up.values()),
        "bytes_down_all": sum(down.values()),
        "sums_downloaded": survivors,
        "worker_rss_peak_mib": max(worker["rss"] for worker in workers),
    }


def run(options: argparse.Namespace) -> Report:
    """The report."""
    before = os.getloadavg()[0]
    dropped = round(options.dropout * options.clients)
    plan = Plan(
        options.clients + options.ingest_only,  # one never uploads, so that the session does not go on
        options.dimension,
        dropped,
        options.workers,
        options.connections,
        options.checks,
        options.uploaders,
    )
    figures = ingest(plan, options.clients) if options.ingest_only else whole_session(plan)
    conditions = {
        "clients": options.clients,
        "dimension": options.dimension,
        "dropout": options.dropout,
        "dropped": dropped,
        "workers": options.workers,
        "connections": f"one for each {options.connections}" if not options.ingest_only else "one for each uploader",
        "client_stores": "in memory, sealed as on disk",
        "lists_checked": f"by each {options.checks}",
    }
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        **conditions,
        **figures,
        "load_average": [round(before, 2), round(os.getloadavg()[0], 2)],
        "cores": vectors.worker_threads(),
        "versions": {"python": platform.python_version(), **versions},
    }


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--clients", type=int, default=100, help="with --ingest-only: how many uploads")
    parser.add_argument("--dimension", type=int, default=1_000_000, help="parameters of one contribution")
    parser.add_argument("--dropout", type=float, default=0.0, help="the fraction that never uploads")
    parser.add_argument("--workers", type=int, default=2, help="processes that play clients")
    parser.add_argument("--ingest-only", action="store_true", help="uploads by themselves")
    parser.add_argument("--uploaders", type=_counts, default=(1, 4, 16), help="how many at once, as 1,4,16")
    parser.add_argument("--connections", choices=("client", "worker"), default="client", help="who has one of its own")
    parser.add_argument(
        "--checks",
        choices=("client", "worker"),
        default="client",
        help="worker: the clients of a worker check each list once between them, which no real client does",
    )
    parser.add_argument("--json", required=True, help="where the figures go; - for standard output")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = run(options)
    write_json(options.json, report)
    if not options.ingest_only and not report["exact"]:
        raise SystemExit("the sum differs from the plain sum of integers")


if __name__ == "__main__":
    main()
