"""States, rows, events and effects of the coordinator machine of one-shot sessions.

As in pairwise sessions, what a client sent is a row of its own. Sets are tuples of roster positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from secagg.protocol.one_shot.messages import Attested, CommitContribution, OneShotContribution
from secagg.protocol.persist import Persistence
from secagg.protocol.phases import Phase
from secagg.protocol.rows import (
    DeadlinePassed,
    EntryPublished,
    HeaderRow,
    LogRow,
    PhaseEnded,
    PublishEntry,
    RejectedRow,
    SetupRow,
    StagedRow,
    TakenRow,
    UploadsRefuted,
    UploadStaged,
)
from secagg.transcript.entries import AggregateFile
from secagg.transcript.statements import Attestation, AuthorityAnswer, MemberAnswer, OneShotHeader, Signed


@dataclass(frozen=True, slots=True)
class CommitmentRow:
    """A header that was signed before anything was sent (sessions with a key authority)."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class PartsRow:
    """The sealed parts of a contribution: one blob, concatenated in order, and how long each is."""

    blob: bytes
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HoldingRow:
    """Which members said that they hold the share of a contribution, and which that they cannot: bits by place."""

    held: int
    refused: int


@dataclass(frozen=True, slots=True)
class OpenerRow:
    """The answer of a member (the position is its place), or of the authority (position 0)."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class AttestationRow:
    """The attestation of an attestor; the position is its place in the parameters."""

    signed: Signed


ContributionRow: TypeAlias = CommitmentRow | HeaderRow | PartsRow | TakenRow | StagedRow | HoldingRow | RejectedRow
Row: TypeAlias = ContributionRow | OpenerRow | AttestationRow | LogRow | SetupRow
Rows: TypeAlias = Mapping[int, Row]


@dataclass(frozen=True, slots=True)
class Committing:
    """Collects signed headers, before any of what they name is sent (key authority)."""

    deadline_s: int
    received: int


@dataclass(frozen=True, slots=True)
class Collecting:
    """Collects headers, parts and uploads; at most ``expected`` of them can come."""

    deadline_s: int
    expected: int
    staged: int


@dataclass(frozen=True, slots=True)
class Settling:
    """No more uploads; waits until every member has said of each contribution whether it holds the share.

    ``settled`` counts those of the ``staged`` of which all have.
    """

    deadline_s: int
    staged: int
    settled: int


@dataclass(frozen=True, slots=True)
class Folding:
    """The set is fixed but for clients that lied about their upload; the runtime adds up and checks the hashes.

    ``members`` are those that hold the shares of all ``accepted``; empty where an authority opens.
    """

    accepted: tuple[int, ...]
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Opening:
    """The close is logged; collects answers. ``tried`` is the number of answers with which recovery failed before."""

    deadline_s: int
    accepted: tuple[int, ...]
    members: tuple[int, ...]
    close: bytes
    attested: int
    answered: int
    tried: int


@dataclass(frozen=True, slots=True)
class Recovering:
    """The runtime removes the mask and decodes, from the first ``used`` answers or more."""

    opening: Opening
    used: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The result is logged. The files are blobs: what is published of how the sum was opened."""

    accepted: tuple[int, ...]
    integer_sum: bytes
    mean: bytes
    openings_file: bytes
    attestations_file: bytes
    secret_sum: bytes
    ended_at_s: int


@dataclass(frozen=True, slots=True)
class Aborted:
    """The session ended without a result."""

    reason: str
    ended_at_s: int


Lasting: TypeAlias = Committing | Collecting | Settling | Folding | Opening | Recovering | Finished | Aborted


@dataclass(frozen=True, slots=True)
class Publishing:
    """An entry is fixed and being published; only when the log has it does ``then`` begin."""

    entry: bytes
    position: int
    then: Lasting


OneShotState: TypeAlias = Lasting | Publishing


@dataclass(frozen=True, slots=True)
class ContributionStored:
    """Event: a contribution whose parts lie, concatenated in order, in this blob."""

    message: OneShotContribution
    blob: bytes


