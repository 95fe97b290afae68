"""Conditional rounding: the bound holds for certain, and the check is exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp.errors import ParameterError
from dp.rounding import round_within, squared_norm
from dp.sensitivity import MAX_SQUARED_NORM

INT32 = np.iinfo(np.int32)


def ints(values) -> np.ndarray:
    return np.array(values, dtype=np.int32)


@given(st.lists(st.integers(INT32.min, INT32.max), max_size=50))
def test_the_sum_of_squares_is_that_of_pythons_integers(values):
    assert squared_norm(ints(values)) == sum(value * value for value in values)


def test_blocks_of_the_largest_values_do_not_wrap_around():
    values = np.full((1 << 14) + 3, INT32.min, dtype=np.int32)
    assert squared_norm(values) == values.size * 2**62


def test_a_block_that_just_keeps_the_bound_does_not_wrap_around_either():
    values = np.full(1 << 14, 2**24 - 1, dtype=np.int32)
    assert squared_norm(values) == values.size * (2**24 - 1) ** 2


def test_a_vector_of_exactly_the_bound_is_taken_and_one_above_is_not():
    assert round_within(lambda: ints([3, 4]), 25)[0].tolist() == [3, 4]
    values, failures = round_within(lambda: ints([3, 4]), 24)
    assert (values.tolist(), failures) == ([0, 0], 64)


def test_the_first_rounding_that_is_short_enough_is_taken():
    draws = itertools.chain([[5, 0], [0, 6], [1, 2]], itertools.repeat([9, 9]))
    values, failures = round_within(lambda: ints(next(draws)), 24)
    assert (values.tolist(), failures) == ([1, 2], 2)


def test_after_so_many_attempts_the_vector_counts_as_zero():
    rounded = 0

    def draw() -> np.ndarray:
        nonlocal rounded
        rounded += 1
        return ints([7, -7, 7])

    values, failures = round_within(draw, 100, attempts=5)
    assert (values.tolist(), values.dtype, failures, rounded) == ([0, 0, 0], np.int32, 5, 5)


@given(st.integers(0, 500), st.lists(st.lists(st.integers(-20, 20), min_size=3, max_size=3), min_size=1, max_size=9))
def test_whatever_comes_out_keeps_the_bound(bound, vectors):
    draws = itertools.cycle(vectors)
    values, _ = round_within(lambda: ints(next(draws)), bound)
    assert sum(value * value for value in values.tolist()) <= bound


@pytest.mark.parametrize("bound", [-1, MAX_SQUARED_NORM + 1])
def test_a_bound_that_cannot_be_checked_is_refused(bound):
    with pytest.raises(ParameterError) as caught:
        round_within(lambda: ints([0]), bound)
    assert caught.value.field == "bound"


def test_no_attempt_at_all_is_refused():
    with pytest.raises(ParameterError) as caught:
        round_within(lambda: ints([0]), 1, attempts=0)
    assert caught.value.field == "attempts"


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros(3, dtype=np.int64), np.zeros((2, 2), dtype=np.int32)])
def test_anything_but_a_vector_of_int32_is_refused(values):
    with pytest.raises(ParameterError) as caught:
        squared_norm(values)
    assert caught.value.field == "values"
