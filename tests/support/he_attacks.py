"""Malformed BFV ciphertexts, made by a contributor who has only the public context."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.crypto.rng import Rng
from secagg.he import seal
from secagg.he.bfv import EncryptionContext
from secagg.he.parameters import DEGREE, MODULUS, PLAIN_MODULUS
from secagg.he.residues import decode_ciphertext, encode_ciphertext

DELTA = MODULUS // PLAIN_MODULUS


def add_to_second_polynomial(ciphertext: bytes, scaled: NDArray[np.object_]) -> bytes:
    """``ciphertext + (0, scaled)`` for Python integers object[4096]: it decrypts to ``m + (t/q) scaled sk``."""
    residues = decode_ciphertext(ciphertext)
    shift = np.array([int(value) % MODULUS for value in scaled], np.uint64)
    residues[1] = (residues[1] + shift) % np.uint64(MODULUS)
    return encode_ciphertext(residues)


def negated(ciphertext: bytes) -> bytes:
    """An encryption of the opposite values: what adding it does is to subtract."""
    residues = decode_ciphertext(ciphertext)
    return encode_ciphertext((np.uint64(MODULUS) - residues) % np.uint64(MODULUS))


def key_probe(context: EncryptionContext, values: NDArray[np.int64], multiplier: int, rng: Rng) -> bytes:
    """``Enc(values) + (0, multiplier Delta)``: the plaintext polynomial becomes ``m + multiplier sk``."""
    scaled = np.zeros(DEGREE, np.object_)
    scaled[0] = multiplier * DELTA
    return add_to_second_polynomial(context.encrypt(values, rng), scaled)


def leaked_secret_key(
    decrypted: NDArray[np.int64], values: NDArray[np.int64], multiplier: int = 1
) -> NDArray[np.int64]:
    """The secret key's coefficients in {-1, 0, 1} from the decryption of a probe whose honest sum is ``values``."""
    api = seal.load_api()
    slots = ((decrypted - values) % PLAIN_MODULUS).tolist()
    plaintext = api.Plaintext()
    api.BatchEncoder(seal.plain_context()).encode(slots, plaintext)
    found = plaintext.coeff_count()
    coefficients = np.zeros(DEGREE, np.int64)
    coefficients[:found] = [plaintext[index] for index in range(found)]
    coefficients = coefficients * pow(multiplier, -1, PLAIN_MODULUS) % PLAIN_MODULUS
    return np.where(coefficients > PLAIN_MODULUS // 2, coefficients - PLAIN_MODULUS, coefficients)


def decrypt_with(secret: NDArray[np.int64], ciphertext: bytes) -> NDArray[np.int64]:
    """What a thief of the key reads in ``ciphertext``: int64[4096], without SEAL's decryptor."""
    residues = decode_ciphertext(ciphertext)
    first, second = residues.astype(np.object_)
    product = np.zeros(DEGREE, np.object_)
    for shift in np.flatnonzero(secret):
        rotated = np.concatenate((-second[DEGREE - shift :], second[: DEGREE - shift]))
        product += int(secret[shift]) * rotated
    scaled = (first + product) % MODULUS * PLAIN_MODULUS
    plain = (2 * scaled + MODULUS) // (2 * MODULUS) % PLAIN_MODULUS
    api = seal.load_api()
    plaintext = api.Plaintext("0") if not plain.any() else api.Plaintext(_polynomial_text(plain))
    return np.array(api.BatchEncoder(seal.plain_context()).decode_int64(plaintext), np.int64)


def _polynomial_text(plain: NDArray[np.object_]) -> str:
    """SEAL's notation: hexadecimal coefficients from the highest power down, as in ``7Fx^3 + 1x^1 + 3``."""
    terms = [f"{int(plain[power]):X}x^{power}" for power in range(DEGREE - 1, 0, -1) if plain[power]]
    if plain[0]:
        terms.append(f"{int(plain[0]):X}")
    return " + ".join(terms)
