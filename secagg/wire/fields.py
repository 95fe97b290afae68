"""Fields of any protobuf message, checked: the refusal's detail starts with the proto field."""

from __future__ import annotations

from collections.abc import Sequence

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.merkle import DIGEST_BYTES
from secagg.transcript.record import RecordError
from secagg.transcript.statements import Signed
from secagg.v1 import aggregation_pb2 as pb

MAX_PROOF = 64
"""A consistency proof has at most a hash or two for each level of a tree of 2^63 leaves."""


def malformed(field: str, reason: str) -> RemoteProtocolError:
    """The refusal of a field."""
    return RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"{field}: {reason}")


def exactly(field: str, data: bytes, length_bytes: int) -> bytes:
    """``data`` if it is so long. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    if len(data) != length_bytes:
        raise malformed(field, f"expected {length_bytes} bytes, found {len(data)}")
    return data


def at_most(field: str, items: Sequence[object], most: int) -> None:
    """Raise RemoteProtocolError(MALFORMED_MESSAGE) for more than ``most`` items."""
    if len(items) > most:
        raise malformed(field, f"expected at most {most} items, found {len(items)}")


def signed(field: str, data: bytes) -> Signed:
    """A signed statement, whose signature is not checked. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    try:
        return Signed.from_bytes(data)
    except RecordError as error:
        raise malformed(field, str(error)) from None


def log_evidence(message: pb.LogEvidence, prefix: str) -> LogEvidence:
    """Evidence, nothing of which is verified; ``prefix`` stands before the field in a refusal.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE.
    """
    try:
        return LogEvidence(message.start, tuple(message.prefix), tuple(message.entries), message.checkpoint)
    except ValueError as error:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, f"{prefix}{error}") from None


def hashes(field: str, nodes: Sequence[bytes], most: int) -> tuple[bytes, ...]:
    """A proof or a path. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    at_most(field, nodes, most)
    return tuple(exactly(f"{field}[{i}]", node, DIGEST_BYTES) for i, node in enumerate(nodes))
