"""Errors as gRPC statuses with ``google.rpc.ErrorInfo``, and back.

The reason in ``ErrorInfo`` is the contract; the status code is for people and middleware that know nothing of
this protocol. An error of the protocol is final for the request that caused it, so a client retries only what
``from_rpc_error`` gives as None.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import assert_never

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from secagg.protocol.errors import LocalProtocolError, ProtocolError, RejectReason, RemoteProtocolError
from secagg.runtime.ports import StoreError, UploadError

DOMAIN = "secagg.v1"
STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
DETAILS_KEY = "grpc-status-details-bin"
MAX_DETAIL_CHARACTERS = 512
"""A peer chooses what a detail quotes; HTTP/2 stacks refuse headers of more than 8 KiB in all."""
_MAX_COMMITTED_BYTES = 2**63 - 1


@enum.unique
class UploadReason(enum.Enum):
    """Why a chunk was refused; the values are the texts of ``UploadError``, the names go over the wire."""

    UPLOAD_GAP = "the chunk leaves a gap"
    UPLOAD_BEYOND_LENGTH = "the chunk goes beyond the declared length"
    UPLOAD_CHUNK_DAMAGED = "the chunk has another CRC-32"
    UPLOAD_INCOMPLETE = "the upload is incomplete"
    UPLOAD_DIGEST_DIFFERS = "the bytes have another digest"
    UPLOAD_CHANGED = "the upload was begun with another length or digest"
    UPLOAD_UNKNOWN = "unknown upload"
    UPLOAD_BAD_TOKEN = "an upload token is 32 hexadecimal digits"  # noqa: S105 - a message
    UPLOAD_BAD_LENGTH = "an upload has a length and 32 bytes of digest"
    UPLOAD_REFUSED = "the upload was refused"
    """Any other text."""


def reject_code(reason: RejectReason) -> grpc.StatusCode:  # noqa: PLR0911 - one row for each code
    """The status code of a protocol error; exhaustive, so that a new reason does not compile without one."""
    match reason:
        case (
            RejectReason.MALFORMED_MESSAGE
            | RejectReason.WRONG_SESSION
            | RejectReason.BAD_KEY
            | RejectReason.WRONG_RECIPIENTS
            | RejectReason.WRONG_BOX_LENGTH
            | RejectReason.WRONG_BOX_ROOT
            | RejectReason.WRONG_LENGTH
            | RejectReason.WRONG_MISSING
            | RejectReason.TOO_FEW_NEIGHBOURS
            | RejectReason.WRONG_UPLOAD
            | RejectReason.WRONG_SHARES
            | RejectReason.UNSAFE_PARAMETERS
        ):
            return grpc.StatusCode.INVALID_ARGUMENT
        case RejectReason.UNKNOWN_SESSION:
            return grpc.StatusCode.NOT_FOUND
        case RejectReason.UNKNOWN_IDENTITY | RejectReason.NOT_IN_COHORT | RejectReason.OUTSIDE_ROSTER:
            return grpc.StatusCode.PERMISSION_DENIED
        case RejectReason.BAD_SIGNATURE:
            return grpc.StatusCode.UNAUTHENTICATED
        case RejectReason.EQUIVOCATION:
            return grpc.StatusCode.ALREADY_EXISTS
        case RejectReason.COHORT_FULL:
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        case (
            RejectReason.WRONG_PHASE
            | RejectReason.SESSION_OVER
            | RejectReason.WRONG_LOG_ROOT
            | RejectReason.ASYMMETRIC_EDGE
            | RejectReason.BELOW_MINIMUM
            | RejectReason.BELOW_POLICY
            | RejectReason.TOO_FEW_CONFIRMATIONS
            | RejectReason.ABORTED
            | RejectReason.LEFT_OUT
        ):
            return grpc.StatusCode.FAILED_PRECONDITION
        # What a client holds against the coordinator; were a coordinator to say it, it would be of itself.
        case (
            RejectReason.LOG_SIGNATURE
            | RejectReason.LOG_FORKED
            | RejectReason.LOG_ORDER
            | RejectReason.LOG_MISMATCH
            | RejectReason.OWN_ENTRY_MISSING
            | RejectReason.WITHHELD_BOXES
            | RejectReason.WRONG_RECEIPT
        ):
            return grpc.StatusCode.INTERNAL
        case _:
            assert_never(reason)


def upload_code(reason: UploadReason) -> grpc.StatusCode:
    """The status code of a refused chunk. DATA_LOSS: send it again; OUT_OF_RANGE: go on at ``committed_bytes``."""
    match reason:
        case UploadReason.UPLOAD_GAP:
            return grpc.StatusCode.OUT_OF_RANGE
        case UploadReason.UPLOAD_CHUNK_DAMAGED | UploadReason.UPLOAD_DIGEST_DIFFERS:
            return grpc.StatusCode.DATA_LOSS
        case UploadReason.UPLOAD_BEYOND_LENGTH | UploadReason.UPLOAD_BAD_TOKEN | UploadReason.UPLOAD_BAD_LENGTH:
            return grpc.StatusCode.INVALID_ARGUMENT
        case UploadReason.UPLOAD_CHANGED:
            return grpc.StatusCode.ALREADY_EXISTS
        case UploadReason.UPLOAD_UNKNOWN:
            return grpc.StatusCode.NOT_FOUND
        case UploadReason.UPLOAD_INCOMPLETE | UploadReason.UPLOAD_REFUSED:
            return grpc.StatusCode.FAILED_PRECONDITION
        case _:
            assert_never(reason)


def to_status(error: ProtocolError | UploadError | StoreError) -> status_pb2.Status:
    """The status of an error, for ``grpc_status.rpc_status.to_status`` and ``context.abort_with_status``.

    A LocalProtocolError keeps its reason under INTERNAL: the coordinator is at fault, not the caller. What a
    StoreError says stays here: it names paths and belongs into the operator's log.
    """
    match error:
        case LocalProtocolError():
            return _protocol_status(grpc.StatusCode.INTERNAL, error)
        case ProtocolError():
            return _protocol_status(reject_code(error.reason), error)
        case UploadError():
            reason = _upload_reason(error.reason)
            metadata = {"committed_bytes": str(error.committed_bytes)}
            return _status(upload_code(reason), reason.name, reason.value, metadata)
        case StoreError():
            return _status(grpc.StatusCode.UNAVAILABLE, STORE_UNAVAILABLE, "the coordinator's store is unavailable", {})
        case _:
            assert_never(error)


def from_rpc_error(error: grpc.RpcError) -> RemoteProtocolError | UploadError | None:
    """What a failed call means for the client.

    Returns:
        The error that the service named; MALFORMED_MESSAGE for a reason that this version does not know and for
        a refusal without a reason; None for a failure of transport or store, which is worth retrying.
    """
    info = _error_info(error)
    if info is None:
        return _without_reason(error.code())
    if info.reason == STORE_UNAVAILABLE:
        return None
    if info.reason in UploadReason.__members__:
        return _upload_error(UploadReason[info.reason], info.metadata)
    detail = _bounded(info.metadata.get("detail", ""))
    if info.reason in RejectReason.__members__:
        return RemoteProtocolError(RejectReason[info.reason], detail)
    return RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"status: unknown reason {_bounded(info.reason)}")


def _protocol_status(code: grpc.StatusCode, error: ProtocolError) -> status_pb2.Status:
    detail = _bounded(error.detail)
    message = error.reason.value + (f" ({detail})" if detail else "")
    return _status(code, error.reason.name, message, {"detail": detail} if detail else {})


def _status(code: grpc.StatusCode, reason: str, message: str, metadata: Mapping[str, str]) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    return status


def _upload_reason(text: str) -> UploadReason:
    try:
        return UploadReason(text)
    except ValueError:
        return UploadReason.UPLOAD_REFUSED


def _upload_error(reason: UploadReason, metadata: Mapping[str, str]) -> UploadError | RemoteProtocolError:
    text = metadata.get("committed_bytes", "")
    committed = int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else -1
    if not 0 <= committed <= _MAX_COMMITTED_BYTES:
        return RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "committed_bytes: expected a byte count")
    return UploadError(reason.value, committed)


def _error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo | None:
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    for key, value in metadata:
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN:
                    return info
        except DecodeError:
            return None
    return None


def _without_reason(code: grpc.StatusCode) -> RemoteProtocolError | None:
    match code:
        # Connections, timeouts, crashed handlers and limits on concurrent calls: gRPC's own, without details.
        case (
            grpc.StatusCode.UNAVAILABLE
            | grpc.StatusCode.DEADLINE_EXCEEDED
            | grpc.StatusCode.CANCELLED
            | grpc.StatusCode.ABORTED
            | grpc.StatusCode.INTERNAL
            | grpc.StatusCode.UNKNOWN
            | grpc.StatusCode.RESOURCE_EXHAUSTED
        ):
            return None
        case _:
            return RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"status: {code.name} without a reason")


def _bounded(text: str) -> str:
    """At most 512 characters that have a UTF-8 form."""
    return text[:MAX_DETAIL_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
