"""The laws of the noise as exact integers: weights that sum to 2^128, and how far they are from the law.

A weight is the probability of one integer in units of 2^-128. Every step is integer arithmetic that is written down
here, so everybody who starts from the same rational variance gets the same weights.

**Skellam** of variance v (the difference of two Poisson variables of rate v/2): `p_k = e^-v I_k(v)`. The Bessel
functions obey `p_(k-1) = p_(k+1) + (2k/v) p_k`, which Miller's method runs backwards from `F_(M+1) = 0`, `F_M = 2^192`:
`F_(k-1) = F_(k+1) + floor(2k F_k / v)`. **Discrete Gaussian** of parameter v: `p_k` proportional to `exp(-k^2/(2v))`,
run forwards with `r = exp(-1/(2v))` in units of 2^-256: `F_0 = 2^256`, `F_(k+1) = floor(F_k R_k)` with `R_0 = r`,
`R_(k+1) = floor(R_k r^2)`. In both cases `N = F_0 + 2 (F_1 + .. + F_M)` normalises, so no exponential of v is needed;
`w_k` is `2^128 F_k / N` rounded to the nearest integer for k > 0, and the mode gets what is missing to 2^128.

**Distance of one draw** (total variation between `w / 2^128` and p), the sum of three parts with `q_k = F_k / N`:

1. Truncation. Let T be the mass of p beyond M. Both laws have `P(Z >= t) <= exp(-134)` at t = M + 1, so `T <= 2^-192`:
   for Skellam because `v (cosh s - 1) <= (v s^2 / 2) / (1 - s/3)` for 0 <= s < 3, which is the premise of Bernstein's
   bound `exp(-t^2 / (2 (v + t/3)))`; for the discrete Gaussian because its moment generating function is at most
   `exp(v s^2 / 2)` (a sum of Gaussian terms over shifted integers is largest for shift 0).
2. Recurrence, Skellam. `s_k = (-1)^k K_k(v)`, the other Bessel function, obeys the same recurrence, hence without
   rounding `c F_k = p_k - p_(M+1) s_k / s_(M+1)` for a constant c, and `|c F_k - p_k| <= p_(M+1) <= T/2`, since
   `K_k(v) = integral of e^(-v cosh x) cosh(kx) over x > 0` grows with k. Rounding `F_j` down by less than 1 changes
   `F_k` by less than the solution h that starts from `h_(j+1) = 0, h_j = 1`. All coefficients are positive and
   `p = p_j h + p_(j+1) g` with g >= 0, so `h_k <= p_k / p_j <= p_k / p_M`; with `c <= 2 p_M 2^-192`, all roundings
   together change `c F_k` by at most `2 M 2^-192 p_k`. The sum of `|c F_k - p_k|` over |k| <= M is therefore at most
   `(M + 1/2) T + 2 M 2^-192`.
   Recurrence, discrete Gaussian. In units of 2^-256, `r` is off by at most 2, `r^2` by 5, `R_k` by 6k + 2 and `F_k` by
   3 k^2 (all values are at most 1, so errors add), and the sum of `exp(-k^2/(2v))` that normalises is at least 1: the
   sum of errors over |k| <= M is at most `2 (M + 1)^3 2^-256`.
   In both cases normalising at most doubles the sum of errors E, and the total variation between q and p is at most
   `T + E`.
3. Rounding of weights: `1/2 sum |w_k / 2^128 - q_k|`, a sum of rationals that is computed, not estimated. It is at most
   about K 2^-128 for weights up to K, and near K/4 in practice.

The law beyond M is never drawn, so the Renyi divergence to the ideal law is infinite: it is this distance, charged
to delta, that makes the accounting of the ideal law apply.

Source: Walker 1977 and Vose 1991 for what the weights are for; Miller's backward recurrence is classical.
"""

from __future__ import annotations

import decimal
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, isqrt

from dp.errors import ParameterError

