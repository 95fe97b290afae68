"""What theory says of corruption and of noise: who is how likely to be one too many, and what noise is left.

Whoever is corrupt is so at random; what that excludes stands in docs/parameters.md, "Limits". Hypergeometric tails of
up to 4096 draws are quotients of integers; see the functions for the others. Noise and its price come from ``dp``.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from dp.charge import epsilon_of
from dp.planner import Plan
from secagg.derive.threshold import GraphParameters
from simulations.estimates.theory import Bounds, TheoryError, bounded, require_probability

_EXACT_DRAWS = 4096

# Corruption.


def hypergeometric_tail(population: int, marked: int, drawn: int, above: int) -> float:
    """``P[X > above]``, X being the marked among ``drawn`` out of ``population`` of whom ``marked`` are marked.

    Up to 4096 draws a quotient of integers, correctly rounded. Beyond, a sum over logarithms of binomial coefficients:
    in 2^28 draws out of 2^33 some four digits are right.
    """
    if not 0 <= marked <= population or not 0 <= drawn <= population:
        raise TheoryError("population", f"{marked} marked and {drawn} drawn of {population}")
    least, most = max(above + 1, drawn + marked - population, 0), min(marked, drawn)
    if least > most:
        return 0.0
    if drawn <= _EXACT_DRAWS:
        ways = sum(math.comb(marked, x) * math.comb(population - marked, drawn - x) for x in range(least, most + 1))
        return float(Fraction(ways, math.comb(population, drawn)))
    share = marked / population
    spread = math.sqrt(drawn * share * (1 - share)) + 1
    first = max(least, int(drawn * share - 50 * spread))
    last = min(most, max(first, int(drawn * share)) + int(50 * spread))
    found = np.arange(first, last + 1, dtype=np.float64)
    terms = _log_choose(marked, found) + _log_choose(population - marked, drawn - found)
    total = special.logsumexp(terms) - _log_choose(population, np.float64(drawn))
    return min(1.0, math.exp(float(total)))


def _log_choose(total: int, chosen: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (
        special.gammaln(total + 1.0) - special.gammaln(chosen + 1.0) - special.gammaln(total - chosen + 1.0)
    )
    return found


def corrupt_excess(drawn: int, allowed: int, fraction: float, population: int | None = None) -> float:
    """The probability that a random committee or cohort holds more corrupt ones than its session assumes.

    Args:
        drawn: members of the committee, or clients in the cohort.
        allowed: ``max_corrupt`` of the committee, or of the session.
        fraction: of all there are to draw from, how many are corrupt.
        population: how many there are; None: so many that each drawn one is corrupt on its own (binomial).
    """
    require_probability("fraction", fraction)
    if population is None:
        return float(stats.binom.sf(allowed, drawn, fraction))
    return hypergeometric_tail(population, round(fraction * population), drawn, allowed)


def graph_breach(cohort: int, corrupt: int, parameters: GraphParameters) -> Bounds:
    """The probability, over the order on the circle, that ``corrupt`` clients are enough for what must not happen.

    ``2 t - k`` corrupt ones among somebody's neighbours open both of its secrets together with all others: the lower
    bound is the probability of that for one given honest client. As many in any two separated windows are what a sum
    over a part takes, and neighbours are such windows: the upper bound is the union over those (docs/parameters.md,
    "What w bounds"). In the complete graph the place does not matter, and both are 0 or 1.
    """
    degree, enough = parameters.degree, 2 * parameters.threshold - parameters.degree
    if corrupt >= cohort:
        return Bounds(1.0, 1.0)
    one = hypergeometric_tail(cohort - 1, corrupt, degree, enough - 1)
    if degree == cohort - 1:
        return Bounds(one, one)
    pairs = cohort * (cohort - degree - 1) // 2
    return bounded(one, pairs * hypergeometric_tail(cohort, corrupt, degree, enough - 1))


# Noise.


@dataclass(frozen=True, slots=True)
class NoiseOver:
    """What a session with noise costs and how good it is, over so many contributions.

    Attributes:
        contributions: in the sum.
        epsilon: what one such session costs, at the delta of the plan.
        rms_noise: root of the mean square of the noise in a coordinate of the mean, in units of the vector.
        rms_error: the same with rounding to the grid, at most: a quarter step squared for each contribution.
    """

    contributions: int
    epsilon: float
    rms_noise: float
    rms_error: float


def noise_over(planned: Plan, contributions: int, noiseless: int | None = None) -> NoiseOver:
    """A sum of ``contributions`` of a planned session, of whom ``noiseless`` added no noise that counts.

    Args:
        planned: by ``dp.planner.plan``.
        contributions: below ``min_survivors`` no session opens: then it is what opening one would have cost.
        noiseless: whose noise the adversary knows; None: as many as were planned for. What they would have added is
            still counted as error.
    """
    corrupt = planned.demand.corrupt if noiseless is None else noiseless
    if not 0 <= corrupt < contributions:
        raise TheoryError("noiseless", f"must be 0 to {contributions - 1}, is {corrupt}")
    mechanism = dataclasses.replace(planned.mechanism, survivors=contributions, corrupt=corrupt)
    spent = epsilon_of(mechanism.charge(), planned.demand.delta).epsilon
    steps, variance = float(planned.scale), float(planned.local_variance)
    return NoiseOver(
        contributions,
        spent,
        math.sqrt(variance / contributions) / steps,
        math.sqrt((variance + 0.25) / contributions) / steps,
    )


@dataclass(frozen=True, slots=True)
class NoiseAfterDropout:
    """A planned session whose contributors drop out on their own.

    Attributes:
        opens: the probability that ``min_survivors`` or more stay.
        worst: over the fewest that open.
        typical: over the rounded mean number of those who stay, or the fewest that open if that is more.
        rms_noise: expected root mean square of the noise in the mean's coordinates, given that it opens; 0 if it never
            does. Exact for Skellam noise and to within the distance of the sampler.
    """

    opens: float
    worst: NoiseOver
    typical: NoiseOver
    rms_noise: float


def noise_after_dropout(planned: Plan, clients: int, dropout: float) -> NoiseAfterDropout:
    """What is left of a plan if each of ``clients`` drops out with probability ``dropout`` before it contributes."""
    require_probability("dropout", dropout)
    least = planned.demand.min_survivors
    sizes = np.arange(least, max(clients, least) + 1)
    weights = stats.binom.pmf(sizes, clients, 1 - dropout)
    opens = float(weights.sum())
    variance = float(planned.local_variance / planned.scale**2)
    square = float((weights * variance / sizes).sum()) / opens if opens else 0.0
    mean = min(max(round(clients * (1 - dropout)), least), max(clients, least))
    return NoiseAfterDropout(min(1.0, opens), noise_over(planned, least), noise_over(planned, mean), math.sqrt(square))
