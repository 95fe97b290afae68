"""One-shot sessions whose coordinator's store fails, or whose coordinator is started again, at every point."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import pytest

from secagg.protocol.phases import Phase
from secagg.runtime.memory import MemorySessionStore
from secagg.runtime.ports import SessionStore, StoreError
from secagg.transcript.entries import OneShotClose, OneShotResult, decode_entry
from tests.support.cohort import one_hot
from tests.support.faults import FaultTime, FaultyStore, InjectedFaultError
from tests.support.jumping_loop import JumpingLoop
from tests.support.one_shot_cohort import OneShotCohort, open_one_shot

DIMENSION = 20
COUNT = 4
T = TypeVar("T")
WHEN = pytest.mark.parametrize("when", FaultTime)


class LoopClock:
    """The loop's time as a wall clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()

    def now_s(self) -> int:
        return 1_000_000 + int(self._loop.time() - self._start_s)


class DyingStore(FaultyStore):
    """A FaultyStore of a process that dies with the fault: afterwards nothing reaches ``inner`` any more."""

    is_dead = False

    async def _pass(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.is_dead:
            raise InjectedFaultError("the process is dead")
        try:
            return await super()._pass(call)
        except InjectedFaultError:
            self.is_dead = True
            raise


def judge(cohort: OneShotCohort) -> None:
    """One close, one result, the exact sum of everybody, one answer of each member at most."""
    entries = [decode_entry(entry) for entry in cohort.host.evidence().entries]
    assert sum(isinstance(entry, OneShotClose) for entry in entries) == 1
    assert sum(isinstance(entry, OneShotResult) for entry in entries) == 1
    expected = np.zeros(DIMENSION, dtype=np.int64)
    expected[:COUNT] = 2 ** (cohort.session.parameters.encoding.value_bits - 1) - 1
    assert np.array_equal(cohort.integer_sum(), expected)
    for member in cohort.members:
        answered = {line.close for line in member.host.ports.journal.lines if line.outcome == "ANSWERED"}
        assert len(answered) <= 1


async def survive(cohort: OneShotCohort, inner: SessionStore) -> None:
    """Begin again where the process has died."""
    store = cohort.ports.store
    if isinstance(store, DyingStore) and store.is_dead:
        await cohort.restart(inner)


async def hold(cohort: OneShotCohort, number: int, inner: SessionStore) -> None:
    for _ in range(20):
        try:
            await cohort.contribute(number)
            return
        except StoreError:
            await survive(cohort, inner)
            await asyncio.sleep(0.1)
    raise AssertionError("the contribution is never held")


def calls_of_a_session(fail_at: int, when: FaultTime, kind: type[FaultyStore]) -> int:
    """Play a session through one fault; how many calls reached the store."""

    async def session() -> int:
        inner = MemorySessionStore()
        store = kind(inner, fail_at, when)
        cohort = await open_one_shot(COUNT, lambda number: one_hot(DIMENSION, number), store, LoopClock())
        try:
            for number in range(COUNT):
                await hold(cohort, number, inner)
            for _ in range(5000):
                if cohort.host.status().phase is Phase.FINISHED:
                    break
                await survive(cohort, inner)
                await asyncio.sleep(0.01)
            assert cohort.host.status().phase is Phase.FINISHED, cohort.reports
            judge(cohort)
            return store.calls
        finally:
            await cohort.close()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(session())


@WHEN
# The first call creates the session; whoever opens it waits for three.
@pytest.mark.parametrize(("kind", "first"), [(FaultyStore, 2), (DyingStore, 4)])
def test_nothing_that_was_held_is_lost_and_one_set_is_opened_whichever_call_fails(
    when: FaultTime, kind: type[FaultyStore], first: int
) -> None:
    fail_at = first
    while calls_of_a_session(fail_at, when, kind) >= fail_at:
        fail_at += 1
    assert fail_at > 20
