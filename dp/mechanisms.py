"""Mechanisms as values: what a session adds, what that costs, and how a record spells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Self

import numpy as np

from dp.charge import Charge
from dp.errors import ParameterError
from dp.parameters import check_fraction, check_integer, check_positive, fraction_from_text, fraction_text
from dp.rdp import (
    MAX_CLIENTS,
    MIN_SIGMA_SQUARED,
    ORDERS,
    check_sensitivity,
    discrete_gaussian_rdp,
    gaussian_rdp,
    skellam_rdp,
)
from dp.sensitivity import Sensitivity

_EXACT = Fraction(0)


@dataclass(frozen=True, slots=True)
class Skellam:
    """Skellam noise of a known total variance.

    Attributes:
        variance: `mu`, of all honest noise in one coordinate, on the integer grid.
        sensitivity: of one client.
        distance: total variation between what is released and this mechanism.

    Raises:
        ParameterError: naming the attribute.
    """

    variance: Fraction
    sensitivity: Sensitivity
    distance: Fraction = _EXACT

    def __post_init__(self) -> None:
        check_positive("variance", self.variance)
        check_sensitivity(self.sensitivity)
        _check_distance(self.distance)

    def charge(self) -> Charge:
        """What one release costs."""
        return Charge(skellam_rdp(self.variance, self.sensitivity), self.distance)

    def to_json(self) -> dict[str, str | int]:
        """The canonical members of this mechanism."""
        return {
            "mechanism": "skellam",
            "variance": fraction_text(self.variance),
            **_sensitivity_to_json(self.sensitivity),
            "distance": fraction_text(self.distance),
        }


@dataclass(frozen=True, slots=True)
class _Distributed:
    """Noise that every client adds its share of; that of colluders counts for nothing.

    Attributes:
        local_variance: of one client's noise in one coordinate, on the integer grid.
        survivors: clients whose vectors are in the sum, 1 to 2^28; before a session ends, the fewest it opens with.
        corrupt: how many of them may collude, fewer than `survivors`.
        sensitivity: of one client.
        distance: total variation between what is released and this mechanism.

    Raises:
        ParameterError: naming the attribute.
    """

    NAME: ClassVar[str]
    """How a record spells it."""

    local_variance: Fraction
    survivors: int
    corrupt: int
    sensitivity: Sensitivity
    distance: Fraction = _EXACT

    def __post_init__(self) -> None:
        check_positive("local_variance", self.local_variance)
        check_integer("survivors", self.survivors, 1, MAX_CLIENTS)
        check_integer("corrupt", self.corrupt, 0, self.survivors - 1)
        check_sensitivity(self.sensitivity)
        _check_distance(self.distance)

    def with_survivors(self, survivors: int) -> Self:
        """The same with as many survivors or more, which never costs more.

        Raises:
            ParameterError: field `survivors` when they are fewer.
        """
        check_integer("survivors", survivors, self.survivors, MAX_CLIENTS)
        return replace(self, survivors=survivors)

    def to_json(self) -> dict[str, str | int]:
        """The canonical members of this mechanism."""
        return {
            "mechanism": self.NAME,
            "local_variance": fraction_text(self.local_variance),
            "survivors": self.survivors,
            "corrupt": self.corrupt,
            **_sensitivity_to_json(self.sensitivity),
            "distance": fraction_text(self.distance),
        }


@dataclass(frozen=True, slots=True)
class DistributedSkellam(_Distributed):
    """Skellam noise in shares: what the honest clients add is Skellam noise of their variances' sum, exactly."""

    NAME: ClassVar[str] = "distributed-skellam"

    def charge(self) -> Charge:
        """What one release costs."""
        return Charge(
            skellam_rdp(self.local_variance * (self.survivors - self.corrupt), self.sensitivity), self.distance
        )


