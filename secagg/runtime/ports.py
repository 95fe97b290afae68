"""The ports: what the driver needs from storage, clock and log, said once for every implementation.

A session is stored as one small state, one row for each client and a queue of effects that are not delivered
yet. A commit writes all three in one transaction under a compare-and-set on the version, so that nobody can see
an effect whose cause is not durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from secagg.transcript.evidence import LogEvidence

SessionKey = bytes
"""Identifier of a session in a store: 16 bytes."""


class StoreError(Exception):
    """Storage failed or refuses; nothing of the call is visible afterwards unless it was acknowledged."""


class VersionConflictError(StoreError):
    """Another commit came first; the caller's state is stale."""


class StaleLogError(StoreError):
    """The files of a log are older than, or differ from, what was signed or shown before: going on would fork it."""


class StaleStoreError(StoreError):
    """The store was restored from an old copy: its sessions must not be resumed."""


class UploadError(Exception):
    """An upload chunk does not fit. ``committed_bytes`` says where to go on."""

    def __init__(self, reason: str, committed_bytes: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.committed_bytes = committed_bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """What one step changes: the state, the rows it touched, the effects it asks for."""

    state: bytes
    rows: Mapping[int, bytes] = field(default_factory=dict)
    effects: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One session as it was last committed; ``effects`` are those not yet marked done, oldest first."""

    version: int
    state: bytes
    rows: Mapping[int, bytes]
    effects: Sequence[tuple[int, bytes]]


class SessionStore(Protocol):
    """Durable sessions. Every method returns only when what it says is on disk."""

    async def sessions(self) -> Sequence[SessionKey]:
        """All known sessions, in order of creation."""
        ...

    async def load(self, session: SessionKey) -> StoredSession | None:
        """The last committed content of ``session``, or None."""
        ...

    async def commit(self, session: SessionKey, expected_version: int, commit: Commit) -> Sequence[int]:
        """Store ``commit`` as version ``expected_version + 1`` (0 creates the session).

        Returns:
            The identifiers of the stored effects, in order.

        Raises:
            VersionConflictError: the stored version is not ``expected_version``; nothing was written.
        """
        ...

    async def effect_done(self, session: SessionKey, effect: int) -> None:
        """Forget a delivered effect."""
        ...


class LogPort(Protocol):
    """The log of a coordinator. Until it has taken an entry, nobody may see what follows from it."""

    async def append(self, entries: Sequence[bytes]) -> int:
        """Put those of ``entries`` at the end, in order, that are not in the log yet.

        Returns:
            The index of the last of ``entries``, once a cosigned checkpoint covers it and is published.

        Raises:
            StoreError: the log takes nothing any more.
        """
        ...

    @property
    def size(self) -> int:
        """How many entries the latest published checkpoint covers."""
        ...

    def evidence(self, start: int) -> LogEvidence:
        """Everything from index ``start`` on, under the latest published checkpoint."""
        ...

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        """Proof that the log under the latest published checkpoint continues that of ``old_size``, up to ``size``."""
        ...


class RecordPort(Protocol):
    """Where the files of sessions are published, beside the log."""

    def write(self, session: SessionKey, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Make ``pieces`` the content of a session's file, durably and at once; ``name`` may be ``folder/file``.

        Raises:
            StoreError: the disk refuses.
        """
        ...


class BlobStore(Protocol):
    """Content-addressed bytes: the name of a blob is its SHA-256."""

    def begin_upload(self, token: str, length_bytes: int, digest: bytes) -> int:
        """Open or resume the upload ``token``; returns how many bytes are there already.

        Raises:
            UploadError: ``token`` was begun before with another length or digest.
        """
        ...

    def write_chunk(self, token: str, offset_bytes: int, data: bytes | memoryview, crc32: int) -> int:
        """Append ``data`` at ``offset_bytes``; a chunk that is already there is acknowledged again.

        Returns:
            The number of bytes now there (not durable before ``finish_upload``).

        Raises:
            UploadError: unknown token, wrong checksum, a gap, or more than the declared length.
        """
        ...

    def finish_upload(self, token: str) -> bytes:
        """Check length and SHA-256, make the blob durable; returns the digest, again if it is called again.

        Raises:
            UploadError: the bytes are incomplete or have another digest (then the upload starts again at 0).
        """
        ...

    def discard_upload(self, token: str) -> None:
        """Forget the upload ``token``, finished or not, known or not; a blob that it became stays."""
        ...

    def sweep_uploads(self, keep: set[str]) -> int:
        """Discard every upload whose token is not in ``keep``; returns how many those were."""
        ...

    def read_into(self, digest: bytes, offset_bytes: int, out: npt.NDArray[np.uint64]) -> None:
        """Fill ``out`` from the blob, starting at ``offset_bytes`` (a multiple of 8)."""
        ...

    def read(self, digest: bytes, offset_bytes: int, length_bytes: int) -> bytes:
        """A part of a blob. Raises StoreError if there is no such blob or it is shorter."""
        ...

    def length_bytes(self, digest: bytes) -> int:
        """Length of a blob. Raises StoreError if there is none."""
        ...

    def put(self, data: bytes | memoryview) -> bytes:
        """Store ``data`` durably; returns its digest."""
        ...

    def get(self, digest: bytes) -> bytes:
        """The whole blob. Raises StoreError if there is none."""
        ...

    def has(self, digest: bytes) -> bool:
        """Whether the blob is there."""
        ...

    def delete(self, digest: bytes) -> None:
        """Remove the blob if it is there."""
        ...
