"""Events in one SQLite file, only ever appended, durable when a transaction ends.

A rollback journal rather than a write-ahead log: all there is to back up is one file. ``journal_mode=TRUNCATE`` with
``synchronous=FULL`` syncs the emptied journal too, so a commit does not come undone when the power fails after it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dp.ledger_disk import FILE_MODE, Disk
from dp.ledger_errors import LedgerCorruptError, LedgerStorageError
from dp.ledger_events import Event, Head, Settled, encode_event, event_digest

SCHEMA_VERSION = 1

_BUSY_S = 10.0
# After these nothing was written and the next attempt may succeed. After any other error, above all of fsync, nobody
# knows what the disk holds, and a second fsync may claim success wrongly.
_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_TOOBIG})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

# REPLACE deletes a row without asking a trigger on DELETE; the one on INSERT lets only the next number in.
_SCHEMA = (
    """CREATE TABLE events (
  sequence INTEGER PRIMARY KEY,
  event BLOB NOT NULL,
  participants BLOB,
  digest BLOB NOT NULL
)""",
    """CREATE TRIGGER events_follow BEFORE INSERT ON events
WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM events)
BEGIN SELECT raise(ABORT, 'events are numbered without gaps'); END""",
    """CREATE TRIGGER events_are_final BEFORE UPDATE ON events
BEGIN SELECT raise(ABORT, 'events are never changed'); END""",
    """CREATE TRIGGER events_stay BEFORE DELETE ON events
BEGIN SELECT raise(ABORT, 'events are never deleted'); END""",
)


@dataclass(frozen=True, slots=True)
class Row:
    """An event as it is stored; ``identities`` are the participants of a settled session."""

    sequence: int
    data: bytes
    identities: bytes | None
    digest: bytes


class EventStore:
    """The events in the file ``path``, which is made if it is not there.

    Several processes may have it open, one writes at a time. Not safe for threads: the caller holds a lock.

    Raises:
        LedgerCorruptError: the file is damaged, or is no ledger.
        LedgerStorageError: it is of another version, or the disk refuses.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._refusal: str | None = None
        with self._failures():
            if not path.exists():
                path.touch(FILE_MODE)
                disk.sync_directory(path.parent)
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=_BUSY_S,
                isolation_level=None,  # transactions are the ones that are written down here
                check_same_thread=False,
            )
        try:
            with self._failures():
                self._configure()
            with self.writing():
                self._make_schema()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._refusal = self._refusal or "it is closed"
        self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction that no other process writes beside; durable when the block ends, undone when it raises.

        Raises:
            LedgerStorageError: the disk refuses. What was appended may still have become durable.
        """
        with self._failures():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._disk.commit(self._connection)
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.rollback()
                raise

    def append(self, head: Head, event: Event) -> None:
        """Put an event after ``head``, inside ``writing``."""
        sequence = head.sequence + 1
        data = encode_event(sequence, event)
        participants = event.participants if isinstance(event, Settled) else None
        identities = None if participants is None else participants.identities
        self._connection.execute(
            "INSERT INTO events (sequence, event, participants, digest) VALUES (?, ?, ?, ?)",
            (sequence, data, identities, event_digest(head.digest, data)),
        )

    def rows(self, first: int) -> Generator[Row, None, None]:
        """The events from number ``first`` on, as they are at one moment; to be closed, since it keeps writers out."""
        with self._failures():
            query = "SELECT sequence, event, participants, digest FROM events WHERE sequence >= ? ORDER BY sequence"
            with closing(self._connection.execute(query, (first,))) as found:
                for sequence, data, identities, digest in found:
                    if not (isinstance(data, bytes) and isinstance(digest, bytes)):
                        raise LedgerCorruptError(f"{self._path}: event {sequence} is not stored as bytes")
                    if not (identities is None or isinstance(identities, bytes)):
                        raise LedgerCorruptError(f"{self._path}: event {sequence} has participants that are not bytes")
                    yield Row(sequence, data, identities, digest)

    def check_file(self) -> None:
        """Let SQLite check its file, and that nobody has taken the triggers away.

        Raises:
            LedgerCorruptError: it is damaged or changed.
        """
        with self._failures():
            self._check_schema()
            (found,) = self._connection.execute("PRAGMA integrity_check").fetchone()
        if found != "ok":
            raise LedgerCorruptError(f"{self._path}: the database is damaged: {found}")

    def _configure(self) -> None:
        if self._connection.execute("PRAGMA journal_mode = TRUNCATE").fetchone() != ("truncate",):
            raise LedgerStorageError(f"{self._path}: the journal of this database cannot be used")
        self._connection.execute("PRAGMA synchronous = FULL")

    def _make_schema(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 0 and self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            for statement in _SCHEMA:
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise LedgerStorageError(
                f"{self._path}: schema version {version}; this release reads and writes version {SCHEMA_VERSION}"
            )
        self._check_schema()

    def _check_schema(self) -> None:
        found = self._connection.execute("SELECT sql FROM sqlite_master ORDER BY rowid").fetchall()
        if found != [(statement,) for statement in _SCHEMA]:
            raise LedgerCorruptError(f"{self._path}: the tables or triggers are not those of a ledger")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn errors of SQLite and of the disk into errors of the ledger; after a grave one it stays shut."""
        if self._refusal is not None:
            raise LedgerStorageError(f"{self._path}: {self._refusal}")
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code not in _PASSING:
                self._refusal = f"open it again, since it failed: {error}"
            failed = LedgerCorruptError if code in _DAMAGED else LedgerStorageError
            raise failed(f"{self._path}: {error}") from error
        except OSError as error:
            self._refusal = f"open it again, since it failed: {error}"
            raise LedgerStorageError(f"{self._path}: {error}") from error
