"""Ring masks: a vector of lanes hidden under one small secret, whose sum opens the sum of the vectors.

Ring `R = Z_{2^64}[X] / (X^4096 + 1)`. A contributor draws `s` with coefficients from CBD(2) and `e` from CBD(21), and
masks the lane polynomials `m_j` of its vector, `T`-bit lanes, as `y_j = a_j s + e_j + 2^D m_j` with `D = 64 - T`; word
`4096 (j - 1) + k` of a public keystream is coefficient `k` of `a_j`. Masked vectors add up to a mask of the sum of the
vectors under the sum `S` of the secrets: who has `S` takes `a_j S` away and rounds to a multiple of `2^D`.

**Why the sum is exact.** Coefficients of `sum e` are sums of `n` independent CBD(21): `t` or more in magnitude with
probability at most `2 exp(-t^2 / (21 n))` (`binomial`). With `t^2 = 21 n ln(2 lanes 2^64)` that is 2^-64 for all lanes
together; and it is never more than `21 n`. So `beta = min(21 n_max, ceil(sqrt(21 n_max ln(2 lanes 2^64))))` bounds what
is left beside `2^D m`, except with that probability, and `D` is chosen so that `(2 beta + 1) / 2^D <= 0.97`: then
`beta < 2^(D-1)`. Likewise `2 exp(-t^2 / (2 n))` for sums of CBD(2): every coefficient of `S` is at most
`min(2 n, ceil(sqrt(2 n ln(2 * 4096 * 2^64))))` except with probability 2^-64.

**Certification.** `S` opens a sum only if (1) its coefficients are within that bound and (2) `Y - a S` is within `beta`
of a multiple of `2^D` in every lane, padding included. (1) comes first: it keeps products exact. For uniform `a`, a
wrong `S` passes (2) with probability at most `0.97^lanes` if its differences from the right one add up to an odd
number: then they are invertible in R, and their product with `a` is uniform. (docs/parameters.md has the bound for the
others.) `S + 2^D x` leaves the same remainders and passes (2), but not (1): `2^D` is more than twice the bound.

Source: design 06-one-shot. Masks with a published sum of secrets, and their security: docs/parameters.md, ring masks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg.arith.binomial import add_centred_binomial, centred_binomial
from secagg.arith.errors import ArithmeticInputError, CertificationError
from secagg.arith.fields import LANE_BITS, FieldLayout
from secagg.arith.keystream import KEY_BYTES, Keystream
from secagg.arith.ring_product import DEGREE, RingMultiplier

RING_DEGREE: Final = DEGREE
"""Coefficients of a ring element: 4096."""

SECRET_ETA: Final = 2
"""Secrets are drawn from CBD(2): variance 1, coefficients at most 2."""

ERROR_ETA: Final = 21
"""Errors are drawn from CBD(21): variance 10.5, coefficients at most 21."""

MAX_CONTRIBUTORS: Final = 2**33
"""Most contributions to one sum; the bound on sums of secrets then is 957,565, which `RingMultiplier` accepts."""

MAX_LANES: Final = 2**30
"""Longest masked vector, as long as the linear hash allows; well inside one key's stream."""

FAILURE_BITS: Final = 64
"""Honest sums exceed either bound with probability at most 2^-64."""

# 16 polynomials: 512 KiB of lanes and as much of public words stay in L2; 8 or 32 of them are not faster.
_BLOCK_LANES: Final = 16 * RING_DEGREE


def _tail_bound(proxy: int, draws: int) -> int:
    """`ceil(sqrt(proxy ln(2 draws 2^64)))`, rounded up where digits end; the same integer for everybody.

    `ln` is a decimal operation of 50 digits, rounded half to even, and the next larger number of 50 digits is taken.
    The product is rounded up to an integer, and the rest is integers.
    """
    with localcontext(Context(prec=50)) as context:
        logarithm = Decimal(draws << (FAILURE_BITS + 1)).ln().next_plus()
        context.rounding = ROUND_CEILING
        square = int((logarithm * proxy).to_integral_value())
    return math.isqrt(square - 1) + 1


