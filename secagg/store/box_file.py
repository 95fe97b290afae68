"""Sealed boxes in files: ``DIRECTORY/<session>/boxes``, one slot after the other, and ``roster.jsonl`` beside it.

All boxes of a session have one length, so that a slot is an offset. A batch is acknowledged after one flush. What a
crash left of a batch that was not acknowledged stays in its slots, which nothing names, or is a part of a slot, which
the next batch overwrites. Deleting boxes removes the name of their file; the roster, which is public, stays.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from secagg.runtime.ports import SessionKey, StoreError
from secagg.store.files import (
    FILE_MODE,
    disk_errors,
    fsync_directory,
    make_private_directory,
    replace_durably,
    write_all,
)

ROSTER_FILE = "roster.jsonl"
BOX_FILE = "boxes"
_NAME = re.compile(r"[0-9a-f]{32}")


class DirectoryBoxStore:
    """A ``BoxStore`` in a directory, for one process at a time and any number of its threads."""

    def __init__(self, directory: Path) -> None:
        """Open the directory, or make it. Raises StoreError."""
        self._directory = directory
        self._lock = threading.Lock()
        self._ends: dict[SessionKey, tuple[int, int]] = {}
        with disk_errors(f"{directory}: opening the boxes"):
            make_private_directory(directory)

    def keep_roster(self, session: SessionKey, lines: bytes) -> None:
        """See ``BoxStore.keep_roster``."""
        home = self._home(session)
        with disk_errors(f"{home}: keeping the roster"):
            make_private_directory(home)
            replace_durably(home / ROSTER_FILE, lines)

    def roster(self, session: SessionKey) -> bytes:
        """See ``BoxStore.roster``."""
        with disk_errors(f"{self._home(session)}: reading the roster"):
            return (self._home(session) / ROSTER_FILE).read_bytes()

    def append(self, session: SessionKey, boxes: Sequence[bytes]) -> int:
        """See ``BoxStore.append``."""
        with self._lock:
            return self._append(session, boxes)

    def _append(self, session: SessionKey, boxes: Sequence[bytes]) -> int:
        path = self._home(session) / BOX_FILE
        lengths = {len(box) for box in boxes}
        if len(lengths) != 1 or 0 in lengths:
            raise StoreError(f"{path}: expected boxes of one length")
        (box_bytes,) = lengths
        # Forgotten until the batch is durable: after a failure the file says where its whole slots end.
        known = self._ends.pop(session, None)
        if known is not None and known[0] != box_bytes:
            self._ends[session] = known
            raise StoreError(f"{path}: its boxes have {known[0]} bytes, these {box_bytes}")
        with disk_errors(f"{path}: writing boxes"):
            make_private_directory(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, FILE_MODE)
            try:
                size = os.fstat(descriptor).st_size
                slot = size // box_bytes if known is None else known[1]
                write_all(descriptor, b"".join(boxes), slot * box_bytes)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            if not size:
                fsync_directory(path.parent)
        self._ends[session] = box_bytes, slot + len(boxes)
        return slot

    def read(self, session: SessionKey, box_bytes: int, first: int, count: int) -> bytes:
        """See ``BoxStore.read``."""
        path = self._home(session) / BOX_FILE
        with disk_errors(f"{path}: reading boxes"):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                data = os.pread(descriptor, box_bytes * count, box_bytes * first)
            finally:
                os.close(descriptor)
        if len(data) != box_bytes * count:
            raise StoreError(f"{path}: slots {first} to {first + count - 1} are not all there")
        return data

    def delete(self, session: SessionKey) -> None:
        """See ``BoxStore.delete``."""
        path = self._home(session) / BOX_FILE
        with self._lock, disk_errors(f"{path}: deleting boxes"):
            self._ends.pop(session, None)
            if path.exists():
                path.unlink()
                fsync_directory(path.parent)

    def sessions(self) -> Sequence[SessionKey]:
        """See ``BoxStore.sessions``."""
        with disk_errors(f"{self._directory}: listing"):
            homes = sorted(path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))
            return [bytes.fromhex(home.name) for home in homes if (home / BOX_FILE).exists()]

    def _home(self, session: SessionKey) -> Path:
        return self._directory / session.hex()
