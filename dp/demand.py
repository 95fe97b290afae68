"""What a population is promised and what it can give: the input of the planner."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from fractions import Fraction

from dp.errors import ParameterError
from dp.parameters import check_integer, check_positive
from dp.rdp import MAX_CLIENTS
from dp.sensitivity import MAX_DIMENSION

MAX_SESSIONS = 1_000_000
"""Most sessions one plan is made for."""

MAX_EPSILON = 1000
"""Largest epsilon that is taken: far beyond what protects anybody."""

_MOST_CLIP = 1 << 64
_LEAST_CONTRIBUTORS = 1024


class MechanismKind(enum.StrEnum):
    """Which integer noise contributors add."""

    SKELLAM = "skellam"
    DISCRETE_GAUSSIAN = "discrete-gaussian"

    @property
    def words(self) -> str:
        """The name for people, as a sentence begins with it."""
        return {"skellam": "Skellam", "discrete-gaussian": "Discrete Gaussian"}[self.value]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a plan has to achieve, and for whom.

    Attributes:
        epsilon: what `sessions` sessions may cost together, above 0, at most `MAX_EPSILON`.
        delta: the probability beside it, above 0 and below 1.
        sessions: `T`, in how many sessions one client may take part, 1 to `MAX_SESSIONS`.
        min_survivors: `n_min`, with fewer contributors no sum is opened, 1 to 2^28.
        corrupt: of those, how many may reveal their own noise, 0 to `min_survivors - 1`.
        dimension: `d`, coordinates of one vector (after padding where vectors are flattened), 1 to 2^32.
        clip: `c`, the largest L2 norm of a vector, in its own units, 2^-64 to 2^64.
        max_contributors: `n_max`, the most that one sum may hold, `min_survivors` to 2^28.
        mechanism: the noise.
        coordinate_bound: largest magnitude of a coordinate, at most `clip`; None: `clip`.

    Raises:
        ParameterError: naming the attribute.
    """

    epsilon: Fraction
    delta: Fraction
    sessions: int
    min_survivors: int
    corrupt: int
    dimension: int
    clip: Fraction
    max_contributors: int
    mechanism: MechanismKind = MechanismKind.SKELLAM
    coordinate_bound: Fraction | None = None

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)
        if self.epsilon > MAX_EPSILON:
            raise ParameterError("epsilon", f"must be at most {MAX_EPSILON}")
        check_positive("delta", self.delta)
        if self.delta >= 1:
            raise ParameterError("delta", "must be below 1")
        check_integer("sessions", self.sessions, 1, MAX_SESSIONS)
        check_integer("min_survivors", self.min_survivors, 1, MAX_CLIENTS)
        check_integer("corrupt", self.corrupt, 0, MAX_CLIENTS)
        if self.corrupt >= self.min_survivors:
            raise ParameterError(
                "corrupt", f"must be fewer than the {self.min_survivors} survivors: somebody has to be honest"
            )
        check_integer("dimension", self.dimension, 1, MAX_DIMENSION)
        _check_clip("clip", self.clip)
        check_integer("max_contributors", self.max_contributors, 1, MAX_CLIENTS)
        if self.max_contributors < self.min_survivors:
            raise ParameterError("max_contributors", f"must be at least the {self.min_survivors} survivors")
        if not isinstance(self.mechanism, MechanismKind):
            raise ParameterError("mechanism", f"must be one of {', '.join(MechanismKind)}")
        if self.coordinate_bound is not None:
            check_positive("coordinate_bound", self.coordinate_bound)
            if self.coordinate_bound > self.clip:
                raise ParameterError("coordinate_bound", "must be at most clip: no coordinate exceeds the norm")

    @property
    def honest(self) -> int:
        """How many contributors' noise is counted on: `n_min - corrupt`."""
        return self.min_survivors - self.corrupt

    @property
    def largest_coordinate(self) -> Fraction:
        """The largest magnitude of a coordinate, in units of the vector."""
        return self.clip if self.coordinate_bound is None else self.coordinate_bound


def default_max_contributors(min_survivors: int) -> int:
    """The next power of two at or above `min_survivors`, at least 1024."""
    return max(_LEAST_CONTRIBUTORS, 1 << (min_survivors - 1).bit_length())


def _check_clip(field: str, value: Fraction) -> None:
    check_positive(field, value)
    if not Fraction(1, _MOST_CLIP) <= value <= _MOST_CLIP:
        raise ParameterError(field, "must be between 2^-64 and 2^64")
