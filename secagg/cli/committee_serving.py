"""A committee member's process: the parts put together, from the start to the signal that ends it."""

from __future__ import annotations

import asyncio

from secagg.cli.daemon import Ready, running, socket_of
from secagg.crypto.signing import SigningKey
from secagg.identity.committee_config import CommitteeConfig
from secagg.protocol.one_shot.member import MemberRules
from secagg.runtime.clock import SystemClock
from secagg.runtime.committee_member import CommitteeMemberHost, member_sealing_key
from secagg.runtime.member_ports import MemberPorts
from secagg.services.committee import CommitteeServer
from secagg.services.logs import EventLog
from secagg.store.member_state import MemberState


async def serve(config: CommitteeConfig, key: SigningKey, ready: Ready, stop: asyncio.Event) -> None:
    """Serve a committee member, composed of the ports on disk, until ``stop``; ``ready`` is told the port.

    Raises:
        IdentityFileError: the TLS files cannot be used.
        ConfigError: the policy file cannot be used.
        StoreError: the state directory is in use, or must not be used.
        CommandError: the address cannot be bound.
    """
    socket = socket_of(config.listen, await asyncio.to_thread(config.server_transport))
    policy = await asyncio.to_thread(config.policy)
    state = await asyncio.to_thread(MemberState, config.state_directory)
    log = EventLog()

    def report(event: str, session: bytes, reason: str) -> None:
        log.event(event, session=session.hex(), reason=reason)

    try:
        ports = MemberPorts(
            store=state.sessions,
            boxes=state.boxes,
            journal=state.journal,
            clock=SystemClock(),
            key=key,
            sealing_key=member_sealing_key(key),
            rules=MemberRules(config.coordinators, config.registrars, config.min_contributors, state.restored_at_s),
            policy=policy,
            memory_of=state.memory_of,
            report=report,
        )
        server = CommitteeServer(CommitteeMemberHost(ports), config.name, log, reflect_to=config.expose_reflection)
        async with running(server, socket, config.listen) as port:
            ready(port)
            await stop.wait()
    finally:
        await state.close()
