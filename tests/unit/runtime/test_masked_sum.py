"""The masked sum, folded from its limb sum while that arrives."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from secagg.arith import linear_hash
from secagg.arith.linear_hash import LimbSum, shard_ranges
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.runtime.masked_sum import MaskedSumReader

RANDOM = np.random.default_rng(0)


def uploads(lanes: int, count: int) -> np.ndarray:
    return RANDOM.integers(0, 2**64, (count, lanes), dtype=np.uint64)


def limb_sum(vectors: np.ndarray) -> bytes:
    out = b""
    for places in shard_ranges(len(vectors), vectors.shape[1]):
        total = LimbSum(vectors.shape[1])
        for place in places:
            total.add_lanes(vectors[place])
        out += total.entries.astype("<u8").tobytes()
    return out


def reader(vectors: np.ndarray, data: bytes) -> MaskedSumReader:
    return MaskedSumReader(vectors.shape[1], len(vectors), hashlib.sha256(data).digest())


@pytest.mark.parametrize("piece", [1 << 20, 100_003, 8, 7])
@pytest.mark.parametrize("lanes", [1, 512, 40_000])
def test_the_sum_is_the_same_in_whatever_pieces_it_comes(lanes: int, piece: int) -> None:
    if lanes * 32 // piece > 50_000:
        piece = 1009
    vectors = uploads(lanes, 3)
    data = limb_sum(vectors)
    reading = reader(vectors, data)
    assert reading.length_bytes == len(data)
    for start in range(0, len(data), piece):
        reading.update(data[start : start + piece])
    assert np.array_equal(reading.lanes(), vectors.sum(axis=0, dtype=np.uint64))


def test_shards_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_hash, "max_contributors", lambda _: 2)
    vectors = uploads(20_000, 5)
    data = limb_sum(vectors)
    assert len(data) == 3 * 32 * 20_000
    reading = reader(vectors, data)
    reading.update(data)
    assert np.array_equal(reading.lanes(), vectors.sum(axis=0, dtype=np.uint64))


def test_an_entry_out_of_range_is_refused_as_it_comes_in_its_own_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_hash, "max_contributors", lambda _: 2)
    vectors = uploads(512, 3)
    entries = np.frombuffer(limb_sum(vectors), "<u8").copy()
    # Possible for the two contributions of the first shard, not for the one of the second.
    entries[4 * 512 + 5] = 2**16
    data = entries.tobytes()
    with pytest.raises(RemoteProtocolError, match="limb_sum") as caught:
        reader(vectors, data).update(data)
    assert caught.value.reason is RejectReason.LOG_MISMATCH
    entries[4 * 512 + 5] = 0
    entries[5] = 2**16
    reader(vectors, entries.tobytes()).update(entries.tobytes())


def test_another_length_or_digest_is_refused() -> None:
    vectors = uploads(512, 2)
    data = limb_sum(vectors)
    reading = reader(vectors, data)
    reading.update(data)
    with pytest.raises(RemoteProtocolError) as longer:
        reading.update(b"\0")
    with pytest.raises(RemoteProtocolError) as at_once:
        reader(vectors, data).update(data + b"\0")
    short = reader(vectors, data)
    short.update(data[:-1])
    with pytest.raises(RemoteProtocolError, match="16383 bytes of 16384") as shorter:
        short.lanes()
    reasons = {longer.value.reason, at_once.value.reason, shorter.value.reason}
    assert reasons == {RejectReason.WRONG_LENGTH}
    other = MaskedSumReader(512, 2, bytes(32))
    other.update(data)
    with pytest.raises(RemoteProtocolError) as digest:
        other.lanes()
    assert digest.value.reason is RejectReason.LOG_MISMATCH
