"""A Merkle tree that grows: proofs and roots for every size it ever had.

Only perfect subtrees are kept, level by level, 32 bytes each: such a node never changes when leaves are added, and the
tree of any size is made of at most 63 of them. Source: RFC 9162, "Certificate Transparency Version 2.0", section 2.1.
"""

from __future__ import annotations

from secagg.transcript.merkle import DIGEST_BYTES, EMPTY_ROOT, node_hash


class GrowingTree:
    """An append-only tree over leaf hashes. An append costs two hashes on average, a proof O(log n)."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        # _levels[h] holds the roots of all perfect subtrees of 2^h leaves, from the left; as one buffer, because a list
        # costs 90 bytes a node.
        self._levels = [bytearray()]

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0]) // DIGEST_BYTES

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf by its hash, 32 bytes.

        Raises:
            ValueError: another length.
        """
        if len(leaf_hash) != DIGEST_BYTES:
            raise ValueError(f"leaf hash: expected {DIGEST_BYTES} bytes, got {len(leaf_hash)}")
        node, height = leaf_hash, 0
        while True:
            if height == len(self._levels):
                self._levels.append(bytearray())
            level = self._levels[height]
            level += node
            if len(level) % (2 * DIGEST_BYTES):
                return
            node = node_hash(bytes(level[-2 * DIGEST_BYTES : -DIGEST_BYTES]), node)
            height += 1

    def nodes(self, height: int, first: int, count: int) -> bytes:
        """The roots of ``count`` perfect subtrees of ``2**height`` leaves, concatenated, from number ``first`` on.

        Raises:
            IndexError: there are fewer.
        """
        level = self._levels[height] if 0 <= height < len(self._levels) else b""
        if not 0 <= first <= first + count <= len(level) // DIGEST_BYTES:
            raise IndexError(f"nodes {first} to {first + count} of height {height} in a tree of {self.size}")
        return bytes(level[first * DIGEST_BYTES : (first + count) * DIGEST_BYTES])

    def root(self, size: int | None = None) -> bytes:
        """The tree head over the first ``size`` leaves, or over all; 32 bytes.

        Raises:
            IndexError: there are fewer leaves.
        """
        size = self._checked(self.size if size is None else size)
        return self._range_root(0, size) if size else EMPTY_ROOT

    def frontier(self, size: int) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees that make up the first ``size`` leaves, largest first.

        Raises:
            IndexError: there are fewer leaves.
        """
        return tuple(self._perfect(0, self._checked(size)))

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """The audit path of leaf ``index`` in the tree of ``size`` leaves, leaf's sibling first (2.1.3.1).

        Raises:
            IndexError: there is no such leaf or tree.
        """
        if not 0 <= index < self._checked(size):
            raise IndexError(f"leaf {index} of {size}")
        start, end, path = 0, size, []
        while end - start > 1:
            split = _split(start, end)
            if index < split:
                path.append(self._range_root(split, end))
                end = split
            else:
                path.append(self._range_root(start, split))
                start = split
        return tuple(reversed(path))

    def consistency_proof(self, old_size: int, size: int) -> tuple[bytes, ...]:
        """That the tree of ``size`` leaves continues the one of ``old_size`` (2.1.4.1); empty from 0 and from ``size``.

        Raises:
            IndexError: there are no such trees.
        """
        if not 0 <= old_size <= self._checked(size):
            raise IndexError(f"old size {old_size} of {size}")
        if old_size in {0, size}:
            return ()
        start, end, proof = 0, size, []
        while end != old_size:
            split = _split(start, end)
            if old_size <= split:
                proof.append(self._range_root(split, end))
                end = split
            else:
                proof.append(self._range_root(start, split))
                start = split
        # Where the old tree is a perfect left part of the new one, the verifier has its root already.
        if start:
            proof.append(self._range_root(start, end))
        return tuple(reversed(proof))

    def _checked(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise IndexError(f"size {size} of a tree of {self.size}")
        return size

    def _range_root(self, start: int, end: int) -> bytes:
        """MTH of the leaves from ``start`` to ``end``, a range as the recursion of the RFC meets them."""
        *left, root = self._perfect(start, end)
        for node in reversed(left):
            root = node_hash(node, root)
        return root

    def _perfect(self, start: int, end: int) -> list[bytes]:
        """The perfect subtrees of a range, largest first; ``start`` is a multiple of the largest."""
        found = []
        while start < end:
            height = (end - start).bit_length() - 1
            found.append(self.nodes(height, start >> height, 1))
            start += 1 << height
        return found


def _split(start: int, end: int) -> int:
    """Where RFC 9162 splits a range of two leaves or more: after the largest power of two below its size."""
    return start + (1 << ((end - start - 1).bit_length() - 1))
