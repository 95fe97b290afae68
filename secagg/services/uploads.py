"""Uploads of masked inputs: which token belongs to which accepted header."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from secagg.crypto.kdf import derive
from secagg.crypto.labels import Label
from secagg.crypto.secret import Secret
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.messages import Contribution, SignedReceipt
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.rows import UploadStaged
from secagg.runtime.hosts import one_shot, pairwise
from secagg.runtime.ports import BlobStore, StoreError, UploadError
from secagg.runtime.session_host import AnyHost
from secagg.transcript.statements import ContributionHeader, OneShotHeader, Signed

PREFERRED_CHUNK_BYTES = 1 << 20
MAX_CHUNK_BYTES = 1 << 20
_CHUNKS_BYTES = 32 << 20
_CHUNK_UNIT_BYTES = 64 << 10
_UNDER_WAY_S = 60.0


@dataclass(slots=True)
class Upload:
    """One announced upload. ``begun``: bytes of it may be staged here."""

    host: AnyHost
    signed: Signed
    header: ContributionHeader | OneShotHeader
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where to send the bytes of an upload: another port of this machine, where so many have arrived."""

    port: int
    committed_bytes: int


class Routes(Protocol):
    """The processes beside this one that take the bytes of uploads."""

    def route(self, token: str) -> Route | None:
        """Which of them is to take this upload; None for this process. The same one again, as long as it is there."""
        ...

    def discard(self, token: str) -> None:
        """What may be staged there for an upload is not needed any more."""
        ...

    def forget(self, session: bytes) -> None:
        """Nor is what was added up of a session."""
        ...


class NoRoutes:
    """This process takes everything."""

    def route(self, token: str) -> Route | None:
        """This process."""
        return None

    def discard(self, token: str) -> None:
        """There is nothing."""

    def forget(self, session: bytes) -> None:
        """There is nothing."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of an upload."""

    offset_bytes: int
    data: bytes
    crc32: int


