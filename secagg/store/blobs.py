"""Blobs in a directory: ``blobs/ab/<sha-256>``, complete and durable or not there at all.

A blob appears by ``rename`` of a file that was synced before; then the directory is synced. Bytes are written
once: the staging file of an upload becomes the blob. Ingest is bound by the disk: hashing runs at 2 GB/s and,
like writing, without the GIL. Measured: see ``benchmarks/store.py``.

The 256 shelves ``ab`` are made when the store is opened, so that a blob costs two flushes of the disk, its
own and its shelf's. A level ``ab/cd`` more would cost a third one for nearly every blob (each is the first on
one of 65,536 shelves); with a million blobs a shelf holds 4,096 names.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secagg.runtime.ports import StoreError, UploadError
from secagg.store.files import (
    DIRECTORY_MODE,
    FILE_MODE,
    disk_errors,
    fsync_directory,
    make_private_directory,
    write_all,
)
from secagg.store.uploads import Declaration, Progress, Upload

DIGEST_BYTES = 32
_LANE_BYTES = 8
_TOKEN = re.compile(r"[0-9a-f]{32}")
_STAGED = re.compile(r"([0-9a-f]{32})(\.decl)?")


class DirectoryBlobStore:
    """A ``BlobStore`` under ``root``; any thread calls.

    Several processes may share the blobs, each with a directory of its own for what is ``staging``: by default
    ``root``.

    Calls with different tokens never wait for each other. ``finish_upload`` may be repeated, also after a
    crash: the sidecar of a finished upload stays until ``discard_upload`` or ``sweep_uploads``, and until
    then its token is bound to one length and digest. A blob that is there already never shortens an upload:
    who does not hold the bytes cannot claim them.
    """

    def __init__(self, root: Path, staging: Path | None = None) -> None:
        self._blobs = root / "blobs"
        self._uploads_directory = (staging or root) / "uploads"
        self._put_directory = (staging or root) / "put"
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        self._put_names = itertools.count()
        self._putting: set[str] = set()
        with disk_errors(f"opening {root}"):
            for directory in (self._blobs, self._uploads_directory, self._put_directory):
                make_private_directory(directory)
            for shelf in range(256):
                (self._blobs / f"{shelf:02x}").mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            for directory in (self._blobs, root):
                fsync_directory(directory)

    def begin_upload(self, token: str, length_bytes: int, digest: bytes) -> int:
        """See ``BlobStore.begin_upload``."""
        if length_bytes < 0 or len(digest) != DIGEST_BYTES:
            raise UploadError(f"an upload has a length and {DIGEST_BYTES} bytes of digest", 0)
        with self._upload(token) as upload, disk_errors("beginning an upload"):
            declared = upload.recall()
            if declared is None:
                upload.begin(Declaration(length_bytes, digest))
                return 0
            committed = self._committed(upload, declared)
            if (declared.length_bytes, declared.digest) != (length_bytes, digest):
                raise UploadError("the upload was begun with another length or digest", committed)
            return committed

    def write_chunk(self, token: str, offset_bytes: int, data: bytes | memoryview, crc32: int) -> int:
        """See ``BlobStore.write_chunk``; of a chunk that is there in part the rest is appended."""
        view = memoryview(data).cast("B")
        with self._upload(token) as upload, disk_errors("writing a chunk"):
            declared = _known(upload)
            committed = self._committed(upload, declared)
            check_chunk(offset_bytes, view, crc32, committed, declared.length_bytes)
            end = offset_bytes + len(view)
            if end > committed:
                upload.append(view[committed - offset_bytes :])
            return max(end, committed)

    def finish_upload(self, token: str) -> bytes:
        """See ``BlobStore.finish_upload``; a finished upload is finished again with the same answer."""
        with self._upload(token) as upload, disk_errors("finishing an upload"):
            declared = _known(upload)
            path = self._path(declared.digest)
            if self._finished(upload, declared):
                fsync_directory(path.parent)
            else:
                upload.check()
                self._shelve(upload.staging, path)
                upload.moved()
            return declared.digest

    def discard_upload(self, token: str) -> None:
        """Forget the upload ``token``, finished or not; a blob that it became stays."""
        with self._upload(token) as upload, disk_errors("discarding an upload"):
            upload.remove()

    def sweep_uploads(self, keep: set[str]) -> int:
        """Discard every upload whose token is not in ``keep``, and what a crash left of ``put``.

        Returns:
            How many uploads were discarded.
        """
        with disk_errors("sweeping uploads"):
            matches = [_STAGED.fullmatch(name) for name in os.listdir(self._uploads_directory)]
            with self._lock:
                for name in set(os.listdir(self._put_directory)) - self._putting:
                    (self._put_directory / name).unlink(missing_ok=True)
        tokens = {match.group(1) for match in matches if match} - keep
        for token in tokens:
            self.discard_upload(token)
        return len(tokens)

    def read_into(self, digest: bytes, offset_bytes: int, out: npt.NDArray[np.uint64]) -> None:
        """See ``BlobStore.read_into``: straight from the page cache into ``out``, which is C-contiguous."""
        view = lanes_view(offset_bytes, out)
        with disk_errors(f"reading blob {digest.hex()}"):
            descriptor = os.open(self._path(digest), os.O_RDONLY)
            try:
                while view:
                    count = os.preadv(descriptor, [view], offset_bytes)
                    if count == 0:
                        raise StoreError(f"blob {digest.hex()}: ends at {offset_bytes} bytes")
                    view = view[count:]
                    offset_bytes += count
            finally:
                os.close(descriptor)
        if sys.byteorder == "big":
            out.byteswap(inplace=True)

    def read(self, digest: bytes, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``BlobStore.read``."""
        if offset_bytes < 0 or length_bytes < 0:
            raise StoreError(f"offset {offset_bytes}, length {length_bytes}: expected no negative number")
        with disk_errors(f"reading blob {digest.hex()}"):
            descriptor = os.open(self._path(digest), os.O_RDONLY)
            try:
                data = os.pread(descriptor, length_bytes, offset_bytes)
            finally:
                os.close(descriptor)
        if len(data) != length_bytes:
            raise StoreError(f"blob {digest.hex()}: ends at {offset_bytes + len(data)} bytes")
        return data

    def length_bytes(self, digest: bytes) -> int:
        """See ``BlobStore.length_bytes``."""
        with disk_errors(f"looking for blob {digest.hex()}"):
            return self._path(digest).stat().st_size

    def put(self, data: bytes | memoryview) -> bytes:
        """See ``BlobStore.put``."""
        digest = hashlib.sha256(data).digest()
        path = self._path(digest)
        with disk_errors("storing a blob"):
            if path.exists():
                fsync_directory(path.parent)
                return digest
            with self._lock:
                name = f"{os.getpid()}-{next(self._put_names)}"
                self._putting.add(name)
            temporary = self._put_directory / name
            try:
                self._write_durably(temporary, memoryview(data).cast("B"))
                self._shelve(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
                with self._lock:
                    self._putting.discard(name)
        return digest

    def get(self, digest: bytes) -> bytes:
        """See ``BlobStore.get``; what comes back was hashed again."""
        with disk_errors(f"reading blob {digest.hex()}"):
            data = self._path(digest).read_bytes()
        if hashlib.sha256(data).digest() != digest:
            raise StoreError(f"blob {digest.hex()}: the disk holds other bytes")
        return data

    def has(self, digest: bytes) -> bool:
        """See ``BlobStore.has``."""
        with disk_errors(f"looking for blob {digest.hex()}"):
            return self._path(digest).exists()

    def delete(self, digest: bytes) -> None:
        """See ``BlobStore.delete``; after a power failure the blob may be back."""
        with disk_errors(f"deleting blob {digest.hex()}"):
            self._path(digest).unlink(missing_ok=True)

    @contextmanager
    def _upload(self, token: str) -> Iterator[Upload]:
        """The upload ``token``, for this thread alone. A finished one is not kept in memory."""
        if not _TOKEN.fullmatch(token):
            raise UploadError("an upload token is 32 hexadecimal digits", 0)
        with self._lock:
            upload = self._uploads.get(token)
            if upload is None:
                upload = self._uploads[token] = Upload(self._uploads_directory / token)
            upload.users += 1
        try:
            with upload.lock:
                yield upload
        finally:
            with self._lock:
                upload.users -= 1
                open_still = upload.declared is not None and upload.declared.progress is Progress.OPEN
                if upload.users == 0 and not open_still:
                    del self._uploads[token]

    def _path(self, digest: bytes) -> Path:
        if len(digest) != DIGEST_BYTES:
            raise StoreError(f"a blob's name has {DIGEST_BYTES} bytes, not {len(digest)}")
        name = digest.hex()
        return self._blobs / name[:2] / name

    def _finished(self, upload: Upload, declared: Declaration) -> bool:
        """Whether this very upload became the blob (a blob of the same digest alone proves nothing)."""
        return (
            declared.progress is Progress.CHECKED
            and not upload.staging.exists()
            and self._path(declared.digest).exists()
        )

    def _committed(self, upload: Upload, declared: Declaration) -> int:
        if self._finished(upload, declared):
            return declared.length_bytes
        return min(upload.committed(), declared.length_bytes)

    @staticmethod
    def _write_durably(path: Path, view: memoryview) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
        try:
            write_all(descriptor, view, 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    def _shelve(source: Path, path: Path) -> None:
        """Give the synced file ``source`` its final name, durably."""
        source.rename(path)
        fsync_directory(path.parent)


def _known(upload: Upload) -> Declaration:
    declared = upload.recall()
    if declared is None:
        raise UploadError("unknown upload", 0)
    return declared


def check_chunk(offset_bytes: int, view: memoryview, crc32: int, committed: int, length_bytes: int) -> None:
    """The rules for a chunk, in order: checksum, no gap, not beyond the declared length."""
    if zlib.crc32(view) != crc32:
        raise UploadError("the chunk has another CRC-32", committed)
    if not 0 <= offset_bytes <= committed:
        raise UploadError("the chunk leaves a gap", committed)
    if offset_bytes + len(view) > length_bytes:
        raise UploadError("the chunk goes beyond the declared length", committed)


def lanes_view(offset_bytes: int, out: npt.NDArray[np.uint64]) -> memoryview:
    """The bytes of ``out``, writable; lanes are little-endian in a blob."""
    if offset_bytes < 0 or offset_bytes % _LANE_BYTES:
        raise StoreError(f"offset {offset_bytes}: expected a multiple of {_LANE_BYTES}")
    if not (out.flags.c_contiguous and out.flags.writeable and out.dtype == np.uint64):
        raise StoreError("out: expected a writable C-contiguous array of uint64")
    return out.reshape(-1).view(np.uint8).data
