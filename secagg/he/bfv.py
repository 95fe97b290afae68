"""Keys, encryption and decryption of the key authority mode, with TenSEAL.

What is encrypted is 4096 signed integers, one in each slot of BFV's batching. Ciphertexts are malleable, and any
residues decrypt to something: who decrypts must certify the result before it says anything about it. One key pair
serves one session, because a malformed ciphertext makes a decryption depend on the secret key.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.arith.errors import ArithmeticInputError
from secagg.crypto.rng import Rng
from secagg.crypto.secret import Secret
from secagg.he import seal
from secagg.he.errors import CiphertextError
from secagg.he.parameters import DEGREE, MAX_MAGNITUDE
from secagg.he.residues import decode_ciphertext, decode_context, encode_ciphertext, encode_context

_KEY_NAME = b"secagg/he/sk/v1\n"
_DIGEST_BYTES = 32
DECRYPTION_KEY_BYTES = len(_KEY_NAME) + 2 * seal.SEED_BYTES + _DIGEST_BYTES


class EncryptionContext:
    """A public key. Whoever has it encrypts; it has no secret and can decrypt nothing."""

    __slots__ = ("_data", "_public_key", "_residues")

    def __init__(self, data: bytes, residues: NDArray[np.uint64]) -> None:
        """Keeps what ``from_bytes`` has checked; TenSEAL is loaded at the first encryption."""
        self._data = data
        self._residues = residues
        self._public_key: Any = None

    @classmethod
    def from_bytes(cls, data: bytes) -> EncryptionContext:
        """The context of 65552 bytes that ``DecryptionKey.public_context`` gave; needs no TenSEAL.

        Raises:
            CiphertextError: ``data`` is anything else.
        """
        return cls(bytes(data), decode_context(data))

    def to_bytes(self) -> bytes:
        """The bytes that ``from_bytes`` read."""
        return self._data

    def encrypt(self, values: NDArray[np.int64], rng: Rng) -> bytes:
        """A ciphertext of 65552 bytes of int64[4096], each of magnitude at most 516096; 3 ms.

        It takes 64 bytes from ``rng``; the same bytes and values give the same ciphertext.

        Raises:
            ArithmeticInputError: shape, dtype or magnitude of ``values`` is wrong.
            HeUnavailableError: TenSEAL is not installed.
        """
        _check_values(values)
        api = seal.load_api()
        context = seal.seeded_context(rng.bytes(seal.SEED_BYTES))
        if self._public_key is None:
            self._public_key = seal.load_public_key(context, self._residues)
        plaintext = api.Plaintext()
        api.BatchEncoder(context).encode(values.tolist(), plaintext)
        ciphertext = api.Ciphertext(context)
        api.Encryptor(context, self._public_key).encrypt(plaintext, ciphertext)
        return encode_ciphertext(seal.ciphertext_residues(ciphertext))


class DecryptionKey:
    """A key pair that comes from two seeds of 64 bytes: one for the secret key, one for the public key."""

    __slots__ = ("_context", "_public_context", "_secret_key", "_seeds")

    def __init__(self, seeds: Secret) -> None:
        """Derives the key pair from 128 bytes; 5 ms."""
        api = seal.load_api()
        exposed = seeds.expose()
        # Two contexts, because one would give the error of the public key the stream of the secret (secagg.he.seal).
        secret_key = api.KeyGenerator(seal.seeded_context(exposed[: seal.SEED_BYTES])).secret_key()
        public_key = api.PublicKey()
        api.KeyGenerator(seal.seeded_context(exposed[seal.SEED_BYTES :]), secret_key).create_public_key(public_key)
        self._seeds = seeds
        self._secret_key = secret_key
        self._public_context = encode_context(seal.public_key_residues(public_key))
        self._context = seal.plain_context()

    @classmethod
    def generate(cls, rng: Rng) -> DecryptionKey:
        """A fresh key pair of 128 bytes of ``rng``.

        Raises:
            HeUnavailableError: TenSEAL is not installed.
        """
        return cls(Secret(rng.bytes(2 * seal.SEED_BYTES)))

    @classmethod
    def from_bytes(cls, data: Secret) -> DecryptionKey:
        """The key pair that ``to_bytes`` wrote.

        Raises:
            CiphertextError: ``data`` is no key, or the installed TenSEAL derives another one from its seeds.
            HeUnavailableError: TenSEAL is not installed.
        """
        exposed = data.expose()
        if len(exposed) != DECRYPTION_KEY_BYTES or not exposed.startswith(_KEY_NAME):
            raise CiphertextError(
                f"decryption key: expected {DECRYPTION_KEY_BYTES} bytes that begin with {_KEY_NAME!r}"
            )
        key = cls(Secret(exposed[len(_KEY_NAME) : -_DIGEST_BYTES]))
        if key.to_bytes() != data:
            raise CiphertextError("decryption key: its seeds do not give the public context that its digest names")
        return key

    def to_bytes(self) -> Secret:
        """176 bytes: a name, the two seeds, the SHA-256 of the public context."""
        return Secret(_KEY_NAME + self._seeds.expose() + hashlib.sha256(self._public_context).digest())

    def public_context(self) -> bytes:
        """What ``EncryptionContext.from_bytes`` reads, 65552 bytes."""
        return self._public_context

    def decrypt(self, ciphertext: bytes) -> NDArray[np.int64]:
        """int64[4096], the sum of what was encrypted as long as its magnitude is at most 516096; 0.5 ms.

        Bytes that were made with another key, or with malice, give some other 4096 integers and no error.

        Raises:
            CiphertextError: ``ciphertext`` is malformed.
        """
        api = seal.load_api()
        loaded = seal.load_ciphertext(self._context, decode_ciphertext(ciphertext))
        plaintext = api.Plaintext()
        api.Decryptor(self._context, self._secret_key).decrypt(loaded, plaintext)
        return np.array(api.BatchEncoder(self._context).decode_int64(plaintext), np.int64)


def _check_values(values: NDArray[np.int64]) -> None:
    if values.shape != (DEGREE,) or values.dtype != np.int64:
        raise ArithmeticInputError("values", f"expected int64[{DEGREE}], found {values.dtype}{list(values.shape)}")
    # min and max, because the magnitude of the smallest int64 overflows
    if values.min() < -MAX_MAGNITUDE or values.max() > MAX_MAGNITUDE:
        raise ArithmeticInputError("values", f"a magnitude exceeds {MAX_MAGNITUDE}")
