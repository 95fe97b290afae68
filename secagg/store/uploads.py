"""One upload: a staging file that grows chunk by chunk, and a sidecar that says what it is to become.

The sidecar holds length, digest, progress and a CRC-32 of itself. Neither file is synced while an upload
runs: after a crash of the process both are as they were; after a power failure a staging file may hold zeros,
which the SHA-256 at the end finds, or the sidecar may be unreadable, which makes the upload unknown.
"""

from __future__ import annotations

import enum
import hashlib
import os
import struct
import threading
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from secagg.runtime.ports import UploadError
from secagg.store.files import FILE_MODE, disk_errors, write_all

_SIDECAR = struct.Struct(">QB32s")
_CRC = struct.Struct(">I")
_READ_BYTES = 1 << 20


class Progress(enum.IntEnum):
    """How far an upload is."""

    OPEN = 0
    CHECKED = 1
    """The staging file was complete, had the right digest and was durable: it may become the blob."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """Content of a sidecar."""

    length_bytes: int
    digest: bytes
    progress: Progress = Progress.OPEN


class Upload:
    """The files of one upload. Whoever calls a method holds ``lock``; ``users`` belongs to the store."""

    def __init__(self, staging: Path) -> None:
        self.staging = staging
        self.lock = threading.Lock()
        self.users = 0
        self.declared: Declaration | None = None
        self._sidecar = staging.with_name(staging.name + ".decl")
        self._committed = 0
        self._hash = hashlib.sha256()
        self._known = False

    def recall(self) -> Declaration | None:
        """What was declared, from memory or from the sidecar; None for an unknown upload."""
        if self.declared is None:
            self.declared = _read_sidecar(self._sidecar)
        return self.declared

    def begin(self, declared: Declaration) -> None:
        """Start with an empty staging file; it is there before the sidecar that vouches for it."""
        os.close(os.open(self.staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE))
        self._write_sidecar(declared)
        self.moved()

    def restart(self) -> None:
        """Throw away the bytes, keep the declaration."""
        if self.declared is not None:
            self.begin(replace(self.declared, progress=Progress.OPEN))

    def committed(self) -> int:
        """Bytes that are there. After a restart they are hashed again."""
        if not self._known:
            self._hash = hashlib.sha256()
            self._committed = 0
            try:
                descriptor = os.open(self.staging, os.O_RDONLY)
            except FileNotFoundError:
                return 0
            try:
                while piece := os.pread(descriptor, _READ_BYTES, self._committed):
                    self._hash.update(piece)
                    self._committed += len(piece)
            finally:
                os.close(descriptor)
            self._known = True
        return self._committed

    def append(self, data: memoryview) -> None:
        """Write ``data`` behind the bytes that are there."""
        at = self.committed()
        self._known = False  # an error below leaves a file of unknown length
        descriptor = os.open(self.staging, os.O_WRONLY | os.O_CREAT, FILE_MODE)
        try:
            write_all(descriptor, data, at)
        finally:
            os.close(descriptor)
        self._hash.update(data)
        self._committed = at + len(data)
        self._known = True

    def check(self) -> None:
        """Make the staging file durable once it has its length and digest.

        Raises:
            UploadError: it has not. With another digest (or too many bytes) it starts again at 0.
        """
        declared = self.recall()
        if declared is None:
            raise UploadError("unknown upload", 0)
        committed = self.committed()
        if committed < declared.length_bytes:
            raise UploadError("the upload is incomplete", committed)
        if committed > declared.length_bytes or self._hash.digest() != declared.digest:
            self.restart()
            raise UploadError("the bytes have another digest", 0)
        descriptor = os.open(self.staging, os.O_RDWR)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._write_sidecar(replace(declared, progress=Progress.CHECKED))

    def remove(self) -> None:
        """Remove both files, the sidecar first: staged bytes without it are nothing."""
        self._sidecar.unlink(missing_ok=True)
        self.staging.unlink(missing_ok=True)
        self.declared = None
        self.moved()

    def moved(self) -> None:
        """The staging file is another one now, or none."""
        self._known = False

    def _write_sidecar(self, declared: Declaration) -> None:
        self.declared = None  # until it is written
        body = _SIDECAR.pack(declared.length_bytes, declared.progress, declared.digest)
        descriptor = os.open(self._sidecar, os.O_WRONLY | os.O_CREAT, FILE_MODE)
        try:
            write_all(descriptor, body + _CRC.pack(zlib.crc32(body)), 0)
            os.ftruncate(descriptor, _SIDECAR.size + _CRC.size)
        finally:
            os.close(descriptor)
        self.declared = declared


def staged_bytes(directory: Path, token: str) -> int:
    """How long the staging file of an upload is, whoever writes it; 0 where there is none. Raises StoreError."""
    with disk_errors("looking for staged bytes"):
        try:
            return (directory / token).stat().st_size
        except FileNotFoundError:
            return 0


def _read_sidecar(path: Path) -> Declaration | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    body, crc = data[: _SIDECAR.size], data[_SIDECAR.size :]
    if len(body) != _SIDECAR.size or crc != _CRC.pack(zlib.crc32(body)):
        return None
    length_bytes, progress, digest = _SIDECAR.unpack(body)
    if progress not in (Progress.OPEN, Progress.CHECKED):
        return None
    return Declaration(length_bytes, digest, Progress(progress))
