"""Requests that are no protobuf, refused like any other bad input.

gRPC decodes a request before a handler is called and answers UNKNOWN where that fails, with the parser's words and
without a reason: to a client that looks like a crash, to be tried again. Here the failure is handed on as a value.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.services.logs import EventLog
from secagg.services.refusals import Context, refuse

_OURS = "/secagg.v1."
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class _Unreadable:
    """Stands where the request would."""


class UnreadableRequests(grpc.aio.ServerInterceptor):
    """Gives every method of ours the refusal MALFORMED_MESSAGE for requests that do not decode."""

    def __init__(self, log: EventLog) -> None:
        self.log = log

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See ``grpc.aio.ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        called = handler_call_details.method
        if handler is None or handler.request_deserializer is None or not called.startswith(_OURS):
            return handler
        decode, encode = _tolerant(handler.request_deserializer), handler.response_serializer
        method = called.rpartition("/")[2]
        if handler.unary_unary is not None:
            one = self._one(method, cast("Callable[[Any, Context], Awaitable[Any]]", handler.unary_unary))
            return grpc.unary_unary_rpc_method_handler(cast("Any", one), decode, encode)
        if handler.unary_stream is not None:
            many = self._many(method, cast("Callable[[Any, Context], AsyncIterator[Any]]", handler.unary_stream))
            return grpc.unary_stream_rpc_method_handler(cast("Any", many), decode, encode)
        if handler.stream_unary is not None:
            taking = _taking(cast("Callable[[Any, Context], Awaitable[Any]]", handler.stream_unary))
            return grpc.stream_unary_rpc_method_handler(cast("Any", taking), decode, encode)
        return handler

    def _one(
        self, method: str, answer: Callable[[Any, Context], Awaitable[Any]]
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        async def checked(request: object, context: Context) -> object:
            if isinstance(request, _Unreadable):
                await refuse(self, method, _malformed(), context)
            return await answer(request, context)

        return checked

    def _many(
        self, method: str, answer: Callable[[Any, Context], AsyncIterator[Any]]
    ) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def checked(request: object, context: Context) -> AsyncIterator[object]:
            if isinstance(request, _Unreadable):
                await refuse(self, method, _malformed(), context)
            async for item in answer(request, context):
                yield item

        return checked


def _taking(answer: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
    async def readable(requests: AsyncIterator[object]) -> AsyncIterator[object]:
        async for request in requests:
            if isinstance(request, _Unreadable):
                raise _malformed()  # the method itself refuses with it
            yield request

    async def checked(requests: AsyncIterator[object], context: Context) -> object:
        return await answer(readable(requests), context)

    return checked


def _tolerant(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decoded(data: bytes) -> Any:  # noqa: ANN401 - a request, or what stands for it
        try:
            return decode(data)
        except DecodeError:
            return _Unreadable()

    return decoded


def _malformed() -> RemoteProtocolError:
    return RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "request: no protobuf message of this method")
