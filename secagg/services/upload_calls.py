"""The calls that carry the bytes of uploads: served by a coordinator, and by its ingest processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import SignedReceipt
from secagg.services.logs import EventLog
from secagg.services.refusals import Context, refusing
from secagg.services.turnstile import Turnstile
from secagg.services.uploads import Chunk
from secagg.v1 import aggregation_pb2 as pb
from secagg.wire import convert

_STREAMS = 32
_STREAM_S = 1.0


class TakesChunks(Protocol):
    """What becomes of the bytes of uploads."""

    async def write(self, token: str, chunk: Chunk) -> int:
        """Take one chunk; the number of bytes that are there now. Raises ProtocolError, UploadError, StoreError."""
        ...

    async def finish(self, token: str) -> SignedReceipt:
        """Make the upload durable and count it. Raises ProtocolError, UploadError, StoreError."""
        ...


class UploadServicer:
    """Implements the three calls of ``secagg.v1.AggregationService`` that carry bytes."""

    def __init__(self, desk: TakesChunks, log: EventLog) -> None:
        self._desk = desk
        self._streams = Turnstile(_STREAMS, _STREAM_S)
        self.log = log

    @refusing
    async def WriteChunk(self, request: pb.WriteChunkRequest, context: Context) -> pb.WriteChunkResponse:
        """See the proto."""
        chunk = Chunk(request.offset_bytes, request.data, request.crc32)
        return pb.WriteChunkResponse(committed_bytes=await self._desk.write(request.token, chunk))

    @refusing
    async def StreamChunks(
        self, request: AsyncIterator[pb.StreamChunksRequest], context: Context
    ) -> pb.StreamChunksResponse:
        """See the proto."""
        await self._streams.enter(context)
        token, offset_bytes = "", 0
        async for item in request:
            if not token:
                token, offset_bytes = item.token, item.offset_bytes
            await self._desk.write(token, Chunk(offset_bytes, item.data, item.crc32))
            offset_bytes += len(item.data)
        if not token:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "stream: no chunk")
        return pb.StreamChunksResponse(receipt=convert.receipt_to_pb(await self._desk.finish(token)))

    @refusing
    async def FinishUpload(self, request: pb.FinishUploadRequest, context: Context) -> pb.FinishUploadResponse:
        """See the proto."""
        return pb.FinishUploadResponse(receipt=convert.receipt_to_pb(await self._desk.finish(request.token)))


def serve_uploads_only(servicer: UploadServicer, server: grpc.aio.Server) -> None:
    """Let ``server`` have these three calls; all others of the service are UNIMPLEMENTED."""
    one, many = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "WriteChunk": one(cast("Any", servicer.WriteChunk), pb.WriteChunkRequest.FromString, _encoded),
        "StreamChunks": many(cast("Any", servicer.StreamChunks), pb.StreamChunksRequest.FromString, _encoded),
        "FinishUpload": one(cast("Any", servicer.FinishUpload), pb.FinishUploadRequest.FromString, _encoded),
    }
    service = pb.DESCRIPTOR.services_by_name["AggregationService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _encoded(message: Message) -> bytes:
    return message.SerializeToString()
