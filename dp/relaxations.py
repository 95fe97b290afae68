"""Which demand to relax, and by how much: each one solved for with the others as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from dp.calibration import (
    MOST_INDEX,
    Grid,
    affordable,
    first_index,
    grid_of,
    index_below,
    least_noise,
    lowest_index,
    variance_at,
)
from dp.demand import MAX_EPSILON, Demand, default_max_contributors
from dp.errors import PrivacyError
from dp.rdp import MAX_CLIENTS

_GENEROUS_EPSILON = Fraction(8)
_LOOKS = 8
_LEAST_CROWD = 1000

Ceiling = Callable[[Demand, Grid], int]
"""The index of the largest local variance that would do."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One demand that, changed alone, is enough.

    Attributes:
        field: the attribute of the demand.
        now: its value.
        needed: the value nearest to it that is enough, rounded away from it where it is a fraction.
        demand: the relaxed demand, which may differ elsewhere, too: more survivors need room for more contributors,
            and what was not enough alone comes with others (`besides`).
    """

    field: str
    now: Fraction | int
    needed: Fraction | int
    demand: Demand

    def besides(self, demand: Demand) -> dict[str, Fraction | int]:
        """What the relaxed demand changes of `demand` beside the field."""
        names = ("epsilon", "sessions", "max_contributors")
        values = {name: getattr(self.demand, name) for name in names if name != self.field}
        return {name: value for name, value in values.items() if value != getattr(demand, name)}


class PlanError(PrivacyError):
    """No parameters meet the demand.

    Attributes:
        reason: why.
        relaxations: each of them is enough; empty when no change of one demand alone is.
    """

    def __init__(self, reason: str, relaxations: tuple[Relaxation, ...]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.relaxations = relaxations


def most_noise(_demand: Demand, _grid: Grid) -> int:
    """The ceiling of every plan: what a sampler's table holds."""
    return MOST_INDEX


def ratio_at_most(ratio: Fraction) -> Ceiling:
    """The ceiling at which the noise is at most `ratio` times as long as the largest possible signal."""

    def ceiling(demand: Demand, grid: Grid) -> int:
        # sqrt(n v d) / (n s c) <= ratio, solved for the local variance v.
        largest = (ratio * grid.scale * demand.clip) ** 2 * demand.min_survivors / demand.dimension
        return min(MOST_INDEX, index_below(largest))

    return ceiling


def relaxations(demand: Demand, ceiling: Ceiling) -> tuple[Relaxation, ...]:
    """The changes of one demand that each lead to a plan whose local variance is at most the ceiling.

    Where no change of one alone does, the others are eased first: epsilon to 8, then sessions to 1 as well. Empty when
    nothing helps even so.
    """
    searches = (_larger_epsilon, _more_survivors, _fewer_sessions, _fewer_corrupt, _fewer_dimensions, _larger_delta)
    for eased in _eased(demand):
        found = [each for search in searches if (each := search(eased, ceiling)) is not None]
        if found:
            return tuple(replace(each, now=getattr(demand, each.field)) for each in found)
    return ()


def _eased(demand: Demand) -> Iterator[Demand]:
    yield demand
    generous = max(demand.epsilon, _GENEROUS_EPSILON)
    yield replace(demand, epsilon=generous)
    yield replace(demand, epsilon=generous, sessions=1)


def _enough(demand: Demand, ceiling: Ceiling) -> bool:
    grid = grid_of(demand)
    index = ceiling(demand, grid)
    return index >= lowest_index(demand) and affordable(demand, grid, variance_at(index))


def _first(
    field: str, demand: Demand, candidate: Callable[[int], Demand], last: int, ceiling: Ceiling
) -> Relaxation | None:
    """The first of the candidates 1 to `last`, each more relaxed than the one before, that is enough."""
    first = first_index(lambda step: _enough(candidate(step), ceiling), 1, last)
    if first is None:
        return None
    for step in range(first, min(first + _LOOKS, last + 1)):
        relaxed = candidate(step)
        grid = grid_of(relaxed)
        # A plan is made of it, so that what is said is true.
        if least_noise(relaxed, grid, ceiling(relaxed, grid)) is not None:
            return Relaxation(field, getattr(demand, field), getattr(relaxed, field), relaxed)
    return None


def _larger_epsilon(demand: Demand, ceiling: Ceiling) -> Relaxation | None:
    start, stop = index_below(demand.epsilon), index_below(Fraction(MAX_EPSILON))
    return _first(
        "epsilon",
        demand,
        lambda step: replace(demand, epsilon=variance_at(start + step)),
        stop - start,
        ceiling,
    )


def _larger_delta(demand: Demand, ceiling: Ceiling) -> Relaxation | None:
    # A delta of 1/n would allow to publish the vector of one client in n.
    start, stop = index_below(demand.delta), index_below(Fraction(1, max(demand.max_contributors, _LEAST_CROWD)))
    return _first("delta", demand, lambda step: replace(demand, delta=variance_at(start + step)), stop - start, ceiling)


def _more_survivors(demand: Demand, ceiling: Ceiling) -> Relaxation | None:
    def candidate(step: int) -> Demand:
        survivors = demand.min_survivors + step
        room = demand.max_contributors
        if room < survivors:
            room = default_max_contributors(survivors)
        return replace(demand, min_survivors=survivors, max_contributors=room)

    return _first("min_survivors", demand, candidate, MAX_CLIENTS - demand.min_survivors, ceiling)


def _fewer_sessions(demand: Demand, ceiling: Ceiling) -> Relaxation | None:
    def candidate(step: int) -> Demand:
        return replace(demand, sessions=demand.sessions - step)

    return _first("sessions", demand, candidate, demand.sessions - 1, ceiling)


def _fewer_corrupt(demand: Demand, ceiling: Ceiling) -> Relaxation | None:
    def candidate(step: int) -> Demand:
        return replace(demand, corrupt=demand.corrupt - step)

    return _first("corrupt", demand, candidate, demand.corrupt, ceiling)


def _fewer_dimensions(demand: Demand, ceiling: Ceiling) -> Relaxation | None:
    def candidate(step: int) -> Demand:
        return replace(demand, dimension=demand.dimension - step)

    return _first("dimension", demand, candidate, demand.dimension - 1, ceiling)
