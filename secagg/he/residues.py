"""The bytes of ciphertexts and public contexts: a name, then residues, at fixed lengths.

SEAL's own serialisation is not used on the wire. It has headers, compression, seeds and sizes that a stranger can
choose, its compressed lengths vary, and one ciphertext has many encodings. Here a ciphertext is its two polynomials
in coefficient form, a public context its two polynomials in SEAL's transformed order, and every residue is below the
modulus: no other value has these bytes, and SEAL never sees bytes of a stranger.

Layout: 16 bytes of name; then the 4096 residues of the first polynomial and those of the second, 8 bytes each,
little-endian.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.he.errors import CiphertextError
from secagg.he.parameters import DEGREE, MODULUS

POLYNOMIALS = 2
_NAME_BYTES = 16
_CIPHERTEXT_NAME = b"secagg/he/ct/v1\n"
_CONTEXT_NAME = b"secagg/he/pk/v1\n"
_RESIDUE_BYTES = 8

CIPHERTEXT_BYTES = _NAME_BYTES + POLYNOMIALS * DEGREE * _RESIDUE_BYTES
CONTEXT_BYTES = CIPHERTEXT_BYTES


def encode_ciphertext(residues: NDArray[np.uint64]) -> bytes:
    """The bytes of uint64[2, 4096]: polynomial, coefficient; every residue is below the modulus."""
    return _CIPHERTEXT_NAME + residues.astype("<u8").tobytes()


def decode_ciphertext(data: bytes) -> NDArray[np.uint64]:
    """The residues of a ciphertext or of a sum of ciphertexts, uint64[2, 4096].

    Raises:
        CiphertextError: ``data`` is no ciphertext of these parameters, or one that hides nothing.
    """
    return _decode("ciphertext", data, _CIPHERTEXT_NAME)


def encode_context(residues: NDArray[np.uint64]) -> bytes:
    """The bytes of uint64[2, 4096]: polynomial, place; every residue is below the modulus."""
    return _CONTEXT_NAME + residues.astype("<u8").tobytes()


def decode_context(data: bytes) -> NDArray[np.uint64]:
    """The residues of a public key, uint64[2, 4096].

    Raises:
        CiphertextError: ``data`` is no public context of these parameters.
    """
    return _decode("public context", data, _CONTEXT_NAME)


def _decode(what: str, data: bytes, name: bytes) -> NDArray[np.uint64]:
    if len(data) != CIPHERTEXT_BYTES:
        raise CiphertextError(f"{what}: expected {CIPHERTEXT_BYTES} bytes, found {len(data)}")
    if data[:_NAME_BYTES] != name:
        raise CiphertextError(f"{what}: does not begin with {name!r}")
    words = np.frombuffer(data, "<u8", offset=_NAME_BYTES)
    residues = words.astype(np.uint64).reshape(POLYNOMIALS, DEGREE)
    if (residues >= np.uint64(MODULUS)).any():
        raise CiphertextError(f"{what}: a residue is not below the modulus")
    # Without its second polynomial a ciphertext is a plaintext (SEAL calls it transparent), and so is all that
    # such a public key encrypts. It never happens to an honest one.
    if not residues[1].any():
        raise CiphertextError(f"{what}: the second polynomial is zero, nothing is hidden")
    return residues
