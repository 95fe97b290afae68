"""A committee member's process: the parts put together."""

from __future__ import annotations

import asyncio

from secagg.cli.daemon import Ready
from secagg.cli.institution_serving import serve_institution
from secagg.crypto.signing import SigningKey
from secagg.identity.committee_config import CommitteeConfig
from secagg.protocol.one_shot.member import MemberRules
from secagg.runtime.clock import SystemClock
from secagg.runtime.committee_member import CommitteeMemberHost, member_sealing_key
from secagg.runtime.member_ports import MemberPorts
from secagg.services.committee import CommitteeServer
from secagg.services.logs import EventLog
from secagg.store.member_state import MemberState
from secagg.transcript.policy import LogPolicy


async def serve(config: CommitteeConfig, key: SigningKey, ready: Ready, stop: asyncio.Event) -> None:
    """Serve a committee member, composed of the ports on disk, until ``stop``; ``ready`` is told the port.

    Raises as ``serve_institution`` does.
    """
    log = EventLog()

    def report(event: str, session: bytes, reason: str) -> None:
        log.event(event, session=session.hex(), reason=reason)

    def server_of(state: MemberState, policy: LogPolicy) -> CommitteeServer:
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
        return CommitteeServer(CommitteeMemberHost(ports), config.name, log, reflect_to=config.expose_reflection)

    await serve_institution(config, MemberState, server_of, ready, stop)
