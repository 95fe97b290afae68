"""What a committee member or an authority opened and what it refused: a file of JSON lines that only grows.

``{"at_s", "close", "count", "outcome", "session", "words"}`` on each line. A line is durable before the answer that it
is about leaves. The same session, close and outcome stand there once: asking again adds nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from pathlib import Path

from secagg.runtime.member_ports import ANSWERED, OpeningLine
from secagg.runtime.ports import StoreError
from secagg.store.files import FILE_MODE, disk_errors, fsync_directory, make_private_directory, write_all

MOST_REFUSALS = 64
"""Lines of refusals for one session: whoever asks in ever new ways must not fill the disk."""


class FileOpeningJournal:
    """An ``OpeningJournal`` in the file ``path``, for one process at a time."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a line that a crash cut off is removed. Raises StoreError."""
        self._path = path
        self._lock = threading.Lock()
        with disk_errors(f"{path}: opening the journal"):
            make_private_directory(path.parent)
            _repair(path)
        lines = read_journal(path)
        self._known = {(line.session, line.close, line.outcome) for line in lines}
        self._lines = Counter(line.session for line in lines)

    def add(self, line: OpeningLine) -> None:
        """See ``OpeningJournal.add``."""
        name = line.session, line.close, line.outcome
        with self._lock:
            full = self._lines[line.session] >= MOST_REFUSALS and line.outcome != ANSWERED
            if name in self._known or full:
                return
            with disk_errors(f"{self._path}: writing the journal"):
                self._append(_encode(line))
            self._known.add(name)
            self._lines[line.session] += 1

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, FILE_MODE)
        try:
            size = os.fstat(descriptor).st_size
            try:
                write_all(descriptor, data, size)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # no half a line for the next one to continue
                raise
        finally:
            os.close(descriptor)
        if not size:
            fsync_directory(self._path.parent)


def read_journal(path: Path) -> list[OpeningLine]:
    """The lines of a journal, oldest first; none where there is no file.

    Raises:
        StoreError: it cannot be read, or a line is none.
    """
    with disk_errors(f"{path}: reading the journal"):
        try:
            *lines, _cut_off = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
    try:
        return [_decode(line) for line in lines]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{path}: a line is damaged") from None


def _repair(path: Path) -> None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, whole)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _encode(line: OpeningLine) -> bytes:
    value = {
        "at_s": line.at_s,
        "session": line.session.hex(),
        "close": line.close.hex(),
        "count": line.count,
        "outcome": line.outcome,
        "words": line.words,
    }
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def _decode(line: bytes) -> OpeningLine:
    value = json.loads(line)
    return OpeningLine(
        int(value["at_s"]),
        bytes.fromhex(value["session"]),
        bytes.fromhex(value["close"]),
        int(value["count"]),
        str(value["outcome"]),
        str(value["words"]),
    )
