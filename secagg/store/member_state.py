"""The state directory of a committee member: made once, with its key; a copy of it is known as one.

``sessions.db`` holds the sessions, ``boxes/`` the sealed boxes, ``logs/`` the last checkpoint of each log,
``opened.jsonl`` what was opened and refused, ``restored`` when the member was restored from a backup last. A member
that forgot what it answered could answer a second time, so a directory that is gone, emptied, copied or older than it
was is refused until the operator says that it was restored: then nothing that may have been opened before is opened.
"""

from __future__ import annotations

from pathlib import Path

from secagg.runtime.ports import StoreError
from secagg.store.box_file import DirectoryBoxStore
from secagg.store.files import FILE_MODE, disk_errors, replace_durably
from secagg.store.institution_state import InstitutionState, abandon_sessions, refuse_stale
from secagg.store.marked import make_marked, mark_again, mark_problem

RESTORED_FILE = "restored"
BIRTH_FILE = "born"
NOTED_FILE = "born.noted"
BOX_DIRECTORY = "boxes"
_ADVICE = (
    "A member that forgot what it answered must not answer again: start it with --restored, and it opens nothing "
    "that was opened before"
)


class MemberState(InstitutionState):
    """The open state directory of one member, for one process at a time."""

    def __init__(self, directory: Path) -> None:
        """Open what ``create`` made.

        Raises:
            StaleStoreError: it is gone, a copy, or older than it was.
            StoreError: another process has it, or the disk refuses.
        """
        with disk_errors(f"{directory}: opening the member's state"):
            problem = mark_problem(directory) or _birth_problem(directory)
        refuse_stale(directory, problem, _ADVICE)
        self.restored_at_s = _restored_at(directory)
        super().__init__(directory)
        self.boxes = DirectoryBoxStore(directory / BOX_DIRECTORY)

    @staticmethod
    def create(directory: Path) -> None:
        """Make the directory of a new member. Raises StoreError: it is there already, or the disk refuses."""
        make_marked(directory)
        with disk_errors(f"{directory}: making the member's state"):
            _write_birth(directory)

    @staticmethod
    def accept_restored(directory: Path, now_s: int) -> int:
        """Accept a directory that was restored from a backup, or lost: nothing opened before ``now_s`` is opened.

        Returns:
            How many sessions are abandoned that were not before.

        Raises:
            StoreError: it is open, damaged, or the disk refuses.
        """
        with disk_errors(f"{directory}: accepting a restored state"):
            # The date first: after a crash before the rest the directory goes on being refused.
            at_s = max(now_s, _restored_at(directory) if directory.is_dir() else 0)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_durably(directory / RESTORED_FILE, b"%d\n" % at_s)
            abandoned = abandon_sessions(directory)
            _write_birth(directory)
        mark_again(directory)
        return abandoned


def _write_birth(directory: Path) -> None:
    """Note when the system says that a file here was made or touched last: whoever restores files cannot choose it.

    A file system may give a restored file the inode of the one that was deleted, so the mark alone is not enough.
    """
    (directory / BIRTH_FILE).touch(FILE_MODE)
    replace_durably(directory / NOTED_FILE, b"%d\n" % (directory / BIRTH_FILE).stat().st_ctime_ns)


def _birth_problem(directory: Path) -> str:
    try:
        born_ns = (directory / BIRTH_FILE).stat().st_ctime_ns
        noted = (directory / NOTED_FILE).read_bytes()
    except FileNotFoundError:
        return "is not complete, or was emptied"
    return "" if noted == b"%d\n" % born_ns else "was restored, or its files were given another owner or mode"


def _restored_at(directory: Path) -> int:
    path = directory / RESTORED_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return 0
    if not text.strip().isdigit():
        raise StoreError(f"{path}: is damaged")
    return int(text)
