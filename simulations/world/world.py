"""The simulated world: a coordinator, clients, members and witnesses on one network, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import coordinator_states as one_shot_states
from secagg.protocol.pairwise import coordinator_states as pairwise_states
from secagg.protocol.phases import Phase
from secagg.runtime.participant import CoordinatorPort
from secagg.transcript.entries import SessionAbort, SessionEntry, decode_entry
from simulations.world.cast import ONE, START_S, Cast, client_name
from simulations.world.clients import ClientNode, NetworkCoordinator
from simulations.world.coordinator import CoordinatorNode, Front
from simulations.world.members import Committee, MemberNode, NetworkMember
from simulations.world.network import Network
from simulations.world.people import Person, Window
from simulations.world.plan import Plan
from simulations.world.process import Process
from simulations.world.randomness import generator
from simulations.world.stores import CrashTime
from simulations.world.witnesses import NetworkCosigners, WitnessNode

AnyNode: TypeAlias = CoordinatorNode | ClientNode | MemberNode | WitnessNode
Wrapped: TypeAlias = Callable[[ClientNode, CoordinatorPort], CoordinatorPort]
"""What a client's process is given instead of its port: a liar's."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened. ``at_s`` is virtual time from the start; ``node`` is who."""

    at_s: float
    node: str
    what: str
    detail: str = ""


class LoopClock:
    """The wall clock of everybody in the world."""

    def now_s(self) -> int:
        """Seconds since the epoch, rounded down."""
        return START_S + int(asyncio.get_running_loop().time())


