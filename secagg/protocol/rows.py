"""Rows, events and effects that the coordinator machines of all protocols share.

What a client sent is a row of its own, named by the client's roster position and by what it holds. The names are one
scheme for all protocols, so that whoever opens, publishes or deletes a session needs no protocol for it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from secagg.protocol.errors import LocalProtocolError, RejectReason
from secagg.protocol.phases import Phase
from secagg.transcript.statements import Signed


@enum.unique
class RowKind(enum.IntEnum):
    """What a row holds; a row is named by a position and its kind.

    The numbers are stored: one that was given to a kind stays with it.
    """

    ADVERTISE = 0
    SHARE = 1
    HEADER = 2
    STAGED = 3
    CONFIRM = 4
    ANSWER = 5
    REJECTED = 6
    LOG = 7
    SETUP = 8
    TAKEN = 9
    COMMITMENT = 10
    PARTS = 11
    HOLDING = 12
    OPENER = 13
    ATTESTATION = 14


_ROW_KINDS = 16


def row_key(position: int, kind: RowKind) -> int:
    """Name of a row.

    The position is that of a client in the roster; for ``RowKind.LOG`` that of the entry, for ``RowKind.SETUP`` 0, for
    ``RowKind.TAKEN`` the first 56 bits of a digest, for ``RowKind.OPENER`` and ``RowKind.ATTESTATION`` the place of an
    institution in the parameters.
    """
    return _ROW_KINDS * position + kind


def row_position(key: int, kind: RowKind) -> int | None:
    """The position in the name of a row of this kind, None for rows of other kinds."""
    return key // _ROW_KINDS if key % _ROW_KINDS == kind else None


@dataclass(frozen=True, slots=True)
class HeaderRow:
    """Accepted header; its upload may still be on the way."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class StagedRow:
    """The upload named in the header is durable."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class TakenRow:
    """A digest that the header of this roster position signed: no other header may sign it."""

    position: int


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """The client is left out of the sum, for the reason of this name."""

    reason: str


@dataclass(frozen=True, slots=True)
class LogRow:
    """One published entry, and where in the log it stands."""

    entry: bytes
    index: int


@dataclass(frozen=True, slots=True)
class SetupRow:
    """What a session was opened with, beside its parameters: SHA-256 names of blobs, and the signed roster head.

    ``roster`` is the roster's lines, each ended by a newline; ``layout`` and ``adapter`` are canonical JSON. One-shot
    sessions also have the ``cards`` of the institutions that open the sum, in the order of the parameters, and those
    with a key authority the public encryption ``context``. ``fixed`` are the tensors that the merge needs to be the
    same for everybody, a safetensors file; ``contributors`` the identities that alone may take part, 32 bytes each,
    where the session follows another. What there is not is empty.
    """

    roster: bytes
    roster_head: bytes
    roster_signature: bytes
    layout: bytes
    adapter: bytes
    cards: tuple[bytes, ...] = ()
    context: bytes = b""
    fixed: bytes = b""
    contributors: bytes = b""


OTHER_CONTRIBUTORS = "other contributors than the first session's"
"""Why a coordinator aborts a session that follows another, as its abort entry says it."""

AnyRows: TypeAlias = Mapping[int, object]
"""The rows of a session of any protocol."""

RowT = TypeVar("RowT")


def find(rows: AnyRows, position: int, kind: RowKind, row_type: type[RowT]) -> RowT | None:
    """The row of this position and kind, or None."""
    row = rows.get(row_key(position, kind))
    return row if isinstance(row, row_type) else None


def require(rows: AnyRows, position: int, kind: RowKind, row_type: type[RowT]) -> RowT:
    """The row of this position and kind, which must be there.

    Raises:
        LocalProtocolError: it is not; the store lost something that was accepted.
    """
    row = find(rows, position, kind, row_type)
    if row is None:
        raise LocalProtocolError(RejectReason.WRONG_PHASE, f"no {row_type.__name__} at position {position}")
    return row


def log_size(rows: AnyRows) -> int:
    """How many of the session's entries the log has taken."""
    size = 0
    while row_key(size, RowKind.LOG) in rows:
        size += 1
    return size


@dataclass(frozen=True, slots=True)
class UploadStaged:
    """Event: the masked input of this identity is durable, with this SHA-256."""

    identity: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Event: the deadline of the current phase may have passed."""


@dataclass(frozen=True, slots=True)
class PhaseEnded:
    """Event: the operator ends this phase before its deadline."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class EntryPublished:
    """Event: the session's entry at this position stands in the log, at this index, under a cosigned checkpoint."""

    position: int
    index: int


@dataclass(frozen=True, slots=True)
class SumFolded:
    """Event: the accepted uploads are added up, as their linear hashes say; SHA-256 of the durable limb sum."""

    limb_sum: bytes


@dataclass(frozen=True, slots=True)
class UploadsRefuted:
    """Event: the uploads of these indices do not have the linear hash that their senders signed."""

    indices: tuple[int, ...]


CommonEvent: TypeAlias = UploadStaged | DeadlinePassed | PhaseEnded | EntryPublished
"""What happens in sessions of every protocol."""


@dataclass(frozen=True, slots=True)
class PublishEntry:
    """Effect: append this entry at this position of the session's log, then report EntryPublished."""

    position: int
    entry: bytes


@dataclass(frozen=True, slots=True)
class FoldUploads:
    """Effect: add up the uploads of these indices, check their hashes, then report SumFolded or UploadsRefuted."""

    accepted: tuple[int, ...]
