"""Flattening against a dense Hadamard matrix, its bound, and the choice of when it pays."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith import flatten
from secagg.arith.errors import ArithmeticInputError
from secagg.arith.fields import FieldLayout
from secagg.arith.flatten import Flatten, FlattenBlocks, NoFlatten, flattened_bound, plan_encoding
from secagg.arith.keystream import Keystream

PERMUTATION_KEY, SIGN_KEY = bytes(range(32)), bytes(range(1, 33))


def stream_bytes(key, count):
    raw = np.empty(count, dtype=np.uint8)
    Keystream(key).read_into(raw)
    return raw.tobytes()


def dense_map(permutation_key, sign_key, dimension):
    """The matrix [padded, dimension], from the text of the docstring, in Python integers and lists."""
    block = min(1 << 16, 1 << (dimension - 1).bit_length())
    padded = -(-dimension // block) * block
    raw = stream_bytes(permutation_key, 8 * padded)
    keys = [int.from_bytes(raw[8 * i : 8 * i + 8], "little") for i in range(padded)]
    order = sorted(range(padded), key=lambda i: (keys[i], i))
    bits = stream_bytes(sign_key, -(-padded // 8))
    moved = np.zeros((padded, padded))
    for j, source in enumerate(order):
        moved[j, source] = -1 if bits[j // 8] >> (j % 8) & 1 else 1
    hadamard = np.array([[(-1) ** (a & b).bit_count() for b in range(block)] for a in range(block)])
    whole = np.kron(np.eye(padded // block), hadamard / math.sqrt(block))
    return (whole @ moved)[:, :dimension]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.binary(min_size=32, max_size=32), st.integers(0, 2**32))
def test_the_fast_map_equals_the_dense_matrix_and_its_transpose(dimension, key, seed):
    mapped = Flatten(key, SIGN_KEY[::-1] if key == SIGN_KEY else SIGN_KEY, dimension)
    dense = dense_map(key, SIGN_KEY[::-1] if key == SIGN_KEY else SIGN_KEY, dimension)
    vector = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    forward = mapped.forward(vector)
    assert forward.dtype == np.float32
    assert forward.size == mapped.padded_dimension == dense.shape[0]
    np.testing.assert_allclose(forward, dense @ vector, atol=1e-5)
    back = np.random.default_rng(seed).standard_normal(mapped.padded_dimension)
    np.testing.assert_allclose(mapped.inverse(back), dense.T @ back, atol=1e-12)


def test_several_blocks_equal_the_dense_matrix(monkeypatch):
    monkeypatch.setattr(flatten, "MAX_BLOCK", 8)
    mapped = Flatten(PERMUTATION_KEY, SIGN_KEY, 21)
    assert (mapped.block, mapped.padded_dimension) == (8, 24)
    one_hot = np.stack([mapped.forward(row) for row in np.eye(21, dtype=np.float32)], axis=1)
    np.testing.assert_allclose(one_hot.T @ one_hot, np.eye(21), atol=1e-6)
    back = np.random.default_rng(0).standard_normal(24)
    np.testing.assert_allclose(mapped.inverse(back), one_hot.astype(np.float64).T @ back, atol=1e-6)


@pytest.mark.parametrize("dimension", [1, 2, 3, 1000, 65_536, 65_537, 200_001])
def test_the_inverse_undoes_the_map_and_the_norm_is_kept(dimension):
    mapped = Flatten(PERMUTATION_KEY, SIGN_KEY, dimension)
    vector = np.random.default_rng(1).standard_normal(dimension).astype(np.float32)
    forward = mapped.forward(vector)
    assert np.linalg.norm(forward) == pytest.approx(np.linalg.norm(vector), rel=1e-5)
    before = forward.copy()
    np.testing.assert_allclose(mapped.inverse(forward), vector, atol=1e-5)
    assert (forward == before).all()
    wide = mapped.inverse(forward.astype(np.float64))
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, vector, atol=1e-5)


def test_the_inverse_is_exact_on_integers_before_the_division():
    mapped = Flatten(PERMUTATION_KEY, SIGN_KEY, 65_536)
    sums = np.random.default_rng(2).integers(-(2**30), 2**30, 65_536)
    halved = mapped.inverse(sums.astype(np.float64)) * 256.0
    assert (halved == np.rint(halved)).all()
    # Position j is one row of the Hadamard matrix against the sums, an integer.
    order, signs = mapped._order, mapped._signs
    for j in (0, 1, 40_000, 65_535):
        row = np.bitwise_count(np.arange(65_536) & j) & 1
        assert halved[order[j]] == int(signs[j]) * int(np.where(row == 1, -sums, sums).sum())


def test_ties_in_the_sort_keys_are_broken_by_index():
    keys = np.random.default_rng(5).integers(0, 50, 5000, dtype=np.uint64)
    assert flatten._sort_order(keys).tolist() == sorted(range(5000), key=lambda i: (int(keys[i]), i))
    keys = np.random.default_rng(5).permutation(5000).astype(np.uint64)
    assert flatten._sort_order(keys).tolist() == sorted(range(5000), key=lambda i: int(keys[i]))


def test_coordinates_of_hard_vectors_stay_within_the_bound():
    dimension = 100_000
    mapped = Flatten(PERMUTATION_KEY, SIGN_KEY, dimension)
    bound = float(flattened_bound(Fraction(1), dimension))
    assert bound < 0.04
    spike = np.zeros(dimension, dtype=np.float32)
    spike[12_345] = 1
    flat = mapped.forward(spike)
    # A spike spreads over one block only: b stands below d in the bound, and no smaller value would do.
    assert np.count_nonzero(flat) == 65_536
    assert np.abs(flat).max() == pytest.approx(1 / 256)
    constant = np.full(dimension, 1 / math.sqrt(dimension), dtype=np.float32)
    normal = np.random.default_rng(4).standard_normal(dimension).astype(np.float32)
    for vector in (constant, normal / np.linalg.norm(normal)):
        assert np.abs(mapped.forward(vector)).max() <= bound


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2**34), st.fractions(Fraction(1, 100), 100))
def test_the_bound_is_the_formula_rounded_up_on_its_grid(dimension, norm):
    bound = flattened_bound(norm, dimension)
    block = min(1 << 16, 1 << (dimension - 1).bit_length())
    ratio = bound / norm
    assert (ratio * 2**40).denominator == 1
    formula = math.sqrt(2 * math.log(4 * dimension * 2**40) / block)
    assert float(ratio) == pytest.approx(formula, rel=1e-9)
    assert float(ratio) >= formula * (1 - 1e-14)
    # The union bound over every padded coordinate, as the module's docstring argues it.
    padded = -(-dimension // block) * block
    assert padded <= 2 * dimension
    exponent = float(ratio) ** 2 * block / 2
    assert math.log(2 * padded) - exponent <= -40 * math.log(2) + 1e-9


def test_flattening_is_chosen_when_it_saves_lanes_at_the_same_step():
    plan = plan_encoding(1_000_000, Fraction(3, 10), 15, 1024)
    assert plan.flatten == FlattenBlocks(65_536)
    assert plan.bound == flattened_bound(Fraction(3, 10), 1_000_000)
    assert plan.layout == FieldLayout(11, 1024, 1_048_576)
    assert plan.layout.lanes < FieldLayout(15, 1024, 1_000_000).lanes


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**7), st.integers(2, 24), st.integers(2, 2**24), st.integers(48, 64))
def test_the_plan_never_coarsens_the_step_or_needs_more_lanes(dimension, bits, contributors, usable):
    norm = Fraction(7, 3)
    plain = FieldLayout(bits, contributors, dimension, usable)
    plan = plan_encoding(dimension, norm, bits, contributors, usable)
    match plan.flatten:
        case NoFlatten():
            assert (plan.layout, plan.bound) == (plain, norm)
        case FlattenBlocks(block):
            assert plan.layout.dimension % block == 0
            assert plan.layout.lanes < plain.lanes
            assert plan.layout.fields_per_lane > plain.fields_per_lane
            assert plan.bound / plan.layout.largest <= norm / plain.largest
            coarser = 2 ** (plan.layout.value_bits - 2) - 1
            assert plan.layout.value_bits == 2 or plan.bound / coarser > norm / plain.largest


def test_flattening_is_refused_a_place_where_padding_costs_more_than_it_saves():
    # 65,537 coordinates are padded to 131,072: three fields a lane instead of two are not worth it.
    assert plan_encoding(65_537, Fraction(1), 15, 1024).flatten == NoFlatten()
    assert plan_encoding(131_072, Fraction(1), 15, 1024).flatten == FlattenBlocks(65_536)
    assert plan_encoding(10, Fraction(1), 15, 1024).flatten == NoFlatten()


@pytest.mark.parametrize(
    ("action", "field"),
    [
        (lambda: Flatten(bytes(32), bytes(32), 3), "sign_key"),
        (lambda: Flatten(bytes(31), bytes(32), 3), "key"),
        (lambda: Flatten(bytes(32), bytes(33), 3), "key"),
        (lambda: Flatten(bytes(32), SIGN_KEY, 0), "dimension"),
        (lambda: Flatten(bytes(32), SIGN_KEY, 3).forward(np.zeros(4, dtype=np.float32)), "vector"),
        (lambda: Flatten(bytes(32), SIGN_KEY, 3).forward(np.zeros(3)), "vector"),
        (lambda: Flatten(bytes(32), SIGN_KEY, 3).inverse(np.zeros(3)), "vector"),
        (lambda: Flatten(bytes(32), SIGN_KEY, 3).inverse(np.zeros(4, dtype=np.int64)), "vector"),
        (lambda: flattened_bound(Fraction(0), 3), "clip_norm"),
        (lambda: flattened_bound(Fraction(1), 0), "dimension"),
        (lambda: FlattenBlocks(3), "block"),
        (lambda: FlattenBlocks(0), "block"),
        (lambda: FlattenBlocks(1 << 17), "block"),
        (lambda: plan_encoding(3, Fraction(-1), 15, 4), "clip_norm"),
    ],
)
def test_undefined_inputs_are_refused(action, field):
    with pytest.raises(ArithmeticInputError) as refused:
        action()
    assert refused.value.field == field
