"""The running limb sum is that of the accepted uploads, whatever came in which order, and liars are told from it."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.arith import linear_hash
from secagg.arith.linear_hash import LimbSum
from secagg.runtime import limb_sums, vectors
from secagg.runtime.limb_sums import Folded, Refuted, SessionSum, StoredUploads, added_up, culprits, masked_sum
from secagg.runtime.memory import MemoryBlobStore
from secagg.runtime.partial_sum import HashedUpload
from secagg.runtime.ports import StoreError

LANES = 700


class Uploads:
    """Random uploads in a blob store, with their hashes; those of ``liars`` are of something else."""

    def __init__(self, count: int, liars: frozenset[int] | set[int] = frozenset(), seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.blobs = MemoryBlobStore()
        self.lanes = {3 * i: rng.integers(0, 2**64, LANES, dtype=np.uint64) for i in range(count)}
        self.items = {}
        for index, lanes in self.lanes.items():
            words = linear_hash.hash_lanes(lanes)
            if index in liars:
                words[index % 2048] += np.uint64(index + 1)
            name = self.blobs.put(vectors.as_bytes(words))
            self.items[index] = HashedUpload(self.blobs.put(vectors.as_bytes(lanes)), name)

    def limb_sum(self, indices: object) -> LimbSum:
        total = LimbSum(LANES)
        for index in indices:
            total.add_lanes(self.lanes[index])
        return total

    def digest(self, indices: object) -> bytes:
        return vectors.digest_of(self.limb_sum(indices).entries)


def subset(uploads: Uploads, indices: object) -> dict[int, HashedUpload]:
    return {index: uploads.items[index] for index in indices}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_was_offered_and_what_is_accepted_may_differ_in_any_way(data: st.DataObject) -> None:
    uploads = Uploads(6)
    everybody = list(uploads.items)
    offered = data.draw(st.lists(st.sampled_from(everybody), max_size=9))
    accepted = data.draw(st.sets(st.sampled_from(everybody), min_size=1))
    added = data.draw(st.integers(0, len(offered)))
    total = SessionSum(uploads.blobs, LANES)
    for index in offered[:added]:
        total.offer(index, uploads.items[index], 6)
    total.add_offered()
    for index in offered[added:]:
        total.offer(index, uploads.items[index], 6)
    folded = total.fold(subset(uploads, accepted))
    assert folded == Folded(uploads.digest(accepted))
    total.add_offered()
    # Again, as after a failed commit, and over fewer, as after a refutation.
    assert total.fold(subset(uploads, accepted)) == folded
    fewer = sorted(accepted)[:-1] or sorted(accepted)
    assert total.fold(subset(uploads, fewer)) == Folded(uploads.digest(fewer))


def test_a_contribution_that_is_offered_twice_is_added_once() -> None:
    uploads = Uploads(3)
    total = SessionSum(uploads.blobs, LANES)
    for index in (0, 3, 3, 6, 0):
        total.offer(index, uploads.items[index], 3)
    total.add_offered()
    total.offer(3, uploads.items[3], 3)
    total.add_offered()
    assert np.array_equal(total._sum.limb_sum.entries, uploads.limb_sum([0, 3, 6]).entries)


def test_two_clients_with_the_same_bytes_count_twice() -> None:
    uploads = Uploads(2)
    items = {0: uploads.items[0], 3: uploads.items[0], 6: uploads.items[3]}
    total = SessionSum(uploads.blobs, LANES)
    total.offer(0, items[0], 3)
    total.add_offered()
    expected = vectors.digest_of(uploads.limb_sum([0, 0, 3]).entries)
    assert total.fold(items) == Folded(expected)


def test_after_a_restart_everything_is_read_from_the_blobs() -> None:
    uploads = Uploads(5)
    before = SessionSum(uploads.blobs, LANES)
    before.offer(0, uploads.items[0], 5)
    before.add_offered()
    assert SessionSum(uploads.blobs, LANES).fold(uploads.items) == before.fold(uploads.items)


def test_what_arrives_is_added_while_it_arrives_and_not_read_again_at_close() -> None:
    uploads = Uploads(5)
    total = SessionSum(uploads.blobs, LANES)
    for index, item in uploads.items.items():
        total.offer(index, item, 5)
    assert total.has_offered
    total.add_offered()
    assert not total.has_offered
    reads = []
    uploads.blobs.read_into = lambda *arguments: reads.append(arguments)
    assert total.fold(uploads.items) == Folded(uploads.digest(uploads.items))
    assert reads == []


def test_stopping_leaves_the_rest_to_the_fold() -> None:
    uploads = Uploads(4)
    total = SessionSum(uploads.blobs, LANES)
    for index, item in uploads.items.items():
        total.offer(index, item, 4)
    total.stop()
    total.add_offered()
    assert total._sum is None
    assert total.fold(uploads.items) == Folded(uploads.digest(uploads.items))
    total.forget()
    assert total._sum is None


def test_adding_and_folding_at_once_counts_everybody_once() -> None:
    uploads = Uploads(40)
    for _ in range(5):
        total = SessionSum(uploads.blobs, LANES)
        for index, item in uploads.items.items():
            total.offer(index, item, 40)
        adders = [threading.Thread(target=total.add_offered) for _ in range(2)]
        for adder in adders:
            adder.start()
        folded = total.fold(uploads.items)
        for adder in adders:
            adder.join()
        assert folded == Folded(uploads.digest(uploads.items))


def test_an_upload_that_cannot_be_read_adds_nothing_and_is_added_at_close() -> None:
    uploads = Uploads(3)
    total = SessionSum(uploads.blobs, LANES)
    kept = uploads.blobs._blobs.pop(uploads.items[3].upload)
    for index, item in uploads.items.items():
        total.offer(index, item, 3)
    with pytest.raises(StoreError):
        total.add_offered()
    assert total.has_offered
    total.add_offered()
    assert set(total._sum.held) == {0, 6}
    with pytest.raises(StoreError):
        total.fold(uploads.items)
    uploads.blobs.put(kept)
    assert total.fold(uploads.items) == Folded(uploads.digest(uploads.items))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.data())
def test_bisection_finds_every_liar_and_nobody_else(count: int, data: st.DataObject) -> None:
    everybody = [3 * i for i in range(count)]
    liars = data.draw(st.sets(st.sampled_from(everybody), max_size=count))
    uploads = Uploads(count, liars)
    folded = SessionSum(uploads.blobs, LANES).fold(uploads.items)
    assert folded == (Refuted(tuple(sorted(liars))) if liars else Folded(uploads.digest(everybody)))


def test_one_liar_among_many_costs_two_hashes_for_each_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = Uploads(64, {3 * 41})
    sums, singles = [], []
    whole, one = linear_hash.hash_limb_sum, linear_hash.hash_lanes
    monkeypatch.setattr(limb_sums.linear_hash, "hash_limb_sum", lambda total: sums.append(total) or whole(total))
    monkeypatch.setattr(limb_sums.linear_hash, "hash_lanes", lambda lanes: singles.append(lanes) or one(lanes))
    assert culprits(uploads.blobs, LANES, uploads.items, sorted(uploads.items)) == (123,)
    assert len(sums) <= 2 * 4
    assert len(singles) == 4


def test_many_liars_cost_at_most_a_hash_for_each_upload_and_as_many_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = Uploads(64, set(range(0, 192, 3)))
    sums = []
    whole = linear_hash.hash_limb_sum
    monkeypatch.setattr(limb_sums.linear_hash, "hash_limb_sum", lambda total: sums.append(total) or whole(total))
    assert len(culprits(uploads.blobs, LANES, uploads.items, sorted(uploads.items))) == 64
    assert len(sums) <= 32


def test_a_running_sum_that_went_wrong_blames_nobody_and_is_made_again() -> None:
    uploads = Uploads(5)
    total = SessionSum(uploads.blobs, LANES)
    total.offer(0, uploads.items[0], 5)
    total.add_offered()
    total._sum._limbs._entries[7] += np.uint64(1)
    with pytest.raises(StoreError):
        total.fold(uploads.items)
    assert total.fold(uploads.items) == Folded(uploads.digest(uploads.items))


def test_a_suspects_blob_is_checked_before_the_suspect_is_blamed() -> None:
    uploads = Uploads(3)
    item = uploads.items[3]
    original = uploads.blobs.get

    def get(digest: bytes) -> bytes:
        data = original(digest)
        if hashlib.sha256(data).digest() != digest:
            raise StoreError("the disk holds other bytes")
        return data

    uploads.blobs.get = get
    uploads.blobs._blobs[item.upload] = bytes(8 * LANES)
    with pytest.raises(StoreError):
        SessionSum(uploads.blobs, LANES).fold(uploads.items)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 9, 10, 11])
@pytest.mark.parametrize("liars", [frozenset(), frozenset({0}), frozenset({9, 12, 27})])
def test_shards_are_folded_one_by_one(most: int, liars: frozenset[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_hash, "max_contributors", lambda lanes: most)
    uploads = Uploads(10, liars)
    total = SessionSum(uploads.blobs, LANES)
    for index, item in uploads.items.items():
        total.offer(index, item, 10)
    total.add_offered()
    assert (total._sum is None) == (most < 10), "what one limb sum cannot hold is not begun"
    folded = total.fold(uploads.items)
    if liars:
        assert folded == Refuted(tuple(sorted(liars)))
        uploads.items = {index: item for index, item in uploads.items.items() if index not in liars}
        folded = total.fold(uploads.items)
    assert isinstance(folded, Folded)
    order = sorted(uploads.items)
    shards = [order[start : start + most] for start in range(0, len(order), most)]
    data = b"".join(bytes(vectors.as_bytes(uploads.limb_sum(shard).entries)) for shard in shards)
    assert uploads.blobs.get(folded.limb_sum) == data
    expected = np.sum([uploads.lanes[index] for index in order], axis=0, dtype=np.uint64)
    assert np.array_equal(masked_sum(uploads.blobs, folded.limb_sum, len(order), LANES), expected)


def test_the_masked_sum_is_the_sum_of_the_uploads_with_carries() -> None:
    blobs, full = MemoryBlobStore(), np.full(LANES, 2**64 - 1, dtype=np.uint64)
    item = HashedUpload(blobs.put(vectors.as_bytes(full)), blobs.put(vectors.linear_hash_of(full)))
    folded = SessionSum(blobs, LANES).fold(dict.fromkeys(range(5), item))
    assert isinstance(folded, Folded)
    assert (masked_sum(blobs, folded.limb_sum, 5, LANES) == np.uint64(2**64 - 5)).all()


def test_a_partial_sum_takes_out_what_it_took_in() -> None:
    uploads = Uploads(4, {3})
    stored = StoredUploads(uploads.blobs, LANES)
    total = added_up(uploads.blobs, LANES, uploads.items, (0, 3, 6))
    assert not total.is_as_signed()
    total.remove(3, *stored.read(uploads.items[3]))
    assert total.is_as_signed()
    assert np.array_equal(total.limb_sum.entries, uploads.limb_sum([0, 6]).entries)


def test_what_another_process_added_up_is_taken_over_and_not_read_again() -> None:
    uploads = Uploads(8)
    running = SessionSum(uploads.blobs, LANES)
    running.adopt(added_up(uploads.blobs, LANES, uploads.items, (0, 3, 6)))
    expected = SessionSum(uploads.blobs, LANES).fold(uploads.items)
    kept = {index: uploads.items[index] for index in (0, 3, 6)}
    for item in kept.values():
        uploads.blobs.delete(item.upload)
    assert running.fold(uploads.items) == expected


def test_a_partial_sum_of_what_is_here_already_is_left_aside() -> None:
    uploads = Uploads(8)
    running = SessionSum(uploads.blobs, LANES)
    running.offer(3, uploads.items[3], 8)
    running.add_offered()
    running.adopt(added_up(uploads.blobs, LANES, uploads.items, (0, 3)))
    assert running.fold(uploads.items) == SessionSum(uploads.blobs, LANES).fold(uploads.items)
