"""A tree that grows gives what trees built anew give, for every size and at the borders of tiles."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from secagg.transcript import merkle
from secagg.transcript.growing_tree import GrowingTree

BORDERS = (255, 256, 257, 65_535, 65_536, 65_537, 70_000)


def leaf(number: int) -> bytes:
    return merkle.leaf_hash(b"%d" % number)


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 9162 2.1.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = power_below(len(leaves))
    return node(naive_root(leaves[:k]), naive_root(leaves[k:]))


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 9162 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = power_below(len(leaves))
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], known: bool) -> list[bytes]:
    """RFC 9162 2.1.4.1."""
    if m == len(leaves):
        return [] if known else [naive_root(leaves)]
    k = power_below(len(leaves))
    if m <= k:
        return [*naive_subproof(m, leaves[:k], known), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def power_below(size: int) -> int:
    k = 1
    while 2 * k < size:
        k *= 2
    return k


@cache
def large() -> GrowingTree:
    return grown(70_001)


def grown(size: int) -> GrowingTree:
    tree = GrowingTree()
    for number in range(size):
        tree.append(leaf(number))
    return tree


@given(st.integers(0, 90), st.data())
def test_roots_and_proofs_of_every_past_size_are_those_of_the_rfc(size, data):
    tree = grown(90)
    leaves = [leaf(number) for number in range(size)]
    assert tree.root(size) == naive_root(leaves)
    if size:
        index = data.draw(st.integers(0, size - 1))
        assert list(tree.inclusion_proof(index, size)) == naive_path(index, leaves)
        old = data.draw(st.integers(1, size))
        assert list(tree.consistency_proof(old, size)) == naive_subproof(old, leaves, True)


@pytest.mark.parametrize("size", BORDERS)
def test_at_the_borders_of_tiles_roots_and_proofs_are_those_of_a_tree_built_at_once(size):
    fixed = merkle.Tree([leaf(number) for number in range(size)])
    assert large().root(size) == fixed.root
    for index in {0, 1, 254, 255, 256, size // 2, size - 2, size - 1} & set(range(size)):
        assert large().inclusion_proof(index, size) == fixed.inclusion_proof(index)
        merkle.verify_inclusion(leaf(index), index, size, large().inclusion_proof(index, size), fixed.root)


def test_another_implementation_has_the_same_roots_and_proofs():
    other = InmemoryTree(algorithm="sha256")
    for number in range(300):
        other.append_entry(b"%d" % number)
    tree = grown(300)
    for size in (1, 2, 3, 7, 64, 255, 256, 257, 299, 300):
        assert tree.root(size) == other.get_root(size)


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_consistency_proof_verifies_between_any_two_sizes(one, other):
    old, size = sorted((one, other))
    tree = large()
    proof = tree.consistency_proof(old, size)
    merkle.verify_consistency(old, tree.root(old), size, tree.root(size), proof)


@given(st.integers(0, 70_000))
def test_a_frontier_has_one_hash_for_each_bit_and_folds_to_the_root(size):
    frontier = large().frontier(size)
    assert len(frontier) == size.bit_count()
    compact = merkle.Frontier.from_hashes(size, frontier)
    assert compact.root == large().root(size)
    compact.append(leaf(size))
    assert compact.root == large().root(size + 1)


def test_nodes_are_slices_of_one_level():
    tree = grown(9)
    assert tree.nodes(0, 2, 3) == leaf(2) + leaf(3) + leaf(4)
    assert tree.nodes(1, 3, 1) == node(leaf(6), leaf(7))
    assert tree.nodes(3, 0, 1) == tree.root(8)
    assert tree.nodes(5, 0, 0) == b""


def test_what_is_not_there_is_refused():
    tree = grown(5)
    for ask in (
        lambda: tree.root(6),
        lambda: tree.root(-1),
        lambda: tree.frontier(6),
        lambda: tree.inclusion_proof(5, 5),
        lambda: tree.inclusion_proof(0, 6),
        lambda: tree.inclusion_proof(-1, 5),
        lambda: tree.consistency_proof(4, 6),
        lambda: tree.consistency_proof(5, 4),
        lambda: tree.consistency_proof(-1, 4),
        lambda: tree.nodes(0, 4, 2),
        lambda: tree.nodes(2, 1, 1),
        lambda: tree.nodes(-1, 0, 1),
    ):
        with pytest.raises(IndexError):
            ask()
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        tree.append(bytes(31))


def test_a_node_costs_32_bytes():
    tree = large()
    assert sum(len(level) for level in tree._levels) <= 2 * 32 * tree.size
