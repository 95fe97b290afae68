"""Flattening: a public random rotation that makes coordinates small, so that they need fewer bits.

The map is orthonormal: zero padding to a multiple of the block `b`, a random permutation, random signs, and a
Walsh-Hadamard transform of each block divided by `sqrt(b)`.

The bound (`flattened_bound`). Let `x` have norm at most `C`, let `y` be `x` permuted and padded. Output `i`
is `sum_j sigma_j H_ij y_j / sqrt(b)` over its block, with independent uniform signs `sigma_j`, `H_ij = +-1`.
By Hoeffding's inequality for sums of bounded independent terms of mean zero,
`P(|out_i| > t) <= 2 exp(-t^2 b / (2 sum_j y_j^2)) <= 2 exp(-t^2 b / (2 C^2))`. There are `P` outputs, padding
included, so all are within `t` except with probability `2 P exp(-t^2 b / (2 C^2))`, which is at most `p` for
`t = C sqrt(2 ln(2 P / p) / b)`. Padding adds less than a block when `d > b` and less than `d` otherwise, so
`P <= 2 d`, and `t = C sqrt(2 ln(4 d / p) / b)` suffices: the `d` inside the logarithm is the number of
coordinates and the `b` below it is the block. One block may hold the whole norm (a spike does that), so `d`
cannot stand for `b`; the permutation helps typical vectors and is not used by the proof. The probability is
over keys that do not depend on the vector: whoever chooses a vector after seeing the keys can exceed the
bound, and is clamped.
"""

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.fields import LANE_BITS, FieldLayout
from secagg.arith.keystream import Keystream

MAX_BLOCK = 1 << 16
"""Largest block of the transform: 256 KiB of fp32, in L2 together with its scratch copy."""

FAILURE_EXPONENT = 40
"""`p = 2^-40`: an honest vector has a coordinate beyond the bound with at most this probability."""

_GRID_BITS = 40


def flatten_block(dimension: int) -> int:
    """The block `b` of the transform: the next power of two at or above `dimension`, at most `MAX_BLOCK`.

    Args:
        dimension: `d`, number of coordinates, at least 1.

    Raises:
        ArithmeticInputError: `dimension < 1`.
    """
    if dimension < 1:
        raise ArithmeticInputError("dimension", f"must be at least 1, got {dimension}")
    return min(MAX_BLOCK, 1 << (dimension - 1).bit_length())