class World:
    """One session, its people and its machines. To be used inside ``run_virtually``.

    Attributes:
        cast: keys and parameters.
        network: carries all calls; faults are given to it.
        coordinator, clients, members, witnesses: the machines.
        front: what the coordinator does with calls; a lying coordinator has another one.
        wrapped: what clients that lie are given instead of their port, by number.
        happenings: what happened, in order.
    """

    def __init__(self, plan: Plan, front: Callable[[CoordinatorNode], Front] = Front) -> None:
        self.cast = Cast.of(plan)
        self.network = Network(generator(plan.seed, "network"), self._is_cut, self.kill)
        clock = LoopClock()
        self.members = [MemberNode(self.cast, place, clock) for place in range(len(self.cast.members))]
        self.witnesses = [WitnessNode(self.cast, number, clock) for number in range(plan.witnesses)]
        self.coordinator = CoordinatorNode(
            cast=self.cast,
            clock=clock,
            institutions=Committee([]),
            cosigners=self._cosigners,
            report=lambda event, reason: self.note("coordinator", event, reason),
        )
        self.coordinator.institutions = Committee(
            [NetworkMember(self.coordinator, member, self.network) for member in self.members]
        )
        self.front = front(self.coordinator)
        self.clients = [
            ClientNode(self.cast, number, self.cast.one_hot(number), self.coordinator, self._heard)
            for number in range(plan.clients)
        ]
        self.wrapped: dict[int, Wrapped] = {}
        self.happenings: list[Happening] = []
        nodes: list[AnyNode] = [self.coordinator, *self.clients, *self.members, *self.witnesses]
        self.nodes = {node.name: node for node in nodes}
        self._cuts: list[tuple[frozenset[str], float]] = []
        self._offline: dict[str, tuple[Window, ...]] = {}
        self._background = Process("world")

    @property
    def plan(self) -> Plan:
        """The numbers."""
        return self.cast.plan

    @property
    def now_s(self) -> float:
        """Virtual time since the start, in seconds."""
        return asyncio.get_running_loop().time()

    # What can be done to it.

    async def open(self) -> None:
        """Start witnesses, members and coordinator."""
        nodes: list[CoordinatorNode | MemberNode | WitnessNode] = [*self.witnesses, *self.members, self.coordinator]
        for node in nodes:
            await node.start()

    def join(self, number: int) -> None:
        """Start the process of a client; it stays until nothing more is asked of it."""
        client = self.clients[number]
        if client.process is not None:
            return
        self.note(client.name, "starts")
        port = NetworkCoordinator(client, lambda: self.front, self.network)
        wrap = self.wrapped.get(number)
        client.start(port, None if wrap is None else wrap(client, port))

    def expect(self, number: int, person: Person) -> None:
        """Let a client come as this person: at its time, over its line, offline when it is, to drop where it does."""
        client = self.clients[number]
        client.line = person.line
        self._offline[client.name] = person.offline
        if person.drop is not None:
            self.network.mishaps.append(person.drop.mishap(client.name))
        self.later(person.arrives_s, lambda: self.restart(client.name))

    def kill(self, name: str) -> None:
        """End a node's process at once."""
        if self.nodes[name].process is not None:
            self.note(name, "dies", self.phase.value if self.coordinator.is_up else "")
        self.nodes[name].kill()

    async def restart(self, name: str) -> None:
        """Start a node again that is down."""
        node = self.nodes[name]
        if node.process is not None:
            return
        if isinstance(node, ClientNode):
            self.join(node.number)
            return
        self.note(name, "starts")
        await node.start()

    def crash_at(self, name: str, write: int, when: CrashTime, down_s: float | None = None) -> None:
        """Kill a node at one of its next writes (counted from 1), and start it again after ``down_s``."""
        node = self.nodes[name]
        if isinstance(node, WitnessNode):
            raise TypeError("a witness writes once for each checkpoint: kill it instead")

        def crash() -> None:
            self.kill(name)
            if down_s is not None:
                self.later(down_s, lambda: self.restart(name))

        node.disk.crash_at(write, when, crash)

    def cut(self, names: frozenset[str], seconds: float) -> None:
        """For so long, nobody in ``names`` hears anybody outside, and the other way round."""
        self._cuts.append((names, self.now_s + seconds))

    def later(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do something at a later time, whoever dies meanwhile."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            await work()

        self._background.spawn(wait())

    async def until_over(self, most_s: float) -> bool:
        """Let time pass until the session has ended and every client is done; False if ``most_s`` was not enough."""
        end_s = self.now_s + most_s
        while self.now_s < end_s:
            if self.is_over and not any(client.process for client in self.clients):
                return True
            await asyncio.sleep(min(1.0, end_s - self.now_s))
        return self.is_over

    # What can be seen of it.

    @property
    def is_over(self) -> bool:
        """Whether the coordinator is up and the session has ended there."""
        return self.coordinator.is_up and self.coordinator.host.is_over

    @property
    def phase(self) -> Phase:
        """The phase that the coordinator is in. Raises TransportError while it is down."""
        return self.coordinator.host.status().phase

    def entries(self) -> list[SessionEntry]:
        """The session's entries in the log that the coordinator shows."""
        evidence = self.coordinator.host.evidence()
        session = self.cast.session.parameters.session
        decoded = map(decode_entry, evidence.entries)
        return [entry for entry in decoded if isinstance(entry, SessionEntry) and entry.session == session]

    def aborted_because(self) -> str | None:
        """Why the session was aborted; None if it was not."""
        return next((entry.reason for entry in self.entries() if isinstance(entry, SessionAbort)), None)

    def accepted(self) -> frozenset[int]:
        """Numbers of the clients in the closed set of the coordinator's host; none while there is no such set."""
        state = self.coordinator.host.driver.state
        while isinstance(state, pairwise_states.Publishing | one_shot_states.Publishing):
            state = state.then
        match state:
            case pairwise_states.Recovering(unmasking=inner) | one_shot_states.Recovering(opening=inner):
                state = inner
        positions = getattr(state, "accepted", None)
        if positions is None:
            return frozenset()
        cohort = getattr(state, "cohort", None)
        members = self.cast.session.roster.members
        places = positions if cohort is None else [cohort.positions[index] for index in positions]
        return frozenset(self.cast.numbers[members[place].identity] for place in places)

    def integer_sum(self) -> npt.NDArray[np.int64] | None:
        """The published sum, if there is one."""
        try:
            digest = self.coordinator.host.integer_sum()
        except RemoteProtocolError as error:
            if error.reason is not RejectReason.WRONG_PHASE:
                raise
            return None
        return np.frombuffer(self.coordinator.disk.blobs.get(digest), dtype="<i8").astype(np.int64)

    def expected_sum(self, numbers: frozenset[int]) -> npt.NDArray[np.int64]:
        """The sum of one-hot vectors of these clients, in units of the integer sum."""
        total = np.zeros(self.plan.dimension, dtype=np.int64)
        for number in numbers:
            total[number % self.plan.dimension] += ONE
        return total

    def note(self, node: str, what: str, detail: str = "") -> None:
        """Write down that something happened."""
        self.happenings.append(Happening(round(self.now_s, 6), node, what, detail))

    def _heard(self, number: int, what: str, detail: str) -> None:
        self.note(client_name(number), what, detail)

    def _is_cut(self, caller: str, target: str) -> bool:
        now_s = self.now_s
        for name in (caller, target):
            if any(window.start_s <= now_s < window.end_s for window in self._offline.get(name, ())):
                return True
        return any(until_s > now_s and (caller in names) != (target in names) for names, until_s in self._cuts)

    def _cosigners(self, _process: Process) -> NetworkCosigners:
        return NetworkCosigners(self.coordinator, self.witnesses, self.network, self.plan.quorum)
