"""Draws scripts from seeds. Unbiased random operations are toothless, so most draws know what is plausible.

Everybody or nearly everybody joins; crashes fall on writes that a session without faults makes; clients drop out where
their messages are handled; calls that are lost, repeated or replayed are calls that are made; liars stay within what
the plan tolerates. One draw in ten knows nothing but what exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

import numpy as np

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
    Forgery,
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
from simulations.exploring.scripts import Script, liars_of, nodes_of, traitors_of
from simulations.world.cast import client_name
from simulations.world.clients import ClientNode
from simulations.world.coordinator import COORDINATOR, CoordinatorNode
from simulations.world.loop import NothingLeftError, run_virtually
from simulations.world.members import MemberNode
from simulations.world.network import Call
from simulations.world.people import PHASE_OF
from simulations.world.plan import CommitteePlan, Plan, Protocol
from simulations.world.randomness import generator
from simulations.world.stores import CrashTime
from simulations.world.world import World

PHASE_S = 300
"""Deadlines of drawn sessions, in seconds."""
WILD = 0.1
"""One draw in so many knows nothing of what is plausible."""

_ItemT = TypeVar("_ItemT")
_COMMITTEES = (CommitteePlan(4, 3, 1), CommitteePlan(5, 4, 2), CommitteePlan(7, 5, 2))
_PHASES = {
    Protocol.PAIRWISE: tuple(DropPhase),
    Protocol.ONE_SHOT: (DropPhase.MASKED_INPUT,),
}
_LIES = {
    Protocol.PAIRWISE: tuple(ClientLie),
    Protocol.ONE_SHOT: (
        ClientLie.WRONG_LENGTH,
        ClientLie.OTHER_SESSION,
        ClientLie.ALTERED_UPLOAD,
        ClientLie.WRONG_LINEAR_HASH,
        ClientLie.OMITTED_BOXES,
        ClientLie.GARBLED_BOXES,
    ),
}


class Draw:
    """Draws values; the same for the same seed and names."""

    def __init__(self, seed: int, *names: str | int) -> None:
        self._generator = generator(seed, *names)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self._generator.random() < probability)

    def upto(self, most: int) -> int:
        """From 0 to ``most``, both included."""
        return int(self._generator.integers(0, most + 1))

    def among(self, items: Sequence[_ItemT]) -> _ItemT:
        """One of them."""
        return items[self.upto(len(items) - 1)]

    def some(self, items: Sequence[_ItemT], most: int) -> list[_ItemT]:
        """From none to ``most`` different ones, in their order."""
        count = min(self.upto(most), len(items))
        chosen = self._generator.choice(len(items), size=count, replace=False) if count else np.zeros(0, dtype=np.int64)
        return [items[int(at)] for at in sorted(chosen)]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a session without faults does.

    Attributes:
        writes: of each node that has a disk.
        calls: name of caller and call, each once, in the order in which they are first made.
    """

    writes: dict[str, int]
    calls: tuple[tuple[str, str], ...]


class _Calls:
    def __init__(self) -> None:
        self.made: dict[tuple[str, str], None] = {}

    def request(self, call: Call, request: object, handler: Callable[[], object]) -> None:
        del request, handler
        self.made[call.caller, call.what] = None

    def reply(self, call: Call, reply: object) -> None:
        del call, reply


@functools.lru_cache(maxsize=64)
def profile_of(protocol: Protocol, clients: int) -> Profile:
    """What happens in a session in which everybody joins and nothing goes wrong."""
    calls = _Calls()
    writes: dict[str, int] = {}

    async def session() -> None:
        plan = Plan(protocol, clients, dimension=8, max_corrupt=1, phase_s=PHASE_S, witnesses=3)
        world = World(plan)
        world.network.observers.append(calls)
        await world.open()
        for number in range(clients):
            world.join(number)
        await world.until_over(10.0 * PHASE_S)
        nodes: list[CoordinatorNode | ClientNode | MemberNode] = [world.coordinator, *world.clients, *world.members]
        writes.update({node.name: node.disk.writes for node in nodes})

    async def main() -> None:
        await asyncio.wait({asyncio.ensure_future(session())})

    # Where machines are so broken that this fails, playing a script will tell.
    with contextlib.suppress(BaseExceptionGroup, NothingLeftError):
        run_virtually(main())
    return Profile(writes or {COORDINATOR: 60}, tuple(calls.made))


def draw_script(seed: int, protocol: Protocol | None = None) -> Script:
    """The script of a seed, of one protocol or of either."""
    draw = Draw(seed, "script")
    plan = _plan(draw, seed, protocol or draw.among(tuple(Protocol)))
    if draw.chance(WILD):
        return _wild(draw, plan)
    return _plausible(draw, plan)


