"""Uploads of masked inputs: which token belongs to which accepted header."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import Contribution, SignedReceipt
from secagg.protocol.pairwise.coordinator_states import UploadStaged
from secagg.runtime.host import SessionHost
from secagg.runtime.ports import BlobStore
from secagg.transcript.statements import ContributionHeader, Signed

PREFERRED_CHUNK_BYTES = 1 << 20
MAX_CHUNK_BYTES = 1 << 20


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


class UploadDesk:
    """Begins, continues and finishes uploads.

    A token is derived from the signed header and a key that only the coordinator has: it cannot be guessed, and
    announcing the same header after a restart gives the same token again.
    """

    def __init__(self, blobs: BlobStore, key: Secret) -> None:
        self._blobs = blobs
        self._key = key
        self._uploads: dict[str, Upload] = {}

    async def begin(self, host: SessionHost, message: Contribution) -> tuple[str, int, SignedReceipt | None]:
        """Accept a header; its token, the bytes that are there, and the receipt if all are.

        Raises:
            ProtocolError: the header is refused.
        """
        await host.submit(message)
        header = message.signed.statement
        if not isinstance(header, ContributionHeader):
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "signed: not a contribution header")
        token = derive(self._key, Label.UPLOAD_TOKEN, message.signed.to_bytes(), length_bytes=16).expose().hex()
        if host.is_staged(header.identity):
            return token, host.session.upload_bytes, host.receipt(message.signed)
        self._uploads[token] = Upload(host, message.signed, header)
        length_bytes = host.session.upload_bytes
        committed = await asyncio.to_thread(self._blobs.begin_upload, token, length_bytes, header.upload)
        return token, committed, None

    async def write(self, token: str, chunk: Chunk) -> int:
        """Take one chunk; the number of bytes that are there now.

        Raises:
            RemoteProtocolError: unknown token, or a chunk that is too large.
            UploadError: wrong checksum or offset.
        """
        self._find(token)
        if len(chunk.data) > MAX_CHUNK_BYTES:
            raise RemoteProtocolError(RejectReason.CHUNK_TOO_LARGE, f"data: more than {MAX_CHUNK_BYTES} bytes")
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
        if not upload.host.is_staged(upload.header.identity):
            digest = await asyncio.to_thread(self._blobs.finish_upload, token)
            await upload.host.submit(UploadStaged(upload.header.identity, digest))
        return upload.host.receipt(upload.signed)

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
