"""The simulated network: calls that take time and bytes, and what can happen to them.

A call is a request, a handler that runs in the process of whoever is called, and a reply. The caller sees what a gRPC
client sees: the reply, a refusal, or that nobody answered (``TransportError``).
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from secagg.protocol.errors import ProtocolError, RemoteProtocolError
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import StoreError, UploadError
from simulations.world.process import Process
from simulations.world.sizes import size_of

_T = TypeVar("_T")

TIMEOUT_S = 30.0
"""How long a caller waits for an answer, beyond the time that the bytes take."""
SILENCE_S = 230.0
"""When a caller that would wait for ever notices that nobody is there: the keep-alive of its channel and an answer."""


@dataclass(frozen=True, slots=True)
class Line:
    """How somebody is connected.

    Attributes:
        latency_s: one way, the median.
        spread: standard deviation of the logarithm of latencies; 0 for always the median.
        bytes_per_s: of one call by itself; infinite where transfer takes no time.
    """

    latency_s: float = 0.05
    spread: float = 0.0
    bytes_per_s: float = math.inf

    def __post_init__(self) -> None:
        """Raise ValueError for what is no line."""
        if not (self.latency_s >= 0 and self.spread >= 0 and self.bytes_per_s > 0):
            raise ValueError(f"line: latency {self.latency_s}, spread {self.spread}, bandwidth {self.bytes_per_s}")


class Node(Protocol):
    """A machine on the network; ``process`` is None while it is down."""

    @property
    def name(self) -> str:
        """Unlike any other's."""
        ...

    @property
    def process(self) -> Process | None:
        """What runs on it now."""
        ...

    @property
    def line(self) -> Line:
        """How it is connected."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the network sees it. ``sequence`` counts those of one caller with one name, from 0."""

    caller: str
    target: str
    what: str
    sequence: int


class Event(enum.StrEnum):
    """What befalls a call."""

    LOSE_REQUEST = "lose-request"
    LOSE_REPLY = "lose-reply"
    DUPLICATE = "duplicate"
    DELAY = "delay"
    CALLER_DIES_BEFORE = "caller-dies-before"
    CALLER_DIES_AFTER = "caller-dies-after"


@dataclass(slots=True)
class Mishap:
    """Befalls the next ``times`` calls of a caller with a name; ``delay_s`` is for DELAY and DUPLICATE."""

    event: Event
    caller: str
    what: str
    times: int = 1
    delay_s: float = 0.0
    happened: int = 0

    def befalls(self, call: Call) -> bool:
        """Whether it does; it is counted."""
        if self.happened == self.times or (self.caller, self.what) != (call.caller, call.what):
            return False
        self.happened += 1
        return True


class Mishaps:
    """What is to happen, found by whom it befalls."""

    def __init__(self) -> None:
        self._planned: dict[tuple[str, str], list[Mishap]] = {}

    def append(self, mishap: Mishap) -> None:
        """One more."""
        self._planned.setdefault((mishap.caller, mishap.what), []).append(mishap)

    def that_befall(self, call: Call) -> list[Mishap]:
        """Those that befall this call; they are counted."""
        return [mishap for mishap in self._planned.get((call.caller, call.what), ()) if mishap.befalls(call)]


class Observer(Protocol):
    """Sees what the target of a call sees."""

    def request(self, call: Call, request: object, handler: Callable[[], Awaitable[object]]) -> None:
        """A request has arrived; ``handler`` is what the target does with it, and would do again."""
        ...

    def reply(self, call: Call, reply: object) -> None:
        """The target has answered."""
        ...


@dataclass(slots=True)
class Traffic:
    """Calls of one kind and their bytes; requests go to the target, replies come from it."""

    calls: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0


