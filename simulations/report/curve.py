"""Success against dropout rate: what many simulated sessions gave, and what theory says."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulations.estimates.theory import Bounds
from simulations.world.plan import Plan

if TYPE_CHECKING:
    from simulations.sweeping.runs import Point


class CurveError(ValueError):
    """Numbers that make no curve; ``field`` names what is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


@dataclass(frozen=True, slots=True)
class SimulatedPoint:
    """Of ``runs`` sessions at a dropout ``rate``, ``successes`` ended with a sum.

    Attributes:
        interval: Wilson's 95 % interval of the probability of success.

    Raises:
        CurveError: fields ``rate``, ``runs``, ``successes`` or ``interval``: no such numbers.
    """

    rate: float
    successes: int
    runs: int
    interval: Bounds

    def __post_init__(self) -> None:
        _check_rate("rate", self.rate)
        if self.runs < 1:
            raise CurveError("runs", f"must be at least 1, is {self.runs}")
        if not 0 <= self.successes <= self.runs:
            raise CurveError("successes", f"must be 0 to {self.runs}, is {self.successes}")
        if not self.interval.lower <= self.share <= self.interval.upper:
            raise CurveError("interval", f"{self.share} is not in {self.interval.lower} to {self.interval.upper}")

    @property
    def share(self) -> float:
        """Successes among the runs."""
        return self.successes / self.runs


@dataclass(frozen=True, slots=True)
class TheoryPoint:
    """Theory: the probability that a session ends with a sum, at a dropout ``rate``. Raises CurveError: no rate."""

    rate: float
    success: Bounds

    def __post_init__(self) -> None:
        _check_rate("rate", self.rate)


@dataclass(frozen=True, slots=True)
class Curve:
    """Success against dropout rate.

    Attributes:
        plan: of every session that was simulated, but for its seed.
        points: simulated, by rising rate.
        theory: by rising rate, at any rates; empty where there is none.
        marked: dropout rate of the scenario that the curve stands beside; None where it has none.

    Raises:
        CurveError: field ``points`` or ``theory``: none, or out of order; ``marked``: no rate.
    """

    plan: Plan
    points: tuple[SimulatedPoint, ...]
    theory: tuple[TheoryPoint, ...] = ()
    marked: float | None = None

    def __post_init__(self) -> None:
        if not self.points:
            raise CurveError("points", "there are none")
        for field, rates in (
            ("points", [point.rate for point in self.points]),
            ("theory", [point.rate for point in self.theory]),
        ):
            if any(second <= first for first, second in itertools.pairwise(rates)):
                raise CurveError(field, "rates must rise")
        if self.marked is not None:
            _check_rate("marked", self.marked)

    @classmethod
    def of_sweep(cls, plan: Plan, points: Sequence[Point], marked: float | None = None) -> Curve:
        """From points of a sweep that differ in dropout alone. Raises CurveError: others do, or there are none."""
        if len({(point.cell.protocol, point.cell.corruption) for point in points}) > 1:
            raise CurveError("points", "must be of one protocol and one corruption")
        ordered = sorted(points, key=lambda point: point.cell.dropout)
        return cls(
            plan,
            tuple(
                SimulatedPoint(float(point.cell.dropout), point.successes, point.runs, point.interval)
                for point in ordered
            ),
            tuple(TheoryPoint(float(point.cell.dropout), point.theory.success) for point in ordered),
            marked,
        )

    def theory_at(self, rate: float) -> Bounds | None:
        """What theory says at exactly this rate, if it was asked."""
        return next((point.success for point in self.theory if point.rate == rate), None)


def _check_rate(field: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise CurveError(field, f"must be 0 to 1, is {value}")
