"""Draws against the exact laws, by experiment with fixed secrets; damaged tables must fail the same experiments."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from scipy import special, stats

from dp.alias import noise_table
from dp.sampler import NoiseSampler
from dp.weights import DISCRETE_GAUSSIAN, SKELLAM

SECRET = bytes(range(32))
DRAWS = 4 * 2**20
# All secrets are fixed, so these can be far apart: what is right passes, what is damaged fails, on every run.
PASS, FAIL = 1e-3, 1e-9
LAWS = [
    (SKELLAM, Fraction(1, 100)),
    (SKELLAM, Fraction(1)),
    (SKELLAM, Fraction(9)),
    (SKELLAM, Fraction(1234, 7)),
    (SKELLAM, Fraction(70756)),
    (SKELLAM, Fraction(2**24)),
    (DISCRETE_GAUSSIAN, Fraction(1, 4)),
    (DISCRETE_GAUSSIAN, Fraction(4)),
    (DISCRETE_GAUSSIAN, Fraction(70756)),
    (DISCRETE_GAUSSIAN, Fraction(2**24)),
]


def law(kind: str, variance: Fraction) -> np.ndarray:
    """Probabilities of -R, .., R in fp64 from functions that the sampler does not use; what lies beyond is 1e-15."""
    value = float(variance)
    reach = int(9 * value**0.5) + 20
    points = np.arange(-reach, reach + 1, dtype=np.float64)
    masses = special.ive(np.abs(points), value) if kind == SKELLAM else np.exp(-points * points / (2 * value))
    return masses / masses.sum()


def draws_of(table, size=DRAWS, context=b"") -> np.ndarray:
    return NoiseSampler(table, SECRET, context).draw(size)


def histogram(drawn: np.ndarray, reach: int) -> np.ndarray:
    return np.bincount(np.clip(drawn, -reach, reach) + reach, minlength=2 * reach + 1)


def chi_square(drawn: np.ndarray, probabilities: np.ndarray) -> float:
    """The p-value of Pearson's test, over at most some 300 runs of neighbouring values."""
    seen = histogram(drawn, len(probabilities) // 2)
    expected = probabilities * drawn.size
    least = max(50.0, drawn.size / 300)
    cells = np.concatenate([[0], np.cumsum(expected[:-1]) // least]).astype(np.int64)
    seen, expected = np.bincount(cells, seen), np.bincount(cells, expected)
    # A cell that came out small joins its neighbour.
    keep = np.flatnonzero(expected >= 25)
    edges = np.concatenate([[0], keep[1:]])
    seen, expected = np.add.reduceat(seen, edges), np.add.reduceat(expected, edges)
    statistic = float(((seen - expected) ** 2 / expected).sum())
    return float(stats.chi2.sf(statistic, len(seen) - 1))


@pytest.mark.parametrize(("kind", "variance"), LAWS, ids=str)
def test_draws_have_the_exact_law(kind, variance):
    assert chi_square(draws_of(noise_table(kind, variance)), law(kind, variance)) > PASS


def thresholds(table) -> np.ndarray:
    return table.edges & np.uint64((1 << (64 - table.column_bits)) - 1)


def swap_own_values(table, first, second):
    values = table.values.copy()
    values[[2 * first + 1, 2 * second + 1]] = values[[2 * second + 1, 2 * first + 1]]
    return dataclasses.replace(table, values=values)


def swap_thresholds(table, first, second):
    edges, part = table.edges.copy(), thresholds(table)
    edges[[first, second]] += part[[second, first]] - part[[first, second]]
    return dataclasses.replace(table, edges=edges)


def shift_a_threshold(table, first, second):
    """By a quarter of a column's capacity, in the bulk."""
    edges = table.edges.copy()
    edges[second] -= np.uint64(1 << (62 - table.column_bits))
    return dataclasses.replace(table, edges=edges)


def move_an_alias(table, first, second):
    values = table.values.copy()
    values[2 * first] += 1
    return dataclasses.replace(table, values=values)


def exchange_value_and_alias(table, first, second):
    return dataclasses.replace(table, values=table.values.reshape(-1, 2)[:, ::-1].reshape(-1).copy())


def move_all_by_one(table, first, second):
    return dataclasses.replace(table, values=table.values + np.int32(1))


def forget_the_aliases(table, first, second):
    return dataclasses.replace(table, values=np.repeat(table.values[1::2], 2))


DAMAGES = (
    swap_own_values,
    swap_thresholds,
    shift_a_threshold,
    move_an_alias,
    exchange_value_and_alias,
    move_all_by_one,
    forget_the_aliases,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(("kind", "variance"), [(SKELLAM, Fraction(9)), (DISCRETE_GAUSSIAN, Fraction(4))], ids=str)
def test_a_table_with_one_mistake_fails_the_experiment(kind, variance, damage):
    table = noise_table(kind, variance)
    part = thresholds(table)[: 2 * table.half_support + 1]
    first, second = int(part.argmin()), int(part.argmax())
    assert chi_square(draws_of(damage(table, first, second)), law(kind, variance)) < FAIL
    assert chi_square(draws_of(dataclasses.replace(table)), law(kind, variance)) > PASS


@pytest.mark.parametrize("kind", [SKELLAM, DISCRETE_GAUSSIAN])
@pytest.mark.parametrize("variance", [Fraction(9), Fraction(70756), Fraction(2**24)], ids=str)
@pytest.mark.parametrize("factor", [Fraction(101, 100), Fraction(99, 100)], ids=str)
def test_a_variance_that_is_off_by_one_percent_fails_the_experiment(kind, variance, factor):
    drawn = draws_of(noise_table(kind, variance * factor), 2 * DRAWS)
    assert chi_square(drawn, law(kind, variance)) < FAIL


def test_the_two_kinds_of_equal_variance_are_told_apart():
    assert chi_square(draws_of(noise_table(DISCRETE_GAUSSIAN, Fraction(4))), law(SKELLAM, Fraction(4))) < FAIL


@pytest.mark.parametrize(("parts", "variance"), [(2, Fraction(1, 2)), (5, Fraction(2)), (7, Fraction(100, 3))], ids=str)
def test_a_sum_of_skellam_draws_has_the_law_of_the_sum_of_variances(parts, variance):
    table = noise_table(SKELLAM, variance)
    total = np.zeros(DRAWS, dtype=np.int64)
    for part in range(parts):
        NoiseSampler(table, SECRET, b"part %d" % part).add_into(total)
    assert chi_square(total, law(SKELLAM, parts * variance)) > PASS
    # Parts that are equal or lack independence would not add up to it.
    assert chi_square(parts * draws_of(table), law(SKELLAM, parts * variance)) < FAIL


def test_narrow_discrete_gaussians_do_not_add_up_to_one():
    table = noise_table(DISCRETE_GAUSSIAN, Fraction(1, 4))
    total = draws_of(table, context=b"1") + draws_of(table, context=b"2")
    assert chi_square(total, law(DISCRETE_GAUSSIAN, Fraction(1, 2))) < FAIL


TAIL_DRAWS = 2**25


def tail_counts(table, bounds) -> np.ndarray:
    sampler, counts = NoiseSampler(table, SECRET, b"tails"), np.zeros(len(bounds), dtype=np.int64)
    for _ in range(8):
        drawn = np.abs(sampler.draw(TAIL_DRAWS // 8))
        counts += [np.count_nonzero(drawn > bound) for bound in bounds]
    return counts


def two_sided(count: int, expected: float) -> float:
    return 2 * min(stats.poisson.cdf(count, expected), stats.poisson.sf(count - 1, expected))


@pytest.mark.parametrize(
    ("kind", "variance"),
    [(SKELLAM, Fraction(1)), (SKELLAM, Fraction(9)), (SKELLAM, Fraction(70756)), (DISCRETE_GAUSSIAN, Fraction(900))],
    ids=str,
)
def test_draws_beyond_three_four_and_five_sigma_are_as_frequent_as_the_law_says(kind, variance):
    probabilities = law(kind, variance)
    reach, sigma = len(probabilities) // 2, float(variance) ** 0.5
    bounds = [int(c * sigma) for c in (3, 4, 5)]
    expected = [TAIL_DRAWS * 2 * probabilities[reach + bound + 1 :].sum() for bound in bounds]
    counts = tail_counts(noise_table(kind, variance), bounds)
    assert all(two_sided(count, mean) > PASS for count, mean in zip(counts, expected, strict=True))
    assert expected[-1] > 15
    # A table that never draws beyond 4.9 sigma fails, and so does one whose tail is half as heavy again.
    assert two_sided(0, expected[-1]) < 1e-6
    assert two_sided(int(1.5 * expected[-2]), expected[-2]) < FAIL


@pytest.mark.parametrize("variance", [Fraction(1, 100), Fraction(9), Fraction(70756), Fraction(2**26)], ids=str)
def test_mean_and_variance_are_those_of_the_law(variance):
    drawn = draws_of(noise_table(SKELLAM, variance)).astype(np.float64)
    value = float(variance)
    assert abs(drawn.mean()) < 4 * (value / DRAWS) ** 0.5
    # The fourth central moment of Skellam noise is v + 3 v^2.
    assert abs(np.square(drawn).mean() - value) < 4 * ((value + 2 * value**2) / DRAWS) ** 0.5


def dependence(first: np.ndarray, second: np.ndarray) -> float:
    """The p-value of independence in a table of 8 by 8 quantiles."""
    cuts = np.quantile(first, np.arange(1, 8) / 8)
    pairs = 8 * np.searchsorted(cuts, first) + np.searchsorted(cuts, second)
    return float(stats.chi2_contingency(np.bincount(pairs, minlength=64).reshape(8, 8)).pvalue)


@pytest.mark.parametrize("lag", [1, 2, 3, 16, 8192, 16384])
def test_draws_do_not_depend_on_earlier_ones(lag):
    drawn = draws_of(noise_table(SKELLAM, Fraction(70756)), 2**20)
    assert dependence(drawn[:-lag], drawn[lag:]) > PASS
    # Where one draw in a hundred repeats the one `lag` before it, the test sees it.
    repeated = drawn.copy()
    repeated[lag::100] = drawn[:-lag:100]
    assert dependence(repeated[:-lag], repeated[lag:]) < FAIL


def test_draws_of_two_clients_do_not_depend_on_each_other():
    table = noise_table(SKELLAM, Fraction(70756))
    assert dependence(draws_of(table, 2**20, b"client 1"), draws_of(table, 2**20, b"client 2")) > PASS
