"""The end of a log: what its last entries and the hashes of all before them determine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secagg.transcript.merkle import leaf_hash, node_hash


@dataclass(frozen=True, slots=True)
class LogSegment:
    """The entries from index ``start`` to the end of a log, and the compact range [0, start) before them.

    ``prefix`` holds the roots of the perfect subtrees of that range, largest first, as ``merkle.Frontier`` does.
    """

    start: int
    prefix: tuple[bytes, ...]
    entries: tuple[bytes, ...]

    def inclusion_proof(self, index: int) -> tuple[bytes, ...]:
        """The audit path of an entry at or after ``start`` in the whole log, from the leaf up.

        Raises:
            IndexError: no such entry, or ``prefix`` is not of [0, start).
        """
        size = self.start + len(self.entries)
        if not self.start <= index < size or len(self.prefix) != self.start.bit_count():
            raise IndexError(f"index {index} in a segment of {self.start} to {size}")
        hashes = [leaf_hash(entry) for entry in self.entries]
        return _path(_Nodes(self.start, dict(_perfect(self.start, self.prefix)), hashes), index, 0, size)


@dataclass(frozen=True, slots=True)
class _Nodes:
    start: int
    perfect: dict[tuple[int, int], bytes]
    hashes: Sequence[bytes]

    def root(self, first: int, end: int) -> bytes:
        """Root of the subtree over [first, end), as RFC 6962 splits a tree."""
        known = self.perfect.get((first, end))
        if known is not None:
            return known
        if end - first == 1:
            return self.hashes[first - self.start]
        middle = _split(first, end)
        return node_hash(self.root(first, middle), self.root(middle, end))


def _path(nodes: _Nodes, index: int, first: int, end: int) -> tuple[bytes, ...]:
    if end - first == 1:
        return ()
    middle = _split(first, end)
    if index < middle:
        return (*_path(nodes, index, first, middle), nodes.root(middle, end))
    return (*_path(nodes, index, middle, end), nodes.root(first, middle))


def _split(first: int, end: int) -> int:
    """Where a subtree divides: after the largest power of two below its size."""
    return first + (1 << (end - first - 1).bit_length() - 1)


def _perfect(start: int, prefix: Sequence[bytes]) -> list[tuple[tuple[int, int], bytes]]:
    """The perfect subtrees of [0, start) by their ranges."""
    ranges, first = [], 0
    for bit in range(start.bit_length() - 1, -1, -1):
        if start >> bit & 1:
            ranges.append((first, first + (1 << bit)))
            first += 1 << bit
    return list(zip(ranges, prefix, strict=True))
