"""Conversion to epsilon, against sixty decimal digits, the exact Gaussian curve and a grid of epsilons."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr

from dp.charge import NO_CHARGE, Charge, Spent, delta_of, epsilon_of
from dp.errors import ParameterError
from dp.mechanisms import DistributedSkellam, Gaussian, NoNoise, Skellam
from dp.rdp import ORDERS
from dp.sensitivity import Sensitivity, rounded_squared_norm

PRECISION = 60
DELTA = Fraction(1, 10**5)
MILLION = 2**20
SCALE = 4096
SENSITIVITY = Sensitivity.of_squared_norm(rounded_squared_norm(Fraction(SCALE), Fraction(1), MILLION), MILLION)
with localcontext() as _context:
    _context.prec = PRECISION
    LOG_ORDERS = [Decimal(order).ln() for order in ORDERS]
    LOG_SHRINK = [(1 - 1 / Decimal(order)).ln() for order in ORDERS]

deltas = st.builds(
    lambda mantissa, exponent: Fraction(mantissa, 10**6) / 10**exponent, st.integers(1, 10**6 - 1), st.integers(0, 280)
)
variances = st.floats(-10, 40).map(lambda exponent: Fraction(2.0**exponent))
multipliers = st.floats(-3, 12).map(lambda exponent: Fraction(2.0**exponent))


def wide(value):
    return Decimal(value.numerator) / value.denominator


def skellam(sigma):
    """Central noise of `sigma` clip norms on the grid of the worked example."""
    return Skellam((sigma * SCALE) ** 2, SENSITIVITY)


def exact_epsilon(rdp, delta):
    with localcontext() as context:
        context.prec = PRECISION
        log_delta = wide(delta).ln()
        return max(
            Decimal(0),
            min(
                Decimal(float(r)) + shrink - (log_delta + log_order) / (order - 1)
                for r, order, log_order, shrink in zip(rdp, ORDERS, LOG_ORDERS, LOG_SHRINK, strict=True)
            ),
        )


def exact_delta(charge, epsilon):
    """With the distance paid for."""
    with localcontext() as context:
        context.prec = PRECISION
        exponent = Decimal(epsilon)
        own = min(
            (order - 1) * (Decimal(float(r)) - exponent + shrink) - log_order
            for r, order, log_order, shrink in zip(charge.rdp, ORDERS, LOG_ORDERS, LOG_SHRINK, strict=True)
        )
        return own.exp() + (1 + exponent.exp()) * wide(charge.distance)


def gaussian_curve(multiplier, sessions):
    """The smallest epsilon of the Gaussian mechanism at a delta, by its exact curve: two terms of the normal law."""
    mu = math.sqrt(sessions) / float(multiplier)

    def log_delta(epsilon):
        first = log_ndtr(mu / 2 - epsilon / mu)
        second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
        return first + math.log1p(-math.exp(second - first)) if second < first else -math.inf

    def epsilon(delta):
        low, high = 0.0, 1.0
        if log_delta(low) <= math.log(delta):
            return 0.0
        while log_delta(high) > math.log(delta):
            high *= 2
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if log_delta(middle) > math.log(delta) else (low, middle)
        return low

    return epsilon


def test_the_worked_example_needs_the_noise_that_the_design_gives():
    assert epsilon_of(skellam(Fraction(6432, 10**4)).charge(), DELTA).epsilon == pytest.approx(8, abs=0.001)
    assert epsilon_of(skellam(Fraction(6432, 10**3)).charge().times(100), DELTA).epsilon == pytest.approx(8, abs=0.001)
    for sigma, sessions in ((Fraction(643, 10**3), 1), (Fraction(643, 10**2), 100)):
        assert epsilon_of(skellam(sigma).charge().times(sessions), DELTA).epsilon == pytest.approx(8, abs=0.005)
        less = skellam(sigma - Fraction(1, 10**3) * (10 if sessions == 100 else 1))
        assert epsilon_of(less.charge().times(sessions), DELTA).epsilon > 8.01


def test_fewer_survivors_cost_what_the_research_found():
    # The variance that costs epsilon 8 with all hundred.
    local = Fraction(6_939_532, 100)
    found = {
        survivors: round(epsilon_of(DistributedSkellam(local, survivors, 0, SENSITIVITY).charge(), DELTA).epsilon, 2)
        for survivors in (100, 95, 90, 80, 70, 67, 50, 34)
    }
    assert found == {100: 8.00, 95: 8.26, 90: 8.55, 80: 9.23, 70: 10.06, 67: 10.30, 50: 12.17, 34: 15.64}


def test_a_client_in_ten_of_a_hundred_sessions_has_spent_what_its_ten_add_up_to():
    one = skellam(Fraction(6432, 10**3)).charge()
    population = sum([one] * 100, NO_CHARGE)
    participant = sum([one] * 10, NO_CHARGE)
    assert epsilon_of(population, DELTA).epsilon == pytest.approx(8.00, abs=0.005)
    assert epsilon_of(participant, DELTA).epsilon == pytest.approx(2.15, abs=0.005)


@pytest.mark.parametrize(
    ("multiplier", "sessions", "delta", "integer_orders", "exact"),
    [
        (Fraction(7, 10), 1, Fraction(1, 10**5), 7.1695, 6.6525),
        (Fraction(5), 100, Fraction(1, 10**5), 10.8017, 9.9973),
        (Fraction(8), 100, Fraction(1, 10**6), 6.7346, 6.3121),
    ],
)
def test_the_gaussian_costs_what_the_research_found(multiplier, sessions, delta, integer_orders, exact):
    charge = Gaussian(multiplier).charge().times(sessions)
    assert epsilon_of(charge, delta).epsilon == pytest.approx(integer_orders, abs=5.1e-5)
    assert gaussian_curve(multiplier, sessions)(float(delta)) == pytest.approx(exact, abs=5.1e-5)


@settings(max_examples=150, deadline=None)
@given(multipliers, st.integers(1, 1000), st.floats(1e-12, 0.1))
def test_epsilon_is_never_below_the_exact_gaussian_curve(multiplier, sessions, delta):
    found = epsilon_of(Gaussian(multiplier).charge().times(sessions), Fraction(delta)).epsilon
    assert found >= gaussian_curve(multiplier, sessions)(delta) * (1 - 1e-9)


@settings(max_examples=150, deadline=None)
@given(st.floats(-3, 8), st.integers(1, 1000), st.floats(1e-12, 0.1))
def test_skellam_is_never_below_the_exact_gaussian_curve(exponent, sessions, delta):
    variance = Fraction(2.0 ** (2 * exponent)) * SENSITIVITY.squared_l2
    found = epsilon_of(Skellam(variance, SENSITIVITY).charge().times(sessions), Fraction(delta)).epsilon
    multiplier = math.sqrt(variance / SENSITIVITY.squared_l2)
    assert found >= gaussian_curve(multiplier, sessions)(delta) * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(variances, st.integers(1, 10**6), st.integers(1, 2**32), deltas)
def test_epsilon_is_never_below_sixty_digits_and_close_to_them(variance, squared, dimension, delta):
    charge = Skellam(variance, Sensitivity.of_squared_norm(squared, dimension)).charge()
    exact = exact_epsilon(charge.rdp, delta)
    found = Decimal(epsilon_of(charge, delta).epsilon)
    assert found >= exact
    # Where the terms cancel, fp64 keeps an absolute precision.
    assert found <= exact * (1 + Decimal("1e-9")) + Decimal("1e-11")


@settings(max_examples=40, deadline=None)
@given(multipliers, st.integers(1, 100), st.floats(0, 50))
def test_delta_is_never_below_sixty_digits_and_close_to_them(multiplier, sessions, epsilon):
    charge = Gaussian(multiplier).charge().times(sessions)
    exact = exact_delta(charge, epsilon)
    found = Decimal(delta_of(charge, epsilon))
    assert found >= min(exact, 1)
    if exact > Decimal("1e-300"):
        assert found <= exact * (1 + Decimal("1e-7"))


def test_the_order_that_is_named_gives_that_epsilon():
    charge = skellam(Fraction(643, 10**3)).charge()
    spent = epsilon_of(charge, DELTA)
    r = float(charge.rdp[ORDERS.index(spent.order)])
    log_delta = math.log(DELTA)
    by_hand = r + math.log1p(-1 / spent.order) - (log_delta + math.log(spent.order)) / (spent.order - 1)
    assert spent.epsilon == pytest.approx(by_hand, rel=1e-12)
    assert spent.order == 4


def test_nothing_costs_nothing_and_no_noise_costs_everything():
    assert epsilon_of(NO_CHARGE, DELTA) == Spent(0.0, None)
    assert epsilon_of(NoNoise().charge(), DELTA) == Spent(math.inf, None)
    # The highest order alone would make 6e-4 of it.
    assert epsilon_of(NO_CHARGE, Fraction(1, 10**280)) == Spent(0.0, None)
    assert delta_of(NO_CHARGE, 0.0) == 0
    assert delta_of(NoNoise().charge(), 100.0) == 1
    silent = Skellam(Fraction(1), Sensitivity(0, 0, 5), Fraction(1, 10**6)).charge()
    assert epsilon_of(silent, DELTA) == Spent(0.0, None)
    assert epsilon_of(silent, Fraction(1, 10**6)) == Spent(math.inf, None)
    assert epsilon_of(NoNoise().charge() + silent, DELTA) == Spent(math.inf, None)
    assert epsilon_of(NoNoise().charge() + silent, Fraction(1, 2)) == Spent(math.inf, None)


def test_a_charge_too_small_for_its_delta_is_zero_epsilon_and_names_an_order():
    spent = epsilon_of(Gaussian(Fraction(10**6)).charge(), DELTA)
    assert spent.epsilon == 0
    assert spent.order in ORDERS
    beside = Charge(Gaussian(Fraction(10**9)).charge().rdp, Fraction(49, 100))
    assert epsilon_of(beside, Fraction(99, 100)).epsilon == 0
    assert epsilon_of(beside, Fraction(98, 100)).epsilon == math.inf


@pytest.mark.parametrize(
    "distance", [Fraction(1, 2**64), Fraction(1, 10**12), Fraction(1, 10**9), Fraction(13, 10**10)]
)
@pytest.mark.parametrize("sigma", [Fraction(643, 10**3), Fraction(2)])
def test_a_distance_is_paid_from_delta_and_no_more_epsilon_than_needed(distance, sigma):
    ideal = skellam(sigma).charge()
    charge = Charge(ideal.rdp, distance)
    found = epsilon_of(charge, DELTA)
    assert found.epsilon > epsilon_of(ideal, DELTA).epsilon
    assert exact_delta(charge, found.epsilon) <= wide(DELTA)
    assert exact_delta(charge, found.epsilon * (1 - 2e-12)) > wide(DELTA)


def smallest_on_a_grid(charge, delta, grid):
    """The first epsilon that the sum allows; infinite when none does."""
    orders = np.array(ORDERS, dtype=np.float64)[:60]
    fixed = (orders - 1) * (charge.rdp[:60] + np.log1p(-1 / orders)) - np.log(orders)
    own = np.exp((fixed[:, None] - (orders - 1)[:, None] * grid).min(axis=0))
    good = np.flatnonzero(own + (1 + np.exp(grid)) * float(charge.distance) <= float(delta))
    return float(grid[good[0]]) if good.size else math.inf


@settings(max_examples=60, deadline=None)
@given(st.integers(400, 3000), st.floats(-14, -5))
def test_distances_of_all_sizes_cost_what_a_grid_of_epsilons_finds(sigma_milli, exponent):
    charge = Charge(skellam(Fraction(sigma_milli, 1000)).charge().rdp, Fraction(10.0**exponent))
    grid = np.linspace(0, 20, 20_001)
    expected = smallest_on_a_grid(charge, DELTA, grid)
    found = epsilon_of(charge, DELTA)
    if math.isinf(found.epsilon):
        # Between two points of the grid there may be room that neither shows, never the other way round.
        assert math.isinf(expected)
        assert found.order is None
    else:
        assert expected == pytest.approx(found.epsilon, abs=0.0011) or math.isinf(expected)
        assert exact_delta(charge, found.epsilon) <= wide(DELTA)


def test_epsilon_grows_with_the_distance_until_there_is_none():
    rdp = skellam(Fraction(643, 10**3)).charge().rdp
    epsilons = [
        epsilon_of(Charge(rdp, distance), DELTA).epsilon
        for distance in (Fraction(0), Fraction(1, 10**20), *(Fraction(k, 10**10) for k in (1, 3, 9, 12)))
    ]
    assert epsilons == sorted(set(epsilons))
    assert math.isfinite(epsilons[-1])
    for distance in (Fraction(2, 10**9), Fraction(1, 10**6), DELTA / 2, DELTA, Fraction(1), Fraction(50)):
        assert epsilon_of(Charge(rdp, distance), DELTA) == Spent(math.inf, None)


@pytest.mark.parametrize("sigma", [Fraction(1, 2), Fraction(643, 10**3), Fraction(3)])
@pytest.mark.parametrize("delta", [DELTA, Fraction(1, 10**120)])
def test_the_largest_distance_that_leaves_an_epsilon_is_found_and_holds(sigma, delta):
    rdp = skellam(sigma).charge().rdp
    low, high = Fraction(0), delta
    while high > low * (1 + Fraction(1, 10**14)):
        middle = (low + high) / 2
        low, high = (middle, high) if math.isfinite(epsilon_of(Charge(rdp, middle), delta).epsilon) else (low, middle)
    for distance in (low, low * (1 - Fraction(1, 10**12)), low * (1 - Fraction(1, 10**6))):
        charge = Charge(rdp, distance)
        epsilon = epsilon_of(charge, delta).epsilon
        assert exact_delta(charge, epsilon) <= wide(delta)
    # A little more, and no epsilon near the last one holds.
    charge = Charge(rdp, low * (1 + Fraction(1, 10**8)))
    assert all(exact_delta(charge, epsilon * (1 + k * 1e-6)) > wide(delta) for k in range(-20, 21))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_an_epsilon_that_was_not_reached_does_not_count(monkeypatch, steps):
    monkeypatch.setattr("dp.charge._NEWTON_STEPS", steps)
    charge = Charge(skellam(Fraction(643, 10**3)).charge().rdp, Fraction(1, 10**9))
    epsilon = epsilon_of(charge, DELTA).epsilon
    assert math.isinf(epsilon) or exact_delta(charge, epsilon) <= wide(DELTA)


def test_a_distance_far_below_what_floats_hold_is_still_charged():
    charge = Charge(Gaussian(Fraction(1)).charge().rdp, Fraction(1, 10**300))
    tiny = Fraction(1, 10**280)
    free = epsilon_of(Charge(charge.rdp, Fraction(0)), tiny).epsilon
    found = epsilon_of(charge, tiny).epsilon
    # The price is some 6e-5 of this delta.
    assert free * (1 + 1e-9) < found <= free * (1 + 1e-5)
    assert epsilon_of(charge, Fraction(1, 10**299)).epsilon == math.inf


def test_without_a_distance_epsilon_is_the_closed_form():
    for delta in (DELTA, Fraction(1, 2), Fraction(1, 10**280), 1 - Fraction(1, 10**30)):
        charge = Gaussian(Fraction(1, 2)).charge()
        exact = exact_epsilon(charge.rdp, delta)
        found = Decimal(epsilon_of(charge, delta).epsilon)
        assert exact <= found <= exact * (1 + Decimal("1e-12"))


@settings(max_examples=40, deadline=None)
@given(multipliers, st.floats(1e-9, 0.01), st.sampled_from([Fraction(0), Fraction(1, 2**64), Fraction(1, 10**15)]))
def test_delta_is_the_inverse_of_epsilon(multiplier, delta, distance):
    charge = Charge(Gaussian(multiplier).charge().rdp, distance)
    spent = epsilon_of(charge, Fraction(delta))
    if math.isinf(spent.epsilon):
        assert math.isinf(smallest_on_a_grid(charge, Fraction(delta), np.linspace(0, 40, 4001)))
    elif spent.epsilon == 0:
        assert delta_of(charge, 0.0) <= delta
    else:
        assert delta_of(charge, spent.epsilon) == pytest.approx(delta, rel=1e-5)
        assert float(exact_delta(charge, spent.epsilon)) <= delta
        assert delta_of(charge, spent.epsilon * 1.001) < delta


def test_delta_charges_the_distance():
    charge = Charge(Gaussian(Fraction(1)).charge().rdp, Fraction(1, 10**6))
    without = delta_of(Charge(charge.rdp, Fraction(0)), 3.0)
    assert delta_of(charge, 3.0) == pytest.approx(without + (1 + math.exp(3)) * 1e-6, rel=1e-9)
    assert delta_of(charge, 1e6) == 1


@pytest.mark.parametrize(
    "delta", [Fraction(0), Fraction(1), Fraction(2), Fraction(-1, 5), 1e-5, float("nan"), 0, True, "1/2", None]
)
def test_a_delta_that_is_no_probability_is_refused(delta):
    with pytest.raises(ParameterError, match=r"^delta: "):
        epsilon_of(NO_CHARGE, delta)


@pytest.mark.parametrize("epsilon", [-1.0, float("nan"), float("inf"), -math.inf, True, "3", None, Fraction(3)])
def test_an_epsilon_that_is_none_is_refused(epsilon):
    with pytest.raises(ParameterError, match=r"^epsilon: "):
        delta_of(NO_CHARGE, epsilon)
