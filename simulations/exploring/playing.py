"""Plays scripts and judges them: invariants after every operation and while time passes, and once all could finish."""

from __future__ import annotations

import asyncio
import gc
import math
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from simulations.exploring import expectations
from simulations.exploring.expectations import Finding
from simulations.exploring.forgeries import TwoFacedFront
from simulations.exploring.operations import Forge
from simulations.exploring.performing import Performer
from simulations.exploring.scripts import Script, liars_of, traitors_of
from simulations.judging.invariants import Honesty, Violation, Watch
from simulations.world.clients import ClientNode
from simulations.world.coordinator import CoordinatorNode
from simulations.world.loop import NothingLeftError, run_virtually
from simulations.world.members import MemberNode
from simulations.world.world import World

_STEP_S = 1.0
_FIRST_STEP_S = 0.1
"""While something happens, time passes in small steps: between two checks there is no more than one phase."""


@dataclass(frozen=True, slots=True)
class Fine:
    """Nothing was violated. ``ended`` is "finished" or "aborted: " and why."""

    ended: str


Verdict: TypeAlias = Finding | Fine


def run_script(script: Script) -> Verdict:
    """Play a script in a virtual loop of its own; the same script gives the same verdict."""

    async def main() -> Verdict:
        play = asyncio.ensure_future(_Play(script).run())
        await asyncio.wait({play})
        error = play.exception()
        return play.result() if error is None else _failure(error)

    try:
        verdict = run_virtually(main())
    except NothingLeftError as error:
        return Finding("never-hangs", str(error))
    except BaseExceptionGroup as group:
        return _failure(group.exceptions[0])
    return verdict


def _failure(error: BaseException) -> Finding:
    """An exception out of the machines, without what differs between runs: digests of boxes."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "secagg" in frame.filename] or list(frames)
    where = f"{ours[-1].name}: {ours[-1].line}" if ours else "nowhere"
    return Finding("no-errors", f"{type(error).__name__} in {where}")


class _Play:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._world = World(script.plan, front=TwoFacedFront)
        self._performer = Performer(self._world, self._pass)
        self._found: Finding | None = None
        self._marks: tuple[int, ...] = ()
        self._forged = any(isinstance(each, Forge) for each in script.operations)
        self._watch = Watch(
            self._world,
            clients=liars_of(script.operations),
            members=traitors_of(script.operations),
            coordinator=Honesty.LIES if self._forged else Honesty.HONEST,
        )

    async def run(self) -> Verdict:
        for operation in self._script.operations:
            await self._performer.perform(operation)
            self._check()
            if self._found is not None:
                return self._found
        await self._performer.open()
        await self._performer.mend()
        await self._finish()
        if self._found is None:
            self._take(self._watch.check_end())
        found = self._found or expectations.at_the_end(self._world, self._script)
        # What nobody waits for and failed is told when it is forgotten.
        gc.collect()
        return Fine(_ending(self._world)) if found is None else found

    async def _pass(self, seconds: float) -> None:
        end_s, step_s = self._world.now_s + seconds, _FIRST_STEP_S
        while self._found is None and self._world.now_s < end_s:
            before = self._marks
            await asyncio.sleep(min(step_s, end_s - self._world.now_s))
            self._check()
            step_s = _FIRST_STEP_S if self._marks != before else min(_STEP_S, 2 * step_s)

    async def _finish(self) -> None:
        """Let deadlines pass until the session is over and every client is done, or nobody would wait any longer."""
        plan = self._script.plan
        held_up_s = sum(filter(math.isfinite, map(expectations.lost_s, self._script.operations)))
        end_s = self._world.now_s + (plan.phase_s if self._forged else 8 * plan.phase_s + 600 + held_up_s)
        while self._found is None and self._world.now_s < end_s:
            if self._world.is_over and not any(client.process for client in self._world.clients):
                return
            await self._pass(_STEP_S)

    def _check(self) -> None:
        world = self._world
        nodes: list[CoordinatorNode | ClientNode | MemberNode] = [world.coordinator, *world.clients, *world.members]
        marks = (len(world.happenings), *(node.disk.writes for node in nodes))
        if marks == self._marks:
            return
        self._marks = marks
        self._take(self._watch.check())
        if self._found is None:
            self._found = expectations.one_close_answered(self._watch)

    def _take(self, violations: Sequence[Violation]) -> None:
        if violations and self._found is None:
            self._found = Finding(violations[0].invariant, violations[0].detail)


def _ending(world: World) -> str:
    if not world.is_over:
        return "open"
    reason = world.aborted_because()
    return "finished" if reason is None else f"aborted: {reason}"
