"""HTTP servers that answer what a test tells them to, and write down what they were asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field

Talk = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    body: bytes


@dataclass
class Liar:
    """Where it listens, and what it was asked so far."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def answering(status: int, body: bytes, headers: str = "") -> Talk:
    """Always this answer."""
    return answering_each(lambda _: (status, body), headers)


def answering_each(answer: Callable[[Asked], tuple[int, bytes]], headers: str = "") -> Talk:
    """An answer that depends on the question."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        status, body = answer(asked)
        head = f"HTTP/1.1 {status} Said\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return talk


def saying(data: bytes) -> Talk:
    """These bytes, whatever they are, and the end of the connection."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return talk


def repeating(start: bytes, piece: bytes) -> Talk:
    """``start``, and then ``piece`` until the other side leaves."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return talk


async def hanging(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Nothing, for as long as the test runs."""
    await asyncio.Event().wait()


@asynccontextmanager
async def lying(talk: Talk) -> AsyncIterator[Liar]:
    """A server that reads each request and talks."""
    liar, tasks = Liar(), set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError), closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.split("Content-Length: ")[1].split("\r\n")[0]) if "Content-Length" in head else 0
            method, path, _ = head.split("\r\n")[0].split(" ")
            asked = Asked(method, path, await reader.readexactly(length))
            liar.asked.append(asked)
            await talk(asked, writer)

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    liar.port = server.sockets[0].getsockname()[1]
    try:
        yield liar
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # a closed connection is gone one step later
