"""Divergences at integer orders, against sixty decimal digits and against sums over the lattice."""

import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive, logsumexp

from dp.errors import ParameterError
from dp.rdp import ORDERS, discrete_gaussian_excess, discrete_gaussian_rdp, gaussian_rdp, skellam_rdp
from dp.sensitivity import Sensitivity

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
# What is added to be outward is 9e-13, and twice as much inside tau.
CLOSE = Decimal("4e-12")
# Every scale of order, and both ends.
SAMPLE = sorted({0, 1, 2, 3, 8, 31, 100, 511, 2046, 4094, 4095, 4300, len(ORDERS) - 1})


def wide(value):
    return Decimal(value.numerator) / value.denominator


@st.composite
def sensitivities(draw):
    dimension = draw(st.sampled_from([1, 2, 1000, 2**20, 2**32]) | st.integers(1, 2**32))
    squared = draw(st.integers(1, 100) | st.integers(1, 2**48 - 1))
    if draw(st.booleans()):
        return Sensitivity.of_squared_norm(squared, dimension)
    return Sensitivity(squared, draw(st.integers(math.isqrt(squared) + 1, 2**48 - 1)), dimension)


@st.composite
def positive(draw, least, most):
    """Evenly over the orders of magnitude, with a denominator."""
    exponent = draw(st.floats(math.log2(least), math.log2(most)))
    value = Fraction(2.0**exponent).limit_denominator(draw(st.sampled_from([1, 3, 10**4, 2**60])))
    return min(max(value, Fraction(least)), Fraction(most))


def exact_skellam(order, variance, sensitivity):
    a, mu = Decimal(order), wide(variance)
    squared, l1 = Decimal(sensitivity.squared_l2), Decimal(sensitivity.l1)
    correction = min(((2 * a - 1) * squared + 6 * l1) / (4 * mu * mu), 3 * l1 / (2 * mu))
    return a * squared / (2 * mu) + correction


def exact_excess(sigma_squared, clients):
    total = Decimal(0)
    for k in range(1, clients):
        total += (-2 * PI * PI * wide(sigma_squared) * k / (k + 1)).exp()
    return 10 * total


def exact_discrete_gaussian(order, sigma_squared, clients, sensitivity):
    a, tau, d = Decimal(order), exact_excess(sigma_squared, clients), Decimal(sensitivity.dimension)
    squared, l1, variance = Decimal(sensitivity.squared_l2), Decimal(sensitivity.l1), clients * wide(sigma_squared)
    return min(
        a * squared / (2 * variance) + tau * d,
        a / 2 * (squared / variance + 2 * l1 * tau / variance.sqrt() + tau * tau * d),
        a / 2 * ((squared / variance).sqrt() + d.sqrt() * tau) ** 2,
    )


def assert_outward(computed, exact):
    assert Decimal(computed) >= exact
    assert Decimal(computed) <= exact * (1 + CLOSE)


def test_orders_are_integers_without_gaps_up_to_2048_and_reach_a_million():
    assert ORDERS[:2047] == tuple(range(2, 2049))
    assert list(ORDERS) == sorted(set(ORDERS))
    assert all(type(order) is int for order in ORDERS)
    assert ORDERS[-1] == 2**20
    ratios = [after / before for before, after in itertools.pairwise(ORDERS[2046:])]
    assert max(ratios) < 1.02


@settings(max_examples=150, deadline=None)
@given(positive(2.0**-20, 2.0**100), sensitivities())
def test_skellam_is_never_below_sixty_digits_and_close_to_them(variance, sensitivity):
    computed = skellam_rdp(variance, sensitivity)
    with localcontext() as context:
        context.prec = 60
        for index in SAMPLE:
            assert_outward(float(computed[index]), exact_skellam(ORDERS[index], variance, sensitivity))


