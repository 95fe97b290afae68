"""Key derivation: HKDF-SHA256 (RFC 5869) with labelled input."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secagg.crypto.labels import Label, encode_fields
from secagg.crypto.secret import Secret


def derive(secret: Secret, label: Label, *context: bytes, length_bytes: int = 32) -> Secret:
    """``HKDF-SHA256(secret, no salt, info = encode_fields(label, *context))``."""
    info = encode_fields(label, *context)
    return Secret(HKDF(SHA256(), length_bytes, salt=None, info=info).derive(secret.expose()))
