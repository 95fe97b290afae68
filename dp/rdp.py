"""Rényi divergences of one release at integer orders, rounded outward: never below the exact value."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dp.errors import ParameterError
from dp.parameters import check_integer, check_positive
from dp.sensitivity import Sensitivity

MAX_CLIENTS: Final = 1 << 28
MIN_SIGMA_SQUARED: Final = 4
"""Of one client's discrete Gaussian noise: below, `tau d` counts for something at a million coordinates."""

_DENSE = 4096
_HIGHEST = 1 << 20
_STEPS_AN_OCTAVE = 64


def _orders() -> tuple[int, ...]:
    octaves = _HIGHEST.bit_length() - _DENSE.bit_length()
    steps = range(1, octaves * _STEPS_AN_OCTAVE + 1)
    return (*range(2, _DENSE + 1), *(round(_DENSE * 2 ** (step / _STEPS_AN_OCTAVE)) for step in steps))


ORDERS: Final[tuple[int, ...]] = _orders()
"""Integer orders at which charges are kept: every one from 2 to 4096, then 64 an octave to 2^20."""

_ORDERS: Final = np.array(ORDERS, dtype=np.float64)
# A handful of fp64 operations on positive numbers is off by less than 2^-49; no formula here subtracts.
_OUTWARD = 1.0 + 2.0**-40
# The exponents below reach 740 in magnitude, each off by a few 2^-53 of itself.
_EXCESS_OUTWARD = 1.0 + 2.0**-39
_EXCESS_TERMS = 1 << 20
_SMALLEST_NORMAL = 2.0**-1022


def skellam_rdp(variance: Fraction, sensitivity: Sensitivity) -> NDArray[np.float64]:
    """The divergence of a sum with Skellam noise.

    `a D2/(2 mu) + min(((2a - 1) D2 + 6 D1)/(4 mu^2), 3 D1/(2 mu))` at each order `a`, where `D2` is the squared L2
    and `D1` the L1 sensitivity.

    Args:
        variance: `mu`, the variance of all honest noise in one coordinate, on the integer grid.
        sensitivity: of one client.

    Returns:
        float64[len(ORDERS)], not below the exact value and at most 2^-39 above it, relatively.

    Raises:
        ParameterError: field `variance` or `sensitivity`.

    Source: Agarwal, Kairouz, Liu 2021; design 08-differential-privacy, Distributed noise.
    """
    check_positive("variance", variance)
    check_sensitivity(sensitivity)
    squared, l1 = sensitivity.squared_l2, sensitivity.l1
    if squared == 0:
        return np.zeros(len(ORDERS))
    gaussian = float(squared / (2 * variance))
    quartic = float(squared / (4 * variance**2))
    correction = np.minimum(
        (2 * _ORDERS - 1) * quartic + float(6 * l1 / (4 * variance**2)), float(3 * l1 / (2 * variance))
    )
    return (_ORDERS * gaussian + correction) * _OUTWARD


def discrete_gaussian_excess(sigma_squared: Fraction, clients: int) -> float:
    """How far a sum of discrete Gaussians is from one: `tau = 10 sum_(k=1)^(n-1) exp(-2 pi^2 sigma^2 k/(k+1))`.

    Args:
        sigma_squared: of one client's noise, on the integer grid.
        clients: `n`, 1 to 2^28, whose noise is added.

    Returns:
        Not below the exact value.

    Raises:
        ParameterError: naming the argument.

    Source: Kairouz, Liu, Steinke 2021; design 08-differential-privacy, Distributed noise.
    """
    check_positive("sigma_squared", sigma_squared)
    check_integer("clients", clients, 1, MAX_CLIENTS)
    if clients == 1:
        return 0.0
    # From the last term to the first, so from small to large. Terms fall, so none is larger than the last one computed.
    computed = min(clients - 1, _EXCESS_TERMS)
    index = np.arange(computed, 0, -1, dtype=np.float64)
    terms = np.exp(-2 * math.pi**2 * float(sigma_squared) * (index / (index + 1)))
    rest = (clients - 1 - computed) * float(terms[0])
    return 10 * (rest + float(terms.sum())) * _EXCESS_OUTWARD + _SMALLEST_NORMAL


def discrete_gaussian_rdp(sigma_squared: Fraction, clients: int, sensitivity: Sensitivity) -> NDArray[np.float64]:
    """The divergence of a sum to which every client added discrete Gaussian noise.

    With `tau` of `discrete_gaussian_excess`, `v = n sigma^2`, and at each order `a`, the smallest of
    `a D2/(2 v) + tau d`, `a/2 (D2/v + 2 D1 tau/sqrt(v) + tau^2 d)` and `a/2 (sqrt(D2/v) + sqrt(d) tau)^2`.

    Args:
        sigma_squared: of one client's noise, on the integer grid, at least 4.
        clients: `n`, 1 to 2^28, honest ones.
        sensitivity: of one client.

    Returns:
        float64[len(ORDERS)], not below the exact value.

    Raises:
        ParameterError: naming the argument.

    Source: Kairouz, Liu, Steinke 2021; design 08-differential-privacy, Distributed noise.
    """
    tau = discrete_gaussian_excess(sigma_squared, clients)
    check_sensitivity(sensitivity)
    if sigma_squared < MIN_SIGMA_SQUARED:
        raise ParameterError("sigma_squared", f"must be at least {MIN_SIGMA_SQUARED}")
    if sensitivity.squared_l2 == 0:
        return np.zeros(len(ORDERS))
    dimension, variance = sensitivity.dimension, clients * sigma_squared
    ratio = float(sensitivity.squared_l2 / variance)
    additive = _ORDERS * (ratio / 2) + tau * dimension
    mixed = 2 * sensitivity.l1 * tau / math.sqrt(float(variance))
    slopes = (ratio + mixed + tau * tau * dimension, (math.sqrt(ratio) + math.sqrt(dimension) * tau) ** 2)
    return np.minimum(additive, _ORDERS * (min(slopes) / 2)) * _OUTWARD


def gaussian_rdp(noise_multiplier: Fraction) -> NDArray[np.float64]:
    """The divergence of the continuous Gaussian mechanism: `a/(2 z^2)` at each order `a`.

    Args:
        noise_multiplier: `z`, standard deviation over L2 sensitivity.

    Returns:
        float64[len(ORDERS)], not below the exact value.

    Raises:
        ParameterError: field `noise_multiplier`.
    """
    check_positive("noise_multiplier", noise_multiplier)
    return _ORDERS * float(1 / (2 * noise_multiplier**2)) * _OUTWARD


def check_sensitivity(sensitivity: Sensitivity) -> None:
    """Refuses what is no Sensitivity.

    Raises:
        ParameterError: field `sensitivity`.
    """
    if not isinstance(sensitivity, Sensitivity):
        raise ParameterError("sensitivity", f"must be a Sensitivity, got {type(sensitivity).__name__}")
