"""States, rows, events and effects of the coordinator machine.

The state is small and the same size for any cohort, but for the sets it has fixed; what a client sent is a row
of its own, so that an event costs the same however many clients there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from secagg.protocol.messages import AdvertiseKeys, ConfirmClose, Contribution, ShareKeys, UnmaskAnswer
from secagg.protocol.persist import Persistence
from secagg.protocol.phases import Phase
from secagg.protocol.rows import (
    DeadlinePassed,
    EntryPublished,
    FoldUploads,
    HeaderRow,
    LogRow,
    PhaseEnded,
    PublishEntry,
    RejectedRow,
    SetupRow,
    StagedRow,
    SumFolded,
    TakenRow,
    UploadsRefuted,
    UploadStaged,
)
from secagg.transcript.entries import AggregateFile
from secagg.transcript.statements import (
    AdvertiseStatement,
    ConfirmStatement,
    ContributionHeader,
    ShareStatement,
    Signed,
)


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
class ConfirmRow:
    """Accepted confirmation."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """Accepted answer, as the canonical bytes of its signed statement."""

    leaf: bytes


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
class SumRecovered:
    """Event: the sum is decoded and durable; root of the answers used, digests of sum, mean and what is merged.

    ``openings_file`` and ``pairs_file`` are the blobs that are published of how it was opened.
    """

    openings: bytes
    integer_sum: bytes
    mean: bytes
    aggregate: tuple[AggregateFile, ...]
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
class RecoverSum:
    """Effect: open the sum with the answers in the rows, then report SumRecovered or RecoveryFailed.

    It belongs to the Recovering state with the same ``used``: an earlier one that is carried out again does nothing.
    """

    used: int


VectorWork: TypeAlias = FoldUploads | RecoverSum
"""Effects that are work on vectors: what the runtime of pairwise sessions does itself."""

CoordinatorEffect: TypeAlias = PublishEntry | VectorWork

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
