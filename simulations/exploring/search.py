"""Explores seeds on all cores; what is found is shrunk. The order of results follows from the seeds alone."""

from __future__ import annotations

import gc
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from simulations.exploring.expectations import Finding
from simulations.exploring.generators import draw_script
from simulations.exploring.playing import Fine, Verdict, run_script
from simulations.exploring.scripts import Script
from simulations.exploring.shrinking import shrink
from simulations.world.plan import Protocol
from simulations.world.workers import cores, follow_the_parent

_SEEDS_PER_TASK = 4
SHRINK_PLAYS = 300
"""How many scripts are played at most to shrink one finding."""


@dataclass(frozen=True, slots=True)
class Found:
    """A script that violates an invariant.

    Attributes:
        seed: that it was drawn from.
        finding: what it violates, as it was drawn.
        script: as it was drawn.
        shrunk: the smallest script that was found to violate the same invariant; None if it was not shrunk.
    """

    seed: int
    finding: Finding
    script: Script
    shrunk: Script | None = None


@dataclass(frozen=True, slots=True)
class Explored:
    """What came of a number of seeds.

    Attributes:
        runs: how many scripts were played.
        endings: how often sessions ended how, where nothing was found.
        found: in order of seeds.
    """

    runs: int
    endings: dict[str, int]
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Search:
    """What is explored, and how.

    Attributes:
        seeds: one script is drawn from each.
        protocol: of all sessions; None for both.
        most: the search ends with the task in which so many violations were found.
        shrinks: so many of them are shrunk, of every invariant the first ones.
        workers: processes; None for as many as there are cores.
    """

    seeds: range
    protocol: Protocol | None = None
    most: int = 1000
    shrinks: int = 3
    workers: int | None = None


def play_seed(seed: int, protocol: Protocol | None) -> Verdict:
    """Draw and play one script."""
    return run_script(draw_script(seed, protocol))


def explore(search: Search, progress: Callable[[int], None] = lambda _runs: None) -> Explored:
    """Play the scripts of all seeds.

    Args:
        search: what is explored.
        progress: told how many were played, whenever some more were.
    """
    tasks = [search.seeds[at : at + _SEEDS_PER_TASK] for at in range(0, len(search.seeds), _SEEDS_PER_TASK)]
    endings: Counter[str] = Counter()
    found: list[Found] = []
    runs = 0
    workers = min(search.workers or cores(), max(1, len(tasks)))
    with _pool(workers) as pool:
        for seeds, verdicts in zip(tasks, _ahead(pool, tasks, search.protocol), strict=False):
            runs += len(verdicts)
            progress(runs)
            for seed, verdict in zip(seeds, verdicts, strict=True):
                if isinstance(verdict, Fine):
                    endings[verdict.ended] += 1
                else:
                    found.append(Found(seed, verdict, draw_script(seed, search.protocol)))
            if len(found) >= search.most:
                break
        pool.shutdown(wait=False, cancel_futures=True)
    return Explored(runs, dict(sorted(endings.items())), tuple(_shrunk(found, search)))


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    follow_the_parent()
    # What was imported is never garbage: a collection after every script need not look at it.
    gc.freeze()


def _ahead(
    pool: ProcessPoolExecutor, tasks: Sequence[range], protocol: Protocol | None
) -> Iterator[tuple[Verdict, ...]]:
    for future in [pool.submit(_play_seeds, seeds, protocol) for seeds in tasks]:
        yield future.result()


def _play_seeds(seeds: range, protocol: Protocol | None) -> tuple[Verdict, ...]:
    return tuple(play_seed(seed, protocol) for seed in seeds)


def _shrunk(found: Sequence[Found], search: Search) -> Iterator[Found]:
    """The first of every invariant before the second of any."""
    seen: Counter[str] = Counter()
    ranks = []
    for number, each in enumerate(found):
        ranks.append((seen[each.finding.invariant], number))
        seen[each.finding.invariant] += 1
    chosen = {number for _, number in sorted(ranks)[: search.shrinks]}
    with _pool(max(1, min(search.workers or cores(), len(chosen)))) as pool:
        futures = {number: pool.submit(shrink_found, found[number]) for number in sorted(chosen)}
        for number, each in enumerate(found):
            yield futures[number].result() if number in futures else each


def shrink_found(found: Found) -> Found:
    """The same finding with a small script."""

    def fails(script: Script) -> bool:
        verdict = run_script(script)
        return isinstance(verdict, Finding) and verdict.invariant == found.finding.invariant

    return Found(found.seed, found.finding, found.script, shrink(found.script, fails, SHRINK_PLAYS))
