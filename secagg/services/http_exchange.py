"""One HTTP request to one of our configured addresses, and its answer, bounded.

A connection for each request, asked to close after it, so that an answer ends where the connection does. No
redirect is followed and no proxy is looked up: nothing is sent to an address that nobody configured. asyncio streams
rather than threads, because a deadline then ends the exchange wherever it is, and leaves nothing waiting.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import re
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

_MAX_HEAD_BYTES = 16 * 1024
_CHUNKED_OVERHEAD = 2
"""Times the body, what its chunks may take: a peer may send it in small ones."""
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")


class HttpError(ValueError):
    """An address is none, or what came back is no bounded answer over HTTP."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status and body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpPrefix:
    """Where paths are added to: scheme, host, port and a path without a final slash."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str) -> HttpPrefix:
        """Read an http or https URL without user, query and fragment. Raises HttpError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise HttpError("expected an http or https URL") from None
        path = parts.path.rstrip("/")
        plain = parts.scheme in ("http", "https") and parts.hostname and _PATH.fullmatch(path) and url.isprintable()
        if not plain or not url.isascii() or " " in url or any(mark in url for mark in "?#@"):
            raise HttpError("expected an http or https URL without user, query and fragment")
        secure = parts.scheme == "https"
        if port is None:
            port = 443 if secure else 80
        return cls(parts.hostname or "", port, path, ssl.create_default_context() if secure else None)

    async def exchange(self, method: str, path: str, body: bytes, most_bytes: int) -> HttpAnswer:
        """Send one request; the body that comes back has at most ``most_bytes``. The caller sets the deadline.

        Raises:
            HttpError: the answer is malformed, cut off or too large.
            OSError: no connection, or TLS fails.
        """
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.tls, limit=1 << 16)
        try:
            writer.write(self._request(method, path, body))
            answer = await _read_to_end(reader, _MAX_HEAD_BYTES + _CHUNKED_OVERHEAD * most_bytes)
        finally:
            writer.transport.abort()
        return _parse(answer, method, most_bytes)

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [
            f"{method} {self.path}{path} HTTP/1.1",
            f"Host: {host}:{self.port}",
            "Connection: close",
            "User-Agent: secagg",
            *([f"Content-Length: {len(body)}", "Content-Type: text/plain; charset=utf-8"] if body else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def _read_to_end(reader: asyncio.StreamReader, most_bytes: int) -> bytes:
    pieces, length = [], 0
    while piece := await reader.read(1 << 16):
        pieces.append(piece)
        length += len(piece)
        if length > most_bytes:
            raise HttpError("the answer is too large")
    return b"".join(pieces)


class _Received:
    """What http.client takes for a socket: the bytes that came."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _parse(data: bytes, method: str, most_bytes: int) -> HttpAnswer:
    response = http.client.HTTPResponse(_Received(data), method=method)  # type: ignore[arg-type]
    try:
        response.begin()
        body = response.read(most_bytes + 1)
    except (http.client.HTTPException, ValueError):
        raise HttpError("the answer is not HTTP") from None
    if len(body) > most_bytes:
        raise HttpError("the answer is too large")
    if response.length:
        raise HttpError("the answer is cut off")
    return HttpAnswer(response.status, body)
