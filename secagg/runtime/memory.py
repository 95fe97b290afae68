"""The ports in memory, for tests and simulations: the same semantics as on disk, and nothing survives.

``MemorySessionStore`` belongs to one event loop; ``MemoryBlobStore`` and ``MemoryWitnessState`` may be called from any
thread.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from secagg.runtime.ports import (
    Commit,
    SessionKey,
    StoredSession,
    StoreError,
    UploadError,
    VersionConflictError,
)

_SESSION_BYTES = 16
_DIGEST_BYTES = 32
_LANE_BYTES = 8
_TOKEN = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class _Session:
    version: int = 0
    state: bytes = b""
    rows: dict[int, bytes] = field(default_factory=dict)
    effects: dict[int, bytes] = field(default_factory=dict)


class MemorySessionStore:
    """A ``SessionStore`` that forgets everything with the process."""

    def __init__(self) -> None:
        self._sessions: dict[SessionKey, _Session] = {}
        self._identifiers = itertools.count(1)

    async def sessions(self) -> Sequence[SessionKey]:
        """See ``SessionStore.sessions``."""
        return list(self._sessions)

    async def load(self, session: SessionKey) -> StoredSession | None:
        """See ``SessionStore.load``."""
        stored = self._sessions.get(session)
        if stored is None:
            return None
        return StoredSession(
            stored.version, stored.state, dict(sorted(stored.rows.items())), list(stored.effects.items())
        )

    async def commit(self, session: SessionKey, expected_version: int, commit: Commit) -> Sequence[int]:
        """See ``SessionStore.commit``."""
        if len(session) != _SESSION_BYTES:
            raise StoreError(f"session: expected {_SESSION_BYTES} bytes, got {len(session)}")
        if any(not 0 <= row < 1 << 63 for row in commit.rows):
            raise StoreError("row: expected an index from 0 to 2^63 - 1")
        stored = self._sessions.get(session, _Session())
        if stored.version != expected_version:
            raise VersionConflictError(
                f"session {session.hex()}: version {stored.version}, expected {expected_version}"
            )
        self._sessions[session] = stored
        stored.version += 1
        stored.state = commit.state
        stored.rows.update(commit.rows)
        effects = {next(self._identifiers): effect for effect in commit.effects}
        stored.effects.update(effects)
        return list(effects)

    async def effect_done(self, session: SessionKey, effect: int) -> None:
        """Forget a delivered effect; one that is unknown or belongs to another session stays as it is."""
        if session in self._sessions:
            self._sessions[session].effects.pop(effect, None)


@dataclass(slots=True)
class _Upload:
    length_bytes: int
    digest: bytes
    staged: bytearray = field(default_factory=bytearray)
    finished: bool = False


class MemoryBlobStore:
    """A ``BlobStore`` in a dictionary."""

    def __init__(self) -> None:
        self._blobs: dict[bytes, bytes] = {}
        self._uploads: dict[str, _Upload] = {}
        self._lock = threading.Lock()

    def begin_upload(self, token: str, length_bytes: int, digest: bytes) -> int:
        """See ``BlobStore.begin_upload``."""
        if length_bytes < 0 or len(digest) != _DIGEST_BYTES:
            raise UploadError(f"an upload has a length and {_DIGEST_BYTES} bytes of digest", 0)
        _check_token(token)
        with self._lock:
            upload = self._uploads.setdefault(token, _Upload(length_bytes, digest))
            committed = self._committed(upload)
            if (upload.length_bytes, upload.digest) != (length_bytes, digest):
                raise UploadError("the upload was begun with another length or digest", committed)
            return committed

    def write_chunk(self, token: str, offset_bytes: int, data: bytes | memoryview, crc32: int) -> int:
        """See ``BlobStore.write_chunk``; of a chunk that is there in part the rest is appended."""
        with self._lock:
            upload = self._known(token)
            committed = self._committed(upload)
            if zlib.crc32(data) != crc32:
                raise UploadError("the chunk has another CRC-32", committed)
            if not 0 <= offset_bytes <= committed:
                raise UploadError("the chunk leaves a gap", committed)
            end = offset_bytes + len(data)
            if end > upload.length_bytes:
                raise UploadError("the chunk goes beyond the declared length", committed)
            if end > committed:
                upload.staged += data[committed - offset_bytes :]
            return max(end, committed)

    def finish_upload(self, token: str) -> bytes:
        """See ``BlobStore.finish_upload``; a finished upload is finished again with the same answer."""
        with self._lock:
            upload = self._known(token)
            committed = self._committed(upload)
            if committed < upload.length_bytes:
                raise UploadError("the upload is incomplete", committed)
            if not self._complete(upload):
                if hashlib.sha256(upload.staged).digest() != upload.digest:
                    upload.staged.clear()
                    raise UploadError("the bytes have another digest", 0)
                self._blobs[upload.digest] = bytes(upload.staged)
                upload.staged.clear()
                upload.finished = True
            return upload.digest

    def discard_upload(self, token: str) -> None:
        """Forget the upload ``token``, finished or not; a blob that it became stays."""
        _check_token(token)
        with self._lock:
            self._uploads.pop(token, None)

    def sweep_uploads(self, keep: set[str]) -> int:
        """Discard every upload whose token is not in ``keep``; returns how many those were."""
        with self._lock:
            swept = self._uploads.keys() - keep
            for token in swept:
                del self._uploads[token]
            return len(swept)

    def read_into(self, digest: bytes, offset_bytes: int, out: npt.NDArray[np.uint64]) -> None:
        """See ``BlobStore.read_into``."""
        if offset_bytes < 0 or offset_bytes % _LANE_BYTES:
            raise StoreError(f"offset {offset_bytes}: expected a multiple of {_LANE_BYTES}")
        if not (out.flags.c_contiguous and out.flags.writeable and out.dtype == np.uint64):
            raise StoreError("out: expected a writable C-contiguous array of uint64")
        data = self._blob(digest)
        if offset_bytes + out.nbytes > len(data):
            raise StoreError(f"blob {digest.hex()}: ends at {len(data)} bytes")
        lanes = np.frombuffer(data, dtype="<u8", count=out.size, offset=offset_bytes)
        out.reshape(-1)[:] = lanes

    def put(self, data: bytes | memoryview) -> bytes:
        """See ``BlobStore.put``."""
        digest = hashlib.sha256(data).digest()
        with self._lock:
            self._blobs[digest] = bytes(data)
        return digest

    def read(self, digest: bytes, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``BlobStore.read``."""
        if offset_bytes < 0 or length_bytes < 0:
            raise StoreError(f"offset {offset_bytes}, length {length_bytes}: expected no negative number")
        data = self._blob(digest)[offset_bytes : offset_bytes + length_bytes]
        if len(data) != length_bytes:
            raise StoreError(f"blob {digest.hex()}: ends at {offset_bytes + len(data)} bytes")
        return data

    def length_bytes(self, digest: bytes) -> int:
        """See ``BlobStore.length_bytes``."""
        return len(self._blob(digest))

    def get(self, digest: bytes) -> bytes:
        """See ``BlobStore.get``."""
        return self._blob(digest)

    def has(self, digest: bytes) -> bool:
        """See ``BlobStore.has``."""
        _check_digest(digest)
        return digest in self._blobs

    def delete(self, digest: bytes) -> None:
        """See ``BlobStore.delete``."""
        _check_digest(digest)
        with self._lock:
            self._blobs.pop(digest, None)

    def _blob(self, digest: bytes) -> bytes:
        _check_digest(digest)
        data = self._blobs.get(digest)
        if data is None:
            raise StoreError(f"reading blob {digest.hex()}: there is none")
        return data

    def _known(self, token: str) -> _Upload:
        _check_token(token)
        upload = self._uploads.get(token)
        if upload is None:
            raise UploadError("unknown upload", 0)
        return upload

    def _complete(self, upload: _Upload) -> bool:
        return upload.finished and not upload.staged and upload.digest in self._blobs

    def _committed(self, upload: _Upload) -> int:
        return upload.length_bytes if self._complete(upload) else len(upload.staged)


class MemoryRecord:
    """A ``RecordPort`` in a dictionary: content by session and name."""

    def __init__(self) -> None:
        self.files: dict[tuple[SessionKey, str], bytes] = {}

    def write(self, session: SessionKey, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """See ``RecordPort.write``."""
        self.files[session, name] = b"".join(pieces)


class MemoryWitnessState:
    """A ``WitnessState`` that lasts as long as this object."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._notes: dict[str, bytes] = {}

    def latest(self, origin: str) -> bytes | None:
        """See ``WitnessState``."""
        with self._mutex:
            return self._notes.get(origin)

    def advance(self, origin: str, expected: bytes | None, new: bytes) -> None:
        """See ``WitnessState``."""
        with self._mutex:
            if self._notes.get(origin) != expected:
                raise VersionConflictError(f"{origin}: another checkpoint was cosigned first")
            self._notes[origin] = new


def _check_token(token: str) -> None:
    if not _TOKEN.fullmatch(token):
        raise UploadError("an upload token is 32 hexadecimal digits", 0)


def _check_digest(digest: bytes) -> None:
    if len(digest) != _DIGEST_BYTES:
        raise StoreError(f"a blob's name has {_DIGEST_BYTES} bytes, not {len(digest)}")
