"""The course of a demo session: what is the same in every protocol, and what each says for itself."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secagg.cli.demo_client import Task
from secagg.cli.demo_merge import DemoMerge
from secagg.cli.demo_noise import DemoNoise
from secagg.cli.demo_plan import DemoFailedError, DemoPlan
from secagg.cli.demo_site import Pins, Site
from secagg.cli.output import Rows
from secagg.protocol.phases import Phase
from secagg.remote import GrpcCoordinator
from secagg.remote_operator import end_phase

Say = Callable[[str], None]
CALL_S = 30.0


@dataclass(frozen=True)
class Running:
    """A session that is open: ``contributions`` each end with the process of a contributor."""

    port: GrpcCoordinator
    site: Site
    session: bytes
    contributions: Sequence[Coroutine[Any, Any, None]]

    async def end_phase(self, phase: Phase) -> None:
        """What ``secagg session end-phase`` does: go on with whoever has acted."""
        await end_phase(self.site.state, self.session, phase, CALL_S)


@dataclass(frozen=True, slots=True)
class Opened:
    """Who opened the sum, for programs and for people; nothing where no institution did."""

    value: dict[str, Any] = field(default_factory=dict)
    rows: Rows = ()


class Course(abc.ABC):
    """What a demo of one protocol does.

    Attributes:
        plan: its numbers.
        merge: how adapters are merged, and which.
        noise: what contributors add, if they do.
    """

    def __init__(self, plan: DemoPlan, say: Say, merge: DemoMerge, noise: DemoNoise | None = None) -> None:
        self.plan = plan
        self.merge = merge
        self.noise = noise
        self._say = say

    @staticmethod
    def check_installed() -> None:
        """Raise HeUnavailableError if something is missing that this protocol needs."""
        return

    @staticmethod
    @abc.abstractmethod
    def planned(clients: int, drop: int | None) -> DemoPlan:
        """A plan for so many clients of which so many drop out; None for two, or as many as can. Raises DemoError."""

    @property
    def enrolled(self) -> int:
        """How many identities are in the roster; more than there are clients, if some are never to come."""
        return self.plan.clients

    async def start(self, _site: Site, _stack: contextlib.AsyncExitStack) -> Pins:
        """Start those who open the sum, beside the coordinator; they end with the stack."""
        return Pins()

    def options(self, dimension: int) -> dict[str, object]:
        """Options of ``secagg session open`` beside those that every demo has; noise decides on the bits of a value."""
        bits = {"--value-bits": self._value_bits(dimension)} if self.noise is None else self.noise.options()
        return {**self._own_options(), **bits}

    @abc.abstractmethod
    def _value_bits(self, dimension: int) -> int:
        """The finest quantisation with two values in a lane."""

    @abc.abstractmethod
    def _own_options(self) -> dict[str, object]:
        """Options of ``secagg session open`` that this protocol has."""

    @abc.abstractmethod
    def awaited(self) -> Mapping[Phase, int]:
        """How many act in a phase in which some do not: when they have, it is ended, and no deadline waited for."""

    async def opened(self, _running: Running) -> Opened:
        """Who opened the sum of a session that has ended."""
        return Opened()

    async def conduct(self, running: Running) -> None:
        """Go on until the session has ended.

        Raises:
            DemoFailedError: it was aborted, or a party failed.
        """
        await all_or_none([self._follow(running), self._until_all_left(running)])

    async def _until_all_left(self, running: Running) -> None:
        """Wait until no contributor's process is left."""
        await all_or_none(running.contributions)

    async def _began(self, _running: Running, _phase: Phase) -> None:
        """Do what a phase calls for; the next is not spoken of before that."""
        return

    async def _follow(self, running: Running) -> None:
        """Say which phase begins, and end those in which all have acted who will, until the session has ended."""
        announced, awaited = set[Phase](), self.awaited()
        async for status in running.port.watch(running.session):
            if status.phase not in announced:
                announced.add(status.phase)
                self._say(f"phase {status.phase.value}")
                await self._began(running, status.phase)
            if status.received >= awaited.get(status.phase, status.received + 1):
                await running.end_phase(status.phase)
        if Phase.FINISHED not in announced:
            raise DemoFailedError("the session was aborted")


async def all_or_none(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first failure ends the others and is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def instruct(process: asyncio.subprocess.Process, task: Task) -> None:
    """Tell a contributor what to do."""
    if process.stdin is None:
        raise DemoFailedError("a contributor cannot be told its task")
    process.stdin.write(json.dumps(dataclasses.asdict(task)).encode() + b"\n")
    with contextlib.suppress(ConnectionError):
        await process.stdin.drain()


async def listen(k: int, process: asyncio.subprocess.Process, plan: DemoPlan, say: Say) -> None:
    """Wait until a contributor's process has ended; what it says is read so that it can go on saying it."""
    failure = ""
    if process.stdout is not None:
        async for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "FAILED":
                failure = event["detail"]
    code = await process.wait()
    if k in plan.leaving:
        say(f"contributor {k} is gone ({plan.leaving[k].phase}): its process was killed")
    elif code != 0:
        raise DemoFailedError(f"contributor {k} failed: {failure or f'exit code {code}'}")
