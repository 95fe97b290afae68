"""Merkle trees of RFC 6962: roots, inclusion proofs, consistency proofs and frontiers.

Sources: RFC 6962, "Certificate Transparency", section 2.1; RFC 9162, sections 2.1.3 and 2.1.4, for the algorithms
that verify.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

DIGEST_BYTES = 32
MAX_TREE_SIZE = 2**63 - 1
EMPTY_ROOT = hashlib.sha256(b"").digest()


class ProofError(ValueError):
    """A proof does not fit its leaf, index, sizes or roots, or hashes do not make a tree."""


def leaf_hash(leaf: bytes) -> bytes:
    """``SHA-256(0x00 || leaf)``, 32 bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA-256(0x01 || left || right)``, 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The tree head over ``leaves`` (their contents), 32 bytes."""
    return root_of_hashes([leaf_hash(leaf) for leaf in leaves])


def root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """The tree head over leaf hashes."""
    return Tree(hashes).root


def inclusion_proof(hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The audit path of one leaf; build a ``Tree`` for several. Raises IndexError."""
    return Tree(hashes).inclusion_proof(index)


def consistency_proof(hashes: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """The proof that the first ``old_size`` leaves are a prefix; build a ``Tree`` for several. Raises IndexError."""
    return Tree(hashes).consistency_proof(old_size)


class Tree:
    """A tree over leaf hashes, all levels kept: 32 bytes for each node.

    Level by level, an odd last node moves up unchanged; this gives the same tree as the recursive definition, which
    splits at the largest power of two below the size.
    """

    __slots__ = ("_levels",)

    def __init__(self, hashes: Sequence[bytes]) -> None:
        # Joined, because a list costs 90 bytes a node instead of 32, and a coordinator keeps many trees.
        self._levels = [b"".join(hashes)]
        while len(level := self._levels[-1]) > DIGEST_BYTES:
            pairs = range(0, len(level) - DIGEST_BYTES, 2 * DIGEST_BYTES)
            nodes = [node_hash(level[i : i + DIGEST_BYTES], level[i + DIGEST_BYTES : i + 64]) for i in pairs]
            odd = level[-DIGEST_BYTES:] if len(level) % 64 else b""
            self._levels.append(b"".join(nodes) + odd)

    @property
    def root(self) -> bytes:
        """The tree head, 32 bytes."""
        return self._levels[-1] or EMPTY_ROOT

    def inclusion_proof(self, index: int) -> tuple[bytes, ...]:
        """The audit path of leaf ``index``, from the leaf up.

        Raises:
            IndexError: there is no such leaf.
        """
        size = len(self._levels[0]) // DIGEST_BYTES
        if not 0 <= index < size:
            raise IndexError(f"leaf {index} of {size}")
        return self._path(0, index)

    def consistency_proof(self, old_size: int) -> tuple[bytes, ...]:
        """The proof that the tree over the first ``old_size`` leaves is a prefix of this one (RFC 9162, 2.1.4.1).

        It is the path of the last perfect subtree of the old tree, after that subtree's root where the verifier
        cannot know it. Empty where there is nothing to prove: ``old_size`` is 0 or the whole size.

        Raises:
            IndexError: this tree is smaller than ``old_size``, or that is negative.
        """
        size = len(self._levels[0]) // DIGEST_BYTES
        if not 0 <= old_size <= size:
            raise IndexError(f"old size {old_size} of {size}")
        if old_size in {0, size}:
            return ()
        height = (old_size & -old_size).bit_length() - 1
        index = (old_size >> height) - 1
        # A perfect old tree is this subtree; the verifier has its root already.
        first = (self._node(height, index),) if index else ()
        return first + self._path(height, index)

    def _node(self, height: int, index: int) -> bytes:
        return self._levels[height][DIGEST_BYTES * index : DIGEST_BYTES * (index + 1)]

    def _path(self, height: int, index: int) -> tuple[bytes, ...]:
        """The siblings that exist, from a node up."""
        levels = range(height, len(self._levels) - 1)
        nodes = [self._node(level, (index >> (level - height)) ^ 1) for level in levels]
        return tuple(node for node in nodes if node)


class Frontier:
    """A growing tree of which only the roots of the perfect subtrees are kept, the largest first.

    There is one for each 1 in the binary form of the size, so at most 63. This is all that a log needs to append
    and to know its root.
    """

    __slots__ = ("_hashes", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._hashes: list[bytes] = []

    @classmethod
    def from_hashes(cls, size: int, hashes: Sequence[bytes]) -> Frontier:
        """The frontier of a tree of ``size`` leaves with these subtree roots.

        Raises:
            ProofError: the size is out of range, or these are not as many hashes of 32 bytes as it has.
        """
        if not 0 <= size <= MAX_TREE_SIZE:
            raise ProofError(f"size {size} out of range")
        if len(hashes) != size.bit_count():
            raise ProofError(f"{len(hashes)} hashes for a frontier of size {size}")
        if any(len(node) != DIGEST_BYTES for node in hashes):
            raise ProofError("frontier hash is not 32 bytes")
        frontier = cls()
        frontier._size, frontier._hashes = size, list(hashes)
        return frontier

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, the largest first."""
        return tuple(self._hashes)

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf by its hash; about one hash computation in the mean (1e6 leaves: 1 s).

        Raises:
            ProofError: the hash is not 32 bytes, or the tree is full.
        """
        if len(leaf_hash) != DIGEST_BYTES:
            raise ProofError("leaf hash is not 32 bytes")
        if self._size == MAX_TREE_SIZE:
            raise ProofError("the tree is full")
        node, size, hashes = leaf_hash, self._size, self._hashes
        while size & 1:
            node = node_hash(hashes.pop(), node)
            size >>= 1
        hashes.append(node)
        self._size += 1

    @property
    def root(self) -> bytes:
        """The tree head, 32 bytes."""
        if not self._hashes:
            return EMPTY_ROOT
        *larger, node = self._hashes
        for left in reversed(larger):
            node = node_hash(left, node)
        return node

    def copy(self) -> Frontier:
        """Another frontier of the same tree, to be appended to on its own."""
        return Frontier.from_hashes(self._size, self._hashes)


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected_root: bytes) -> None:
    """Check that the leaf with hash ``leaf`` is number ``index`` of the ``size`` leaves under a root.

    Raises:
        ProofError: it is not, or the path is too long, too short or malformed.
    """
    if not 0 <= index < size:
        raise ProofError(f"index {index} outside a tree of {size}")
    node, last, remaining = leaf, size - 1, list(path)
    while last:
        if index & 1 or index != last:
            if not remaining:
                raise ProofError("path too short")
            sibling = remaining.pop(0)
            if len(sibling) != DIGEST_BYTES:
                raise ProofError("path element is not 32 bytes")
            node = node_hash(sibling, node) if index & 1 else node_hash(node, sibling)
        index >>= 1
        last >>= 1
    if remaining:
        raise ProofError("path too long")
    if node != expected_root:
        raise ProofError("root differs")


def verify_consistency(old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of ``size`` leaves under ``root`` begins with the leaves under ``old_root``.

    RFC 9162, section 2.1.4.2. Every tree begins with the empty one, so an ``old_size`` of 0 wants an empty proof
    and shows nothing about either root.

    Raises:
        ProofError: it does not, or the proof is too long, too short or malformed.
    """
    if not 0 <= old_size <= size <= MAX_TREE_SIZE:
        raise ProofError(f"old size {old_size} outside a tree of {size}")
    if old_size in {0, size}:
        if proof:
            raise ProofError("proof too long")
        if old_size == size and old_root != root:
            raise ProofError("root differs")
        return
    if any(len(node) != DIGEST_BYTES for node in (old_root, root, *proof)):
        raise ProofError("a root or proof element is not 32 bytes")
    nodes = list(proof)
    if old_size & (old_size - 1) == 0:
        nodes.insert(0, old_root)
    if not nodes:
        raise ProofError("proof too short")
    old_found, found = _climb(old_size, size, nodes)
    if old_found != old_root:
        raise ProofError("old root differs")
    if found != root:
        raise ProofError("root differs")


def _climb(old_size: int, size: int, nodes: list[bytes]) -> tuple[bytes, bytes]:
    """Both roots that follow from ``nodes``: the last perfect subtree of the old tree, then its path up."""
    index, last = old_size - 1, size - 1
    while index & 1:
        index >>= 1
        last >>= 1
    old_node = node = nodes[0]
    for sibling in nodes[1:]:
        if not last:
            raise ProofError("proof too long")
        if index & 1 or index == last:
            old_node, node = node_hash(sibling, old_node), node_hash(sibling, node)
            # The levels where this node has no sibling are not in the proof.
            while index and not index & 1:
                index >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        index >>= 1
        last >>= 1
    if last:
        raise ProofError("proof too short")
    return old_node, node
