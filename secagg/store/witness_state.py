"""What a witness has cosigned last, on disk: one file for each log, replaced durably.

``DIRECTORY/<hex SHA-256 of the origin>`` holds the cosigned note. The directory is made once, with the witness's key,
and never by serving: a witness that lost its state would sign a second history under the same key. ``DIRECTORY/made``
holds its own inode: an empty directory in its place, or one that was unpacked from a backup, is not it.
"""

from __future__ import annotations

import threading
from pathlib import Path

from secagg.runtime.ports import StoreError, VersionConflictError
from secagg.runtime.witness import origin_hash
from secagg.store.files import ProcessLock, disk_errors, replace_durably
from secagg.store.marked import make_marked, mark_problem

LOCK_FILE = "lock"
_LOST = "A witness that lost its state must not sign again under the same key: make another witness"


class DirectoryWitnessState:
    """A ``WitnessState`` in a directory, for one process at a time and any number of its threads."""

    def __init__(self, directory: Path) -> None:
        """Open what ``create`` made.

        Raises:
            StoreError: there is no such directory, or another process has it.
        """
        self._directory = directory
        self._mutex = threading.Lock()
        self._durable: set[str] = set()
        if not directory.is_dir():
            raise StoreError(f"{directory}: there is no such directory. {_LOST}")
        with disk_errors(f"{directory}: opening the witness's state"):
            problem = mark_problem(directory)
            if problem:
                raise StoreError(f"{directory}: {problem}. {_LOST}")
            self._lock = ProcessLock(directory / LOCK_FILE)

    @staticmethod
    def create(directory: Path) -> None:
        """Make the directory of a new witness. Raises StoreError: it is there already, or the disk refuses."""
        make_marked(directory)

    def latest(self, origin: str) -> bytes | None:
        """See ``WitnessState``."""
        with self._mutex:
            return self._read(origin)

    def advance(self, origin: str, expected: bytes | None, new: bytes) -> None:
        """See ``WitnessState``."""
        with self._mutex:
            if self._read(origin) != expected:
                raise VersionConflictError(f"{origin}: another checkpoint was cosigned first")
            self._write(origin, new)

    def close(self) -> None:
        """Let another process have the directory; a second call does nothing."""
        self._lock.release()

    def _read(self, origin: str) -> bytes | None:
        # From disk every time: after a failed write only the disk knows which of the two notes is there. A note that
        # this process did not write to the end may be visible and still be lost with the power, after somebody was
        # shown its cosignature: before its first use it is written again.
        with disk_errors(f"{origin}: reading the witness's state"):
            try:
                note = self._path(origin).read_bytes()
            except FileNotFoundError:
                return None
        if origin not in self._durable:
            self._write(origin, note)
        return note

    def _write(self, origin: str, note: bytes) -> None:
        self._durable.discard(origin)
        with disk_errors(f"{origin}: writing the witness's state"):
            replace_durably(self._path(origin), note)
        self._durable.add(origin)

    def _path(self, origin: str) -> Path:
        return self._directory / origin_hash(origin)
