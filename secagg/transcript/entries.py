"""Log entries: rosters, and what is published of a session, in order, before anybody acts on it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, TypeAlias

from secagg.arith.ring_mask import RingMask, padded_lanes
from secagg.transcript.canonical import JsonValue
from secagg.transcript.encoding import MAX_CONTRIBUTORS, CoordinateRange, Encoding
from secagg.transcript.merge import MERGES, Merge, SecondMerge
from secagg.transcript.noise import DiscreteGaussianNoise, NoDifferentialPrivacy, Noise, SkellamNoise
from secagg.transcript.note import NoteError, check_name
from secagg.transcript.openers import (
    MAX_MEMBERS,
    Committee,
    KeyAuthority,
    NamedMembers,
    SummedCiphertext,
)
from secagg.transcript.record import (
    Record,
    RecordError,
    RecordT,
    decode_value,
    fraction_field,
    hex_field,
    integer_codec,
    integer_field,
    list_field,
    record_codec,
    record_field,
    text_field,
)
from secagg.transcript.roster import RosterHead

SESSION_ID_BYTES = 16
MAX_ORIGIN_BYTES = 255
MAX_COHORT = 2**20
"""The most clients of a pairwise session."""
MAX_ROSTER = 2**40
_YEAR_S = 366 * 24 * 3600
AGGREGATE_FILES = ("adapter_config.json", "adapter_model.safetensors", "basis.safetensors", "merge.json")
"""What a merge may make of a mean."""


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
class OneShotDeadlines(Record):
    """How long each phase of a one-shot session stays open, in seconds.

    ``commit_s`` is for sessions with a key authority; ``hold_s`` is how long members may take, after the last upload,
    to say whose shares they hold.
    """

    TYPE: ClassVar[str] = "one-shot-deadlines"
    commit_s: int = integer_field(1, _YEAR_S)
    upload_s: int = integer_field(1, _YEAR_S)
    hold_s: int = integer_field(1, _YEAR_S)
    open_s: int = integer_field(1, _YEAR_S)


@dataclass(frozen=True, slots=True)
class SessionOpen(Record):
    """What the parameters of any session have in common; their digest is bound into everything a client signs.

    ``log`` is the origin of the log that this entry stands in; all entries of the session stand in the same one.
    ``max_corrupt`` is the absolute number of contributors assumed to collude with the coordinator.
    ``coordinator`` is the key that signs the log; ``registrar`` the key that signed the roster. Reading one gives a
    ``PairwiseOpen`` or a ``OneShotOpen``.
    """

    TYPE: ClassVar[str] = "session-open"
    session: bytes = hex_field(SESSION_ID_BYTES)
    protocol: str = text_field(16, "pairwise", "one-shot")
    coordinator: bytes = hex_field(32)
    log: str = text_field(MAX_ORIGIN_BYTES)
    opened_at_s: int = integer_field(0)
    base_model: str = text_field(1024)
    base_model_digest: bytes = hex_field(32)
    adapter: bytes = hex_field(32)
    layout: bytes = hex_field(32)
    merge: Merge = record_field(*MERGES)
    encoding: Encoding = record_field(Encoding)
    min_contributors: int = integer_field(2, MAX_CONTRIBUTORS)
    max_corrupt: int = integer_field(0, MAX_CONTRIBUTORS)
    roster: bytes = hex_field(32)
    roster_size: int = integer_field(1, MAX_ROSTER)
    registrar: bytes = hex_field(32)
    noise: Noise = record_field(NoDifferentialPrivacy, SkellamNoise, DiscreteGaussianNoise)
    retention_s: int = integer_field(0, 10 * _YEAR_S)

    @classmethod
    def from_value(cls: type[RecordT], value: JsonValue, where: str = "") -> RecordT:
        """The parameters of the protocol that the ``protocol`` member names; see ``Record.from_value``."""
        named: type[SessionOpen] | None = None
        if isinstance(value, dict) and value.get("type") == SessionOpen.TYPE:
            kinds = (PairwiseOpen, "pairwise"), (OneShotOpen, "one-shot")
            named = next((kind for kind, name in kinds if value.get("protocol") == name), None)
        kind = named or (PairwiseOpen if cls is SessionOpen else cls)
        if not issubclass(kind, cls):
            raise RecordError(f"{where or cls.TYPE}.protocol", "of another protocol")
        return super(SessionOpen, kind).from_value(value, where)

    def check(self) -> None:
        """A sum must hide each contribution among at least two that nobody corrupt knows."""
        if type(self) is SessionOpen:
            raise RecordError("session-open", "the parameters of no protocol")
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
        if isinstance(self.merge, SecondMerge) and self.merge.first == self.session:
            raise RecordError("session-open.merge.first", "names this session itself")
        if isinstance(self.encoding.flatten, CoordinateRange) and not isinstance(self.noise, NoDifferentialPrivacy):
            raise RecordError("session-open.encoding.flatten", "noise needs no range of its own")


@dataclass(frozen=True, slots=True)
class PairwiseOpen(SessionOpen):
    """All parameters of a pairwise session.

    ``expected_dropout`` is the fraction assumed to drop out by themselves; it decides availability only.
    """

    expected_dropout: Fraction = fraction_field()
    deadlines: Deadlines = record_field(Deadlines)

    def check(self) -> None:
        """See ``SessionOpen.check``; a cohort has to fit the lists that its clients recompute."""
        SessionOpen.check(self)
        if self.protocol != "pairwise":
            raise RecordError("session-open.protocol", "expected pairwise")
        if self.encoding.max_contributors > MAX_COHORT:
            raise RecordError("session-open.encoding.max_contributors", f"pairwise sessions take at most {MAX_COHORT}")
        if self.expected_dropout >= 1:
            raise RecordError("session-open.expected_dropout", "must be below 1")


@dataclass(frozen=True, slots=True)
class OneShotOpen(SessionOpen):
    """All parameters of a one-shot session: who opens the sum stands in ``opening``."""

    opening: Committee | KeyAuthority = record_field(Committee, KeyAuthority)
    deadlines: OneShotDeadlines = record_field(OneShotDeadlines)

    def check(self) -> None:
        """See ``SessionOpen.check``; fields stay below the width at which the lattice error is rounded away."""
        SessionOpen.check(self)
        if self.protocol != "one-shot":
            raise RecordError("session-open.protocol", "expected one-shot")
        try:
            usable = self.ring_mask().usable_bits
        except ValueError as error:
            raise RecordError("session-open.encoding", str(error)) from None
        if self.encoding.usable_bits > usable:
            raise RecordError("session-open.encoding.usable_bits", f"the lattice error leaves {usable}")
        most = self.opening.max_contributors
        if self.encoding.max_contributors > most:
            raise RecordError("session-open.encoding.max_contributors", f"this opening takes at most {most}")

    @property
    def upload_lanes(self) -> int:
        """Lanes of a masked input: those of the encoding, padded to whole ring elements."""
        return padded_lanes(self.encoding.field_layout().lanes)

    def ring_mask(self) -> RingMask:
        """Widths and bounds of the masks."""
        return RingMask(self.encoding.max_contributors, self.upload_lanes)


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
class ContributionsCommitted(Record):
    """Who signed which digests, before anybody sent the bytes (sessions with a key authority).

    ``root`` is over one signed header each, in order of identity.
    """

    TYPE: ClassVar[str] = "contributions-committed"
    session: bytes = hex_field(SESSION_ID_BYTES)
    count: int = integer_field(2, MAX_CONTRIBUTORS)
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
    count: int = integer_field(2, MAX_CONTRIBUTORS)
    rejected: int = integer_field(0, MAX_CONTRIBUTORS)
    dropped: int = integer_field(0, MAX_CONTRIBUTORS)
    contributions: bytes = hex_field(32)
    dispositions: bytes = hex_field(32)
    limb_sum: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class OneShotClose(SessionClose):
    """The close of a one-shot session: also who opens, or what.

    A leaf of ``dispositions`` stands for each identity that signed a header, in order of roster position, which is its
    index.
    """

    TYPE: ClassVar[str] = "one-shot-close"
    opener: NamedMembers | SummedCiphertext = record_field(NamedMembers, SummedCiphertext)


@dataclass(frozen=True, slots=True)
class AggregateFile(Record):
    """A file that follows from the mean: its name and its SHA-256."""

    TYPE: ClassVar[str] = "aggregate-file"
    name: str = text_field(64, *AGGREGATE_FILES)
    digest: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class SessionResult(Record):
    """The sum.

    ``integer_sum`` is the SHA-256 of the int64 little-endian sums, without counter and padding;
    ``openings`` the root over the signed answers that were used; ``mean`` the SHA-256 of the float32 mean;
    ``aggregate`` are the files that the merge makes of the mean, in order of their names: those of the merged adapter,
    or the basis that a second session needs, and a report of how good they are.
    """

    TYPE: ClassVar[str] = "session-result"
    session: bytes = hex_field(SESSION_ID_BYTES)
    count: int = integer_field(2, MAX_CONTRIBUTORS)
    openings: bytes = hex_field(32)
    integer_sum: bytes = hex_field(32)
    mean: bytes = hex_field(32)
    aggregate: tuple[AggregateFile, ...] = list_field(record_codec(AggregateFile), len(AGGREGATE_FILES))

    def check(self) -> None:
        """Each file once, in one order."""
        names = [file.name for file in self.aggregate]
        if not names or names != sorted(set(names)):
            raise RecordError(f"{self.TYPE}.aggregate", "names not strictly ascending")

    def digest_of(self, name: str) -> bytes | None:
        """SHA-256 of the aggregate's file of this name; None if there is none."""
        return next((file.digest for file in self.aggregate if file.name == name), None)


