"""Errors of the layers below as gRPC statuses, at one place."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc.aio
from grpc_status import rpc_status

from secagg.protocol.errors import ProtocolError, RejectReason, RemoteProtocolError
from secagg.runtime.ports import StoreError, UploadError
from secagg.services.logs import EventLog
from secagg.transcript.record import RecordError
from secagg.wire.status import protocol_status, store_status, upload_status

ServicerT = TypeVar("ServicerT")
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[ServicerT, RequestT, Context], Awaitable[ResponseT]]


class Refused(Exception):
    """Carries a status out of a handler."""


def status_of(error: Exception) -> Any:  # noqa: ANN401 - google.rpc.Status has no types here
    """The google.rpc.Status for an error of ours, or None if it is not one."""
    match error:
        case ProtocolError():
            return protocol_status(error)
        case UploadError():
            return upload_status(error)
        case StoreError() | OSError():
            return store_status()
        case RecordError():
            return protocol_status(RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, str(error)))
        case _:
            return None


def refusing(method: Method[ServicerT, RequestT, ResponseT]) -> Method[ServicerT, RequestT, ResponseT]:
    """A unary method that answers with the status of an error instead of raising it."""

    @functools.wraps(method)
    async def wrapped(servicer: ServicerT, request: RequestT, context: Context) -> ResponseT:
        try:
            return await method(servicer, request, context)
        except (ProtocolError, UploadError, StoreError, OSError, RecordError) as error:
            log_refusal(servicer, method.__name__, error)
            await context.abort_with_status(rpc_status.to_status(status_of(error)))
            raise AssertionError("abort_with_status returned") from None

    return wrapped


def log_refusal(servicer: object, method: str, error: Exception) -> None:
    """One line for each refusal: the method and the reason's name, nothing of the message."""
    log: EventLog = servicer.log  # type: ignore[attr-defined]
    reason = error.reason.name if isinstance(error, ProtocolError) else type(error).__name__
    log.event("refused", method=method, reason=reason)
