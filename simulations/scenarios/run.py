"""Play a scenario to its end and say what came of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from secagg.protocol.phases import Phase
from simulations.judging.invariants import Watch
from simulations.judging.knowledge import View
from simulations.judging.linear import LinearLimitError
from simulations.judging.record_check import check_record
from simulations.scenarios.outcome import CallTraffic, ClientFate, Note, Outcome, PhaseTime
from simulations.scenarios.scenario import Crash, Cut, Fault, Scenario
from simulations.world.cast import client_name
from simulations.world.loop import run_virtually
from simulations.world.people import PHASE_OF, Person
from simulations.world.plan import Plan, Protocol
from simulations.world.world import World

Progress = Callable[[float, int, int], None]
"""Told of the virtual time, how many clients have done all they will, and how many there are."""

_GRACE_S = 3600.0
"""How long clients may still find out how a session ended."""

_SHOWN_PHASE = {
    "files": Phase.ADVERTISE_KEYS,
    "advertised_list": Phase.SHARE_KEYS,
    "shared_list": Phase.MASKED_INPUT,
    "receipt": Phase.MASKED_INPUT,
    "closed_list": Phase.CONSISTENCY_CHECK,
    "confirmations": Phase.UNMASK,
    "outcome": Phase.FINISHED,
    "member-log-size": Phase.HOLD_SHARES,
    "member-join": Phase.HOLD_SHARES,
    "member-hold": Phase.HOLD_SHARES,
    "member-open": Phase.OPEN_SUM,
} | PHASE_OF
"""The phase that a call belongs to; watching and cosigning belong to none."""


def play(scenario: Scenario, progress: Progress = lambda *_: None) -> Outcome:
    """Simulate a scenario. Deterministic: the same scenario gives the same outcome."""
    return run_virtually(_play(scenario, progress))


async def _play(scenario: Scenario, progress: Progress) -> Outcome:
    world = World(scenario.plan)
    view = View(world.cast, range(scenario.plan.corrupt), range(_corrupt_members(scenario.plan)))
    world.network.observers.append(view)
    watch = Watch(world)
    if scenario.capacity is not None:
        world.network.capacities[world.coordinator.name] = scenario.capacity
    people = scenario.people()
    phases = _PhaseWatch(world)
    await world.open()
    for number, person in enumerate(people):
        world.expect(number, person)
    for fault in scenario.faults:
        _arrange(world, fault)
    limit_s = 6.0 * scenario.plan.phase_s + max(person.arrives_s for person in people) + _GRACE_S
    await _until_over(world, phases, limit_s, progress)
    record = check_record(world)
    return dataclasses.replace(
        _outcome(world, scenario, people, phases),
        learned=_learned(view),
        violations=tuple(map(str, watch.check())),
        record={"verdict": record.verdict.value, "failed": list(record.failed), "findings": list(record.findings)},
    )


def _corrupt_members(plan: Plan) -> int:
    return plan.committee.max_corrupt if plan.protocol is Protocol.ONE_SHOT else 0


def _learned(view: View) -> tuple[str, ...]:
    """What the coordinator and its helpers can compute, in words."""
    try:
        return view.explain()
    except LinearLimitError as error:
        return (f"not decided: {error}",)


async def _until_over(world: World, phases: _PhaseWatch, limit_s: float, progress: Progress) -> None:
    total = world.plan.clients
    while world.now_s < limit_s:
        running = sum(client.process is not None for client in world.clients)
        progress(world.now_s, total - running, total)
        if world.is_over and not running:
            return
        await phases.look()


class _PhaseWatch:
    """Notes when phases begin, as long as somebody looks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.began: list[tuple[str, float]] = []

    async def look(self) -> None:
        """Note the phase there is, and wait for the next or for a second."""
        world = self._world
        if not world.coordinator.is_up:
            await asyncio.sleep(1.0)
            return
        moved_on, phase = world.coordinator.host.moved_on, world.phase.value
        if not self.began or self.began[-1][0] != phase:
            self.began.append((phase, world.now_s))
        await asyncio.wait({moved_on}, timeout=1.0)

    def times(self, until_s: float) -> tuple[PhaseTime, ...]:
        """Phases that lasted, the last of them until a time."""
        ends = [began_s for _, began_s in self.began[1:]] + [until_s]
        return tuple(
            PhaseTime(phase, _rounded(began_s), _rounded(end_s - began_s))
            for (phase, began_s), end_s in zip(self.began, ends, strict=True)
            if phase not in {Phase.FINISHED.value, Phase.ABORTED.value}
        )

    @property
    def ended_s(self) -> float | None:
        """When the session ended."""
        over = {Phase.FINISHED.value, Phase.ABORTED.value}
        return next((began_s for phase, began_s in self.began if phase in over), None)


