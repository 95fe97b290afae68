"""Partial sums: what some contributions add up to, still masked, to be merged in any order by any tree of engines.

A partial sum over any subset of a session is masked as long as one of its masks is unknown, so it may be computed
anywhere and sent about. Merging is associative and commutative to the byte: the set is written in ascending order, the
rest are sums of integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from secagg.arith import linear_hash
from secagg.arith.errors import ArithmeticInputError
from secagg.arith.linear_hash import LimbSum
from secagg.derive.result import Lanes

Words = npt.NDArray[np.uint64]

_MAGIC: Final = b"secagg/partial-sum/1\n"
_ITEM = np.dtype([("position", "<u8"), ("upload", "V32"), ("linear_hash", "V32")])


@dataclass(frozen=True, slots=True)
class HashedUpload:
    """An upload and the linear hash that its sender signed, by the SHA-256 names of their blobs."""

    upload: bytes
    linear_hash: bytes


class PartialSumError(ValueError):
    """Two partial sums cannot be merged, or bytes are none; the text says why."""


class PartialSum:
    """Some contributions of one session added up: limb sum, sum of their linear hashes, and which they are.

    32 bytes for each lane. Not for use by two threads at once.

    Args:
        lanes: how many lanes each contribution has.

    Raises:
        ArithmeticInputError: field ``lanes``.
    """

    __slots__ = ("_hashes", "_held", "_limbs")

    def __init__(self, lanes: int) -> None:
        self._limbs = LimbSum(lanes)
        self._hashes: Words = np.zeros(linear_hash.HASH_WORDS, dtype=np.uint64)
        self._held: dict[int, HashedUpload] = {}

    @property
    def held(self) -> Mapping[int, HashedUpload]:
        """What was added, by position."""
        return self._held

    @property
    def limb_sum(self) -> LimbSum:
        """The integer sums of the limbs; not to be changed."""
        return self._limbs

    @property
    def hashes(self) -> Words:
        """The sum of the linear hashes: uint64[2048]."""
        return self._hashes.copy()

    @property
    def lanes(self) -> Lanes:
        """The masked sum mod 2^64: uint64[lanes]. It follows from the limb sum."""
        return linear_hash.lanes_of_limb_sum(self._limbs)

    def add(self, position: int, item: HashedUpload, lanes: Lanes, words: Words) -> None:
        """Add one contribution: its lanes, and the words of its linear hash.

        Raises:
            PartialSumError: the position is in the sum already.
            ArithmeticInputError: wrong length, or more than a limb sum may hold; nothing was added.
        """
        if position in self._held:
            raise PartialSumError(f"position {position} is in the sum already")
        self._limbs.add_lanes(lanes)
        np.add(self._hashes, words, out=self._hashes)
        self._held[position] = item

    def remove(self, position: int, lanes: Lanes, words: Words) -> None:
        """Take one contribution that was added out again. Raises as ``add`` does."""
        if position not in self._held:
            raise PartialSumError(f"position {position} is not in the sum")
        self._limbs.subtract_lanes(lanes)
        np.subtract(self._hashes, words, out=self._hashes)
        del self._held[position]

    def merge(self, other: PartialSum) -> None:
        """Add a partial sum of other contributions; a refused one changes nothing.

        Raises:
            PartialSumError: a contribution is in both, or they have other numbers of lanes.
            ArithmeticInputError: together they are more than a limb sum may hold.
        """
        twice = self._held.keys() & other.held.keys()
        if twice:
            raise PartialSumError(f"position {min(twice)} is in both sums")
        if other.limb_sum.lanes != self._limbs.lanes:
            raise PartialSumError(f"{other.limb_sum.lanes} lanes, expected {self._limbs.lanes}")
        self._limbs.merge(other.limb_sum)
        np.add(self._hashes, other.hashes, out=self._hashes)
        self._held |= other.held

    def is_as_signed(self) -> bool:
        """Whether the linear hashes add up to the hash of the limb sum."""
        return np.array_equal(self._hashes, linear_hash.hash_limb_sum(self._limbs))

    def to_bytes(self) -> bytes:
        """The one encoding: number of contributions and of lanes, the set in ascending order, limb sum, hashes."""
        items = np.empty(len(self._held), dtype=_ITEM)
        for place, position in enumerate(sorted(self._held)):
            item = self._held[position]
            items[place] = (position, item.upload, item.linear_hash)
        head = np.array([len(self._held), self._limbs.lanes], dtype="<u8")
        parts = (head, items, self._limbs.entries.astype("<u8", copy=False), self._hashes.astype("<u8", copy=False))
        return b"".join((_MAGIC, *(part.tobytes() for part in parts)))

    @classmethod
    def from_bytes(cls, data: bytes) -> PartialSum:
        """The partial sum with these bytes.

        Raises:
            PartialSumError: they are not the encoding of one.
        """
        start = len(_MAGIC) + 16
        if len(data) < start or not data.startswith(_MAGIC):
            raise PartialSumError("not a partial sum")
        count, lanes = (int(each) for each in np.frombuffer(data, dtype="<u8", count=2, offset=len(_MAGIC)))
        entries = linear_hash.LIMBS_PER_LANE * lanes
        expected = start + count * _ITEM.itemsize + 8 * (entries + linear_hash.HASH_WORDS)
        if len(data) != expected:
            raise PartialSumError(f"{len(data)} bytes, expected {expected}")
        items = np.frombuffer(data, dtype=_ITEM, count=count, offset=start)
        words = np.frombuffer(data, dtype="<u8", offset=start + items.nbytes).astype(np.uint64, copy=False)
        positions = items["position"]
        if (positions[1:] <= positions[:-1]).any():
            raise PartialSumError("positions not strictly ascending")
        try:
            made = cls(lanes)
            made._restore(LimbSum.from_entries(words[:entries], count), words[entries:], items)
        except ArithmeticInputError as error:
            raise PartialSumError(f"limb sum: {error}") from None
        return made

    def _restore(self, limbs: LimbSum, hashes: Words, items: npt.NDArray[np.void]) -> None:
        self._limbs = limbs
        self._hashes[...] = hashes
        for item in items:
            held = HashedUpload(item["upload"].tobytes(), item["linear_hash"].tobytes())
            self._held[int(item["position"])] = held
