"""A key authority's process: the parts put together."""

from __future__ import annotations

import asyncio

from secagg.cli.daemon import Ready
from secagg.cli.institution_serving import serve_institution
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
from secagg.transcript.policy import LogPolicy


async def serve(config: AuthorityConfig, key: SigningKey, ready: Ready, stop: asyncio.Event) -> None:
    """Serve a key authority, composed of the ports on disk, until ``stop``; ``ready`` is told the port.

    Raises as ``serve_institution`` does.
    """

    def server_of(state: AuthorityState, log: LogPolicy) -> AuthorityServer:
        policy = AuthorityPolicy(
            min_contributors=config.min_contributors,
            coordinators=config.coordinators,
            registrars=config.registrars,
            log=log,
            attestors=config.attestors,
            attestations=config.attestations,
        )
        rng, store_key = SystemRng(), key.derive_seed(Label.AUTHORITY_STORE_KEY)
        ports = AuthorityPorts(
            store=SealedSessionStore(state.sessions, store_key.expose(), rng.bytes),
            journal=state.journal,
            clock=SystemClock(),
            rng=rng,
            memory_of=state.memory_of,
        )
        host = KeyAuthorityHost(Authority(key, policy), ports)
        return AuthorityServer(host, config.name, EventLog(), reflect_to=config.expose_reflection)

    await serve_institution(config, AuthorityState, server_of, ready, stop)
