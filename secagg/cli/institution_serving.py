"""The process of an institution that opens sums, from the start to the signal that ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from secagg.cli.daemon import GrpcService, Ready, running, socket_of
from secagg.identity.institution_config import InstitutionConfig
from secagg.store.institution_state import InstitutionState
from secagg.transcript.policy import LogPolicy

StateT = TypeVar("StateT", bound=InstitutionState)


async def serve_institution(
    config: InstitutionConfig,
    open_state: Callable[[Path], StateT],
    server_of: Callable[[StateT, LogPolicy], GrpcService],
    ready: Ready,
    stop: asyncio.Event,
) -> None:
    """Serve an institution with its state open, until ``stop``.

    Args:
        config: where it listens, where its state and its policy are.
        open_state: opens the state directory. It is closed at the end.
        server_of: the server with this state, under this policy.
        ready: told the port.
        stop: ends it.

    Raises:
        IdentityFileError: the TLS files cannot be used.
        ConfigError: the policy file cannot be used.
        StoreError: the state directory is in use, or must not be used.
        CommandError: the address cannot be bound.
    """
    socket = socket_of(config.listen, await asyncio.to_thread(config.server_transport))
    policy = await asyncio.to_thread(config.policy)
    state = await asyncio.to_thread(open_state, config.state_directory)
    try:
        async with running(server_of(state, policy), socket, config.listen) as port:
            ready(port)
            await stop.wait()
    finally:
        await state.close()
