"""What one process has added up, adopted by another: the close does not depend on who added what."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from secagg.arith.linear_hash import hash_lanes
from secagg.runtime.limb_sums import Folded, SessionSum
from secagg.runtime.memory import MemoryBlobStore
from secagg.runtime.partial_sum import HashedUpload, PartialSum
from secagg.runtime.ports import StoreError
from secagg.runtime.vectors import as_bytes

LANES, COUNT = 50, 6


class ReadOnce(MemoryBlobStore):
    """Says which uploads were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_digests: list[bytes] = []

    def read_into(self, digest, offset_bytes, out):
        self.read_digests.append(digest)
        super().read_into(digest, offset_bytes, out)


@pytest.fixture
def stored() -> tuple[ReadOnce, dict[int, HashedUpload]]:
    blobs, items = ReadOnce(), {}
    for index in range(COUNT):
        lanes = np.frombuffer(hashlib.shake_256(b"%d" % index).digest(8 * LANES), dtype=np.uint64)
        items[index] = HashedUpload(blobs.put(lanes.tobytes()), blobs.put(as_bytes(hash_lanes(lanes))))
    return blobs, items


def adder(blobs: MemoryBlobStore, items: dict[int, HashedUpload], *indices: int) -> SessionSum:
    made = SessionSum(blobs, LANES)
    for index in indices:
        made.offer(index, items[index], COUNT)
    return made


def test_sums_of_others_are_folded_without_reading_what_they_hold(stored):
    blobs, items = stored
    alone = SessionSum(blobs, LANES).fold(items)
    own, others = adder(blobs, items, 0), [adder(blobs, items, 1, 2), adder(blobs, items, 3, 4)]
    own.add_offered()
    for other in others:
        handed = other.hand_over()
        assert handed is not None
        own.adopt(PartialSum.from_bytes(handed.to_bytes()))
        assert other.hand_over() is None, "it is forgotten once it is handed over"
    blobs.read_digests.clear()
    assert own.fold(items) == alone
    assert isinstance(alone, Folded)
    assert blobs.read_digests == [items[5].upload]


def test_a_sum_that_overlaps_is_left_out_and_the_close_is_the_same(stored):
    blobs, items = stored
    own, other = adder(blobs, items, 0, 1), adder(blobs, items, 1, 2)
    own.add_offered()
    handed = other.hand_over()
    assert handed is not None
    own.adopt(handed)
    assert own.fold(items) == SessionSum(blobs, LANES).fold(items)


def test_of_a_sum_with_somebody_who_does_not_count_the_rest_is_used(stored):
    blobs, items = stored
    accepted = {index: item for index, item in items.items() if index != 2}
    own = SessionSum(blobs, LANES)
    own.adopt(adder(blobs, items, *range(COUNT)).hand_over())
    blobs.read_digests.clear()
    assert own.fold(accepted) == SessionSum(blobs, LANES).fold(accepted)
    assert blobs.read_digests[0] == items[2].upload


def test_an_upload_that_cannot_be_read_is_left_out_of_what_is_handed_over_next(stored):
    blobs, items = stored
    running = adder(blobs, {**items, 1: HashedUpload(bytes(32), items[1].linear_hash)}, 0, 1, 2)
    with pytest.raises(StoreError):
        running.hand_over()
    handed = running.hand_over()
    assert handed is not None
    assert set(handed.held) == {0, 2}
