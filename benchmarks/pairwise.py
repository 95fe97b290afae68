"""One whole pairwise session over the real machines, without a network: ``python -m benchmarks.pairwise --json OUT``.

The coordinator is a process of its own: ``PairwiseHost`` and ``UploadDesk`` on a ``DirectoryBlobStore``, a log and a
record (in a temporary directory, every flush included; nobody cosigns) and a ``MemorySessionStore``. Clients are played
one at a time by worker processes. Between them pass the bytes of the real protobuf messages, through pipes in place of
gRPC: carrying them is left out of all figures, building and parsing them is not. CPU is user and system time of all
threads of a process, which other work on the machine disturbs less than the clock on the wall. CPU of a phase includes
its system calls, so writing uploads to the page cache counts, waiting for the disk does not. On a virtual machine whose
host takes back free memory the kernel needs ten times longer to find a page of the cache (2.6 s instead of 0.2 s for
10^9 bytes, measured apart): that shows in ``cpu_s_in_the_kernel`` of ``upload_ingest``.

Clients that drop out do so after SHARE_KEYS: they never upload. The sum is compared with a plain sum of integers that
the workers quantise apart from the protocol.
"""

from __future__ import annotations

import argparse
import asyncio
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
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from secagg.arith.keystream import Keystream
from secagg.arith.quantiser import clip
from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.rng import SystemRng
from secagg.crypto.secret import Secret
from secagg.crypto.signing import SigningKey
from secagg.derive.threshold import GraphParameters
from secagg.lora.layout import Layout
from secagg.lora.template import AdapterTemplate
from secagg.protocol import log
from secagg.protocol.messages import AdvertiseKeys, ClientMessage, ConfirmClose, Contribution, ShareKeys, UnmaskAnswer
from secagg.protocol.pairwise import client, recovery
from secagg.protocol.pairwise.client_states import ClientState, InputMasked, MaskInput, Send
from secagg.protocol.pairwise.coordinator_states import Aborted
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import DeadlinePassed, SetupRow
from secagg.protocol.session import ClientPolicy
from secagg.runtime import pairwise_host as host_module
from secagg.runtime import vectors
from secagg.runtime.adapters import AdapterMerge, check_layout
from secagg.runtime.limb_sums import SessionSum
from secagg.runtime.memory import MemorySessionStore
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.runtime.session_host import CoordinatorPorts
from secagg.runtime.transparency_log import NoCosigners, TransparencyLog
from secagg.services.server import keep_freed_memory
from secagg.services.uploads import PREFERRED_CHUNK_BYTES, Chunk, UploadDesk
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.log_files import LogDirectory
from secagg.store.session_files import SessionDirectory
from secagg.transcript import canonical
from secagg.transcript.encoding import Encoding, NoFlattening
from secagg.transcript.entries import Deadlines, PairwiseOpen, SessionOpen
from secagg.transcript.merge import FactorMerge
from secagg.transcript.noise import NoDifferentialPrivacy
from secagg.transcript.policy import LogPolicy
from secagg.transcript.roster import Roster, RosterMember
from secagg.v1 import aggregation_pb2 as pb
from secagg.wire import convert

VALUE_BITS = 16
NOT_COUNTED = "not counted"
ORIGIN = "log.example/benchmark"
NO_WITNESSES = LogPolicy.without_witnesses()
PHASE_S = 10**6
"""Deadlines never pass by themselves: the benchmark's clock stands still until it is moved."""

SPAWN = multiprocessing.get_context("spawn")
PACKAGES = ("numpy", "cryptography", "pynacl", "protobuf")
Report = dict[str, Any]
Pipe: TypeAlias = "connection.Connection[Any, Any]"


def adapter_of(dimension: int) -> tuple[Layout, AdapterTemplate]:
    """An adapter of rank 1 with so many parameters, at least 2."""
    prefix = "base_model.model.layer.q_proj"
    rows = dimension // 2
    shapes = {f"{prefix}.lora_A.weight": (1, rows), f"{prefix}.lora_B.weight": (dimension - rows, 1)}
    template = AdapterTemplate("bench", "", "CAUSAL_LM", 1, 1, use_rslora=False, fan_in_fan_out=False)
    return Layout.from_shapes(shapes), template


