"""Sessions in one SQLite file, durable when a call returns.

Write-ahead log with ``synchronous=FULL``: COMMIT returns after the fsync. One thread writes (``group``), one
reads on a connection of its own; both work beside the event loop. Measured: see ``benchmarks/store.py``.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from secagg.runtime.ports import (
    Commit,
    SessionKey,
    StaleStoreError,
    StoredSession,
    StoreError,
    VersionConflictError,
)
from secagg.store.epoch import EpochFiles, Position
from secagg.store.files import FILE_MODE, ProcessLock, disk_errors, fsync_directory, make_private_directory
from secagg.store.group import GroupWriter

SCHEMA_VERSION = 1
SESSION_KEY_BYTES = 16
MAX_CELL_BYTES = 64 << 20
"""Longest state, row or effect; what is longer belongs into a blob."""

_MAX_INTEGER = (1 << 63) - 1
_BUSY_S = 10.0
_RESTORE_JUMP = 1 << 20
"""Epochs skipped by ``mark_restored``, so that no copy from the abandoned history carries a later epoch."""

# AUTOINCREMENT: the identifier of a delivered effect is never given to another one.
_SCHEMA = """
BEGIN EXCLUSIVE;
CREATE TABLE store (epoch INTEGER NOT NULL, sequence INTEGER NOT NULL);
INSERT INTO store VALUES (0, 0);
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key BLOB NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  state BLOB NOT NULL,
  abandoned INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE cells (
  session INTEGER NOT NULL REFERENCES sessions (id),
  row INTEGER NOT NULL,
  content BLOB NOT NULL,
  PRIMARY KEY (session, row)
);
CREATE TABLE effects (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  session INTEGER NOT NULL REFERENCES sessions (id),
  content BLOB NOT NULL
);
CREATE INDEX effects_of_session ON effects (session, id);
PRAGMA user_version = 1;
COMMIT;
"""

_T = TypeVar("_T")


class SqliteSessionStore:
    """A ``SessionStore`` in the file ``path``, for one process at a time.

    The constructor opens the store or creates it. Beside ``path`` stand SQLite's own ``-wal`` and ``-shm``,
    and ``.lock``, ``.epoch`` and ``.mark``, which belong to the store and are not to be backed up with it.

    A database that went back in time is refused (``epoch``). What that *cannot* detect:

    - the database, ``.epoch`` and ``.mark`` put back together by something that keeps inode numbers: a
      snapshot of the volume or of the virtual machine, or three copies written over the existing files;
    - a copy of the database that is written over the existing file and was taken in the run which a power
      failure ended, so shortly before it (half a minute) that the kernel had not yet written ``.mark``.

    Nor can it tell a deliberate move to another machine from a restore: a copied store is refused as well.

    Raises:
        StaleStoreError: the database is an old copy, or another file than the one that was open last.
        StoreError: another process has the store open, the schema is unknown, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        with ExitStack() as cleanup, _failures(f"opening {path}"):
            connection, epochs = _open_locked(path, cleanup)
            position = _enter_epoch(connection, epochs)
            mark = epochs.open_mark()
            cleanup.callback(mark.close)
            self._reading = _connect(path, cleanup)
            self._reading.execute("PRAGMA query_only = ON")
            self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="secagg-store-reader")
            cleanup.callback(self._reader.shutdown)
            self._writer = GroupWriter(connection, mark, position.sequence)
            self._cleanup = cleanup.pop_all()

    async def close(self) -> None:
        """Write what is queued and close the files; a second call does nothing."""
        await asyncio.to_thread(self._close)

    async def sessions(self) -> Sequence[SessionKey]:
        """All sessions that were not abandoned, in order of creation."""
        return await self._read(_select_sessions)

    async def load(self, session: SessionKey) -> StoredSession | None:
        """The last committed content of ``session``, or None.

        Raises:
            StaleStoreError: the session was abandoned by ``mark_restored``.
        """
        return await self._read(lambda connection: _select_session(connection, session))

    async def commit(self, session: SessionKey, expected_version: int, commit: Commit) -> Sequence[int]:
        """See ``SessionStore.commit``; an abandoned session conflicts with every version."""
        size_bytes = _checked_size(session, commit)
        return await self._writer.submit(
            lambda connection: _insert_commit(connection, session, expected_version, commit), size_bytes
        )

    async def effect_done(self, session: SessionKey, effect: int) -> None:
        """Forget a delivered effect; one that is unknown or belongs to another session stays as it is."""
        if 0 <= effect <= _MAX_INTEGER:
            await self._writer.submit(lambda connection: _delete_effect(connection, session, effect), 0)

    async def _read(self, query: Callable[[sqlite3.Connection], _T]) -> _T:
        def snapshot() -> _T:
            with _failures("reading"):
                self._reading.execute("BEGIN")
                try:
                    return query(self._reading)
                finally:
                    self._reading.rollback()

        try:
            waiting = asyncio.get_running_loop().run_in_executor(self._reader, snapshot)
        except RuntimeError as error:  # the pool is shut down
            raise StoreError("the store is closed") from error
        return await waiting

    def _close(self) -> None:
        self._writer.stop()
        with _failures("closing"):
            self._cleanup.close()


