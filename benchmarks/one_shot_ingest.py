"""Uploads of one-shot sessions over gRPC with TLS into a real coordinator: ``benchmarks.one_shot --ingest``.

The coordinator is a process of its own, as in ``benchmarks.service``: the real server on TLS, SQLite, blobs, log and
record, every flush included. So is the committee, whose members get their boxes meanwhile, over the loopback. Sessions
of at most 1024 contributions follow one another, and each goes on to its result while the next one uploads. Memory is
flat within a session; the first close of a process adds 64 MiB, the table of the linear hash, and what folding takes.

Contributions are real ones: masked, signed, with boxes that open and hashes that are right. Masking two thousand
vectors would measure the clients, so each worker masks a few, and varies their first lanes, which the linear hash
follows. Every second contribution carries the negative of a mask that another one carries: then the secrets add up to
zero and not to many times the same, the sum opens as any other does, and is compared with what was varied.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.one_shot_session import OPENED_AT, RESULT_S, Plan, serve_committee
from benchmarks.pairwise import ORIGIN, Pipe, Report, memory_mib
from benchmarks.pairwise import _key as identity_key
from benchmarks.service import CALL_TIMEOUT_S, Where, cpu_s, disk_mb_per_s, own_channel, processes
from secagg.arith.fields import FieldLayout
from secagg.arith.keystream import Keystream
from secagg.arith.linear_hash import hash_lanes
from secagg.arith.ring_mask import draw_secret
from secagg.crypto.rng import SystemRng
from secagg.crypto.secret import Secret
from secagg.derive import member_boxes
from secagg.derive.result import Lanes
from secagg.identity.tls import PinnedCertificate, create_certificate
from secagg.institutions import Institutions
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.phases import Phase
from secagg.remote import GrpcCoordinator
from secagg.remote_operator import open_session
from secagg.runtime import vectors
from secagg.runtime.clock import SystemClock
from secagg.runtime.registry import Registry
from secagg.runtime.session_host import AnyHost, CoordinatorPorts
from secagg.runtime.transparency_log import NoCosigners, TransparencyLog
from secagg.services.logs import EventLog
from secagg.services.server import CoordinatorServer, ServerSocket, server_credentials
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.log_files import LogDirectory
from secagg.store.session_files import SessionDirectory
from secagg.store.sqlite import SqliteSessionStore
from secagg.transcript.statements import OneShotHeader, Signed

MOST_A_SESSION = 1024
BASES = 2
HEAD_LANES = 2048
SAMPLE_S = 0.05


# The coordinator's process.


async def serve(plan: Plan, sessions: int, state: Path, cards: Sequence[bytes], pipe: Pipe) -> None:
    """Serve these sessions until all have results, once the parent says that all was uploaded; then what it took."""
    create_certificate(state, ["localhost"], SystemClock().now_s(), 30)
    pem, key = (state / "tls.crt").read_bytes(), identity_key(-1)
    failures: list[str] = []
    async with AsyncExitStack() as stack:
        store, files = SqliteSessionStore(state / "sessions.db"), LogDirectory(state / "record", state)
        stack.push_async_callback(store.close)
        stack.push_async_callback(files.close)
        log = TransparencyLog(files, NoCosigners(), key, ORIGIN, lambda event, reason: failures.append(event + reason))
        stack.push_async_callback(log.close)
        institutions = await stack.enter_async_context(Institutions())
        blobs, record = DirectoryBlobStore(state / "blobs"), SessionDirectory(state / "record")
        ports = CoordinatorPorts(
            store, blobs, log, record, SystemClock(), key, lambda *why: failures.append(str(why)), institutions
        )
        registry = Registry(ports)
        server = CoordinatorServer(registry, state, EventLog())
        credentials = server_credentials(pem, (state / "tls.key").read_bytes(), None)
        port = await server.start(ServerSocket("127.0.0.1:0", credentials))
        stack.push_async_callback(server.stop)
        names = []
        for _ in range(sessions):
            session = plan.session(os.urandom(16))
            names.append(await open_session(state, plan.open_request(session, cards), CALL_TIMEOUT_S))
        hosts = [await registry.find(name) for name in names]
        tls = PinnedCertificate(pem, "localhost")
        pipe.send(Where(f"127.0.0.1:{port}", tls, key.public_bytes, tuple(names), os.getpid()))
        quarters = await _watched(hosts, sessions * plan.clients, pipe)
        await _finished(hosts, failures)
        sums = [hashlib.sha256(blobs.get(host.integer_sum())).digest() for host in hosts]
        pipe.send(
            {
                "rss_mib_at_quarters_of_uploads": quarters,
                "rss_peak_mib": memory_mib("VmHWM"),
                "failures": failures,
                "sums": sums,
            }
        )


async def _watched(hosts: Sequence[AnyHost], uploads: int, pipe: Pipe) -> list[float]:
    """Memory when so many quarters of the uploads are there, until the parent says that all are."""
    ended = asyncio.ensure_future(asyncio.to_thread(pipe.recv))
    found = [memory_mib("VmRSS")]
    while not ended.done():
        received = sum(host.status().received for host in hosts)
        while len(found) <= min(4, 4 * received // uploads):
            found.append(memory_mib("VmRSS"))
        await asyncio.wait({ended}, timeout=SAMPLE_S)
    found += [memory_mib("VmRSS")] * (5 - len(found))
    return found


async def _finished(hosts: Sequence[AnyHost], failures: Sequence[str]) -> None:
    for host in hosts:
        with suppress(TimeoutError):
            await asyncio.wait_for(host.ended(), RESULT_S)
        if host.status().phase is not Phase.FINISHED:
            raise SystemExit(f"a session has no result: {host.status()} {failures[:5]}")


# The uploaders' processes.


@dataclass(frozen=True)
class Base:
    """A masked vector of zeros. ``head`` is the mask of its first lanes, ``rest_hash`` the hash of all others."""

    secret: np.ndarray
    data: bytes
    head: Lanes
    rest_hash: np.ndarray


class Contributions:
    """Makes the contributions of a session, and reads their bytes as a ``BlobStore`` does."""

    def __init__(self, plan: Plan, session: OneShotSession) -> None:
        self.session, self.committee = session, plan.committee()
        layout = session.field_layout
        self.head_lanes = min(HEAD_LANES, (layout.dimension + 1) // layout.fields_per_lane)
        self.varied = layout.fields_per_lane * self.head_lanes - 1
        self.head_layout = FieldLayout(layout.value_bits, layout.max_contributors, self.varied, layout.usable_bits)
        zeros = np.zeros(session.upload_lanes, dtype=np.uint64)
        layout.pack_into(np.zeros(layout.dimension, dtype=np.int32), zeros[: layout.lanes])
        self._shift = np.uint64(session.ring_mask.shift)
        self._zeros = zeros << self._shift
        self._bases = [base for place in range(BASES) for base in self._pair(place)]
        self._heads: dict[bytes, tuple[bytes, Base]] = {}
        self._rng = SystemRng()

    def _pair(self, place: int) -> tuple[Base, Base]:
        """A mask and its negative, each over zeros; the same in every process."""
        session = self.session
        keys = [hashlib.sha256(b"benchmark %s %d" % (what, place)).digest() for what in (b"secret", b"errors")]
        secret, mask = draw_secret(Keystream(keys[0])), np.zeros(self._zeros.size, dtype=np.uint64)
        session.ring_mask.apply_mask(mask, session.public_key, secret, keys[1])
        return self._base(secret, mask), self._base(-secret, np.uint64(0) - mask)

    def _base(self, secret: np.ndarray, mask: Lanes) -> Base:
        lanes = mask + self._zeros
        rest = hash_lanes(lanes) - hash_lanes(lanes[: self.head_lanes].copy())
        return Base(secret, lanes.tobytes(), mask[: self.head_lanes].copy(), rest)

    def make(self, number: int) -> OneShotContribution:
        """The contribution of client ``number``: pairs of them share a mask, with both signs."""
        session, identity = self.session, identity_key(number)
        base = self._bases[number % len(self._bases)]
        head = self.head_layout.pack(self.values(number)) << self._shift
        head += base.head
        data = head.tobytes()
        upload = hashlib.sha256(data)
        upload.update(memoryview(base.data)[len(data) :])
        linear_hash = bytes(vectors.as_bytes(base.rest_hash + hash_lanes(head)))
        seeds = [Secret(self._rng.bytes(32)) for _ in range(self.committee.needed - 1)]
        parts = member_boxes.deal(self.committee, base.secret, seeds, session.digest, identity.public_bytes)
        header = OneShotHeader(
            session.digest,
            identity.public_bytes,
            upload.digest(),
            hashlib.sha256(linear_hash).digest(),
            session.upload_lanes,
            tuple(hashlib.sha256(part).digest() for part in parts),
            OPENED_AT,
        )
        self._heads[upload.digest()] = data, base
        return OneShotContribution(Signed(header, identity.sign_statement(header.to_bytes())), linear_hash, parts)

    def values(self, number: int) -> np.ndarray:
        """What client ``number`` contributes in its first coordinates; all others are zero."""
        largest = self.head_layout.largest
        return np.random.default_rng(number).integers(-largest, largest, self.varied, dtype=np.int64)

    def read(self, digest: bytes, offset: int, length_bytes: int) -> bytes:
        """As a ``BlobStore`` reads."""
        head, base = self._heads[digest]
        end = offset + length_bytes
        return head[offset:end] + base.data[max(offset, len(head)) : end]


async def push(plan: Plan, where: Where, numbers: Sequence[int], uploaders: int, pipe: Pipe) -> None:
    """Make contributions, say so, and send them when the parent says go; how long each took, and CPU."""
    made = []
    for name in where.sessions:
        contributions = Contributions(plan, plan.session(name))
        made.append((name, contributions, [contributions.make(number) for number in numbers]))
    ports = [GrpcCoordinator(await own_channel(where), CALL_TIMEOUT_S) for _ in range(uploaders)]
    todo = iter([(name, each, message) for name, each, messages in made for message in messages])
    waits: list[float] = []

    async def upload(port: GrpcCoordinator) -> None:
        for name, blobs, message in todo:
            started = time.perf_counter()
            await port.upload(name, message, blobs)  # type: ignore[arg-type]
            waits.append(time.perf_counter() - started)

    pipe.send("ready")
    await asyncio.to_thread(pipe.recv)
    cpu = time.process_time()
    await asyncio.gather(*map(upload, ports))
    cpu = time.process_time() - cpu
    await asyncio.gather(*(port.close() for port in ports))
    pipe.send((waits, cpu))


# The parent's process.


def ingest(options: Any) -> Report:  # noqa: ANN401
    """All uploads, as fast as they go."""
    sessions = -(-options.uploads // MOST_A_SESSION)
    each = max(4, 2 * round(options.uploads / sessions / 2))  # even: pairs of contributions share a mask
    plan = Plan(each, options.dimension, options.members, options.needed, options.workers)
    length_bytes = 8 * plan.session().upload_lanes
    needed_bytes = round(1.2 * sessions * each * length_bytes)
    with tempfile.TemporaryDirectory(prefix="secagg-bench-") as name, processes() as start:
        free = shutil.disk_usage(name).free
        if free < needed_bytes:
            raise SystemExit(f"{free} bytes are free in {name}, {needed_bytes} are needed: give fewer --uploads")
        committee = start(serve_committee, plan, Path(name))
        cards, committee_pid = committee.recv()
        state = Path(name) / "coordinator"
        state.mkdir()
        coordinator = start(serve, plan, sessions, state, cards)
        where: Where = coordinator.recv()
        print(f"the coordinator is process {where.pid}", file=sys.stderr)
        at_once = max(1, options.uploaders // options.workers)
        workers = [
            start(push, plan, where, range(each)[place :: options.workers], at_once) for place in range(options.workers)
        ]
        for worker in workers:
            worker.recv()
        before = disk_mb_per_s(Path(name), length_bytes, options.uploaders)
        pids = {"coordinator": where.pid, "committee": committee_pid}
        pushed = _pushed(workers, pids, sessions * each, length_bytes)
        started = time.perf_counter()
        coordinator.send("end")
        final = coordinator.recv()
        to_results = time.perf_counter() - started
        after = disk_mb_per_s(Path(name), length_bytes, options.uploaders)
        committee.send("stop")
        members = committee.recv()
    return {
        "uploads": sessions * each,
        "sessions": sessions,
        "upload_bytes": length_bytes,
        "uploaders": at_once * options.workers,
        "exact": set(final.pop("sums")) == {_digest(plan)},
        **pushed,
        "disk_mb_per_s": [before, after],
        "ratio_to_disk": round(pushed["mb_per_s"] / statistics.fmean((before, after)), 3),
        "from_last_upload_to_results_s": round(to_results, 2),
        "coordinator": final,
        "committee_rss_peak_mib": members["rss_peak_mib"],
        "load_average": round(os.getloadavg()[0], 2),
    }


def _pushed(workers: Sequence[Pipe], pids: dict[str, int], uploads: int, length_bytes: int) -> Report:
    """Let the uploaders go; how fast it went, and whose CPU it took."""
    started, spent = time.perf_counter(), {who: cpu_s(pid) for who, pid in pids.items()}
    for worker in workers:
        worker.send("go")
    answers = [worker.recv() for worker in workers]
    elapsed = time.perf_counter() - started
    spent = {who: cpu_s(pid) - spent[who] for who, pid in pids.items()}
    spent["uploaders"] = sum(cpu for _, cpu in answers)
    waits = sorted(wait for each, _ in answers for wait in each)
    megabytes = uploads * length_bytes / 1e6
    return {
        "wall_s": round(elapsed, 2),
        "uploads_per_s": round(uploads / elapsed, 1),
        "mb_per_s": round(megabytes / elapsed, 1),
        "cpu_cores_busy": {who: round(seconds / elapsed, 2) for who, seconds in spent.items()},
        "cpu_ms_an_upload": {who: round(1e3 * seconds / uploads, 2) for who, seconds in spent.items()},
        "coordinator_mb_a_cpu_s": round(megabytes / max(spent["coordinator"], 0.01), 1),
        "p50_ms": round(1e3 * waits[len(waits) // 2], 1),
        "p95_ms": round(1e3 * waits[len(waits) * 95 // 100], 1),
    }


def _digest(plan: Plan) -> bytes:
    """SHA-256 of the integer sum that every session must have: each has the same contributors."""
    contributions = Contributions(plan, plan.session())
    total = np.zeros(plan.dimension, dtype="<i8")
    for number in range(plan.clients):
        total[: contributions.varied] += contributions.values(number)
    return hashlib.sha256(total.tobytes()).digest()
