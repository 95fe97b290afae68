"""What an ingest process does with the bytes of uploads: stage, make durable, report, add up.

It knows nothing by itself. What a token stands for it asks the coordinator, whose word it is that an upload counts;
after a crash it asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import SignedReceipt
from secagg.runtime.limb_sums import SessionSum
from secagg.runtime.partial_sum import HashedUpload, PartialSum
from secagg.runtime.ports import BlobStore, StoreError, UploadError
from secagg.services.uploads import MAX_CHUNK_BYTES, Chunk


@dataclass(frozen=True, slots=True)
class Described:
    """What a token stands for: an upload that may come to count."""

    session: bytes
    lanes: int
    index: int
    item: HashedUpload
    most: int

    @property
    def length_bytes(self) -> int:
        """Of the upload."""
        return 8 * self.lanes


@dataclass(frozen=True, slots=True)
class Counted:
    """What a token stands for: an upload that counts already."""

    length_bytes: int


class Office(Protocol):
    """The coordinator, as an ingest process needs it."""

    async def describe(self, token: str) -> Described | Counted:
        """What a token stands for. Raises RemoteProtocolError: unknown, or it no longer comes to count."""
        ...

    async def count(self, token: str) -> tuple[SignedReceipt, bool]:
        """Count an upload whose blob is durable; whether it is to be added up here. Raises RemoteProtocolError."""
        ...


class IngestDesk:
    """Takes chunks, finishes uploads, adds them up; memory does not depend on how many there were.

    Args:
        blobs: the coordinator's, with staging files of this process.
        office: the coordinator.
        report: told of failures of background work: event, session, reason.
    """

    def __init__(self, blobs: BlobStore, office: Office, report: Callable[[str, bytes, str], None]) -> None:
        self._blobs = blobs
        self._office = office
        self._report = report
        self._open: dict[str, Described] = {}
        self._sums: dict[bytes, SessionSum] = {}
        self._adder: asyncio.Task[None] | None = None
        self._swept = asyncio.Event()

    async def sweep(self, open_tokens: set[str]) -> None:
        """Throw away what is staged for other uploads than these; no chunk is taken before."""
        await asyncio.to_thread(self._blobs.sweep_uploads, open_tokens)
        self._swept.set()

    async def write(self, token: str, chunk: Chunk) -> int:
        """See ``TakesChunks``."""
        described = await self._describe(token)
        if len(chunk.data) > MAX_CHUNK_BYTES:
            raise RemoteProtocolError(RejectReason.CHUNK_TOO_LARGE, f"data: more than {MAX_CHUNK_BYTES} bytes")
        if isinstance(described, Counted):
            return described.length_bytes
        return await asyncio.to_thread(self._blobs.write_chunk, token, chunk.offset_bytes, chunk.data, chunk.crc32)

    async def finish(self, token: str) -> SignedReceipt:
        """See ``TakesChunks``."""
        described = await self._describe(token)
        if isinstance(described, Counted):
            receipt, _ = await self._office.count(token)
            return receipt
        try:
            await asyncio.to_thread(self._blobs.finish_upload, token)
        except UploadError:
            if isinstance(await self._office.describe(token), Described):
                raise
            # Another call finished it meanwhile.
        receipt, adds = await self._office.count(token)
        if adds:
            self._add(described)
        await self.discard(token)
        return receipt

    async def discard(self, token: str) -> None:
        """What is staged for an upload is not needed any more."""
        self._open.pop(token, None)
        # If the disk refuses, the bytes wait for the next start; nobody's call fails for that.
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self._blobs.discard_upload, token)

    async def hand_over(self, session: bytes) -> PartialSum | None:
        """What was added up of a session, which is forgotten. Raises StoreError, OSError."""
        running = self._sums.pop(session, None)
        return None if running is None else await asyncio.to_thread(running.hand_over)

    async def forget(self, session: bytes) -> None:
        """Forget what was added up of a session, and what was said of its uploads."""
        for token in [token for token, described in self._open.items() if described.session == session]:
            await self.discard(token)
        running = self._sums.pop(session, None)
        if running is not None:
            await asyncio.to_thread(running.forget)

    async def close(self) -> None:
        """Stop adding."""
        for running in self._sums.values():
            running.stop()
        if self._adder is not None:
            await asyncio.gather(self._adder, return_exceptions=True)

    async def _describe(self, token: str) -> Described | Counted:
        await self._swept.wait()
        known = self._open.get(token)
        if known is not None:
            return known
        described = await self._office.describe(token)
        if isinstance(described, Described):
            await asyncio.to_thread(self._blobs.begin_upload, token, described.length_bytes, described.item.upload)
            self._open[token] = described
        return described

    def _add(self, described: Described) -> None:
        running = self._sums.get(described.session)
        if running is None:
            running = self._sums[described.session] = SessionSum(self._blobs, described.lanes)
        running.offer(described.index, described.item, described.most)
        if self._adder is None or self._adder.done():
            self._adder = asyncio.ensure_future(self._add_offered())

    async def _add_offered(self) -> None:
        while waiting := [item for item in self._sums.items() if item[1].has_offered]:
            for session, running in waiting:
                try:
                    await asyncio.to_thread(running.add_offered)
                except (StoreError, OSError) as error:
                    self._report("limb_sum_delayed", session, type(error).__name__)
