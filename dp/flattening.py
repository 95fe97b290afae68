"""What flattening does to the numbers of a plan: the padded dimension, and how large a coordinate can become.

A flattened vector was rotated by a random orthonormal map: padded to whole blocks of `b`, permuted, its signs flipped
at random, and each block transformed by a Walsh-Hadamard matrix divided by `sqrt(b)`. By Hoeffding's inequality a
vector of norm `c` then has a coordinate beyond `c sqrt(2 ln(4 d / p) / b)` with probability at most `p`, over signs
that do not depend on the vector. The norm is what it was, so accounting does not change.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, localcontext
from fractions import Fraction

from dp.errors import ParameterError

MAX_BLOCK = 1 << 16
"""Largest block of the transform."""

FAILURE_EXPONENT = 40
"""`p = 2^-40`: an honest vector has a coordinate beyond the bound with at most this probability."""

_GRID_BITS = 40


def flatten_block(dimension: int) -> int:
    """The block `b`: the next power of two at or above `dimension`, at most `MAX_BLOCK`.

    Raises:
        ParameterError: `dimension < 1`.
    """
    if dimension < 1:
        raise ParameterError("dimension", f"must be at least 1, got {dimension}")
    return min(MAX_BLOCK, 1 << (dimension - 1).bit_length())


def flattened_dimension(dimension: int) -> int:
    """The number of coordinates after padding to whole blocks.

    Raises:
        ParameterError: `dimension < 1`.
    """
    block = flatten_block(dimension)
    return -(-dimension // block) * block


def largest_flattening_to(padded: int) -> int:
    """The largest `dimension` whose `flattened_dimension` is at most `padded`.

    Raises:
        ParameterError: `padded < 1`.
    """
    if padded < 1:
        raise ParameterError("dimension", f"must be at least 1, got {padded}")
    return padded // MAX_BLOCK * MAX_BLOCK if padded >= MAX_BLOCK else 1 << (padded.bit_length() - 1)


def flattened_bound(clip: Fraction, dimension: int) -> Fraction:
    """The largest magnitude of a coordinate of a flattened vector: the formula above, and never more than the norm.

    `sqrt(2 ln(4 d / p) / b)` is rounded up to a multiple of `2^-40`, in decimal arithmetic of 50 digits.

    Args:
        clip: `c`, largest L2 norm of the vector, positive.
        dimension: `d`, number of coordinates before padding.

    Raises:
        ParameterError: `clip <= 0` or `dimension < 1`.
    """
    if clip <= 0:
        raise ParameterError("clip", "must be positive")
    block = flatten_block(dimension)
    with localcontext(Context(prec=50)):
        ratio = (2 * Decimal(dimension << (FAILURE_EXPONENT + 2)).ln() / block).sqrt()
        steps = int((ratio * (1 << _GRID_BITS)).to_integral_value(rounding=ROUND_CEILING))
    return clip * min(Fraction(1), Fraction(steps, 1 << _GRID_BITS))