@dataclass
class Network:
    """Carries all calls.

    Attributes:
        generator: for latencies.
        capacities: bytes per second that a node takes from all callers together, one after the other.
        traffic: by (class of caller, name of call).
        mishaps: what is to happen.
        is_cut: whether a caller and a target cannot hear each other, at a time.
        killed: told which node a mishap killed.
        observers: hear of every request that reaches its target and of every reply that it gives.
    """

    generator: np.random.Generator
    is_cut: Callable[[str, str], bool] = lambda _caller, _target: False
    killed: Callable[[str], None] = lambda _name: None
    observers: list[Observer] = field(default_factory=list)
    capacities: dict[str, float] = field(default_factory=dict)
    traffic: dict[tuple[str, str], Traffic] = field(default_factory=dict)
    mishaps: Mishaps = field(default_factory=Mishaps)
    _sequences: Counter[tuple[str, str]] = field(default_factory=Counter)
    _busy_until_s: dict[str, float] = field(default_factory=dict)

    async def call(
        self,
        nodes: tuple[Node, Node],
        what: str,
        request: object,
        handler: Callable[[], Awaitable[_T]],
        *,
        waits: float = TIMEOUT_S,
    ) -> _T:
        """Make a call and wait for the reply.

        Args:
            nodes: caller and target.
            what: name of the call.
            request: what is sent, for its size.
            handler: what the target does, run in its process.
            waits: how long the caller waits, in seconds, beyond the transfers.

        Raises:
            TransportError: no answer came; the call may have been carried out or not.
            RemoteProtocolError: the target refuses.
        """
        caller, target = nodes
        call = Call(caller.name, target.name, what, self._sequences[caller.name, what])
        self._sequences[caller.name, what] += 1
        befallen = {mishap.event: mishap for mishap in self.mishaps.that_befall(call)}
        counted = self.traffic.setdefault((caller.name.split("-")[0], what), Traffic())
        counted.calls += 1
        size = size_of(request)
        counted.request_bytes += size
        await self._travel(nodes, size)
        await self._queue(target.name, size)
        if Event.DELAY in befallen:
            await asyncio.sleep(befallen[Event.DELAY].delay_s)
        if Event.CALLER_DIES_BEFORE in befallen:
            self.killed(caller.name)
            await asyncio.sleep(0)
        if Event.LOSE_REQUEST in befallen or self.is_cut(caller.name, target.name):
            await asyncio.sleep(min(waits, SILENCE_S))
            raise TransportError(f"{what}: the request was lost")
        for observer in self.observers:
            observer.request(call, request, handler)
        reply = await self._handled(target, handler, waits)
        for observer in self.observers:
            observer.reply(call, reply)
        if Event.DUPLICATE in befallen:
            again = befallen[Event.DUPLICATE].delay_s
            self.repeat(target, handler, again)
        if Event.CALLER_DIES_AFTER in befallen:
            self.killed(caller.name)
            await asyncio.sleep(0)
        if Event.LOSE_REPLY in befallen or self.is_cut(target.name, caller.name):
            await asyncio.sleep(min(waits, SILENCE_S))
            raise TransportError(f"{what}: the reply was lost")
        size = size_of(reply)
        counted.reply_bytes += size
        await self._travel(nodes, size)
        return reply

    async def _handled(self, target: Node, handler: Callable[[], Awaitable[_T]], waits: float) -> _T:
        process = target.process
        if process is None or not process.is_alive:
            raise TransportError(f"{target.name} is down")
        work = process.spawn(_answer(handler))
        process.owe(work)
        try:
            return await asyncio.wait_for(work, waits) if math.isfinite(waits) else await work
        except TimeoutError:
            raise TransportError(f"{target.name} did not answer in time") from None
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not work.cancelled() or (current is not None and current.cancelling()):
                raise
            raise TransportError(f"{target.name} went down") from None

    def repeat(self, target: Node, handler: Callable[[], Awaitable[object]], after_s: float) -> None:
        """Deliver a request once more; what comes of it nobody hears."""

        async def again() -> None:
            await asyncio.sleep(after_s)
            process = target.process
            if process is None or not process.is_alive:
                return
            await asyncio.wait({process.spawn(_ignoring(handler))})

        background = Process("network")
        background.spawn(again())

    async def _travel(self, nodes: tuple[Node, Node], size: int) -> None:
        lines = [node.line for node in nodes]
        delay_s = sum(self._latency(line) for line in lines)
        delay_s += size / min(line.bytes_per_s for line in lines)
        await asyncio.sleep(delay_s)

    async def _queue(self, target: str, size: int) -> None:
        """Wait until the target has taken what came before, and this."""
        capacity = self.capacities.get(target)
        if capacity is None:
            return
        now_s = asyncio.get_running_loop().time()
        done_s = max(now_s, self._busy_until_s.get(target, 0.0)) + size / capacity
        self._busy_until_s[target] = done_s
        await asyncio.sleep(done_s - now_s)

    def _latency(self, line: Line) -> float:
        if not line.spread:
            return line.latency_s
        return line.latency_s * math.exp(line.spread * float(self.generator.standard_normal()))


async def _answer(handler: Callable[[], Awaitable[_T]]) -> _T:
    """What a server makes of its errors: a refusal keeps its reason, a failure of its disk is no answer."""
    try:
        return await handler()
    except RemoteProtocolError:
        raise
    except ProtocolError as error:
        raise RemoteProtocolError(error.reason, error.detail) from None
    except (StoreError, UploadError, OSError) as error:
        raise TransportError(str(error)) from None


async def _ignoring(handler: Callable[[], Awaitable[object]]) -> None:
    try:
        await _answer(handler)
    except (RemoteProtocolError, TransportError):
        return
