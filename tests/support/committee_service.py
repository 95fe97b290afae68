"""A committee member's real server on loopback, with TLS and its state on disk, as its operator would run it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from secagg.derive.openers import member_of
from secagg.identity.cards import MemberCard
from secagg.identity.config import ReflectionAudience
from secagg.identity.tls import create_certificate
from secagg.institutions import GrpcMember
from secagg.runtime.clock import SystemClock
from secagg.runtime.committee_member import CommitteeMemberHost
from secagg.runtime.member_ports import MemberPorts
from secagg.services.committee import CommitteeLimits, CommitteeServer, CommitteeServicer
from secagg.services.logs import EventLog
from secagg.services.server import ServerSocket, server_credentials
from secagg.store.member_state import MemberState
from secagg.transcript.policy import LogPolicy
from tests.support import one_shot
from tests.support.cohort import VirtualClock

TIMEOUT_S = 20.0


@dataclass
class RunningMember:
    """A served member, and a coordinator's way to it."""

    port: GrpcMember
    card: MemberCard
    host: CommitteeMemberHost
    state: MemberState
    clock: VirtualClock
    reports: list[tuple[str, bytes, str]]
    servicer: CommitteeServicer

    def outcomes(self) -> list[str]:
        """What the journal says, oldest first."""
        from secagg.store.opening_journal import read_journal

        return [line.outcome for line in read_journal(self.state._directory / "opened.jsonl")]


@asynccontextmanager
async def serving_member(
    home: Path,
    place: int = 0,
    policy: LogPolicy = one_shot.WITNESSED,
    limits: CommitteeLimits | None = None,
    reflect_to: ReflectionAudience = ReflectionAudience.NOBODY,
    **rules: object,
) -> AsyncIterator[RunningMember]:
    """Serve the member with this place from ``home``; leaving the context is an orderly stop."""
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "tls.crt").exists():
        create_certificate(home, ["localhost", "127.0.0.1"], SystemClock().now_s(), 30)
    if not (home / "state").exists():
        MemberState.create(home / "state")
    pem = (home / "tls.crt").read_bytes()
    state = MemberState(home / "state")
    clock, reports = VirtualClock(), []
    key = one_shot.member_key(place)
    ports = MemberPorts(
        store=state.sessions,
        boxes=state.boxes,
        journal=state.journal,
        clock=clock,
        key=key,
        sealing_key=one_shot.sealing_key(place),
        rules=one_shot.rules_of(**({"restored_at_s": state.restored_at_s} | rules)),
        policy=policy,
        memory_of=state.memory_of,
        report=lambda *report: reports.append(report),
    )
    host = CommitteeMemberHost(ports)
    server = CommitteeServer(host, f"Institute {place}", EventLog(), limits, reflect_to)
    number = await server.start(
        ServerSocket("127.0.0.1:0", server_credentials(pem, (home / "tls.key").read_bytes(), None))
    )
    member = member_of(f"Institute {place}", key, one_shot.sealing_key(place).public_bytes)
    card = MemberCard.of(member, f"127.0.0.1:{number}", pem.decode())
    port = GrpcMember(card, TIMEOUT_S, TIMEOUT_S)
    try:
        yield RunningMember(port, card, host, state, clock, reports, server.servicer)
    finally:
        await port.close()
        await server.stop()
        await state.close()
