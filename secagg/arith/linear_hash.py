"""A linear collision-resistant hash of lanes: the hashes of all contributions add up to the hash of their sum.

Ring `Z_{2^64}[X] / (X^2048 + 1)`. Lanes (uint64, little-endian) are read as 16-bit limbs in memory order,
zero-padded to a multiple of 2048: polynomials `l_1 .. l_P` with coefficients in `0 .. 2^16 - 1`, 512 lanes each.
`H(y) = sum_j b_j l_j`: 2048 words, 16 KiB. The `b_j` are public and the same forever: coefficient `k` of `b_j` is
word `2048 (j - 1) + k` of the AES-256-CTR stream (as in `keystream`) under the key `SHA-256(SEED_LABEL)`.

Limb vectors are added as integers, without carries: with `L = sum_i limbs(y_i)`, entries up to `n (2^16 - 1)`,
`sum_i H(y_i) = sum_j b_j L_j`, and `sum_i y_i = sum_k 2^(16 k) L^(k)` mod 2^64 for the four limbs k of each lane.

Two limb sums with one hash give a ring-SIS solution of 2-norm at most `n 2^16 sqrt(4 lanes)`; `max_contributors`
keeps that below 2^50. Trailing zero lanes do not change the hash: whoever compares hashes fixes the number of
lanes. The limb sum of one contribution is the contribution.

Source: Ajtai 1996; the ring form SWIFFT, Lyubashevsky et al. 2008; design 04-linear-hash. docs/parameters.md has
what the hash proves and what it does not.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.keystream import Keystream
from secagg.arith.negacyclic import BLOCK_DIGITS, DEGREE, ProductSum, new_spectra, spectra_of

SEED_LABEL: Final = b"secagg/v1/linear-hash"
"""Its SHA-256 is the key of the stream that the public polynomials are read from."""

HASH_WORDS: Final = DEGREE
"""Length of a hash in uint64 words."""

HASH_BYTES: Final = 8 * HASH_WORDS
"""Length of a hash as it is sent and published: 16 KiB, words little-endian."""

LIMBS_PER_LANE: Final = 4
"""Limbs of 16 bits in a lane, lowest first."""

NORM_BOUND_BITS: Final = 50
"""log2 of the largest 2-norm that a difference of two limb sums may have."""

MAX_LANES: Final = 2**30
"""Longest vector that is hashed; well inside one key's stream, which would end at 2^31 - 512 lanes."""

_LARGEST_LIMB: Final = 2**16 - 1
_BLOCK_LANES: Final = BLOCK_DIGITS // LIMBS_PER_LANE
# 64 MiB of transforms are kept for the whole process: enough for 524,288 lanes, 10^6 coordinates two to a lane.
_CACHED_BLOCKS: Final = (64 << 20) // new_spectra().nbytes
# 16,384 limbs as uint64 are 128 KiB beside as much of the sum: 0.8 ms for 500,001 lanes, 1.4 ms in blocks of 4096.
_ADDITION_LIMBS: Final = 1 << 14

_KEY: Final = hashlib.sha256(SEED_LABEL).digest()
_cached: dict[int, NDArray[np.complex128]] = {}


def _check_lanes(lanes: NDArray[np.uint64]) -> None:
    if lanes.dtype != np.uint64 or lanes.ndim != 1 or not lanes.flags.c_contiguous:
        raise ArithmeticInputError("lanes", f"must be contiguous uint64[n], got {lanes.dtype}{list(lanes.shape)}")


def _check_lane_count(lanes: int) -> None:
    if not 1 <= lanes <= MAX_LANES:
        raise ArithmeticInputError("lanes", f"must be 1 to {MAX_LANES} in number, got {lanes}")


