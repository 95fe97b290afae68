"""Run the sessions of a sweep, on several processes, and add up what came of them."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from secagg.protocol.one_shot.messages import HeldBox, OpenRequest, ShownSessionFiles
from secagg.protocol.phases import Phase
from secagg.runtime.institutions import MemberPort
from secagg.runtime.participant import TransportError
from secagg.transcript.statements import Signed
from simulations.estimates.theory import Bounds
from simulations.scenarios.dropouts import ByPhase
from simulations.sweeping.expected import Expected, epsilon_over, expected
from simulations.sweeping.grid import Cell, Sweep, Trial, noise_of
from simulations.world.cast import ONE
from simulations.world.loop import run_virtually
from simulations.world.members import OPENING_WAITS_S, Committee
from simulations.world.people import Person
from simulations.world.plan import Protocol
from simulations.world.randomness import generator
from simulations.world.workers import follow_the_parent
from simulations.world.world import World

_Z_95 = 1.959963984540054
"""Of the standard normal distribution at 0.975."""
_MOST_DEVIATIONS = 12
"""A sum with noise that is further away from the true one, in standard deviations of the noise, is wrong."""
_PHASES = 10
"""A session that is not over after so many times the length of a phase will never be."""


class Ended(enum.StrEnum):
    """How a session ended."""

    FINISHED = "finished"
    ABORTED = "aborted"
    UNFINISHED = "unfinished"
    """It went on beyond all its deadlines: a defect."""
    WRONG = "wrong"
    """It published a sum that is not the counted clients': a defect."""


class DefectError(RuntimeError):
    """A session did what no session may do. ``run`` says which, with its seed."""

    def __init__(self, run: Run) -> None:
        what = "published a wrong sum" if run.ended is Ended.WRONG else "did not end"
        cell = run.cell
        super().__init__(
            f"a session {what}: {cell.protocol}, dropout {float(cell.dropout):g}, corruption "
            f"{float(cell.corruption):g}, repetition {run.repetition}, seed {run.seed}"
        )
        self.run = run


