"""What the state directories of all institutions that open sums have: sessions, a journal, the last checkpoints.

``sessions.db`` holds the sessions, ``logs/`` the last checkpoint of each log, ``opened.jsonl`` what was opened and
refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from secagg.runtime.ports import StaleStoreError
from secagg.store.checkpoints import FileCheckpointMemory
from secagg.store.opening_journal import FileOpeningJournal
from secagg.store.sqlite import SqliteSessionStore, mark_restored

SESSIONS_FILE = "sessions.db"
JOURNAL_FILE = "opened.jsonl"
_LOGS = "logs"


class InstitutionState:
    """The open state directory of one institution, for one process at a time."""

    def __init__(self, directory: Path) -> None:
        """Open a directory in which ``refuse_stale`` saw no problem.

        Raises:
            StaleStoreError: the sessions are older than they were.
            StoreError: another process has it, or the disk refuses.
        """
        self._directory = directory
        self.sessions = SqliteSessionStore(directory / SESSIONS_FILE)
        self.journal = FileOpeningJournal(directory / JOURNAL_FILE)

    def memory_of(self, coordinator: bytes, origin: str) -> FileCheckpointMemory:
        """Where the last checkpoint of a coordinator's log is kept."""
        name = hashlib.sha256(coordinator + origin.encode("utf-8")).hexdigest()
        return FileCheckpointMemory(self._directory / _LOGS / f"{name}.checkpoint")

    async def close(self) -> None:
        """Close the files."""
        await self.sessions.close()


def refuse_stale(directory: Path, problem: str, advice: str) -> None:
    """Raise StaleStoreError if there is a problem with a directory: what was forgotten could be answered again."""
    if problem:
        raise StaleStoreError(f"{directory}: {problem}. {advice}")


def abandon_sessions(directory: Path) -> int:
    """Abandon every session in a directory that was restored from a backup, or lost.

    Returns:
        How many sessions are abandoned that were not before.

    Raises:
        StoreError: it is open, or damaged.
        OSError: the disk refuses.
    """
    database = directory / SESSIONS_FILE
    if database.exists():
        return mark_restored(database)
    # Nothing is left of it, so nothing of it can be resumed; its sidecar files speak of another one.
    for sidecar in directory.glob(f"{SESSIONS_FILE}.*"):
        sidecar.unlink()
    return 0
