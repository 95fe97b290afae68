"""Tails of integer noise against exact probability masses, summed in decimal arithmetic of 60 digits."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.errors import ParameterError
from dp.tails import (
    discrete_gaussian_tail,
    discrete_gaussian_tail_log2,
    noise_reach,
    skellam_tail,
    skellam_tail_log2,
)

TAILS = {"skellam": skellam_tail_log2, "discrete-gaussian": discrete_gaussian_tail_log2}
VARIANCES = [Fraction(1, 100), Fraction(1, 2), Fraction(1), Fraction(5, 2), Fraction(4), Fraction(30), Fraction(900)]


def skellam_masses(variance, most):
    """P(Z = k) for k from 0 to `most`: sum over j of Poisson(j + k) Poisson(j), both of mean variance / 2."""
    rate = Decimal(variance.numerator) / Decimal(variance.denominator) / 2
    last = most + int(variance) + 40 * math.isqrt(int(variance) + 1) + 200
    poisson = [(-rate).exp()]
    for j in range(1, last + 1):
        poisson.append(poisson[-1] * rate / j)
    return [sum(poisson[j + k] * poisson[j] for j in range(last + 1 - k)) for k in range(most + 1)]


def discrete_gaussian_masses(variance, most):
    weights = [(-Decimal(k * k) * variance.denominator / (2 * variance.numerator)).exp() for k in range(most + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    return [weight / total for weight in weights]


def exact_tails(kind, variance, furthest):
    """P(|Z| > t) for t from 0 to `furthest`; what lies so far beyond that it is below 10^-50 of them is left out."""
    masses = {"skellam": skellam_masses, "discrete-gaussian": discrete_gaussian_masses}[kind]
    beyond = furthest + 30 + 4 * math.isqrt(int(variance) + 1)
    with localcontext() as context:
        context.prec = 60
        mass = masses(variance, beyond)
        tails, sum_so_far = [], Decimal(0)
        for k in range(beyond, 0, -1):
            sum_so_far += mass[k]
            tails.append(2 * sum_so_far)
        return tails[::-1][: furthest + 1]


@pytest.mark.parametrize("kind", TAILS)
@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_a_bound_is_never_below_the_exact_tail_and_the_reach_is_near_the_exact_one(kind, variance):
    probability = Fraction(1, 1 << 100)
    reach = noise_reach(kind, variance, probability)
    with localcontext() as context:
        context.prec = 60
        tails = exact_tails(kind, variance, reach)
        for t, exact in enumerate(tails):
            bound = TAILS[kind](variance, t)
            assert Decimal(2) ** Decimal(bound) >= exact, t
        assert tails[reach] <= Decimal(2) ** -100
        # Chernoff's bound gives away a factor of about t/sigma: a few steps at most.
        exact_reach = next(t for t, exact in enumerate(tails) if exact <= Decimal(2) ** -100)
    assert reach - exact_reach <= 2 + math.isqrt(int(variance)) // 4


@pytest.mark.parametrize("kind", TAILS)
def test_the_bound_is_sharp_to_within_a_small_factor_far_out(kind):
    variance, t = Fraction(30), 70
    with localcontext() as context:
        context.prec = 60
        exact = exact_tails(kind, variance, t)[t]
        assert Decimal(2) ** Decimal(TAILS[kind](variance, t)) <= 60 * exact


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(sorted(TAILS)),
    variance=st.fractions(Fraction(1, 10**6), 1 << 26, max_denominator=10**6),
    t=st.integers(0, 10**6),
)
def test_logarithms_follow_the_formulas_in_decimal_arithmetic_from_above(kind, variance, t):
    with localcontext() as context:
        context.prec = 80
        u, mu = Decimal(t + 1), Decimal(variance.numerator) / variance.denominator
        if kind == "skellam":
            root = (u * u + mu * mu).sqrt()
            exponent = u * ((u + root) / mu).ln() - root + mu
        else:
            exponent = u * u / (2 * mu)
        exact = min(Decimal(0), 1 - exponent / Decimal(2).ln())
        bound = Decimal(TAILS[kind](variance, t))
        assert exact <= bound <= exact + Decimal("1e-12") * (1 + abs(exact))


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(sorted(TAILS)),
    variance=st.fractions(Fraction(1, 10**4), 1 << 26, max_denominator=10**4),
    bits=st.integers(1, 200),
)
def test_the_reach_is_the_first_step_whose_bound_is_small_enough(kind, variance, bits):
    reach = noise_reach(kind, variance, Fraction(1, 1 << bits))
    assert TAILS[kind](variance, reach) <= -bits
    assert reach == 0 or TAILS[kind](variance, reach - 1) > -bits - 1e-6


def test_tails_are_probabilities_and_never_zero():
    for tail in (skellam_tail, discrete_gaussian_tail):
        assert tail(Fraction(4), 0) == 1.0
        assert 0 < tail(Fraction(1, 1000), 10**6) < 1e-300
        assert tail(Fraction(4), 20) >= 2.0 ** TAILS["skellam" if tail is skellam_tail else "discrete-gaussian"](
            Fraction(4), 20
        )


def test_a_wider_noise_reaches_further():
    for kind in TAILS:
        reaches = [noise_reach(kind, variance, Fraction(1, 1 << 64)) for variance in VARIANCES]
        assert reaches == sorted(reaches)
        assert reaches[-1] > reaches[0]


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("variance", lambda: skellam_tail_log2(Fraction(0), 1)),
        ("variance", lambda: skellam_tail_log2(Fraction(-1), 1)),
        ("variance", lambda: discrete_gaussian_tail(Fraction(1 << 61), 1)),
        ("variance", lambda: skellam_tail(float("nan"), 1)),
        ("t", lambda: skellam_tail(Fraction(1), -1)),
        ("kind", lambda: noise_reach("binomial", Fraction(1), Fraction(1, 2))),
        ("probability", lambda: noise_reach("skellam", Fraction(1), Fraction(0))),
        ("probability", lambda: noise_reach("skellam", Fraction(1), Fraction(1))),
    ],
)
def test_what_has_no_tail_is_refused_by_name(field, call):
    with pytest.raises(ParameterError) as caught:
        call()
    assert caught.value.field == field
