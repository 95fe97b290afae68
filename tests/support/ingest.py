"""A coordinator with ingest processes, in one process: real gRPC with TLS, blobs on disk, the session in memory.

The processes of tests/integration/test_ingest_processes.py are real ones; here each lives until a test says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from secagg.identity.channels import channel_to
from secagg.identity.tls import PinnedCertificate, create_certificate
from secagg.protocol.messages import SignedReceipt
from secagg.remote import GrpcCoordinator
from secagg.runtime.clock import SystemClock
from secagg.runtime.ports import StoreError
from secagg.runtime.registry import Registry
from secagg.services.ingest_processes import IngestProcesses
from secagg.services.ingest_server import IngestServer
from secagg.services.logs import EventLog
from secagg.services.server import CoordinatorServer, ServerSocket, server_credentials
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.ingest_directory import IngestDirectory
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.wire import convert
from tests.support.cohort import one_hot
from tests.support.one_shot_cohort import Contributor, OneShotCohort, open_one_shot

CALL_S = 20.0


class OneUpload:
    """Reads the upload of one contributor, as a ``BlobStore`` does."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, digest: bytes, offset_bytes: int, length_bytes: int) -> bytes:
        return self._data[offset_bytes : offset_bytes + length_bytes]


class CountingBlobs(DirectoryBlobStore):
    """Counts uploads that this process reads to add them up."""

    reads = 0

    def read_into(self, digest: bytes, offset_bytes: int, out: np.ndarray) -> None:
        self.reads += 1
        super().read_into(digest, offset_bytes, out)


class OneSession(Registry):
    """Serves one session that was opened already."""

    host: Any = None

    async def start(self) -> None:
        self._hosts[self.host.session.parameters.session] = self.host


@dataclass
class Life:
    """One life of an ingest process."""

    server: IngestServer
    task: asyncio.Task[None]
    port: int

    async def ends(self) -> None:
        """As SIGKILL ends it: nothing is tidied up."""
        self.task.cancel()
        await self.server._server.stop(None)
        await self.server._office.close()
        await asyncio.gather(self.task, return_exceptions=True)


@dataclass
class IngestSite:
    """A served session, and its ingest processes by place."""

    state: Path
    tls: PinnedCertificate
    cohort: OneShotCohort
    processes: IngestProcesses
    registry: Registry
    server: CoordinatorServer
    port: int = 0
    lives: dict[int, Life] = field(default_factory=dict)

    @property
    def session(self) -> bytes:
        return self.cohort.session.parameters.session

    @property
    def blobs(self) -> CountingBlobs:
        return self.cohort.blobs

    def socket(self) -> ServerSocket:
        key = (self.state / "tls.key").read_bytes()
        return ServerSocket("127.0.0.1:0", server_credentials(self.tls.pem, key, None))

    async def begin(self, place: int) -> Life:
        """Start the process at ``place``."""
        server = IngestServer(self.state, IngestDirectory(self.state, place), place, EventLog(), 64)
        port = await server.start(self.socket())
        life = self.lives[place] = Life(server, asyncio.ensure_future(server.serve(port)), port)
        async with asyncio.timeout(CALL_S):
            await self.processes.has_attached(place)
        return life

    async def end(self, place: int) -> None:
        """Kill the process at ``place``; the coordinator has noticed."""
        await self.lives.pop(place).ends()
        async with asyncio.timeout(CALL_S):
            while self.processes.attached(place) is not None:
                await asyncio.sleep(0.001)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[GrpcCoordinator]:
        def to_port(number: int) -> Any:
            return channel_to(f"127.0.0.1:{number}", self.tls)

        port = GrpcCoordinator(to_port(self.port), CALL_S, to_port)
        try:
            yield port
        finally:
            await port.close()

    async def upload(self, *numbers: int) -> None:
        """These contributors upload, one after the other, and get their receipts."""
        for number in numbers:
            async with self.client() as port:
                await self.upload_by(port, self.cohort.contributors[number])

    async def upload_by(self, port: GrpcCoordinator, one: Contributor) -> SignedReceipt:
        assert one.contribution is not None
        receipt = await port.upload(self.session, one.contribution, OneUpload(one.upload))
        one.feed(receipt)  # it checks the receipt
        return receipt

    async def announce(self, number: int) -> pb.StartUploadResponse:
        """What the coordinator answers to a contributor's header."""
        async with channel_to(f"127.0.0.1:{self.port}", self.tls) as channel:
            message = convert.contribution_to_pb(self.session, self.cohort.contributors[number].contribution)
            return await pb_grpc.AggregationServiceStub(channel).StartUpload(message, timeout=CALL_S)

    def place_of(self, number: int) -> int:
        """Which process takes this contributor's bytes."""
        signed = self.cohort.contributors[number].contribution.signed
        return self.processes.place_of(self.server._uploads._token(signed))

    async def added(self) -> None:
        """Wait until the processes have added up what they were given."""
        async with asyncio.timeout(CALL_S):
            for life in self.lives.values():
                adder = life.server._desk._adder
                if adder is not None:
                    await adder


@asynccontextmanager
async def ingest_site(state: Path, contributors: int, processes: int) -> AsyncIterator[IngestSite]:
    """A session whose uploads so many processes take; ``state`` has a short path."""
    create_certificate(state, ["localhost", "127.0.0.1"], SystemClock().now_s(), 30)
    tls = PinnedCertificate((state / "tls.crt").read_bytes(), "localhost")
    blobs, reports = CountingBlobs(state), []
    ingest = IngestProcesses(state, processes, lambda *event: reports.append(event))
    places: dict[str, int] = {}
    # Tokens are random and would now and then all belong to one process: here they take turns.
    ingest.place_of = lambda token: places.setdefault(token, len(places) % processes)
    cohort = await open_one_shot(contributors, lambda number: one_hot(20, number), blobs=blobs, adders=ingest)
    cohort.reports.append(reports)
    registry = OneSession(cohort.ports)
    registry.host = cohort.host
    server = CoordinatorServer(registry, state, EventLog(), ingest=ingest)
    site = IngestSite(state, tls, cohort, ingest, registry, server)
    site.port = await server.start(site.socket())
    try:
        for place in range(processes):
            await site.begin(place)
        yield site
    finally:
        for life in site.lives.values():
            life.task.cancel()
            await life.server.stop()
            with contextlib.suppress(asyncio.CancelledError, StoreError):
                await life.task
        await server.stop()
        await cohort.close()