def mark_restored(path: Path) -> int:
    """Accept a database that was restored from a backup, abandoning every session in it.

    For operators, by hand, while the store is closed. A session of the backup may have gone on after the
    backup was taken: resuming it could contradict what clients have already seen. Abandoned sessions stay in
    the file, cannot be loaded and cannot be created again. Sessions that began after the backup are unknown
    to it; that they do not come back rests on session identifiers being random.

    Remove a ``-wal`` file of the database that is replaced *before* restoring: SQLite would apply it to the
    restored one.

    Returns:
        How many sessions are abandoned now that were not before.

    Raises:
        StoreError: there is no such database, it is open, damaged, or of an unknown schema.
    """
    if not path.exists():
        raise StoreError(f"{path}: there is no database")
    with ExitStack() as cleanup, _failures(f"restoring {path}"):
        connection, epochs = _open_locked(path, cleanup)
        findings = connection.execute("PRAGMA integrity_check").fetchone()
        if findings != ("ok",):
            raise StoreError(f"{path}: the database is damaged: {findings[0]}")
        position, record = _position(connection), epochs.read()
        epoch = max(position.epoch, record.next if record else 0) + _RESTORE_JUMP
        sequence = max(position.sequence, epochs.read_mark() or 0) + 1
        # The database first: until the files follow, opening it goes on being refused.
        connection.execute("BEGIN IMMEDIATE")
        abandoned = connection.execute("UPDATE sessions SET abandoned = 1 WHERE abandoned = 0").rowcount
        connection.execute("UPDATE store SET epoch = ?, sequence = ?", (epoch, sequence))
        connection.execute("COMMIT")
        epochs.reset_mark(sequence)
        epochs.allow(epoch, epoch)
        return abandoned


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn errors of SQLite and of the disk into StoreError."""
    with disk_errors(what):
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{what}: {error}") from error


def _open_locked(path: Path, cleanup: ExitStack) -> tuple[sqlite3.Connection, EpochFiles]:
    """Lock the store, make the database if there is none, check its schema."""
    make_private_directory(path.parent)
    lock = ProcessLock(path.with_name(path.name + ".lock"))
    cleanup.callback(lock.release)
    epochs = EpochFiles(path)
    if not path.exists():
        if epochs.exists():
            raise StaleStoreError(
                f"{path}: the database is gone, but {path.name}.epoch says that it was here. Restore the "
                "database and run secagg.store.sqlite.mark_restored; for a new store take another path"
            )
        path.touch(FILE_MODE)
        fsync_directory(path.parent)
    # SQLite gives its -wal and -shm files the mode of the database.
    path.chmod(FILE_MODE)
    connection = _connect(path, cleanup)
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise StoreError(f"{path}: this file system cannot hold a write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    _check_schema(path, connection)
    return connection, epochs


def _connect(path: Path, cleanup: ExitStack) -> sqlite3.Connection:
    # Each connection is used by one thread at a time, but not by the one that opens it. isolation_level=None:
    # transactions are the ones we write down.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    cleanup.callback(connection.close)
    return connection


def _check_schema(path: Path, connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
        connection.executescript(_SCHEMA)
    elif found != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: schema version {found}; this release reads and writes version {SCHEMA_VERSION}. "
            "Open it with the release that wrote it, or choose another path for a new store"
        )


def _position(connection: sqlite3.Connection) -> Position:
    epoch, sequence = connection.execute("SELECT epoch, sequence FROM store").fetchone()
    return Position(epoch, sequence)


def _enter_epoch(connection: sqlite3.Connection, epochs: EpochFiles) -> Position:
    """Check that the database is the latest one and take the next epoch, in the steps of ``epoch``."""
    position = _position(connection)
    if not epochs.exists() and connection.execute("SELECT count(*) FROM sessions").fetchone() == (0,):
        epochs.reset_mark(position.sequence)
    else:
        epochs.check(position)
    epoch = position.epoch + 1
    epochs.allow(position.epoch, epoch)
    connection.execute("UPDATE store SET epoch = ?", (epoch,))
    epochs.allow(epoch, epoch)
    return Position(epoch, position.sequence)


def _checked_size(session: SessionKey, commit: Commit) -> int:
    """Bytes of ``commit``. What SQLite could refuse is refused here, before it can spoil a group."""
    if len(session) != SESSION_KEY_BYTES:
        raise StoreError(f"session: expected {SESSION_KEY_BYTES} bytes, got {len(session)}")
    if any(not 0 <= row <= _MAX_INTEGER for row in commit.rows):
        raise StoreError("row: expected an index from 0 to 2^63 - 1")
    sizes = [len(cell) for cell in (commit.state, *commit.rows.values(), *commit.effects)]
    if max(sizes) > MAX_CELL_BYTES:
        raise StoreError(f"state, row or effect: {max(sizes)} bytes, the limit is {MAX_CELL_BYTES}")
    return sum(sizes)


def _insert_commit(
    connection: sqlite3.Connection, session: SessionKey, expected_version: int, commit: Commit
) -> Sequence[int]:
    found = connection.execute("SELECT id, version, abandoned FROM sessions WHERE key = ?", (session,)).fetchone()
    number, version, abandoned = found or (None, 0, 0)
    if abandoned:
        raise VersionConflictError(f"session {session.hex()} was abandoned when the store was restored")
    if version != expected_version:
        raise VersionConflictError(f"session {session.hex()}: version {version}, expected {expected_version}")
    if number is None:
        number = connection.execute(
            "INSERT INTO sessions (key, version, state) VALUES (?, 1, ?)", (session, commit.state)
        ).lastrowid
    else:
        connection.execute(
            "UPDATE sessions SET version = ?, state = ? WHERE id = ?", (version + 1, commit.state, number)
        )
    connection.executemany(
        "INSERT INTO cells (session, row, content) VALUES (?, ?, ?)"
        " ON CONFLICT (session, row) DO UPDATE SET content = excluded.content",
        [(number, row, content) for row, content in commit.rows.items()],
    )
    identifiers = []
    for effect in commit.effects:
        cursor = connection.execute("INSERT INTO effects (session, content) VALUES (?, ?)", (number, effect))
        identifiers.append(int(cursor.lastrowid or 0))
    return identifiers


def _delete_effect(connection: sqlite3.Connection, session: SessionKey, effect: int) -> Sequence[int]:
    connection.execute(
        "DELETE FROM effects WHERE id = ? AND session = (SELECT id FROM sessions WHERE key = ?)",
        (effect, session),
    )
    return ()


def _select_sessions(connection: sqlite3.Connection) -> Sequence[SessionKey]:
    return [key for (key,) in connection.execute("SELECT key FROM sessions WHERE abandoned = 0 ORDER BY id")]


def _select_session(connection: sqlite3.Connection, session: SessionKey) -> StoredSession | None:
    found = connection.execute(
        "SELECT id, version, state, abandoned FROM sessions WHERE key = ?", (session,)
    ).fetchone()
    if found is None:
        return None
    number, version, state, abandoned = found
    if abandoned:
        raise StaleStoreError(f"session {session.hex()} was abandoned when the store was restored from a backup")
    rows = connection.execute("SELECT row, content FROM cells WHERE session = ? ORDER BY row", (number,))
    effects = connection.execute("SELECT id, content FROM effects WHERE session = ? ORDER BY id", (number,))
    return StoredSession(version, state, dict(rows.fetchall()), effects.fetchall())
