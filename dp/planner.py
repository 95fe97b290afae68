"""From what is demanded to the parameters of a session: grid, noise, field width, bytes, and what they cost.

A plan is calibrated for the fewest survivors and the most colluders, so that whatever opens costs at most as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from dp.calibration import (
    CLAMP_DISTANCE,
    Grid,
    cheapest,
    grid_of,
    least_noise,
    mechanism_at,
)
from dp.charge import Spent, epsilon_of
from dp.demand import Demand, MechanismKind, default_max_contributors
from dp.errors import ParameterError
from dp.mechanisms import DistributedMechanism
from dp.parameters import check_positive
from dp.relaxations import PlanError, Relaxation, most_noise, ratio_at_most, relaxations
from dp.sensitivity import Sensitivity
from dp.tails import noise_reach
from dp.weights import MAX_VARIANCE

__all__ = ["Demand", "MechanismKind", "Plan", "PlanError", "Relaxation", "default_max_contributors", "plan"]

LANE_BITS = 64
"""Bits of the words that contributions are packed into and added in."""

MAX_VALUE_BITS = 32
"""Widest coordinate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters that meet a demand.

    Attributes:
        demand: what was asked for.
        scale: `s`, grid steps in one unit of the vector, a power of two.
        squared_norm: `B2`, the largest squared norm of a vector after rounding.
        local_variance: of the noise each contributor adds, on the grid (`sigma^2` of a discrete Gaussian).
        value_bits: `B`, the bits of a coordinate with its noise, 2 to 32.
        clamp_distance: the probability that any coordinate of any contributor in one session leaves its field.
        epsilon: what all sessions of the demand cost together, at most what was demanded.
        order: the order that gave it.

    Raises:
        ParameterError: field `value_bits` or `epsilon`, when it breaks what is said above.
    """

    demand: Demand
    scale: Fraction
    squared_norm: int
    local_variance: Fraction
    value_bits: int
    clamp_distance: Fraction
    epsilon: float
    order: int | None

    def __post_init__(self) -> None:
        if not 2 <= self.value_bits <= MAX_VALUE_BITS:
            raise ParameterError("value_bits", f"must be 2 to {MAX_VALUE_BITS}, got {self.value_bits}")
        if not self.epsilon <= self.demand.epsilon:
            raise ParameterError("epsilon", "must not exceed the demand")

    @property
    def sensitivity(self) -> Sensitivity:
        """Of one client, on the grid."""
        return Sensitivity.of_squared_norm(self.squared_norm, self.demand.dimension)

    @property
    def mechanism(self) -> DistributedMechanism:
        """One session, at the fewest survivors: what a ledger reserves."""
        return mechanism_at(self.demand, self._grid, self.local_variance)

    @property
    def single_session(self) -> Spent:
        """What one session costs: all that a client spends which takes part in no other."""
        return epsilon_of(self.mechanism.charge(), self.demand.delta)

    @property
    def field_bits(self) -> int:
        """`w = B + ceil(log2 n_max)`, at most 52."""
        return self.value_bits + (self.demand.max_contributors - 1).bit_length()

    @property
    def fields_per_lane(self) -> int:
        """How many coordinates one lane holds."""
        return LANE_BITS // self.field_bits

    @property
    def lanes(self) -> int:
        """Lanes of one contribution: its coordinates and a counter."""
        return -(-(self.demand.dimension + 1) // self.fields_per_lane)

    @property
    def upload_bytes(self) -> int:
        """Bytes of one contribution."""
        return self.lanes * LANE_BITS // 8

    @property
    def norm_inflation(self) -> float:
        """By what share rounding enlarged the squared norm: `B2 / (s c)^2 - 1`."""
        return float(self.squared_norm / (self.scale * self.demand.clip) ** 2 - 1)

    @property
    def local_sigma(self) -> float:
        """The standard deviation of one contributor's noise, in units of the vector."""
        return math.sqrt(self.local_variance) / float(self.scale)

    @property
    def total_sigma(self) -> float:
        """The standard deviation of the noise in a sum of `min_survivors` contributions, in units of the vector."""
        return math.sqrt(self.local_variance * self.demand.min_survivors) / float(self.scale)

    @property
    def honest_sigma(self) -> float:
        """That of the noise of the honest ones among them, which is all that counts, in units of the vector."""
        return math.sqrt(self.local_variance * self.demand.honest) / float(self.scale)

    @property
    def signal_ratio(self) -> float:
        """The length of the noise over that of the largest possible sum, at `min_survivors` contributions.

        `sqrt(n v d) / (n s c)`: above 1 no sum of clipped vectors is as long as the noise in it.
        """
        return (
            self.total_sigma * math.sqrt(self.demand.dimension) / (self.demand.min_survivors * float(self.demand.clip))
        )

    @property
    def _grid(self) -> Grid:
        return Grid(self.scale, self.squared_norm, self.sensitivity)


def plan(demand: Demand) -> Plan:
    """The least noise that meets a demand, and the narrowest field that holds it.

    Raises:
        PlanError: nothing meets it; says which demand to relax and by how much.
    """
    grid = grid_of(demand)
    found = least_noise(demand, grid, most_noise(demand, grid))
    if found is None:
        raise PlanError(_why_not(demand, grid), relaxations(demand, most_noise))
    variance, spent = found
    bits = _value_bits(demand, grid, variance)
    return Plan(demand, grid.scale, grid.squared_norm, variance, bits, CLAMP_DISTANCE, spent.epsilon, spent.order)


def ways_to_lower_the_ratio(planned: Plan, ratio: Fraction) -> tuple[Relaxation, ...]:
    """The changes of one demand that each bring the signal ratio to `ratio` or below.

    Raises:
        ParameterError: field `ratio` when it is not positive.
    """
    check_positive("ratio", ratio)
    return relaxations(planned.demand, ratio_at_most(ratio))


def _value_bits(demand: Demand, grid: Grid, local_variance: Fraction) -> int:
    """`B`: the fewest bits that hold a rounded coordinate with its noise, wherever in the session it is."""
    coordinates = demand.max_contributors * demand.dimension
    reach = noise_reach(demand.mechanism.value, local_variance, CLAMP_DISTANCE / coordinates)
    # One step more than rounding up: the scaled coordinate is computed in floats.
    largest = math.ceil(grid.scale * demand.largest_coordinate) + 1 + reach
    return largest.bit_length() + 1


def _why_not(demand: Demand, grid: Grid) -> str:
    if cheapest(demand, grid).epsilon > demand.epsilon:
        return (
            f"delta is too small for {demand.sessions} sessions: that a sampled number is not the ideal one, or leaves "
            "its field, already has a larger probability"
        )
    return (
        f"each contributor would have to add noise of more than {math.isqrt(MAX_VARIANCE)} grid steps "
        "(standard deviation), the most that is supported"
    )
