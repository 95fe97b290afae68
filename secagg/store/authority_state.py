"""The state directory of a key authority: made once, with its key; a copy of it is known as one.

``sessions.db`` holds the sessions, each with its key until it is answered, ``logs/`` the last checkpoint of each log,
``opened.jsonl`` what was opened and refused. An authority that forgot what it answered could answer a second time, so a
directory that is gone, emptied, copied or older than it was is refused until the operator says that it was restored:
then every session in it is abandoned, and its key with it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from secagg.runtime.ports import StaleStoreError
from secagg.store.checkpoints import FileCheckpointMemory
from secagg.store.files import disk_errors
from secagg.store.marked import make_marked, mark_again, mark_problem
from secagg.store.opening_journal import FileOpeningJournal
from secagg.store.sqlite import SqliteSessionStore, mark_restored

SESSIONS_FILE = "sessions.db"
JOURNAL_FILE = "opened.jsonl"
_LOGS = "logs"
_ADVICE = (
    "An authority that forgot what it answered must not answer again: start it with --restored, and it opens nothing "
    "of the sessions that it made keys for before"
)


class AuthorityState:
    """The open state directory of one authority, for one process at a time."""

    def __init__(self, directory: Path) -> None:
        """Open what ``create`` made.

        Raises:
            StaleStoreError: it is gone, a copy, or older than it was.
            StoreError: another process has it, or the disk refuses.
        """
        with disk_errors(f"{directory}: opening the authority's state"):
            problem = mark_problem(directory)
        if problem:
            raise StaleStoreError(f"{directory}: {problem}. {_ADVICE}")
        self._directory = directory
        self.sessions = SqliteSessionStore(directory / SESSIONS_FILE)
        self.journal = FileOpeningJournal(directory / JOURNAL_FILE)

    @staticmethod
    def create(directory: Path) -> None:
        """Make the directory of a new authority. Raises StoreError: it is there already, or the disk refuses."""
        make_marked(directory)

    @staticmethod
    def accept_restored(directory: Path) -> int:
        """Accept a directory that was restored from a backup, or lost, without any of its sessions.

        Returns:
            How many sessions are abandoned that were not before.

        Raises:
            StoreError: it is open, damaged, or the disk refuses.
        """
        with disk_errors(f"{directory}: accepting a restored state"):
            database = directory / SESSIONS_FILE
            if not database.exists():
                # Nothing is left of it, so nothing of it can be resumed; its sidecar files speak of another one.
                for sidecar in directory.glob(f"{SESSIONS_FILE}.*"):
                    sidecar.unlink()
            # Before the directory counts as the one that was made: a crash in between leaves it refused.
            abandoned = mark_restored(database) if database.exists() else 0
        mark_again(directory)
        return abandoned

    def memory_of(self, coordinator: bytes, origin: str) -> FileCheckpointMemory:
        """Where the last checkpoint of a coordinator's log is kept."""
        name = hashlib.sha256(coordinator + origin.encode("utf-8")).hexdigest()
        return FileCheckpointMemory(self._directory / _LOGS / f"{name}.checkpoint")

    async def close(self) -> None:
        """Close the files."""
        await self.sessions.close()
