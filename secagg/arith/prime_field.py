"""The prime field of `p = 2^31 - 1` on numpy arrays, for secret sharing; elements are uint64 below `p`.

Products of two elements fit 62 bits, so every operation here is exact. Nothing is constant-time.
"""

import numpy as np
from numpy.typing import NDArray

from secagg.arith.errors import ArithmeticInputError

PRIME = 2**31 - 1
"""The field's modulus, a Mersenne prime."""

MAX_POINTS = 2048
"""Most evaluation points of one polynomial: matrices of points by points are made (32 MiB at the most)."""

_P = np.uint64(PRIME)
_LOW = np.uint64(0xFFFF)
_HALF = np.uint64(16)


def check_elements(name: str, values: NDArray[np.uint64], dimensions: int) -> None:
    """Refuses what is not an array of field elements.

    Args:
        name: what the error calls it.
        values: anything; must be uint64 with `dimensions` axes, none empty, every entry below `p`.
        dimensions: number of axes.

    Raises:
        ArithmeticInputError: field `name`.
    """
    if values.dtype != np.uint64 or values.ndim != dimensions or values.size == 0:
        raise ArithmeticInputError(
            name, f"must be non-empty {dimensions}-d uint64, got {values.dtype}{list(values.shape)}"
        )
    if int(values.max()) >= PRIME:
        raise ArithmeticInputError(name, f"holds a value at or above {PRIME}")


def elements_from_bytes(encoded: bytes, length_bytes: int) -> NDArray[np.uint64]:
    """Decodes a share, field elements as little-endian uint32; every share has exactly one encoding.

    Args:
        encoded: the bytes.
        length_bytes: how many there must be.

    Returns:
        uint64[length_bytes / 4], field elements.

    Raises:
        ArithmeticInputError: field `share`: wrong length, or a value of p or more.
    """
    if len(encoded) != length_bytes:
        raise ArithmeticInputError("share", f"must be {length_bytes} bytes, got {len(encoded)}")
    elements = np.frombuffer(encoded, dtype="<u4").astype(np.uint64)
    check_elements("share", elements, 1)
    return elements


def check_points(points: NDArray[np.uint64]) -> None:
    """Refuses evaluation points that are not distinct nonzero field elements, uint64[m], m <= MAX_POINTS.

    Raises:
        ArithmeticInputError: field `points`.
    """
    check_elements("points", points, 1)
    if points.size > MAX_POINTS:
        raise ArithmeticInputError("points", f"at most {MAX_POINTS}, got {points.size}")
    ordered = np.sort(points)
    if ordered[0] == 0:
        raise ArithmeticInputError("points", "must not be zero, where the secret lies")
    if (ordered[1:] == ordered[:-1]).any():
        raise ArithmeticInputError("points", "must be distinct")


def inverse(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Inverts nonzero elements, uint64[n] to uint64[n], with one modular inversion (Montgomery's trick).

    Pairs are multiplied up a tree, the root is inverted, and inverses are handed down: 3 n products, 2 log n
    vector operations. A zero makes the result meaningless, so callers exclude it.
    """
    if values.size == 1:
        return np.array([pow(int(values[0]), -1, PRIME)], dtype=np.uint64)
    half = values.size // 2
    left, right = values[:half], values[half : 2 * half]
    below = inverse(np.concatenate([left * right % _P, values[2 * half :]]))
    pairs = below[:half]
    return np.concatenate([pairs * right % _P, pairs * left % _P, below[half:]])


def product_of_rows(matrix: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Multiplies along the last axis, uint64[r, c] to uint64[r], in log2 c vector operations."""
    while matrix.shape[1] > 1:
        half = matrix.shape[1] // 2
        matrix = np.concatenate([matrix[:, :half] * matrix[:, half : 2 * half] % _P, matrix[:, 2 * half :]], axis=1)
    return matrix[:, 0]


def differences(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """All differences `left_i - right_j`, uint64[m] and uint64[n] to uint64[m, n]."""
    gaps: NDArray[np.uint64] = (left[:, None] + (_P - right)[None, :]) % _P
    return gaps


def matrix_product(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Exact matrix product mod p, uint64[m, k] by uint64[k, n] to uint64[m, n], through BLAS.

    Elements are split into 16 low and 15 high bits; the fp64 products are below 2^32 and sums of up to
    2^20 pairs of them below 2^53, so BLAS is exact in whatever order it adds.
    """
    a_high, a_low = (left >> _HALF).astype(np.float64), (left & _LOW).astype(np.float64)
    b_high, b_low = (right >> _HALF).astype(np.float64), (right & _LOW).astype(np.float64)
    high = (a_high @ b_high).astype(np.uint64) % _P
    middle = (a_high @ b_low + a_low @ b_high).astype(np.uint64) % _P
    low = (a_low @ b_low).astype(np.uint64) % _P
    # 2^32 = 2 mod p.
    product: NDArray[np.uint64] = ((high << np.uint64(1)) + (middle << _HALF) + low) % _P
    return product


def powers(points: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """The Vandermonde matrix `points_i^j`, uint64[m] to uint64[m, count]."""
    table = np.empty((points.size, count), dtype=np.uint64)
    table[:, 0] = 1
    filled = 1
    while filled < count:
        step = min(filled, count - filled)
        top = table[:, filled - 1] * points % _P
        table[:, filled : filled + step] = table[:, :step] * top[:, None] % _P
        filled += step
    return table


def barycentric_weights(points: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The inverses of `prod_(j != i) (x_i - x_j)`, uint64[t] of distinct points to uint64[t]."""
    gaps = differences(points, points)
    np.fill_diagonal(gaps, 1)
    return inverse(product_of_rows(gaps))


def extrapolation_matrix(known: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The matrix that takes values at `known` to values at `wanted` of the polynomial of degree below t.

    Lagrange's formula in barycentric form: `w_i prod_j (z - x_j) / (z - x_i)`.

    Args:
        known: uint64[t], distinct.
        wanted: uint64[m], none of them in `known`.

    Returns:
        uint64[m, t].
    """
    gaps = differences(wanted, known)
    inverted = inverse(gaps.reshape(-1)).reshape(gaps.shape)
    scaled: NDArray[np.uint64] = inverted * barycentric_weights(known)[None, :] % _P
    return scaled * product_of_rows(gaps)[:, None] % _P
