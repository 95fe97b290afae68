"""What releases may cost: charges that add, and their price in epsilon at a given delta."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dp.errors import ParameterError
from dp.parameters import check_fraction, check_integer
from dp.rdp import ORDERS

_MAX_SESSIONS = 1 << 32
_ORDERS: Final = np.array(ORDERS, dtype=np.float64)
# ln(1 - 1/a) of the conversion.
_LOG_SHRINK: Final = np.log1p(-1.0 / _ORDERS)
_LOG_ORDERS: Final = np.log(_ORDERS)
# More than what the few fp64 operations between two uses of it can be off, relative to the largest of their terms.
_SLACK = 2.0**-48
# Newton's method for the root beside a distance: where it has not settled by then, the order is given up.
_NEWTON_STEPS = 64
_SETTLED = 2.0**-50
# Sums of distances with unlike denominators would grow for ever.
_DISTANCE_BITS = 512


@dataclass(frozen=True, slots=True, eq=False)
class Charge:
    """What releases may cost under adaptive composition; the charges of several sessions add.

    The sum over the sessions of a population is its population view; the sum over those sessions that a client took
    part in is what that client has spent.

    Attributes:
        rdp: float64[len(ORDERS)], read-only, the Rényi divergence at each order; infinite where there is no noise.
        distance: total variation between what is released and the mechanism that `rdp` describes, summed.

    Raises:
        ParameterError: naming the attribute.
    """

    rdp: NDArray[np.float64]
    distance: Fraction

    def __post_init__(self) -> None:
        check_fraction("distance", self.distance)
        if not isinstance(self.rdp, np.ndarray) or self.rdp.dtype != np.float64 or self.rdp.shape != (len(ORDERS),):
            raise ParameterError("rdp", f"must be float64[{len(ORDERS)}]")
        # False for NaN as well.
        if not (self.rdp >= 0).all():
            raise ParameterError("rdp", "must be at least 0 at every order")
        own = self.rdp.copy()
        own.flags.writeable = False
        object.__setattr__(self, "rdp", own)

    def __add__(self, other: Charge) -> Charge:
        """The charge of both, rounded outward."""
        if not isinstance(other, Charge):
            return NotImplemented
        total = self.rdp + other.rdp
        rounded = np.where((self.rdp > 0) & (other.rdp > 0), np.nextafter(total, np.inf), total)
        return Charge(rounded, _shortened(self.distance + other.distance))

    def times(self, sessions: int) -> Charge:
        """The charge of so many sessions that each cost this, rounded outward.

        Raises:
            ParameterError: field `sessions` when it is not 0 to 2^32.
        """
        check_integer("sessions", sessions, 0, _MAX_SESSIONS)
        if sessions == 0:
            return NO_CHARGE
        if sessions == 1:
            return self
        total = self.rdp * float(sessions)
        return Charge(np.where(total > 0, np.nextafter(total, np.inf), total), self.distance * sessions)

    def covers(self, other: Charge) -> bool:
        """Whether this is at least the other at every order and in distance."""
        return self.distance >= other.distance and bool((self.rdp >= other.rdp).all())


def _shortened(distance: Fraction) -> Fraction:
    """The distance, or where that takes more than 512 bits below the line, the next multiple of 2^-512 above it."""
    if distance.denominator.bit_length() <= _DISTANCE_BITS:
        return distance
    return Fraction(-(-(distance.numerator << _DISTANCE_BITS) // distance.denominator), 1 << _DISTANCE_BITS)


NO_CHARGE: Final = Charge(np.zeros(len(ORDERS)), Fraction(0))


@dataclass(frozen=True, slots=True)
class Spent:
    """A charge in epsilon.

    Attributes:
        epsilon: at the delta asked for; infinite where that delta is never reached.
        order: the order that gave it; None when nothing was spent or `epsilon` is infinite.
    """

    epsilon: float
    order: int | None


def _check_delta(delta: Fraction) -> None:
    check_fraction("delta", delta)
    if not 0 < delta < 1:
        raise ParameterError("delta", "must be more than 0 and less than 1")


def _log(value: Fraction) -> float:
    """The natural logarithm of any positive rational, also far outside the range of fp64."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return math.log(value / Fraction(2) ** exponent) + exponent * math.log(2)


def _epsilons(rdp: NDArray[np.float64], log_delta: float) -> NDArray[np.float64]:
    """`r + ln(1 - 1/a) - ln(delta a)/(a - 1)` at each order, rounded up; 0 where nothing is spent."""
    rest = (log_delta + _LOG_ORDERS) / (_ORDERS - 1)
    slack = _SLACK * (rdp - _LOG_SHRINK + (1 - log_delta + _LOG_ORDERS) / (_ORDERS - 1))
    return np.where(rdp == 0, 0.0, np.maximum(rdp + _LOG_SHRINK - rest + slack, 0.0))


