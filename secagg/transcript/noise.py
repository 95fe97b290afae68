"""What a session declares about differential privacy: which noise its contributors add, and from what budget.

Records only. What they come to in epsilon is for ``secagg.privacy`` to say: this floor knows no accounting.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, TypeAlias

from secagg.transcript.record import (
    Record,
    RecordError,
    fraction_field,
    hex_field,
    integer_field,
    record_field,
    text_field,
)

MAX_SQUARED_NORM = 2**48 - 1
MAX_LOCAL_VARIANCE = 2**26
"""Tables of noise have some nineteen standard deviations on each side; that many more would not fit into memory."""
LEAST_GAUSSIAN_VARIANCE = 4
"""Below a standard deviation of 2 a sum of discrete Gaussians is too far from a discrete Gaussian."""
MAX_POPULATION_BYTES = 64


@dataclass(frozen=True, slots=True)
class NoDifferentialPrivacy(Record):
    """No noise is added, and the record says so."""

    TYPE: ClassVar[str] = "none"


@dataclass(frozen=True, slots=True)
class PrivacyBudget(Record):
    """The budget that a session draws on, and where in its operator's ledger that was written down before.

    All sessions of one ``population`` in one log together may cost ``epsilon`` at ``delta``. The ledger is a chain
    of hashes: ``reserved`` is its head after event ``sequence``, the reservation for this session, ``previous`` before.
    """

    TYPE: ClassVar[str] = "privacy-budget"
    population: str = text_field(MAX_POPULATION_BYTES)
    epsilon: Fraction = fraction_field()
    delta: Fraction = fraction_field()
    sequence: int = integer_field(1)
    previous: bytes = hex_field(32)
    reserved: bytes = hex_field(32)

    def check(self) -> None:
        """A budget of nothing, or one in which anything may happen, is none."""
        if not self.population:
            raise RecordError("privacy-budget.population", "empty")
        if self.epsilon <= 0:
            raise RecordError("privacy-budget.epsilon", "must be positive")
        if not 0 < self.delta < 1:
            raise RecordError("privacy-budget.delta", "must be between 0 and 1")


@dataclass(frozen=True, slots=True)
class DistributedNoise(Record):
    """Every contributor adds a share of the noise before it masks, so that nobody ever sees the sum without.

    ``scale`` is what coordinates are multiplied by before they are rounded; ``squared_norm`` what the integers' squares
    may add up to, which each contributor sees to; ``local_variance`` that of each contributor's noise on each of them.
    ``table`` is the digest of the table it is drawn from. ``accepted_ratio`` is how much larger than the largest
    possible signal the operator accepted the noise to be, in norm.
    """

    scale: Fraction = fraction_field()
    squared_norm: int = integer_field(1, MAX_SQUARED_NORM)
    local_variance: Fraction = fraction_field()
    table: bytes = hex_field(32)
    accepted_ratio: Fraction = fraction_field()
    budget: PrivacyBudget = record_field(PrivacyBudget)

    def check(self) -> None:
        """Relations between fields."""
        if not Fraction(1, 2**100) <= self.scale <= 2**100:
            raise RecordError(f"{self.TYPE}.scale", "must be between 2^-100 and 2^100")
        if not 0 < self.local_variance <= MAX_LOCAL_VARIANCE:
            raise RecordError(f"{self.TYPE}.local_variance", f"must be positive and at most {MAX_LOCAL_VARIANCE}")


@dataclass(frozen=True, slots=True)
class SkellamNoise(DistributedNoise):
    """Skellam noise: the difference of two Poisson variables of half the variance each."""

    TYPE: ClassVar[str] = "skellam"


@dataclass(frozen=True, slots=True)
class DiscreteGaussianNoise(DistributedNoise):
    """Discrete Gaussian noise; ``local_variance`` is its parameter sigma squared."""

    TYPE: ClassVar[str] = "discrete-gaussian"

    def check(self) -> None:
        """See ``DistributedNoise.check``."""
        DistributedNoise.check(self)
        if self.local_variance < LEAST_GAUSSIAN_VARIANCE:
            raise RecordError(f"{self.TYPE}.local_variance", f"must be at least {LEAST_GAUSSIAN_VARIANCE}")


Noise: TypeAlias = NoDifferentialPrivacy | SkellamNoise | DiscreteGaussianNoise
"""What the open entry of a session says under ``noise``."""
