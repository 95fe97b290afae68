"""How a vector becomes lanes: what a session fixes of the encoding, as a record."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from secagg.arith.fields import FieldLayout
from secagg.arith.flatten import flattened_bound, flattened_dimension
from secagg.arith.quantiser import Quantiser
from secagg.transcript.noise import DistributedNoise, Noise
from secagg.transcript.record import Record, RecordError, fraction_field, hex_field, integer_field, record_field

MAX_CONTRIBUTORS = 2**28
"""The most contributions that one opening takes: their secrets add up below half the field of the shares."""
MAX_DIMENSION = 2**31


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
class CoordinateRange(Record):
    """Vectors are quantised as they are; what lies beyond ``bound`` is clamped, and its contributor counts it."""

    TYPE: ClassVar[str] = "range"
    bound: Fraction = fraction_field()


@dataclass(frozen=True, slots=True)
class Encoding(Record):
    """How a vector becomes lanes."""

    TYPE: ClassVar[str] = "encoding"
    dimension: int = integer_field(1, MAX_DIMENSION)
    value_bits: int = integer_field(2, 32)
    max_contributors: int = integer_field(2, MAX_CONTRIBUTORS)
    usable_bits: int = integer_field(1, 64)
    clip_norm: Fraction = fraction_field()
    flatten: NoFlattening | Flattening | CoordinateRange = record_field(NoFlattening, Flattening, CoordinateRange)

    def check(self) -> None:
        """What could overflow, or has no scale, cannot be constructed."""
        if self.clip_norm <= 0:
            raise RecordError("encoding.clip_norm", "must be positive")
        if isinstance(self.flatten, CoordinateRange) and not 0 < self.flatten.bound <= self.clip_norm:
            raise RecordError("encoding.flatten.bound", "must be positive and at most clip_norm")
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
        if isinstance(self.flatten, CoordinateRange):
            return self.flatten.bound
        return self.clip_norm

    def quantiser(self, noise: Noise) -> Quantiser:
        """The map between coordinates and integers: as fine as the bits allow, or as the noise asks for.

        Noise takes some of the bits, so a session that adds it says itself what it multiplies coordinates by.
        """
        if isinstance(noise, DistributedNoise):
            return Quantiser(self.value_bits, self.field_layout().largest / noise.scale)
        return Quantiser(self.value_bits, self.bound())
