"""A coordinator's process: the parts put together, from the start to the signal that ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from secagg.cli.daemon import Ready, running, socket_of, until_signal
from secagg.cli.failures import CommandError
from secagg.cli.ingest_serving import running_ingest
from secagg.crypto.notes import log_key
from secagg.crypto.signing import SigningKey
from secagg.identity.config import CoordinatorConfig
from secagg.institutions import Institutions
from secagg.runtime.clock import SystemClock
from secagg.runtime.registry import Registry
from secagg.runtime.session_host import CoordinatorPorts
from secagg.runtime.transparency_log import Cosigners, NoCosigners, TransparencyLog
from secagg.services.cosigners import HttpCosigners
from secagg.services.ingest_processes import IngestProcesses
from secagg.services.logs import EventLog
from secagg.services.server import CoordinatorServer, ServerLimits
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.ingest_directory import remove_ingest_directories
from secagg.store.log_files import LogDirectory
from secagg.store.session_files import SessionDirectory
from secagg.store.sqlite import SqliteSessionStore

SESSIONS_FILE = "sessions.db"


async def serve_until_signal(config: CoordinatorConfig, key: SigningKey, ready: Ready) -> None:
    """Serve until SIGTERM or SIGINT. Raises as ``serve`` does."""
    await until_signal(lambda stop: serve(config, key, ready, stop))


async def serve(config: CoordinatorConfig, key: SigningKey, ready: Ready, stop: asyncio.Event) -> None:
    """Serve a coordinator, composed of the ports on disk, until ``stop``; ``ready`` is told the port.

    Raises:
        IdentityFileError: the TLS files cannot be used.
        StoreError: the state directory is in use, or must not be used.
        CommandError: the address cannot be bound.
    """
    socket = socket_of(config.listen, await asyncio.to_thread(config.server_transport))
    state, log = config.state_directory, EventLog()
    store = await asyncio.to_thread(SqliteSessionStore, state / SESSIONS_FILE)
    try:
        blobs = await asyncio.to_thread(DirectoryBlobStore, state)

        def report(event: str, session: bytes, reason: str) -> None:
            log.event(event, session=session.hex(), reason=reason)

        async with (
            _open_log(config, key, lambda event, reason: log.event(event, reason=reason)) as published,
            Institutions() as institutions,
        ):
            record = SessionDirectory(config.record_directory)
            ingest = IngestProcesses(state, config.ingest_processes, report)
            await asyncio.to_thread(remove_ingest_directories, state, ingest.count)
            ports = CoordinatorPorts(store, blobs, published, record, SystemClock(), key, report, institutions, ingest)
            limits = config.limits
            server = CoordinatorServer(
                Registry(ports),
                state,
                log,
                ServerLimits(limits.max_concurrent_rpcs, limits.max_watchers, limits.max_upload_bytes),
                config.expose_reflection,
                ingest if ingest.count else None,
            )
            async with (
                running(server, socket, config.listen) as port,
                running_ingest(config, ingest, log),
            ):
                ready(port)
                await stop.wait()
    finally:
        await store.close()


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
