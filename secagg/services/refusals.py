"""Errors of the layers below as gRPC statuses, at one place."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import grpc.aio
from grpc_status import rpc_status

from secagg.identity.errors import IdentityFileError
from secagg.lora.errors import AdapterError
from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.runtime.ports import StoreError, UploadError
from secagg.services.logs import EventLog
from secagg.transcript.record import RecordError
from secagg.wire.status import to_status

_LINGER_S = 30.0

Context = grpc.aio.ServicerContext[Any, Any]


class HasLog(Protocol):
    """A servicer: it has an event log."""

    log: EventLog


ServicerT = TypeVar("ServicerT", bound=HasLog)
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
Method = Callable[[ServicerT, RequestT, Context], Awaitable[ResponseT]]

REFUSALS = (ProtocolError, UploadError, StoreError, OSError, RecordError, AdapterError, IdentityFileError)
"""What a handler may raise; anything else is a bug and shows as INTERNAL."""


def refusing(method: Method[ServicerT, RequestT, ResponseT]) -> Method[ServicerT, RequestT, ResponseT]:
    """A method with one answer, which ends with the status of an error of ours instead of raising it."""

    @functools.wraps(method)
    async def wrapped(servicer: ServicerT, request: RequestT, context: Context) -> ResponseT:
        try:
            return await method(servicer, request, context)
        except REFUSALS as error:
            await refuse(servicer, method.__name__, error, context)
            raise AssertionError("unreachable: abort raises") from None

    return wrapped


async def refuse(servicer: HasLog, method: str, error: Exception, context: Context) -> None:
    """End a call with the status of ``error``; the log gets the reason's name, nothing of the message."""
    reason = error.reason.name if isinstance(error, ProtocolError) else type(error).__name__
    servicer.log.event("refused", method=method, reason=reason)
    await context.abort_with_status(rpc_status.to_status(to_status(_of_the_wire(error))))


async def let_finish(request: AsyncIterator[object]) -> None:
    """Read what is still under way of a stream, and keep nothing of it, before a refusal is sent.

    A status that arrives while a client of ``grpc.aio`` sends is lost to it: its own write fails, and it says INTERNAL.
    """
    with suppress(TimeoutError, RemoteProtocolError):
        async with asyncio.timeout(_LINGER_S):
            async for _ in request:
                pass


def _of_the_wire(error: Exception) -> ProtocolError | UploadError | StoreError:
    match error:
        case ProtocolError() | UploadError() | StoreError():
            return error
        case OSError():
            return StoreError(type(error).__name__)
        case _:
            return RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, str(error))
