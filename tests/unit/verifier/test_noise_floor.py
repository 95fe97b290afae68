"""The noise floor: its numbers, and that honest sums stay above it whatever signal is below them."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from dp.weights import DISCRETE_GAUSSIAN, SKELLAM, noise_weights
from verifier.noise_floor import RARITY_BITS, noise_floor, sum_of_squares

RUNS = 4000


def moments(kind, variance):
    """E Z^2 and E Z^4, from exact weights."""
    half = noise_weights(kind, variance).half
    return [float(Fraction(2 * sum(weight * k**n for k, weight in enumerate(half)), 1 << 128)) for n in (2, 4)]


@pytest.mark.parametrize("variance", [Fraction(1, 7), Fraction(3), Fraction(1000)])
def test_skellam_noise_has_the_moments_that_the_floor_counts_on(variance):
    mu = float(variance)
    assert moments(SKELLAM, variance) == pytest.approx([mu, 3 * mu**2 + mu], rel=1e-12)


@pytest.mark.parametrize("variance", [Fraction(4), Fraction(9, 2), Fraction(1000)])
def test_discrete_gaussian_noise_is_covered_by_the_same_numbers(variance):
    mu = float(variance)
    second, fourth = moments(DISCRETE_GAUSSIAN, variance)
    assert second == pytest.approx(mu, rel=1e-12)
    assert fourth == pytest.approx(3 * mu**2, rel=1e-12)
    assert fourth <= 3 * mu**2 + mu


@pytest.mark.parametrize(("variance", "least"), [(1.0, 222), (10.0, 172), (1e12, 167)])
def test_there_is_a_floor_from_so_many_coordinates_on(variance, least):
    assert noise_floor(least - 1, variance) <= 0 < noise_floor(least, variance)


def test_the_floor_comes_close_to_all_of_the_noise_where_coordinates_are_many():
    assert noise_floor(10**6, 1e4) == pytest.approx(1e10, rel=0.013)
    assert RARITY_BITS == 40


def signals(dimension, deviation):
    """All else in a sum: nothing; one large coordinate; some everywhere; as unhelpful as the cross term allows."""
    rng = np.random.default_rng(5)
    yield np.zeros(dimension, dtype=np.int64)
    yield np.eye(1, dimension, dtype=np.int64)[0] * math.ceil(3 * deviation)
    yield np.full(dimension, math.ceil(deviation / 2), dtype=np.int64)
    yield np.full(dimension, math.ceil(2 * deviation / math.sqrt(dimension)), dtype=np.int64)
    yield rng.integers(-2, 3, dimension)


@pytest.mark.parametrize("mu", [0.3, 2.0, 400.0])
@pytest.mark.parametrize("dimension", [64, 512])
@pytest.mark.parametrize("bits", [1, 3])
def test_honest_sums_fall_below_no_more_often_than_the_bound_says(mu, dimension, bits):
    """At rarities that can be measured; the same inequality gives 2^-40."""
    rng = np.random.default_rng([dimension, bits, int(10 * mu)])
    floor = noise_floor(dimension, mu, bits)
    for signal in signals(dimension, math.sqrt(mu)):
        noise = rng.poisson(mu / 2, (RUNS, dimension)) - rng.poisson(mu / 2, (RUNS, dimension))
        below = np.count_nonzero((np.square(noise + signal)).sum(axis=1) < floor)
        assert below / RUNS <= 2.0**-bits


@pytest.mark.parametrize("mu", [0.3, 2.0, 400.0])
def test_no_honest_sum_falls_below_the_floor_itself(mu):
    rng = np.random.default_rng(int(10 * mu))
    floor = noise_floor(1024, mu)
    for signal in signals(1024, math.sqrt(mu)):
        noise = rng.poisson(mu / 2, (RUNS, 1024)) - rng.poisson(mu / 2, (RUNS, 1024))
        assert (np.square(noise + signal)).sum(axis=1).min() >= floor


@pytest.mark.parametrize("kind", [SKELLAM, DISCRETE_GAUSSIAN])
def test_no_window_is_as_likely_as_the_one_around_zero(kind):
    """What makes the signal irrelevant, on exact weights."""
    half = noise_weights(kind, Fraction(9, 2)).half
    weights = [*half[:0:-1], *half]
    padded = [0] * len(weights) + weights + [0] * len(weights)
    for radius in range(len(half)):
        width = 2 * radius + 1
        windows = [sum(padded[start : start + width]) for start in range(len(padded) - width)]
        assert max(windows) == windows[len(padded) // 2 - radius]


def test_squares_are_added_in_blocks_to_fp64():
    values = np.random.default_rng(1).integers(-(2**40), 2**40, 200_000)
    exact = sum(value * value for value in values.tolist())
    assert sum_of_squares(values) == pytest.approx(exact, rel=2**-30)
    assert sum_of_squares(values[:0]) == 0