@dataclass(frozen=True, slots=True)
class Run:
    """One session that was simulated.

    Attributes:
        cell, repetition, seed: which.
        ended: how.
        reason: why it was aborted; "" otherwise.
        counted: contributions in the sum; 0 without one.
        seconds: virtual time until it was over for everybody.
        up_bytes: sent by all clients together, requests of calls without framing.
        down_bytes: received by them.
        committee_bytes: between coordinator and committee, both ways; 0 in pairwise sessions.
        square_error: mean over the coordinates of the squared difference between the mean that was published and the
            true mean of the counted clients, which is the noise; None without noise or without a sum.
        cpu_s: CPU seconds of this process, user and system. Measured: it differs from run to run.
    """

    cell: Cell
    repetition: int
    seed: int
    ended: Ended
    reason: str
    counted: int
    seconds: float
    up_bytes: int
    down_bytes: int
    committee_bytes: int
    square_error: float | None
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Point:
    """What came of one cell, next to theory.

    Attributes:
        cell: which.
        runs, successes: sessions, and those of them that published the right sum; all others were aborted.
        interval: Wilson's 95 % interval of the success probability.
        theory: of the same.
        up_bytes, down_bytes: of one client of the roster, mean over all runs.
        committee_bytes: of one session, mean over all runs; None in pairwise sessions.
        counted: contributions, mean over the successes; None without any.
        epsilon, worst_epsilon: what a success cost, mean and most; None without noise or successes.
        error: root of the mean square error of a coordinate of the mean, over the successes; None without noise.
        cpu_s: CPU seconds of one session, mean. Measured.
    """

    cell: Cell
    runs: int
    successes: int
    interval: Bounds
    theory: Expected
    up_bytes: float
    down_bytes: float
    committee_bytes: float | None
    counted: float | None
    epsilon: float | None
    worst_epsilon: float | None
    error: float | None
    cpu_s: float


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A sweep that was run: every session in order, and a point for each cell."""

    sweep: Sweep
    runs: tuple[Run, ...]
    points: tuple[Point, ...]


def run_sweep(sweep: Sweep, jobs: int = 1, progress: Callable[[int, int], None] = lambda *_: None) -> SweepResult:
    """Simulate a sweep. The same sweep gives the same result, ``cpu_s`` aside, with any number of ``jobs``.

    Args:
        sweep: what to simulate.
        jobs: processes; with 1 this one does all.
        progress: told how many sessions are done, and of how many.

    Raises:
        DefectError: a session published a wrong sum, or did not end.
    """
    trials = list(sweep.trials())
    runs: list[Run] = []
    for run in _each(trials, jobs):
        if run.ended in {Ended.WRONG, Ended.UNFINISHED}:
            raise DefectError(run)
        runs.append(run)
        progress(len(runs), len(trials))
    each = (runs[start : start + sweep.repeat] for start in range(0, len(runs), sweep.repeat))
    points = tuple(_point(sweep, cell, mine) for cell, mine in zip(sweep.cells(), each, strict=True))
    return SweepResult(sweep, tuple(runs), points)


def _each(trials: Sequence[Trial], jobs: int) -> Iterator[Run]:
    if jobs == 1 or len(trials) == 1:
        yield from map(simulate, trials)
        return
    # Fresh processes: what one has cached or drawn in another must not matter, and threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(trials)), context, initializer=follow_the_parent)
    try:
        yield from pool.map(simulate, trials)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# One session.


def simulate(trial: Trial) -> Run:
    """Simulate one session of a sweep in virtual time."""
    before_s = time.process_time()
    run = run_virtually(_play(trial))
    return dataclasses.replace(run, cpu_s=time.process_time() - before_s)


async def _play(trial: Trial) -> Run:
    plan, cell = trial.plan, trial.cell
    world = World(plan)
    draw = generator(plan.seed, "sweep")
    rates = {trial.drop_phase: float(cell.dropout)}
    if plan.protocol is Protocol.PAIRWISE:
        # Two independent reasons to fall silent, where the drop phase is this one.
        staying = (1 - rates.get(Phase.UNMASK, 0.0)) * (1 - float(cell.corruption))
        rates[Phase.UNMASK] = 1 - staying
    else:
        world.coordinator.institutions = Committee(
            [
                _Refusing(port) if chance < float(cell.corruption) else port
                for port, chance in zip(
                    world.coordinator.institutions.members([b"%d" % place for place in range(len(world.members))]),
                    draw.random(len(world.members)),
                    strict=True,
                )
            ]
        )
    people = ByPhase(rates).applied([Person()] * plan.clients, plan, draw)
    await world.open()
    for number, person in enumerate(people):
        world.expect(number, person)
    is_over = await world.until_over(_PHASES * plan.phase_s)
    return _outcome(world, trial, is_over=is_over)


class _Refusing:
    """A ``MemberPort`` to a corrupt member: it takes boxes as others do, and never answers when the sum is opened."""

    def __init__(self, port: MemberPort) -> None:
        self._port = port

    async def log_size(self, origin: str) -> int:
        """See ``MemberPort.log_size``."""
        return await self._port.log_size(origin)

    async def join(self, session: bytes, files: ShownSessionFiles) -> None:
        """See ``MemberPort.join``."""
        await self._port.join(session, files)

    async def hold(self, session: bytes, items: Sequence[HeldBox]) -> tuple[str, ...]:
        """See ``MemberPort.hold``."""
        return await self._port.hold(session, items)

    async def open(self, session: bytes, request: OpenRequest) -> Signed:
        """Says nothing, for as long as somebody waits."""
        del session, request
        await asyncio.sleep(OPENING_WAITS_S)
        raise TransportError("no answer")


def _outcome(world: World, trial: Trial, *, is_over: bool) -> Run:
    ended, counted, square_error = Ended.UNFINISHED, 0, None
    if is_over:
        ended = Ended.ABORTED
        if world.phase is Phase.FINISHED:
            ended, counted, square_error = _sum(world)
    traffic = world.network.traffic.items()
    clients = [each for (caller, _), each in traffic if caller == "client"]
    committee = [each for (_, what), each in traffic if what.startswith("member-")]
    return Run(
        cell=trial.cell,
        repetition=trial.repetition,
        seed=trial.plan.seed,
        ended=ended,
        reason=(world.aborted_because() or "") if ended is Ended.ABORTED else "",
        counted=counted,
        seconds=round(world.now_s, 6),
        up_bytes=sum(each.request_bytes for each in clients),
        down_bytes=sum(each.reply_bytes for each in clients),
        committee_bytes=sum(each.request_bytes + each.reply_bytes for each in committee),
        square_error=square_error,
        cpu_s=0.0,
    )


def _sum(world: World) -> tuple[Ended, int, float | None]:
    """Whether the published sum is right, how many are in it, and with noise the mean square error of the mean."""
    published, counted = world.integer_sum(), world.accepted()
    if published is None or not counted:
        return Ended.WRONG, len(counted), None
    planned = noise_of(world.plan)
    if planned is None:
        is_right = bool(np.array_equal(published, world.expected_sum(counted)))
        return (Ended.FINISHED if is_right else Ended.WRONG), len(counted), None
    # One-hot vectors lie on the grid, so that rounding adds nothing.
    scale = float(planned.scale)
    noise = published - world.expected_sum(counted) // ONE * scale
    is_right = float(np.abs(noise).max()) <= _MOST_DEVIATIONS * math.sqrt(planned.local_variance * len(counted))
    error = float(np.mean((noise / (scale * len(counted))) ** 2))
    return (Ended.FINISHED if is_right else Ended.WRONG), len(counted), error


# Many sessions.


def wilson(successes: int, runs: int) -> Bounds:
    """Wilson's 95 % interval of a probability of which so many of ``runs`` draws came true."""
    square = _Z_95**2
    middle = (successes + square / 2) / (runs + square)
    half = _Z_95 * math.sqrt(successes * (runs - successes) / runs + square / 4) / (runs + square)
    # At both ends the formula gives 0 and 1, but for rounding.
    return Bounds(0.0 if successes == 0 else middle - half, 1.0 if successes == runs else middle + half)


def _point(sweep: Sweep, cell: Cell, runs: Sequence[Run]) -> Point:
    plan, count = sweep.plan_of(cell.protocol), len(runs)
    good = [run for run in runs if run.ended is Ended.FINISHED]
    planned = noise_of(plan)
    costs = [] if planned is None else [epsilon_over(planned, run.counted) for run in good]
    squares = [run.square_error for run in good if run.square_error is not None]
    return Point(
        cell=cell,
        runs=count,
        successes=len(good),
        interval=wilson(len(good), count),
        theory=expected(plan, cell, sweep.drop_phase),
        up_bytes=sum(run.up_bytes for run in runs) / (count * plan.clients),
        down_bytes=sum(run.down_bytes for run in runs) / (count * plan.clients),
        committee_bytes=_mean([run.committee_bytes for run in runs]) if cell.protocol is Protocol.ONE_SHOT else None,
        counted=_mean([run.counted for run in good]),
        epsilon=_mean(costs),
        worst_epsilon=max(costs, default=None),
        error=math.sqrt(sum(squares) / len(squares)) if squares else None,
        cpu_s=sum(run.cpu_s for run in runs) / count,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