def _log_deltas(rdp: NDArray[np.float64], epsilon: NDArray[np.float64]) -> NDArray[np.float64]:
    """`ln` of the delta that each order gives at its epsilon, rounded up; -inf where nothing is spent."""
    slack = _SLACK * ((_ORDERS - 1) * (rdp + epsilon - _LOG_SHRINK) + _LOG_ORDERS)
    logs = (_ORDERS - 1) * (rdp - epsilon + _LOG_SHRINK) - _LOG_ORDERS + slack
    return np.where(rdp == 0, -np.inf, logs)


def _log_price(epsilon: NDArray[np.float64], log_distance: float) -> NDArray[np.float64]:
    """`ln((1 + e^epsilon) distance)`, rounded up."""
    return np.logaddexp(0.0, epsilon) + log_distance + _SLACK * (2 + epsilon - log_distance)


def _beside_distance(rdp: NDArray[np.float64], log_delta: float, log_distance: float) -> NDArray[np.float64]:
    """At each order the smallest epsilon whose delta and `(1 + e^epsilon) distance` are at most delta together.

    Both are convex in epsilon and the first falls, so Newton's method from the left stays left of the root, and ends
    where the sum no longer falls: there is none. What it finds counts only if it then holds.
    """
    epsilon = _epsilons(rdp, log_delta)
    alive = np.isfinite(epsilon)
    spent = np.where(alive, rdp, 0.0)
    epsilon = np.where(alive, epsilon, 0.0)
    # Where numbers are absurd both terms overflow, and what is no number holds nothing and gives no epsilon.
    # Everything is relative to delta, which need not be a number of fp64. The root is sought a little below delta.
    aim = 1 - _SLACK * (1 - log_delta)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_NEWTON_STEPS):
            own = np.exp(_log_deltas(spent, epsilon) - log_delta)
            price = np.exp(_log_price(epsilon, log_distance) - log_delta)
            above = own + price - aim
            falls = (_ORDERS - 1) * own - price / (1 + np.exp(-epsilon))
            alive &= (above <= 0) | (falls > 0)
            step = np.divide(above, falls, out=np.zeros_like(above), where=alive & (above > 0))
            epsilon = epsilon + step
            if (step <= _SETTLED * epsilon).all():
                break
        own = np.exp(_log_deltas(spent, epsilon) - log_delta)
        price = np.exp(_log_price(epsilon, log_distance) - log_delta)
        # Half of the little is for what these two lines round.
        holds = own + price <= (1 + aim) / 2
    return np.where(alive & holds, epsilon, np.inf)


def _exp_above(log: float) -> float:
    """The exponential, at most 1, rounded up: positive wherever it is, however small."""
    return 0.0 if log == -math.inf else max(math.exp(min(log, 0.0)) * (1 + _SLACK), sys.float_info.min)


def epsilon_of(charge: Charge, delta: Fraction) -> Spent:
    """The smallest epsilon, over `ORDERS`, at which the charge is (epsilon, delta) differentially private.

    `r(a) + ln(1 - 1/a) - ln(delta a)/(a - 1)` at order `a`, at least 0, rounded up. With a distance `t` it is the
    smallest epsilon where what this formula makes of it as delta, and `(1 + e^epsilon) t`, add up to at most delta.

    Raises:
        ParameterError: field `delta` when it is not between 0 and 1.

    Source: Canonne, Kamath, Steinke 2020, Proposition 12.
    """
    _check_delta(delta)
    spent = bool(charge.rdp.any())
    if charge.distance == 0:
        epsilons = _epsilons(charge.rdp, _log(delta))
    elif 2 * charge.distance > delta:
        return Spent(math.inf, None)
    elif not spent:
        return Spent(0.0, None)
    else:
        epsilons = _beside_distance(charge.rdp, _log(delta), _log(charge.distance))
    best = int(np.argmin(epsilons))
    epsilon = float(epsilons[best])
    return Spent(epsilon, ORDERS[best] if spent and math.isfinite(epsilon) else None)


def delta_of(charge: Charge, epsilon: float) -> float:
    """The smallest delta, over `ORDERS`, at which the charge is (epsilon, delta) differentially private; at most 1.

    Raises:
        ParameterError: field `epsilon` when it is negative, infinite or NaN.
    """
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 <= epsilon < math.inf:
        raise ParameterError("epsilon", "must be a finite number, at least 0")
    everywhere = np.full(len(ORDERS), float(epsilon))
    delta = _exp_above(float(_log_deltas(charge.rdp, everywhere).min()))
    if charge.distance > 0:
        delta += _exp_above(float(_log_price(everywhere[:1], _log(charge.distance))[0]))
    return min(delta, 1.0)
