"""Weights and tables in exact integers: against the law itself, and against damage that no experiment could show."""

import decimal
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.alias import build_table, noise_table
from dp.errors import ParameterError
from dp.weights import DISCRETE_GAUSSIAN, KINDS, SKELLAM, Weights, draw_distance, noise_weights

UNIT = Fraction(1, 2**128)
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798")
VARIANCES = tuple(Fraction(text) for text in ("1/18446744073709551616", "1/100", "1/2", "1", "9", "355/113", "137"))


def skellam_probability(variance: Fraction, k: int) -> Decimal:
    """The series of `e^-v I_k(v)`, all terms positive: nothing in common with a recurrence."""
    half = Decimal(variance.numerator) / Decimal(2 * variance.denominator)
    term = half**k
    for factor in range(2, k + 1):
        term /= factor
    total, j = term, 0
    while term > total * Decimal(10) ** -90:
        j += 1
        term *= half * half / (j * (j + k))
        total += term
    return total * (-2 * half).exp()


def gaussian_probability(variance: Fraction, k: int) -> Decimal:
    value = Decimal(variance.numerator) / Decimal(variance.denominator)

    def mass(x: int) -> Decimal:
        return (-Decimal(x * x) / (2 * value)).exp()

    if value < 10:
        return mass(k) / (1 + 2 * sum(mass(x) for x in range(1, 100)))
    # Poisson summation: the sum over all integers, from its Fourier side.
    dual = sum((-2 * PI * PI * x * x * value).exp() for x in range(1, 4))
    return mass(k) / ((2 * PI * value).sqrt() * (1 + 2 * dual))


def probability(kind: str, variance: Fraction, k: int) -> Fraction:
    with decimal.localcontext(decimal.Context(prec=100)):
        law = skellam_probability if kind == SKELLAM else gaussian_probability
        return Fraction(law(variance, k))


def column_sums(table) -> list[int]:
    """The mass that a table gives to -K, .., K, in units of 2^-128."""
    shift = 128 - table.column_bits
    sums = [0] * (2 * table.half_support + 1)
    for column, (alias, own) in enumerate(table.values.reshape(-1, 2).tolist()):
        edge = (int(table.edges[column]) << 64) + int(table.low_edges[column])
        threshold = edge - (column << shift)
        assert 0 <= threshold < 1 << shift
        sums[own + table.half_support] += threshold
        sums[alias + table.half_support] += (1 << shift) - threshold
    return sums


def both_sides(weights: Weights) -> list[int]:
    return [*weights.half[:0:-1], *weights.half]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_weights_are_within_half_a_unit_of_the_law_and_all_of_them_within_the_stated_distance(kind, variance):
    weights = noise_weights(kind, variance)
    probabilities = [probability(kind, variance, k) for k in range(weights.half_support + 1)]
    errors = [weight * UNIT - exact for weight, exact in zip(weights.half, probabilities, strict=True)]
    slack = Fraction(1, 2**170)
    assert all(abs(error) <= UNIT / 2 + slack for error in errors[1:])
    beyond = 1 - 2 * sum(probabilities) + probabilities[0]
    distance = (2 * sum(map(abs, errors)) - abs(errors[0]) + beyond) / 2
    assert distance <= weights.distance + Fraction(1, 2**200)
    # The bound is no more than what it covers, rounded up to its grid, and small.
    assert weights.distance - distance < Fraction(1, 2**158)
    assert weights.distance <= (Fraction(weights.half_support, 2) + 8) * UNIT


@pytest.mark.parametrize("variance", [Fraction(70756), Fraction(10**6), Fraction(123_456_789, 77_777)], ids=str)
def test_weights_of_large_variances_agree_with_the_law_at_the_mode_in_the_bulk_and_in_the_tail(variance):
    for kind in KINDS:
        weights = noise_weights(kind, variance)
        reach = weights.half_support
        spots = (1, reach // 3, reach) if kind == DISCRETE_GAUSSIAN or variance < 10**5 else ()
        for k in spots:
            assert abs(weights.half[k] * UNIT - probability(kind, variance, k)) <= UNIT * Fraction(51, 100)
        assert weights.distance <= (Fraction(reach, 2) + 8) * UNIT
        assert list(weights.half) == sorted(weights.half, reverse=True)


@pytest.mark.parametrize("variance", [Fraction(70756), Fraction(2**26)], ids=str)
def test_weights_of_large_skellam_variances_obey_the_recurrence_and_have_the_variance(variance):
    weights = noise_weights(SKELLAM, variance)
    half, reach = weights.half, weights.half_support
    for k in (*range(1, 50), *range(50, reach, 97)):
        # p_(k-1) - p_(k+1) = (2k/v) p_k; each weight is off by half a unit, the mode by up to K/2.
        off = half[k - 1] - half[k + 1] - 2 * k * half[k] / variance
        assert abs(off) <= (reach if k == 1 else 1 + k / variance)
    moment = Fraction(2 * sum(k * k * weight for k, weight in enumerate(half)), 2**128)
    assert abs(moment / variance - 1) < Fraction(1, 2**100)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance", [*VARIANCES, Fraction(70756), Fraction(4_000_001, 3)], ids=str)
def test_the_columns_of_the_table_add_up_to_every_weight_exactly(kind, variance):
    assert column_sums(noise_table(kind, variance)) == both_sides(noise_weights(kind, variance))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 2**121 - 1) | st.integers(1, 40), max_size=60))
