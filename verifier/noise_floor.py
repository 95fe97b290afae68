"""The noise floor: how small the squares of a sum with noise on it can be.

Let ``Z`` be the noise of so many contributors on one coordinate: symmetric, and more likely the nearer to 0, since it
is a sum of symmetric log-concave variables (Skellam and discrete Gaussian both are). Let ``x`` be all else in the sum
on that coordinate: the vectors, and what the other contributors added. Masks hide the noise from whoever chooses ``x``,
so the two are independent.

**The signal does not matter.** Among the windows of ``2r + 1`` successive integers the one around 0 is the most likely:
``P(|x + Z| <= r) <= P(|Z| <= r)`` for every integer ``x`` and every ``r``. So ``|x + Z|`` is never stochastically
smaller than ``|Z|``, products of signal and noise included, and by independence of the coordinates
``P(sum (x_i + Z_i)^2 <= F) <= P(sum Z_i^2 <= F)`` for every ``F``.

**The noise alone.** For ``W = Z^2 >= 0``, ``exp(-tW) <= 1 - tW + t^2 W^2 / 2``, so ``E exp(-tW) <= exp(-t E W +
t^2 E W^2 / 2)``. By Markov's inequality, with the best ``t``, for ``d`` coordinates::

    P(sum Z_i^2 <= d E Z^2 - s) <= exp(-s^2 / (2 d E Z^4))

This holds at every ``d``; no limit theorem is used. Skellam noise of variance ``mu`` has ``E Z^2 = mu`` and
``E Z^4 = 3 mu^2 + mu``. A sum of discrete Gaussians of ``sigma^2 >= 4`` each has both within ``2^-90`` of those of a
Gaussian, ``mu`` and ``3 mu^2``, which the same numbers cover. At ``s = sqrt(2 ln(2) 40 d E Z^4)`` an honest sum falls
below with a probability of at most ``2^-40``.

Source: A. Maurer, A bound on the deviation probability for sums of non-negative random variables, 2003.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

RARITY_BITS = 40
"""An honest sum falls below its floor with a probability of at most two to the minus this."""

_BLOCK = 1 << 16


def noise_floor(coordinates: int, variance: float, rarity_bits: int = RARITY_BITS) -> float:
    """What the squares of a sum add up to at least, but for a probability of ``2^-rarity_bits``.

    Args:
        coordinates: ``d``.
        variance: ``mu``, of the noise on each, of those who are taken to have added it.
        rarity_bits: how unlikely an honest sum below the floor is.

    Returns:
        Not positive where coordinates are too few for any floor: 166 of them at any variance, 221 at a variance of 1.
    """
    fourth = variance * (3 * variance + 1)
    return coordinates * variance - math.sqrt(2 * math.log(2) * rarity_bits * coordinates * fourth)


def sum_of_squares(values: npt.NDArray[np.int64]) -> float:
    """The sum of squares in fp64, in blocks; off by less than ``2^-30`` of itself."""
    total = 0.0
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK].astype(np.float64)
        total += float(np.square(block, out=block).sum())
    return total
