"""Exact products in `Z_{2^64}[X] / (X^2048 + 1)`: sums of `b_j y_j` with 16-bit digits, by FFTs in fp64.

A word `b` is split into four *centred* digits, `b = sum_i 2^(16 i) c_i` mod 2^64 with `-2^15 <= c_i < 2^15`;
the digits of `y` are in `0 .. 2^16 - 1`. A polynomial of `N = 2048` real coefficients is folded into
`M = 1024` complex ones, `x_k + i x_(k + M)`, twisted by `exp(i pi k / N)` and transformed; products of
transforms then are products mod `X^N + 1`. Four products are added up before one inverse transform and `rint`.

**Why `rint` always finds the right integer.** Unit roundoff `u = 2^-53`, norms are 2-norms, errors are bounded for
all inputs. Nothing overflows or underflows, integers are converted exactly, scaling by 1/1024 is exact.

1. A complex addition errs by at most `u`, a product by at most `sqrt(5) u` relative to its modulus (Brent,
   Percival & Zimmermann 2007; 2 u with FMA, Jeannerod et al. 2017). Tabulated roots of unity err by at most `t u`.
   Our twist has `t <= 4`: angles up to pi/4 err by 1.1 u, sine and cosine by one ulp, at most u, each.
2. A transform of 1024 points is ten levels of additions; between two levels, each number is multiplied by at
   most one root. With ten products and `t = 4` that is `10 (1 + sqrt(5) + 4) u <= 73 u`. pocketfft, behind
   `scipy.fft`, has radices 8, 8, 8 and 2: three tabulated roots, and six products by sqrt(1/2) with at most 3 u.
   Then 73 u allows `t` up to 12; its table entries are products of two entries, `t < 6`. Each level is sqrt(2)
   times a unitary matrix, and errs by a factor per number, so 73 u bounds the relative error in the 2-norm. And
   every output is a sum over one path from each input, so it errs by at most 73 u times the sum of moduli of inputs.
   With the twist before or after, `73 + sqrt(5) + 4 < 80`: 80 u in both senses.
3. `|b| <= 2^15 sqrt(N) = 2^20.5`, `|y| < 2^21.5`; folding keeps norms. By Cauchy and Schwarz, the products of
   the two transforms have moduli that add up to at most `M |b| |y|` and err in sum by `(2 * 80 + sqrt(5)) u` of it;
   adding four together errs by 3 u more. The inverse errs by 80 u, and divides by M.
4. Together less than `250 u` (terms in u^2 included) of `4 * 2^20.5 * 2^21.5 = 2^44`, that is
   **`250 * 2^-53 * 2^44 = 0.4883 < 1/2`** in every coefficient.

Measured: 0.0098 for the worst inputs the tests construct, all-maximal and aligned with one root included; a
transform errs by 2.2 u in the 2-norm, the twist by 1.2 u, the product of roots along a path by 5.7 u.
What is assumed of the platform: IEEE 754 doubles, round to nearest, and an FFT of the structure in 2.
"""

from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from secagg.arith.twist import twist_tables

DEGREE: Final = 2048
"""`N`: the ring is `Z_{2^64}[X] / (X^N + 1)`."""

BLOCK_POLYNOMIALS: Final = 8
"""How many polynomials are worked on at a time; working memory then is 0.6 MiB and stays in L2."""

BLOCK_DIGITS: Final = BLOCK_POLYNOMIALS * DEGREE
"""Digits of a block, one of each coefficient."""

DIGITS: Final = 4
"""Digits of 16 bits in a word."""

POLYNOMIALS_PER_INVERSE: Final = 4
"""Products that are added up before an inverse transform; the proof is for this number."""

ERROR_BOUND: Final = 250 * POLYNOMIALS_PER_INVERSE * 2.0 ** (42 - 53)
"""The proved distance of what is rounded from an integer: 0.48828125."""

_FOLDED: Final = DEGREE // 2
_GROUPS: Final = BLOCK_POLYNOMIALS // POLYNOMIALS_PER_INVERSE
_HALVES = np.uint64(0x8000_8000_8000_8000)

_TWIST, _UNTWIST = twist_tables(DEGREE)