@dataclass(frozen=True, slots=True)
class DistributedDiscreteGaussian(_Distributed):
    """Discrete Gaussian noise in shares; `local_variance` is its parameter `sigma^2`, at least 4."""

    NAME: ClassVar[str] = "distributed-discrete-gaussian"

    def __post_init__(self) -> None:
        _Distributed.__post_init__(self)
        if self.local_variance < MIN_SIGMA_SQUARED:
            raise ParameterError("local_variance", f"must be at least {MIN_SIGMA_SQUARED}")

    def charge(self) -> Charge:
        """What one release costs."""
        honest = self.survivors - self.corrupt
        return Charge(discrete_gaussian_rdp(self.local_variance, honest, self.sensitivity), self.distance)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """The continuous Gaussian mechanism.

    Attributes:
        noise_multiplier: `z`, standard deviation over L2 sensitivity.

    Raises:
        ParameterError: field `noise_multiplier`.
    """

    noise_multiplier: Fraction

    def __post_init__(self) -> None:
        check_positive("noise_multiplier", self.noise_multiplier)

    def charge(self) -> Charge:
        """What one release costs."""
        return Charge(gaussian_rdp(self.noise_multiplier), _EXACT)

    def to_json(self) -> dict[str, str | int]:
        """The canonical members of this mechanism."""
        return {"mechanism": "gaussian", "noise_multiplier": fraction_text(self.noise_multiplier)}


@dataclass(frozen=True, slots=True)
class NoNoise:
    """No noise, so no privacy: said aloud, and infinitely dear."""

    def charge(self) -> Charge:
        """What one release costs: more than any budget."""
        return Charge(np.full(len(ORDERS), np.inf), _EXACT)

    def to_json(self) -> dict[str, str | int]:
        """The canonical members of this mechanism."""
        return {"mechanism": "no-noise"}


DistributedMechanism = DistributedSkellam | DistributedDiscreteGaussian
Mechanism = Skellam | DistributedSkellam | DistributedDiscreteGaussian | Gaussian | NoNoise


def _check_distance(distance: Fraction) -> None:
    check_fraction("distance", distance)
    if distance > 1:
        raise ParameterError("distance", "must be at most 1, as total variation is")


def _sensitivity_to_json(sensitivity: Sensitivity) -> dict[str, str | int]:
    return {"squared_l2": sensitivity.squared_l2, "l1": sensitivity.l1, "dimension": sensitivity.dimension}


class _Members:
    """The members of one object, each read once; what is missing, unknown or of another type is refused."""

    def __init__(self, value: Mapping[str, object], names: tuple[str, ...]) -> None:
        for name in names:
            if name not in value:
                raise ParameterError(name, "is missing")
        for name in value:
            if name not in names:
                raise ParameterError(str(name), "is unknown")
        self._value = value

    def integer(self, name: str) -> int:
        value = self._value[name]
        if not isinstance(value, int):
            raise ParameterError(name, f"must be an integer, got {type(value).__name__}")
        # The mechanism refuses a bool, as any value outside its range.
        return value

    def fraction(self, name: str) -> Fraction:
        return fraction_from_text(name, self._value[name])

    def sensitivity(self) -> Sensitivity:
        return Sensitivity(self.integer("squared_l2"), self.integer("l1"), self.integer("dimension"))


_SENSITIVITY = ("squared_l2", "l1", "dimension", "distance")
_DISTRIBUTED = ("mechanism", "local_variance", "survivors", "corrupt", *_SENSITIVITY)


def mechanism_from_json(value: object) -> Mechanism:
    """The mechanism that `to_json` wrote, from a decoded JSON object.

    Raises:
        ParameterError: naming the member that is missing, unknown, of another type or not canonical, or whose value
            no mechanism has; field `mechanism` where the value is no object or the name is none of ours.
    """
    if not isinstance(value, Mapping):
        raise ParameterError("mechanism", f"must be an object, got {type(value).__name__}")
    match value.get("mechanism"):
        case "skellam":
            members = _Members(value, ("mechanism", "variance", *_SENSITIVITY))
            return Skellam(members.fraction("variance"), members.sensitivity(), members.fraction("distance"))
        case DistributedSkellam.NAME:
            return _distributed_from_json(DistributedSkellam, _Members(value, _DISTRIBUTED))
        case DistributedDiscreteGaussian.NAME:
            return _distributed_from_json(DistributedDiscreteGaussian, _Members(value, _DISTRIBUTED))
        case "gaussian":
            return Gaussian(_Members(value, ("mechanism", "noise_multiplier")).fraction("noise_multiplier"))
        case "no-noise":
            _Members(value, ("mechanism",))
            return NoNoise()
        case _:
            raise ParameterError("mechanism", "names no mechanism")


def _distributed_from_json(kind: type[DistributedMechanism], members: _Members) -> DistributedMechanism:
    return kind(
        members.fraction("local_variance"),
        members.integer("survivors"),
        members.integer("corrupt"),
        members.sensitivity(),
        members.fraction("distance"),
    )