def flattened_dimension(dimension: int) -> int:
    """The number of coordinates after padding: the multiple of the block at or above `dimension`.

    Args:
        dimension: `d`, number of coordinates, at least 1.

    Raises:
        ArithmeticInputError: `dimension < 1`.
    """
    block = flatten_block(dimension)
    return -(-dimension // block) * block


def _hadamard_columns(
    current: NDArray[np.floating], spare: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Transforms every column, halving strides from the top; returns (result, other buffer), both [r, c]."""
    rows, columns = current.shape
    half = rows // 2
    while half:
        source = current.reshape(rows // (2 * half), 2, half * columns)
        target = spare.reshape(rows // (2 * half), 2, half * columns)
        np.add(source[:, 0], source[:, 1], out=target[:, 0])
        np.subtract(source[:, 0], source[:, 1], out=target[:, 1])
        current, spare = spare, current
        half //= 2
    return current, spare


def _transform(vector: NDArray[np.floating], block: int) -> None:
    """Orthonormal Walsh-Hadamard transform of every block of `vector`, in place.

    As a matrix of `rows x columns` a block is transformed along its columns (the high strides), transposed,
    again along its columns (the low strides) and transposed back: numpy then always runs along memory.
    """
    log = block.bit_length() - 1
    rows, columns = 1 << ((log + 1) // 2), 1 << (log // 2)
    factor = vector.dtype.type(1.0 / math.sqrt(block))
    first, second = np.empty(block, dtype=vector.dtype), np.empty(block, dtype=vector.dtype)
    for start in range(0, vector.size, block):
        piece = vector[start : start + block].reshape(rows, columns)
        high = first.reshape(rows, columns)
        high[:] = piece
        high, spare = _hadamard_columns(high, second.reshape(rows, columns))
        low = spare.reshape(columns, rows)
        low[:] = high.T
        low, _ = _hadamard_columns(low, high.reshape(columns, rows))
        np.multiply(low.T, factor, out=piece)


class Flatten:
    """One session's flattening map and its inverse, fixed by two public keys.

    The permutation sorts the padded coordinates by the first `padded_dimension` little-endian uint64 of the
    keystream of `permutation_key`, ties by index: coordinate `j` of the permuted vector is coordinate
    `order[j]` of the padded one. Sign `j`, of the permuted coordinate, is minus when bit `j mod 8` (lowest
    first) of byte `j // 8` of the keystream of `sign_key` is one. Each block is then transformed in the
    vector's own precision, for `h = b/2, b/4, .., 1` and every pair of positions that differ in bit `h`:
    `(x, y) <- (x + y, x - y)`; and multiplied by `1 / sqrt(b)` (fp64, rounded to the vector's precision).

    Measured, 10^6 coordinates: constructor 22 ms, forward (fp32) 6 ms, inverse (fp64) 16 ms.

    Args:
        permutation_key: 32 bytes, public, from the session record.
        sign_key: 32 bytes, public, different from `permutation_key`.
        dimension: `d`, number of coordinates, at least 1.

    Raises:
        ArithmeticInputError: a key of wrong length, equal keys, or `dimension < 1`.

    Source: design 02-encoding, Flatten.
    """

    __slots__ = ("_order", "_signs", "block", "dimension", "padded_dimension")

    def __init__(self, permutation_key: bytes, sign_key: bytes, dimension: int) -> None:
        self.block = flatten_block(dimension)
        self.dimension = dimension
        self.padded_dimension = flattened_dimension(dimension)
        if permutation_key == sign_key:
            raise ArithmeticInputError("sign_key", "must differ from permutation_key")
        keys = np.empty(self.padded_dimension, dtype=np.uint64)
        Keystream(permutation_key).read_into(keys)
        self._order = _sort_order(keys)
        packed = np.empty(-(-self.padded_dimension // 8), dtype=np.uint8)
        Keystream(sign_key).read_into(packed)
        bits = np.unpackbits(packed, count=self.padded_dimension, bitorder="little")
        self._signs = np.subtract(1, 2 * bits.view(np.int8), dtype=np.int8).astype(np.float32)

    def forward(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pads, permutes, flips signs and transforms.

        Args:
            vector: float32[dimension], finite.

        Returns:
            float32[padded_dimension], of the same L2 norm up to fp32 rounding (about `log2(b) 2^-24`).

        Raises:
            ArithmeticInputError: wrong dtype or shape.
        """
        if vector.dtype != np.float32 or vector.shape != (self.dimension,):
            raise ArithmeticInputError("vector", f"must be float32[{self.dimension}], got {vector.dtype}")
        padded = np.zeros(self.padded_dimension, dtype=np.float32)
        padded[: self.dimension] = vector
        out = np.take(padded, self._order)
        np.multiply(out, self._signs, out=out)
        _transform(out, self.block)
        return out

    def inverse(self, vector: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.floating]:
        """Undoes `forward`: transforms, flips signs, puts coordinates back and drops the padding.

        In fp64 and on integers of magnitude at most `2^53 / b` the sums of the transform are exact.

        Args:
            vector: float64[padded_dimension] or float32[padded_dimension]; not changed.

        Returns:
            Array of `dimension` coordinates, dtype of `vector`.

        Raises:
            ArithmeticInputError: wrong dtype or shape.
        """
        if vector.dtype not in (np.float32, np.float64) or vector.shape != (self.padded_dimension,):
            raise ArithmeticInputError(
                "vector", f"must be float32 or float64[{self.padded_dimension}], got {vector.dtype}"
            )
        work = vector.copy()
        _transform(work, self.block)
        np.multiply(work, self._signs, out=work)
        out = np.empty_like(work)
        out[self._order] = work
        return out[: self.dimension].copy()


def _sort_order(keys: NDArray[np.uint64]) -> NDArray[np.intp]:
    """The order that sorts `keys`, ties by index: a fast sort, and the slow stable one if a tie shows."""
    order = np.argsort(keys)
    ranked = keys[order]
    if (ranked[1:] == ranked[:-1]).any():
        return np.argsort(keys, kind="stable")
    return order


def flattened_bound(clip_norm: Fraction, dimension: int) -> Fraction:
    """The bound on coordinates of a flattened vector, the same rational for everybody.

    `clip_norm * ceil(2^40 * sqrt(2 ln(4 d / p) / b)) / 2^40` with `p = 2^-40`; the proof is in the module's
    docstring. `ln`, product, quotient and square root are decimal operations of 50 digits, each rounded half
    to even, in this order: `ln(d * 2^42)`, `2 *`, `/ b`, `sqrt`, `* 2^40`, ceiling.

    Args:
        clip_norm: L2 norm of the vector before flattening, positive.
        dimension: `d`, number of coordinates before padding, at least 1.

    Raises:
        ArithmeticInputError: `clip_norm <= 0` or `dimension < 1`.
    """
    if clip_norm <= 0:
        raise ArithmeticInputError("clip_norm", "must be positive")
    block = flatten_block(dimension)
    with localcontext(Context(prec=50)):
        ratio = (2 * Decimal(dimension << (FAILURE_EXPONENT + 2)).ln() / block).sqrt()
        steps = int((ratio * (1 << _GRID_BITS)).to_integral_value(rounding=ROUND_CEILING))
    return clip_norm * Fraction(steps, 1 << _GRID_BITS)


@dataclass(frozen=True, slots=True)
class NoFlatten:
    """Coordinates are quantised as they are."""


@dataclass(frozen=True, slots=True)
class FlattenBlocks:
    """Coordinates are flattened first, in blocks of `block` (a power of two, at most `MAX_BLOCK`)."""

    block: int

    def __post_init__(self) -> None:
        if not 1 <= self.block <= MAX_BLOCK or self.block & (self.block - 1):
            raise ArithmeticInputError("block", f"must be a power of two up to {MAX_BLOCK}, got {self.block}")


FlattenChoice = NoFlatten | FlattenBlocks
"""Whether vectors are flattened before they are quantised."""


@dataclass(frozen=True, slots=True)
class EncodingPlan:
    """How a session encodes vectors: what everybody derives from the same public parameters.

    Attributes:
        layout: fields and lanes; its dimension is the padded one when flattening, and its value bits are
            those to quantise with.
        bound: largest magnitude of a coordinate that is represented; `Quantiser(layout.value_bits, bound)`.
        flatten: whether vectors are flattened first.
    """

    layout: FieldLayout
    bound: Fraction
    flatten: FlattenChoice


def plan_encoding(
    dimension: int,
    clip_norm: Fraction,
    value_bits: int,
    max_contributors: int,
    usable_bits: int = LANE_BITS,
) -> EncodingPlan:
    """Chooses flattening exactly when it saves lanes at the same quantisation step or a finer one.

    Without flattening the step is `clip_norm / (2^(B-1) - 1)`. Flattened coordinates have a smaller bound,
    so the fewest bits `B'` with `bound / (2^(B'-1) - 1)` at or below that step may be fewer than `B`, and a
    lane may hold more fields. Deviation from the design, which compares fields per lane: padding to whole
    blocks can double the dimension, so the lanes of the whole vector are compared.

    Args:
        dimension: `d`, number of coordinates before padding.
        clip_norm: the public L2 bound, positive.
        value_bits: `B` without flattening.
        max_contributors: `n_max`.
        usable_bits: `T`, usable bits of a lane.

    Raises:
        ArithmeticInputError: as `FieldLayout` and `flattened_bound` do.
    """
    plain = FieldLayout(value_bits, max_contributors, dimension, usable_bits)
    bound = flattened_bound(clip_norm, dimension)
    # bound / (2^(B'-1) - 1) <= clip_norm / (2^(B-1) - 1), solved for the integer 2^(B'-1) - 1.
    levels = math.ceil(plain.largest * bound / clip_norm)
    flat_bits = max(2, levels.bit_length() + 1)
    if flat_bits >= value_bits:
        return EncodingPlan(plain, clip_norm, NoFlatten())
    flat = FieldLayout(flat_bits, max_contributors, flattened_dimension(dimension), usable_bits)
    if flat.lanes >= plain.lanes:
        return EncodingPlan(plain, clip_norm, NoFlatten())
    return EncodingPlan(flat, bound, FlattenBlocks(flatten_block(dimension)))
