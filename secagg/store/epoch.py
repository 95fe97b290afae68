"""Knowing an old backup when it comes back.

A session that is resumed from an old copy could announce a second survivor set or draw noise a second time,
so a store has to notice that it went back in time. Two files beside the database remember what the database
must not have forgotten:

- ``<db>.epoch``: the epochs the database may carry, ``{current, next}``, and which file it is (device and
  inode). The epoch grows at every open, in three durable steps; after a crash between any two of them the
  database still carries one of the two::

      file {e, e+1}   database e     (1) the file allows the next epoch as well
      file {e, e+1}   database e+1   (2) the database moves
      file {e+1, e+1} database e+1   (3) the old epoch is forgotten

- ``<db>.mark``: the number of the last group commit, as eight bytes big-endian that are overwritten after
  every COMMIT without an fsync. It survives the process, not the machine, and is never ahead of the database;
  a copy of the database that was taken in the same epoch is behind it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from secagg.runtime.ports import StaleStoreError
from secagg.store.files import FILE_MODE, replace_durably, write_all

_MARK_BYTES = 8
_FIELDS = ("current", "next", "device", "inode")
_ADVICE = (
    "Its sessions must not be resumed. If the database was restored or moved on purpose, run "
    "secagg.store.sqlite.mark_restored on it: that abandons every session in it"
)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a database stands in its own history."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """Content of the epoch file."""

    current: int
    next: int
    device: int
    inode: int


class EpochFiles:
    """The two sidecar files of the database ``database``."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._epoch_path = database.with_name(database.name + ".epoch")
        self._mark_path = database.with_name(database.name + ".mark")

    def exists(self) -> bool:
        """Whether there is an epoch file: some database was open here."""
        return self._epoch_path.exists()

    def check(self, position: Position) -> None:
        """Compare the database with what the files remember.

        Raises:
            StaleStoreError: the database is not the one that was open last, or is older.
        """
        record, mark = self.read(), self.read_mark()
        if record is None or mark is None:
            raise self._stale("its epoch file or its mark is missing or unreadable")
        if position.epoch not in (record.current, record.next):
            raise self._stale(
                f"it carries epoch {position.epoch}, the epoch file allows {record.current} and {record.next}"
            )
        inode = self._database.stat().st_ino
        if inode != record.inode:
            # Device numbers change when a machine restarts or a volume is attached again, inodes do not.
            raise self._stale(f"it is another file (inode {inode}, was {record.inode} on device {record.device})")
        if position.sequence < mark:
            raise self._stale(f"its last commit is number {position.sequence}, it had reached {mark}")

    def read(self) -> EpochRecord | None:
        """The epoch file, or None if it is missing or unreadable."""
        try:
            fields = json.loads(self._epoch_path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(fields, dict) or sorted(fields) != sorted(_FIELDS):
            return None
        if not all(type(value) is int for value in fields.values()):
            return None
        return EpochRecord(**fields)

    def read_mark(self) -> int | None:
        """The number of the last group commit that was noted, or None."""
        try:
            data = self._mark_path.read_bytes()
        except FileNotFoundError:
            return None
        return int.from_bytes(data, "big") if len(data) == _MARK_BYTES else None

    def allow(self, current: int, following: int) -> None:
        """Let the database carry ``current`` or ``following`` from now on, durably."""
        status = self._database.stat()
        record = {
            "current": current,
            "next": following,
            "device": status.st_dev,
            "inode": status.st_ino,
        }
        replace_durably(self._epoch_path, json.dumps(record).encode())

    def reset_mark(self, sequence: int) -> None:
        """Write the mark anew, durably."""
        replace_durably(self._mark_path, sequence.to_bytes(_MARK_BYTES, "big"))

    def open_mark(self) -> Mark:
        """The mark, for the writer of the store."""
        return Mark(os.open(self._mark_path, os.O_WRONLY | os.O_CREAT, FILE_MODE))

    def _stale(self, reason: str) -> StaleStoreError:
        return StaleStoreError(f"{self._database}: {reason}. {_ADVICE}")


class Mark:
    """The open mark file; ``note`` costs a few microseconds."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def note(self, sequence: int) -> None:
        """Overwrite the mark; to be called after COMMIT, never before."""
        write_all(self._descriptor, sequence.to_bytes(_MARK_BYTES, "big"), 0)

    def close(self) -> None:
        """Make the mark durable and close it; a second call does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
