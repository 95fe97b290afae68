from __future__ import annotations

import functools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.linear_hash import hash_lanes
from secagg.runtime.partial_sum import HashedUpload, PartialSum, PartialSumError

LANES = 700
CONTRIBUTIONS = 9


@functools.cache
def uploads() -> tuple[np.ndarray, np.ndarray]:
    lanes = np.random.default_rng(11).integers(0, 2**64, (CONTRIBUTIONS, LANES), dtype=np.uint64)
    return lanes, np.stack([hash_lanes(each) for each in lanes])


def sum_of(positions: list[int]) -> PartialSum:
    lanes, words = uploads()
    total = PartialSum(LANES)
    for position in positions:
        item = HashedUpload(bytes([position]) * 32, bytes([position + 100]) * 32)
        total.add(position, item, lanes[position], words[position])
    return total


def merged(tree: list | int) -> PartialSum:
    """Merge along a tree of lists; a leaf is one contribution."""
    if isinstance(tree, int):
        return sum_of([tree])
    total = PartialSum(LANES)
    for branch in tree:
        total.merge(merged(branch))
    return total


@st.composite
def trees(draw: st.DrawFn) -> list:
    """Every contribution once, in some order, in some tree."""
    parts: list = draw(st.permutations(range(CONTRIBUTIONS)))
    while len(parts) > 1 and draw(st.booleans()):
        at = draw(st.integers(0, len(parts) - 2))
        parts = [*parts[:at], [parts[at], parts[at + 1]], *parts[at + 2 :]]
    return parts


@settings(max_examples=60, deadline=None)
@given(trees())
def test_any_tree_in_any_order_gives_the_same_bytes(tree: list) -> None:
    total = merged(tree)
    assert total.to_bytes() == sum_of(list(range(CONTRIBUTIONS))).to_bytes()
    assert total.is_as_signed()


def test_it_carries_the_masked_sum_the_limbs_the_hashes_and_the_set() -> None:
    lanes, words = uploads()
    total = sum_of([7, 1, 4])
    assert sorted(total.held) == [1, 4, 7]
    assert np.array_equal(total.lanes, lanes[1] + lanes[4] + lanes[7])
    assert np.array_equal(total.hashes, words[1] + words[4] + words[7])
    assert total.limb_sum.contributors == 3


def test_its_bytes_give_it_back() -> None:
    total = sum_of([3, 0, 8])
    again = PartialSum.from_bytes(total.to_bytes())
    assert again.to_bytes() == total.to_bytes()
    assert again.held == total.held
    again.merge(sum_of([1]))
    assert again.to_bytes() == sum_of([0, 1, 3, 8]).to_bytes()


def test_a_contribution_that_is_in_both_is_not_counted_twice() -> None:
    total, before = sum_of([0, 1]), sum_of([0, 1]).to_bytes()
    with pytest.raises(PartialSumError, match="position 1"):
        total.merge(sum_of([1, 2]))
    lanes, words = uploads()
    with pytest.raises(PartialSumError, match="position 0"):
        total.add(0, HashedUpload(bytes(32), bytes(32)), lanes[0], words[0])
    assert total.to_bytes() == before


def test_a_sum_of_other_lanes_or_of_too_many_is_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    total, before = sum_of([0, 1]), sum_of([0, 1]).to_bytes()
    with pytest.raises(PartialSumError, match="701 lanes"):
        total.merge(PartialSum(701))
    monkeypatch.setattr(total.limb_sum, "_limit", 3)
    with pytest.raises(ArithmeticInputError, match="split the session"):
        total.merge(sum_of([2, 3]))
    assert total.to_bytes() == before


def test_what_was_added_can_be_taken_out() -> None:
    lanes, words = uploads()
    total = sum_of([0, 1, 2])
    total.remove(1, lanes[1], words[1])
    assert total.to_bytes() == sum_of([2, 0]).to_bytes()
    with pytest.raises(PartialSumError, match="position 1"):
        total.remove(1, lanes[1], words[1])


def test_a_hash_of_something_else_shows() -> None:
    lanes, words = uploads()
    total = sum_of([0])
    total.add(1, HashedUpload(bytes(32), bytes(32)), lanes[1], words[2])
    assert not total.is_as_signed()


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_are_refused_or_are_another_sum(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(sum_of([0, 5]).to_bytes())
    at = rng.choice([rng.randrange(37), rng.randrange(37 + 2 * 72), rng.randrange(len(data))])
    data[at] ^= 1 << rng.randrange(8)
    try:
        read = PartialSum.from_bytes(bytes(data))
    except PartialSumError:
        return
    assert read.to_bytes() == bytes(data)


@pytest.mark.parametrize("cut", [0, 10, 21, 36, 37, 100, -8, -1])
def test_truncated_bytes_are_refused(cut: int) -> None:
    with pytest.raises(PartialSumError):
        PartialSum.from_bytes(sum_of([0, 5]).to_bytes()[:cut])
