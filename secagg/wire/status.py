"""Errors as gRPC statuses with ``google.rpc.ErrorInfo``, and back.

The reason in ``ErrorInfo`` is the contract; the status code is for people and middleware that know nothing of
this protocol. An error of the protocol is final for the request that caused it, so a client retries only what
``from_rpc_error`` gives as None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, assert_never

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from secagg.protocol.errors import LocalProtocolError, ProtocolError, RejectReason, RemoteProtocolError
from secagg.runtime.ports import StoreError, UploadError

Status: TypeAlias = Any
"""``google.rpc.status_pb2.Status``; googleapis-common-protos is not typed."""

DOMAIN = "secagg.v1"
DETAILS_KEY = "grpc-status-details-bin"
MAX_DETAIL_BYTES = 512
"""A peer chooses what a detail quotes, and it travels three times; stacks refuse headers above 8 KiB in all."""


# The texts of UploadError (secagg/runtime/memory.py, secagg/store); a test holds them together.
_UPLOAD_REASONS: Mapping[str, RejectReason] = {
    "the chunk leaves a gap": RejectReason.UPLOAD_OFFSET_MISMATCH,
    "the upload is incomplete": RejectReason.UPLOAD_OFFSET_MISMATCH,
    "the chunk has another CRC-32": RejectReason.UPLOAD_CHECKSUM_MISMATCH,
    "the bytes have another digest": RejectReason.UPLOAD_CHECKSUM_MISMATCH,
    "the chunk goes beyond the declared length": RejectReason.WRONG_UPLOAD,
    "the upload was begun with another length or digest": RejectReason.EQUIVOCATION,
    "unknown upload": RejectReason.UNKNOWN_UPLOAD,
    "an upload token is 32 hexadecimal digits": RejectReason.MALFORMED_MESSAGE,
    "an upload has a length and 32 bytes of digest": RejectReason.MALFORMED_MESSAGE,
}


def reject_code(reason: RejectReason) -> grpc.StatusCode:  # noqa: PLR0911 - one for each code
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
            | RejectReason.WRONG_LINEAR_HASH
            | RejectReason.CHUNK_TOO_LARGE
            | RejectReason.WRONG_SHARES
            | RejectReason.UNSAFE_PARAMETERS
            | RejectReason.UNSAFE_NOISE
            | RejectReason.WRONG_PARTS
            | RejectReason.WRONG_OPENING
            | RejectReason.WRONG_CIPHERTEXT
            | RejectReason.CHUNK_TOO_LARGE
        ):
            return grpc.StatusCode.INVALID_ARGUMENT
        case RejectReason.UNKNOWN_SESSION | RejectReason.UNKNOWN_UPLOAD:
            return grpc.StatusCode.NOT_FOUND
        case (
            RejectReason.UNKNOWN_IDENTITY
            | RejectReason.NOT_IN_COHORT
            | RejectReason.OUTSIDE_ROSTER
            | RejectReason.NOT_SERVED
            | RejectReason.NOT_ADMITTED
        ):
            return grpc.StatusCode.PERMISSION_DENIED
        case RejectReason.BAD_SIGNATURE:
            return grpc.StatusCode.UNAUTHENTICATED
        case RejectReason.EQUIVOCATION | RejectReason.DOUBLED_UPLOAD:
            return grpc.StatusCode.ALREADY_EXISTS
        case RejectReason.COHORT_FULL | RejectReason.TOO_MANY_WATCHERS:
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        # Go on at ``committed_bytes``; send it again.
        case RejectReason.UPLOAD_OFFSET_MISMATCH:
            return grpc.StatusCode.OUT_OF_RANGE
        case RejectReason.UPLOAD_CHECKSUM_MISMATCH:
            return grpc.StatusCode.DATA_LOSS
        case RejectReason.STORE_UNAVAILABLE:
            return grpc.StatusCode.UNAVAILABLE
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
            | RejectReason.WRONG_PROTOCOL
            | RejectReason.SHARE_NOT_HELD
            | RejectReason.NOT_COMMITTED
            | RejectReason.NOT_NAMED
            | RejectReason.TOO_FEW_ATTESTATIONS
            | RejectReason.OPENED_BEFORE
            | RejectReason.OTHER_CONTRIBUTORS
            | RejectReason.OTHER_ADAPTER
        ):
            return grpc.StatusCode.FAILED_PRECONDITION
        # What a client holds against the coordinator; were a coordinator to say it, it would be of itself.
        case (
            RejectReason.LOG_SIGNATURE
            | RejectReason.LOG_UNWITNESSED
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


def to_status(error: ProtocolError | UploadError | StoreError) -> Status:
    """The status of an error, for ``grpc_status.rpc_status.to_status`` and ``context.abort_with_status``.

    A LocalProtocolError keeps its reason under INTERNAL: the coordinator is at fault, not the caller. What a
    StoreError says stays here: it names paths and belongs into the operator's log.
    """
    match error:
        case LocalProtocolError():
            return _status(grpc.StatusCode.INTERNAL, error.reason, error.detail)
        case ProtocolError():
            return _status(reject_code(error.reason), error.reason, error.detail)
        case UploadError():
            reason = _UPLOAD_REASONS.get(error.reason, RejectReason.WRONG_UPLOAD)
            committed = str(error.committed_bytes)
            return _status(reject_code(reason), reason, error.reason, committed_bytes=committed)
        case StoreError():
            return _status(grpc.StatusCode.UNAVAILABLE, RejectReason.STORE_UNAVAILABLE, "")
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
    reason = RejectReason.__members__.get(info.reason)
    detail = _bounded(info.metadata.get("detail", ""))
    if reason is None:
        return RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"status: unknown reason {_bounded(info.reason)}")
    if reason is RejectReason.STORE_UNAVAILABLE:
        return None
    if "committed_bytes" in info.metadata:
        return _upload_error(detail or reason.value, info.metadata["committed_bytes"])
    return RemoteProtocolError(reason, detail)


def _status(code: grpc.StatusCode, reason: RejectReason, detail: str, **metadata: str) -> Status:
    detail = _bounded(detail)
    message = reason.value
    if detail:
        message, metadata = f"{message} ({detail})", {**metadata, "detail": detail}
    info = error_details_pb2.ErrorInfo(reason=reason.name, domain=DOMAIN, metadata=metadata)
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(info)
    return status


def _upload_error(text: str, committed_bytes: str) -> UploadError | RemoteProtocolError:
    # At most 18 digits: int64, and no long conversion of what a peer sent.
    if not (committed_bytes.isascii() and committed_bytes.isdigit() and len(committed_bytes) <= 18):
        return RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "committed_bytes: expected a byte count")
    return UploadError(text, int(committed_bytes))


def _error_info(error: grpc.RpcError) -> Any:  # noqa: ANN401 - google.rpc.ErrorInfo is not typed
    metadata: Any = error.trailing_metadata()
    for key, value in metadata or ():
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
    """The beginning of ``text``, at most 512 bytes in UTF-8."""
    return text[:MAX_DETAIL_BYTES].encode("utf-8", "replace")[:MAX_DETAIL_BYTES].decode("utf-8", "ignore")
