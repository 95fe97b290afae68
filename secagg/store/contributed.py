"""Which adapter an identity contributed to a session, for the sessions that another may follow.

The sums of both together must not show how an adapter changed in between. Kept is a digest, in a file for each session.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from secagg.runtime.ports import StoreError
from secagg.store.files import disk_errors, make_private_directory, replace_durably

_DIGEST_BYTES = 32


class ContributedAdapters:
    """The digests of one identity's adapters, in its own directory. Methods block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def of(self, session: bytes) -> bytes | None:
        """The digest of what was contributed to a session; None if nothing was.

        Raises:
            StoreError: the file cannot be read.
        """
        path = self._path(session)
        with disk_errors(f"read {path}"):
            if not path.exists():
                return None
            digest = path.read_bytes()
        if len(digest) != _DIGEST_BYTES:
            raise StoreError(f"{path}: {len(digest)} bytes, expected {_DIGEST_BYTES}")
        return digest

    def keep(self, session: bytes, digest: bytes) -> None:
        """Remember it, durably. Raises StoreError."""
        with disk_errors(f"write {self._path(session)}"):
            make_private_directory(self._directory)
            replace_durably(self._path(session), digest)

    def _path(self, session: bytes) -> Path:
        return self._directory / session.hex()


def digest_of(matrices: Iterable[bytes]) -> bytes:
    """SHA-256 of the SHA-256s of these, in order."""
    return hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in matrices)).digest()
