"""Clients' machines: the participants of the client library, behind calls of the simulated network."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from secagg.arith.errors import ArithmeticInputError
from secagg.derive.result import FloatVector
from secagg.protocol import log
from secagg.protocol.errors import ProtocolError
from secagg.protocol.messages import (
    AdvertisedList,
    ClientMessage,
    ClosedList,
    Confirmations,
    Contribution,
    SessionEnded,
    SharedList,
    SignedReceipt,
)
from secagg.protocol.one_shot.client import OneShotClientContext
from secagg.protocol.one_shot.messages import CommitContribution, CommittedList, OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.pairwise.client import ClientContext
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.runtime.log_trust import ForgetfulMemory, LogTrust
from secagg.runtime.one_shot_participant import OneShotParticipant
from secagg.runtime.pairwise_participant import PairwiseParticipant
from secagg.runtime.participant import CoordinatorPort, Milestone, ParticipantPorts, TransportError
from secagg.runtime.ports import BlobStore
from secagg.runtime.shown import Status
from secagg.transcript.evidence import LogEvidence
from simulations.world.cast import Cast, client_name
from simulations.world.coordinator import CoordinatorNode, Front
from simulations.world.machine import Machine
from simulations.world.network import Line, Network
from simulations.world.process import Process
from simulations.world.randomness import SeededRng
from simulations.world.stores import Disk, ProcessStore

_T = TypeVar("_T")
_RETRY_S = 5.0


class NetworkCoordinator:
    """A ``CoordinatorPort`` over the simulated network."""

    def __init__(self, client: ClientNode, front: Callable[[], Front], network: Network) -> None:
        self._client = client
        self._front = front
        self._network = network
        self._identity = client.identity

    async def files(self, log_size: int) -> tuple[LogEvidence, tuple[bytes, ...]]:
        """The session's log, and a proof from what was seen of it."""
        return await self._call("files", log_size, lambda: self._front().session_files(self._identity, log_size))

    async def watch(self, session: bytes) -> AsyncIterator[Status]:
        """See ``CoordinatorPort.watch``."""
        del session
        status = await self._call("status", None, lambda: self._front().status(self._identity))
        while True:
            yield status
            status = await self._call("watch", None, self._change_after(status), waits=math.inf)

    def _change_after(self, last: Status) -> Callable[[], Awaitable[Status]]:
        return lambda: self._front().changed(self._identity, last)

    async def send(self, session: bytes, message: ClientMessage | CommitContribution) -> None:
        """See ``CoordinatorPort.send``."""
        del session
        if isinstance(message, CommitContribution):
            raise TypeError("simulated committees take no commitments")
        await self._call(type(message).__name__, message, lambda: self._front().send(self._identity, message))

    async def upload(
        self, session: bytes, message: Contribution | OneShotContribution, blobs: BlobStore
    ) -> SignedReceipt:
        """See ``CoordinatorPort.upload``: the header, the masked input, and then a receipt."""
        del session
        header = message.signed.statement
        staged = await self._call("announce", message, lambda: self._front().announce(self._identity, message))
        if not staged:
            data = blobs.get(header.upload)  # type: ignore[union-attr]
            await self._call("deliver", data, lambda: self._front().deliver(self._identity, data))
        return await self._call("receipt", None, lambda: self._front().receipt(self._identity, message))

    async def advertised_list(self, session: bytes, identity: bytes) -> AdvertisedList:
        """See ``CoordinatorPort.advertised_list``."""
        del session
        return await self._call("advertised_list", None, lambda: self._front().advertised_list(identity))

    async def shared_list(self, session: bytes, identity: bytes) -> SharedList:
        """See ``CoordinatorPort.shared_list``."""
        del session
        return await self._call("shared_list", None, lambda: self._front().shared_list(identity))

    async def committed_list(self, session: bytes) -> CommittedList:
        """See ``CoordinatorPort.committed_list``."""
        raise TypeError(f"session {session.hex()} has a committee, which takes no commitments")

    async def closed_list(self, session: bytes) -> ClosedList:
        """See ``CoordinatorPort.closed_list``."""
        del session
        return await self._call("closed_list", None, lambda: self._front().closed_list(self._identity))

    async def confirmations(self, session: bytes, identity: bytes) -> Confirmations:
        """See ``CoordinatorPort.confirmations``."""
        del session
        return await self._call("confirmations", None, lambda: self._front().confirmations(identity))

    async def outcome(self, session: bytes) -> SessionEnded:
        """See ``CoordinatorPort.outcome``."""
        del session
        return await self._call("outcome", None, lambda: self._front().outcome(self._identity))

    async def _call(
        self, what: str, request: object, handler: Callable[[], Awaitable[_T]], *, waits: float = 30.0
    ) -> _T:
        nodes = self._client, self._client.coordinator
        return await self._network.call(nodes, what, request, handler, waits=waits)


