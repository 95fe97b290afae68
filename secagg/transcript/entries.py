"""Log entries: rosters, and what is published of a session, in order, before anybody acts on it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, TypeAlias

from secagg.arith.fields import FieldLayout
from secagg.arith.flatten import flattened_bound, flattened_dimension
from secagg.transcript.note import NoteError, check_name
from secagg.transcript.record import (
    Record,
    RecordError,
    decode_value,
    fraction_field,
    hex_field,
    integer_field,
    record_field,
    text_field,
)
from secagg.transcript.roster import RosterHead

SESSION_ID_BYTES = 16
MAX_ORIGIN_BYTES = 255
MAX_COHORT = 2**20
MAX_DIMENSION = 2**31
_YEAR_S = 366 * 24 * 3600


@dataclass(frozen=True, slots=True)
class NoFlattening(Record):
    """Vectors are quantised as they are."""

    TYPE: ClassVar[str] = "none"


@dataclass(frozen=True, slots=True)
class Flattening(Record):
    """Vectors pass through a public random orthonormal map first; ``seed`` fixes it."""

    TYPE: ClassVar[str] = "hadamard"
    seed: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class Encoding(Record):
    """How a vector becomes lanes."""

    TYPE: ClassVar[str] = "encoding"
    dimension: int = integer_field(1, MAX_DIMENSION)
    value_bits: int = integer_field(2, 32)
    max_contributors: int = integer_field(2, MAX_COHORT)
    usable_bits: int = integer_field(1, 64)
    clip_norm: Fraction = fraction_field()
    flatten: NoFlattening | Flattening = record_field(NoFlattening, Flattening)

    def check(self) -> None:
        """What could overflow, or has no scale, cannot be constructed."""
        if self.clip_norm <= 0:
            raise RecordError("encoding.clip_norm", "must be positive")
        try:
            self.field_layout()
        except ValueError as error:
            raise RecordError("encoding", str(error)) from None

    def field_layout(self) -> FieldLayout:
        """Fields and lanes of what is packed: the vector, padded to whole blocks where it is flattened."""
        packed = self.dimension
        if isinstance(self.flatten, Flattening):
            packed = flattened_dimension(self.dimension)
        return FieldLayout(self.value_bits, self.max_contributors, packed, self.usable_bits)

    def bound(self) -> Fraction:
        """The largest magnitude of a coordinate that is represented."""
        if isinstance(self.flatten, Flattening):
            return flattened_bound(self.clip_norm, self.dimension)
        return self.clip_norm


@dataclass(frozen=True, slots=True)
class NoDifferentialPrivacy(Record):
    """No noise is added, and the record says so."""

    TYPE: ClassVar[str] = "none"


@dataclass(frozen=True, slots=True)
class Deadlines(Record):
    """How long each phase stays open, in seconds."""

    TYPE: ClassVar[str] = "deadlines"
    advertise_s: int = integer_field(1, _YEAR_S)
    share_s: int = integer_field(1, _YEAR_S)
    upload_s: int = integer_field(1, _YEAR_S)
    confirm_s: int = integer_field(1, _YEAR_S)
    unmask_s: int = integer_field(1, _YEAR_S)


@dataclass(frozen=True, slots=True)
class SessionOpen(Record):
    """All parameters of a pairwise session. Its digest is bound into everything a client signs.

    ``log`` is the origin of the log that this entry stands in; all entries of the session stand in the same one.
    ``max_corrupt`` is the absolute number of contributors assumed to collude with the coordinator.
    ``expected_dropout`` is the fraction assumed to drop out by themselves; it decides availability only.
    ``coordinator`` is the key that signs the log; ``registrar`` the key that signed the roster.
    """

    TYPE: ClassVar[str] = "session-open"
    session: bytes = hex_field(SESSION_ID_BYTES)
    protocol: str = text_field(16, "pairwise")
    coordinator: bytes = hex_field(32)
    log: str = text_field(MAX_ORIGIN_BYTES)
    opened_at_s: int = integer_field(0)
    base_model: str = text_field(1024)
    base_model_digest: bytes = hex_field(32)
    adapter: bytes = hex_field(32)
    layout: bytes = hex_field(32)
    merge: str = text_field(16, "factors")
    encoding: Encoding = record_field(Encoding)
    min_contributors: int = integer_field(2, MAX_COHORT)
    max_corrupt: int = integer_field(0, MAX_COHORT)
    expected_dropout: Fraction = fraction_field()
    roster: bytes = hex_field(32)
    roster_size: int = integer_field(1, 2**40)
    registrar: bytes = hex_field(32)
    deadlines: Deadlines = record_field(Deadlines)
    noise: NoDifferentialPrivacy = record_field(NoDifferentialPrivacy)
    retention_s: int = integer_field(0, 10 * _YEAR_S)

    def check(self) -> None:
        """A sum must hide each contribution among at least two that nobody corrupt knows."""
        try:
            check_name(self.log, "log")
        except NoteError as error:
            raise RecordError("session-open.log", error.reason) from None
        if self.min_contributors - self.max_corrupt < 2:
            raise RecordError("session-open.min_contributors", "must exceed max_corrupt by at least 2")
        if self.min_contributors > self.encoding.max_contributors:
            raise RecordError("session-open.min_contributors", "exceeds encoding.max_contributors")
        if self.min_contributors > self.roster_size:
            raise RecordError("session-open.min_contributors", "exceeds the roster")
        if self.expected_dropout >= 1:
            raise RecordError("session-open.expected_dropout", "must be below 1")


@dataclass(frozen=True, slots=True)
class KeysAdvertised(Record):
    """U1: who advertised keys. ``root`` is over one signed statement each, in order of identity."""

    TYPE: ClassVar[str] = "keys-advertised"
    session: bytes = hex_field(SESSION_ID_BYTES)
    count: int = integer_field(2, MAX_COHORT)
    root: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class KeysShared(Record):
    """U2: who shared keys. ``root`` is over one leaf for each index of U1, present or absent."""

    TYPE: ClassVar[str] = "keys-shared"
    session: bytes = hex_field(SESSION_ID_BYTES)
    count: int = integer_field(2, MAX_COHORT)
    root: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class SessionClose(Record):
    """U3: whose contributions are in the sum, fixed before anything is opened.

    ``contributions`` is the root over the accepted headers in order of index, ``dispositions`` the root over one
    leaf for each index of U1. ``limb_sum`` is the SHA-256 of the integer sums of the accepted masked inputs' 16-bit
    limbs: uint64 little-endian, four for each lane, one such sum for each shard.
    """

    TYPE: ClassVar[str] = "session-close"
    session: bytes = hex_field(SESSION_ID_BYTES)
    count: int = integer_field(2, MAX_COHORT)
    rejected: int = integer_field(0, MAX_COHORT)
    dropped: int = integer_field(0, MAX_COHORT)
    contributions: bytes = hex_field(32)
    dispositions: bytes = hex_field(32)
    limb_sum: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class SessionResult(Record):
    """The sum.

    ``integer_sum`` is the SHA-256 of the int64 little-endian sums, without counter and padding;
    ``openings`` the root over the signed answers that were used; ``mean`` the SHA-256 of the float32 mean;
    ``adapter_model`` and ``adapter_config`` those of the merged adapter's two files.
    """

    TYPE: ClassVar[str] = "session-result"
    session: bytes = hex_field(SESSION_ID_BYTES)
    count: int = integer_field(2, MAX_COHORT)
    openings: bytes = hex_field(32)
    integer_sum: bytes = hex_field(32)
    mean: bytes = hex_field(32)
    adapter_model: bytes = hex_field(32)
    adapter_config: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class SessionAbort(Record):
    """The session ended without a result.

    ``answers`` counts the unmasking answers received before it did, ``openings`` is the root over them: what was
    released.
    """

    TYPE: ClassVar[str] = "session-abort"
    session: bytes = hex_field(SESSION_ID_BYTES)
    reason: str = text_field(64)
    answers: int = integer_field(0, MAX_COHORT)
    openings: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class SignedRoster(Record):
    """A roster, as its registrar signed it; sessions name it by its root. It belongs to no session."""

    TYPE: ClassVar[str] = "roster"
    head: RosterHead = record_field(RosterHead)
    signature: bytes = hex_field(64)


SessionEntry: TypeAlias = SessionOpen | KeysAdvertised | KeysShared | SessionClose | SessionResult | SessionAbort
LogEntry: TypeAlias = SignedRoster | SessionEntry
_KINDS: dict[str, type[LogEntry]] = {
    kind.TYPE: kind
    for kind in (SignedRoster, SessionOpen, KeysAdvertised, KeysShared, SessionClose, SessionResult, SessionAbort)
}


def decode_entry(data: bytes) -> LogEntry:
    """The entry with these canonical bytes.

    Raises:
        RecordError: malformed, or of an unknown type.
    """
    value = decode_value(data)
    kind = _KINDS.get(str(value.get("type"))) if isinstance(value, dict) else None
    if kind is None:
        raise RecordError("entry.type", "unknown")
    return kind.from_value(value)
