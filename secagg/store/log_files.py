"""The files of a log: a directory to publish as it is, and a private note of what was signed last.

::

    RECORD/checkpoint  RECORD/tile/...     modes 0755 and 0644, for any static web server (c2sp.org/tlog-tiles)
    RECORD/.staging/                       mode 0700: files under way to their names
    PRIVATE/log.head                       mode 0600: the note signed last, and the inode of log.lock
    PRIVATE/log.lock                       held by the process that writes the log

A file gets its name by ``rename`` after it was synced; then its directory is synced. A name in ``tile/`` is given once:
what is there with other bytes is never overwritten.

An old copy is recognised by what it lacks (``runtime.log_state``). Where record and private state are old together, the
lock file's inode tells: a copy that was unpacked has another one. What that cannot detect is a snapshot of the whole
volume, or a file system that gives the inode of a file that was deleted before to the copy; only witnesses, or a client
that kept a checkpoint, can.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from secagg.runtime.ports import StaleLogError, StoreError
from secagg.store.files import (
    ProcessLock,
    disk_errors,
    fsync_directory,
    make_private_directory,
    replace_durably,
    write_all,
)
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.note import Note, NoteError
from secagg.transcript.tiles import parse_tile_path

PUBLIC_FILE_MODE = 0o644
PUBLIC_DIRECTORY_MODE = 0o755
CHECKPOINT_FILE = "checkpoint"
TILE_DIRECTORY = "tile"
_STAGING = ".staging"
_HEAD_FILE = "log.head"
_LOCK_FILE = "log.lock"
_ADVICE = (
    "If the newest record and private state were moved here on purpose, run `secagg coordinator mark-moved`. "
    "If they are from a backup, this log has ended: begin another with another origin and an empty directory"
)


class RecordFiles:
    """The published files of a log, to be read; a ``RecordReader``."""

    def __init__(self, record: Path) -> None:
        self.record = record

    def names(self) -> Sequence[str]:
        """See ``RecordReader.names``."""
        found = []
        with disk_errors(f"listing {self.record}"):
            for directory, _, files in os.walk(self.record / TILE_DIRECTORY, onerror=_raise):
                prefix = Path(directory).relative_to(self.record).as_posix()
                found += [f"{prefix}/{name}" for name in files]
        return sorted(found)

    def read(self, path: str) -> bytes | None:
        """See ``RecordReader.read``."""
        with disk_errors(f"reading {self.record / path}"):
            return _read(self.record / path)

    def checkpoint(self) -> bytes | None:
        """The published checkpoint, or None."""
        return self.read(CHECKPOINT_FILE)

    def replace_tiles(self, tiles: Sequence[tuple[str, bytes]]) -> None:
        """Write tiles, also over others that are there; entries and checkpoint cannot be written this way.

        Raises:
            TileError: a path is not of a tile.
            StoreError: the disk refuses.
        """
        for path, _ in tiles:
            parse_tile_path(path)
        with disk_errors(f"writing {self.record}"):
            self._place([(self.record / path, data) for path, data in tiles])

    def _place(self, files: Sequence[tuple[Path, bytes]]) -> None:
        """Give each of ``files`` its name, durably: all are synced first, and each directory once at the end."""
        staging = self.record / _STAGING
        staging.mkdir(mode=0o700, exist_ok=True)
        staged = [
            (_stage(staging / f"{os.getpid()}-{number}", data), target) for number, (target, data) in enumerate(files)
        ]
        for source, target in staged:
            _make_directories(target.parent)
            os.replace(source, target)
        for directory in sorted({target.parent for target, _ in files}):
            fsync_directory(directory)


class LogDirectory(RecordFiles):
    """The ``LogFiles`` in the directory ``record``, with private state in ``private``; for one process at a time.

    Both directories are made if they are missing. What is written goes to a thread of its own.

    Raises:
        StaleLogError: the private state is missing, unreadable, or a copy.
        StoreError: another process has the log open, or the disk refuses.
    """

    def __init__(self, record: Path, private: Path) -> None:
        super().__init__(record)
        self._head_path = private / _HEAD_FILE
        with ExitStack() as cleanup, disk_errors(f"opening {record}"):
            make_private_directory(private)
            lock = ProcessLock(private / _LOCK_FILE)
            cleanup.callback(lock.release)
            _make_directories(record)
            cleanup.callback(os.close, _locked(record))
            self._inode = (private / _LOCK_FILE).stat().st_ino
            self._signed = self._enter(private)
            staging = record / _STAGING
            for left in staging.iterdir() if staging.is_dir() else ():
                left.unlink()
            self._flush()
            self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="secagg-log-writer")
            cleanup.callback(self._writer.shutdown)
            self._cleanup = cleanup.pop_all()

    def last_signed(self) -> bytes | None:
        """See ``LogFiles.last_signed``."""
        return self._signed or None

    async def settle(self) -> None:
        """See ``LogFiles.settle``."""
        await self._write(self._flush)

    async def add(self, files: Sequence[tuple[str, bytes]]) -> None:
        """See ``LogFiles.add``."""
        await self._write(lambda: self._add(files))

    async def keep_signed(self, note: bytes) -> None:
        """See ``LogFiles.keep_signed``."""
        await self._write(lambda: self._keep(note))

    async def publish(self, checkpoint: bytes) -> None:
        """See ``LogFiles.publish``."""
        await self._write(lambda: self._place([(self.record / CHECKPOINT_FILE, checkpoint)]))

    async def remove_partials(self, paths: Sequence[str]) -> None:
        """See ``LogFiles.remove_partials``."""
        await self._write(lambda: _remove_directories([self.record / f"{path}.p" for path in paths]))

    async def close(self) -> None:
        """Let the write under way land and let go; a second call does nothing."""
        await asyncio.to_thread(self._cleanup.close)

    async def _write(self, work: Callable[[], object]) -> None:
        def written() -> None:
            with disk_errors("writing the log"):
                work()

        try:
            waiting = asyncio.get_running_loop().run_in_executor(self._writer, written)
        except RuntimeError as error:  # the pool is shut down
            raise StoreError("the log is closed") from error
        await waiting

    def _flush(self) -> None:
        """Make durable what a process that was killed, or a write that failed, has given a name and not flushed."""
        directories = [Path(directory) for directory, _, _ in os.walk(self.record, onerror=_raise)]
        for directory in (self._head_path.parent, self.record.parent, *directories):
            fsync_directory(directory)

    def _enter(self, private: Path) -> bytes:
        """The note signed last, from a private state that belongs here; it is made for a record that is empty."""
        head = _read_head(self._head_path)
        if head is None:
            if self.checkpoint() is not None or self.names():
                raise StaleLogError(f"{self.record} holds a log, and {private} does not know it. {_ADVICE}")
            fsync_directory(private)  # the head must not outlive the lock file that it names
            self._keep(b"")
            return b""
        if head.inode != self._inode:
            raise StaleLogError(f"{private} is a copy (inode {self._inode}, was {head.inode}). {_ADVICE}")
        return head.signed

    def _keep(self, note: bytes) -> None:
        _write_head(self._head_path, _Head(self._inode, note))
        self._signed = note

    def _add(self, files: Sequence[tuple[str, bytes]]) -> None:
        fresh = []
        for path, data in files:
            target = self.record / path
            found = _read(target)
            if found is None:
                fresh.append((target, data))
            elif found != data:
                raise StoreError(f"{target}: is there with other bytes; it was not touched")
            else:
                fsync_directory(target.parent)
        self._place(fresh)


def _locked(directory: Path) -> int:
    """An open descriptor of ``directory`` that no other process holds: two private states must not share a record."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreError(f"{directory}: the record is open already, with other private state") from None
    return descriptor