SKELLAM = "skellam"
DISCRETE_GAUSSIAN = "discrete-gaussian"
KINDS = (SKELLAM, DISCRETE_GAUSSIAN)

WEIGHT_BITS = 128
"""Weights sum to two to the power of this."""

MAX_VARIANCE = 2**26
"""Largest variance of one table: sigma 8192, 2^18 columns, 6 MiB."""

MAX_DENOMINATOR = 2**64
"""Largest denominator of a variance in lowest terms."""

# exp(-134) < 2^-193: what the tail bound of each side is pushed below, and the resulting bound of both sides.
_TAIL_EXPONENT = 134
_TAIL = Fraction(1, 2**192)
_SKELLAM_UNIT_BITS = 192
_GAUSSIAN_UNIT_BITS = 256
# exp(-a) is below 2^-256, hence 0 after rounding down, from a = 178 on.
_EXP_UNDERFLOW = 192
# Distances are rounded up to this grid, so that they stay short when they are written down and added.
_DISTANCE_BITS = 160


@dataclass(frozen=True, slots=True)
class Weights:
    """A symmetric law on the integers from -K to K, in units of 2^-128.

    Attributes:
        kind: `SKELLAM` or `DISCRETE_GAUSSIAN`.
        variance: the law's parameter: the variance of Skellam noise, sigma squared of the discrete Gaussian.
        half: the weights of 0, 1, .., K, all positive; that of -k equals that of k.
        distance: bound of the total variation between this law and the ideal one.

    Raises:
        ParameterError: `half` is empty, holds a weight below 1, or does not sum to 2^128 over both sides.
    """

    kind: str
    variance: Fraction
    half: tuple[int, ...]
    distance: Fraction

    def __post_init__(self) -> None:
        if not self.half or min(self.half) < 1:
            raise ParameterError("half", "every weight must be at least 1")
        if 2 * sum(self.half) - self.half[0] != 1 << WEIGHT_BITS:
            raise ParameterError("half", f"the weights of both sides must sum to 2^{WEIGHT_BITS}")

    @property
    def half_support(self) -> int:
        """K, the largest integer that can be drawn."""
        return len(self.half) - 1


def check_law(kind: str, variance: Fraction) -> None:
    """Refuses what no table can be made for.

    Raises:
        ParameterError: `kind` is unknown; `variance` is no Fraction, not positive, above `MAX_VARIANCE`, or has a
            denominator above `MAX_DENOMINATOR`.
    """
    if kind not in KINDS:
        raise ParameterError("kind", f"must be one of {', '.join(KINDS)}, got {kind!r}")
    # Rule: rational parameters only; a float variance would make weights depend on who rounded it.
    if not isinstance(variance, Fraction):
        raise ParameterError("variance", f"must be a Fraction, got {type(variance).__name__}")
    if not 0 < variance <= MAX_VARIANCE:
        raise ParameterError("variance", f"must be positive and at most {MAX_VARIANCE}")
    if variance.denominator > MAX_DENOMINATOR:
        raise ParameterError("variance", "the denominator must be at most 2^64")


def noise_weights(kind: str, variance: Fraction) -> Weights:
    """The weights of a law.

    Measured on one core: 0.1 ms at variance 1, 10 ms at 1000^2, 100 ms at 8192^2. The last two are kept.

    Args:
        kind: `SKELLAM` or `DISCRETE_GAUSSIAN`.
        variance: positive, at most `MAX_VARIANCE`, denominator at most `MAX_DENOMINATOR`.

    Raises:
        ParameterError: as `check_law`.
    """
    check_law(kind, variance)
    return _noise_weights(str(kind), variance)


def draw_distance(kind: str, variance: Fraction) -> Fraction:
    """Bound of the total variation between one draw and the ideal law; distances of draws add.

    Args:
        kind: `SKELLAM` or `DISCRETE_GAUSSIAN`.
        variance: as for `noise_weights`.

    Returns:
        A multiple of 2^-160, about K/4 units of 2^-128.

    Raises:
        ParameterError: as `check_law`.
    """
    check_law(kind, variance)
    return _draw_distance(str(kind), variance)


