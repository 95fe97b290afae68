"""What the commands that set up and run a service share: its directory, its address, the signals that end it."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import address
from secagg.cli.output import Reporter

if TYPE_CHECKING:
    from secagg.identity.address import Address
    from secagg.identity.tls import ServerTransport
    from secagg.services.server import ServerSocket

CERTIFICATE_DAYS = 3650
Ready = Callable[[int], None]
"""Told the port, once the service answers there."""


class GrpcService(Protocol):
    """A server of ours."""

    async def start(self, socket: ServerSocket) -> int:
        """Listen; returns the port. Raises RuntimeError: the address cannot be bound."""
        ...

    async def stop(self) -> None:
        """End in order."""
        ...


def add_config(parser: argparse.ArgumentParser, file_name: str, made_by: str) -> None:
    """``--config FILE``."""
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help=f"{file_name}, as `{made_by}` writes it"
    )


def add_directory(parser: argparse.ArgumentParser) -> None:
    """``DIR``, for commands that set a service up."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="where to; made if it is missing")


def add_listen(parser: argparse.ArgumentParser, port: int) -> None:
    """``--listen``, with the port of this kind of service."""
    parser.add_argument(
        "--listen",
        type=address,
        metavar="HOST:PORT",
        help=f"where to serve; port 0 takes a free one (default: 127.0.0.1:{port})",
    )


def make_home(home: Path, files: Sequence[Path]) -> None:
    """The directory of a new service, private; nothing in it that would be overwritten.

    Raises:
        IdentityFileError: one of ``files`` is there, or others have access to a directory in use.
    """
    from secagg.identity.errors import FileRefusal, IdentityFileError

    for file in files:
        if os.path.lexists(file):
            raise IdentityFileError(file, FileRefusal.EXISTS, "", "choose another directory, or serve this one")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not any(home.iterdir()):
        home.chmod(0o700)
    elif home.stat().st_mode & 0o077:
        raise IdentityFileError(home, FileRefusal.OPEN_PERMISSIONS, "", f"fix it with: chmod 700 {home}")


def certificate_hosts(listen: Address, named: Sequence[str], whose: str) -> tuple[str, ...]:
    """The names and addresses for a service's certificate: those ``named``, or what ``listen`` says.

    Args:
        listen: where the service listens.
        named: what ``--host`` gave.
        whose: who will use the names, for the error.

    Raises:
        CommandError: a name is none, or there is none to be had.
    """
    from secagg.identity.address import is_host_name, parse_ip

    for name in named:
        if parse_ip(name) is None and not is_host_name(name):
            raise CommandError("HOST", f"--host {name}: neither a host name in lowercase nor an IP address")
    if named:
        return tuple(dict.fromkeys(named))
    if listen.is_loopback:
        return tuple(dict.fromkeys(("localhost", listen.host)))
    if listen.host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        raise CommandError(
            "HOST",
            f"{listen.host} is every address of this machine and no name that {whose} could connect to",
            "give the name they will use: --host aggregator.example",
        )
    return (listen.host,)


async def until_signal(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run ``serve`` with an event that SIGTERM or SIGINT sets; a second signal does not wait for anything."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def end() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, end)
    await serve(stop)


def tls_facts(transport: ServerTransport) -> dict[str, object]:
    """The fingerprint of the certificate that a service shows, if it shows one."""
    from secagg.identity.tls import ServerTls, fingerprint

    return {"tls_fingerprint": fingerprint(transport.certificate_chain)} if isinstance(transport, ServerTls) else {}


def announcing(reporter: Reporter, listen: Address, facts: Mapping[str, object], who: str) -> Ready:
    """What says that a gRPC service serves.

    Args:
        reporter: where to.
        listen: where the service listens; the port may be another.
        facts: what it says of itself, with ``tls_facts``.
        who: the key under which it serves, for people.
    """

    def ready(port: int) -> None:
        where = str(type(listen)(listen.host, port))
        secured = "TLS" if "tls_fingerprint" in facts else "plaintext on loopback"
        reporter.result(
            {"event": "serving", **facts, "address": where, "port": port}, f"serving on {where} ({secured}), {who}"
        )

    return ready


def address_in_use(listen: Address, cause: str = "") -> CommandError:
    """The error of a service whose address cannot be bound."""
    return CommandError(
        "ADDRESS_IN_USE",
        f"{listen}: the address cannot be bound" + (f": {cause}" if cause else ""),
        "another process may serve there: end it, or change `listen` in the configuration",
        kind="unavailable",
        code=ExitCode.UNAVAILABLE,
    )


def socket_of(listen: Address, transport: ServerTransport) -> ServerSocket:
    """Where a gRPC service listens, and as whom."""
    from secagg.identity.tls import ServerTls
    from secagg.services.server import ServerSocket, server_credentials

    if isinstance(transport, ServerTls):
        key = transport.private_key.expose()
        return ServerSocket(str(listen), server_credentials(transport.certificate_chain, key, transport.client_ca))
    return ServerSocket(str(listen), None)


@asynccontextmanager
async def running(server: GrpcService, socket: ServerSocket, listen: Address) -> AsyncIterator[int]:
    """The port of a started server, which is stopped in order when the block ends.

    Raises:
        CommandError: the address cannot be bound.
    """
    try:
        try:
            port = await server.start(socket)
        except RuntimeError as error:
            if not str(error).startswith("Failed to bind"):
                raise
            raise address_in_use(listen) from None
        yield port
    finally:
        await server.stop()
