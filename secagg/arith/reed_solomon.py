"""Decoding of shares with errors: the unique polynomial that agrees with all but a few of the values.

Shamir shares are a Reed-Solomon code word; `m` shares of a polynomial of degree below `t` determine it as
long as at most `floor((m - t) / 2)` of them are wrong.

Source: S. Gao, "A new algorithm for decoding Reed-Solomon codes" (2003): interpolate, run the extended
Euclidean algorithm half way, divide.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from secagg.arith.prime_field import PRIME, barycentric_weights, matrix_product, powers

MAX_SUBSETS = 1024
"""Most subsets of shares that are tried when decoding has failed."""

_P = np.uint64(PRIME)
_Poly = NDArray[np.uint64]
# Polynomials here are coefficient arrays, lowest degree first, without leading zeros; zero has size 0.


def _trim(poly: _Poly) -> _Poly:
    nonzero = np.flatnonzero(poly)
    return poly[: int(nonzero[-1]) + 1] if nonzero.size else poly[:0]


def _divide(dividend: _Poly, divisor: _Poly) -> tuple[_Poly, _Poly]:
    """Quotient and remainder; `divisor` is not zero."""
    steps = dividend.size - divisor.size + 1
    if steps <= 0:
        return dividend[:0], dividend
    rest = dividend.copy()
    quotient = np.zeros(steps, dtype=np.uint64)
    lead = pow(int(divisor[-1]), -1, PRIME)
    for shift in range(steps - 1, -1, -1):
        factor = int(rest[shift + divisor.size - 1]) * lead % PRIME
        if factor:
            quotient[shift] = factor
            window = rest[shift : shift + divisor.size]
            window[:] = (window + divisor * np.uint64(PRIME - factor)) % _P
    return quotient, _trim(rest[: divisor.size - 1])


def _multiply(left: _Poly, right: _Poly) -> _Poly:
    if not (left.size and right.size):
        return left[:0]
    short, long = sorted((left, right), key=len)
    out = np.zeros(left.size + right.size - 1, dtype=np.uint64)
    for shift, factor in enumerate(short):
        window = out[shift : shift + long.size]
        window[:] = (window + long * factor) % _P
    return out


def _subtract(left: _Poly, right: _Poly) -> _Poly:
    out = np.zeros(max(left.size, right.size), dtype=np.uint64)
    out[: left.size] = left
    out[: right.size] += _P - right
    return _trim(out % _P)


class GaoDecoder:
    """Decodes vectors of values at the same points; what depends on the points only is computed once.

    Args:
        points: uint64[m], distinct nonzero field elements.
        threshold: `t`, polynomials have degree below it, 1 to m.
    """

    __slots__ = ("_basis", "_master", "_points", "_table", "_threshold")

    def __init__(self, points: NDArray[np.uint64], threshold: int) -> None:
        self._points = points
        self._threshold = threshold
        self._table = powers(points, threshold)
        master = np.ones(1, dtype=np.uint64)
        for point in points:
            master = _multiply(master, np.array([PRIME - int(point), 1], dtype=np.uint64))
        self._master = master
        # Row i is w_i * prod_(j != i) (x - x_j): synthetic division of the master polynomial by every
        # x - x_i at once, so that interpolation is one matrix product.
        size = points.size
        quotients = np.empty((size, size), dtype=np.uint64)
        carry = np.zeros(size, dtype=np.uint64)
        for degree in range(size, 0, -1):
            carry = (carry * points + master[degree]) % _P
            quotients[:, degree - 1] = carry
        self._basis = quotients * barycentric_weights(points)[:, None] % _P

    def decode(self, values: NDArray[np.uint64]) -> NDArray[np.uint64] | None:
        """Finds the polynomial of degree below t that at most `floor((m - t) / 2)` of the values miss.

        Args:
            values: uint64[m], field elements, one for each point.

        Returns:
            Its coefficients, uint64[t], lowest degree first; None when there is no such polynomial.
        """
        size, threshold = self._points.size, self._threshold
        previous, current = self._master, _trim(matrix_product(values[None, :], self._basis)[0])
        older, newer = self._points[:0], np.ones(1, dtype=np.uint64)
        # Stop at the first remainder g of degree below (m + t) / 2; g = v * f with v the error locator.
        while 2 * (current.size - 1) >= size + threshold:
            quotient, rest = _divide(previous, current)
            previous, current = current, rest
            older, newer = newer, _subtract(older, _multiply(quotient, newer))
        found, rest = _divide(current, newer)
        found = _trim(found)
        if rest.size or found.size > threshold:
            return None
        coefficients = np.zeros(threshold, dtype=np.uint64)
        coefficients[: found.size] = found
        # The locator v has degree at most (m - t) / 2, and f agrees with the values wherever v is not zero.
        return coefficients

    def evaluate(self, coefficients: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Values at the points, of polynomials given as columns: uint64[t, L] to uint64[m, L]."""
        return matrix_product(self._table, coefficients)


def decode_columns(
    points: NDArray[np.uint64], shares: NDArray[np.uint64], threshold: int
) -> tuple[NDArray[np.uint64], list[int]] | None:
    """Decodes every column; those with too many wrong values again, without the rows found wrong in others.

    Args:
        points: uint64[m], distinct nonzero field elements.
        shares: uint64[m, L], field elements.
        threshold: `t`, 1 to m.

    Returns:
        The constant terms, uint64[L], and the rows that miss the polynomials, ascending; None when a column
        cannot be decoded.
    """
    width = shares.shape[1]
    decoder = GaoDecoder(points, threshold)
    columns = {i: decoder.decode(np.ascontiguousarray(shares[:, i])) for i in range(width)}
    solved = {i: column for i, column in columns.items() if column is not None}
    if not solved:
        return None
    polynomials = np.zeros((threshold, width), dtype=np.uint64)
    for i, column in solved.items():
        polynomials[:, i] = column
    known = list(solved)
    wrong = (decoder.evaluate(polynomials[:, known]) != shares[:, known]).any(axis=1)
    if len(solved) < width:
        kept = np.flatnonzero(~wrong)
        if kept.size < threshold:
            return None
        again = GaoDecoder(points[kept], threshold)
        for i in set(columns) - set(solved):
            repaired = again.decode(np.ascontiguousarray(shares[kept, i]))
            if repaired is None:
                return None
            polynomials[:, i] = repaired
    missed = (decoder.evaluate(polynomials) != shares).any(axis=1)
    return polynomials[0], np.flatnonzero(missed).tolist()


def subsets_to_try(count: int, size: int) -> Iterator[NDArray[np.intp]]:
    """Yields subsets of rows to reconstruct from when decoding failed, at most `MAX_SUBSETS`.

    All of them where there are no more than that, in lexicographic order; else windows of `size` consecutive
    positions around the circle, then with the next stride that is coprime to `count`, up to half of it (beyond,
    the same windows come again backwards).

    Args:
        count: `m`, number of rows.
        size: `t`, rows in a subset, 1 to m.

    Yields:
        intp[size], distinct rows.
    """
    if math.comb(count, size) <= MAX_SUBSETS:
        for chosen in itertools.combinations(range(count), size):
            yield np.array(chosen, dtype=np.intp)
        return
    circle = (
        (start, stride) for stride in range(1, count // 2 + 1) if math.gcd(stride, count) == 1 for start in range(count)
    )
    window = np.arange(size)
    for start, stride in itertools.islice(circle, MAX_SUBSETS):
        yield (start + stride * window) % count
