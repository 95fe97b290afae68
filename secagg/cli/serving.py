"""A coordinator's process: the parts put together, from the start to the signal that ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.crypto.notes import log_key
from secagg.crypto.signing import SigningKey
from secagg.identity.config import CoordinatorConfig
from secagg.identity.tls import LoopbackPlaintext, ServerTls
from secagg.runtime.clock import SystemClock
from secagg.runtime.host import CoordinatorPorts
from secagg.runtime.registry import Registry
from secagg.runtime.transparency_log import Cosigners, NoCosigners, TransparencyLog
from secagg.services.cosigners import HttpCosigners
from secagg.services.logs import EventLog
from secagg.services.server import CoordinatorServer, ServerLimits, ServerSocket, server_credentials
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.log_files import LogDirectory
from secagg.store.session_files import SessionDirectory
from secagg.store.sqlite import SqliteSessionStore

SESSIONS_FILE = "sessions.db"


async def serve_until_signal(config: CoordinatorConfig, key: SigningKey, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises as ``serve`` does."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def end() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)  # a second signal does not wait for anything

    for number in signals:
        loop.add_signal_handler(number, end)
    await serve(config, key, ready, stop)


async def serve(config: CoordinatorConfig, key: SigningKey, ready: Callable[[int], None], stop: asyncio.Event) -> None:
    """Serve a coordinator, composed of the ports on disk, until ``stop``; ``ready`` is told the port.

    Raises:
        IdentityFileError: the TLS files cannot be used.
        StoreError: the state directory is in use, or must not be used.
        CommandError: the address cannot be bound.
    """
    socket = await asyncio.to_thread(_socket, config)
    state, log = config.state_directory, EventLog()
    store = await asyncio.to_thread(SqliteSessionStore, state / SESSIONS_FILE)
    try:
        blobs = await asyncio.to_thread(DirectoryBlobStore, state)

        def report(event: str, session: bytes, reason: str) -> None:
            log.event(event, session=session.hex(), reason=reason)

        async with _open_log(config, key, lambda event, reason: log.event(event, reason=reason)) as published:
            record = SessionDirectory(config.record_directory)
            ports = CoordinatorPorts(store, blobs, published, record, SystemClock(), key, report)
            limits = config.limits
            server = CoordinatorServer(
                Registry(ports),
                state,
                log,
                ServerLimits(limits.max_concurrent_rpcs, limits.max_watchers, limits.max_upload_bytes),
                config.expose_reflection,
            )
            await _run(server, socket, config, ready, stop)
    finally:
        await store.close()


async def _run(
    server: CoordinatorServer,
    socket: ServerSocket,
    config: CoordinatorConfig,
    ready: Callable[[int], None],
    stop: asyncio.Event,
) -> None:
    try:
        ready(await server.start(socket))
        await stop.wait()
    except RuntimeError as error:
        if not str(error).startswith("Failed to bind"):
            raise
        raise CommandError(
            "ADDRESS_IN_USE",
            f"{config.listen}: the address cannot be bound",
            "another process may serve there: end it, or change `listen` in the configuration",
            kind="unavailable",
            code=ExitCode.UNAVAILABLE,
        ) from None
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def _open_log(
    config: CoordinatorConfig, key: SigningKey, report: Callable[[str, str], None]
) -> AsyncIterator[TransparencyLog]:
    """The log in the record directory, which its witnesses cosign. Raises StoreError, ConfigError."""
    policy = await asyncio.to_thread(config.log.policy)
    own = log_key(config.log.origin, key.public_bytes)
    if policy.logs and own not in {rule.key for rule in policy.logs}:
        raise CommandError(
            "OTHER_LOG",
            f"{config.log.witnesses} names {policy.logs[0].key.to_text()}, this coordinator's log is {own.to_text()}",
            "change the file's log line, or `origin` in the configuration if the log has no entry yet",
            kind="config",
        )
    files = await asyncio.to_thread(LogDirectory, config.record_directory, config.state_directory)
    try:
        cosigners: Cosigners = NoCosigners()
        if policy.witnesses:
            cosigners = HttpCosigners(policy, own, SystemClock())
        log = await asyncio.to_thread(TransparencyLog, files, cosigners, key, config.log.origin, report)
        try:
            yield log
        finally:
            await log.close()
    finally:
        await files.close()


def _socket(config: CoordinatorConfig) -> ServerSocket:
    match config.server_transport():
        case ServerTls(chain, private_key, client_ca):
            return ServerSocket(str(config.listen), server_credentials(chain, private_key.expose(), client_ca))
        case LoopbackPlaintext():
            return ServerSocket(str(config.listen), None)
