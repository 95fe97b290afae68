"""Files that survive a crash: durable writes, private directories, one process for each store."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from secagg.runtime.ports import StoreError

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a ``StoreError`` that says ``what`` was being done."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror or error}") from error


def make_private_directory(path: Path) -> None:
    """Make ``path`` and its parents, durably, for this user only; what is there already stays as it is."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        fsync_directory(directory.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview, offset_bytes: int) -> None:
    """Write all of ``data`` at ``offset_bytes``; the kernel may take it in several pieces."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset_bytes)
        rest = rest[written:]
        offset_bytes += written


def replace_durably(path: Path, data: bytes) -> None:
    """Replace the file ``path``: afterwards, and after any crash, it holds the old bytes or the new ones.

    There must be one writer; a temporary file that a crash left behind is overwritten.
    """
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        write_all(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    fsync_directory(path.parent)


class ProcessLock:
    """Holds ``path`` for this process (``flock``); the kernel lets go when the process ends, however it ends.

    The file names the holder for people. It is never removed: removing it would let two processes hold two
    files of the same name.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock or raise StoreError saying who has it."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        with ExitStack() as undo:
            undo.callback(self.release)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(self._descriptor, 256, 0).decode("utf-8", "replace")
                holder = holder or "a process that is starting"
                raise StoreError(f"{path}: the store is open already, by {holder}") from error
            os.ftruncate(self._descriptor, 0)
            write_all(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            undo.pop_all()

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
