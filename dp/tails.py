"""How far noise reaches: upper bounds of the tails of the two integer noises, and where they fall below a probability.

Both follow from Chernoff's bound `P(Z >= u) <= E exp(h Z) exp(-h u)` for every `h > 0`, and noise is symmetric and
integer, so `P(|Z| > t) = 2 P(Z >= u)` with `u = t + 1`.

Skellam of variance `mu`, the difference of two Poisson variables of mean `mu / 2`: `E exp(h Z) = exp(mu (cosh h - 1))`,
least at `sinh h = u / mu`, which gives `2 exp(-(u asinh(u / mu) - sqrt(u^2 + mu^2) + mu))`.

Discrete Gaussian, `P(k)` proportional to `exp(-k^2 / (2 sigma^2))`: completing the square, `E exp(h Z)` is
`exp(h^2 sigma^2 / 2)` times `theta(h sigma^2) / theta(0)`, `theta(a) = sum_k exp(-(k - a)^2 / (2 sigma^2))` over the
integers. The Fourier coefficients of `theta` are positive, so it is largest at 0 and the factor is at most 1. With
`h = u / sigma^2` that gives `2 exp(-u^2 / (2 sigma^2))`.

Everything is computed as a logarithm and rounded towards the larger probability: a bound of `2^-130` is a bound, too.
"""

from __future__ import annotations

import math
from fractions import Fraction

from dp.errors import ParameterError

MAX_VARIANCE = 1 << 60
"""Largest variance that is taken: any noise that is drawn from a table has far less."""

# The exponents below are a handful of correctly conditioned fp64 operations, each within 2^-51 of the real number.
_OUTWARD = 1 - 2.0**-44
_LEAST_LOG2 = -1073.0
_MAX_REACH = 1 << 62


def skellam_tail_log2(variance: Fraction, t: int) -> float:
    """The base-2 logarithm of an upper bound of `P(|Z| > t)`, `Z` Skellam of this variance.

    Args:
        variance: `mu`, positive, on the integer grid.
        t: how far from 0, at least 0.

    Returns:
        At most 0, and never below the logarithm of the bound in the module's docstring.

    Raises:
        ParameterError: `variance` is not positive or absurdly large; `t < 0`.
    """
    _check(variance, t)
    u = t + 1
    x = _ratio(Fraction(u) / variance)
    # u asinh(x) - sqrt(u^2 + mu^2) + mu, without the cancellation: sqrt(u^2 + mu^2) - mu = u x / (1 + sqrt(1 + x^2)).
    exponent = u * (math.asinh(x) - x / (1 + math.hypot(1, x)))
    return _two_sided(exponent)


def discrete_gaussian_tail_log2(variance: Fraction, t: int) -> float:
    """The base-2 logarithm of an upper bound of `P(|Z| > t)`, `Z` discrete Gaussian of this `sigma^2`.

    Args:
        variance: `sigma^2`, positive, on the integer grid.
        t: how far from 0, at least 0.

    Returns:
        At most 0, and never below the logarithm of the bound in the module's docstring.

    Raises:
        ParameterError: `variance` is not positive or absurdly large; `t < 0`.
    """
    _check(variance, t)
    return _two_sided(_ratio(Fraction((t + 1) ** 2) / (2 * variance)))


def skellam_tail(variance: Fraction, t: int) -> float:
    """An upper bound of `P(|Z| > t)`, `Z` Skellam of this variance; arguments and errors of `skellam_tail_log2`."""
    return _power_of_two(skellam_tail_log2(variance, t))


def discrete_gaussian_tail(variance: Fraction, t: int) -> float:
    """An upper bound of `P(|Z| > t)`, `Z` discrete Gaussian; arguments and errors of `discrete_gaussian_tail_log2`."""
    return _power_of_two(discrete_gaussian_tail_log2(variance, t))


def noise_reach(kind: str, variance: Fraction, probability: Fraction) -> int:
    """The smallest `t` at which the bound of `P(|Z| > t)` is at most `probability`.

    Args:
        kind: `skellam` or `discrete-gaussian`.
        variance: of the noise, on the integer grid, positive.
        probability: of leaving `-t..t`, above 0 and below 1.

    Raises:
        ParameterError: naming the argument.
    """
    tails = {"skellam": skellam_tail_log2, "discrete-gaussian": discrete_gaussian_tail_log2}
    if kind not in tails:
        raise ParameterError("kind", f"must be one of {', '.join(tails)}, got {kind!r}")
    if not 0 < probability < 1:
        raise ParameterError("probability", "must be above 0 and below 1")
    tail = tails[kind]
    # The logarithm of an integer of any size is within a few units of its last place; a smaller target is safe.
    exact = math.log2(probability.numerator) - math.log2(probability.denominator)
    target = exact - 2.0**-40 * max(1.0, math.log2(probability.denominator))
    low, high = -1, 1  # the bound is above the target at `low`, which may be before the first candidate
    while tail(variance, high) > target:
        low, high = high, 2 * high
        if high > _MAX_REACH:
            raise ParameterError("probability", "is too small for this variance")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tail(variance, middle) > target else (low, middle)
    return high


def _check(variance: Fraction, t: int) -> None:
    if not 0 < variance <= MAX_VARIANCE:
        raise ParameterError("variance", f"must be above 0 and at most {MAX_VARIANCE}")
    if t < 0:
        raise ParameterError("t", f"must be at least 0, got {t}")


def _ratio(value: Fraction) -> float:
    """As a float, rounded to nearest; a value beyond the floats is their largest, which is the smaller exponent."""
    try:
        return float(value)
    except OverflowError:
        return 2.0**1000


def _two_sided(exponent: float) -> float:
    return min(0.0, 1.0 - exponent / math.log(2) * _OUTWARD)


def _power_of_two(log2: float) -> float:
    """`2^log2` rounded up; never 0."""
    return min(1.0, math.nextafter(2.0 ** max(log2, _LEAST_LOG2), math.inf) * (1 + 2.0**-40))