@dataclass(frozen=True)
class Plan:
    """One session to play. ``planned`` is the number of dropouts its parameters provide for."""

    clients: int
    dimension: int
    dropped: int
    planned: int
    workers: int
    degree: int | None

    def session(self) -> PairwiseSession:
        """The session: the same in every process."""
        roster = Roster.of([RosterMember(_key(number).public_bytes, "") for number in range(self.clients)])
        minimum = self.clients - self.planned
        layout, template = adapter_of(self.dimension)
        encoding = Encoding(self.dimension, VALUE_BITS, max(1024, self.clients), 64, Fraction(1), NoFlattening())
        return self.with_roster(
            PairwiseOpen(
                session=bytes(16),
                protocol="pairwise",
                coordinator=_key(-1).public_bytes,
                log=ORIGIN,
                opened_at_s=0,
                base_model=template.base_model,
                base_model_digest=bytes(32),
                adapter=template.digest,
                layout=layout.digest,
                merge=FactorMerge(),
                encoding=encoding,
                min_contributors=minimum,
                max_corrupt=min(-(-self.clients // 10), minimum - 2),
                expected_dropout=Fraction(self.planned, self.clients),
                roster=roster.root(),
                roster_size=self.clients,
                registrar=_key(-1).public_bytes,
                deadlines=Deadlines(PHASE_S, PHASE_S, PHASE_S, PHASE_S, PHASE_S),
                noise=NoDifferentialPrivacy(),
                retention_s=0,
            ),
            roster,
        )

    def with_roster(self, parameters: SessionOpen, roster: Roster) -> PairwiseSession:
        """The session with these parameters, of the degree asked for."""
        if self.degree is None:
            return PairwiseSession(parameters, roster)
        return _FixedDegreeSession(parameters, roster, degree=self.degree)


@dataclass(frozen=True)
class _FixedDegreeSession(PairwiseSession):
    """NOT SAFE: a degree that no threat model gives, to be compared with sparse graphs elsewhere."""

    degree: int = 0

    def graph_parameters(self, cohort: int) -> GraphParameters:
        """The degree asked for, and the smallest threshold above half of it."""
        degree = min(self.degree, cohort - 1)
        return GraphParameters(degree, degree // 2 + 1)


def _key(number: int) -> SigningKey:
    """Identity key of a client; -1: of coordinator and registrar."""
    return SigningKey(Secret(hashlib.sha256(b"benchmark identity %d" % number).digest()))


class Meter:
    """CPU seconds of this process, user and system, by name.

    Blocks nest: the innermost counts. What is measured in the background counts before all others, because it runs in
    threads of its own while this one does little more than wait.
    """

    def __init__(self) -> None:
        self.user: defaultdict[str, float] = defaultdict(float)
        self.system: defaultdict[str, float] = defaultdict(float)
        self._blocks: list[str] = []
        self._background: list[str] = []
        self._lock = threading.Lock()
        self._last = resource.getrusage(resource.RUSAGE_SELF)

    def measure(self, name: str) -> AbstractContextManager[None]:
        """Add the CPU seconds of the block to ``name``."""
        return self._block(name, self._blocks)

    def wrap(self, module: object, function: str, name: str) -> None:
        """Measure every call of a function that is looked up in its module, in the background."""
        original = getattr(module, function)

        def measured(*arguments: object) -> object:
            with self._block(name, self._background):
                return original(*arguments)

        setattr(module, function, measured)

    def forget(self) -> None:
        """Start again from nothing."""
        self._charge()
        self.user.clear()
        self.system.clear()

    def total(self) -> dict[str, float]:
        """User and system time together, so far."""
        self._charge()
        return {name: self.user[name] + self.system[name] for name in self.user}

    @contextmanager
    def _block(self, name: str, blocks: list[str]) -> Iterator[None]:
        self._charge()
        blocks.append(name)
        try:
            yield
        finally:
            self._charge()
            blocks.remove(name)

    def _charge(self) -> None:
        with self._lock:
            now, last = resource.getrusage(resource.RUSAGE_SELF), self._last
            self._last = now
            name = (self._background or self._blocks or ["other"])[-1]
            self.user[name] += now.ru_utime - last.ru_utime
            self.system[name] += now.ru_stime - last.ru_stime


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Without what is not counted, and with the total of the rest."""
    counted = {name: value for name, value in seconds.items() if name != NOT_COUNTED}
    return {name: round(value, 4) for name, value in [*counted.items(), ("total", sum(counted.values()))]}


def memory_mib(row: str) -> float:
    """A row of /proc/self/status in MiB: not ``ru_maxrss``, which a child inherits from its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(row + ":"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


class _StillClock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.time_s = 0

    def now_s(self) -> int:
        return self.time_s


# What a request is sent under, how it is parsed, and whose phase its CPU counts for.
METHODS: dict[bytes, tuple[type[Any], str]] = {
    b"GetSession": (pb.GetSessionRequest, "join"),
    b"AdvertiseKeys": (pb.AdvertiseKeysRequest, "advertise"),
    b"GetAdvertisedKeys": (pb.GetAdvertisedKeysRequest, "share"),
    b"ShareKeys": (pb.ShareKeysRequest, "share"),
    b"GetSharedKeys": (pb.GetSharedKeysRequest, "upload_lists"),
    b"StartUpload": (pb.StartUploadRequest, "upload_ingest"),
    b"WriteChunk": (pb.WriteChunkRequest, "upload_ingest"),
    b"FinishUpload": (pb.FinishUploadRequest, "upload_ingest"),
    b"GetClose": (pb.GetCloseRequest, "confirm"),
    b"ConfirmClose": (pb.ConfirmCloseRequest, "confirm"),
    b"GetConfirmations": (pb.GetConfirmationsRequest, "unmask_answers"),
    b"Unmask": (pb.UnmaskRequest, "unmask_answers"),
    b"GetOutcome": (pb.GetOutcomeRequest, "outcome"),
}


class Coordinator:
    """Answers requests one at a time and drives the session from phase to phase."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.meter = Meter()
        self.calls: defaultdict[str, float] = defaultdict(float)
        self.clock = _StillClock()
        self.failures: list[object] = []
        self.session = plan.session()
        self.leaves = self.session.roster.leaves()
        layout, template = adapter_of(plan.dimension)
        self.layout, self.template = (canonical.encode(each.to_json_value()) for each in (layout, template))
        blobs, record = DirectoryBlobStore(directory), directory / "record"
        self.log = TransparencyLog(
            LogDirectory(record, directory), NoCosigners(), _key(-1), ORIGIN, lambda *why: self.failures.append(why)
        )
        ports = CoordinatorPorts(
            MemorySessionStore(),
            blobs,
            self.log,
            SessionDirectory(record),
            self.clock,
            _key(-1),
            lambda *why: self.failures.append(why),
        )
        self.blobs = blobs
        self.host = PairwiseHost(self.session, ports)
        self.desk = UploadDesk(blobs, Secret(bytes(32)))
        self.redraws = 0

    async def run(self, workers: Sequence[Pipe]) -> Report:
        """The whole session; the report of this process."""
        # Work on vectors is measured apart from what surrounds it: the host looks these up in their modules.
        self.meter.wrap(SessionSum, "add_offered", "limb_sum")
        self.meter.wrap(SessionSum, "fold", "fold")
        self.meter.wrap(recovery, "recover", "unmask_recover")
        self.meter.wrap(host_module, "masked_sum", "unmask_masked_sum")
        self.meter.wrap(vectors, "remove_masks", "unmask_remove_masks")
        self.meter.wrap(host_module, "decode", "unmask_decode")
        self.meter.wrap(AdapterMerge, "keep", "unmask_merge")
        self.meter.wrap(SessionDirectory, "write", "record_files")
        everybody = set(range(self.plan.clients))
        start_mib = memory_mib("VmRSS")
        self.meter.forget()
        with self.meter.measure("open"):
            await self.host.open(self._setup())
        await self._phase(workers, "advertise", everybody, Phase.SHARE_KEYS)
        await self._phase(workers, "share", everybody, Phase.MASKED_INPUT)
        with self.meter.measure(NOT_COUNTED):
            survivors = everybody - self._draw_dropouts()
        await self._phase(workers, "upload", survivors, Phase.CONSISTENCY_CHECK)
        await self._phase(workers, "confirm", survivors, Phase.UNMASK)
        await self._phase(workers, "unmask", survivors, Phase.FINISHED)
        await self._phase(workers, "outcome", survivors, Phase.FINISHED)
        cpu_s = self.meter.total()
        await self.host.close()
        await self.log.close()
        cohort: Any = self.host.driver.state.cohort  # type: ignore[union-attr]
        return {
            "degree": cohort.degree,
            "threshold": cohort.threshold,
            "contributors": len(survivors),
            "dropouts_drawn_again": self.redraws,
            "cpu_s": _rounded(cpu_s),
            "cpu_s_in_the_kernel": _rounded(self.meter.system),
            "cpu_s_by_call": _rounded(self.calls),
            "rss_start_mib": start_mib,
            "rss_peak_mib": memory_mib("VmHWM"),
            "threads": vectors.worker_threads(),
        }

    def _setup(self) -> SetupRow:
        head = self.session.roster.head(_key(-1).public_bytes).to_bytes()
        roster = b"".join(leaf + b"\n" for leaf in self.leaves)
        names = [self.blobs.put(blob) for blob in (roster, self.layout, self.template)]
        return SetupRow(names[0], head, _key(-1).sign_statement(head), *names[1:])

    def _draw_dropouts(self) -> set[int]:
        """Who never uploads: drawn again where a client of a sparse graph would keep too few neighbours."""
        cohort: Any = self.host.driver.state.cohort  # type: ignore[union-attr]
        graph = self.session.graph(self.plan.clients, cohort.root)
        neighbours = [set(graph.neighbours(index)) for index in range(self.plan.clients)]
        draws = random.Random(self.plan.clients)  # noqa: S311 - decides who drops out, nothing secret
        for self.redraws in range(1000):
            gone = set(draws.sample(range(self.plan.clients), self.plan.dropped))
            if all(len(around - gone) >= cohort.threshold for around in neighbours):
                members = self.session.roster.identities()
                numbers = {_key(number).public_bytes: number for number in range(self.plan.clients)}
                return {numbers[members[cohort.positions[index]]] for index in gone}
        raise SystemExit("no choice of dropouts leaves every client enough neighbours")

    async def _phase(self, workers: Sequence[Pipe], name: str, players: set[int], after: Phase) -> None:
        for place, worker in enumerate(workers):
            worker.send((name, [number for number in sorted(players) if number % len(workers) == place]))
        parent: Any = multiprocessing.parent_process()
        busy = list(workers)
        while busy:
            with self.meter.measure(NOT_COUNTED):
                ready = connection.wait([*busy, parent.sentinel])
            for worker in ready:
                if not isinstance(worker, connection.Connection):
                    raise SystemExit("the benchmark was ended")
                with self.meter.measure(NOT_COUNTED):
                    method = worker.recv_bytes()
                    request = worker.recv_bytes() if method else b""
                if not method:
                    busy.remove(worker)
                    continue
                answer = await self._answer(method, request)
                with self.meter.measure(NOT_COUNTED):
                    worker.send_bytes(answer)
        with self.meter.measure({"upload": "close", "unmask": "unmask_publish"}.get(name, name)):
            if name == "upload" and self.plan.dropped:
                self.clock.time_s += PHASE_S
                await self.host.driver.feed(DeadlinePassed())
            while self.host.status().phase is not after:
                if self.failures or isinstance(self.host.driver.state, Aborted):
                    raise SystemExit(f"the session failed: {self.host.driver.state} {self.failures}")
                await self.host.driver.wait_for_change(self.host.driver.version)

    async def _answer(self, method: bytes, data: bytes) -> bytes:
        kind, phase = METHODS[method]
        start = time.process_time()
        with self.meter.measure(phase):
            answer: bytes = (await self._respond(kind.FromString(data))).SerializeToString()
        self.calls[method.decode()] += time.process_time() - start
        return answer

    async def _respond(self, request: Any) -> Any:  # noqa: ANN401, PLR0911, PLR0912 - one method of the service each
        match request:
            case pb.GetSessionRequest():
                evidence = convert.log_evidence_to_pb(self.host.evidence())
                return pb.GetSessionResponse(
                    evidence=evidence, roster=self.leaves, layout=self.layout, adapter=self.template
                )
            case pb.AdvertiseKeysRequest():
                await self.host.submit(convert.advertise_keys_from_pb(request))
                return pb.AdvertiseKeysResponse()
            case pb.GetAdvertisedKeysRequest():
                return convert.advertised_list_to_pb(self.host.advertised_list(convert.identity_from_pb(request)))
            case pb.ShareKeysRequest():
                await self.host.share_keys(convert.share_keys_from_pb(request))
                return pb.ShareKeysResponse()
            case pb.GetSharedKeysRequest():
                return convert.shared_list_to_pb(await self.host.shared_list(convert.identity_from_pb(request)))
            case pb.StartUploadRequest():
                token, committed, _ = await self.desk.begin(self.host, convert.contribution_from_pb(request))
                return pb.StartUploadResponse(token=token, committed_bytes=committed)
            case pb.WriteChunkRequest():
                chunk = Chunk(request.offset_bytes, request.data, request.crc32)
                return pb.WriteChunkResponse(committed_bytes=await self.desk.write(request.token, chunk))
            case pb.FinishUploadRequest():
                receipt = await self.desk.finish(request.token)
                return pb.FinishUploadResponse(receipt=convert.receipt_to_pb(receipt))
            case pb.GetCloseRequest():
                return convert.closed_list_to_pb(self.host.closed_list())
            case pb.ConfirmCloseRequest():
                await self.host.submit(convert.confirm_close_from_pb(request))
                return pb.ConfirmCloseResponse()
            case pb.GetConfirmationsRequest():
                return convert.confirmations_to_pb(self.host.confirmations(convert.identity_from_pb(request)))
            case pb.UnmaskRequest():
                await self.host.submit(convert.unmask_answer_from_pb(request))
                return pb.UnmaskResponse()
            case _:
                return convert.session_ended_to_pb(self.host.outcome())


def coordinate(plan: Plan, directory: str, workers: Sequence[Pipe], results: Pipe) -> None:
    """The coordinator's process: sends its report and the integer sum."""
    keep_freed_memory()  # as the service does
    coordinator = Coordinator(plan, Path(directory))
    results.send(asyncio.run(coordinator.run(workers)))
    results.send_bytes(coordinator.blobs.get(coordinator.host.integer_sum()))


@dataclass
class Player:
    """One client and its place in the phases."""

    context: client.ClientContext
    state: ClientState | None = None
    lanes: vectors.Lanes | None = None


class Worker:
    """Plays some of the clients, one after the other."""

    def __init__(self, plan: Plan, pipe: Pipe) -> None:
        self.plan, self.pipe = plan, pipe
        self.session = plan.session()
        self.rng = SystemRng()
        self.meter = Meter()
        self.players: dict[int, Player] = {}
        self.number = 0
        self.cpu: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self.up: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self.down: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self.integers = np.zeros(plan.dimension, dtype=np.int64)

    def run(self) -> Report:
        """Play phases as the coordinator's process names them; what the clients cost."""
        name = ""
        while name != "outcome":
            name, numbers = self.pipe.recv()
            for self.number in numbers:
                self.meter = Meter()
                with self.meter.measure(name):
                    self._play(name)
                for part, seconds in self.meter.total().items():
                    if part not in (NOT_COUNTED, "other"):
                        self.cpu[part][self.number] = seconds
            self.pipe.send_bytes(b"")
        return {"cpu": dict(self.cpu), "up": dict(self.up), "down": dict(self.down), "rss": memory_mib("VmHWM")}

    def _play(self, phase: str) -> None:
        match phase:
            case "advertise":
                self._join()
            case "share":
                self._fetch(b"GetAdvertisedKeys", pb.GetAdvertisedKeysResponse, convert.advertised_list_from_pb)
            case "upload":
                self._fetch(b"GetSharedKeys", pb.GetSharedKeysResponse, convert.shared_list_from_pb)
            case "confirm":
                self._fetch(b"GetClose", pb.GetCloseResponse, convert.closed_list_from_pb)
            case "unmask":
                self._fetch(b"GetConfirmations", pb.GetConfirmationsResponse, convert.confirmations_from_pb)
            case "outcome":
                self._fetch(b"GetOutcome", pb.GetOutcomeResponse, convert.session_ended_from_pb)
                del self.players[self.number]

    def _join(self) -> None:
        with self.meter.measure("join"):
            response = self._call(b"GetSession", pb.GetSessionRequest(session=self._name), pb.GetSessionResponse)
            evidence = convert.log_evidence_from_pb(response.evidence)
            parameters = SessionOpen.from_bytes(evidence.entries[0])
            # A client of its own keeps this one; here all share one that is equal, to save memory.
            self.plan.with_roster(parameters, Roster.from_leaves(response.roster))
            check_layout(parameters, response.layout, response.adapter)
            view = log.join(parameters, NO_WITNESSES, evidence)
        context = client.ClientContext(_key(self.number), self.session, ClientPolicy(), NO_WITNESSES)
        self.players[self.number] = Player(context)
        self._take(client.start(context, view, self.rng))

    def _fetch(self, method: bytes, kind: type[Any], decode: Callable[[Any], Any]) -> None:
        """Fetch what the coordinator has for this client, and step on it."""
        player = self.players[self.number]
        request: Any = METHODS[method][0](session=self._name)
        if "identity" in request.DESCRIPTOR.fields_by_name:
            request.identity = player.context.identity.public_bytes
        with self.meter.measure("open_boxes") if method == b"GetSharedKeys" else nullcontext():
            transition = self._step(decode(self._call(method, request, kind)))
        self._take(transition)

    def _step(self, event: Any) -> client.ClientTransition:  # noqa: ANN401
        player = self.players[self.number]
        return client.step(player.context, player.state, event, self.rng)  # type: ignore[arg-type]

    def _take(self, transition: client.ClientTransition) -> None:
        self.players[self.number].state = transition.state
        for effect in transition.effects:
            match effect:
                case MaskInput():
                    self._mask(effect)
                case Send(message):
                    self._deliver(message)

    def _mask(self, plan: MaskInput) -> None:
        player, encoding = self.players[self.number], self.session.parameters.encoding
        with self.meter.measure(NOT_COUNTED):
            values = np.random.default_rng(self.number).random(self.plan.dimension, dtype=np.float32) - np.float32(0.5)
        with self.meter.measure("encode_and_mask"):
            player.lanes, _ = vectors.masked_input(self.session, values, plan)
        with self.meter.measure(NOT_COUNTED):
            clipped, _ = clip(values, encoding.clip_norm)
            stream = Keystream(derive(plan.rounding, Label.QUANTISER_STREAM).expose())
            self.integers += encoding.quantiser(NoDifferentialPrivacy()).quantise(clipped, stream)[0]
        with self.meter.measure("linear_hash"):
            linear_hash = vectors.linear_hash_of(player.lanes)
        self._take(self._step(InputMasked(vectors.digest_of(player.lanes), player.lanes.size, linear_hash)))

    def _deliver(self, message: ClientMessage) -> None:
        match message:
            case AdvertiseKeys():
                self._call(
                    b"AdvertiseKeys", convert.advertise_keys_to_pb(self._name, message), pb.AdvertiseKeysResponse
                )
            case ShareKeys():
                self._call(b"ShareKeys", convert.share_keys_to_pb(self._name, message), pb.ShareKeysResponse)
            case Contribution():
                self._upload(message)
            case ConfirmClose():
                self._call(b"ConfirmClose", convert.confirm_close_to_pb(self._name, message), pb.ConfirmCloseResponse)
            case UnmaskAnswer():
                self._call(b"Unmask", convert.unmask_answer_to_pb(self._name, message), pb.UnmaskResponse)

    def _upload(self, message: Contribution) -> None:
        player = self.players[self.number]
        data = vectors.as_bytes(player.lanes)  # type: ignore[arg-type]
        announced = self._call(b"StartUpload", convert.contribution_to_pb(self._name, message), pb.StartUploadResponse)
        for start in range(announced.committed_bytes, len(data), PREFERRED_CHUNK_BYTES):
            piece = bytes(data[start : start + PREFERRED_CHUNK_BYTES])
            chunk = pb.WriteChunkRequest(token=announced.token, offset_bytes=start, data=piece, crc32=zlib.crc32(piece))
            self._call(b"WriteChunk", chunk, pb.WriteChunkResponse)
        finished = self._call(b"FinishUpload", pb.FinishUploadRequest(token=announced.token), pb.FinishUploadResponse)
        player.lanes = None
        self._take(self._step(convert.receipt_from_pb(finished.receipt)))

    @property
    def _name(self) -> bytes:
        return self.session.parameters.session

    def _call(self, method: bytes, request: Any, kind: type[Any]) -> Any:  # noqa: ANN401
        data = request.SerializeToString()
        with self.meter.measure(NOT_COUNTED):
            self.pipe.send_bytes(method)
            self.pipe.send_bytes(data)
            answer = self.pipe.recv_bytes()
            for counts, length in (self.up, len(data)), (self.down, len(answer)):
                mine = counts[method.decode()]
                mine[self.number] = mine.get(self.number, 0) + length
        return kind.FromString(answer)


def work(plan: Plan, pipe: Pipe, results: Pipe) -> None:
    """A worker's process: sends what its clients cost and the plain sum of their integers."""
    worker = Worker(plan, pipe)
    results.send(worker.run())
    results.send_bytes(worker.integers.astype("<i8").tobytes())


def play(plan: Plan) -> Report:
    """Play one session in processes of its own; its report."""
    start = time.perf_counter()
    lines = [SPAWN.Pipe() for _ in range(plan.workers)]
    results = [SPAWN.Pipe(duplex=False) for _ in range(plan.workers + 1)]
    with tempfile.TemporaryDirectory(prefix="secagg-bench-") as directory:
        ends = [results[0][1], *(end for pair in lines for end in pair), *(end for _, end in results[1:])]
        processes = [
            SPAWN.Process(target=coordinate, args=(plan, directory, [line[0] for line in lines], results[0][1])),
            *(
                SPAWN.Process(target=work, args=(plan, line[1], result[1]))
                for line, result in zip(lines, results[1:], strict=True)
            ),
        ]
        try:
            for process in processes:
                process.start()
            for end in ends:
                end.close()
            coordinator, *workers = [end.recv() for end, _ in results]
            sums = [np.frombuffer(end.recv_bytes(), dtype="<i8") for end, _ in results]
        except EOFError:
            raise SystemExit("a process of the benchmark failed; see above") from None
        finally:
            for process in processes:
                process.join(10)
                process.kill()
    exact = bool(np.array_equal(sums[0], np.sum(sums[1:], axis=0)))
    report = {
        **{"clients": plan.clients, "dimension": plan.dimension, "dropped": plan.dropped, "exact": exact},
        "coordinator": coordinator,
        "client": _client_report(plan, workers, coordinator["contributors"]),
        "wall_s": round(time.perf_counter() - start, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "workers": plan.workers,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }
    if plan.degree is not None:
        report["warning"] = f"degree {plan.degree} was set by hand and follows from no threat model: not safe to use"
    return report


def _client_report(plan: Plan, workers: Sequence[Report], contributors: int) -> Report:
    cpu, up, down = (_merged(workers, name) for name in ("cpu", "up", "down"))
    complete = sorted(cpu["outcome"])
    totals = [sum(seconds.get(number, 0.0) for seconds in cpu.values()) for number in complete]
    masked = plan.session().upload_bytes
    sent, received = (_mean_of(counts, complete) for counts in (up, down))
    return {
        "contributors": contributors,
        "cpu_s": {
            name: {"mean": round(statistics.fmean(values), 5), "max": round(max(values), 5)}
            for name, values in [(part, [*seconds.values()]) for part, seconds in cpu.items()] + [("total", totals)]
        },
        "bytes_up": {name: round(_mean_of({name: counts}, [*counts])) for name, counts in up.items()},
        "bytes_down": {name: round(_mean_of({name: counts}, [*counts])) for name, counts in down.items()},
        "bytes_up_total": round(sent),
        "bytes_down_total": round(received),
        "bytes_down_of_the_sum_itself": 8 * plan.dimension,
        "masked_input_bytes": masked,
        "masked_input_bytes_per_parameter": round(masked / plan.dimension, 5),
        "bytes_up_per_parameter": round(sent / plan.dimension, 5),
        "bytes_down_per_parameter": round(received / plan.dimension, 5),
        "worker_rss_peak_mib": max(worker["rss"] for worker in workers),
    }


def _merged(workers: Sequence[Report], name: str) -> dict[str, dict[int, float]]:
    merged: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for worker in workers:
        for part, by_client in worker[name].items():
            merged[part].update(by_client)
    return merged


def _mean_of(counts: Mapping[str, Mapping[int, float]], numbers: Sequence[int]) -> float:
    return sum(by_client.get(number, 0) for by_client in counts.values() for number in numbers) / len(numbers)


def run(options: argparse.Namespace) -> list[Report]:
    """One report for each dropout rate."""
    counts = [round(rate * options.clients) for rate in options.dropout]
    reports = []
    for rate, dropped in zip(options.dropout, counts, strict=True):
        print(f"{options.clients} clients, {options.dimension} parameters, {dropped} drop out", file=sys.stderr)
        plan = Plan(options.clients, options.dimension, dropped, max(counts), options.workers, options.degree)
        reports.append({"dropout": rate, **play(plan)})
        if not reports[-1]["exact"]:
            raise SystemExit("the sum differs from the plain sum of integers")
    return reports


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is common to this benchmark and the comparison with a peer."""
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--dimension", type=int, default=1_000_000, help="parameters of one contribution")
    parser.add_argument("--dropout", type=_rates, default=[0.0], help="fractions that never upload, as 0,0.1,0.3")
    parser.add_argument("--degree", type=int, help="neighbours of each client; for comparison only, NOT safe")
    parser.add_argument("--workers", type=int, default=2, help="processes that play clients")
    parser.add_argument("--json", required=True, help="where the figures go; - for standard output")


def _rates(text: str) -> list[float]:
    rates = [float(part) for part in text.split(",")]
    if not all(0 <= rate < 1 for rate in rates):
        raise argparse.ArgumentTypeError("a fraction is at least 0 and below 1")
    return rates


def write_json(target: str, figures: object) -> None:
    """To a file, or to standard output."""
    text = json.dumps(figures, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairwise", description=__doc__)
    add_options(parser)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    reports = run(options)
    write_json(options.json, reports if len(reports) > 1 else reports[0])
    for report in reports:
        coordinator, contributor = report["coordinator"], report["client"]
        print(
            f"dropout {report['dropout']}: coordinator {coordinator['cpu_s']['total']} s, "
            f"client {contributor['cpu_s']['total']['mean']} s, {contributor['bytes_up_per_parameter']} bytes up "
            f"a parameter, memory {coordinator['rss_start_mib']} to {coordinator['rss_peak_mib']} MiB, exact",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