@settings(max_examples=60, deadline=None)
@given(positive(4, 2.0**100), st.integers(1, 12) | st.integers(1, 200), sensitivities())
def test_the_discrete_gaussian_is_never_below_sixty_digits_and_close_to_them(sigma_squared, clients, sensitivity):
    computed = discrete_gaussian_rdp(sigma_squared, clients, sensitivity)
    with localcontext() as context:
        context.prec = 60
        for index in SAMPLE[::3]:
            exact = exact_discrete_gaussian(ORDERS[index], sigma_squared, clients, sensitivity)
            assert_outward(float(computed[index]), exact)


# Where the second, the third, and at high orders the first is the smallest, by more than is added to be outward.
@pytest.mark.parametrize(
    "sensitivity", [Sensitivity(1, 1, 2**32), Sensitivity(1, 2**47, 2**10), Sensitivity(1, 2**47, 2**32)]
)
def test_each_of_the_three_discrete_gaussian_bounds_is_computed_outward(sensitivity):
    with localcontext() as context:
        context.prec = 60
        for clients in (2, 3):
            computed = discrete_gaussian_rdp(Fraction(4), clients, sensitivity)
            for index in SAMPLE:
                exact = exact_discrete_gaussian(ORDERS[index], Fraction(4), clients, sensitivity)
                assert_outward(float(computed[index]), exact)


@settings(max_examples=60, deadline=None)
@given(positive(2.0**-10, 36), st.integers(2, 300))
def test_the_excess_is_never_below_sixty_digits_and_close_to_them(sigma_squared, clients):
    with localcontext() as context:
        context.prec = 60
        assert_outward(discrete_gaussian_excess(sigma_squared, clients), exact_excess(sigma_squared, clients))


@settings(max_examples=100, deadline=None)
@given(positive(2.0**-60, 2.0**60))
def test_the_gaussian_is_never_below_sixty_digits_and_close_to_them(multiplier):
    computed = gaussian_rdp(multiplier)
    with localcontext() as context:
        context.prec = 60
        for index in SAMPLE:
            assert_outward(float(computed[index]), ORDERS[index] / (2 * wide(multiplier) ** 2))


def test_the_excess_over_a_million_coordinates_is_what_the_research_found():
    figures = {Fraction(1): 574, Fraction(9, 4): 2.4e-3, Fraction(4): 7.5e-11, Fraction(9): 2.8e-32}
    for sigma_squared, expected in figures.items():
        assert discrete_gaussian_excess(sigma_squared, 100) * 2**20 == pytest.approx(expected, rel=0.01)
    assert discrete_gaussian_excess(Fraction(4), 1) == 0


def test_an_excess_far_below_what_floats_hold_is_not_zero():
    assert 0 < discrete_gaussian_excess(Fraction(400), 2) < 1e-300
    assert discrete_gaussian_excess(Fraction(2**128), 2**20) > 0


def lattice_divergence(log_p, shift, order):
    """The Rényi divergence of a pmf on a window from the same, moved."""
    p, q = log_p[shift:], log_p[: len(log_p) - shift]
    return float(logsumexp(order * p + (1 - order) * q)) / (order - 1)


@pytest.mark.parametrize("variance", [1, 3, 25, 400])
@pytest.mark.parametrize("shift", [1, 2, 7])
def test_skellam_is_at_least_the_divergence_summed_over_the_lattice(variance, shift):
    # A window in which the probabilities and their ratios are finite in fp64.
    reach = 40 + int(12 * math.sqrt(variance))
    with np.errstate(divide="ignore"):
        log_p = np.log(ive(np.abs(np.arange(-reach, reach + 1)), variance))
    log_p = log_p[np.isfinite(log_p)]
    bound = skellam_rdp(Fraction(variance), Sensitivity(shift**2, shift, 1))
    for order in (2, 3, 4, 8):
        exact = lattice_divergence(log_p, shift, order)
        assert exact <= bound[order - 2]
        if variance == 400:
            assert bound[order - 2] <= 1.02 * exact