def mark_moved(record: Path, private: Path) -> int:
    """Accept a record and its private state in a new place. For operators, by hand, while the log is closed.

    Only right for the *newest* record: were it older than what was shown before, the log would show two histories, and
    every witness and client that kept a checkpoint could prove it. What was signed is the larger of the private note
    and the published checkpoint; opening the log afterwards checks both against the entries.

    Returns:
        How many entries the log had signed.

    Raises:
        StoreError: it is open, or a checkpoint is unreadable.
    """
    with ExitStack() as cleanup, disk_errors(f"accepting {record}"):
        make_private_directory(private)
        lock = ProcessLock(private / _LOCK_FILE)
        cleanup.callback(lock.release)
        head = _read_head(private / _HEAD_FILE)
        notes = [head.signed if head else b"", RecordFiles(record).checkpoint() or b""]
        signed = max(notes, key=_size_of)
        _write_head(private / _HEAD_FILE, _Head((private / _LOCK_FILE).stat().st_ino, signed))
        return _size_of(signed)


@dataclass(frozen=True, slots=True)
class _Head:
    """Content of the private file."""

    inode: int
    signed: bytes


def _read_head(path: Path) -> _Head | None:
    data = _read(path)
    if data is None:
        return None
    try:
        fields = json.loads(data)
        inode, signed = fields["inode"], fields["signed"]
        if type(inode) is int and len(fields) == 2:
            return _Head(inode, signed.encode())
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise StaleLogError(f"{path}: is not what was written there. {_ADVICE}")


def _write_head(path: Path, head: _Head) -> None:
    replace_durably(path, json.dumps({"inode": head.inode, "signed": head.signed.decode()}).encode())


def _size_of(note: bytes) -> int:
    try:
        return Checkpoint.parse(Note.parse(note).text).size if note else 0
    except NoteError as error:
        raise StoreError(f"a checkpoint is unreadable: {error}") from None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stage(path: Path, data: bytes) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PUBLIC_FILE_MODE)
    try:
        os.fchmod(descriptor, PUBLIC_FILE_MODE)  # whatever the umask is
        write_all(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path


def _make_directories(path: Path) -> None:
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir()
        directory.chmod(PUBLIC_DIRECTORY_MODE)
        fsync_directory(directory.parent)


def _remove_directories(directories: Sequence[Path]) -> None:
    """Remove directories of files; after a power failure some of it may be back."""
    for directory in directories:
        if directory.is_dir():
            for file in directory.iterdir():
                file.unlink()
            directory.rmdir()


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
