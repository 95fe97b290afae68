"""Directories that are made once and must not be replaced by a copy or made anew.

``DIRECTORY/made`` holds its own inode: an empty directory in its place, or one that was unpacked from a backup, is not
it. What keeps inodes, such as a snapshot of the volume, cannot be told from the original.
"""

from __future__ import annotations

import os
from pathlib import Path

from secagg.runtime.ports import StoreError
from secagg.store.files import FILE_MODE, disk_errors, fsync_directory, make_private_directory, write_all

MARK_FILE = "made"


def make_marked(directory: Path) -> None:
    """Make a new directory with its mark. Raises StoreError: it is there already, or the disk refuses."""
    if directory.exists():
        raise StoreError(f"{directory}: is there already")
    with disk_errors(f"{directory}: making it"):
        make_private_directory(directory)
        _write_mark(directory)


def mark_again(directory: Path) -> None:
    """Make a directory, or a copy of one, the marked one from now on. Raises StoreError."""
    with disk_errors(f"{directory}: marking it"):
        make_private_directory(directory)
        (directory / MARK_FILE).unlink(missing_ok=True)
        _write_mark(directory)


def mark_problem(directory: Path) -> str:
    """What is wrong with a directory, or nothing if ``make_marked`` made this very one. Raises OSError."""
    mark = directory / MARK_FILE
    if not directory.is_dir():
        return "there is no such directory"
    try:
        with mark.open("rb") as file:
            is_it = file.read(64) == str(os.fstat(file.fileno()).st_ino).encode()
    except FileNotFoundError:
        return "is not the directory that was made here, or was emptied"
    return "" if is_it else "is a copy, which may be older than what was done since"


def _write_mark(directory: Path) -> None:
    descriptor = os.open(directory / MARK_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        write_all(descriptor, str(os.fstat(descriptor).st_ino).encode(), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fsync_directory(directory)