@pytest.mark.parametrize("clients", [1, 2, 5])
@pytest.mark.parametrize("shift", [1, 3])
def test_the_discrete_gaussian_is_at_least_the_divergence_summed_over_the_lattice(clients, shift):
    reach = 30
    single = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / 8)
    single /= single.sum()
    total = np.ones(1)
    for _ in range(clients):
        total = np.convolve(total, single)
    half = len(total) // 2
    window = total[half - 25 : half + 26]
    bound = discrete_gaussian_rdp(Fraction(4), clients, Sensitivity(shift**2, shift, 1))
    for order in (2, 3, 4):
        exact = lattice_divergence(np.log(window), shift, order)
        assert exact <= bound[order - 2]
        assert bound[order - 2] <= 1.01 * exact


def test_zero_sensitivity_costs_nothing():
    nothing = Sensitivity(0, 0, 5)
    assert not skellam_rdp(Fraction(3), nothing).any()
    assert not discrete_gaussian_rdp(Fraction(4), 3, nothing).any()
    assert not skellam_rdp(Fraction(3), Sensitivity(0, 9, 5)).any()


@settings(max_examples=50, deadline=None)
@given(positive(1, 2.0**60), sensitivities())
def test_divergences_never_fall_with_the_order_or_rise_with_the_noise(variance, sensitivity):
    less = skellam_rdp(variance, sensitivity)
    more = skellam_rdp(2 * variance, sensitivity)
    assert (np.diff(less) >= 0).all()
    assert (more < less).all()
    assert np.isfinite(less).all()


BAD = [
    float("nan"),
    float("inf"),
    1.0,
    1,
    True,
    "1/2",
    None,
    Fraction(0),
    Fraction(-1),
    Fraction(2**128 + 1),
    Fraction(1, 2**128 + 1),
    Fraction(3**700, 3**700 + 1),
]


@pytest.mark.parametrize("bad", BAD)
def test_a_noise_that_cannot_be_is_refused_by_its_field(bad):
    unit = Sensitivity(1, 1, 1)
    with pytest.raises(ParameterError, match=r"^variance: "):
        skellam_rdp(bad, unit)
    with pytest.raises(ParameterError, match=r"^sigma_squared: "):
        discrete_gaussian_rdp(bad, 2, unit)
    with pytest.raises(ParameterError, match=r"^noise_multiplier: "):
        gaussian_rdp(bad)


@pytest.mark.parametrize("clients", [0, -1, 2**28 + 1, True, 2.0, float("nan"), "2", None])
def test_clients_that_cannot_be_are_refused(clients):
    with pytest.raises(ParameterError, match=r"^clients: "):
        discrete_gaussian_rdp(Fraction(4), clients, Sensitivity(1, 1, 1))


def test_a_discrete_gaussian_narrower_than_two_is_refused():
    with pytest.raises(ParameterError, match=r"^sigma_squared: must be at least 4"):
        discrete_gaussian_rdp(Fraction(399, 100), 2, Sensitivity(1, 1, 1))


@pytest.mark.parametrize("sensitivity", [None, 1, (1, 1, 1)])
def test_what_is_no_sensitivity_is_refused(sensitivity):
    with pytest.raises(ParameterError, match=r"^sensitivity: "):
        skellam_rdp(Fraction(1), sensitivity)
    with pytest.raises(ParameterError, match=r"^sensitivity: "):
        discrete_gaussian_rdp(Fraction(4), 2, sensitivity)


def test_the_extremes_that_are_accepted_stay_finite():
    widest = Sensitivity(2**48 - 1, 2**48 - 1, 2**32)
    for variance in (Fraction(1, 2**128), Fraction(2**128)):
        computed = skellam_rdp(variance, widest)
        assert np.isfinite(computed).all()
        assert (computed > 0).all()
    for sigma_squared, clients in ((Fraction(4), 2**20), (Fraction(2**128), 2**20)):
        assert np.isfinite(discrete_gaussian_rdp(sigma_squared, clients, widest)).all()
