"""An ingest process, as ``secagg coordinator serve --ingest N`` starts it: ``python -m secagg.cli.ingest_process K``.

Not for people: it reads the coordinator's configuration from stdin, with absolute paths, and ends with the coordinator.
It has the TLS key and the state directory, and neither the signing key nor the database.
"""

from __future__ import annotations

import asyncio
import sys

from secagg.cli.daemon import socket_of, until_signal
from secagg.identity.config import CoordinatorConfig
from secagg.runtime.ports import StoreError
from secagg.services.ingest_server import IngestServer
from secagg.services.logs import EventLog, log_to
from secagg.store.files import ProcessLock
from secagg.store.ingest_directory import IngestDirectory

_PATIENCE_S = 10.0
"""A coordinator that was killed leaves processes that end as soon as they notice."""


async def serve(config: CoordinatorConfig, place: int, stop: asyncio.Event) -> None:
    """Serve until ``stop``, or until the coordinator is gone.

    Raises:
        StoreError: another process has the directory, or the coordinator does not answer.
        RuntimeError: the address cannot be bound.
    """
    listen = config.ingest_listen(place)
    socket = socket_of(listen, await asyncio.to_thread(config.server_transport))
    directory = IngestDirectory(config.state_directory, place)
    lock = await _locked(directory)
    try:
        log = EventLog()
        server = IngestServer(config.state_directory, directory, place, log, config.limits.max_concurrent_rpcs)
        try:
            serving = asyncio.ensure_future(server.serve(await server.start(socket)))
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        finally:
            await server.stop()
        await asyncio.gather(serving, return_exceptions=True)
    finally:
        lock.release()


async def _locked(directory: IngestDirectory) -> ProcessLock:
    ends_at_s = asyncio.get_running_loop().time() + _PATIENCE_S
    while True:
        try:
            return directory.lock()
        except StoreError:
            if asyncio.get_running_loop().time() > ends_at_s:
                raise
        await asyncio.sleep(0.1)


def main() -> None:
    """Serve the place that the one argument says."""
    config, place = CoordinatorConfig.from_toml(sys.stdin.read()), int(sys.argv[1])
    log_to()
    try:
        asyncio.run(until_signal(lambda stop: serve(config, place, stop)))
    except (StoreError, RuntimeError, OSError) as error:
        EventLog().event("ingest_failed", port=config.ingest_listen(place).port, reason=type(error).__name__)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
