"""Central noise: one party that sees the sum adds all of the noise.

For comparison, and for operators who are trusted with the sum. Sessions refuse it: their record publishes what is
needed to recompute the aggregate from the contributions, and that is the sum before the noise, so anybody who reads
the record could take the noise off again. Where nobody may see the sum, every client adds its own share instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray

from dp.alias import noise_table
from dp.errors import ParameterError
from dp.sampler import NoiseSampler
from dp.weights import MAX_VARIANCE, SKELLAM, check_law, draw_distance

MAX_PARTS = 1024
"""Most draws that one coordinate of the noise is the sum of."""


@dataclass(frozen=True, slots=True)
class CentralNoise:
    """Noise of the total variance, for a sum of integers.

    Skellam noise of a variance above `MAX_VARIANCE` is the sum of several equal parts, which has the same law.

    Attributes:
        kind: `SKELLAM` or `DISCRETE_GAUSSIAN`.
        variance: of the whole noise on the integer grid; sigma squared for the discrete Gaussian.

    Raises:
        ParameterError: no table can be made for the law, as `dp.weights.check_law` says, or `variance` needs more
            than `MAX_PARTS` parts. Discrete Gaussians do not add up to one, so those have one part only.
    """

    kind: str
    variance: Fraction

    def __post_init__(self) -> None:
        if not isinstance(self.variance, Fraction):
            raise ParameterError("variance", f"must be a Fraction, got {type(self.variance).__name__}")
        if self.variance > MAX_PARTS * MAX_VARIANCE:
            raise ParameterError("variance", f"must be at most {MAX_PARTS * MAX_VARIANCE}")
        check_law(self.kind, self.variance / self.parts)

    @property
    def parts(self) -> int:
        """How many draws one coordinate of the noise is the sum of."""
        return max(1, ceil(self.variance / MAX_VARIANCE)) if self.kind == SKELLAM else 1

    @property
    def distance(self) -> Fraction:
        """Bound of the total variation between the noise of one coordinate and the ideal law."""
        return self.parts * draw_distance(self.kind, self.variance / self.parts)

    def add_into(self, total: NDArray[np.int64], secret: bytes, context: bytes) -> None:
        """Adds the noise to a sum, in place.

        Args:
            total: int64[d], changed in place.
            secret: at least 32 bytes, uniform, for this release only.
            context: what is released.

        Raises:
            ParameterError: wrong dtype, shape or length, or a coordinate so large that noise could leave int64.
                `total` is unchanged then.
        """
        if not isinstance(total, np.ndarray) or total.dtype != np.int64:
            raise ParameterError("total", "must be an array of int64")
        table = noise_table(self.kind, self.variance / self.parts)
        # Rule: room for all parts before the first is added, so that a refusal leaves the sum as it was.
        room = np.iinfo(np.int64).max - self.parts * table.half_support
        if total.size and not -room <= int(total.min()) <= int(total.max()) <= room:
            raise ParameterError("total", "a coordinate is so large that noise could leave int64")
        for part in range(self.parts):
            NoiseSampler(table, secret, part.to_bytes(4, "big") + context).add_into(total)
