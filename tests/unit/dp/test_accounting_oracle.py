"""Epsilon of Skellam and of the Gaussian, against the RDP accountant of dp_accounting at the same orders."""

import math
from fractions import Fraction

import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.charge import NO_CHARGE, epsilon_of
from dp.mechanisms import Gaussian, Skellam
from dp.rdp import ORDERS
from dp.sensitivity import Sensitivity

ORACLE_ORDERS = [float(order) for order in ORDERS]


def oracle_epsilon(events, delta):
    accountant = RdpAccountant(orders=ORACLE_ORDERS)
    for event, sessions in events:
        accountant.compose(event, sessions)
    return accountant.get_epsilon(delta)


def skellam_lines(variance, sensitivity):
    """The two zCDP lines of which the bound is the smaller one."""
    mu, squared, l1 = float(variance), sensitivity.squared_l2, sensitivity.l1
    return (
        dp_event.ZCDpEvent(squared / (2 * mu) * (1 + 1 / mu), max(0.0, (6 * l1 - squared) / (4 * mu * mu))),
        dp_event.ZCDpEvent(squared / (2 * mu), 3 * l1 / (2 * mu)),
    )


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-2, 30),
    st.integers(1, 10**9),
    st.integers(0, 2**24),
    st.integers(1, 1000),
    st.floats(1e-12, 0.01),
)
def test_skellam_agrees_with_the_smaller_of_two_lines(exponent, squared, more, sessions, delta):
    # From 36 coordinates fewer on, one xi would be negative, which the oracle does not take.
    sensitivity = Sensitivity.of_squared_norm(squared, -(-squared // 36) + more)
    variance = Fraction(2.0**exponent)
    expected = min(oracle_epsilon([(line, sessions)], delta) for line in skellam_lines(variance, sensitivity))
    found = epsilon_of(Skellam(variance, sensitivity).charge().times(sessions), Fraction(delta)).epsilon
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_each_of_the_two_lines_is_the_smaller_one_somewhere():
    sensitivity = Sensitivity.of_squared_norm(10**6, 2**20)
    smaller = set()
    for variance in (Fraction(1, 2), Fraction(10**6)):
        epsilons = [oracle_epsilon([(line, 1)], 1e-5) for line in skellam_lines(variance, sensitivity)]
        found = epsilon_of(Skellam(variance, sensitivity).charge(), Fraction(1, 10**5)).epsilon
        assert found == pytest.approx(min(epsilons), rel=1e-6)
        assert max(epsilons) > 1.0001 * found
        smaller.add(epsilons.index(min(epsilons)))
    assert smaller == {0, 1}


def test_the_worked_example_agrees():
    sensitivity = Sensitivity.of_squared_norm(17_043_968, 2**20)
    for sigma, sessions in ((Fraction(643, 1000), 1), (Fraction(643, 100), 100), (Fraction(643, 100), 10)):
        variance = (sigma * 4096) ** 2
        expected = min(oracle_epsilon([(line, sessions)], 1e-5) for line in skellam_lines(variance, sensitivity))
        found = epsilon_of(Skellam(variance, sensitivity).charge().times(sessions), Fraction(1, 10**5)).epsilon
        assert found == pytest.approx(expected, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-2, 8), st.integers(1, 300)), min_size=1, max_size=4),
    st.floats(1e-12, 0.01),
)
def test_gaussians_of_unlike_noise_compose_alike(parts, delta):
    events = [(dp_event.GaussianDpEvent(2.0**exponent), sessions) for exponent, sessions in parts]
    charges = [Gaussian(Fraction(2.0**exponent)).charge().times(sessions) for exponent, sessions in parts]
    found = epsilon_of(sum(charges, NO_CHARGE), Fraction(delta)).epsilon
    assert found == pytest.approx(oracle_epsilon(events, delta), rel=1e-6, abs=1e-9)
    assert math.isfinite(found)