# Checked before the cache is asked: 4, 4.0 and Fraction(4) are the same key.
@lru_cache(maxsize=256)
def _draw_distance(kind: str, variance: Fraction) -> Fraction:
    return _noise_weights(kind, variance).distance


@lru_cache(maxsize=2)
def _noise_weights(kind: str, variance: Fraction) -> Weights:
    if kind == SKELLAM:
        terms = _skellam_terms(variance)
        reach = len(terms) - 1
        errors = (reach + Fraction(1, 2)) * _TAIL + Fraction(2 * reach, 1 << _SKELLAM_UNIT_BITS)
    else:
        terms = _gaussian_terms(variance)
        errors = Fraction(2 * len(terms) ** 3, 1 << _GAUSSIAN_UNIT_BITS)
    half, rounding = _rounded(terms)
    distance = Fraction(ceil((_TAIL + errors + rounding) * 2**_DISTANCE_BITS), 2**_DISTANCE_BITS)
    return Weights(kind, variance, half, distance)


def _skellam_terms(variance: Fraction) -> list[int]:
    """F_0, .., F_M of the module's docstring."""
    # M + 1 exceeds the root of 3 t^2 - 2 x t - 6 x v, where Bernstein's exponent reaches x = 134.
    x = _TAIL_EXPONENT
    reach = (2 * x + isqrt(4 * x * x + ceil(72 * x * variance))) // 6
    numerator, denominator = variance.numerator, 2 * variance.denominator
    above, term = 0, 1 << _SKELLAM_UNIT_BITS
    terms = [term]
    for k in range(reach, 0, -1):
        above, term = term, above + k * denominator * term // numerator
        terms.append(term)
    terms.reverse()
    return terms


def _gaussian_terms(variance: Fraction) -> list[int]:
    """F_0, .., F_M of the module's docstring."""
    # M + 1 exceeds the root of t^2 = 2 x v.
    reach = isqrt(ceil(2 * _TAIL_EXPONENT * variance))
    term, ratio = 1 << _GAUSSIAN_UNIT_BITS, _exp_minus(1 / (2 * variance))
    ratio_step = ratio * ratio >> _GAUSSIAN_UNIT_BITS
    terms = [term]
    for _ in range(reach):
        term = term * ratio >> _GAUSSIAN_UNIT_BITS
        ratio = ratio * ratio_step >> _GAUSSIAN_UNIT_BITS
        terms.append(term)
    return terms


def _exp_minus(exponent: Fraction) -> int:
    """exp(-exponent) in units of 2^-256, off by less than 2."""
    if exponent >= _EXP_UNDERFLOW:
        return 0
    # Quotients and exp of `decimal` are correctly rounded: 100 digits leave an error below 2^-320.
    with decimal.localcontext(decimal.Context(prec=100)):
        value = (-decimal.Decimal(exponent.numerator) / decimal.Decimal(exponent.denominator)).exp()
        return int(value * (1 << _GAUSSIAN_UNIT_BITS))


def _rounded(terms: list[int]) -> tuple[tuple[int, ...], Fraction]:
    """Weights of 0, .., K, and exactly half the L1 distance between them and the normalised terms."""
    total = 2 * sum(terms) - terms[0]
    half = [0]
    # In units of 2^-129 / total: w_k - 2^128 F_k / total, summed over k > 0 with and without its sign.
    signed = unsigned = 0
    for term in terms[1:]:
        weight, remainder = divmod((term << WEIGHT_BITS + 1) + total, 2 * total)
        signed += total - remainder
        unsigned += abs(total - remainder)
        if weight:
            half.append(weight)
    half[0] = (1 << WEIGHT_BITS) - 2 * sum(half)
    # Both sides count, and the mode is off by what both sides are off together, the other way.
    return tuple(half), Fraction(unsigned + abs(signed), total << WEIGHT_BITS + 1)
