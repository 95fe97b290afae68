"""Fields and lanes against Python integers."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.fields import FieldLayout


@st.composite
def layouts(draw, largest_dimension=60):
    bits = draw(st.integers(2, 32))
    contributors = draw(st.integers(2, 2 ** min(32, 64 - bits)))
    width = bits + (contributors - 1).bit_length()
    return FieldLayout(bits, contributors, draw(st.integers(1, largest_dimension)), draw(st.integers(width, 64)))


def pack_reference(layout, values):
    entries = [1] + [int(v) + 2 ** (layout.value_bits - 1) for v in values]
    lanes = []
    for start in range(0, len(entries), layout.fields_per_lane):
        chunk = entries[start : start + layout.fields_per_lane]
        lanes.append(sum(e << (layout.field_bits * i) for i, e in enumerate(chunk)))
    return lanes


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_packing_equals_the_textbook_and_a_sum_of_contributions_decodes_exactly(data):
    layout = data.draw(layouts())
    count = data.draw(st.integers(1, min(5, layout.max_contributors)))
    coordinate = st.one_of(
        st.integers(-layout.largest, layout.largest), st.sampled_from([-layout.largest, layout.largest])
    )
    rows = [data.draw(st.lists(coordinate, min_size=layout.dimension, max_size=layout.dimension)) for _ in range(count)]
    total = np.zeros(layout.lanes, dtype=np.uint64)
    for row in rows:
        lanes = layout.pack(np.array(row, dtype=data.draw(st.sampled_from([np.int32, np.int64]))))
        assert lanes.tolist() == pack_reference(layout, row)
        total += lanes
    assert layout.unpack_sum(total, count).tolist() == [sum(column) for column in zip(*rows, strict=True)]


@settings(max_examples=100, deadline=None)
@given(layouts(), st.sampled_from([-1, 1]))
def test_the_most_contributions_of_maximal_coordinates_do_not_overflow(layout, sign):
    n = layout.max_contributors
    one = pack_reference(layout, [sign * layout.largest] * layout.dimension)
    total = [n * lane for lane in one]
    assert all(lane < 2**64 for lane in total)
    decoded = layout.unpack_sum(np.array(total, dtype=np.uint64), n)
    assert decoded.tolist() == [sign * n * layout.largest] * layout.dimension


def test_derived_sizes_follow_the_definition():
    layout = FieldLayout(value_bits=15, max_contributors=1024, dimension=10, usable_bits=64)
    assert (layout.field_bits, layout.fields_per_lane, layout.lanes) == (25, 2, 6)
    assert (layout.offset, layout.largest) == (16384, 16383)
    assert FieldLayout(15, 1025, 10).field_bits == 26
    assert FieldLayout(2, 2, 1).fields_per_lane == 21
    assert FieldLayout(15, 1024, 11, 25).lanes == 12


def test_vectors_longer_than_a_block_decode():
    layout = FieldLayout(8, 3, 100_003)
    values = np.random.default_rng(3).integers(-127, 128, layout.dimension)
    lanes = layout.pack(values)
    assert lanes.tolist() == pack_reference(layout, values)
    assert (layout.unpack_sum(lanes + lanes, 2) == 2 * values).all()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((1, 2, 1, 64), "value_bits"),
        ((33, 2, 1, 64), "value_bits"),
        ((15, 1, 1, 64), "max_contributors"),
        ((15, 0, 1, 64), "max_contributors"),
        ((15, 2, 0, 64), "dimension"),
        ((15, 2, 1, 0), "usable_bits"),
        ((15, 2, 1, 65), "usable_bits"),
        ((15, 2, 1, 15), "usable_bits"),
        ((32, 2**32 + 1, 1, 64), "usable_bits"),
    ],
)
def test_layouts_that_could_overflow_cannot_be_constructed(arguments, field):
    with pytest.raises(ArithmeticInputError) as refused:
        FieldLayout(*arguments)
    assert refused.value.field == field
    assert str(refused.value).startswith(field)


def test_a_layout_cannot_be_changed_afterwards():
    with pytest.raises(FrozenInstanceError):
        FieldLayout(15, 2, 1).dimension = 2


def refused_field(action):
    with pytest.raises(ArithmeticInputError) as refused:
        action()
    return refused.value.field


def test_values_out_of_range_or_of_wrong_length_are_refused():
    layout = FieldLayout(4, 4, 3)
    assert refused_field(lambda: layout.pack(np.array([0, 8, 0]))) == "values"
    assert refused_field(lambda: layout.pack(np.array([0, 0, -8]))) == "values"
    assert refused_field(lambda: layout.pack(np.array([0, 0]))) == "values"
    assert refused_field(lambda: layout.pack(np.array([0.0, 0, 0]))) == "values"
    good = np.array([0, 0, 0])
    assert refused_field(lambda: layout.pack_into(good, np.zeros(9, dtype=np.uint64))) == "out"


def test_a_sum_that_is_not_one_is_refused_with_the_part_that_shows_it():
    layout = FieldLayout(4, 4, 3, 12)  # fields of 6 bits, two a lane: [counter, a], [b, c]
    good = layout.pack(np.array([7, -7, 0])) * np.uint64(2)
    assert layout.unpack_sum(good, 2).tolist() == [14, -14, 0]
    assert refused_field(lambda: layout.unpack_sum(good, 3)) == "counter"
    assert refused_field(lambda: layout.unpack_sum(good, 1)) == "counter"
    assert refused_field(lambda: layout.unpack_sum(good, 0)) == "contributors"
    assert refused_field(lambda: layout.unpack_sum(good, 5)) == "contributors"
    assert refused_field(lambda: layout.unpack_sum(good[:1], 2)) == "lanes"
    assert refused_field(lambda: layout.unpack_sum(good.astype(np.int64), 2)) == "lanes"
    assert refused_field(lambda: layout.unpack_sum(good | np.uint64(1 << 12), 2)) == "unused_bits"
    assert refused_field(lambda: layout.unpack_sum(good | np.uint64(1 << 63), 2)) == "unused_bits"
    # The field of a holds 30 = 2 * 15 at most and 2 at least.
    assert refused_field(lambda: layout.unpack_sum(good + np.array([1 << 6, 0], dtype=np.uint64), 2)) == "sum"
    below = good - np.array([0, 1], dtype=np.uint64)
    assert refused_field(lambda: layout.unpack_sum(below, 2)) == "sum"
    odd = FieldLayout(4, 4, 2, 12)
    padded = odd.pack(np.array([1, 1])) | np.array([0, 1 << 6], dtype=np.uint64)
    assert refused_field(lambda: odd.unpack_sum(padded, 1)) == "padding"


def test_coordinates_packed_piece_by_piece_are_those_packed_at_once():
    layout = FieldLayout(15, 1024, 50_001, 52)
    values = np.random.default_rng(3).integers(-layout.largest, layout.largest + 1, layout.dimension).astype(np.int32)
    asked, out = [], np.full(layout.lanes, 7, dtype=np.uint64)

    def piece_of(start: int, end: int) -> np.ndarray:
        asked.append((start, end))
        return values[start:end]

    layout.pack_pieces(piece_of, out)
    assert np.array_equal(out, layout.pack(values))
    assert len(asked) > 2
    assert [start for start, _ in asked] == [0, *(end for _, end in asked[:-1])]
    assert asked[-1][1] == layout.dimension


@pytest.mark.parametrize("more", [-1, 1])
def test_a_piece_of_another_length_is_refused(more):
    layout = FieldLayout(15, 1024, 100, 52)
    with pytest.raises(ArithmeticInputError, match="in number"):
        layout.pack_pieces(
            lambda start, end: np.zeros(end - start + more, dtype=np.int32), np.empty(layout.lanes, np.uint64)
        )
