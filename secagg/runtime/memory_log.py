"""The files of a log in memory, for tests and simulations: the same semantics as on disk, and nothing survives."""

from __future__ import annotations

from collections.abc import Sequence

from secagg.runtime.ports import StoreError


class MemoryLogFiles:
    """A ``LogFiles`` in a dictionary."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._checkpoint: bytes | None = None
        self._signed: bytes | None = None

    def names(self) -> Sequence[str]:
        """See ``RecordReader.names``."""
        return sorted(self._files)

    def read(self, path: str) -> bytes | None:
        """See ``RecordReader.read``."""
        return self._files.get(path)

    def checkpoint(self) -> bytes | None:
        """See ``LogFiles.checkpoint``."""
        return self._checkpoint

    def last_signed(self) -> bytes | None:
        """See ``LogFiles.last_signed``."""
        return self._signed

    async def settle(self) -> None:
        """See ``LogFiles.settle``."""

    async def add(self, files: Sequence[tuple[str, bytes]]) -> None:
        """See ``LogFiles.add``."""
        for path, data in files:
            if self._files.setdefault(path, data) != data:
                raise StoreError(f"{path}: is there with other bytes; it was not touched")

    async def keep_signed(self, note: bytes) -> None:
        """See ``LogFiles.keep_signed``."""
        self._signed = note

    async def publish(self, checkpoint: bytes) -> None:
        """See ``LogFiles.publish``."""
        self._checkpoint = checkpoint

    async def remove_partials(self, paths: Sequence[str]) -> None:
        """See ``LogFiles.remove_partials``."""
        for path in paths:
            for width in range(1, 256):
                self._files.pop(f"{path}.p/{width}", None)

    async def close(self) -> None:
        """Nothing to let go of."""
