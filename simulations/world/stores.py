"""What survives a simulated process: stores that count their writes, and crash at the one they are told to."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from secagg.runtime.memory import MemoryBlobStore, MemorySessionStore
from secagg.runtime.memory_log import MemoryLogFiles
from secagg.runtime.ports import Commit, SessionKey, StoredSession
from simulations.world.process import Process

_T = TypeVar("_T")


class CrashTime(enum.StrEnum):
    """Whether the write at which a process dies is durable."""

    BEFORE = "before"
    AFTER = "after"


class Disk:
    """The durable things of one node, through all its processes.

    Attributes:
        writes: how many commits of sessions and writes to a log were made.
    """

    def __init__(self) -> None:
        self.sessions = MemorySessionStore()
        self.blobs = MemoryBlobStore()
        self.log = MemoryLogFiles()
        self.writes = 0
        self._crash: tuple[int, CrashTime, Callable[[], None]] | None = None

    def crash_at(self, write: int, when: CrashTime, kill: Callable[[], None]) -> None:
        """Call ``kill`` around the write of this number, counted from 1 from now on."""
        self._crash = self.writes + write, when, kill

    async def write(self, action: Callable[[], Awaitable[_T]]) -> _T:
        """One write of a process that is alive."""
        self.writes += 1
        crash = self._crash
        if crash is None or self.writes < crash[0]:
            return await action()
        self._crash = None
        if crash[1] is CrashTime.AFTER:
            await action()
        crash[2]()
        raise asyncio.CancelledError


class ProcessStore:
    """A ``SessionStore``: a disk as one process sees it, for as long as it lives."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process

    async def sessions(self) -> Sequence[SessionKey]:
        """See ``SessionStore.sessions``."""
        self._process.check_alive()
        return await self._disk.sessions.sessions()

    async def load(self, session: SessionKey) -> StoredSession | None:
        """See ``SessionStore.load``."""
        self._process.check_alive()
        return await self._disk.sessions.load(session)

    async def commit(self, session: SessionKey, expected_version: int, commit: Commit) -> Sequence[int]:
        """See ``SessionStore.commit``."""
        self._process.check_alive()
        return await self._disk.write(lambda: self._disk.sessions.commit(session, expected_version, commit))

    async def effect_done(self, session: SessionKey, effect: int) -> None:
        """See ``SessionStore.effect_done``."""
        self._process.check_alive()
        await self._disk.sessions.effect_done(session, effect)


class ProcessLogFiles:
    """A ``LogFiles``: the log on a disk as one process sees it, for as long as it lives."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process

    def names(self) -> Sequence[str]:
        """See ``RecordReader.names``."""
        return self._disk.log.names()

    def read(self, path: str) -> bytes | None:
        """See ``RecordReader.read``."""
        return self._disk.log.read(path)

    def checkpoint(self) -> bytes | None:
        """See ``LogFiles.checkpoint``."""
        return self._disk.log.checkpoint()

    def last_signed(self) -> bytes | None:
        """See ``LogFiles.last_signed``."""
        return self._disk.log.last_signed()

    async def settle(self) -> None:
        """See ``LogFiles.settle``."""
        await self._disk.log.settle()

    async def add(self, files: Sequence[tuple[str, bytes]]) -> None:
        """See ``LogFiles.add``."""
        self._process.check_alive()
        await self._disk.write(lambda: self._disk.log.add(files))

    async def keep_signed(self, note: bytes) -> None:
        """See ``LogFiles.keep_signed``."""
        self._process.check_alive()
        await self._disk.write(lambda: self._disk.log.keep_signed(note))

    async def publish(self, checkpoint: bytes) -> None:
        """See ``LogFiles.publish``."""
        self._process.check_alive()
        await self._disk.write(lambda: self._disk.log.publish(checkpoint))

    async def remove_partials(self, paths: Sequence[str]) -> None:
        """See ``LogFiles.remove_partials``."""
        self._process.check_alive()
        await self._disk.log.remove_partials(paths)

    async def close(self) -> None:
        """See ``LogFiles.close``."""
        await self._disk.log.close()
