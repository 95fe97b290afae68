"""Paths from the end of a log are those of the whole log."""

from __future__ import annotations

import pytest

from secagg.transcript.merkle import Frontier, Tree, leaf_hash, verify_inclusion
from secagg.transcript.segment import LogSegment

ENTRIES = tuple(b"entry %d" % number for number in range(41))
HASHES = [leaf_hash(entry) for entry in ENTRIES]


def segment(start: int, size: int) -> LogSegment:
    frontier = Frontier()
    for digest in HASHES[:start]:
        frontier.append(digest)
    return LogSegment(start, frontier.hashes, ENTRIES[start:size])


@pytest.mark.parametrize("size", range(1, 42))
def test_the_path_of_every_entry_is_that_in_the_whole_log(size: int) -> None:
    tree = Tree(HASHES[:size])
    for start in range(size):
        for index in range(start, size):
            path = segment(start, size).inclusion_proof(index)
            assert path == tree.inclusion_proof(index)
            verify_inclusion(HASHES[index], index, size, path, tree.root)


@pytest.mark.parametrize("index", [-1, 4, 12])
def test_an_entry_outside_the_segment_has_none(index: int) -> None:
    with pytest.raises(IndexError, match="segment of 5 to 12"):
        segment(5, 12).inclusion_proof(index)


def test_hashes_of_another_size_are_refused() -> None:
    with pytest.raises(IndexError):
        LogSegment(5, (), ENTRIES[5:12]).inclusion_proof(6)