def preferred_chunk_bytes(uploads: int) -> int:
    """The length of chunks to ask for while this many uploads run at once: 1 MiB for up to 32, then less.

    Larger chunks are faster (an upload of 4 MB costs 17 ms of CPU in chunks of 1 MiB, 34 in chunks of 64 KiB), but each
    lies in memory about four times until it is written: with 1 MiB for everybody 1000 uploads of 400 kB at once took
    600 MiB.
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

    def __init__(self, blobs: BlobStore, key: Secret, routes: Routes | None = None) -> None:
        self._blobs = blobs
        self._key = key
        self._routes = routes or NoRoutes()
        self._uploads: dict[str, Upload] = {}
        self._closers: dict[AnyHost, asyncio.Task[None]] = {}
        self._announced_s: dict[str, float] = {}

    async def sweep(self, hosts: Sequence[AnyHost]) -> None:
        """At start: throw away what was staged for anything but the open uploads of these sessions."""
        await asyncio.to_thread(self._blobs.sweep_uploads, self.open_tokens(hosts))

    def open_tokens(self, hosts: Sequence[AnyHost]) -> set[str]:
        """The tokens of uploads that may still come to count."""
        return {self._token(signed) for host in hosts for signed in host.open_uploads()}

    async def close(self) -> None:
        """Stop waiting for sessions to end."""
        closers = list(self._closers.values())
        for closer in closers:
            closer.cancel()
        await asyncio.gather(*closers, return_exceptions=True)

    async def begin(
        self, host: AnyHost, message: Contribution | OneShotContribution
    ) -> tuple[str, int, SignedReceipt | None]:
        """Accept a header; its token, the bytes that are there, and the receipt if all are.

        Raises:
            ProtocolError: the header is refused, or what it announces can no longer come to count.
        """
        if isinstance(message, OneShotContribution):
            await one_shot(host).submit(message)
        else:
            await pairwise(host).submit(message)
        header = message.signed.statement
        if not isinstance(header, ContributionHeader | OneShotHeader):
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "signed: not a contribution header")
        token = self._token(message.signed)
        if host.is_staged(header.identity):
            return token, host.session.upload_bytes, host.receipt(message.signed)
        host.check_collecting()
        upload = self._uploads.setdefault(token, Upload(host, message.signed, header))
        self._announced_s.pop(token, None)  # so that the order is that of time
        self._announced_s[token] = asyncio.get_running_loop().time()
        if host not in self._closers:
            self._closers[host] = asyncio.ensure_future(self._forget(host))
        if not upload.begun and self._routes.route(token) is not None:
            return token, 0, None
        return token, await self._begin(token, upload), None

    def under_way(self) -> int:
        """How many uploads were announced lately and do not count yet."""
        since_s = asyncio.get_running_loop().time() - _UNDER_WAY_S
        for token in list(itertools.takewhile(lambda each: self._announced_s[each] < since_s, self._announced_s)):
            del self._announced_s[token]
        return len(self._announced_s)

    def route(self, token: str) -> Route | None:
        """Where the bytes should go rather than here."""
        return self._routes.route(token)

    async def write(self, token: str, chunk: Chunk) -> int:
        """Take one chunk; the number of bytes that are there now.

        Raises:
            RemoteProtocolError: unknown token, or a chunk that is too large.
            UploadError: wrong checksum or offset.
        """
        upload = self.find(token)
        if len(chunk.data) > MAX_CHUNK_BYTES:
            raise RemoteProtocolError(RejectReason.CHUNK_TOO_LARGE, f"data: more than {MAX_CHUNK_BYTES} bytes")
        if upload.host.is_staged(upload.header.identity):
            length_bytes: int = upload.host.session.upload_bytes
            return length_bytes
        if not upload.begun:
            await self._begin(token, upload)
        return await asyncio.to_thread(self._blobs.write_chunk, token, chunk.offset_bytes, chunk.data, chunk.crc32)

    async def finish(self, token: str) -> SignedReceipt:
        """Make the upload durable and count it.

        Raises:
            UploadError: bytes are missing, or their digest is not the signed one.
        """
        upload = self.find(token)
        host, header = upload.host, upload.header
        if not host.is_staged(header.identity):
            if not upload.begun:
                await self._begin(token, upload)
            try:
                await asyncio.to_thread(self._blobs.finish_upload, token)
            except UploadError:
                if not host.is_staged(header.identity):  # else another call finished it meanwhile
                    raise
        await host.submit(UploadStaged(header.identity, header.upload))
        self._announced_s.pop(token, None)
        await self._discard(token)
        self._routes.discard(token)
        return host.receipt(upload.signed)

    async def count(self, token: str, adder: object) -> tuple[SignedReceipt, bool]:
        """Count an upload that another process has made durable; the receipt, and whether that process adds it up.

        Raises:
            ProtocolError: unknown token, or it no longer comes to count.
        """
        upload = self.find(token)
        host, header = upload.host, upload.header
        adds = host.leave_to(adder, header.identity)
        await host.submit(UploadStaged(header.identity, header.upload))
        self._announced_s.pop(token, None)
        if upload.begun:
            await self._discard(token)
        return host.receipt(upload.signed), adds

    async def _begin(self, token: str, upload: Upload) -> int:
        length_bytes: int = upload.host.session.upload_bytes
        committed = await asyncio.to_thread(self._blobs.begin_upload, token, length_bytes, upload.header.upload)
        upload.begun = True
        return committed

    def _token(self, signed: Signed) -> str:
        return derive(self._key, Label.UPLOAD_TOKEN, signed.to_bytes(), length_bytes=16).expose().hex()

    async def _forget(self, host: AnyHost) -> None:
        """Once the session has ended, nothing that is staged for it can come to count."""
        await host.ended()
        for token in [token for token, upload in self._uploads.items() if upload.host is host]:
            upload = self._uploads.pop(token)
            if upload.begun:
                await self._discard(token)
            if not host.is_staged(upload.header.identity):
                self._routes.discard(token)
        self._routes.forget(host.session.parameters.session)
        del self._closers[host]

    async def _discard(self, token: str) -> None:
        # If the disk refuses, the bytes wait for the next start; nobody's call fails for that.
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self._blobs.discard_upload, token)

    def find(self, token: str) -> Upload:
        """What a token stands for. Raises RemoteProtocolError(UNKNOWN_UPLOAD)."""
        upload = self._uploads.get(token)
        if upload is None:
            raise RemoteProtocolError(RejectReason.UNKNOWN_UPLOAD, "token: announce the header again")
        return upload