def _plan(draw: Draw, seed: int, protocol: Protocol) -> Plan:
    clients = 4 + draw.upto(4)
    plan = Plan(protocol, clients, dimension=8, seed=seed, max_corrupt=1, phase_s=PHASE_S)
    # Where the minimum is high, a set that is one too small could still be opened.
    minimum = clients - draw.upto(1) if draw.chance(0.3) else 3 + draw.upto(clients - 3)
    plan = replace(plan, min_contributors=minimum)
    plan = replace(plan, witnesses=3 if draw.chance(0.3) else 0)
    if protocol is Protocol.ONE_SHOT:
        return replace(plan, committee=draw.among(_COMMITTEES))
    return replace(plan, expected_dropout=draw.among((Fraction(0), Fraction(1, 10), Fraction(1, 5))))


def _plausible(draw: Draw, plan: Plan) -> Script:
    # One thing at a time more often than three at once: where too much goes wrong nothing is owed to anybody.
    families = [draw.among(_FAMILIES) for _ in range(draw.among((1, 1, 1, 2, 2, 3)))]
    before: list[Operation] = _stragglers(draw, plan) if draw.chance(0.5) else []
    after: list[Operation] = []
    for family in families:
        for operation in family(draw, plan):
            late = isinstance(operation, Partition | Kill | Restart | Replay | Advance)
            (after if late else before).append(operation)
    operations = [*before, *_joins(draw, plan), *after, Advance(draw.among((1, 5, 30, PHASE_S)))]
    return _within(Script(plan, tuple(operations)))


def _within(script: Script) -> Script:
    """Without more liars than the plan tolerates; with the coordinator's own lies none of the clients' are needed."""
    liars = sorted(liars_of(script.operations))[: script.plan.corrupt]
    traitors = sorted(traitors_of(script.operations))[: script.plan.committee.max_corrupt]
    kept = []
    for each in script.operations:
        if isinstance(each, Lie | Equivocate) and each.client not in liars:
            continue
        if isinstance(each, Betray) and each.member not in traitors:
            continue
        kept.append(each)
    return Script(script.plan, tuple(kept))


def _joins(draw: Draw, plan: Plan) -> list[Operation]:
    numbers = list(range(plan.clients))
    if draw.chance(0.1):
        numbers.remove(draw.among(numbers))
    operations: list[Operation] = [Join(number) for number in numbers]
    if draw.chance(0.2):
        operations.insert(draw.upto(len(operations)), Advance(draw.among((1, 10, 10, PHASE_S))))
    return operations


def _writes(plan: Plan) -> dict[str, int]:
    names, profile = nodes_of(plan), profile_of(plan.protocol, plan.clients)
    return {name: count for name, count in profile.writes.items() if name in names and count}


def _made_calls(plan: Plan) -> list[tuple[str, str]]:
    """Caller and name of what is called in the course of a session, without what goes on all the time."""
    names, profile = nodes_of(plan), profile_of(plan.protocol, plan.clients)
    made = [each for each in profile.calls if each[0] in names and each[1] not in {"status", "watch", "files"}]
    return made or [(COORDINATOR, "member-join")]


def _crashes(draw: Draw, plan: Plan) -> list[Operation]:
    writes = _writes(plan)
    operations: list[Operation] = []
    for _ in range(1 + draw.upto(2)):
        node = COORDINATOR if draw.chance(0.5) else draw.among(tuple(writes))
        write = 1 + draw.upto(writes[node] - 1)
        when = draw.among(tuple(CrashTime))
        operations.append(Crash(node, write, when, draw.among((0, 1, 10, PHASE_S))))
    return operations


def _stragglers(draw: Draw, plan: Plan) -> list[Operation]:
    """Some message of a client or two comes later than the others': what happens meanwhile happens within a phase."""
    names = [client_name(number) for number in draw.some(range(plan.clients), 2)]
    return [Delay(name, draw.among(_said(plan, name)), draw.among((2, 10))) for name in names]


def _said(plan: Plan, caller: str) -> list[str]:
    """Names of the messages that somebody sends, without what is asked for."""
    made = [call for name, call in _made_calls(plan) if name == caller]
    return [call for call in made if call in PHASE_OF or call.startswith("member-")] or made or ["outcome"]


def _disturbed(draw: Draw, plan: Plan) -> tuple[str, str]:
    """Caller and name of a call that something happens to: mostly one that says something."""
    node, call = draw.among(_made_calls(plan))
    return (node, draw.among(_said(plan, node))) if draw.chance(0.7) else (node, call)


def _drops(draw: Draw, plan: Plan) -> list[Operation]:
    numbers = draw.some(range(plan.clients), 2) or [draw.upto(plan.clients - 1)]
    # Those who have shared keys and do not contribute are the ones whose masks have to be taken out again.
    phases = (*_PHASES[plan.protocol], DropPhase.MASKED_INPUT, DropPhase.MASKED_INPUT)
    return [Drop(number, draw.among(phases), draw.among(tuple(Side))) for number in numbers]


