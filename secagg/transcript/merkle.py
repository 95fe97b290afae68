"""Merkle trees of RFC 6962: roots and inclusion proofs.

Source: RFC 6962, "Certificate Transparency", section 2.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

DIGEST_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


class ProofError(ValueError):
    """An inclusion proof does not fit its leaf, index, size or root."""


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
        path = []
        for height, level in enumerate(self._levels[:-1]):
            start = DIGEST_BYTES * ((index >> height) ^ 1)
            path.append(level[start : start + DIGEST_BYTES])
        return tuple(node for node in path if node)


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
