"""The last checkpoint that a client verified, on disk."""

from __future__ import annotations

from pathlib import Path

from secagg.store.files import disk_errors, make_private_directory, replace_durably


class FileCheckpointMemory:
    """A ``CheckpointMemory`` in the file ``path``, one for each coordinator."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of_coordinator(cls, directory: Path, coordinator_key: bytes) -> FileCheckpointMemory:
        """The one for the coordinator with this key, in a client's state directory."""
        return cls(directory / f"log-{coordinator_key.hex()}.checkpoint")

    def load(self) -> bytes | None:
        """See ``CheckpointMemory.load``."""
        with disk_errors(f"reading {self._path}"):
            try:
                return self._path.read_bytes()
            except FileNotFoundError:
                return None

    def store(self, note: bytes) -> None:
        """See ``CheckpointMemory.store``."""
        with disk_errors(f"writing {self._path}"):
            make_private_directory(self._path.parent)
            replace_durably(self._path, note)
