"""States, rows, events and effects of the coordinator machine.

The state is small and the same size for any cohort, but for the sets it has fixed; what a client sent is a row
of its own, so that an event costs the same however many clients there are.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from secagg.protocol.messages import AdvertiseKeys, ConfirmClose, Contribution, ShareKeys, UnmaskAnswer
from secagg.protocol.persist import Persistence
from secagg.transcript.statements import (
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    ShareStatement,
    Signed,
)


@enum.unique
class Phase(enum.Enum):
    """What clients see of a session's progress."""

    ADVERTISE_KEYS = "advertise-keys"
    SHARE_KEYS = "share-keys"
    MASKED_INPUT = "masked-input"
    CONSISTENCY_CHECK = "consistency-check"
    UNMASK = "unmask"
    FINISHED = "finished"
    ABORTED = "aborted"


@enum.unique
class RowKind(enum.IntEnum):
    """What a client's row holds; a row is named by roster position and kind."""

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


_ROW_KINDS = 16


def row_key(position: int, kind: RowKind) -> int:
    """Name of a row.

    For ``RowKind.LOG`` the position is that of the entry, for ``RowKind.SETUP`` 0, for ``RowKind.TAKEN`` the first 56
    bits of a digest.
    """
    return _ROW_KINDS * position + kind


def row_position(key: int, kind: RowKind) -> int | None:
    """The position in the name of a row of this kind, None for rows of other kinds."""
    return key // _ROW_KINDS if key % _ROW_KINDS == kind else None


@dataclass(frozen=True, slots=True)
class AdvertiseRow:
    """Accepted keys of one client."""

    signed: Signed
    mask_public: bytes
    share_public: bytes


@dataclass(frozen=True, slots=True)
class ShareRow:
    """Accepted boxes of one client; they lie in a blob.

    ``hashes`` are the leaf hashes (32 bytes each, by recipient), ``commitments`` what was promised to each recipient.
    """

    signed: Signed
    hashes: bytes
    commitments: tuple[bytes, ...]
    blob: bytes


@dataclass(frozen=True, slots=True)
class HeaderRow:
    """Accepted header; its upload may still be on the way."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class StagedRow:
    """The upload named in the header is durable."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class ConfirmRow:
    """Accepted confirmation."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """Accepted answer, as the canonical bytes of its signed statement."""

    leaf: bytes


@dataclass(frozen=True, slots=True)
class TakenRow:
    """A digest that the header of this roster position signed, of its upload or of its linear hash."""

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

    ``roster`` is the roster's lines, each ended by a newline; ``layout`` and ``adapter`` are canonical JSON.
    """

    roster: bytes
    roster_head: bytes
    roster_signature: bytes
    layout: bytes
    adapter: bytes


ClientRow: TypeAlias = AdvertiseRow | ShareRow | HeaderRow | TakenRow | StagedRow | ConfirmRow | AnswerRow | RejectedRow
Row: TypeAlias = ClientRow | LogRow | SetupRow
Rows: TypeAlias = Mapping[int, Row]


@dataclass(frozen=True, slots=True)
class Cohort:
    """U1 as logged: roster positions in order of index, root of the list, degree and threshold."""

    positions: tuple[int, ...]
    root: bytes
    degree: int
    threshold: int


@dataclass(frozen=True, slots=True)
class Advertising:
    """Collects keys."""

    deadline_s: int
    received: int


@dataclass(frozen=True, slots=True)
class Sharing:
    """Collects boxes from U1."""

    deadline_s: int
    cohort: Cohort
    received: int


@dataclass(frozen=True, slots=True)
class Collecting:
    """Collects headers and uploads from U2 (``present``: indices)."""

    deadline_s: int
    cohort: Cohort
    present: tuple[int, ...]
    shared: bytes
    staged: int


@dataclass(frozen=True, slots=True)
class Folding:
    """The set is fixed but for clients that lied about their upload; the runtime adds up and checks the hashes."""

    cohort: Cohort
    present: tuple[int, ...]
    shared: bytes
    accepted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Confirming:
    """Collects signatures over the close entry from U3 (``accepted``: indices)."""

    deadline_s: int
    cohort: Cohort
    present: tuple[int, ...]
    accepted: tuple[int, ...]
    close: bytes
    confirmed: int


@dataclass(frozen=True, slots=True)
class Unmasking:
    """Collects answers. ``tried`` is the number of answers with which recovery failed before."""

    deadline_s: int
    cohort: Cohort
    present: tuple[int, ...]
    accepted: tuple[int, ...]
    close: bytes
    confirmed: int
    answered: int
    tried: int


