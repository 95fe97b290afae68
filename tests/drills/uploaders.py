"""Many upload at once, some slowly, some not at all, some wrongly: everybody else is served, in bounded memory."""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import numpy as np

from secagg.client import Coordinator, LogTrust, SessionDetails
from secagg.identity.keys import KeyKind, load_key_file
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.client import OneShotClientContext
from secagg.protocol.phases import Phase
from secagg.protocol.session import ClientPolicy
from secagg.remote import GrpcCoordinator
from secagg.runtime.log_trust import ForgetfulMemory
from secagg.runtime.ports import UploadError
from secagg.services.upload_calls import _STREAMS
from secagg.services.uploads import MAX_CHUNK_BYTES
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.wire import convert
from secagg.wire.status import from_rpc_error
from tests.drills.grounds import CALL_S, SESSION_S, Cast, Grounds, grounds
from tests.drills.judge import RECORD, Held, judge, judge_journals
from tests.drills.party import memory_mib
from tests.drills.report import DrillReport
from tests.support.ingest import OneUpload
from tests.support.one_shot_cohort import Contributor
from tests.support.rng import CountingRng

NAME = "uploaders"
SERVED = "every honest uploader gets a receipt, however slow it is and whatever the others do"
COUNTED = "the sum holds exactly the honest uploads"
REFUSED = "what is wrong is refused with its reason"
BOUNDED = "the coordinator's memory stays below its bound"
_SERVED_S = 90.0
_SLOW_CHUNKS = 30
_SLOW_PAUSE_S = 0.1
_HONEST = ("fast", "slow", "cut")


