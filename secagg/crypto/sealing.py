"""Sealed boxes: the only public-key encryption anywhere.

HPKE (RFC 9180) in base mode, single shot, with the hybrid KEM of ML-KEM-768 and X25519, HKDF-SHA256 and
AES-256-GCM. A box does not authenticate its sender; senders sign lists of box digests.
"""

from __future__ import annotations

import functools

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret

PUBLIC_KEY_BYTES = 1184 + 32
OVERHEAD_BYTES = 1136
_MLKEM_PUBLIC_BYTES = 1184
_MLKEM_SEED_BYTES = 64
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SealingError(ValueError):
    """A public key is malformed, or a box does not open under this key and context."""


class SealingKey:
    """A key pair that comes from a 32-byte seed.

    The seed gives 96 bytes under ``Label.SEALING_KEY``: the 64-byte seed of ML-KEM-768 (FIPS 203: d, z), then
    the X25519 private key. The public key is the ML-KEM public key followed by the X25519 public key.
    """

    __slots__ = ("_private", "public_bytes")

    def __init__(self, seed: Secret) -> None:
        if len(seed) != 32:
            raise SealingError("seed: expected 32 bytes")
        parts = derive(seed, Label.SEALING_KEY, length_bytes=96).expose()
        mlkem = MLKEM768PrivateKey.from_seed_bytes(parts[:_MLKEM_SEED_BYTES])
        x25519 = X25519PrivateKey.from_private_bytes(parts[_MLKEM_SEED_BYTES:])
        self._private = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public_bytes = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def open(self, box: bytes, info: bytes) -> Secret:
        """The plaintext of ``box``, sealed to this key under ``info``.

        Raises:
            SealingError: it was not.
        """
        try:
            return Secret(_SUITE.decrypt(box, self._private, info))
        except (InvalidTag, ValueError):
            raise SealingError("box does not open") from None


def seal(public_key: bytes, info: bytes, plaintext: Secret) -> bytes:
    """A box of ``len(plaintext) + 1136`` bytes that only the holder of ``public_key`` opens.

    Raises:
        SealingError: ``public_key`` is not a hybrid public key of 1216 bytes.
    """
    return _SUITE.encrypt(plaintext.expose(), _load_public(public_key), info)


def check_public_key(public_key: bytes) -> None:
    """Raise SealingError unless ``public_key`` can be sealed to."""
    _load_public(public_key)


@functools.lru_cache(maxsize=4096)
def _load_public(public_key: bytes) -> MLKEM768X25519PublicKey:
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise SealingError(f"public key: expected {PUBLIC_KEY_BYTES} bytes, found {len(public_key)}")
    try:
        mlkem = MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_PUBLIC_BYTES])
        x25519 = X25519PublicKey.from_public_bytes(public_key[_MLKEM_PUBLIC_BYTES:])
        # A point of small order gives the all-zero secret with every scalar, and sealing to it would fail later.
        X25519PrivateKey.from_private_bytes(bytes(32)).exchange(x25519)
        return MLKEM768X25519PublicKey(mlkem, x25519)
    except ValueError:
        raise SealingError("public key: not a hybrid ML-KEM-768 and X25519 key") from None
