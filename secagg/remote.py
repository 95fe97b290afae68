"""A coordinator over gRPC: the transport of the client library.

Every call has a timeout of its own. What the service refused comes out as RemoteProtocolError or UploadError, what
may succeed later as TransportError.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio

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
from secagg.protocol.one_shot.messages import CommitContribution, CommittedList, OneShotContribution
from secagg.protocol.phases import Phase
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import BlobStore, StoreError, UploadError
from secagg.runtime.shown import Status
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.statements import ContributionHeader, OneShotHeader
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.wire import convert, one_shot
from secagg.wire.status import from_rpc_error

_LONGEST_UPLOAD_CHUNK = 1 << 20
_LONGEST_DETOUR_S = 5.0
_WATCH_TIMEOUT_S = 900.0
_LONG_CALL_S = 600.0
"""A watch is renewed after this long, so that a connection lost in silence is noticed."""

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


@dataclass(frozen=True, slots=True)
class SessionFiles:
    """What a coordinator shows of a session; nothing is checked yet. ``context`` is empty but with a key authority."""

    evidence: LogEvidence
    roster: tuple[bytes, ...]
    roster_head: bytes
    roster_signature: bytes
    layout: bytes
    adapter: bytes
    consistency: tuple[bytes, ...]
    context: bytes


@dataclass(frozen=True, slots=True)
class _Way:
    """Where the bytes of an upload go, and from which one on. ``ingest_port`` is 0 for the coordinator itself."""

    stub: pb_grpc.AggregationServiceAsyncStub
    offset_bytes: int
    ingest_port: int = 0


class GrpcCoordinator:
    """``CoordinatorPort`` and reading access, over one channel.

    Args:
        channel: to the coordinator.
        timeout_s: for every call.
        channel_to_port: a channel to another port of the coordinator's host, with the same certificate. Bytes of
            uploads go there where the coordinator asks for it and the port can be reached.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        timeout_s: float,
        channel_to_port: Callable[[int], grpc.aio.Channel] | None = None,
    ) -> None:
        self._channel = channel
        self._timeout_s = timeout_s
        self._stub = pb_grpc.AggregationServiceStub(channel)
        self._channel_to_port = channel_to_port
        self._ingest: dict[int, grpc.aio.Channel] = {}
        self._avoided: set[int] = set()

    async def close(self) -> None:
        """Close the channels."""
        for channel in (self._channel, *self._ingest.values()):
            await channel.close()

    async def session_files(self, session: bytes, log_size: int) -> SessionFiles:
        """What a client checks before it joins; ``log_size`` is that of the last checkpoint it saw, or 0."""
        request = pb.GetSessionRequest(session=session, log_size=log_size)
        response = await self._call(self._stub.GetSession, request)
        return SessionFiles(
            convert.log_evidence_from_pb(response.evidence),
            tuple(response.roster),
            response.roster_head,
            response.roster_signature,
            response.layout,
            response.adapter,
            convert.consistency_from_pb(response),
            response.context,
        )

    async def sessions(self) -> list[tuple[bytes, Phase]]:
        """All sessions and where they stand, newest first."""
        found: list[tuple[bytes, Phase]] = []
        token = ""
        while True:
            request = pb.ListSessionsRequest(page_token=token)
            response = await self._call(self._stub.ListSessions, request)
            found.extend((item.session, convert.phase_from_pb(item.phase)) for item in response.sessions)
            token = response.next_page_token
            if not token:
                return found

    async def watch(self, session: bytes) -> AsyncIterator[Status]:
        """Where the session stands, now and whenever it changes, until it has ended or the stream does."""
        call = self._stub.WatchSession(pb.WatchSessionRequest(session=session), timeout=_WATCH_TIMEOUT_S)
        try:
            async for item in call:
                yield Status(
                    convert.phase_from_pb(item.phase), item.deadline_s, item.received, item.expected, item.log_size
                )
        except grpc.aio.AioRpcError as error:
            raise meaning_of(error) from None
        finally:
            call.cancel()

    async def send(self, session: bytes, message: ClientMessage | CommitContribution) -> None:
        """Deliver a message that is not a contribution."""
        stub = self._stub
        match message:
            case AdvertiseKeys():
                await self._call(stub.AdvertiseKeys, convert.advertise_keys_to_pb(session, message))
            case ShareKeys():
                await self._call(stub.ShareKeys, convert.share_keys_to_pb(session, message))
            case ConfirmClose():
                await self._call(stub.ConfirmClose, convert.confirm_close_to_pb(session, message))
            case UnmaskAnswer():
                await self._call(stub.Unmask, convert.unmask_answer_to_pb(session, message))
            case CommitContribution():
                await self._call(stub.CommitContribution, one_shot.commit_contribution_to_pb(session, message))
            case Contribution():
                raise TypeError("a contribution is uploaded")

    async def upload(
        self, session: bytes, message: Contribution | OneShotContribution, blobs: BlobStore
    ) -> SignedReceipt:
        """Deliver a header and the masked input that it names: as a stream, then in resumable chunks.

        Raises:
            TransportError: call it again, and it goes on where it stopped.
            StoreError, OSError: the masked input cannot be read.
        """
        header = _header_of(message)
        started = await self._announce(session, message)
        if isinstance(started, SignedReceipt):
            return started
        try:
            return await self._stream(await self._way(started), started, header, blobs)
        except (TransportError, UploadError):
            return await self._resume(session, message, blobs)

    async def advertised_list(self, session: bytes, identity: bytes) -> AdvertisedList:
        """U1."""
        request = pb.GetAdvertisedKeysRequest(session=session, identity=identity)
        return convert.advertised_list_from_pb(await self._call(self._stub.GetAdvertisedKeys, request))

    async def shared_list(self, session: bytes, identity: bytes) -> SharedList:
        """U2."""
        request = pb.GetSharedKeysRequest(session=session, identity=identity)
        return convert.shared_list_from_pb(await self._call(self._stub.GetSharedKeys, request))

    async def committed_list(self, session: bytes) -> CommittedList:
        """What was committed to."""
        request = pb.GetCommittedRequest(session=session)
        return one_shot.committed_list_from_pb(await self._call(self._stub.GetCommitted, request))

    async def closed_list(self, session: bytes) -> ClosedList:
        """U3."""
        request = pb.GetCloseRequest(session=session)
        return convert.closed_list_from_pb(await self._call(self._stub.GetClose, request))

    async def confirmations(self, session: bytes, identity: bytes) -> Confirmations:
        """What the neighbours signed."""
        request = pb.GetConfirmationsRequest(session=session, identity=identity)
        return convert.confirmations_from_pb(await self._call(self._stub.GetConfirmations, request))

    async def outcome(self, session: bytes) -> SessionEnded:
        """How the session ended."""
        request = pb.GetOutcomeRequest(session=session)
        return convert.session_ended_from_pb(await self._call(self._stub.GetOutcome, request))

    async def integer_sum(self, session: bytes, length_bytes: int) -> bytes:
        """The exact sum, as bytes; RemoteProtocolError if it is not ``length_bytes`` long."""
        call = self._stub.GetSum(pb.GetSumRequest(session=session), timeout=max(self._timeout_s, _LONG_CALL_S))
        data = await _joined(call, length_bytes)
        if len(data) != length_bytes:
            raise RemoteProtocolError(RejectReason.WRONG_LENGTH, "the sum has another length")
        return data

    async def fixed_tensors(self, session: bytes, most_bytes: int) -> bytes:
        """The file of a session's fixed tensors; RemoteProtocolError if it is longer than ``most_bytes``."""
        request = pb.GetFixedTensorsRequest(session=session)
        data = await _joined(
            self._stub.GetFixedTensors(request, timeout=max(self._timeout_s, _LONG_CALL_S)), most_bytes
        )
        if len(data) > most_bytes:
            raise RemoteProtocolError(RejectReason.WRONG_LENGTH, "the fixed tensors are longer than the layout allows")
        return data

    async def _announce(
        self, session: bytes, message: Contribution | OneShotContribution
    ) -> pb.StartUploadResponse | SignedReceipt:
        request = convert.contribution_to_pb(session, message)
        response = await self._call(self._stub.StartUpload, request)
        return convert.receipt_from_pb(response.receipt) if response.HasField("receipt") else response

    async def _way(self, started: pb.StartUploadResponse) -> _Way:
        """The announced port if it can be reached, else the coordinator itself, which takes everything as well."""
        port, channel_to_port = started.ingest_port, self._channel_to_port
        if not port or channel_to_port is None or port in self._avoided:
            return _Way(self._stub, started.committed_bytes)
        channel = self._ingest.get(port)
        if channel is None:
            channel = self._ingest[port] = channel_to_port(port)
        try:
            await asyncio.wait_for(channel.channel_ready(), min(self._timeout_s, _LONGEST_DETOUR_S))
        except TimeoutError:
            self._avoided.add(port)
            return _Way(self._stub, started.committed_bytes)
        return _Way(pb_grpc.AggregationServiceStub(channel), started.ingest_committed_bytes, port)

    async def _stream(
        self,
        way: _Way,
        started: pb.StartUploadResponse,
        header: ContributionHeader | OneShotHeader,
        blobs: BlobStore,
    ) -> SignedReceipt:
        unread: list[Exception] = []
        length_bytes = 8 * header.lanes

        async def chunks() -> AsyncIterator[pb.StreamChunksRequest]:
            offset = way.offset_bytes
            first = True
            while first or offset < length_bytes:
                try:
                    data = await _read(blobs, header.upload, offset, length_bytes, _chunk_bytes(started))
                except (StoreError, OSError) as error:
                    unread.append(error)
                    raise
                yield pb.StreamChunksRequest(
                    token=started.token if first else "",
                    offset_bytes=offset if first else 0,
                    data=data,
                    crc32=zlib.crc32(data),
                )
                offset, first = offset + len(data), False

        timeout_s = max(self._timeout_s, 3600.0)
        try:
            response = await way.stub.StreamChunks(chunks(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise meaning_of(error) from None
        except asyncio.CancelledError:
            # gRPC cancels a call whose requests fail: that is no cancellation of ours.
            if unread:
                raise unread[0] from None
            raise
        return convert.receipt_from_pb(response.receipt)

    async def _resume(
        self, session: bytes, message: Contribution | OneShotContribution, blobs: BlobStore
    ) -> SignedReceipt:
        started = await self._announce(session, message)
        if isinstance(started, SignedReceipt):
            return started
        way = await self._way(started)
        try:
            return await self._send_chunks(way, started, _header_of(message), blobs)
        except TransportError:
            self._avoided.add(way.ingest_port)  # what calls us again goes to the coordinator itself
            raise

    async def _send_chunks(
        self,
        way: _Way,
        started: pb.StartUploadResponse,
        header: ContributionHeader | OneShotHeader,
        blobs: BlobStore,
    ) -> SignedReceipt:
        offset, length_bytes = way.offset_bytes, 8 * header.lanes
        while offset < length_bytes:
            data = await _read(blobs, header.upload, offset, length_bytes, _chunk_bytes(started))
            request = pb.WriteChunkRequest(token=started.token, offset_bytes=offset, data=data, crc32=zlib.crc32(data))
            try:
                response = await self._call(way.stub.WriteChunk, request)
            except UploadError as error:
                if error.committed_bytes == offset:
                    raise TransportError("a chunk was damaged on the way") from None
                offset = error.committed_bytes
                continue
            if response.committed_bytes <= offset:
                raise RemoteProtocolError(RejectReason.UPLOAD_OFFSET_MISMATCH, "the upload makes no progress")
            offset = response.committed_bytes
        request_to_finish = pb.FinishUploadRequest(token=started.token)
        try:
            finished = await self._call(way.stub.FinishUpload, request_to_finish)
        except UploadError:
            raise TransportError("the upload was damaged on the way") from None
        return convert.receipt_from_pb(finished.receipt)

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], request: RequestT
    ) -> ResponseT:
        try:
            return await method(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise meaning_of(error) from None


async def _joined(call: Any, most_bytes: int) -> bytes:  # noqa: ANN401 - a call of any streaming method
    """The pieces of an answer, one after the other; it is left once there are more than ``most_bytes``."""
    data = bytearray()
    try:
        async for piece in call:
            data += piece.data
            if len(data) > most_bytes:
                break
    except grpc.aio.AioRpcError as error:
        raise meaning_of(error) from None
    finally:
        call.cancel()
    return bytes(data)


def meaning_of(error: grpc.aio.AioRpcError) -> Exception:
    """What a failed call says: a refusal with its reason, or that nobody answered."""
    found = from_rpc_error(error)
    if isinstance(found, RemoteProtocolError) and found.reason is RejectReason.UNKNOWN_UPLOAD:
        # A coordinator that was restarted knows no tokens: the upload is announced again and goes on.
        return TransportError("the coordinator forgot the upload")
    return TransportError(error.code().name) if found is None else found


def _header_of(message: Contribution | OneShotContribution) -> ContributionHeader | OneShotHeader:
    header = message.signed.statement
    if not isinstance(header, ContributionHeader | OneShotHeader):
        raise TypeError("not a contribution header")
    return header


def _chunk_bytes(started: pb.StartUploadResponse) -> int:
    offered = min(started.preferred_chunk_bytes, started.max_chunk_bytes, _LONGEST_UPLOAD_CHUNK)
    return max(offered, 1 << 12)


async def _read(blobs: BlobStore, digest: bytes, offset: int, length_bytes: int, most: int) -> bytes:
    return await asyncio.to_thread(blobs.read, digest, offset, min(most, length_bytes - offset))
