"""A witness as a process that a test starts, kills and starts again; and witnesses within the test's own process.

    python -m tests.support.witness_process STATE [before|after]

Serves the log of the tests on a free port and says which; with a second argument it kills itself with SIGKILL before
or after the first write of its state.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from secagg.runtime.clock import Clock
from secagg.runtime.memory import MemoryWitnessState
from secagg.runtime.witness import Witness, WitnessState
from secagg.services.logs import EventLog
from secagg.services.witness import WitnessLimits, WitnessServer
from secagg.store.witness_state import DirectoryWitnessState
from tests.support.faults import FaultTime
from tests.support.witnessed_log import FixedClock, History, key_of

LOG = History.of(20)


class MortalState(DirectoryWitnessState):
    """A state whose process dies when it writes."""

    def __init__(self, directory: Path, when: FaultTime) -> None:
        super().__init__(directory)
        self._when = when

    def advance(self, origin: str, expected: bytes | None, new: bytes) -> None:
        if self._when is FaultTime.BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        super().advance(origin, expected, new)
        os.kill(os.getpid(), signal.SIGKILL)


def in_event_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a test that is a coroutine, for a minute at most."""

    async def bounded(**fixtures: Any) -> None:
        async with asyncio.timeout(60):
            await test(**fixtures)

    @wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(bounded(**fixtures))

    return run


def witness_of(name: str, state: WitnessState | None = None, clock: Clock | None = None) -> Witness:
    """The witness ``name``, whose key follows from its name, for the log of the tests."""
    return Witness(name, key_of(name), [LOG.key], state or MemoryWitnessState(), clock or FixedClock())


@asynccontextmanager
async def serving(witness: Witness, limits: WitnessLimits | None = None) -> AsyncIterator[int]:
    """Serve a witness; gives the port."""
    server = WitnessServer(witness, EventLog(), limits)
    try:
        yield await server.start("127.0.0.1", 0)
    finally:
        await server.stop()


async def _serve(state: DirectoryWitnessState) -> None:
    async with serving(witness_of("w1", state)) as port:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    where = Path(sys.argv[1])
    asyncio.run(_serve(MortalState(where, FaultTime(sys.argv[2])) if sys.argv[2:] else DirectoryWitnessState(where)))