def padded_lanes(lanes: int) -> int:
    """`lanes` rounded up to whole polynomials.

    Raises:
        ArithmeticInputError: field `lanes`: not 1 to `MAX_LANES`.
    """
    if not 1 <= lanes <= MAX_LANES:
        raise ArithmeticInputError("lanes", f"must be 1 to {MAX_LANES} in number, got {lanes}")
    return -(-lanes // RING_DEGREE) * RING_DEGREE


def draw_secret(stream: Keystream) -> NDArray[np.int64]:
    """A contributor's secret: the next 4096 draws of CBD(2), which take 4096 bytes of the stream.

    Returns:
        int64[4096], each -2 to 2.
    """
    return centred_binomial(stream, SECRET_ETA, RING_DEGREE).astype(np.int64)


@dataclass(frozen=True, slots=True)
class RingMask:
    """The numbers of a session's ring masks, and masking and unmasking with them.

    Attributes:
        max_contributors: `n_max`, the most contributions one sum may hold, 2 to 2^33.
        lanes: lanes of one contribution, padding included: a multiple of 4096, at most 2^30.

    Raises:
        ArithmeticInputError: naming the first attribute out of range.
    """

    max_contributors: int
    lanes: int

    def __post_init__(self) -> None:
        if not 2 <= self.max_contributors <= MAX_CONTRIBUTORS:
            raise ArithmeticInputError(
                "max_contributors", f"must be 2 to {MAX_CONTRIBUTORS}, got {self.max_contributors}"
            )
        if padded_lanes(self.lanes) != self.lanes:
            raise ArithmeticInputError("lanes", f"must be a multiple of {RING_DEGREE}, got {self.lanes}")

    @property
    def error_bound(self) -> int:
        """`beta`: honest sums of errors exceed it in any lane with probability at most 2^-64."""
        most = ERROR_ETA * self.max_contributors
        return min(most, _tail_bound(most, self.lanes))

    @property
    def shift(self) -> int:
        """`D`: the smallest with `(2 beta + 1) / 2^D <= 0.97` and `2^D` above twice the bound on secrets."""
        window, twice = 2 * self.error_bound + 1, 2 * self.secret_bound(self.max_contributors)
        # Both are powers of two at or above a quotient: 2^D >= ceil(100 window / 97), and 2^D >= twice + 1.
        return max((-(-100 * window // 97) - 1).bit_length(), twice.bit_length())

    @property
    def usable_bits(self) -> int:
        """`T = 64 - D`, bits of a lane that hold fields."""
        return LANE_BITS - self.shift

    def secret_bound(self, contributors: int) -> int:
        """What honest sums of that many secrets exceed in any coefficient with probability at most 2^-64.

        Args:
            contributors: `n`, 1 to `max_contributors`.

        Raises:
            ArithmeticInputError: field `contributors`.
        """
        if not 1 <= contributors <= self.max_contributors:
            raise ArithmeticInputError("contributors", f"must be 1 to {self.max_contributors}, got {contributors}")
        most = SECRET_ETA * contributors
        return min(most, _tail_bound(most, RING_DEGREE))

    def apply_mask(
        self, lanes: NDArray[np.uint64], public_key: bytes, secret: NDArray[np.int64], error_key: bytes
    ) -> None:
        """Masks one contribution in place: `m` becomes `a s + e + 2^D m`, mod 2^64.

        On one thread: a keystream cannot seek, and the products take four fifths of the time. Neither secret nor error
        may mask another vector. Measured: 11 ms for 503,808 lanes; 3 MiB of working memory.

        Args:
            lanes: uint64[lanes], each below `2^T`; changed in place.
            public_key: 32-byte keystream key of the public polynomials, the same for all of a session.
            secret: int64[4096], `s`, from `draw_secret`.
            error_key: 32-byte keystream key of the errors, for this one vector only.

        Raises:
            ArithmeticInputError: field `lanes`, `secret`, `public_key` or `error_key`; nothing was changed then.
        """
        self._check(lanes, public_key)
        if len(error_key) != KEY_BYTES or error_key == public_key:
            raise ArithmeticInputError("error_key", f"must be {KEY_BYTES} bytes and not the public key")
        if int(lanes.max()) >> self.usable_bits:
            raise ArithmeticInputError("lanes", f"holds a value of more than {self.usable_bits} bits")
        multiplier, errors, shift = RingMultiplier(secret, SECRET_ETA), Keystream(error_key), np.uint64(self.shift)
        for piece, public in _with_public(lanes, public_key):
            np.left_shift(piece, shift, out=piece)
            multiplier.add_products(public, piece)
            add_centred_binomial(errors, ERROR_ETA, piece)

    def certify_and_unmask(
        self, lanes: NDArray[np.uint64], secret_sum: NDArray[np.int64], contributors: int, public_key: bytes
    ) -> None:
        """Checks that a sum of secrets opens a sum of masked vectors, and opens it, in place.

        Condition 1, on the secrets, is checked before anything else; see the module. Measured: 15 ms for 503,808 lanes
        and 1024 contributors.

        Args:
            lanes: uint64[lanes], `Y`, the sum of masked vectors mod 2^64; afterwards the sum of the vectors
                mod `2^T`. Undefined after condition 2 failed, unchanged after all other errors.
            secret_sum: int64[4096], `S`.
            contributors: how many contributions the sum holds, 1 to `max_contributors`.
            public_key: 32-byte keystream key of the public polynomials.

        Raises:
            ArithmeticInputError: field `lanes`, `secret_sum`, `contributors` or `public_key`.
            CertificationError: condition `secret` or `remainder`.
        """
        self._check(lanes, public_key)
        if secret_sum.dtype != np.int64 or secret_sum.shape != (RING_DEGREE,):
            raise ArithmeticInputError(
                "secret_sum", f"must be int64[{RING_DEGREE}], got {secret_sum.dtype}{list(secret_sum.shape)}"
            )
        bound = self.secret_bound(contributors)
        # Not the absolute value: that of -2^63 is negative.
        large = int(np.count_nonzero((secret_sum > bound) | (secret_sum < -bound)))
        if large:
            raise CertificationError("secret", large, bound)
        failing = self._unmask(lanes, RingMultiplier(secret_sum, bound), public_key)
        if failing:
            raise CertificationError("remainder", failing, self.error_bound)

    def _unmask(self, lanes: NDArray[np.uint64], multiplier: RingMultiplier, public_key: bytes) -> int:
        """Opens in place and returns in how many lanes the remainder is beyond `beta`."""
        beta, shift = self.error_bound, np.uint64(self.shift)
        low = np.empty(min(_BLOCK_LANES, lanes.size), dtype=np.uint64)
        failing = 0
        for piece, public in _with_public(lanes, public_key):
            multiplier.subtract_products(public, piece)
            # A remainder of -beta .. beta plus beta is 0 .. 2 beta, below 2^D: what lies above is the sum.
            np.add(piece, np.uint64(beta), out=piece)
            part = low[: piece.size]
            np.bitwise_and(piece, np.uint64((1 << self.shift) - 1), out=part)
            failing += int(np.count_nonzero(part > np.uint64(2 * beta)))
            np.right_shift(piece, shift, out=piece)
        return failing

    def _check(self, lanes: NDArray[np.uint64], public_key: bytes) -> None:
        if lanes.dtype != np.uint64 or lanes.shape != (self.lanes,) or not lanes.flags.c_contiguous:
            raise ArithmeticInputError(
                "lanes", f"must be contiguous uint64[{self.lanes}], got {lanes.dtype}{list(lanes.shape)}"
            )
        if not lanes.flags.writeable:
            raise ArithmeticInputError("lanes", "must be writeable, the change is in place")
        if len(public_key) != KEY_BYTES:
            raise ArithmeticInputError("public_key", f"must be {KEY_BYTES} bytes, got {len(public_key)}")


def _with_public(
    lanes: NDArray[np.uint64], public_key: bytes
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Blocks of lanes, each with its public polynomials, which the next step overwrites."""
    stream, words = Keystream(public_key), np.empty(min(_BLOCK_LANES, lanes.size), dtype=np.uint64)
    for start in range(0, lanes.size, _BLOCK_LANES):
        piece = lanes[start : start + _BLOCK_LANES]
        public = words[: piece.size]
        stream.read_into(public)
        yield piece, public


def usable_bits_for(value_bits: int, max_contributors: int, dimension: int) -> int:
    """`T` for vectors of a dimension: the largest that the lanes to which it leads allow.

    More lanes make `T` smaller or leave it, a smaller `T` makes lanes more or leaves them. So repeating the two from 64
    downwards ends at the largest `T` that is consistent. A vector of fewer lanes, which flattening may lead to, is safe
    with it too: its own `RingMask` has at least as many usable bits.

    Args:
        value_bits: `B`, bits of one offset coordinate, as in `FieldLayout`.
        max_contributors: `n_max`.
        dimension: `d`.

    Returns:
        `T`, the `usable_bits` of the `RingMask` for the padded lanes of the `FieldLayout` with `T`.

    Raises:
        ArithmeticInputError: as `FieldLayout` and `RingMask`: field `usable_bits` when no field fits, `lanes` when
            the vector is too long.
    """
    usable = LANE_BITS
    while True:
        layout = FieldLayout(value_bits, max_contributors, dimension, usable)
        allowed = RingMask(max_contributors, padded_lanes(layout.lanes)).usable_bits
        if allowed == usable:
            return usable
        usable = allowed
