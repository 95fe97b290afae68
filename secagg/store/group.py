"""Group commit: many waiters, one transaction, one fsync.

An fsync costs milliseconds and a statement microseconds, so one thread takes whatever has queued up while the
disk was busy and commits it together. Waiters are served in order of arrival; nobody waits for a lock.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from secagg.runtime.ports import StoreError
from secagg.store.epoch import Mark

_MAX_JOBS = 1024
_MAX_BATCH_BYTES = 32 << 20
# After these the transaction is rolled back and the next one may succeed. After any other error, above all of
# fsync, nobody knows what the disk holds, and a second fsync may claim success wrongly: the store stops.
_PASSING = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_TOOBIG})


@dataclass(frozen=True, slots=True)
class _Job:
    apply: Callable[[sqlite3.Connection], Sequence[int]]
    size_bytes: int
    waiter: asyncio.Future[Sequence[int]]


class GroupWriter:
    """The one writer of a database.

    ``connection`` belongs to the writer's thread until ``stop`` returns; ``sequence`` is the number of the
    last group commit, which goes into table ``store`` with every group and into ``mark`` after it.
    """

    def __init__(self, connection: sqlite3.Connection, mark: Mark, sequence: int) -> None:
        self._connection = connection
        self._mark = mark
        self._sequence = sequence
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._refusal: str | None = None
        self._thread = threading.Thread(target=self._run, name="secagg-store-writer", daemon=True)
        self._thread.start()

    async def submit(self, apply: Callable[[sqlite3.Connection], Sequence[int]], size_bytes: int) -> Sequence[int]:
        """Run ``apply`` inside a group; returns what it returned once the group is durable.

        ``apply`` refuses by raising a StoreError before it has written anything. A caller that is cancelled
        does not learn the outcome; the write may take place.

        Raises:
            StoreError: the disk failed, or the store is closed.
        """
        waiter: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        with self._wake:
            if self._refusal is not None:
                raise StoreError(self._refusal)
            self._jobs.append(_Job(apply, size_bytes, waiter))
            self._wake.notify()
        return await waiter

    def stop(self) -> None:
        """Refuse further jobs, write those that are queued, end the thread."""
        self._refuse("the store is closed")
        self._thread.join()

    def _refuse(self, reason: str) -> None:
        with self._wake:
            if self._refusal is None:
                self._refusal = reason
            self._wake.notify()

    def _run(self) -> None:
        try:
            while batch := self._take():
                self._write(batch)
        finally:
            self._refuse("the writer of the store has ended")
            rest = list(self._jobs)
            self._jobs.clear()
            _deliver(rest, [StoreError(str(self._refusal)) for _ in rest])

    def _take(self) -> list[_Job]:
        """The next group; empty when the store is closed or has stopped."""
        with self._wake:
            self._wake.wait_for(lambda: self._jobs or self._refusal is not None)
            batch: list[_Job] = []
            size_bytes = 0
            while self._jobs and len(batch) < _MAX_JOBS and size_bytes < _MAX_BATCH_BYTES:
                job = self._jobs.popleft()
                size_bytes += job.size_bytes
                batch.append(job)
            return batch

    def _write(self, batch: list[_Job]) -> None:
        outcomes: Sequence[Sequence[int] | StoreError] | None = None
        reason = "a write of the same group failed"
        try:
            outcomes = self._transaction(batch)
        except (sqlite3.Error, OSError) as error:
            reason = f"the write failed: {error}"
            if getattr(error, "sqlite_errorcode", None) not in _PASSING:
                self._refuse(f"the store has stopped, open it again: {error}")
        finally:
            if outcomes is None:
                with suppress(sqlite3.Error):
                    self._connection.rollback()
                outcomes = [StoreError(reason) for _ in batch]
            _deliver(batch, outcomes)

    def _transaction(self, batch: list[_Job]) -> Sequence[Sequence[int] | StoreError]:
        outcomes: list[Sequence[int] | StoreError] = []
        self._connection.execute("BEGIN IMMEDIATE")
        for job in batch:
            try:
                outcomes.append(job.apply(self._connection))
            except StoreError as refusal:
                outcomes.append(refusal)
        self._connection.execute("UPDATE store SET sequence = ?", (self._sequence + 1,))
        self._connection.execute("COMMIT")
        self._sequence += 1
        self._mark.note(self._sequence)
        return outcomes


def _deliver(batch: Sequence[_Job], outcomes: Sequence[Sequence[int] | StoreError]) -> None:
    """Tell every waiter, waking each event loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Sequence[int] | StoreError]]] = {}
    for job, outcome in zip(batch, outcomes, strict=True):
        loops.setdefault(job.waiter.get_loop(), []).append((job, outcome))
    for loop, told in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, told)


def _settle(told: Sequence[tuple[_Job, Sequence[int] | StoreError]]) -> None:
    for job, outcome in told:
        if job.waiter.done():  # cancelled
            continue
        if isinstance(outcome, StoreError):
            job.waiter.set_exception(outcome)
        else:
            job.waiter.set_result(outcome)