@dataclass(frozen=True, slots=True)
class HoldingsReported:
    """Event: a member said of these contributions (roster positions) that it holds its share, or that it cannot."""

    member: int
    held: tuple[int, ...]
    refused: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ContributionsFolded:
    """Event: the accepted uploads are added up, as their linear hashes say.

    SHA-256 of the durable limb sum; with a key authority also of the summed ciphertext, else empty.
    """

    limb_sum: bytes
    ciphertext_sum: bytes


@dataclass(frozen=True, slots=True)
class CiphertextsRefuted:
    """Event: what these contributions encrypted is no ciphertext under the session's key."""

    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OpenerAnswered:
    """Event: the answer of a member or of the authority."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class SumRecovered:
    """Event: the sum is decoded and durable; root of the answers used, digests of sum, mean and what is merged.

    The files are blobs: what is published of how the sum was opened.
    """

    openings: bytes
    integer_sum: bytes
    mean: bytes
    aggregate: tuple[AggregateFile, ...]
    secret_sum: bytes
    used: tuple[int, ...]
    dissenting: tuple[int, ...]
    openings_file: bytes
    attestations_file: bytes


@dataclass(frozen=True, slots=True)
class RecoveryFailed:
    """Event: the answers so far do not open the sum, or what they open is no sum of encoded vectors."""

    reason: str


OneShotEvent: TypeAlias = (
    CommitContribution
    | ContributionStored
    | UploadStaged
    | HoldingsReported
    | Attested
    | OpenerAnswered
    | DeadlinePassed
    | PhaseEnded
    | EntryPublished
    | ContributionsFolded
    | UploadsRefuted
    | CiphertextsRefuted
    | SumRecovered
    | RecoveryFailed
)


@dataclass(frozen=True, slots=True)
class FoldContributions:
    """Effect: add up what these contributions sent, check their hashes, then report what came of it."""

    accepted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AskOpeners:
    """Effect: ask the named members, or the authority, for their answers to this close, until the sum is open."""

    close: bytes


@dataclass(frozen=True, slots=True)
class RecoverSum:
    """Effect: open the sum with the answers in the rows, then report SumRecovered or RecoveryFailed.

    It belongs to the Recovering state with the same ``used``: an earlier one that is carried out again does nothing.
    """

    used: int


OneShotEffect: TypeAlias = PublishEntry | FoldContributions | AskOpeners | RecoverSum

ONE_SHOT_PERSISTENCE = Persistence(
    Committing,
    Collecting,
    Settling,
    Folding,
    Opening,
    Recovering,
    Finished,
    Aborted,
    Publishing,
    CommitmentRow,
    HeaderRow,
    PartsRow,
    TakenRow,
    StagedRow,
    HoldingRow,
    RejectedRow,
    OpenerRow,
    AttestationRow,
    LogRow,
    SetupRow,
    PublishEntry,
    FoldContributions,
    AskOpeners,
    RecoverSum,
    Signed,
    OneShotHeader,
    MemberAnswer,
    AuthorityAnswer,
    Attestation,
)


def phase_of(state: OneShotState) -> Phase:
    """The phase that clients are told; while an entry is being published, the phase that it ends."""
    match state:
        case Committing():
            return Phase.COMMIT
        case Collecting():
            return Phase.MASKED_INPUT
        case Settling():
            return Phase.HOLD_SHARES
        case Folding():
            return Phase.HOLD_SHARES if state.members else Phase.MASKED_INPUT
        case Opening() | Recovering():
            return Phase.OPEN_SUM
        case Finished():
            return Phase.FINISHED
        case Aborted():
            return Phase.ABORTED
        case Publishing(_, position, then):
            return phase_of(then) if position == 0 else _ended_by(then)


def _ended_by(state: Lasting) -> Phase:
    """The phase that goes on until the entry that begins ``state`` is in the log."""
    match state:
        case Collecting():
            return Phase.COMMIT
        case Opening():
            return Phase.HOLD_SHARES if state.members else Phase.MASKED_INPUT
        case _:
            return Phase.OPEN_SUM


def deadline_of(state: OneShotState) -> int | None:
    """When the current phase ends by itself, in seconds since the epoch; None where no clock runs."""
    match state:
        case Committing() | Collecting() | Settling() | Opening():
            return state.deadline_s
        case _:
            return None
