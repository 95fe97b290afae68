"""The files of sessions in the published record: whole or not there, readable by any web server."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from secagg.runtime.ports import SessionKey
from secagg.store.files import disk_errors, fsync_directory

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
            _make_public_directory(path.parent)
            # The same directory, so that the rename is one; a dot, so that no web server shows it by accident.
            partial = path.with_name(f".{path.name}.partial")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PUBLIC_FILE_MODE)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, PUBLIC_FILE_MODE)
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(descriptor)
            partial.replace(path)
            fsync_directory(path.parent)


def _make_public_directory(path: Path) -> None:
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        directory.chmod(PUBLIC_DIRECTORY_MODE)
        fsync_directory(directory.parent)