@dataclass(frozen=True, slots=True)
class OneShotResult(SessionResult):
    """The sum of a one-shot session.

    ``secret_sum`` is the SHA-256 of the sum of the mask secrets, int64 little-endian; ``used`` are the members (their
    places in the committee, ascending) whose share sums it was interpolated from, ``dissenting`` those whose share
    sums do not lie on the same polynomial, which says nothing about whose fault that is. Both are empty for an
    authority.
    """

    TYPE: ClassVar[str] = "one-shot-result"
    secret_sum: bytes = hex_field(32)
    used: tuple[int, ...] = list_field(integer_codec(0, MAX_MEMBERS - 1), MAX_MEMBERS)
    dissenting: tuple[int, ...] = list_field(integer_codec(0, MAX_MEMBERS - 1), MAX_MEMBERS)

    def check(self) -> None:
        """Each list has one form, and nobody is in both."""
        SessionResult.check(self)
        for name, members in (("used", self.used), ("dissenting", self.dissenting)):
            if list(members) != sorted(set(members)):
                raise RecordError(f"one-shot-result.{name}", "not strictly ascending")
        if set(self.used) & set(self.dissenting):
            raise RecordError("one-shot-result.dissenting", "also in used")


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


SessionEntry: TypeAlias = (
    SessionOpen | KeysAdvertised | KeysShared | ContributionsCommitted | SessionClose | SessionResult | SessionAbort
)
LogEntry: TypeAlias = SignedRoster | SessionEntry
_KINDS: dict[str, type[LogEntry]] = {
    kind.TYPE: kind
    for kind in (
        SignedRoster,
        SessionOpen,
        KeysAdvertised,
        KeysShared,
        ContributionsCommitted,
        SessionClose,
        OneShotClose,
        SessionResult,
        OneShotResult,
        SessionAbort,
    )
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