def _mishaps(draw: Draw, plan: Plan) -> list[Operation]:
    operations: list[Operation] = []
    for _ in range(1 + draw.upto(3)):
        node, call = _disturbed(draw, plan)
        match draw.upto(2):
            case 0:
                operations.append(Duplicate(node, call, draw.among((0, 1, 10, PHASE_S))))
            case 1:
                operations.append(Delay(node, call, draw.among((1, 10, 25, PHASE_S))))
            case _:
                operations.append(Lose(node, call, draw.among(tuple(Part)), 1 + draw.upto(2)))
    return operations


def _twice(draw: Draw, plan: Plan) -> list[Operation]:
    """A message of one client comes twice before the same of another comes at all: the phase is still open."""
    one, other = client_name(draw.upto(plan.clients - 1)), client_name(draw.upto(plan.clients - 1))
    call = draw.among(_said(plan, one))
    return [Duplicate(one, call, draw.among((0, 1))), Delay(other, call, draw.among((5, 20)))]


def _weather(draw: Draw, plan: Plan) -> list[Operation]:
    names = list(nodes_of(plan))
    operations: list[Operation] = [Reorder(draw.among((5, 30, PHASE_S)))] if draw.chance(0.5) else []
    if draw.chance(0.6):
        cut = draw.some(names, 3) or [COORDINATOR]
        operations += [Advance(draw.upto(2)), Partition(draw.among((5, 40, PHASE_S)), tuple(cut))]
    return operations


def _replays(draw: Draw, plan: Plan) -> list[Operation]:
    operations: list[Operation] = [Advance(draw.among((1, 2, 3, 10)))]
    for _ in range(1 + draw.upto(2)):
        node, call = _disturbed(draw, plan)
        operations.append(Replay(node, call, draw.among((0, 5, PHASE_S))))
    return operations


def _lies(draw: Draw, plan: Plan) -> list[Operation]:
    liar = draw.upto(plan.clients - 1)
    if draw.chance(0.4):
        return [Equivocate(liar, draw.among(_PHASES[plan.protocol]))]
    lies = _LIES[plan.protocol]
    return [Lie(liar, lie) for lie in draw.some(lies, 2) or [draw.among(lies)]]


def _betrayals(draw: Draw, plan: Plan) -> list[Operation]:
    if plan.protocol is not Protocol.ONE_SHOT:
        return _lies(draw, plan)
    members = draw.some(range(plan.committee.members), plan.committee.max_corrupt)
    return [Betray(member, draw.among(tuple(MemberLie))) for member in members]


def _forgery(draw: Draw, plan: Plan) -> list[Operation]:
    return [Forge(draw.among((*Forgery, Forgery.TINY)), draw.upto(plan.clients - 1))]


def _kills(draw: Draw, plan: Plan) -> list[Operation]:
    names = [name for name in nodes_of(plan) if not name.startswith("client")]
    names += [client_name(number) for number in range(plan.clients)]
    node = draw.among(names)
    pause_s = draw.among((0, 1, 10, PHASE_S))
    return [Advance(draw.upto(3)), Kill(node), Advance(pause_s), Restart(node)]


_FAMILIES = (
    *(_crashes, _crashes, _drops, _drops, _mishaps, _twice, _weather),
    *(_replays, _lies, _lies, _betrayals, _forgery, _forgery, _kills),
)


def _wild(draw: Draw, plan: Plan) -> Script:
    """Any operations about anybody, in any order."""
    operations = []
    for _ in range(4 + draw.upto(16)):
        number, node = draw.upto(plan.clients - 1), draw.among(nodes_of(plan))
        phase, seconds = draw.among(tuple(DropPhase)), draw.upto(2 * PHASE_S)
        call = draw.among(_made_calls(plan))[1]
        choices: list[Operation] = [
            Join(number),
            Join(number),
            Join(number),
            Join(number),
            Advance(seconds),
            Drop(number, phase, draw.among(tuple(Side))),
            Duplicate(node, call, seconds),
            Reorder(seconds),
            Delay(node, call, seconds),
            Lose(node, call, draw.among(tuple(Part)), 1 + draw.upto(5)),
            Kill(node),
            Restart(node),
            Partition(seconds, tuple(draw.some(nodes_of(plan), 4)) or (node,)),
            Equivocate(number, phase),
            Forge(draw.among(tuple(Forgery)), number),
            Replay(node, call, seconds),
            Lie(number, draw.among(tuple(ClientLie))),
        ]
        if not node.startswith("witness"):
            choices.append(Crash(node, 1 + draw.upto(80), draw.among(tuple(CrashTime)), seconds))
        if plan.protocol is Protocol.ONE_SHOT:
            member = draw.upto(plan.committee.members - 1)
            choices.append(Betray(member, draw.among(tuple(MemberLie))))
        operations.append(draw.among(choices))
    return _within(Script(plan, tuple(operations)))
