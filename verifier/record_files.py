"""Reading files that somebody else made: never more of one than it may have, and nothing but regular files.

A record is a directory that came over the network. A symbolic link in it could lead anywhere on the reader's
machine, so none is followed; a device or a pipe could block or never end, so neither is read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from verifier.checks import CheckFailedError, InputMissingError, Place

CHUNK_BYTES = 1 << 20
MAX_DEPTH = 12
"""A tile of a log that is as large as can be lies eleven names deep."""


class RecordFiles:
    """The files below one directory, by their paths with ``/``.

    ``prefix`` stands before a path wherever it is shown. Every method raises InputMissingError for what is not
    there, cannot be read or is no regular file.
    """

    __slots__ = ("_base", "_prefix", "_root")

    def __init__(self, root: Path, prefix: str = "") -> None:
        self._root = root
        self._prefix = prefix
        self._base = root

    def below(self, path: str) -> RecordFiles:
        """The files below one of its directories; what leads there is no link either."""
        files = RecordFiles(self._root / path, self.shown(path) + "/")
        files._base = self._base
        return files

    def shown(self, path: str) -> str:
        """The path as findings name it."""
        return self._prefix + path

    def place(self, path: str, line: int | None = None, field: str = "") -> Place:
        """A place in one of the files."""
        return Place(self.shown(path), line, field)

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """The file, for reading."""
        try:
            self._check_directories(path)
            # Not blocking, because opening a pipe would wait for a writer.
            descriptor = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise InputMissingError(self.place(path), "not a regular file")
                yield file
        except OSError as error:
            # The text of the error would name the path on this machine.
            raise InputMissingError(self.place(path), _reason_of(error)) from None

    def exists(self, path: str) -> bool:
        """Whether anything has this path."""
        return os.path.lexists(self._root / path)

    def size(self, path: str) -> int:
        """Length in bytes."""
        with self.open(path) as file:
            return os.fstat(file.fileno()).st_size

    def read(self, path: str, most_bytes: int) -> bytes:
        """The whole file.

        Raises:
            CheckFailedError: it is longer.
        """
        with self.open(path) as file:
            data = file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise CheckFailedError.at(self.place(path), f"longer than {most_bytes} bytes")
        return data

    def read_exactly(self, path: str, length_bytes: int) -> bytes:
        """The whole file, which must have this length.

        Raises:
            CheckFailedError: it has another one; no more than this is read.
        """
        with self.open(path) as file:
            found = os.fstat(file.fileno()).st_size
            # Asked first: memory for what is claimed is taken only where it is there.
            data = file.read(length_bytes + 1) if found == length_bytes else b""
        if len(data) != length_bytes:
            raise CheckFailedError.at(self.place(path), f"{found} bytes, expected {length_bytes}")
        return data

    def chunks(self, path: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The file in pieces of one length; the last may be shorter."""
        with self.open(path) as file:
            while data := file.read(chunk_bytes):
                yield data

    def digest(self, path: str, length_bytes: int) -> bytes:
        """SHA-256 of the file, which must have this length.

        Raises:
            CheckFailedError: it has another one. A file can claim more than anybody could read.
        """
        found = self.size(path)
        if found != length_bytes:
            raise CheckFailedError.at(self.place(path), f"{found} bytes, expected {length_bytes}")
        state = hashlib.sha256()
        for data in self.chunks(path):
            state.update(data)
        return state.digest()

    def lines(self, path: str, most_bytes: int) -> Iterator[tuple[int, bytes]]:
        """Number, from 1, and content of each line, without its newline.

        Raises:
            CheckFailedError: a line is empty, has no newline or is longer than ``most_bytes``.
        """
        with self.open(path) as file:
            number = 0
            while line := file.readline(most_bytes + 2):
                number += 1
                place = self.place(path, number)
                if len(line) > most_bytes + 1:
                    raise CheckFailedError.at(place, f"longer than {most_bytes} bytes")
                if not line.endswith(b"\n"):
                    raise CheckFailedError.at(place, "no newline at the end")
                if line == b"\n":
                    raise CheckFailedError.at(place, "empty")
                yield number, line[:-1]

    def walk(self, path: str, depth: int = MAX_DEPTH) -> Iterator[str]:
        """The paths of everything below a directory that is not itself a directory, in some order.

        What lies deeper than ``depth`` is named by the directory that it lies in.
        """
        try:
            with os.scandir(self._root / path) as entries:
                names = [(f"{path}/{entry.name}", entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            raise InputMissingError(self.place(path), _reason_of(error)) from None
        for name, is_directory in names:
            if is_directory and depth:
                yield from self.walk(name, depth - 1)
            else:
                yield name

    def _check_directories(self, path: str) -> None:
        """The directories on the way, of which ``O_NOFOLLOW`` says nothing, are no links either."""
        directory = self._base
        for part in (self._root / path).relative_to(self._base).parts[:-1]:
            directory /= part
            if directory.is_symlink():
                raise InputMissingError(self.place(path), "a directory on the way is a symbolic link")


def _reason_of(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "missing"
    return f"cannot be read: {error.strerror}" if error.strerror else "cannot be read"
