"""Clipping, rounding and decoding, against fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import Keystream
from secagg.arith.quantiser import Clip, Quantiser, clip, l2_norm

KEY = bytes(range(32))
floats32 = st.floats(-1e6, 1e6, width=32)


def stream_u32(key, count):
    raw = np.empty(4 * count, dtype=np.uint8)
    Keystream(key).read_into(raw)
    return [int(r) for r in raw.view("<u4")]


def exact_norm(vector):
    return math.sqrt(sum(Fraction(float(v)) ** 2 for v in vector))


@settings(max_examples=150, deadline=None)
@given(st.lists(floats32, min_size=1, max_size=40), st.fractions(Fraction(1, 1000), 1000))
def test_a_clipped_vector_never_exceeds_the_norm_and_a_short_one_is_unchanged(values, norm):
    vector = np.array(values, dtype=np.float32)
    clipped, measured = clip(vector, norm)
    assert clipped is not vector
    assert measured == pytest.approx(exact_norm(vector), rel=1e-12)
    if measured <= norm:
        assert (clipped == vector).all()
    else:
        assert sum(Fraction(float(v)) ** 2 for v in clipped) <= norm**2
        assert exact_norm(clipped) == pytest.approx(float(norm), rel=1e-6)
        _, clamped = Quantiser(15, norm).quantise(clipped, Keystream(KEY))
        assert clamped == 0


def test_a_vector_longer_than_a_block_is_clipped_as_a_whole():
    vector = np.ones(50_000, dtype=np.float32)
    clipped, norm = clip(vector, Fraction(1))
    assert norm == math.sqrt(50_000)
    assert np.unique(clipped).size == 1
    assert exact_norm(clipped[:1]) * norm == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 16_383, 16_384, 40_000])
def test_nan_and_infinity_are_refused_naming_the_first_index(bad, index):
    vector = np.zeros(40_001, dtype=np.float32)
    vector[index:] = bad
    with pytest.raises(ArithmeticInputError, match=f"coordinate {index} is") as refused:
        clip(vector, Fraction(1))
    assert refused.value.field == "vector"
    stream = Keystream(KEY)
    with pytest.raises(ArithmeticInputError, match=f"coordinate {index} is"):
        Quantiser(15, Fraction(1)).quantise(vector, stream)
    assert stream.position_bytes == 0


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=30),
    st.integers(2, 32),
    st.fractions(Fraction(1, 10), 10),
)
def test_quantising_follows_its_definition_step_by_step(values, bits, bound):
    vector = np.array(values, dtype=np.float32)
    quantiser = Quantiser(bits, bound)
    assert quantiser.scale == Fraction(2 ** (bits - 1) - 1) / bound
    got, clamped = quantiser.quantise(vector, Keystream(KEY))
    scale = float(quantiser.scale)
    if Fraction(scale) > quantiser.scale:
        scale = math.nextafter(scale, 0)
    expected, beyond = [], 0
    for value, r in zip(vector, stream_u32(KEY, len(values)), strict=True):
        x = float(value) * scale
        beyond += abs(x) > quantiser.largest
        x = max(-quantiser.largest, min(quantiser.largest, x))
        expected.append(math.floor(x) + (Fraction(2 * r + 1, 2**33) < Fraction(x - math.floor(x))))
    assert got.tolist() == expected
    assert clamped == beyond
    assert got.dtype == np.int32


def test_rounding_is_unbiased_and_uses_every_coordinate_independently():
    # The stream is fixed, so this cannot flake; 8 standard deviations would do for random ones.
    count = 400_000
    for fraction in (0.125, 0.5, 0.9375):
        for whole in (-3, -1, 0, 7):
            vector = np.full(count, whole + fraction, dtype=np.float32)
            got, clamped = Quantiser(10, Fraction(511)).quantise(vector, Keystream(KEY))
            assert clamped == 0
            assert set(np.unique(got)) == {whole, whole + 1}
            deviation = math.sqrt(fraction * (1 - fraction) / count)
            assert abs(got.mean() - (whole + fraction)) < 8 * deviation
            up = got - whole
            both = (up[1:] & up[:-1]).mean()
            assert abs(both - fraction**2) < 8 / math.sqrt(count)


def test_a_draw_exactly_at_the_fraction_rounds_down_so_that_draws_are_centred():
    draws = stream_u32(KEY, 20_000)
    chosen = [i for i, r in enumerate(draws) if r < 2**23]
    assert chosen
    vector = np.zeros(20_000, dtype=np.float32)
    vector[chosen] = [(draws[i] + 0.5) / 2**32 for i in chosen]
    quantiser = Quantiser(10, Fraction(511))
    assert not quantiser.quantise(vector, Keystream(KEY))[0].any()
    vector[chosen] = [np.nextafter(v, np.float32(1)) for v in vector[chosen]]
    assert np.flatnonzero(quantiser.quantise(vector, Keystream(KEY))[0]).tolist() == chosen


def test_integers_are_kept_and_the_bound_itself_is_not_clamped():
    vector = np.arange(-511, 512, dtype=np.float32)
    got, clamped = Quantiser(10, Fraction(511)).quantise(vector, Keystream(KEY))
    assert got.tolist() == list(range(-511, 512))
    assert clamped == 0
    for numerator in range(1, 200):
        bound = Fraction(float(np.float32(numerator / 7)))
        vector = np.array([float(bound), -float(bound)], dtype=np.float32)
        assert Quantiser(15, bound).quantise(vector, Keystream(KEY))[1] == 0


def test_values_beyond_the_bound_are_clamped_and_counted():
    vector = np.zeros(40_000, dtype=np.float32)
    vector[[0, 17, 20_000, 39_999]] = [1.5, -2, 3e38, -3e38]
    got, clamped = Quantiser(15, Fraction(1)).quantise(vector, Keystream(KEY))
    assert clamped == 4
    assert got[[0, 17, 20_000, 39_999]].tolist() == [16383, -16383, 16383, -16383]
    assert np.count_nonzero(got) == 4


def test_quantising_in_pieces_of_one_stream_gives_the_same_integers():
    vector = np.linspace(-1, 1, 50_001, dtype=np.float32)
    quantiser, stream = Quantiser(15, Fraction(1)), Keystream(KEY)
    whole, _ = quantiser.quantise(vector, Keystream(KEY))
    pieces = [quantiser.quantise(vector[a : a + 777], stream)[0] for a in range(0, vector.size, 777)]
    assert (np.concatenate(pieces) == whole).all()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20),
    st.integers(2, 32),
    st.fractions(Fraction(1, 1000), 1000),
    st.integers(1, 2**32),
)
def test_dequantising_is_one_division_in_fp64_and_one_rounding(values, bits, bound, contributors):
    total = np.array(values, dtype=np.int64)
    got = Quantiser(bits, bound).dequantise(total, contributors)
    divisor = float(Fraction(2 ** (bits - 1) - 1) / bound * contributors)
    expected = [np.float32(float(v) / divisor) for v in values]
    assert got.dtype == np.float32
    assert [x.tobytes() for x in got] == [x.tobytes() for x in expected]
    again = Quantiser(bits, bound).dequantise(total.astype(np.float64), contributors)
    assert again.tobytes() == got.tobytes()


@pytest.mark.parametrize(
    ("action", "field"),
    [
        (lambda: Quantiser(1, Fraction(1)), "value_bits"),
        (lambda: Quantiser(33, Fraction(1)), "value_bits"),
        (lambda: Quantiser(15, Fraction(0)), "bound"),
        (lambda: Quantiser(15, Fraction(-1)), "bound"),
        (lambda: Quantiser(15, Fraction(1, 2**600)), "bound"),
        (lambda: clip(np.zeros(3, dtype=np.float32), Fraction(0)), "clip_norm"),
        (lambda: clip(np.zeros(3, dtype=np.float64), Fraction(1)), "vector"),
        (lambda: clip(np.zeros(0, dtype=np.float32), Fraction(1)), "vector"),
        (lambda: Quantiser(15, Fraction(1)).quantise(np.zeros(3), Keystream(KEY)), "vector"),
        (lambda: Quantiser(15, Fraction(1)).dequantise(np.zeros(3, dtype=np.int32), 1), "total"),
        (lambda: Quantiser(15, Fraction(1)).dequantise(np.zeros(3, dtype=np.int64), 0), "contributors"),
    ],
)
def test_undefined_inputs_are_refused(action, field):
    with pytest.raises(ArithmeticInputError) as refused:
        action()
    assert refused.value.field == field


@pytest.mark.parametrize("norm", [Fraction(1, 2), Fraction(1000)], ids=["clipped", "short enough"])
def test_pieces_are_clipped_as_the_whole_vector_is(norm):
    vector = np.random.default_rng(5).normal(0, 1, 40_000).astype(np.float32)
    whole, found = clip(vector, norm)
    assert found == l2_norm(vector)
    scaling = Clip.of(found, norm)
    pieces = [scaling.scaled(vector[start : start + 777]) for start in range(0, vector.size, 777)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert (scaling.factor is None) == (norm == 1000)
