"""Epsilon of the Gaussian and of Skellam, against Opacus' RDP accountant at the same integer orders."""

import math
from fractions import Fraction

import pytest

from dp.charge import NO_CHARGE, epsilon_of
from dp.mechanisms import Gaussian, Skellam
from dp.rdp import ORDERS
from dp.sensitivity import Sensitivity

pytestmark = pytest.mark.train


def opacus_epsilon(parts, delta):
    """Of Gaussian noise multipliers and how many sessions used each, without sampling."""
    from opacus.accountants.analysis import rdp

    # Its default orders stop at 63; ours are named.
    total = sum(
        rdp.compute_rdp(q=1.0, noise_multiplier=multiplier, steps=sessions, orders=ORDERS)
        for multiplier, sessions in parts
    )
    epsilon, _ = rdp.get_privacy_spent(orders=ORDERS, rdp=total, delta=delta)
    return epsilon


@pytest.mark.parametrize("delta", [Fraction(1, 10**5), Fraction(1, 10**9)])
@pytest.mark.parametrize(
    "parts",
    [
        [(Fraction(7, 10), 1)],
        [(Fraction(5), 100)],
        [(Fraction(8), 100)],
        [(Fraction(60), 3)],
        [(Fraction(1), 1), (Fraction(3), 20), (Fraction(40), 500)],
    ],
)
def test_gaussians_cost_what_opacus_says(parts, delta):
    charges = [Gaussian(multiplier).charge().times(sessions) for multiplier, sessions in parts]
    found = epsilon_of(sum(charges, NO_CHARGE), delta).epsilon
    expected = opacus_epsilon([(float(multiplier), sessions) for multiplier, sessions in parts], float(delta))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("sigma_milli", "sessions"), [(643, 1), (6430, 100), (6430, 10), (2000, 1), (30_000, 1000)])
def test_skellam_costs_what_opacus_says_of_the_gaussian_that_is_no_better(sigma_milli, sessions):
    sensitivity = Sensitivity.of_squared_norm(17_043_968, 2**20)
    variance = (Fraction(sigma_milli, 1000) * 4096) ** 2
    mu, squared, l1 = float(variance), sensitivity.squared_l2, sensitivity.l1
    # The line rho a + xi lies below (rho + xi/2) a from order 2 on, which is that of a Gaussian.
    rho = squared / (2 * mu) * (1 + 1 / mu)
    xi = max(0.0, (6 * l1 - squared) / (4 * mu * mu))
    multiplier = 1 / math.sqrt(2 * (rho + xi / 2))
    found = epsilon_of(Skellam(variance, sensitivity).charge().times(sessions), Fraction(1, 10**5)).epsilon
    assert found == pytest.approx(opacus_epsilon([(multiplier, sessions)], 1e-5), rel=1e-6)
