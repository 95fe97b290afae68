"""What a witness has cosigned last, on disk: one file for each log, replaced durably.

``DIRECTORY/<hex SHA-256 of the origin>`` holds the cosigned note. The directory is made once, with the witness's key,
and never by serving: a witness that lost its state would sign a second history under the same key. ``DIRECTORY/made``
holds its own inode: an empty directory in its place, or one that was unpacked from a backup, is not it.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from secagg.runtime.ports import StoreError, VersionConflictError
from secagg.runtime.witness import origin_hash
from secagg.store.files import (
    FILE_MODE,
    ProcessLock,
    disk_errors,
    fsync_directory,
    make_private_directory,
    replace_durably,
    write_all,
)

LOCK_FILE = "lock"
MARK_FILE = "made"
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
            _check_mark(directory)
            self._lock = ProcessLock(directory / LOCK_FILE)

    @staticmethod
    def create(directory: Path) -> None:
        """Make the directory of a new witness. Raises StoreError: it is there already, or the disk refuses."""
        if directory.exists():
            raise StoreError(f"{directory}: is there already")
        with disk_errors(f"{directory}: making the witness's state"):
            make_private_directory(directory)
            descriptor = os.open(directory / MARK_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
            try:
                write_all(descriptor, str(os.fstat(descriptor).st_ino).encode(), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            fsync_directory(directory)

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


def _check_mark(directory: Path) -> None:
    """Raise StoreError unless ``create`` made this very directory."""
    mark = directory / MARK_FILE
    try:
        with mark.open("rb") as file:
            is_it = file.read(64) == str(os.fstat(file.fileno()).st_ino).encode()
    except FileNotFoundError:
        text = f"{directory}: is not the directory that was made for this witness, or was emptied. {_LOST}"
        raise StoreError(text) from None
    if not is_it:
        raise StoreError(f"{directory}: is a copy, which may be older than what was signed. {_LOST}")


class MemoryWitnessState:
    """A ``WitnessState`` that lasts as long as this object."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._notes: dict[str, bytes] = {}

    def latest(self, origin: str) -> bytes | None:
        """See ``WitnessState``."""
        with self._mutex:
            return self._notes.get(origin)

    def advance(self, origin: str, expected: bytes | None, new: bytes) -> None:
        """See ``WitnessState``."""
        with self._mutex:
            if self._notes.get(origin) != expected:
                raise VersionConflictError(f"{origin}: another checkpoint was cosigned first")
            self._notes[origin] = new
