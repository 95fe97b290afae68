"""The coordinator's machine: host and log as the service has them, behind calls of the simulated network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from secagg.protocol.messages import (
    AdvertisedList,
    ClientMessage,
    ClosedList,
    Confirmations,
    Contribution,
    SessionEnded,
    SharedList,
    ShareKeys,
    SignedReceipt,
)
from secagg.protocol.one_shot.messages import OneShotContribution
from secagg.protocol.rows import UploadStaged
from secagg.runtime.hosts import host_for, pairwise
from secagg.runtime.memory import MemoryRecord
from secagg.runtime.session_host import AnyHost, CoordinatorPorts
from secagg.runtime.shown import Status
from secagg.runtime.transparency_log import TransparencyLog
from secagg.transcript.evidence import LogEvidence
from simulations.world.cast import ORIGIN, Cast
from simulations.world.machine import Server
from simulations.world.network import Line
from simulations.world.process import Process
from simulations.world.stores import Disk, ProcessLogFiles, ProcessStore

if TYPE_CHECKING:
    from secagg.runtime.clock import Clock
    from secagg.runtime.institution_directory import InstitutionDirectory
    from secagg.runtime.log_ports import Cosigners

COORDINATOR = "coordinator"


@dataclass
class CoordinatorNode(Server[AnyHost]):
    """The coordinator: what it keeps, and its process while it is up.

    Attributes:
        cast: everybody.
        clock: wall clock.
        institutions: finds the committee.
        cosigners: makes the ports to the witnesses for a process.
        report: told of failures of background work.
    """

    cast: Cast
    clock: Clock
    institutions: InstitutionDirectory
    cosigners: Callable[[Process], Cosigners]
    report: Callable[[str, str], None]
    line: Line = field(default_factory=lambda: Line(0.005))
    disk: Disk = field(default_factory=Disk)
    published: MemoryRecord = field(default_factory=MemoryRecord)

    @property
    def name(self) -> str:
        """See ``Machine.name``."""
        return COORDINATOR

    async def _served(self, process: Process) -> AnyHost:
        log = TransparencyLog(
            ProcessLogFiles(self.disk, process), self.cosigners(process), self.cast.coordinator, ORIGIN, self.report
        )
        store = ProcessStore(self.disk, process)
        ports = CoordinatorPorts(
            store=store,
            blobs=self.disk.blobs,
            log=log,
            record=self.published,
            clock=self.clock,
            key=self.cast.coordinator,
            report=lambda event, _session, reason: self.report(event, reason),
            institutions=self.institutions,
        )
        host = host_for(self.cast.session, ports)
        if await store.sessions():
            await host.resume()
        else:
            await host.create(self.cast.setup(self.disk.blobs))
        return host


class Front:
    """What the coordinator does with the calls of clients. A coordinator that lies has another one.

    Every method is told who calls.
    """

    def __init__(self, node: CoordinatorNode) -> None:
        self.node = node

    @property
    def host(self) -> AnyHost:
        """The session at the coordinator."""
        return self.node.host

    async def session_files(self, caller: bytes, log_size: int) -> tuple[LogEvidence, tuple[bytes, ...]]:
        """The log of the session, and a proof from what the caller has seen of it."""
        del caller
        await self.host.opened()
        return self.host.evidence(), self.host.consistency(log_size)

    async def status(self, caller: bytes) -> Status:
        """Where the session stands."""
        del caller
        return self.host.status()

    async def changed(self, caller: bytes, last: Status) -> Status:
        """Where it stands, as soon as phase or log differ from ``last``."""
        del caller
        while True:
            moved_on, status = self.host.moved_on, self.host.status()
            if (status.phase, status.log_size) != (last.phase, last.log_size):
                return status
            await asyncio.shield(moved_on)

    async def send(self, caller: bytes, message: ClientMessage) -> None:
        """Take a message that is not a contribution."""
        del caller
        if isinstance(message, ShareKeys):
            await pairwise(self.host).share_keys(message)
        else:
            await self.host.submit(message)

    async def announce(self, caller: bytes, message: Contribution | OneShotContribution) -> bool:
        """Take the header of an upload; whether the upload itself is there already."""
        del caller
        await self.host.submit(message)
        return self.host.is_staged(message.signed.statement.identity)

    async def deliver(self, caller: bytes, data: bytes) -> None:
        """Take an upload."""
        digest = self.node.disk.blobs.put(data)
        await self.host.submit(UploadStaged(caller, digest))

    async def receipt(self, caller: bytes, message: Contribution | OneShotContribution) -> SignedReceipt:
        """The coordinator's word that it holds a contribution."""
        del caller
        return self.host.receipt(message.signed)

    async def advertised_list(self, caller: bytes) -> AdvertisedList:
        """U1."""
        return pairwise(self.host).advertised_list(caller)

    async def shared_list(self, caller: bytes) -> SharedList:
        """U2."""
        return await pairwise(self.host).shared_list(caller)

    async def closed_list(self, caller: bytes) -> ClosedList:
        """U3."""
        del caller
        return self.host.closed_list()

    async def confirmations(self, caller: bytes) -> Confirmations:
        """What the others in U3 signed."""
        return pairwise(self.host).confirmations(caller)

    async def outcome(self, caller: bytes) -> SessionEnded:
        """How the session ended."""
        del caller
        return self.host.outcome()
