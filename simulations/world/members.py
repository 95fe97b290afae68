"""Committee members' machines, behind calls of the simulated network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.member import MemberRules
from secagg.protocol.one_shot.messages import HeldBox, OpenRequest, ShownSessionFiles
from secagg.runtime.clock import Clock
from secagg.runtime.committee_member import CommitteeMemberHost, member_sealing_key
from secagg.runtime.institutions import AuthorityPort, MemberPort
from secagg.runtime.log_trust import ForgetfulMemory
from secagg.runtime.member_ports import MemberPorts
from secagg.runtime.memory_boxes import MemoryBoxStore, MemoryJournal
from secagg.transcript.merkle import leaf_hash
from secagg.transcript.statements import Signed
from simulations.world.cast import Cast, member_name
from simulations.world.coordinator import CoordinatorNode
from simulations.world.machine import Server
from simulations.world.network import Line, Network
from simulations.world.process import Process
from simulations.world.stores import Disk, ProcessStore

OPENING_WAITS_S = 600.0
"""How long a coordinator waits for a member to add up its shares."""


@dataclass
class MemberNode(Server[CommitteeMemberHost]):
    """One committee member: what it keeps, and its process while it is up."""

    cast: Cast
    place: int
    clock: Clock
    line: Line = field(default_factory=lambda: Line(0.02))
    disk: Disk = field(default_factory=Disk)
    boxes: MemoryBoxStore = field(default_factory=MemoryBoxStore)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    memories: dict[tuple[bytes, str], ForgetfulMemory] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """See ``Machine.name``."""
        return member_name(self.place)

    async def _served(self, process: Process) -> CommitteeMemberHost:
        key = self.cast.members[self.place]
        rules = MemberRules(
            coordinators=frozenset({self.cast.coordinator.public_bytes}),
            registrars=frozenset({self.cast.registrar.public_bytes}),
            min_contributors=self.cast.plan.minimum,
        )
        ports = MemberPorts(
            store=ProcessStore(self.disk, process),
            boxes=self.boxes,
            journal=self.journal,
            clock=self.clock,
            key=key,
            sealing_key=member_sealing_key(key),
            rules=rules,
            policy=self.cast.log_policy,
            memory_of=lambda *log_of: self.memories.setdefault(log_of, ForgetfulMemory()),
            report=lambda *_: None,
        )
        host = CommitteeMemberHost(ports)
        await host.start()
        return host


class NetworkMember:
    """A ``MemberPort``: a member as the coordinator reaches it over the simulated network."""

    def __init__(self, coordinator: CoordinatorNode, member: MemberNode, network: Network) -> None:
        self._nodes = coordinator, member
        self._member = member
        self._network = network

    async def log_size(self, origin: str) -> int:
        """See ``MemberPort.log_size``."""
        return await self._network.call(
            self._nodes, "member-log-size", origin, lambda: self._member.host.log_size(origin)
        )

    async def join(self, session: bytes, files: ShownSessionFiles) -> None:
        """See ``MemberPort.join``."""
        roster = self._member.cast.session.roster

        async def handle() -> None:
            if files.roster != roster.leaves():
                raise RemoteProtocolError(RejectReason.LOG_MISMATCH, "roster")
            await self._member.host.join(session, files, roster)

        await self._network.call(self._nodes, "member-join", files.evidence, handle)

    async def hold(self, session: bytes, items: Sequence[HeldBox]) -> tuple[str, ...]:
        """See ``MemberPort.hold``."""

        async def handle() -> tuple[str, ...]:
            return await (await self._member.host.find(session)).hold(items)

        return await self._network.call(
            self._nodes, "member-hold", [item.box for item in items], handle, waits=OPENING_WAITS_S
        )

    async def open(self, session: bytes, request: OpenRequest) -> Signed:
        """See ``MemberPort.open``."""

        async def handle() -> Signed:
            leaves = b"".join(map(leaf_hash, request.contributions))
            return await (await self._member.host.find(session)).open(request.evidence, leaves)

        return await self._network.call(
            self._nodes, "member-open", request.contributions, handle, waits=OPENING_WAITS_S
        )


@dataclass(frozen=True)
class Committee:
    """An ``InstitutionDirectory`` in which a card is the place of a member, in ASCII."""

    ports: Sequence[MemberPort]

    def members(self, cards: Sequence[bytes]) -> Sequence[MemberPort]:
        """See ``InstitutionDirectory.members``."""
        return [self.ports[int(card)] for card in cards]

    def authority(self, card: bytes) -> AuthorityPort:
        """There is none."""
        raise RemoteProtocolError(RejectReason.WRONG_PROTOCOL, f"card {card!r}: the session has a committee")