def limbs(lanes: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """The 16-bit limbs of lanes, lowest first: uint16[4 n], a view on a little-endian machine.

    Raises:
        ArithmeticInputError: `lanes` is not contiguous uint64[n].
    """
    _check_lanes(lanes)
    return lanes.astype("<u8", copy=False).view("<u2")


def max_contributors(lanes: int) -> int:
    """The largest `n` with `n 2^16 sqrt(4 lanes) <= 2^50`, in exact integers: `isqrt(floor(2^66 / lanes))`.

    Raises:
        ArithmeticInputError: `lanes` is not 1 to `MAX_LANES`.
    """
    _check_lane_count(lanes)
    # n^2 2^32 4 lanes <= 2^100
    return math.isqrt((1 << (2 * NORM_BOUND_BITS - 34)) // lanes)


def shards_needed(contributors: int, lanes: int) -> int:
    """Into how many limb sums, of at most `max_contributors(lanes)` each, a session has to be split; at least 1.

    Raises:
        ArithmeticInputError: `contributors` is below 1, or `lanes` is not 1 to `MAX_LANES`.
    """
    if contributors < 1:
        raise ArithmeticInputError("contributors", f"must be at least 1, got {contributors}")
    return -(-contributors // max_contributors(lanes))


def shard_ranges(contributors: int, lanes: int) -> list[range]:
    """Which contributions, by their place in the set, each limb sum of a session holds.

    Consecutive ones, `max_contributors(lanes)` in each but the last. The coordinator and whoever checks it cut alike.

    Raises:
        ArithmeticInputError: `contributors` is below 1, or `lanes` is not 1 to `MAX_LANES`.
    """
    most = max_contributors(lanes)
    starts = [most * shard for shard in range(shards_needed(contributors, lanes))]
    return [range(start, min(start + most, contributors)) for start in starts]


class LimbSum:
    """The integer sum of the limbs of contributions; more of them than the norm bound allows are refused.

    Holds 32 bytes for each lane. Not for use by two threads at once.

    Args:
        lanes: how many lanes each contribution has, 1 to `MAX_LANES`.

    Raises:
        ArithmeticInputError: field `lanes`.
    """

    __slots__ = ("_buffer", "_contributors", "_entries", "_limit")

    def __init__(self, lanes: int) -> None:
        self._limit = max_contributors(lanes)
        self._entries = np.zeros(LIMBS_PER_LANE * lanes, dtype=np.uint64)
        self._contributors = 0
        self._buffer = np.empty(_ADDITION_LIMBS, dtype=np.uint64)

    @classmethod
    def from_entries(cls, entries: NDArray[np.uint64], contributors: int) -> "LimbSum":
        """A limb sum as published; one that `contributors` contributions cannot add up to is refused.

        The collision bound rests on this check: a verifier builds every limb sum here before it hashes it.

        Args:
            entries: uint64[4 lanes], copied.
            contributors: how many contributions it is said to hold, 0 to `max_contributors(lanes)`.

        Raises:
            ArithmeticInputError: field `entries` or `contributors`.
        """
        lanes, odd = divmod(entries.size, LIMBS_PER_LANE)
        if entries.dtype != np.uint64 or entries.ndim != 1 or odd or not 1 <= lanes <= MAX_LANES:
            raise ArithmeticInputError("entries", f"must be uint64[4 lanes], got {entries.dtype}{list(entries.shape)}")
        limit = max_contributors(lanes)
        if not 0 <= contributors <= limit:
            raise ArithmeticInputError("contributors", f"must be 0 to {limit}, got {contributors}")
        if int(entries.max()) > contributors * _LARGEST_LIMB:
            raise ArithmeticInputError("entries", f"beyond {contributors} * {_LARGEST_LIMB}")
        made = cls(lanes)
        made._entries[...] = entries
        made._contributors = contributors
        return made

    @property
    def lanes(self) -> int:
        """How many lanes each contribution has."""
        return self._entries.size // LIMBS_PER_LANE

    @property
    def contributors(self) -> int:
        """How many contributions were added."""
        return self._contributors

    @property
    def entries(self) -> NDArray[np.uint64]:
        """The sums: uint64[4 lanes] in the order of `limbs`, a read-only view that follows later additions."""
        view = self._entries.view()
        view.flags.writeable = False
        return view

    def add_lanes(self, lanes: NDArray[np.uint64]) -> None:
        """Adds the limbs of one contribution; a refused one changes nothing.

        Measured: 0.8 to 1.1 ms for 500,001 lanes.

        Args:
            lanes: uint64[lanes], contiguous.

        Raises:
            ArithmeticInputError: field `lanes`, or `contributors` when the bound is reached.
        """
        pieces = self._limbs_of(lanes)
        self._count(1)
        for target, wide in self._pieces(pieces):
            np.add(target, wide, out=target)

    def subtract_lanes(self, lanes: NDArray[np.uint64]) -> None:
        """Takes one contribution that was added out again; a refused one changes nothing.

        Args:
            lanes: uint64[lanes], contiguous.

        Raises:
            ArithmeticInputError: field `lanes`, also where they are more than the sum: they were not added.
        """
        pieces = self._limbs_of(lanes)
        if not self._contributors or any((target < wide).any() for target, wide in self._pieces(pieces)):
            raise ArithmeticInputError("lanes", "are not in this limb sum")
        self._contributors -= 1
        for target, wide in self._pieces(pieces):
            np.subtract(target, wide, out=target)

    def _limbs_of(self, lanes: NDArray[np.uint64]) -> NDArray[np.uint16]:
        pieces = limbs(lanes)
        if pieces.size != self._entries.size:
            raise ArithmeticInputError("lanes", f"must be {self.lanes} in number, got {lanes.size}")
        return pieces

    def _pieces(self, pieces: NDArray[np.uint16]) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
        """Stretches of the sum with the limbs that belong to them, widened.

        Widening first, and adding uint64 to uint64, is faster than the addition of mixed types.
        """
        for start in range(0, pieces.size, _ADDITION_LIMBS):
            target = self._entries[start : start + _ADDITION_LIMBS]
            wide = self._buffer[: target.size]
            wide[...] = pieces[start : start + _ADDITION_LIMBS]
            yield target, wide

    def merge(self, other: "LimbSum") -> None:
        """Adds another limb sum, of other contributions, to this one; a refused one changes nothing.

        Raises:
            ArithmeticInputError: `lanes` when the numbers of lanes differ, `contributors` beyond the bound.
        """
        if other.lanes != self.lanes:
            raise ArithmeticInputError("lanes", f"must be {self.lanes} in number, got {other.lanes}")
        self._count(other.contributors)
        np.add(self._entries, other.entries, out=self._entries)

    def _count(self, more: int) -> None:
        # Rule: n 2^16 sqrt(4 lanes) <= 2^50, the size of collision that the security estimate is for.
        if self._contributors + more > self._limit:
            raise ArithmeticInputError("contributors", f"a limb sum holds at most {self._limit}, split the session")
        self._contributors += more


def lanes_of_limb_sum(limb_sum: LimbSum) -> NDArray[np.uint64]:
    """The sum of the contributions themselves: `sum_k 2^(16 k) L^(k)` mod 2^64.

    Measured: 2 ms for 500,001 lanes.

    Returns:
        uint64[lanes].
    """
    rows = limb_sum.entries.reshape(-1, LIMBS_PER_LANE)
    out = np.empty(limb_sum.lanes, dtype=np.uint64)
    shifted = np.empty(min(_BLOCK_LANES, out.size), dtype=np.uint64)
    for start in range(0, out.size, _BLOCK_LANES):
        block, piece = rows[start : start + _BLOCK_LANES], out[start : start + _BLOCK_LANES]
        part = shifted[: piece.size]
        piece[...] = block[:, 0]
        for index in range(1, LIMBS_PER_LANE):
            np.left_shift(block[:, index], np.uint64(16 * index), out=part)
            np.add(piece, part, out=piece)
    return out


class _PublicPolynomials:
    """Transforms of the public polynomials, block by block and forward only.

    The first 64 MiB are kept for the process. Two threads that miss the same block both make it, which is
    harmless: they make the same, and `setdefault` keeps one.
    """

    __slots__ = ("_held", "_held_index", "_room", "_stream", "_words")

    def __init__(self) -> None:
        self._held_index = -1
        self._held: NDArray[np.complex128] | None = None
        self._stream: Keystream | None = None
        self._room: NDArray[np.complex128] | None = None
        self._words = np.empty(0, dtype="<u8")

    def block(self, index: int) -> NDArray[np.complex128]:
        """The transforms of block `index`, not below the last one asked for; valid until the next call."""
        found = self._held if index == self._held_index else _cached.get(index)
        if found is None:
            found = self._make(index)
        self._held, self._held_index = found, index
        return found

    def _make(self, index: int) -> NDArray[np.complex128]:
        if self._stream is None:
            self._stream, self._words = Keystream(_KEY), np.empty(BLOCK_DIGITS, dtype="<u8")
        for _ in range(self._stream.position_bytes // self._words.nbytes, index + 1):
            self._stream.read_into(self._words)
        if index < _CACHED_BLOCKS:
            made = spectra_of(self._words, new_spectra())
            made.flags.writeable = False
            return _cached.setdefault(index, made)
        if self._room is None:
            self._room = new_spectra()
        return spectra_of(self._words, self._room)


class LinearHasher:
    """`H` of a vector that arrives in pieces of any number of lanes.

    Needs 1 MiB beside the table of public polynomials. Not for use by two threads at once.
    """

    __slots__ = ("_lanes", "_pending", "_polynomials", "_sum")

    def __init__(self) -> None:
        self._polynomials = _PublicPolynomials()
        self._sum = ProductSum()
        self._pending = np.zeros(_BLOCK_LANES, dtype=np.uint64)
        self._lanes = 0

    @property
    def lanes(self) -> int:
        """How many lanes were hashed."""
        return self._lanes

    def update(self, lanes: NDArray[np.uint64]) -> None:
        """Hashes the next lanes; a refused piece changes nothing.

        Args:
            lanes: uint64[n], contiguous, any n.

        Raises:
            ArithmeticInputError: field `lanes`, also when the vector would exceed `MAX_LANES`.
        """
        _check_lanes(lanes)
        if self._lanes + lanes.size > MAX_LANES:
            raise ArithmeticInputError("lanes", f"must be at most {MAX_LANES} in number")
        start = 0
        while start < lanes.size:
            index, filled = divmod(self._lanes, _BLOCK_LANES)
            piece = lanes[start : start + _BLOCK_LANES - filled]
            if piece.size == _BLOCK_LANES:
                self._add(index, piece)
            else:
                self._pending[filled : filled + piece.size] = piece
                if filled + piece.size == _BLOCK_LANES:
                    self._add(index, self._pending)
            self._lanes += piece.size
            start += piece.size

    def digest(self) -> NDArray[np.uint64]:
        """The hash of the lanes so far, uint64[2048]; more may follow."""
        index, filled = divmod(self._lanes, _BLOCK_LANES)
        if not filled:
            return self._sum.result()
        whole_blocks = self._sum.totals()
        self._pending[filled:] = 0
        self._add(index, self._pending)
        out = self._sum.result()
        self._sum.restore(whole_blocks)
        return out

    def _add(self, index: int, block: NDArray[np.uint64]) -> None:
        self._sum.add(self._polynomials.block(index), limbs(block), 0)


def hash_lanes(lanes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`H(y)` of one contribution.

    Measured: 19 ms for 500,001 lanes; 65 ms more for the first in a process, which makes the table.

    Args:
        lanes: uint64[n], contiguous, at most `MAX_LANES`.

    Returns:
        uint64[2048].

    Raises:
        ArithmeticInputError: field `lanes`.
    """
    hasher = LinearHasher()
    hasher.update(lanes)
    return hasher.digest()


def hash_limb_sum(limb_sum: LimbSum) -> NDArray[np.uint64]:
    """`sum_j b_j L_j`, which equals the sum of the contributions' hashes.

    Entries of more than 16 bits are split into 16-bit digits again, `L = sum_p 2^(16 p) D_p`, and by linearity
    `H(L) = sum_p 2^(16 p) H(D_p)`. How many digits depends on the number of contributors only: one for 1, two
    up to 65,537, at most four. Measured: 33 ms for 500,001 lanes and two digits.

    Returns:
        uint64[2048].
    """
    planes = max(1, -(-(limb_sum.contributors * _LARGEST_LIMB).bit_length() // 16))
    entries, polynomials, total = limb_sum.entries, _PublicPolynomials(), ProductSum()
    padded = np.zeros(BLOCK_DIGITS, dtype="<u8")
    for index, start in enumerate(range(0, entries.size, BLOCK_DIGITS)):
        piece = entries[start : start + BLOCK_DIGITS]
        padded[: piece.size] = piece
        padded[piece.size :] = 0
        digits = padded.view("<u2").reshape(BLOCK_DIGITS, 4)
        spectra = polynomials.block(index)
        for plane in range(planes):
            total.add(spectra, digits[:, plane], plane)
    return total.result()


def sum_of_hashes(hashes: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """The sum of hashes mod 2^64, coefficient by coefficient; zero for none.

    Args:
        hashes: uint64[2048] each.

    Returns:
        uint64[2048].

    Raises:
        ArithmeticInputError: field `hashes`, naming the index of the first that is no hash.
    """
    out = np.zeros(HASH_WORDS, dtype=np.uint64)
    for index, item in enumerate(hashes):
        if item.dtype != np.uint64 or item.shape != (HASH_WORDS,):
            raise ArithmeticInputError(
                "hashes", f"number {index} must be uint64[{HASH_WORDS}], got {item.dtype}{list(item.shape)}"
            )
        np.add(out, item, out=out)
    return out
