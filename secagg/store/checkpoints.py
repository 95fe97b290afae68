"""The last checkpoint that a client verified, on disk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secagg.runtime.log_trust import Change
from secagg.store.files import FILE_MODE, disk_errors, make_private_directory, replace_durably


class FileCheckpointMemory:
    """A ``CheckpointMemory`` in the file ``path``, one for each coordinator.

    Identities that share a state directory share it, also from several processes: an update holds a lock beside it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = path.with_suffix(".lock")

    @classmethod
    def of_coordinator(cls, directory: Path, coordinator_key: bytes) -> FileCheckpointMemory:
        """The one for the coordinator with this key, in a client's state directory."""
        return cls(directory / f"log-{coordinator_key.hex()}.checkpoint")

    def load(self) -> bytes | None:
        """See ``CheckpointMemory.load``."""
        with disk_errors(f"reading {self._path}"):
            return self._read()

    def update(self, change: Change) -> None:
        """See ``CheckpointMemory.update``."""
        with disk_errors(f"writing {self._path}"):
            make_private_directory(self._path.parent)
            with self._locked():
                note = change(self._read())
                if note is not None:
                    replace_durably(self._path, note)

    def _read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # held for one update: worth waiting for
            yield
        finally:
            os.close(descriptor)