def test_the_columns_of_the_table_of_any_weights_add_up_to_them(tail):
    weights = Weights(SKELLAM, Fraction(1), (2**128 - 2 * sum(tail), *tail), Fraction(0))
    table = build_table(weights)
    assert column_sums(table) == both_sides(weights)
    assert np.abs(table.values).max() == weights.half_support
    assert len(table.edges) == len(table.low_edges) == len(table.values) // 2 == 2**table.column_bits


@pytest.mark.parametrize("half", [(2**127, 2**126), (2**126, 2**126, 2**125), (2**128 - 2 * 2**125, 2**125)])
def test_weights_that_fill_a_column_exactly_are_reproduced_too(half):
    weights = Weights(SKELLAM, Fraction(1), half, Fraction(0))
    assert column_sums(build_table(weights)) == both_sides(weights)


def test_the_stacks_are_filled_and_emptied_in_the_published_order():
    """Capacity 8, masses 4 4 8 32 8 4 4 0: column 7 empties column 4, whose value is 1, and 0 fills all others."""
    unit = 2**122
    table = build_table(Weights(SKELLAM, Fraction(1), (32 * unit, 8 * unit, 4 * unit, 4 * unit), Fraction(0)))
    edges = [(int(high) << 64) + int(low) for high, low in zip(table.edges, table.low_edges, strict=True)]
    columns = [(edge - 8 * column * unit) // unit for column, edge in enumerate(edges)]
    assert columns == [4, 4, 0, 0, 0, 4, 4, 0]
    assert table.values.reshape(-1, 2)[:, 0].tolist() == [0, 0, -1, 0, 0, 0, 0, 1]


def test_a_law_that_only_draws_zero_still_has_a_table_with_two_columns():
    table = noise_table(DISCRETE_GAUSSIAN, Fraction(1, 2**64))
    assert table.half_support == 0
    assert table.column_bits == 1
    assert not table.values.any()


def test_weights_that_came_through_float64_are_told_from_the_exact_ones():
    weights = noise_weights(SKELLAM, Fraction(9))
    tail = [int(float(weight)) for weight in weights.half[1:]]
    rounded = Weights(SKELLAM, Fraction(9), (2**128 - 2 * sum(tail), *tail), weights.distance)
    table = build_table(rounded)
    assert column_sums(table) != both_sides(weights)
    assert table.digest != noise_table(SKELLAM, Fraction(9)).digest
    moved = sum(abs(a - b) for a, b in zip(both_sides(rounded), both_sides(weights), strict=True)) / 2 * UNIT
    assert moved > 2**60 * weights.distance


def test_one_column_changed_in_its_last_bit_is_told_from_the_exact_one():
    table = noise_table(SKELLAM, Fraction(9))
    low = table.low_edges.copy()
    low[5] ^= np.uint64(1)
    damaged = type(table)(**{name: getattr(table, name) for name in table.__slots__} | {"low_edges": low})
    assert column_sums(damaged) != both_sides(noise_weights(SKELLAM, Fraction(9)))


def test_the_largest_table_has_two_to_the_eighteen_columns_and_fits_int32():
    table = noise_table(SKELLAM, Fraction(2**26))
    assert table.column_bits == 18
    assert table.values.dtype == np.int32
    assert column_sums(table) == both_sides(noise_weights(SKELLAM, Fraction(2**26)))


def test_the_digest_names_kind_variance_and_columns():
    digests = {noise_table(kind, variance).digest for kind in KINDS for variance in VARIANCES}
    assert len(digests) == 2 * len(VARIANCES)
    same = noise_weights(SKELLAM, Fraction(9))
    renamed = Weights(DISCRETE_GAUSSIAN, same.variance, same.half, same.distance)
    assert build_table(renamed).digest != build_table(same).digest == noise_table(SKELLAM, Fraction(9)).digest


def test_tables_cannot_be_written_to():
    table = noise_table(SKELLAM, Fraction(9))
    for array in (table.edges, table.low_edges, table.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_draw_distance_is_that_of_the_weights_and_of_the_table():
    for kind in KINDS:
        distance = draw_distance(kind, Fraction(900))
        assert distance == noise_weights(kind, Fraction(900)).distance == noise_table(kind, Fraction(900)).draw_distance
        assert 100 * UNIT < distance < 110 * UNIT


@pytest.mark.parametrize("function", [noise_weights, noise_table, draw_distance])
@pytest.mark.parametrize(
    ("kind", "variance", "field"),
    [
        ("gaussian", Fraction(1), "kind"),
        ("", Fraction(1), "kind"),
        (SKELLAM, Fraction(0), "variance"),
        (SKELLAM, Fraction(-1), "variance"),
        (DISCRETE_GAUSSIAN, Fraction(2**26) + Fraction(1, 2**64), "variance"),
        (SKELLAM, Fraction(1, 2**64 + 1), "variance"),
        (SKELLAM, 9, "variance"),
        (SKELLAM, 9.0, "variance"),
        (SKELLAM, float("nan"), "variance"),
        (SKELLAM, "9", "variance"),
        (SKELLAM, True, "variance"),
    ],
)
def test_laws_without_a_table_are_refused_by_name_even_when_an_equal_one_was_made_before(
    function, kind, variance, field
):
    function(SKELLAM, Fraction(9))
    with pytest.raises(ParameterError) as refused:
        function(kind, variance)
    assert refused.value.field == field


@pytest.mark.parametrize("half", [(), (2**128 - 1,), (2**128 - 2, 1, 1), (2**128, 0), (2**128 + 2, -1)])
def test_weights_that_do_not_sum_to_two_to_the_128_are_refused(half):
    with pytest.raises(ParameterError) as refused:
        Weights(SKELLAM, Fraction(1), half, Fraction(0))
    assert refused.value.field == "half"
