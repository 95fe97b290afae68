"""Reading and writing small files that keys depend on.

``secagg.store`` has durable writes of its own: rooms of one floor do not import each other, and here every
failure is an ``IdentityFileError`` that names the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from secagg.identity.errors import FileRefusal, IdentityFileError

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644

_REFUSALS = {
    errno.ENOENT: FileRefusal.MISSING,
    errno.ENOTDIR: FileRefusal.MISSING,
    errno.EEXIST: FileRefusal.EXISTS,
    errno.ELOOP: FileRefusal.SYMLINK,  # what O_NOFOLLOW gives on Linux
    errno.EMLINK: FileRefusal.SYMLINK,  # and on FreeBSD
    errno.EISDIR: FileRefusal.NOT_A_FILE,
    errno.EACCES: FileRefusal.NOT_PERMITTED,
    errno.EPERM: FileRefusal.NOT_PERMITTED,
}


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into an ``IdentityFileError`` about ``path``."""
    try:
        yield
    except OSError as error:
        reason = _REFUSALS.get(error.errno or 0, FileRefusal.SYSTEM_ERROR)
        detail = "" if reason is not FileRefusal.SYSTEM_ERROR else error.strerror or type(error).__name__
        raise IdentityFileError(path, reason, detail) from error


def create_exclusively(path: Path, data: bytes, mode: int) -> None:
    """Create ``path`` with ``data``, durably; a name that is taken, also by a dangling link, is refused.

    A file whose writing failed is removed again.
    """
    _refuse_nul(path)
    with file_errors(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, mode)
        try:
            os.fchmod(descriptor, mode)  # whatever the umask is
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        _fsync_directory(path.parent)


def replace_durably(path: Path, data: bytes, mode: int) -> None:
    """Replace ``path``: afterwards, and after any crash, it holds the old bytes or the new ones.

    There must be one writer (``exclusive``); a temporary file that a crash left behind is removed.
    """
    temporary = path.with_name(path.name + ".tmp")
    with file_errors(path):
        temporary.unlink(missing_ok=True)
    create_exclusively(temporary, data, mode)
    with file_errors(path):
        os.replace(temporary, path)
        _fsync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Remove ``path`` if it is there."""
    with file_errors(path):
        path.unlink(missing_ok=True)
        _fsync_directory(path.parent)


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold ``directory`` for this process (``flock``); another waits until the block ends."""
    with file_errors(directory):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with file_errors(directory):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_private(path: Path, most_bytes: int) -> bytes:
    """The content of a file that is ours alone: our own, no symbolic link, no access for group and others."""

    def check(status: os.stat_result) -> None:
        _check_owner(path, status)
        if status.st_mode & 0o077:
            found = f"mode {stat.S_IMODE(status.st_mode):04o}"
            raise IdentityFileError(path, FileRefusal.OPEN_PERMISSIONS, found, f"fix it with: chmod 600 {path}")

    return _read(path, most_bytes, os.O_NOFOLLOW, check)


def read_own(path: Path, most_bytes: int) -> bytes:
    """The content of a public file that only we can change: our own, no symbolic link."""

    def check(status: os.stat_result) -> None:
        _check_owner(path, status)
        if status.st_mode & 0o022:
            found = f"mode {stat.S_IMODE(status.st_mode):04o}"
            raise IdentityFileError(path, FileRefusal.OPEN_PERMISSIONS, found, f"fix it with: chmod go-w {path}")

    return _read(path, most_bytes, os.O_NOFOLLOW, check)


def read_public(path: Path, most_bytes: int) -> bytes:
    """The content of any regular file; what it says is checked by other means."""
    return _read(path, most_bytes, 0, lambda _: None)


def _read(path: Path, most_bytes: int, flags: int, check: Callable[[os.stat_result], None]) -> bytes:
    _refuse_nul(path)
    with file_errors(path):
        # O_NONBLOCK: a pipe of this name must not make us wait. All checks are on the open file, not on its name.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise IdentityFileError(path, FileRefusal.NOT_A_FILE)
            check(status)
            return read_bounded(path, descriptor, most_bytes)
        finally:
            os.close(descriptor)


def read_bounded(name: Path, descriptor: int, most_bytes: int) -> bytes:
    """All that ``descriptor`` gives, unless it is more than ``most_bytes``; errors are about ``name``."""
    pieces, length = [], 0
    while piece := os.read(descriptor, min(1 << 20, most_bytes + 1 - length)):
        pieces.append(piece)
        length += len(piece)
        if length > most_bytes:
            raise IdentityFileError(name, FileRefusal.TOO_LARGE, f"more than {most_bytes} bytes")
    return b"".join(pieces)


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        found = f"user {status.st_uid}, we are user {os.geteuid()}"
        raise IdentityFileError(path, FileRefusal.WRONG_OWNER, found, f"fix it with: chown {os.geteuid()} {path}")


def _refuse_nul(path: Path) -> None:
    if "\0" in str(path):
        raise IdentityFileError(str(path).replace("\0", "\\0"), FileRefusal.MISSING, "a NUL in the name")


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
