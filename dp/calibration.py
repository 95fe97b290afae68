"""How much noise a demand needs: the integer grid, the local variances that are considered, and what each costs.

Local variances are decimal numbers of four significant digits, so that a person can read one and a table's fractions
stay short. They are counted by an index, in increasing order; the search is over the index, so that what is found is
already rounded and what it costs is exactly what was looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dp.charge import Charge, Spent, epsilon_of
from dp.demand import Demand, MechanismKind
from dp.mechanisms import DistributedDiscreteGaussian, DistributedMechanism, DistributedSkellam
from dp.rdp import MIN_SIGMA_SQUARED, ORDERS
from dp.sensitivity import MAX_SQUARED_NORM, Sensitivity, rounded_squared_norm
from dp.tails import noise_reach
from dp.weights import MAX_VARIANCE, draw_distance

CLAMP_DISTANCE = Fraction(1, 1 << 64)
"""Probability that anything anywhere in one session leaves its field, and is clamped."""

_DIGITS = 1000
_STEPS = 9 * _DIGITS
# Rounding inflates the norm by at most 1 %; at four grid steps to a coordinate's share, small dimensions need more.
_LEAST_STEPS = 4
_LOOKS = 8
_MOST_INFLATION = Fraction(101, 100) ** 2


@dataclass(frozen=True, slots=True)
class Grid:
    """The integer grid that vectors are rounded to.

    Attributes:
        scale: `s`, grid steps in one unit of the vector, a power of two.
        squared_norm: `B2`, the largest squared norm after rounding.
        sensitivity: of one client, on the grid.
    """

    scale: Fraction
    squared_norm: int
    sensitivity: Sensitivity


def variance_at(index: int) -> Fraction:
    """The `index`-th local variance: index 0 is 1, and there are 9000 to a factor of ten."""
    exponent, mantissa = divmod(index, _STEPS)
    return Fraction(_DIGITS + mantissa, _DIGITS) * Fraction(10) ** exponent


def index_below(variance: Fraction) -> int:
    """The index of the largest local variance that is at most `variance`, a positive number."""
    exponent = 0
    while Fraction(10) ** exponent > variance:
        exponent -= 1
    while Fraction(10) ** (exponent + 1) <= variance:
        exponent += 1
    return exponent * _STEPS + int(variance / Fraction(10) ** exponent * _DIGITS) - _DIGITS


_LEAST_INDEX = index_below(Fraction(1, 1 << 20))
MOST_INDEX = index_below(Fraction(MAX_VARIANCE))
"""The index of the largest variance that a sampler takes."""


def grid_at(demand: Demand, scale: Fraction) -> Grid:
    """The grid of this scale.

    Raises:
        ParameterError: the squared norm does not fit 48 bits.
    """
    squared_norm = rounded_squared_norm(scale, demand.clip, demand.dimension)
    return Grid(scale, squared_norm, Sensitivity.of_squared_norm(squared_norm, demand.dimension))


def coarsest_grid(demand: Demand) -> Grid:
    """The coarsest grid at which rounding costs next to nothing.

    Its scale is the smallest power of two with `s c >= 4 sqrt(d)` whose rounding inflates the norm by at most 1 %. The
    second condition follows from the first above 4000 coordinates.
    """
    scale = _power_of_two_from(Fraction(_LEAST_STEPS) / demand.clip)
    while (scale * demand.clip) ** 2 < _LEAST_STEPS**2 * demand.dimension:
        scale *= 2
    while rounded_squared_norm(scale, demand.clip, demand.dimension) > _MOST_INFLATION * (scale * demand.clip) ** 2:
        scale *= 2
    return grid_at(demand, scale)


def grid_of(demand: Demand) -> Grid:
    """The grid that a plan uses: the coarsest one, for discrete Gaussian noise the coarsest that needs a sigma above 2.

    Where so many contribute that a smaller share of noise would do, a finer grid makes the share larger in its steps.
    """
    grid = coarsest_grid(demand)
    if demand.mechanism is MechanismKind.SKELLAM:
        return grid
    least = Fraction(MIN_SIGMA_SQUARED)
    while 5 * grid.squared_norm < MAX_SQUARED_NORM and affordable(demand, grid, least):
        grid = grid_at(demand, 2 * grid.scale)
    return grid


def mechanism_at(demand: Demand, grid: Grid, local_variance: Fraction) -> DistributedMechanism:
    """One session at this local variance, at the fewest survivors and with all that is charged to delta.

    Measured: 25 ms at a standard deviation of 2600 grid steps, 80 ms at 8000, for the weights of the sampler.

    Raises:
        ParameterError: a discrete Gaussian of a variance below 4.
    """
    return _mechanism(demand, grid, local_variance, draw_distance(demand.mechanism.value, local_variance))


def affordable(demand: Demand, grid: Grid, local_variance: Fraction) -> bool:
    """Whether all sessions of the demand can be had at this local variance.

    The distance of a draw is taken as half of what can be drawn and a little, in units of 2^-128: about twice the
    sampler's own bound, and known without making its weights.
    """
    reach = noise_reach(demand.mechanism.value, local_variance, Fraction(1, 1 << 128))
    mechanism = _mechanism(demand, grid, local_variance, Fraction(reach // 2 + 8, 1 << 128))
    charge, delta = mechanism.charge().times(demand.sessions), demand.delta
    # Without its distance a charge is priced sooner, and never higher.
    if epsilon_of(Charge(charge.rdp, Fraction(0)), delta).epsilon > demand.epsilon:
        return False
    return epsilon_of(charge, delta).epsilon <= demand.epsilon


def _mechanism(demand: Demand, grid: Grid, local_variance: Fraction, draw: Fraction) -> DistributedMechanism:
    distance = CLAMP_DISTANCE + demand.max_contributors * demand.dimension * draw
    match demand.mechanism:
        case MechanismKind.SKELLAM:
            kind: type[DistributedSkellam] | type[DistributedDiscreteGaussian] = DistributedSkellam
        case MechanismKind.DISCRETE_GAUSSIAN:
            kind = DistributedDiscreteGaussian
    return kind(local_variance, demand.min_survivors, demand.corrupt, grid.sensitivity, distance)


def lowest_index(demand: Demand) -> int:
    """The index of the smallest local variance that the demanded mechanism takes."""
    match demand.mechanism:
        case MechanismKind.SKELLAM:
            return _LEAST_INDEX
        case MechanismKind.DISCRETE_GAUSSIAN:
            return index_below(Fraction(MIN_SIGMA_SQUARED))


def cheapest(demand: Demand, grid: Grid) -> Spent:
    """What all sessions would cost with noise without end: only clamping and sampling are left to pay for."""
    distance = mechanism_at(demand, grid, variance_at(MOST_INDEX)).distance
    return epsilon_of(Charge(np.zeros(len(ORDERS)), distance).times(demand.sessions), demand.delta)


def least_noise(demand: Demand, grid: Grid, ceiling: int) -> tuple[Fraction, Spent] | None:
    """The smallest local variance at which the demand is met, and what it costs; None when `ceiling` does not suffice.

    What sessions cost falls as the variance grows, so this is a bisection, and then a look at the exact distance. Where
    that leaves next to nothing of delta, the last bits decide whether there is an epsilon: a few more are looked at.
    """
    first = first_index(lambda index: affordable(demand, grid, variance_at(index)), lowest_index(demand), ceiling)
    if first is None:
        return None
    for index in range(first, min(first + _LOOKS, ceiling + 1)):
        mechanism = mechanism_at(demand, grid, variance_at(index))
        spent = epsilon_of(mechanism.charge().times(demand.sessions), demand.delta)
        if spent.epsilon <= demand.epsilon:
            return variance_at(index), spent
    return None


def first_index(holds: Callable[[int], bool], first: int, last: int) -> int | None:
    """The smallest index from `first` to `last` at which a condition holds that, once it does, keeps holding."""
    if first > last or not holds(last):
        return None
    low, high = first - 1, last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _power_of_two_from(value: Fraction) -> Fraction:
    """A power of two that is at most `value`, and more than a quarter of it."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length() - 1
    return Fraction(2) ** exponent
