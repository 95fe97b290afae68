"""The limb sum of a session's uploads: added up while they arrive, checked against the signed hashes at close.

The hashes of all contributions must add up to the hash of the limb sum (``secagg.arith.linear_hash``). If they do not,
some sender signed another hash than its upload's, and bisection over the stored uploads finds every one of them. All
methods block; they may be called from any thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from secagg.arith import linear_hash
from secagg.arith.errors import ArithmeticInputError
from secagg.arith.linear_hash import LimbSum
from secagg.derive.result import Lanes
from secagg.runtime.partial_sum import HashedUpload, PartialSum, PartialSumError, Words
from secagg.runtime.ports import BlobStore, StoreError
from secagg.runtime.vectors import as_bytes

_HASHED_ONE_BY_ONE = 4
"""Up to so many suspects are hashed singly: half of them hashed as a limb sum costs as much."""


Contributions: TypeAlias = Mapping[int, HashedUpload]
"""Contributions by index; the order of a set is that of its indices."""


@dataclass(frozen=True, slots=True)
class Folded:
    """The uploads are what was signed; SHA-256 name of the blob of their limb sums, one shard after the other."""

    limb_sum: bytes


@dataclass(frozen=True, slots=True)
class Refuted:
    """The uploads of these indices do not have the signed hash."""

    indices: tuple[int, ...]


class StoredUploads:
    """Reads uploads with their linear hashes; one buffer serves all. Not for use by two threads at once."""

    def __init__(self, blobs: BlobStore, lanes: int) -> None:
        self._blobs = blobs
        self._buffer = np.empty(lanes, dtype=np.uint64)

    def read(self, item: HashedUpload) -> tuple[Lanes, Words]:
        """Lanes, valid until the next call, and the words of the hash. Raises StoreError or OSError."""
        words = _words(self._blobs.get(item.linear_hash))
        self._blobs.read_into(item.upload, 0, self._buffer)
        return self._buffer, words


class SessionSum:
    """The running sum of one session. ``offer`` returns at once, ``add_offered`` does the work."""

    def __init__(self, blobs: BlobStore, lanes: int) -> None:
        self._blobs = blobs
        self._lanes = lanes
        self._lock = threading.Lock()
        self._offered: deque[tuple[int, HashedUpload]] = deque()
        self._sum: PartialSum | None = None
        self._uploads: StoredUploads | None = None

    @property
    def has_offered(self) -> bool:
        """Whether ``add_offered`` has something to do."""
        return bool(self._offered)

    def offer(self, index: int, item: HashedUpload, most: int) -> None:
        """A contribution is durable and may come to count.

        Args:
            index: the sender's, in U1.
            item: what was stored.
            most: how many there may be in all. If one limb sum cannot hold them, they are added up at close only.
        """
        if most <= linear_hash.max_contributors(self._lanes):
            self._offered.append((index, item))

    def stop(self) -> None:
        """Let ``add_offered`` return after what it is about: a ``fold`` adds the rest."""
        self._offered.clear()

    def forget(self) -> None:
        """Drop the sum and what was offered; a later ``fold`` reads everything from the blobs again."""
        self._offered.clear()
        with self._lock:
            self._drop()

    def add_offered(self) -> None:
        """Add what was offered.

        Raises:
            StoreError, OSError: an upload cannot be read; it is left to ``fold``.
        """
        while self._offered:
            with self._lock:
                try:
                    index, item = self._offered.popleft()
                except IndexError:
                    return  # forgotten, or taken by a fold
                self._add(index, item)

    def adopt(self, partial: PartialSum) -> None:
        """Take over what another process has added up of this session, where it adds to what is here.

        What is not adopted is read from the blobs at close: nothing depends on it but time.
        """
        with self._lock, contextlib.suppress(PartialSumError, ArithmeticInputError):
            self._running().merge(partial)

    def hand_over(self) -> PartialSum | None:
        """What was offered, added up, for another process to adopt; it is forgotten here.

        Raises:
            StoreError, OSError: an upload cannot be read; a later call leaves it out.
        """
        self.add_offered()
        with self._lock:
            total = self._sum
            self._drop()
            return total

    def fold(self, accepted: Contributions) -> Folded | Refuted:
        """Check that the limb sums of ``accepted`` are what was signed, and store them.

        Raises:
            StoreError, OSError: a blob cannot be read or written; to be tried again.
        """
        self._offered.clear()
        with self._lock:
            order = sorted(accepted)
            shards = [
                [order[place] for place in places] for places in linear_hash.shard_ranges(len(order), self._lanes)
            ]
            if len(shards) == 1:
                return self._fold_running(accepted)
            self._drop()
            return self._fold_shards(accepted, shards)

    def _fold_running(self, accepted: Contributions) -> Folded | Refuted:
        total = self._settle(accepted)
        if total.is_as_signed():
            return Folded(self._blobs.put(as_bytes(total.limb_sum.entries)))
        refuted = culprits(self._blobs, self._lanes, accepted, sorted(accepted))
        if not refuted:
            # The memory or an earlier read was wrong, not the clients: the next attempt reads everything again.
            self._drop()
            raise StoreError("the running limb sum is not that of the stored uploads")
        return Refuted(refuted)

    def _fold_shards(self, accepted: Contributions, shards: Sequence[Sequence[int]]) -> Folded | Refuted:
        entries = np.empty((len(shards), linear_hash.LIMBS_PER_LANE * self._lanes), dtype=np.uint64)
        refuted: list[int] = []
        for row, shard in zip(entries, shards, strict=True):
            total = added_up(self._blobs, self._lanes, accepted, shard)
            row[...] = total.limb_sum.entries
            if not total.is_as_signed():
                refuted += culprits(self._blobs, self._lanes, accepted, shard)
        return Refuted(tuple(refuted)) if refuted else Folded(self._blobs.put(as_bytes(entries.reshape(-1))))

    def _settle(self, accepted: Contributions) -> PartialSum:
        """The running sum, made to hold ``accepted`` and nothing else."""
        total = self._running()
        surplus = [index for index, item in total.held.items() if accepted.get(index) != item]
        if len(surplus) > len(accepted):
            self._drop()
        else:
            for index in surplus:
                total.remove(index, *self._reader().read(total.held[index]))
        for index in accepted:
            self._add(index, accepted[index])
        return self._running()

    def _add(self, index: int, item: HashedUpload) -> None:
        total = self._running()
        if index not in total.held:
            total.add(index, item, *self._reader().read(item))

    def _running(self) -> PartialSum:
        if self._sum is None:
            self._sum = PartialSum(self._lanes)
        return self._sum

    def _reader(self) -> StoredUploads:
        if self._uploads is None:
            self._uploads = StoredUploads(self._blobs, self._lanes)
        return self._uploads

    def _drop(self) -> None:
        self._sum = self._uploads = None


def added_up(blobs: BlobStore, lanes: int, accepted: Contributions, indices: Sequence[int]) -> PartialSum:
    """The sum of the contributions of ``indices``, read from their blobs."""
    total, uploads = PartialSum(lanes), StoredUploads(blobs, lanes)
    for index in indices:
        total.add(index, accepted[index], *uploads.read(accepted[index]))
    return total


def culprits(blobs: BlobStore, lanes: int, accepted: Contributions, suspects: Sequence[int]) -> tuple[int, ...]:
    """Those of ``suspects``, whose sum is not as signed, who signed another hash than that of their upload.

    Bisection: a set that is as signed is acquitted as a whole, and where one half is, the other is not. Liars whose
    errors cancel are acquitted too if no set parts them: their sum is what was signed. Everybody who is left is honest
    or in such a set, so without the culprits the suspects add up: one round is enough.
    """
    found: list[int] = []
    guilty = [suspects]
    while guilty:
        part = guilty.pop()
        if len(part) <= _HASHED_ONE_BY_ONE:
            found += [index for index in part if not is_hash_of_upload(blobs, accepted[index])]
            continue
        left, right = part[: len(part) // 2], part[len(part) // 2 :]
        left_fails = not added_up(blobs, lanes, accepted, left).is_as_signed()
        if left_fails:
            guilty.append(left)
        if not left_fails or not added_up(blobs, lanes, accepted, right).is_as_signed():
            guilty.append(right)
    return tuple(sorted(found))


def is_hash_of_upload(blobs: BlobStore, item: HashedUpload) -> bool:
    """Whether the hash that was signed is that of the upload that was signed.

    Raises:
        StoreError: a blob is not what its name says: the disk is at fault, and no client to be blamed.
    """
    lanes = _words(blobs.get(item.upload))
    return np.array_equal(_words(blobs.get(item.linear_hash)), linear_hash.hash_lanes(lanes))


def masked_sum(blobs: BlobStore, limb_sum: bytes, contributors: int, lanes: int) -> Lanes:
    """The sum mod 2^64 of the uploads whose limb sums ``fold`` stored under this name, all shards together."""
    entries = _words(blobs.get(limb_sum)).reshape(-1, linear_hash.LIMBS_PER_LANE * lanes)
    total = np.zeros(lanes, dtype=np.uint64)
    for row, places in zip(entries, linear_hash.shard_ranges(contributors, lanes), strict=True):
        np.add(total, linear_hash.lanes_of_limb_sum(LimbSum.from_entries(row, len(places))), out=total)
    return total


def _words(data: bytes) -> npt.NDArray[np.uint64]:
    return np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False)
