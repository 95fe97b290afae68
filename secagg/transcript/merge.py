"""How the adapters of a session are merged: what each contributor sends of its update, as records.

The update of a module is ``D = scale * B A``, whatever rank and start the contributor chose. Every strategy but
``factors`` sends a linear map of it, so that the sum of the messages is the message of the sum. The public test
matrices follow from ``seed``; ``update_norm`` bounds the joint Frobenius norm of all updates of one contributor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, TypeAlias

from secagg.transcript import canonical
from secagg.transcript.record import Record, RecordError, fraction_field, hex_field, integer_field

MAX_COLUMNS = 2**12
"""The most columns of a test matrix."""
MAX_ATTEMPTS = 1000
"""How often a second session may be tried: each attempt is a session of its own."""


@dataclass(frozen=True, slots=True)
class FactorMerge(Record):
    """Average A and B as they are: right only where everybody started from the same A, with one rank and scale."""

    TYPE: ClassVar[str] = "factors"


@dataclass(frozen=True, slots=True)
class UpdateMerge(Record):
    """What strategies have in common that send a linear map of the updates."""

    update_norm: Fraction = fraction_field()

    def check(self) -> None:
        """A bound of nothing would make every adapter zero."""
        if not Fraction(1, 2**60) <= self.update_norm <= 2**60:
            raise RecordError(f"{self.TYPE}.update_norm", "must be between 2^-60 and 2^60")


@dataclass(frozen=True, slots=True)
class DenseMerge(UpdateMerge):
    """Send D itself: exact, and as large as the base model."""

    TYPE: ClassVar[str] = "dense"


@dataclass(frozen=True, slots=True)
class FrozenMerge(UpdateMerge):
    """Send scale * B, where everybody's A is the one in the session's fixed tensors, by their SHA-256."""

    TYPE: ClassVar[str] = "frozen-a"
    fixed: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class SketchMerge(UpdateMerge):
    """Send range ``D Omega``, corange ``Upsilon^T D``, core ``Phi^T D Xi`` and probe ``D Theta``.

    ``columns`` is k, that of Omega and Upsilon; ``core_columns`` is s, that of Phi and Xi; ``probe_columns`` that of
    Theta. Source: Tropp, Yurtsever, Udell, Cevher 2019, "Streaming low-rank matrix approximation".
    """

    TYPE: ClassVar[str] = "sketch"
    seed: bytes = hex_field(32)
    columns: int = integer_field(1, MAX_COLUMNS)
    core_columns: int = integer_field(1, MAX_COLUMNS)
    probe_columns: int = integer_field(1, MAX_COLUMNS)

    def check(self) -> None:
        """A core smaller than the bases leaves the merged update undetermined."""
        UpdateMerge.check(self)
        if self.core_columns < self.columns:
            raise RecordError("sketch.core_columns", "must be at least columns")


@dataclass(frozen=True, slots=True)
class RangeMerge(UpdateMerge):
    """The first session of ``two-session``: send ``D Omega``; an orthonormal basis Q of the sum is published."""

    TYPE: ClassVar[str] = "two-session-range"
    seed: bytes = hex_field(32)
    columns: int = integer_field(1, MAX_COLUMNS)


@dataclass(frozen=True, slots=True)
class ProjectionMerge(UpdateMerge):
    """The second session of ``two-session``: exactly the contributors of the first send ``Q^T D`` and ``D Theta``.

    ``first`` is the first session; ``fixed`` the SHA-256 of the basis that it published; ``contributors`` that of the
    identities in its sum (``contributors_digest``). Were one of them not in this sum, the two sums together would show
    the projection of that one's update.
    """

    TYPE: ClassVar[str] = "two-session-projection"
    seed: bytes = hex_field(32)
    columns: int = integer_field(1, MAX_COLUMNS)
    probe_columns: int = integer_field(1, MAX_COLUMNS)
    first: bytes = hex_field(16)
    fixed: bytes = hex_field(32)
    contributors: bytes = hex_field(32)


@dataclass(frozen=True, slots=True)
class PilotMerge(UpdateMerge):
    """The first session of ``pilot-basis``: a random part of the roster sends ``D Omega``.

    For two ``sides`` it sends ``Upsilon^T D`` as well. Bases Q and V of the sums are published. ``share`` is the part
    of the roster that is drawn; ``is_pilot`` says who.
    """

    TYPE: ClassVar[str] = "pilot"
    seed: bytes = hex_field(32)
    columns: int = integer_field(1, MAX_COLUMNS)
    sides: int = integer_field(1, 2)
    share: Fraction = fraction_field()

    def check(self) -> None:
        """Pilots and others both have to exist."""
        UpdateMerge.check(self)
        _check_share(self.TYPE, self.share)


@dataclass(frozen=True, slots=True)
class BasisMerge(UpdateMerge):
    """The second session of ``pilot-basis``: whoever is no pilot sends ``Q^T D`` (one side) or ``Q^T D V`` (two).

    One side also sends the probe ``D Theta``; two sides send ``Theta^T D Xi``, which is as small as the rest.
    """

    TYPE: ClassVar[str] = "pilot-basis"
    seed: bytes = hex_field(32)
    columns: int = integer_field(1, MAX_COLUMNS)
    sides: int = integer_field(1, 2)
    probe_columns: int = integer_field(1, MAX_COLUMNS)
    share: Fraction = fraction_field()
    first: bytes = hex_field(16)
    fixed: bytes = hex_field(32)

    def check(self) -> None:
        """See ``PilotMerge``."""
        UpdateMerge.check(self)
        _check_share(self.TYPE, self.share)


LinearMerge: TypeAlias = DenseMerge | FrozenMerge | SketchMerge | RangeMerge | ProjectionMerge | PilotMerge | BasisMerge
Merge: TypeAlias = FactorMerge | LinearMerge
MERGES: tuple[type[Record], ...] = (
    FactorMerge,
    DenseMerge,
    FrozenMerge,
    SketchMerge,
    RangeMerge,
    ProjectionMerge,
    PilotMerge,
    BasisMerge,
)
FirstMerge: TypeAlias = RangeMerge | PilotMerge
SecondMerge: TypeAlias = ProjectionMerge | BasisMerge


def strategy_of(merge: Merge) -> str:
    """The strategy as a person names it, of which some take two sessions."""
    match merge:
        case RangeMerge() | ProjectionMerge():
            return "two-session"
        case PilotMerge() | BasisMerge():
            return "pilot-basis"
        case _:
            return merge.TYPE


def fixed_digest(merge: Merge) -> bytes:
    """SHA-256 of the tensors that are the same for everybody; empty where the merge needs none."""
    return merge.fixed if isinstance(merge, FrozenMerge | ProjectionMerge | BasisMerge) else b""


def contributors_digest(identities: Iterable[bytes]) -> bytes:
    """SHA-256 over identity keys of 32 bytes each, in ascending order."""
    return hashlib.sha256(b"".join(sorted(identities))).digest()


def is_pilot(seed: bytes, share: Fraction, identity: bytes) -> bool:
    """Whether ``identity`` is drawn for the pilot: a hash of it, as a fraction of all hashes, is below ``share``."""
    value: canonical.JsonValue = {"type": "pilot", "seed": seed.hex(), "identity": identity.hex()}
    drawn = int.from_bytes(hashlib.sha256(canonical.encode(value)).digest(), "big")
    return drawn < share * 2**256


def admits(merge: Merge, identity: bytes) -> bool:
    """Whether the strategy lets ``identity`` take part; who must be in the sum is another matter."""
    match merge:
        case PilotMerge():
            return is_pilot(merge.seed, merge.share, identity)
        case BasisMerge():
            return not is_pilot(merge.seed, merge.share, identity)
        case _:
            return True


def second_session(first: bytes, attempt: int) -> bytes:
    """The identifier, 16 bytes, of the ``attempt``-th second session (from 0) after the session ``first``."""
    value: canonical.JsonValue = {"type": "second-session", "first": first.hex(), "attempt": attempt}
    return hashlib.sha256(canonical.encode(value)).digest()[:16]


def attempt_number(session: bytes, first: bytes) -> int | None:
    """Which attempt at a second session after ``first`` an identifier is that of, from 0; None if of none."""
    attempts = (second_session(first, attempt) for attempt in range(MAX_ATTEMPTS))
    return next((number for number, identifier in enumerate(attempts) if identifier == session), None)


def _check_share(kind: str, share: Fraction) -> None:
    if not 0 < share < 1:
        raise RecordError(f"{kind}.share", "must be between 0 and 1")
