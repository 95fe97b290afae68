"""Does to a simulated world what operations say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_never

from secagg.runtime.participant import CoordinatorPort
from simulations.exploring.client_lies import LyingPort
from simulations.exploring.forgeries import TwoFacedFront
from simulations.exploring.member_lies import FalseMember
from simulations.exploring.operations import (
    Advance,
    Betray,
    ClientLie,
    Crash,
    Delay,
    Drop,
    DropPhase,
    Duplicate,
    Equivocate,
    Forge,
    Join,
    Kill,
    Lie,
    Lose,
    MemberLie,
    Operation,
    Part,
    Partition,
    Reorder,
    Replay,
    Restart,
    Side,
)
from simulations.world.cast import client_name
from simulations.world.clients import ClientNode
from simulations.world.coordinator import CoordinatorNode
from simulations.world.members import Committee, MemberNode, NetworkMember
from simulations.world.network import Call, Event, Line, Mishap
from simulations.world.witnesses import WitnessNode
from simulations.world.world import World

CALLS_OF = {
    DropPhase.ADVERTISE_KEYS: ("AdvertiseKeys", "AdvertiseKeys"),
    DropPhase.SHARE_KEYS: ("ShareKeys", "ShareKeys"),
    DropPhase.MASKED_INPUT: ("announce", "deliver"),
    DropPhase.CONSISTENCY_CHECK: ("ConfirmClose", "ConfirmClose"),
    DropPhase.UNMASK: ("UnmaskAnswer", "UnmaskAnswer"),
}
"""The first and the last call of a client in a phase."""

_ROUGH = Line(1.0, 1.2)
"""While messages overtake each other: half of them take more than a second, one in twenty more than seven."""


class LastRequests:
    """An ``Observer`` that keeps the last request of each caller and name, to deliver it again."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], tuple[str, Callable[[], Awaitable[object]]]] = {}

    def request(self, call: Call, request: object, handler: Callable[[], Awaitable[object]]) -> None:
        """See ``Observer.request``."""
        del request
        self.kept[call.caller, call.what] = call.target, handler

    def reply(self, call: Call, reply: object) -> None:
        """See ``Observer.reply``."""


class Performer:
    """Performs operations on one world, which it lets lie; to be made before the world is opened.

    Args:
        world: whose front is a ``TwoFacedFront``.
        passing: lets so many seconds pass.
    """

    def __init__(self, world: World, passing: Callable[[float], Awaitable[None]]) -> None:
        self._world = world
        self._passing = passing
        self._requests = LastRequests()
        world.network.observers.append(self._requests)
        self._lies: dict[int, set[ClientLie]] = {}
        self._equivocates: dict[int, set[DropPhase]] = {}
        self._traitors: dict[int, set[MemberLie]] = {node.place: set() for node in world.members}
        self._drops: list[Mishap] = []
        self._is_open = False
        world.coordinator.institutions = Committee([self._member(node) for node in world.members])

    @property
    def gone(self) -> frozenset[str]:
        """Who dropped out for good."""
        return frozenset(mishap.caller for mishap in self._drops if mishap.happened)

    async def perform(self, operation: Operation) -> None:
        """Do one operation. What comes before the first that lets somebody act is done before the world is opened."""
        world = self._world
        match operation:
            case Drop() | Duplicate() | Delay() | Lose():
                self._befall(operation)
            case Join() | Advance() | Kill() | Restart() | Partition() | Replay():
                await self._act(operation)
            case Reorder(seconds):
                self._roughen(seconds)
            case Crash(node, write, when, down_s):
                world.crash_at(node, write, when, down_s)
            case Equivocate(number, phase):
                self._equivocates.setdefault(number, set()).add(phase)
                self._corrupt(number)
            case Forge():
                if isinstance(world.front, TwoFacedFront):
                    world.front.forge = operation
            case Lie(number, lie):
                self._lies.setdefault(number, set()).add(lie)
                self._corrupt(number)
            case Betray(place, betrayal):
                self._traitors[place].add(betrayal)
            case _:
                assert_never(operation)

    def _befall(self, operation: Drop | Duplicate | Delay | Lose) -> None:
        match operation:
            case Drop(number, phase, side):
                event = Event.CALLER_DIES_BEFORE if side is Side.BEFORE else Event.CALLER_DIES_AFTER
                mishap = Mishap(event, client_name(number), CALLS_OF[phase][side is Side.AFTER])
                self._drops.append(mishap)
            case Duplicate(node, call, after_s):
                mishap = Mishap(Event.DUPLICATE, node, call, delay_s=after_s)
            case Delay(node, call, seconds):
                mishap = Mishap(Event.DELAY, node, call, delay_s=seconds)
            case Lose(node, call, part, times):
                event = Event.LOSE_REQUEST if part is Part.REQUEST else Event.LOSE_REPLY
                mishap = Mishap(event, node, call, times)
            case _:
                assert_never(operation)
        self._world.network.mishaps.append(mishap)

    async def _act(self, operation: Join | Advance | Kill | Restart | Partition | Replay) -> None:
        await self.open()
        world = self._world
        match operation:
            case Join(number):
                world.join(number)
            case Advance(seconds):
                await self._passing(seconds)
            case Kill(node):
                world.kill(node)
            case Restart(node):
                await world.restart(node)
            case Partition(seconds, nodes):
                world.cut(frozenset(nodes), seconds)
            case Replay(node, call, after_s):
                kept = self._requests.kept.get((node, call))
                if kept is not None:
                    world.network.repeat(world.nodes[kept[0]], kept[1], after_s)
            case _:
                assert_never(operation)

    async def open(self) -> None:
        """Start everybody but the clients, unless that was done."""
        if not self._is_open:
            self._is_open = True
            await self._world.open()

    async def mend(self) -> None:
        """Whoever is down starts again, but for those who are gone; what is to happen to calls still happens."""
        for name in self._world.nodes:
            if name not in self.gone:
                await self._restart(name)

    async def _restart(self, name: str) -> None:
        node = self._world.nodes[name]
        if not isinstance(node, ClientNode) or node.starts:
            await self._world.restart(name)

    def _roughen(self, seconds: float) -> None:
        nodes: list[ClientNode | MemberNode | WitnessNode | CoordinatorNode] = list(self._world.nodes.values())
        before = [node.line for node in nodes]
        for node in nodes:
            node.line = _ROUGH

        async def smooth() -> None:
            for node, line in zip(nodes, before, strict=True):
                node.line = line

        self._world.later(seconds, smooth)

    def _corrupt(self, number: int) -> None:
        def wrapped(client: ClientNode, port: CoordinatorPort) -> CoordinatorPort:
            lies = frozenset(self._lies.get(number, ()))
            return LyingPort(client, port, lies, frozenset(self._equivocates.get(number, ())))

        self._world.wrapped[number] = wrapped

    def _member(self, node: MemberNode) -> FalseMember:
        world = self._world
        port = NetworkMember(world.coordinator, node, world.network)
        front = world.front
        asked = front.asked_of_member if isinstance(front, TwoFacedFront) else (lambda _place, request: (request,))
        return FalseMember(world.cast, node.place, port, self._traitors[node.place], asked)
