"""The HTTP server of a witness (c2sp.org/tlog-witness): ``POST /add-checkpoint``, ``GET /<hash>/checkpoint``.

HTTP/1.1 over asyncio streams, as much of it as these two requests need. Whatever else arrives is answered with a
status and a closed connection. Each request has a deadline as a whole, so that nobody holds a connection by sending
a byte at a time; requests and connections are bounded. Who needs TLS puts a proxy in front: what is asked and what is
answered is signed.
"""

from __future__ import annotations

import asyncio
import enum
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus

from secagg.runtime.ports import StoreError
from secagg.runtime.witness import TEXT_TYPE, Witness
from secagg.services.logs import EventLog
from secagg.transcript.witness_request import MAX_REQUEST_BYTES

MAX_HEAD_BYTES = 16 * 1024
_ADD_CHECKPOINT = "/add-checkpoint"
_CHECKPOINT = re.compile(r"/([0-9a-f]{64})/checkpoint")
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,1023}) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~\x80-\xff\t]*)")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,8}")
_LINGER_S = 2.0
_LINGER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class WitnessLimits:
    """What a witness takes on at a time."""

    max_connections: int = 256
    request_s: float = 10.0
    """From the first wait for a request to its last byte, and again for sending the answer."""


class _Connection(enum.Enum):
    """What becomes of a connection after an answer; the value is the header's."""

    KEEP = "keep-alive"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    body: bytes
    connection: _Connection


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    content_type: str = TEXT_TYPE


class _BadRequestError(Exception):
    """What was read is no request of ours; the connection is closed after the answer."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class WitnessServer:
    """Serves one witness."""

    def __init__(self, witness: Witness, log: EventLog, limits: WitnessLimits | None = None) -> None:
        self._witness = witness
        self._log = log
        self._limits = limits or WitnessLimits()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which is a free one for port 0. Raises OSError."""
        self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_HEAD_BYTES)
        bound: int = self._server.sockets[0].getsockname()[1]
        self._log.event("witness_serving", port=bound)
        return bound

    async def stop(self) -> None:
        """End every connection and stop listening. An answer that is cut off here can be asked for again."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._limits.max_connections:
            writer.transport.abort()
            self._log.event("witness_full")
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closing(writer):
            while True:
                try:
                    async with asyncio.timeout(self._limits.request_s):
                        request = await _read_request(reader, writer)
                except _BadRequestError as error:
                    self._log.event("witness_bad_request", reason=error.status.name)
                    await self._send(writer, _plain(error.status), _Connection.CLOSE)
                    await _linger(reader, writer)
                    return
                await self._send(writer, await self._answer(request), request.connection)
                if request.connection is _Connection.CLOSE:
                    return

    async def _send(self, writer: asyncio.StreamWriter, answer: _Answer, connection: _Connection) -> None:
        async with asyncio.timeout(self._limits.request_s):
            writer.write(_encode(answer, connection))
            await writer.drain()

    async def _answer(self, request: _Request) -> _Answer:
        found = _CHECKPOINT.fullmatch(request.path)
        allowed = "POST" if request.path == _ADD_CHECKPOINT else "GET" if found else None
        if allowed is None:
            return _plain(HTTPStatus.NOT_FOUND)
        if request.method != allowed:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            # In a thread: it waits for the disk.
            if found:
                response = await asyncio.to_thread(self._witness.checkpoint, found[1])
            else:
                response = await asyncio.to_thread(self._witness.add_checkpoint, request.body)
        except StoreError:
            self._log.event("witness_state_failed", method=request.method)
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE)
        self._log.event("witness_answered", method=request.method, reason=response.outcome.value)
        return _Answer(response.status, response.body, response.content_type)


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close the connection after the block; a peer that left or took too long ends the block without an error."""
    # ``drain`` waits until the system has every byte: nothing is left in a buffer of ours for a peer that never reads.
    writer.transport.set_write_buffer_limits(0)
    try:
        with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            yield
    finally:
        writer.transport.abort()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a while what was under way: closing on unread bytes would take the answer back from the peer."""
    writer.write_eof()
    async with asyncio.timeout(_LINGER_S):
        left = _LINGER_BYTES
        while left > 0 and (piece := await reader.read(left)):
            left -= len(piece)


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Request:
    """The next request.

    Raises:
        _BadRequestError: it is malformed or too large.
        asyncio.IncompleteReadError: the peer ended the connection.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise _BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
    first, *lines = head.decode("latin-1")[:-4].split("\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise _BadRequestError(HTTPStatus.BAD_REQUEST)
    headers = _headers(lines)
    length = _body_length(line[1], headers)
    if length and headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(length)
    keeps = line[3] == "1" and headers.get("connection", "").lower() != "close"
    return _Request(line[1], line[2], body, _Connection.KEEP if keeps else _Connection.CLOSE)


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise _BadRequestError(HTTPStatus.BAD_REQUEST)
        name = match[1].lower()
        if name == "content-length" and name in headers:
            raise _BadRequestError(HTTPStatus.BAD_REQUEST)
        headers[name] = match[2].strip(" \t")
    return headers


def _body_length(method: str, headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise _BadRequestError(HTTPStatus.LENGTH_REQUIRED)
    length = headers.get("content-length")
    if length is None:
        if method == "POST":
            raise _BadRequestError(HTTPStatus.LENGTH_REQUIRED)
        return 0
    if not _LENGTH.fullmatch(length):
        raise _BadRequestError(HTTPStatus.BAD_REQUEST)
    if int(length) > MAX_REQUEST_BYTES:
        raise _BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return int(length)


def _plain(status: HTTPStatus) -> _Answer:
    return _Answer(status, f"{status.phrase.lower()}\n".encode())


def _encode(answer: _Answer, connection: _Connection) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        f"Connection: {connection.value}\r\n\r\n"
    )
    return head.encode("ascii") + answer.body
