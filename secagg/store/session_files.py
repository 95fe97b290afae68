"""The files of sessions in the published record: whole or not there, readable by any web server."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from secagg.runtime.ports import SessionKey
from secagg.store.files import disk_errors, fsync_directory, write_all

PUBLIC_FILE_MODE = 0o644
PUBLIC_DIRECTORY_MODE = 0o755


class SessionDirectory:
    """The ``RecordPort`` in RECORD/sessions; for one process at a time."""

    def __init__(self, record: Path) -> None:
        self._sessions = record / "sessions"

    def write(self, session: SessionKey, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """See ``RecordPort.write``."""
        path = self._sessions / session.hex() / name
        with disk_errors(f"writing {path}"):
            for directory in reversed(path.parents):
                if directory.is_relative_to(self._sessions):
                    _make_public_directory(directory)
            # The same directory, so that the rename is one; a dot, so that no web server shows it by accident.
            partial = path.with_name(f".{path.name}.partial")
            _write(partial, pieces)
            os.replace(partial, path)
            fsync_directory(path.parent)


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PUBLIC_FILE_MODE)
    try:
        os.fchmod(descriptor, PUBLIC_FILE_MODE)  # whatever the umask is
        length_bytes = 0
        for piece in pieces:
            write_all(descriptor, piece, length_bytes)
            length_bytes += len(piece)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_public_directory(path: Path) -> None:
    """Make it, or complete what a process began that was stopped in between: it may be there and not be durable."""
    path.mkdir(parents=True, exist_ok=True)
    if stat.S_IMODE(path.stat().st_mode) != PUBLIC_DIRECTORY_MODE:
        path.chmod(PUBLIC_DIRECTORY_MODE)
    fsync_directory(path.parent)
