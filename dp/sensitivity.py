"""How much one client can move the sum: norms of its integer vector after rounding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from dp.errors import ParameterError
from dp.parameters import check_integer, check_positive

MAX_SQUARED_NORM = (1 << 48) - 1
MAX_DIMENSION = 1 << 32


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Bounds on the integer vector of one client, which zero-out adjacency replaces by 0.

    Attributes:
        squared_l2: `B2`, the largest sum of squares, 0 to 2^48 - 1.
        l1: `D1`, an upper bound of the L1 norm, at least `sqrt(B2)` and below 2^48.
        dimension: `d`, coordinates (after padding where vectors are flattened), 1 to 2^32.

    Raises:
        ParameterError: naming the attribute.
    """

    squared_l2: int
    l1: int
    dimension: int

    def __post_init__(self) -> None:
        check_integer("squared_l2", self.squared_l2, 0, MAX_SQUARED_NORM)
        check_integer("l1", self.l1, 0, MAX_SQUARED_NORM)
        check_integer("dimension", self.dimension, 1, MAX_DIMENSION)
        # The L1 norm of a vector is at least its L2 norm: a smaller number bounds something else.
        if self.l1 * self.l1 < self.squared_l2:
            raise ParameterError("l1", f"must be at least the square root of squared_l2, got {self.l1}")

    @classmethod
    def of_squared_norm(cls, squared_l2: int, dimension: int) -> Sensitivity:
        """The sensitivity that follows from the check of the squared norm alone.

        `D1 = min(sqrt(d B2), B2)`, rounded up: Cauchy and Schwarz, and no integer exceeds its square.

        Raises:
            ParameterError: field `squared_l2` or `dimension`.
        """
        check_integer("squared_l2", squared_l2, 0, MAX_SQUARED_NORM)
        check_integer("dimension", dimension, 1, MAX_DIMENSION)
        product = squared_l2 * dimension
        root = isqrt(product)
        return cls(squared_l2, min(root + (root * root < product), squared_l2), dimension)


def rounded_squared_norm(scale: Fraction, clip: Fraction, dimension: int) -> int:
    """The squared norm `B2` that conditional rounding keeps below, in squares of the integer grid.

    `floor(min((s c + sqrt d)^2, (s c)^2 + d/4 + (s c + sqrt(d)/2)))`: no rounding exceeds the first, and a stochastic
    one exceeds the second with probability at most `beta = e^(-1/2)`, where the factor `sqrt(2 ln(1/beta))` is 1.
    Computed exactly. It may exceed what `Sensitivity` takes.

    Args:
        scale: `s`, integers per unit.
        clip: `c`, the clip norm in L2, in units.
        dimension: `d`, coordinates.

    Raises:
        ParameterError: naming the argument.

    Source: Kairouz, Liu, Steinke 2021; design 08-differential-privacy, Distributed noise.
    """
    check_positive("scale", scale)
    check_positive("clip", clip)
    check_integer("dimension", dimension, 1, MAX_DIMENSION)
    length = scale * clip
    p, q = length.numerator, length.denominator
    # With that factor the second is the smaller one at every d >= 1, so the first is not computed.
    # floor((m + sqrt(r)) / k) = (m + isqrt(r)) // k for integers m and r and k > 0.
    return (4 * p * p + dimension * q * q + 4 * p * q + isqrt(4 * q**4 * dimension)) // (4 * q * q)
