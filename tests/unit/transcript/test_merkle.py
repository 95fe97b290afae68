from __future__ import annotations

import hashlib

import pytest

from secagg.transcript import merkle
from secagg.transcript.merkle import ProofError

SMALL = range(71)
LARGE = (255, 256, 257, 1000)


def leaves(size: int) -> list[bytes]:
    return [f"leaf {i}".encode() for i in range(size)]


def oracle(items: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, as it is written there."""
    if not items:
        return hashlib.sha256(b"").digest()
    if len(items) == 1:
        return hashlib.sha256(b"\x00" + items[0]).digest()
    split = 1
    while split * 2 < len(items):
        split *= 2
    return hashlib.sha256(b"\x01" + oracle(items[:split]) + oracle(items[split:])).digest()


def oracle_path(index: int, items: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if len(items) == 1:
        return []
    split = 1
    while split * 2 < len(items):
        split *= 2
    if index < split:
        return [*oracle_path(index, items[:split]), oracle(items[split:])]
    return [*oracle_path(index - split, items[split:]), oracle(items[:split])]


@pytest.mark.parametrize("size", [*SMALL, *LARGE])
def test_the_root_equals_the_recursive_definition(size):
    assert merkle.root(leaves(size)) == oracle(leaves(size))


def test_roots_equal_the_published_test_vectors():
    """The reference vectors of certificate-transparency (merkletree/merkle_tree_test.cc)."""
    inputs = [
        bytes.fromhex(text)
        for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
    ]
    assert merkle.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.root(inputs[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle.root(inputs).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("size", [*range(1, 71), *LARGE])
def test_every_leaf_has_the_path_of_the_rfc_and_it_verifies(size):
    items = leaves(size)
    hashes = [merkle.leaf_hash(item) for item in items]
    root = merkle.root_of_hashes(hashes)
    for index, leaf in enumerate(hashes):
        path = merkle.inclusion_proof(hashes, index)
        merkle.verify_inclusion(leaf, index, size, path, root)
        if size <= 33:
            assert list(path) == oracle_path(index, items)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 33])
def test_no_mutation_of_a_proof_verifies(size):
    hashes = [merkle.leaf_hash(item) for item in leaves(size)]
    root = merkle.root_of_hashes(hashes)
    for index, leaf in enumerate(hashes):
        path = merkle.inclusion_proof(hashes, index)
        mutants = [
            (merkle.leaf_hash(b"another"), index, size, path, root),
            (leaf, index, size, path, bytes(32)),
            (leaf, index, size, (*path, bytes(32)), root),
            (leaf, -1, size, path, root),
            (leaf, size, size, path, root),
            (leaf, index, 0, path, root),
        ]
        mutants += [(leaf, other, size, path, root) for other in range(size) if other != index]
        for i, node in enumerate(path):
            flipped = bytes([node[0] ^ 1]) + node[1:]
            mutants.append((leaf, index, size, (*path[:i], flipped, *path[i + 1 :]), root))
            mutants.append((leaf, index, size, (*path[:i], *path[i + 1 :]), root))
            mutants.append((leaf, index, size, (*path[:i], node[:31], *path[i + 1 :]), root))
            mutants.append((leaf, index, size, (*path[:i], node + b"\x00", *path[i + 1 :]), root))
        if len(path) > 1:
            mutants.append((leaf, index, size, path[::-1], root))
        for mutant in mutants:
            with pytest.raises(ProofError):
                merkle.verify_inclusion(*mutant)


def test_an_inner_node_is_no_leaf():
    """Second preimage: the concatenation of two leaf hashes is not a leaf under the same root."""
    first, second = (merkle.leaf_hash(item) for item in leaves(2))
    assert merkle.root([first + second]) != merkle.root(leaves(2))


@pytest.mark.parametrize(("size", "index"), [(0, 0), (1, 1), (5, 5), (5, -1)])
def test_there_is_no_proof_of_a_leaf_that_is_not_there(size, index):
    with pytest.raises(IndexError):
        merkle.inclusion_proof([bytes(32)] * size, index)


def test_inputs_are_left_as_they_were():
    hashes = [merkle.leaf_hash(item) for item in leaves(7)]
    before = list(hashes)
    path = merkle.inclusion_proof(hashes, 3)
    merkle.verify_inclusion(hashes[3], 3, 7, list(path), merkle.root_of_hashes(hashes))
    assert hashes == before
