"""Exact products in `Z_{2^64}[X] / (X^4096 + 1)` of any `a` with a small `s`, by FFTs in fp64.

A word `a` is split into *centred* limbs of `w` bits, `a = sum_i 2^(w i) c_i` mod 2^64 with
`-2^(w-1) <= c_i < 2^(w-1)`. A polynomial of `N = 4096` real coefficients is folded into `M = 2048` complex ones,
`x_k + i x_(k + M)`, twisted by `exp(i pi k / N)` and transformed; products of transforms then are products mod
`X^N + 1`. Each limb's product is transformed back and rounded to integers, and the limbs are put together mod 2^64.

**Why rounding always finds the right integer.** Unit roundoff `u = 2^-53`, norms are 2-norms, errors are bounded
for all inputs. Nothing overflows or underflows, integers are converted exactly, scaling by 1/2048 is exact.

1. A complex addition errs by at most `u`, a product by at most `sqrt(5) u` relative to its modulus (Brent,
   Percival & Zimmermann 2007; 2 u with FMA, Jeannerod et al. 2017). Tabulated roots of unity err by at most `t u`.
   Our twist has `t <= 4`: angles up to pi/4 err by 1.1 u, sine and cosine by one ulp, at most u, each.
2. A transform of 2048 points is eleven levels of additions; between two levels, each number is multiplied by at
   most one root. With eleven products and `t = 4` that is `11 (1 + sqrt(5) + 4) u < 80 u`. pocketfft, behind
   `scipy.fft`, has radices 8, 8, 8 and 4: three tabulated roots, and six products by sqrt(1/2) with at most 3 u.
   Then 80 u allows `t` up to 14; its table entries are products of two entries, `t < 6`. Each level is sqrt(2)
   times a unitary matrix, and errs by a factor per number, so 80 u bounds the relative error in the 2-norm. And
   every output is a sum over one path from each input, so it errs by at most 80 u times the sum of moduli of inputs.
   With the twist before or after, `80 + sqrt(5) + 4 < 87`: 87 u in both senses.
3. Folding keeps norms. By Cauchy and Schwarz, the products of two transforms have moduli that add up to at most
   `M |c| |s|` and err in sum by `(2 * 87 + sqrt(5)) u` of it. The inverse errs by 87 u, and divides by M.
4. Together less than `264 u |c| |s|` (terms in u^2 included), and `|c| <= 2^(w-1) sqrt(N) = 2^(w+5)`: with
   **`264 * 2^(w+5-53) |s| < 1/2`** every coefficient is within 1/2 of its integer, which is below 2^44.
5. Rounding is the addition of `1.5 * 2^52`: numbers below 2^51 in magnitude land where doubles are the integers, so
   IEEE's rounding to nearest of that one addition is the one wanted, and the integer is read from the low bits.

`|s|` is not assumed: it is computed in exact integers from the `s` at hand, and the widest limbs that it allows are
used. The check of every coefficient against `bound` guarantees that some width does: `|s| <= 64 bound`, and
5 limbs of 13 bits are proved for all `|s| < 2^34 / 264`, so `MAX_BOUND` is the largest bound for which nothing, however
it was chosen, is refused or rounded wrongly. What that gives:

| limbs of bits | proved for `abs(s)` below | secrets |
|---|---|---|
| 2 of 32 | 124 | one contributor's: 64 expected for CBD(2), 124 is 144 deviations of its square away |
| 3 of 22 | 127,100 | sums of 2^21 |
| 4 of 16 | 8,134,407 | sums of 2^33 |
| 5 of 13 | 65,075,262 | all within `MAX_BOUND` |

Measured: the worst inputs that tests construct, all-maximal and aligned with one root included, are 0.012 off.
What is assumed of the platform: IEEE 754 doubles, round to nearest, and an FFT of the structure in 2.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg.arith.errors import ArithmeticInputError
from secagg.arith.twist import twist_tables

DEGREE: Final = 4096
"""`N`: the ring is `Z_{2^64}[X] / (X^N + 1)`."""

ERROR_UNITS: Final = 264
"""The proved error of a coefficient before rounding, in units of `2^-53 |c| |s|`."""

LIMB_BITS: Final = (32, 22, 16, 13)
"""Widths of limbs, widest first: 2, 3, 4 and 5 of them make a word."""

MAX_BOUND: Final = 2 ** (47 - LIMB_BITS[-1]) // (ERROR_UNITS * math.isqrt(DEGREE))
"""Largest `bound` on coefficients of a secret: 1,016,800."""

_FOLDED: Final = DEGREE // 2
# Complex numbers worked on at a time, 512 KiB: 8 polynomials of two limbs, 4 of four.
_BLOCK_LIMBS: Final = 16
_WORD_BITS: Final = 64
# Bits of the double 2^52: integers below 2^52 in the low bits make the double that is so much larger.
_INTEGERS: Final = np.uint64(0x4330_0000_0000_0000)
_ROUNDER: Final = 1.5 * 2.0**52
_ROUNDER_BITS: Final = np.uint64(0x4338_0000_0000_0000)

_TWIST, _UNTWIST = twist_tables(DEGREE)


def error_bound(limb_bits: int, square_sum: int) -> float:
    """The proved distance of what is rounded from an integer: `264 * 2^(w - 48) |s|`.

    Args:
        limb_bits: `w`.
        square_sum: `|s|^2`.
    """
    return ERROR_UNITS * 2.0 ** (limb_bits - 48) * math.sqrt(square_sum)


def limb_bits_for(square_sum: int) -> int:
    """The widest limbs with `264 * 2^(w - 48) |s| < 1/2`, decided in exact integers.

    Args:
        square_sum: `|s|^2`, not negative.

    Returns:
        One of `LIMB_BITS`.

    Raises:
        ArithmeticInputError: field `secret`: no width is proved for it.
    """
    for bits in LIMB_BITS:
        if ERROR_UNITS**2 * square_sum < 1 << 2 * (47 - bits):
            return bits
    raise ArithmeticInputError("secret", "its 2-norm is beyond what products are exact for")


def _check_polynomials(name: str, words: NDArray[np.uint64]) -> None:
    if words.dtype != np.uint64 or words.ndim != 1 or words.size % DEGREE or not words.flags.c_contiguous:
        raise ArithmeticInputError(
            name, f"must be contiguous uint64[k * {DEGREE}], got {words.dtype}{list(words.shape)}"
        )


def _check_secret(secret: NDArray[np.int64], bound: int) -> None:
    if secret.dtype != np.int64 or secret.shape != (DEGREE,):
        raise ArithmeticInputError("secret", f"must be int64[{DEGREE}], got {secret.dtype}{list(secret.shape)}")
    if not 0 <= bound <= MAX_BOUND:
        raise ArithmeticInputError("secret", f"products are exact for bounds of 0 to {MAX_BOUND}, got {bound}")
    if int(secret.max()) > bound or int(secret.min()) < -bound:
        raise ArithmeticInputError("secret", f"a coefficient is beyond {bound} in magnitude")


class RingMultiplier:
    """Multiplies any number of polynomials with one small secret; not for use by two threads at once.

    Needs 1.1 MiB. How many limbs it takes, and so its time, depends on the 2-norm of the secret; one drawn as
    clients draw theirs needs two, except with a probability that is nothing against all others here.

    Args:
        secret: int64[4096], `s`, coefficient of `X^k` at `k`.
        bound: largest magnitude of a coefficient that is accepted, 0 to `MAX_BOUND`.

    Raises:
        ArithmeticInputError: field `secret`: wrong dtype or shape, a coefficient beyond `bound`, or a bound
            beyond what some limb width is proved for.
    """

    __slots__ = ("_block", "_halves", "_limb_bits", "_spectrum", "_sums", "_words", "_work")

    def __init__(self, secret: NDArray[np.int64], bound: int) -> None:
        # Here: whoever reads parameters needs the numbers of ring masks, and no transforms.
        import scipy.fft

        _check_secret(secret, bound)
        # Below 4096 * 2^40, so exact.
        self._limb_bits = limb_bits_for(int(np.add.reduce(np.square(secret))))
        starts = range(0, _WORD_BITS, self._limb_bits)
        # Half of each limb's range; the top limb may be narrower.
        self._halves = [1 << min(self._limb_bits, _WORD_BITS - start) - 1 for start in starts]
        self._block = _BLOCK_LIMBS // len(starts)
        folded = np.empty((1, _FOLDED), dtype=np.complex128)
        folded.real, folded.imag = secret[:_FOLDED], secret[_FOLDED:]
        np.multiply(folded, _TWIST, out=folded)
        self._spectrum: NDArray[np.complex128] = scipy.fft.fft(folded, axis=-1, workers=1)[0]
        self._work = np.empty((self._block, len(starts), _FOLDED), dtype=np.complex128)
        self._words = np.empty((self._block, 2, _FOLDED), dtype=np.uint64)
        self._sums = np.empty((self._block, 2, _FOLDED), dtype=np.uint64)

    @property
    def limb_bits(self) -> int:
        """Width of the limbs that the secret allows."""
        return self._limb_bits

    def add_products(self, public: NDArray[np.uint64], lanes: NDArray[np.uint64]) -> None:
        """`lanes_j += a_j s` in the ring, in place, for every polynomial.

        Measured: 8 ms for 123 polynomials (503,808 lanes) and two limbs, 12 ms for three.

        Args:
            public: uint64[k * 4096], `a_1 .. a_k`.
            lanes: uint64[k * 4096], changed in place.

        Raises:
            ArithmeticInputError: field `public` or `lanes`; nothing was changed then.
        """
        self._accumulate(public, lanes, np.add)

    def subtract_products(self, public: NDArray[np.uint64], lanes: NDArray[np.uint64]) -> None:
        """`lanes_j -= a_j s` in the ring, in place, for every polynomial; otherwise as `add_products`."""
        self._accumulate(public, lanes, np.subtract)

    def _accumulate(self, public: NDArray[np.uint64], lanes: NDArray[np.uint64], operation: np.ufunc) -> None:
        _check_polynomials("public", public)
        _check_polynomials("lanes", lanes)
        if public.size != lanes.size:
            raise ArithmeticInputError("public", f"must be as long as lanes, {lanes.size}, got {public.size}")
        if not lanes.flags.writeable:
            raise ArithmeticInputError("lanes", "must be writeable, the addition is in place")
        sources, targets = public.reshape(-1, 2, _FOLDED), lanes.reshape(-1, 2, _FOLDED)
        for start in range(0, len(targets), self._block):
            target = targets[start : start + self._block]
            products = self._rounded(self._inexact(sources[start : start + self._block]))
            for half in range(2):
                operation(target[:, half], products[:, :, half], out=target[:, half])

    def _inexact(self, polynomials: NDArray[np.uint64]) -> NDArray[np.complex128]:
        """Products of limbs with the secret before rounding: complex128[polynomials, limbs, 2048]."""
        import scipy.fft

        count = len(polynomials)
        work, words, limb = self._work[:count], self._words[:count], self._sums[:count]
        bits = self._limb_bits
        # Adding half the range at every limb makes the limbs of the sum those of the word plus half, carries included.
        halves = sum(half << bits * index for index, half in enumerate(self._halves))
        np.add(polynomials, np.uint64(halves), out=words)
        for index, half in enumerate(self._halves):
            np.right_shift(words, np.uint64(bits * index), out=limb)
            np.bitwise_and(limb, np.uint64(2 * half - 1), out=limb)
            np.bitwise_or(limb, _INTEGERS, out=limb)
            doubles = limb.view(np.float64)
            np.subtract(doubles[:, 0], 2.0**52 + half, out=work[:, index].real)
            np.subtract(doubles[:, 1], 2.0**52 + half, out=work[:, index].imag)
        np.multiply(work, _TWIST, out=work)
        spectra = scipy.fft.fft(work, axis=-1, overwrite_x=True, workers=1)
        np.multiply(spectra, self._spectrum, out=work)
        done = scipy.fft.ifft(work, axis=-1, overwrite_x=True, workers=1)
        np.multiply(done, _UNTWIST, out=work)
        return work

    def _rounded(self, inexact: NDArray[np.complex128]) -> NDArray[np.uint64]:
        """The products mod 2^64: uint64[polynomials, 2048, 2], coefficients k and k + 2048 side by side."""
        doubles = inexact.view(np.float64)
        np.add(doubles, _ROUNDER, out=doubles)
        integers = doubles.view(np.uint64)
        total = integers[:, 0]
        np.subtract(total, _ROUNDER_BITS, out=total)
        for index in range(1, len(self._halves)):
            # The rounder's bits are multiples of 2^51 and vanish: every shift here is by 13 or more.
            np.left_shift(integers[:, index], np.uint64(self._limb_bits * index), out=integers[:, index])
            np.add(total, integers[:, index], out=total)
        return total.reshape(len(total), _FOLDED, 2)