@dataclass(frozen=True, slots=True)
class Recovering:
    """The runtime reconstructs seeds, removes masks and decodes, from the first ``used`` answers or more.

    Answers that arrive meanwhile are taken: if recovery fails they decide whether to try again.
    """

    unmasking: Unmasking
    used: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The result is logged. ``openings_file`` and ``pairs_file`` are blobs: what is published of how it was opened."""

    cohort: Cohort
    present: tuple[int, ...]
    accepted: tuple[int, ...]
    integer_sum: bytes
    mean: bytes
    openings_file: bytes
    pairs_file: bytes
    ended_at_s: int


@dataclass(frozen=True, slots=True)
class Aborted:
    """The session ended without a result."""

    reason: str
    ended_at_s: int


Lasting: TypeAlias = (
    Advertising | Sharing | Collecting | Folding | Confirming | Unmasking | Recovering | Finished | Aborted
)


@dataclass(frozen=True, slots=True)
class Publishing:
    """An entry is fixed and being published; only when the log has it does ``then`` begin."""

    entry: bytes
    position: int
    then: Lasting


CoordinatorState: TypeAlias = Lasting | Publishing


@dataclass(frozen=True, slots=True)
class SharesStored:
    """Event: a ShareKeys message whose boxes lie, concatenated in order, in this blob."""

    message: ShareKeys
    blob: bytes


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


@dataclass(frozen=True, slots=True)
class SumRecovered:
    """Event: the sum is decoded and durable; root of the answers used, digests of sum, mean and merged adapter.

    ``openings_file`` and ``pairs_file`` are the blobs that are published of how it was opened.
    """

    openings: bytes
    integer_sum: bytes
    mean: bytes
    adapter_model: bytes
    adapter_config: bytes
    openings_file: bytes
    pairs_file: bytes


@dataclass(frozen=True, slots=True)
class RecoveryFailed:
    """Event: the answers so far do not open the sum."""

    reason: str


CoordinatorEvent: TypeAlias = (
    AdvertiseKeys
    | SharesStored
    | Contribution
    | UploadStaged
    | ConfirmClose
    | UnmaskAnswer
    | DeadlinePassed
    | PhaseEnded
    | EntryPublished
    | SumFolded
    | UploadsRefuted
    | SumRecovered
    | RecoveryFailed
)


@dataclass(frozen=True, slots=True)
class PublishEntry:
    """Effect: append this entry at this position of the session's log, then report EntryPublished."""

    position: int
    entry: bytes


@dataclass(frozen=True, slots=True)
class FoldUploads:
    """Effect: add up the uploads of these indices, check their hashes, then report SumFolded or UploadsRefuted."""

    accepted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RecoverSum:
    """Effect: open the sum with the answers in the rows, then report SumRecovered or RecoveryFailed.

    It belongs to the Recovering state with the same ``used``: an earlier one that is carried out again does nothing.
    """

    used: int


CoordinatorEffect: TypeAlias = PublishEntry | FoldUploads | RecoverSum

COORDINATOR_PERSISTENCE = Persistence(
    Advertising,
    Sharing,
    Collecting,
    Folding,
    Confirming,
    Unmasking,
    Recovering,
    Finished,
    Aborted,
    Publishing,
    Cohort,
    AdvertiseRow,
    ShareRow,
    HeaderRow,
    TakenRow,
    StagedRow,
    ConfirmRow,
    AnswerRow,
    RejectedRow,
    LogRow,
    SetupRow,
    PublishEntry,
    FoldUploads,
    RecoverSum,
    Signed,
    AdvertiseStatement,
    ShareStatement,
    ContributionHeader,
    ConfirmStatement,
)


def phase_of(state: CoordinatorState) -> Phase:
    """The phase that clients are told; while an entry is being published, the phase that it ends."""
    match state:
        case Advertising():
            return Phase.ADVERTISE_KEYS
        case Sharing():
            return Phase.SHARE_KEYS
        case Collecting() | Folding():
            return Phase.MASKED_INPUT
        case Confirming():
            return Phase.CONSISTENCY_CHECK
        case Unmasking() | Recovering():
            return Phase.UNMASK
        case Finished():
            return Phase.FINISHED
        case Aborted():
            return Phase.ABORTED
        case Publishing(_, _, then):
            return _PHASE_BEFORE[phase_of(then)]


_PHASE_BEFORE = {
    Phase.ADVERTISE_KEYS: Phase.ADVERTISE_KEYS,
    Phase.SHARE_KEYS: Phase.ADVERTISE_KEYS,
    Phase.MASKED_INPUT: Phase.SHARE_KEYS,
    Phase.CONSISTENCY_CHECK: Phase.MASKED_INPUT,
    Phase.UNMASK: Phase.UNMASK,
    Phase.FINISHED: Phase.UNMASK,
    Phase.ABORTED: Phase.UNMASK,
}


def deadline_of(state: CoordinatorState) -> int | None:
    """When the current phase ends by itself, in seconds since the epoch; None where no clock runs."""
    match state:
        case Advertising() | Sharing() | Collecting() | Confirming() | Unmasking():
            return state.deadline_s
        case _:
            return None
