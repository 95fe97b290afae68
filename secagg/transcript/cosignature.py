"""Cosignatures of witnesses, version 1: what is signed and how it is carried.

Source: c2sp.org/tlog-cosignature, the Ed25519 form. The witness's name is not part of the message, so a quorum
counts public keys and never names.
"""

from __future__ import annotations

from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import NoteError, check_bytes, check_integer

TIMESTAMP_BYTES = 8
SIGNATURE_BYTES = 64
COSIGNATURE_BYTES = TIMESTAMP_BYTES + SIGNATURE_BYTES


def cosignature_message(checkpoint_text: str, timestamp_s: int) -> bytes:
    """What a witness signs: a header, the time in seconds since 1970 and the whole text of the checkpoint.

    Raises:
        NoteError: the text is no checkpoint, or the time is out of range.
    """
    # Nothing but a checkpoint is ever signed, so no other text can be made to look like one.
    Checkpoint.parse(checkpoint_text)
    check_integer(timestamp_s, "cosignature.timestamp_s")
    return f"cosignature/v1\ntime {timestamp_s}\n{checkpoint_text}".encode()


def encode_cosignature(timestamp_s: int, signature: bytes) -> bytes:
    """The 72 bytes of a signature line: time as 8 bytes big-endian, 64 bytes of signature. Raises NoteError."""
    check_integer(timestamp_s, "cosignature.timestamp_s")
    check_bytes(signature, SIGNATURE_BYTES, "cosignature.signature")
    return timestamp_s.to_bytes(TIMESTAMP_BYTES, "big") + signature


def decode_cosignature(data: bytes) -> tuple[int, bytes]:
    """Time in seconds and signature out of the 72 bytes of a signature line. Raises NoteError."""
    if len(data) != COSIGNATURE_BYTES:
        raise NoteError("cosignature", f"not {COSIGNATURE_BYTES} bytes")
    timestamp_s = int.from_bytes(data[:TIMESTAMP_BYTES], "big")
    check_integer(timestamp_s, "cosignature.timestamp_s")
    return timestamp_s, data[TIMESTAMP_BYTES:]
