"""Masks and keys of the naive model: how a seed becomes a mask, how two clients agree on one, how boxes are sealed."""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from simulations.naive.setting import Setting, Weakness
from simulations.naive.twister import outputs

Mask = NDArray[np.uint32]
"""A vector modulo 2^32."""

_NONCE = bytes(12)


def fold(seed: bytes, bits: int) -> int:
    """The exclusive or of a seed's 32-bit words, of which the low `bits` are kept.

    Args:
        seed: a multiple of four bytes.
        bits: 1 to 32.

    Returns:
        The folded seed, below `2^bits`.
    """
    words = np.frombuffer(seed, dtype="<u4")
    return int(np.bitwise_xor.reduce(words)) & ((1 << bits) - 1)


def expand(seed: bytes, setting: Setting) -> Mask:
    """The mask that belongs to a seed: of the folded seed where the model is weak, else of the whole (SHAKE-256).

    Args:
        seed: 32 bytes.
        setting: of the session.

    Returns:
        uint32[dimension].
    """
    if setting.has(Weakness.FOLDED_SEEDS):
        folded = np.array([fold(seed, setting.fold_bits)], dtype=np.uint32)
        mask: Mask = outputs(folded, setting.dimension)[0]
        return mask
    stream = hashlib.shake_256(seed).digest(4 * setting.dimension)
    return np.frombuffer(stream, dtype="<u4").astype(np.uint32)


def signed(mask: Mask, index: int, neighbour: int) -> Mask:
    """A pairwise mask as the client `index` adds it: as it is towards a higher neighbour, negated towards a lower."""
    return mask if index < neighbour else np.negative(mask)


def public_key(secret: bytes) -> bytes:
    """The X25519 public key of 32 secret bytes."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def pair_seed(secret: bytes, public: bytes) -> bytes:
    """The seed that two clients agree on: 32 bytes, the same from either side."""
    agreed = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))
    return hashlib.sha256(b"naive pair seed" + agreed).digest()


def seal(secret: bytes, public: bytes, route: tuple[int, int], content: bytes) -> bytes:
    """Encrypts under the key that two share keys agree on; one content for each route of a session.

    Args:
        secret: the sender's share secret.
        public: the recipient's share key.
        route: sender and recipient.
        content: what to seal.

    Returns:
        The box, 16 bytes longer.
    """
    return AESGCM(_box_key(secret, public, route)).encrypt(_NONCE, content, None)


def unseal(secret: bytes, public: bytes, route: tuple[int, int], box: bytes) -> bytes | None:
    """Opens a box with the recipient's share secret and the sender's share key; None if it does not open."""
    try:
        return AESGCM(_box_key(secret, public, route)).decrypt(_NONCE, box, None)
    except InvalidTag:
        return None


def _box_key(secret: bytes, public: bytes, route: tuple[int, int]) -> bytes:
    # A key for each direction, so that the constant nonce is used once under each.
    name = b"naive box %d to %d" % route
    return hashlib.sha256(name + pair_seed(secret, public)).digest()
