"""The ciphertexts of a session with a key authority: checked as they come, added up at close. All methods block."""

from __future__ import annotations

from collections.abc import Iterable

from secagg.he.ciphertext_sum import CiphertextSum, check_ciphertext
from secagg.he.errors import CiphertextError
from secagg.runtime.ports import BlobStore


def is_ciphertext(data: bytes) -> bool:
    """Whether these bytes are one, under whatever key."""
    try:
        check_ciphertext(data)
    except CiphertextError:
        return False
    return True


def sum_of(blobs: BlobStore, names: Iterable[bytes]) -> bytes:
    """The sum of the ciphertexts in these blobs.

    Raises:
        StoreError: a blob cannot be read.
        CiphertextError: one is no ciphertext; they were checked when they came, so the disk is at fault.
    """
    total = CiphertextSum()
    for name in names:
        total.add(blobs.get(name))
    return total.result()
