"""Uploads of masked inputs: which token belongs to which accepted header."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass

from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import Contribution, SignedReceipt
from secagg.protocol.pairwise.coordinator_states import UploadStaged
from secagg.runtime.host import SessionHost
from secagg.runtime.ports import BlobStore, StoreError, UploadError
from secagg.transcript.statements import ContributionHeader, Signed

PREFERRED_CHUNK_BYTES = 1 << 20
MAX_CHUNK_BYTES = 1 << 20
_CHUNKS_BYTES = 32 << 20
_CHUNK_UNIT_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Upload:
    """One announced upload."""

    host: SessionHost
    signed: Signed
    header: ContributionHeader


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of an upload."""

    offset_bytes: int
    data: bytes
    crc32: int


def preferred_chunk_bytes(uploads: int) -> int:
    """The length of chunks to ask for while this many uploads may run at once: 1 MiB for up to 32, then less.

    Larger chunks are faster (1 MiB by 10 to 20 % over 256 KiB), but each lies in memory about four times until it is
    written: with 1 MiB for everybody 1000 uploads of 400 kB at once took 600 MiB.
    """
    share = _CHUNKS_BYTES // max(1, uploads) // _CHUNK_UNIT_BYTES * _CHUNK_UNIT_BYTES
    return min(max(share, _CHUNK_UNIT_BYTES), PREFERRED_CHUNK_BYTES)


class UploadDesk:
    """Begins, continues and finishes uploads.

    A token is derived from the signed header and a key that only the coordinator has: it cannot be guessed, and
    announcing the same header after a restart gives the same token again.

    Staged bytes are kept, also over restarts, while their session still takes uploads; they go once the upload counts
    or the session has ended.
    """

    def __init__(self, blobs: BlobStore, key: Secret) -> None:
        self._blobs = blobs
        self._key = key
        self._uploads: dict[str, Upload] = {}
        self._closers: dict[SessionHost, asyncio.Task[None]] = {}

    async def sweep(self, hosts: Sequence[SessionHost]) -> None:
        """At start: throw away what was staged for anything but the open uploads of these sessions."""
        keep = {self._token(signed) for host in hosts for signed in host.open_uploads()}
        await asyncio.to_thread(self._blobs.sweep_uploads, keep)

    async def close(self) -> None:
        """Stop waiting for sessions to end."""
        closers = list(self._closers.values())
        for closer in closers:
            closer.cancel()
        await asyncio.gather(*closers, return_exceptions=True)

    async def begin(self, host: SessionHost, message: Contribution) -> tuple[str, int, SignedReceipt | None]:
        """Accept a header; its token, the bytes that are there, and the receipt if all are.

        Raises:
            ProtocolError: the header is refused, or what it announces can no longer come to count.
        """
        await host.submit(message)
        header = message.signed.statement
        if not isinstance(header, ContributionHeader):
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "signed: not a contribution header")
        token = self._token(message.signed)
        if host.is_staged(header.identity):
            return token, host.session.upload_bytes, host.receipt(message.signed)
        host.check_collecting()
        self._uploads[token] = Upload(host, message.signed, header)
        if host not in self._closers:
            self._closers[host] = asyncio.ensure_future(self._forget(host))
        length_bytes = host.session.upload_bytes
        committed = await asyncio.to_thread(self._blobs.begin_upload, token, length_bytes, header.upload)
        return token, committed, None

    async def write(self, token: str, chunk: Chunk) -> int:
        """Take one chunk; the number of bytes that are there now.

        Raises:
            RemoteProtocolError: unknown token, or a chunk that is too large.
            UploadError: wrong checksum or offset.
        """
        upload = self._find(token)
        if len(chunk.data) > MAX_CHUNK_BYTES:
            raise RemoteProtocolError(RejectReason.CHUNK_TOO_LARGE, f"data: more than {MAX_CHUNK_BYTES} bytes")
        if upload.host.is_staged(upload.header.identity):
            return upload.host.session.upload_bytes
        return await asyncio.to_thread(self._blobs.write_chunk, token, chunk.offset_bytes, chunk.data, chunk.crc32)

    async def write_all(self, token: str, chunks: AsyncIterable[Chunk]) -> None:
        """Take all chunks of a stream, in order."""
        async for chunk in chunks:
            await self.write(token, chunk)

    async def finish(self, token: str) -> SignedReceipt:
        """Make the upload durable and count it.

        Raises:
            UploadError: bytes are missing, or their digest is not the signed one.
        """
        upload = self._find(token)
        host, header = upload.host, upload.header
        if not host.is_staged(header.identity):
            try:
                await asyncio.to_thread(self._blobs.finish_upload, token)
            except UploadError:
                if not host.is_staged(header.identity):  # else another call finished it meanwhile
                    raise
        await host.submit(UploadStaged(header.identity, header.upload))
        await self._discard(token)
        return host.receipt(upload.signed)

    def _token(self, signed: Signed) -> str:
        return derive(self._key, Label.UPLOAD_TOKEN, signed.to_bytes(), length_bytes=16).expose().hex()

    async def _forget(self, host: SessionHost) -> None:
        """Once the session has ended, nothing that is staged for it can come to count."""
        await host.ended()
        for token in [token for token, upload in self._uploads.items() if upload.host is host]:
            del self._uploads[token]
            await self._discard(token)
        del self._closers[host]

    async def _discard(self, token: str) -> None:
        # If the disk refuses, the bytes wait for the next start; nobody's call fails for that.
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self._blobs.discard_upload, token)

    def _find(self, token: str) -> Upload:
        upload = self._uploads.get(token)
        if upload is None:
            raise RemoteProtocolError(RejectReason.UNKNOWN_UPLOAD, "token: announce the header again")
        return upload


async def chunks_of(first: Chunk, rest: AsyncIterator[tuple[bytes, int]]) -> AsyncIterator[Chunk]:
    """The chunks of a stream: the first says where it begins, each following one continues."""
    yield first
    offset_bytes = first.offset_bytes + len(first.data)
    async for data, crc32 in rest:
        yield Chunk(offset_bytes, data, crc32)
        offset_bytes += len(data)
