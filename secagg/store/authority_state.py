"""The state directory of a key authority: made once, with its key; a copy of it is known as one.

``sessions.db`` holds the sessions, each with its key until it is answered, ``logs/`` the last checkpoint of each log,
``opened.jsonl`` what was opened and refused. An authority that forgot what it answered could answer a second time, so a
directory that is gone, emptied, copied or older than it was is refused until the operator says that it was restored:
then every session in it is abandoned, and its key with it.
"""

from __future__ import annotations

from pathlib import Path

from secagg.store.files import disk_errors
from secagg.store.institution_state import (
    JOURNAL_FILE,
    SESSIONS_FILE,
    InstitutionState,
    abandon_sessions,
    refuse_stale,
)
from secagg.store.marked import make_marked, mark_again, mark_problem

__all__ = ["JOURNAL_FILE", "SESSIONS_FILE", "AuthorityState"]

_ADVICE = (
    "An authority that forgot what it answered must not answer again: start it with --restored, and it opens nothing "
    "of the sessions that it made keys for before"
)


class AuthorityState(InstitutionState):
    """The open state directory of one authority, for one process at a time."""

    def __init__(self, directory: Path) -> None:
        """Open what ``create`` made.

        Raises:
            StaleStoreError: it is gone, a copy, or older than it was.
            StoreError: another process has it, or the disk refuses.
        """
        with disk_errors(f"{directory}: opening the authority's state"):
            problem = mark_problem(directory)
        refuse_stale(directory, problem, _ADVICE)
        super().__init__(directory)

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
            # Before the directory counts as the one that was made: a crash in between leaves it refused.
            abandoned = abandon_sessions(directory)
        mark_again(directory)
        return abandoned