def _arrange(world: World, fault: Fault) -> None:
    """Let a fault come at its time."""

    async def crash(crash: Crash) -> None:
        if crash.write is not None:
            world.crash_at(crash.node, crash.write, crash.when, crash.down_s)
            return
        world.kill(crash.node)
        if crash.down_s is not None:
            world.later(crash.down_s, lambda: world.restart(crash.node))

    async def cut(cut: Cut) -> None:
        lowest = [client_name(number) for number in range(round(cut.share * world.plan.clients))]
        world.note("network", "cut", f"{len(lowest) + len(cut.nodes)} nodes for {cut.seconds:g} s")
        world.cut(frozenset((*cut.nodes, *lowest)), cut.seconds)

    match fault:
        case Crash():
            world.later(fault.at_s, lambda: crash(fault))
        case Cut():
            world.later(fault.at_s, lambda: cut(fault))


def _outcome(world: World, scenario: Scenario, people: list[Person], phases: _PhaseWatch) -> Outcome:
    total = world.integer_sum()
    counted = world.accepted() if total is not None else frozenset[int]()
    reason = world.aborted_because() if world.is_over else None
    ended = "unfinished" if not world.is_over else "finished" if reason is None else "aborted"
    ended_s = phases.ended_s if phases.ended_s is not None else world.now_s
    is_right = None if total is None else bool(np.array_equal(total, world.expected_sum(counted)))
    return Outcome(
        scenario=described(scenario),
        ended=ended,
        reason=reason or "",
        seconds=_rounded(ended_s),
        counted=len(counted),
        sum_is_right=is_right,
        record={},
        violations=(),
        learned=(),
        phases=phases.times(ended_s),
        traffic=_traffic(world),
        clients=_fates(world, people, counted),
        notes=tuple(
            Note(each.at_s, each.node, each.what, each.detail)
            for each in world.happenings
            if not each.node.startswith("client-")
        ),
    )


def described(scenario: Scenario) -> dict[str, Any]:
    """Name, sentence and numbers of a scenario, as JSON has them."""
    return {
        "name": scenario.name,
        "about": scenario.about,
        "plan": _plain(scenario.plan) | {"minimum": scenario.plan.minimum, "corrupt": scenario.plan.corrupt},
        "dropouts": [{"model": type(each).__name__, **_plain(each)} for each in scenario.dropouts],
        "lines": {"model": type(scenario.lines).__name__, **_plain(scenario.lines)},
        "faults": [{"fault": type(each).__name__, **_plain(each)} for each in scenario.faults],
        "spread_s": scenario.spread_s,
        "capacity": scenario.capacity,
    }


def _plain(value: object) -> Any:  # noqa: ANN401
    match value:
        case Phase():
            return value.value
        case Fraction():
            return str(value)
        case Mapping():
            return {str(_plain(key)): _plain(each) for key, each in value.items()}
        case tuple() | list():
            return [_plain(each) for each in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value


def _traffic(world: World) -> tuple[CallTraffic, ...]:
    return tuple(
        CallTraffic(
            caller,
            call,
            _phase_of(world.plan.protocol, call),
            traffic.calls,
            traffic.request_bytes,
            traffic.reply_bytes,
        )
        for (caller, call), traffic in sorted(world.network.traffic.items())
    )


def _phase_of(protocol: Protocol, call: str) -> str:
    """The phase that a call belongs to; whoever joins a one-shot session contributes at once."""
    phase = _SHOWN_PHASE.get(call)
    if phase is Phase.ADVERTISE_KEYS and protocol is Protocol.ONE_SHOT:
        phase = Phase.MASKED_INPUT
    return "" if phase is None else phase.value


def _fates(world: World, people: list[Person], counted: frozenset[int]) -> tuple[ClientFate, ...]:
    arrived: dict[str, float] = {}
    last: dict[str, tuple[float, str, str]] = {}
    for each in world.happenings:
        if each.what == "starts":
            arrived.setdefault(each.node, each.at_s)
        last[each.node] = each.at_s, each.what, each.detail
    fates = []
    for number, person in enumerate(people):
        name = client_name(number)
        at_s, what, detail = last.get(name, (None, "", ""))
        phase = detail if what == "dies" else ""
        fates.append(
            ClientFate(
                number,
                arrived.get(name),
                "counted" if number in counted else _fate(what, detail),
                at_s,
                phase,
                person.region,
            )
        )
    return tuple(fates)


def _fate(what: str, detail: str) -> str:
    """Of a client that is not in the sum, by the last that was heard of it."""
    match what:
        case "":
            return "never came"
        case "dies":
            return "dropped"
        case "refused":
            return f"refused: {detail}"
        case _:
            return "left out"


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
