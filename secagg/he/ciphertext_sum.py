"""Adding ciphertexts: additions modulo a prime, for anybody, without TenSEAL and without a key."""

from __future__ import annotations

import numpy as np

from secagg.he.errors import CiphertextError
from secagg.he.parameters import DEGREE, MAX_CONTRIBUTORS, MODULUS
from secagg.he.residues import POLYNOMIALS, decode_ciphertext, encode_ciphertext

_MODULUS = np.uint64(MODULUS)


def check_ciphertext(data: bytes) -> None:
    """Raise CiphertextError unless ``data`` is a ciphertext of this package's parameters.

    Nothing more can be seen without the key: any residues are a ciphertext of something, under any key.
    """
    decode_ciphertext(data)


class CiphertextSum:
    """The sum of ciphertexts that come one after another; 64 KiB however many there are.

    The bytes of a sum depend on nothing but which ciphertexts were added: not on the order, the machine or any
    library's version. It is what SEAL's ``Evaluator::add`` computes.
    """

    __slots__ = ("_count", "_total")

    def __init__(self) -> None:
        self._total = np.zeros((POLYNOMIALS, DEGREE), np.uint64)
        self._count = 0

    @property
    def count(self) -> int:
        """How many ciphertexts were added."""
        return self._count

    def add(self, ciphertext: bytes) -> None:
        """Add one ciphertext; 0.02 ms.

        Raises:
            CiphertextError: it is malformed, or there are MAX_CONTRIBUTORS of them already; the sum is as it was.
        """
        if self._count == MAX_CONTRIBUTORS:
            raise CiphertextError(f"ciphertext: a sum has room for {MAX_CONTRIBUTORS}")
        self._total += decode_ciphertext(ciphertext)
        # Two residues add up below 2^61. Where that is below the modulus, subtracting it wraps round to more than 2^63.
        np.minimum(self._total, self._total - _MODULUS, out=self._total)
        self._count += 1

    def result(self) -> bytes:
        """The sum so far, as a ciphertext.

        Raises:
            CiphertextError: nothing was added, or what was added cancels to a sum that hides nothing.
        """
        data = encode_ciphertext(self._total)
        check_ciphertext(data)
        return data