@dataclass
class ClientNode(Machine):
    """One client: what it keeps, and its process while it is up.

    Attributes:
        cast: everybody.
        number: which client.
        vector: float32 in layout order: what it contributes.
        coordinator: whom it talks to.
        heard: told of milestones and of how it ended.
    """

    cast: Cast
    number: int
    vector: FloatVector
    coordinator: CoordinatorNode
    heard: Callable[[int, str, str], None]
    line: Line = field(default_factory=Line)
    disk: Disk = field(default_factory=Disk)
    memory: ForgetfulMemory = field(default_factory=ForgetfulMemory)
    participant: PairwiseParticipant | OneShotParticipant | None = None
    starts: int = 0

    @property
    def name(self) -> str:
        """Of the node."""
        return client_name(self.number)

    @property
    def identity(self) -> bytes:
        """Public identity key."""
        return self.cast.clients[self.number].public_bytes

    def start(self, port: NetworkCoordinator, wrapped: CoordinatorPort | None = None) -> asyncio.Task[None]:
        """Begin a process that takes part until nothing more is asked of it; ``wrapped`` alters what it sends."""
        process = self.begin()
        self.starts += 1
        return process.spawn(self._run(process, port, wrapped or port))

    async def _run(self, process: Process, port: NetworkCoordinator, used: CoordinatorPort) -> None:
        try:
            await self._take_part(process, port, used)
        except ProtocolError as error:
            self.heard(self.number, "refused", error.reason.name)
        except ArithmeticInputError as error:
            self.heard(self.number, "cannot encode", str(error))
        finally:
            if self.process is process:
                self.process = None

    async def _take_part(self, process: Process, port: NetworkCoordinator, used: CoordinatorPort) -> None:
        trust = LogTrust(self.cast.log_policy, self.memory)
        view = await self._first_view(port, trust)
        ports = ParticipantPorts(
            store=ProcessStore(self.disk, process),
            blobs=self.disk.blobs,
            coordinator=used,
            rng=SeededRng(self.cast.plan.seed, self.name, self.starts),
            progress=lambda milestone: self.heard(self.number, "milestone", _NAMES[milestone]),
        )
        participant = self._participant(ports, trust)
        self.participant = participant
        await participant.join(view)
        await participant.run()

    async def _first_view(self, port: NetworkCoordinator, trust: LogTrust) -> log.LogView:
        parameters = self.cast.session.parameters
        while True:
            seen = trust.seen()
            try:
                evidence, consistency = await port.files(seen.size)
            except TransportError:
                await asyncio.sleep(_RETRY_S)
                continue
            # Once for all clients of the simulation: what they are shown is the same.
            view = self.cast.session.once(log.join, parameters, trust.policy, evidence)
            trust.accept(seen, view, evidence, consistency)
            return view

    def _participant(self, ports: ParticipantPorts, trust: LogTrust) -> PairwiseParticipant | OneShotParticipant:
        key, session = self.cast.clients[self.number], self.cast.session
        policy, log_policy = self.cast.client_policy, self.cast.log_policy
        match session:
            case PairwiseSession():
                context = ClientContext(key, session, policy, log_policy)
                return PairwiseParticipant(context, self.vector, ports, trust)
            case OneShotSession():
                one_shot = OneShotClientContext(key, session, policy, log_policy)
                return OneShotParticipant(one_shot, self.vector, ports, trust, None)


_NAMES = {milestone: milestone.name.lower() for milestone in Milestone}
