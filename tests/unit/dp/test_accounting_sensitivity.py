"""Sensitivity after rounding, against fractions and real vectors."""

from decimal import Decimal, localcontext
from fractions import Fraction
from math import floor, isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.errors import ParameterError
from dp.sensitivity import Sensitivity, rounded_squared_norm

norms = st.fractions(Fraction(1, 10**6), 10**6, max_denominator=10**6)


def test_the_worked_example_comes_out():
    squared = rounded_squared_norm(Fraction(4096), Fraction(1), 2**20)
    assert squared == 17_043_968
    assert Sensitivity.of_squared_norm(squared, 2**20) == Sensitivity(17_043_968, 4_227_517, 2**20)


def test_a_scale_of_four_root_d_over_the_clip_norm_inflates_by_less_than_one_percent():
    for log_dimension in (14, 20, 26):
        length = 4 * 2 ** (log_dimension // 2)
        squared = rounded_squared_norm(Fraction(length, 3), Fraction(3), 2**log_dimension)
        assert length**2 < squared < 1.02 * length**2


@settings(max_examples=300, deadline=None)
@given(norms, norms, st.integers(1, 2**32))
def test_the_rounded_norm_is_the_floor_of_the_smaller_bound(scale, clip, dimension):
    length = scale * clip
    with localcontext() as context:
        context.prec = 120
        x = Decimal(length.numerator) / length.denominator
        root = Decimal(dimension).sqrt()
        bounds = ((x + root) ** 2, x * x + Decimal(dimension) / 4 + x + root / 2)
        expected = floor(min(bounds))
    assert rounded_squared_norm(scale, clip, dimension) == expected


def test_short_vectors_in_few_dimensions_round_as_bounded():
    # (1/16)^2 + 1/4 + 1/16 + 1/2 = 0.82; 9 + 1/4 + 3 + 1/2 = 12.75; 1/10000 + 1 + 1/100 + 1 = 2.01.
    assert rounded_squared_norm(Fraction(1, 16), Fraction(1), 1) == 0
    assert rounded_squared_norm(Fraction(3), Fraction(1), 1) == 12
    assert rounded_squared_norm(Fraction(1, 100), Fraction(1), 4) == 2


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=50))
def test_no_integer_vector_exceeds_the_l1_bound_of_its_squared_norm(values):
    squared = sum(value * value for value in values)
    sensitivity = Sensitivity.of_squared_norm(squared, len(values))
    assert sensitivity.l1 >= sum(map(abs, values))
    assert sensitivity.l1 <= min(isqrt(len(values) * squared) + 1, squared)


def test_the_l1_bound_is_rounded_up_and_reached():
    assert Sensitivity.of_squared_norm(2, 2).l1 == 2
    assert Sensitivity.of_squared_norm(100, 3).l1 == 18
    assert Sensitivity.of_squared_norm(9 * 16, 16).l1 == 48
    assert Sensitivity.of_squared_norm(5, 2**32).l1 == 5
    assert Sensitivity.of_squared_norm(0, 7).l1 == 0


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("squared_l2", (-1, 1, 1)),
        ("squared_l2", (2**48, 2**48 - 1, 1)),
        ("squared_l2", (True, 1, 1)),
        ("squared_l2", (float("nan"), 1, 1)),
        ("squared_l2", (4.0, 2, 1)),
        ("squared_l2", (np.int64(4), 2, 1)),
        ("squared_l2", (10**5000, 2, 1)),
        ("l1", (4, -1, 1)),
        ("l1", (4, 2**48, 1)),
        ("l1", (4, 1, 1)),
        ("l1", (4, 2.0, 1)),
        ("l1", (4, False, 1)),
        ("dimension", (4, 2, 0)),
        ("dimension", (4, 2, 2**32 + 1)),
        ("dimension", (4, 2, "4")),
        ("dimension", (4, 2, None)),
    ],
)
def test_a_sensitivity_that_cannot_be_is_refused_by_its_field(field, values):
    with pytest.raises(ParameterError) as refused:
        Sensitivity(*values)
    assert refused.value.field == field
    assert str(refused.value) == f"{field}: {refused.value.reason}"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("scale", (Fraction(0), Fraction(1), 1)),
        ("scale", (Fraction(-1), Fraction(1), 1)),
        ("scale", (float("nan"), Fraction(1), 1)),
        ("scale", (float("inf"), Fraction(1), 1)),
        ("scale", (4096, Fraction(1), 1)),
        ("scale", (Fraction(2**129), Fraction(1), 1)),
        ("clip", (Fraction(1), Fraction(0), 1)),
        ("clip", (Fraction(1), 1.0, 1)),
        ("clip", (Fraction(1), Fraction(1, 2**129), 1)),
        ("clip", (Fraction(1), Fraction(2**1025 + 1, 2**1025), 1)),
        ("dimension", (Fraction(1), Fraction(1), 0)),
        ("dimension", (Fraction(1), Fraction(1), 2**33)),
    ],
)
def test_a_rounded_norm_of_nonsense_is_refused_by_its_field(field, values):
    with pytest.raises(ParameterError) as refused:
        rounded_squared_norm(*values)
    assert refused.value.field == field


def test_a_squared_norm_beyond_the_limit_is_refused_where_it_is_used():
    squared = rounded_squared_norm(Fraction(2**24), Fraction(1), 1)
    with pytest.raises(ParameterError, match="squared_l2"):
        Sensitivity.of_squared_norm(squared, 1)