def _transform(folded: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Twists and transforms along the last axis; overwrites `folded`, whose memory the result may use."""
    np.multiply(folded, _TWIST, out=folded)
    transformed: NDArray[np.complex128] = scipy.fft.fft(folded, axis=-1, overwrite_x=True, workers=1)
    return transformed


def new_spectra() -> NDArray[np.complex128]:
    """Room for the transforms of one block of `b`: complex128[groups, polynomials, digits, 1024], 512 KiB."""
    return np.empty((_GROUPS, POLYNOMIALS_PER_INVERSE, DIGITS, _FOLDED), dtype=np.complex128)


def spectra_of(words: NDArray[np.uint64], room: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Transforms the centred digits of one block of polynomials.

    Args:
        words: uint64[BLOCK_DIGITS], eight polynomials, little-endian in memory; overwritten.
        room: what `new_spectra` returns; overwritten, and the memory of the result if the FFT works in place.

    Returns:
        complex128[groups, polynomials, digits, 1024].
    """
    # Adding 2^15 at every digit makes the digits of the sum those of the word plus 2^15, carries included;
    # flipping the top bit of an unsigned digit subtracts 2^15 in two's complement.
    np.add(words, _HALVES, out=words)
    np.bitwise_xor(words, _HALVES, out=words)
    digits = words.view("<i2").reshape(_GROUPS, POLYNOMIALS_PER_INVERSE, 2, _FOLDED, DIGITS)
    room.real = digits[:, :, 0].transpose(0, 1, 3, 2)
    room.imag = digits[:, :, 1].transpose(0, 1, 3, 2)
    return _transform(room)


class ProductSum:
    """`sum_j b_j y_j` over any number of blocks, exact mod 2^64; not for use by two threads at once."""

    __slots__ = ("_folded", "_products", "_sums", "_totals")

    def __init__(self) -> None:
        self._folded = np.empty((_GROUPS, POLYNOMIALS_PER_INVERSE, 1, _FOLDED), dtype=np.complex128)
        self._products = np.empty((POLYNOMIALS_PER_INVERSE, DIGITS, _FOLDED), dtype=np.complex128)
        self._sums = np.empty((DIGITS, _GROUPS, _FOLDED), dtype=np.complex128)
        # One row for each digit of the result; its coefficients k and k + 1024 lie side by side.
        self._totals = np.zeros((DIGITS, DEGREE), dtype=np.uint64)

    def add(self, spectra: NDArray[np.complex128], digits: NDArray[np.uint16], plane: int) -> None:
        """Adds `2^(16 plane) sum_j b_j y_j` for one block.

        Args:
            spectra: the transforms of `b_1 .. b_8`.
            digits: uint16[BLOCK_DIGITS], the coefficients of `y_1 .. y_8`; any stride.
            plane: 0 to 3; digits of `b` that would end up above 2^64 are skipped.
        """
        sums = self._inexact(spectra, digits, DIGITS - plane).view(np.float64)
        np.rint(sums, out=sums)
        # Below 2^45 in magnitude, so still exact; negative numbers are two's complement from here on.
        exact = np.add(sums[:, 0], sums[:, 1]).astype(np.int64).view(np.uint64)
        np.add(self._totals[plane:], exact, out=self._totals[plane:])

    def _inexact(
        self, spectra: NDArray[np.complex128], digits: NDArray[np.uint16], count: int
    ) -> NDArray[np.complex128]:
        """Products with the lowest `count` digits of `b` before rounding: complex128[count, groups, 1024]."""
        halves = digits.reshape(_GROUPS, POLYNOMIALS_PER_INVERSE, 1, 2, _FOLDED)
        self._folded.real = halves[..., 0, :]
        self._folded.imag = halves[..., 1, :]
        transformed = _transform(self._folded)
        sums = self._sums[:count]
        products = self._products[:, :count]
        for group in range(_GROUPS):
            np.multiply(spectra[group, :, :count], transformed[group], out=products)
            np.add.reduce(products, axis=0, out=sums[:, group])
        done = scipy.fft.ifft(sums, axis=-1, overwrite_x=True, workers=1)
        np.multiply(done, _UNTWIST, out=sums)
        return sums

    def totals(self) -> NDArray[np.uint64]:
        """A copy of the state, for `restore`."""
        return self._totals.copy()

    def restore(self, totals: NDArray[np.uint64]) -> None:
        """Goes back to a state that `totals` returned."""
        self._totals[...] = totals

    def result(self) -> NDArray[np.uint64]:
        """The sum so far: uint64[2048], coefficient of `X^k` at `k`."""
        shifts = np.arange(0, 16 * DIGITS, 16, dtype=np.uint64)[:, None]
        interleaved = np.add.reduce(np.left_shift(self._totals, shifts), axis=0)
        return np.ascontiguousarray(interleaved.reshape(_FOLDED, 2).T).reshape(DEGREE)