@dataclass(frozen=True)
class Crowd:
    """How many upload, in all, and what: an upload has 4 bytes for each of ``dimension`` parameters."""

    people: int = 200
    dimension: int = 1_000_000
    seed: int = 1

    @property
    def stalled_streams(self) -> int:
        """Streams that each of the stalled begins: together more than are read at a time."""
        return 1 + (_STREAMS + 8) // self.behaviours().count("stalled")

    def behaviours(self) -> list[str]:
        """What each person does: of every ten five are fast, one slow, one cut off, one stalls, two are wrong."""
        ten = ("fast", "slow", "fast", "stalled", "fast", "broken", "fast", "cut", "fast", "broken")
        return [ten[number % len(ten)] for number in range(self.people)]

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Of the tensors."""
        name, quarter = "base_model.model.layer.q_proj", self.dimension // 4
        return {f"{name}.lora_A.weight": (2, quarter), f"{name}.lora_B.weight": (quarter, 2)}


@dataclass
class Uploader:
    """One person with a masked input, and a connection of its own."""

    ground: Grounds
    session: bytes
    one: Contributor
    chance: random.Random
    over: asyncio.Event
    large: asyncio.Lock
    streams: int
    refusals: list[str] = field(default_factory=list)
    receipt: bytes = b""
    sent: asyncio.Event = field(default_factory=asyncio.Event)

    async def fast(self) -> None:
        """Upload as the client library does."""
        port = GrpcCoordinator(self.ground.own_channel(), CALL_S)
        try:
            receipt = await port.upload(self.session, self.one.contribution, OneUpload(self.one.upload))
            self.one.feed(receipt)  # it checks the receipt
            self.receipt = receipt.receipt
        finally:
            await port.close()

    async def slow(self) -> None:
        """A chunk now and then."""
        async with self.ground.own_channel() as channel:
            stub, token = await self._announced(channel)
            length = -(-len(self.one.upload) // _SLOW_CHUNKS)
            for offset in range(0, len(self.one.upload), length):
                await asyncio.sleep(self.chance.uniform(0, 2 * _SLOW_PAUSE_S))
                await stub.WriteChunk(self._chunk(token, offset, length), timeout=CALL_S)
            finished = await stub.FinishUpload(pb.FinishUploadRequest(token=token), timeout=CALL_S)
            receipt = convert.receipt_from_pb(finished.receipt)
            self.one.feed(receipt)
            self.receipt = receipt.receipt

    async def cut(self) -> None:
        """Send a part, lose the connection without a word, twice; then upload."""
        for part in (3, 2):
            async with self.ground.own_channel() as channel:
                stub, token = await self._announced(channel)
                self.sent.clear()
                call = stub.StreamChunks(self._begun(token, len(self.one.upload) // part), timeout=CALL_S)
                await self.sent.wait()
                call.cancel()
        await self.fast()

    async def stalled(self) -> None:
        """Begin streams and say nothing more; and keep a connection open that says nothing at all."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.ground.site.port)
        async with self.ground.own_channel() as channel:
            stub, token = await self._announced(channel)
            calls = [stub.StreamChunks(self._begun(token, 1 << 15), timeout=600) for _ in range(self.streams)]
            await self.over.wait()
            for call in calls:
                call.cancel()
        writer.close()

    async def broken(self) -> None:
        """Everything wrong that can be said of an upload that was announced."""
        async with self.ground.own_channel() as channel:
            stub, token = await self._announced(channel)
            length, piece = len(self.one.upload), 1 << 17
            wrong_sum = self._chunk(token, 0, 1 << 12)
            wrong_sum.crc32 ^= 1
            await self._refused(stub.WriteChunk, wrong_sum, UploadError)
            await self._refused(stub.WriteChunk, self._chunk(token, 1 << 12, 1 << 12), UploadError)
            async with self.large:  # one of these at a time: they are refused, but they have come
                oversize = _chunk(token, 0, bytes(MAX_CHUNK_BYTES + 1))
                await self._refused(stub.WriteChunk, oversize, RejectReason.CHUNK_TOO_LARGE)
            await self._refused(stub.WriteChunk, _chunk("0" * 32, 0, b"?"), RejectReason.UNKNOWN_UPLOAD)
            await self._refused(stub.FinishUpload, pb.FinishUploadRequest(token=token), UploadError)
            flipped = bytes([self.one.upload[0] ^ 1]) + self.one.upload[1:]
            for offset in range(0, length, piece):
                await stub.WriteChunk(_chunk(token, offset, flipped[offset : offset + piece]), timeout=CALL_S)
            await self._refused(stub.WriteChunk, _chunk(token, length, b"?"), UploadError)
            await self._refused(stub.FinishUpload, pb.FinishUploadRequest(token=token), UploadError)

    async def _announced(self, channel: grpc.aio.Channel) -> tuple[Any, str]:
        stub = pb_grpc.AggregationServiceStub(channel)
        request = convert.contribution_to_pb(self.session, self.one.contribution)
        return stub, (await stub.StartUpload(request, timeout=CALL_S)).token

    def _chunk(self, token: str, offset: int, length: int) -> pb.WriteChunkRequest:
        return _chunk(token, offset, self.one.upload[offset : offset + length])

    async def _begun(self, token: str, length: int) -> AsyncIterator[pb.StreamChunksRequest]:
        data = self.one.upload[:length]
        yield pb.StreamChunksRequest(token=token, offset_bytes=0, data=data, crc32=zlib.crc32(data))
        self.sent.set()
        await self.over.wait()

    async def _refused(self, method: Any, request: Any, expected: type[Exception] | RejectReason) -> None:
        try:
            await method(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            found = from_rpc_error(error)
            reason = found.reason if isinstance(found, RemoteProtocolError) else type(found)
            if reason is not expected:
                self.refusals.append(f"expected {expected}, found {reason}")
        else:
            self.refusals.append(f"expected {expected}, and it was taken")


def _chunk(token: str, offset: int, data: bytes) -> pb.WriteChunkRequest:
    return pb.WriteChunkRequest(token=token, offset_bytes=offset, data=data, crc32=zlib.crc32(data))


async def run(crowd: Crowd) -> DrillReport:
    """The drill."""
    behaviours = crowd.behaviours()
    counts = ", ".join(f"{behaviours.count(each)} {each}" for each in (*_HONEST, "stalled", "broken"))
    report = DrillReport(NAME, f"{crowd.people} uploaders at once, each on a connection of its own: {counts}")
    started = time.monotonic()
    async with grounds(Cast(people=crowd.people, members=2, witnesses=0, shapes=crowd.shapes()), report) as ground:
        session = await ground.open_session("one-shot")
        uploaders = await _prepared(ground, session, crowd)
        base_mib = await _upload(ground, uploaders, behaviours)
        await _end(ground, session, uploaders, behaviours)
        _judge_memory(ground, base_mib, len(uploaders), len(uploaders[0].one.upload))
        await ground.end()
        report.promise(RECORD, *await ground.verified())
    report.elapsed_s = round(time.monotonic() - started, 1)
    return report


async def _prepared(ground: Grounds, session: bytes, crowd: Crowd) -> list[Uploader]:
    """Everybody has masked the unit vector of its number."""
    site, over, large = ground.site, asyncio.Event(), asyncio.Lock()
    trust = LogTrust(site.policy, ForgetfulMemory())
    async with Coordinator(GrpcCoordinator(ground.own_channel(), CALL_S), site.coordinator_key, trust) as coordinator:
        details = await coordinator.details(session)

    def prepared(k: int) -> Uploader:
        chance = random.Random(f"{NAME} {crowd.seed} {k}")
        return Uploader(ground, session, _masked(ground, details, k, crowd), chance, over, large, crowd.stalled_streams)

    return [await asyncio.to_thread(prepared, k) for k in range(1, crowd.people + 1)]


def _masked(ground: Grounds, details: SessionDetails, k: int, crowd: Crowd) -> Contributor:
    vector = np.zeros(crowd.dimension, dtype=np.float32)
    vector[k - 1] = 1.0
    identity = load_key_file(ground.site.identity_file(k), KeyKind.IDENTITY, None)
    policy = ClientPolicy(openers=frozenset(ground.openers))
    context = OneShotClientContext(identity, details.session, policy, ground.site.policy)  # type: ignore[arg-type]
    one = Contributor(context, CountingRng(b"uploader %d" % k), vector)
    one.start(details.view)
    return one


async def _upload(ground: Grounds, uploaders: list[Uploader], behaviours: list[str]) -> float:
    """All at once, until everybody but the stalled has come to its end; what the coordinator held before, in MiB."""
    report, pid = ground.report, ground.coordinator.pid
    base_mib = memory_mib(pid, "VmRSS")
    begun = time.monotonic()
    stalling = [asyncio.ensure_future(each.stalled()) for each in _who(uploaders, behaviours, "stalled")]
    work = [
        asyncio.ensure_future(_outcome(getattr(each, kind)))
        for kind in (*_HONEST, "broken")
        for each in _who(uploaders, behaviours, kind)
    ]
    _, late = await asyncio.wait(work, timeout=_SERVED_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    failed = [task.result() for task in work if not task.cancelled() and task.result()]
    report.promise(SERVED, *failed[:3], *([f"{len(late)} were not served in {_SERVED_S:.0f} s"] if late else []))
    wrong = [refusal for each in _who(uploaders, behaviours, "broken") for refusal in each.refusals]
    report.promise(REFUSED, *wrong[:3])
    report.figures |= {"upload_kb": len(uploaders[0].one.upload) // 1000, "seconds": round(time.monotonic() - begun, 1)}
    report.figures["base_mib"] = round(base_mib, 1)
    uploaders[0].over.set()
    await asyncio.gather(*stalling, return_exceptions=True)
    return base_mib


def _judge_memory(ground: Grounds, base_mib: float, people: int, upload_bytes: int) -> None:
    """The peak of the coordinator, to the end of the session, against what it may take.

    Beside what it held before: the chunks for which it asks, 32 MiB over k but at most 1 MiB of the k-th that announces
    an upload, each of which lies in memory about four times until it is written; the read-ahead of a stream (128 KiB)
    and the connection (85 KB were measured; 128 KiB) of each uploader; the running sum, three columns of limbs and a
    block. All uploads of the whole drill together are 800 MB.
    """
    peak_mib = memory_mib(ground.coordinator.pid, "VmHWM")
    chunks_mib = sum(min(1.0, 32 / k) for k in range(1, people + 1))
    bound_mib = base_mib + 4 * chunks_mib + people * 0.25 + 4 * upload_bytes / 2**20
    found = [f"{peak_mib:.0f} MiB of {bound_mib:.0f}"] if peak_mib > bound_mib else []
    ground.report.promise(BOUNDED, *found)
    ground.report.figures |= {"peak_mib": round(peak_mib, 1), "bound_mib": round(bound_mib, 1)}


async def _end(ground: Grounds, session: bytes, uploaders: list[Uploader], behaviours: list[str]) -> None:
    """The operator ends uploading; the sum is opened, and holds what it has to."""
    await ground.end_phase(session, Phase.MASKED_INPUT)
    async with asyncio.timeout(SESSION_S):
        await ground.watch(session)
    held = Held({each.one.identity: number for number, each in enumerate(uploaders)})
    for each in uploaders:
        if each.receipt:
            held.receipts[each.one.identity].append(each.receipt)
    counted = await judge(ground, session, "one-shot", held)
    await judge_journals(ground, session)
    honest = {each.one.identity for kind in _HONEST for each in _who(uploaders, behaviours, kind)}
    ground.report.promise(COUNTED, *([f"{len(counted ^ honest)} differ"] if counted != honest else []))


def _who(uploaders: list[Uploader], behaviours: list[str], kind: str) -> Iterable[Uploader]:
    return [each for each, behaviour in zip(uploaders, behaviours, strict=True) if behaviour == kind]


async def _outcome(behave: Callable[[], Coroutine[Any, Any, None]]) -> str:
    """What went wrong, or nothing."""
    try:
        await behave()
    except (grpc.aio.AioRpcError, OSError, UploadError, RemoteProtocolError) as error:
        return f"{behave.__name__}: {type(error).__name__} {error}"[:200]
    return ""
