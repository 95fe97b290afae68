"""The durable operations of a ledger, and the file beside the database that knows how far it had come."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from dp.ledger_errors import LedgerCorruptError, LedgerRolledBackError, LedgerStorageError
from dp.ledger_events import Head, decode_head, encode_head

FILE_MODE = 0o600


class Disk:
    """What changes the disk, one method for each operation; tests put a failing one in its place."""

    def commit(self, connection: sqlite3.Connection) -> None:
        """Make the open transaction durable."""
        connection.execute("COMMIT")

    def write(self, path: Path, content: bytes) -> None:
        """Write a file, for this user only, and make its content durable."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target``."""
        source.replace(target)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class HeadFile:
    """The file ``<database>.head``: the last head whose event was acknowledged.

    It is written after the database, so after a crash between the two it is behind, which is harmless: nobody was
    told of the event. A database that does not hold this head has gone back in time. One process writes at a time,
    the one that holds the write lock of the database.
    """

    def __init__(self, database: Path, disk: Disk) -> None:
        self.path = database.with_name(database.name + ".head")
        self._disk = disk

    def read(self) -> Head | None:
        """What it remembers, or None when there is no file.

        Raises:
            LedgerRolledBackError: it does not hold a head.
            LedgerStorageError: the disk refuses.
        """
        try:
            return decode_head(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerStorageError(f"{self.path}: {error}") from error
        except LedgerCorruptError as error:
            raise LedgerRolledBackError(f"{self.path}: {error}, so nobody knows how far the ledger had come") from error

    def read_or_none(self) -> Head | None:
        """What it remembers, or None when there is no file or no head in it."""
        try:
            return self.read()
        except LedgerRolledBackError:
            return None

    def write(self, head: Head) -> None:
        """Remember ``head``, durably: after any crash the file holds the old head or this one."""
        temporary = self.path.with_name(self.path.name + ".tmp")
        self._disk.write(temporary, encode_head(head))
        self._disk.replace(temporary, self.path)
        self._disk.sync_directory(self.path.parent)
