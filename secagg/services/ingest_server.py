"""An ingest process: a server for the bytes of uploads, attached to the coordinator that shares its blobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import grpc.aio

from secagg.protocol.errors import RemoteProtocolError
from secagg.protocol.messages import SignedReceipt
from secagg.runtime.partial_sum import HashedUpload
from secagg.runtime.ports import StoreError
from secagg.services.ingest import INGEST_SOCKET
from secagg.services.ingest_desk import Counted, Described, IngestDesk
from secagg.services.logs import EventLog
from secagg.services.server import (
    SMALL_REQUEST_BYTES,
    ServerSocket,
    add_port,
    allow_many_connections,
    keep_freed_memory,
    public_server,
)
from secagg.services.upload_calls import UploadServicer, serve_uploads_only
from secagg.store.ingest_directory import IngestDirectory
from secagg.v1 import ingest_pb2 as pb
from secagg.v1 import ingest_pb2_grpc
from secagg.wire import convert
from secagg.wire.status import from_rpc_error

T = TypeVar("T")
_CALL_S = 60.0
_STOP_GRACE_S = 5.0
_UNLIMITED = -1
_IDLE_MS = 30_000
"""A client that stays in its session keeps a connection to the coordinator: one here that idles is closed."""


class CoordinatorOffice:
    """``Office`` over the coordinator's socket."""

    def __init__(self, state_directory: Path, place: int) -> None:
        # The open uploads of a process come as one message.
        options = [("grpc.max_receive_message_length", _UNLIMITED)]
        self._channel = grpc.aio.insecure_channel(f"unix:{state_directory.absolute() / INGEST_SOCKET}", options)
        self._stub = ingest_pb2_grpc.IngestServiceStub(self._channel)
        self._place = place

    async def close(self) -> None:
        """Close the channel: the coordinator is told."""
        await self._channel.close()

    async def orders(self, port: int) -> AsyncIterator[pb.AttachResponse]:
        """Attach; what there is to do, until the coordinator ends. Raises StoreError: it does not answer."""
        try:
            async for order in self._stub.Attach(pb.AttachRequest(place=self._place, port=port)):
                yield order
        except grpc.aio.AioRpcError as error:
            raise _meaning(error) from None

    async def describe(self, token: str) -> Described | Counted:
        """See ``Office``."""
        request = pb.DescribeUploadRequest(token=token)
        found = await _answer(self._stub.DescribeUpload(request, timeout=_CALL_S))
        if found.counted:
            return Counted(8 * found.lanes)
        item = HashedUpload(found.upload, found.linear_hash)
        return Described(found.session, found.lanes, found.index, item, found.most)

    async def count(self, token: str) -> tuple[SignedReceipt, bool]:
        """See ``Office``."""
        request = pb.CountUploadRequest(token=token, place=self._place)
        found = await _answer(self._stub.CountUpload(request, timeout=_CALL_S))
        return convert.receipt_from_pb(found.receipt), found.adds

    async def handed_over(self, session: bytes) -> None:
        """The sum of a session lies in the directory, or there is none."""
        request = pb.HandOverRequest(session=session, place=self._place)
        await _answer(self._stub.HandOver(request, timeout=_CALL_S))


class IngestServer:
    """One ingest process of the coordinator whose state directory this is.

    Args:
        state_directory: the coordinator's, with its blobs.
        directory: what this process has there. Its lock is held.
        place: which of the processes this is, from 0.
        log: for events.
        max_concurrent_rpcs: calls of clients at a time.
    """

    def __init__(
        self, state_directory: Path, directory: IngestDirectory, place: int, log: EventLog, max_concurrent_rpcs: int
    ) -> None:
        keep_freed_memory()
        allow_many_connections()
        self._log = log
        self._directory = directory
        self._office = CoordinatorOffice(state_directory, place)
        self._desk = IngestDesk(directory.open_blobs(), self._office, self._report)
        self._server = public_server(
            log, max_concurrent_rpcs, SMALL_REQUEST_BYTES, ("grpc.max_connection_idle_ms", _IDLE_MS)
        )
        serve_uploads_only(UploadServicer(self._desk, log), self._server)

    async def start(self, socket: ServerSocket) -> int:
        """Listen; returns the port. No chunk is taken before ``serve`` runs. Raises RuntimeError."""
        port = add_port(self._server, socket)
        await self._server.start()
        self._log.event("ingest_serving", address=socket.address, port=port)
        return port

    async def serve(self, port: int) -> None:
        """Carry out what the coordinator orders until it is gone.

        Raises:
            StoreError: it does not answer, or the disk refuses at the beginning.
        """
        async for order in self._office.orders(port):
            await self._carry_out(order)

    async def stop(self) -> None:
        """Let calls end; what was acknowledged is durable and counted already."""
        await self._server.stop(_STOP_GRACE_S)
        await self._desk.close()
        await self._office.close()

    async def _carry_out(self, order: pb.AttachResponse) -> None:
        match order.WhichOneof("order"):
            case "open_uploads":
                await self._desk.sweep(set(order.open_uploads.tokens))
            case "discard":
                await self._desk.discard(order.discard)
            case "hand_over":
                await self._hand_over(order.hand_over)
            case "forget":
                await self._desk.forget(order.forget)
            case _:
                return  # a later version's: what it asks for costs time if it is not done

    async def _hand_over(self, session: bytes) -> None:
        try:
            total = await self._desk.hand_over(session)
            if total is not None:
                await asyncio.to_thread(self._directory.put_sum, session, total)
        except (StoreError, OSError) as error:
            self._report("hand_over_failed", session, type(error).__name__)
        await self._office.handed_over(session)

    def _report(self, event: str, session: bytes, reason: str) -> None:
        self._log.event(event, session=session.hex(), reason=reason)


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _meaning(error) from None


def _meaning(error: grpc.aio.AioRpcError) -> Exception:
    """A refusal as the coordinator said it, for the client; whatever else makes the client try again."""
    found = from_rpc_error(error)
    return found if isinstance(found, RemoteProtocolError) else StoreError("the coordinator does not answer")
