"""A key authority's process: the parts put together, from the start to the signal that ends it."""

from __future__ import annotations

import asyncio

from secagg.cli.daemon import Ready, running, socket_of
from secagg.crypto.labels import Label
from secagg.crypto.rng import SystemRng
from secagg.crypto.signing import SigningKey
from secagg.identity.authority_config import AuthorityConfig
from secagg.protocol.one_shot.authority_states import Authority, AuthorityPolicy
from secagg.runtime.clock import SystemClock
from secagg.runtime.key_authority import AuthorityPorts, KeyAuthorityHost
from secagg.services.authority import AuthorityServer
from secagg.services.logs import EventLog
from secagg.store.authority_state import AuthorityState
from secagg.store.sealed import SealedSessionStore


async def serve(config: AuthorityConfig, key: SigningKey, ready: Ready, stop: asyncio.Event) -> None:
    """Serve a key authority, composed of the ports on disk, until ``stop``; ``ready`` is told the port.

    Raises:
        IdentityFileError: the TLS files cannot be used.
        ConfigError: the policy file cannot be used.
        StoreError: the state directory is in use, or must not be used.
        CommandError: the address cannot be bound.
    """
    socket = socket_of(config.listen, await asyncio.to_thread(config.server_transport))
    policy = AuthorityPolicy(
        min_contributors=config.min_contributors,
        coordinators=config.coordinators,
        registrars=config.registrars,
        log=await asyncio.to_thread(config.policy),
        attestors=config.attestors,
        attestations=config.attestations,
    )
    state = await asyncio.to_thread(AuthorityState, config.state_directory)
    try:
        rng, store_key = SystemRng(), key.derive_seed(Label.AUTHORITY_STORE_KEY)
        ports = AuthorityPorts(
            store=SealedSessionStore(state.sessions, store_key.expose(), rng.bytes),
            journal=state.journal,
            clock=SystemClock(),
            rng=rng,
            memory_of=state.memory_of,
        )
        host = KeyAuthorityHost(Authority(key, policy), ports)
        server = AuthorityServer(host, config.name, EventLog(), reflect_to=config.expose_reflection)
        async with running(server, socket, config.listen) as port:
            ready(port)
            await stop.wait()
    finally:
        await state.close()
