"""Whether the simulator has teeth: every mutant of the protocol is explored until an invariant sees it.

The packages are copied to a temporary directory, one mutant is applied there, and the explorer of the copy runs as a
process of its own. The same seeds without a mutant must find nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulations.exploring.mutants import MUTANTS, Mutant
from simulations.world.plan import Protocol

PACKAGES = ("secagg", "dp", "verifier", "simulations")
_EXPLORE = "import sys; from simulations.commands.explore import main; sys.exit(main(sys.argv[1:]))"


class TeethError(RuntimeError):
    """The explorer did not run, or the mutant cannot be applied."""


@dataclass(frozen=True, slots=True)
class Bite:
    """What the explorer said of one mutant.

    Attributes:
        mutant: which.
        seed: the first at which something was found; None if nothing was.
        invariant: that was violated.
        reason: how.
        script: that shows it, shrunk.
        is_expected: whether the invariant is one of the mutant's.
    """

    mutant: Mutant
    seed: int | None
    invariant: str = ""
    reason: str = ""
    script: str = ""

    @property
    def is_expected(self) -> bool:
        """Whether it was found, by an invariant that should see it."""
        return self.seed is not None and self.invariant in self.mutant.invariants


def packages_directory() -> Path:
    """Where the packages that are running are installed."""
    return Path(__file__).resolve().parents[2]


def check_mutant(mutant: Mutant, packages: Path) -> str:
    """The file's text with the mutant in it.

    Raises:
        TeethError: what it replaces does not stand there exactly once.
    """
    text = (packages / mutant.file).read_text(encoding="utf-8")
    found = text.count(mutant.old)
    if found != 1:
        raise TeethError(f"{mutant.name}: what it replaces stands {found} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


@contextmanager
def mutated(mutant: Mutant | None) -> Iterator[Path]:
    """A directory with a copy of the packages, weakened."""
    packages = packages_directory()
    with tempfile.TemporaryDirectory(prefix="teeth-") as name:
        copy = Path(name)
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(packages / package, copy / package, ignore=ignored)
        if mutant is not None:
            (copy / mutant.file).write_text(check_mutant(mutant, packages), encoding="utf-8")
        yield copy


def bite(mutant: Mutant, seeds: int | None = None, *, shrink: int = 1) -> Bite:
    """Explore a mutant until something is found.

    Args:
        mutant: which.
        seeds: how many; None for as many as the mutant says.
        shrink: 0 where the script need not be shrunk.

    Raises:
        TeethError: the explorer did not run.
    """
    with mutated(mutant) as packages:
        found = _explored(packages, mutant.protocol, seeds or mutant.seeds, ("--most", "1", "--shrink", str(shrink)))
    if not found:
        return Bite(mutant, None)
    # The first that a mutant's own invariants see: others may see its consequences.
    first = next((each for each in found if each["invariant"] in mutant.invariants), found[0])
    return Bite(mutant, first["seed"], first["invariant"], first["reason"], first["shrunk"] or first["script"])


def false_alarms(protocol: Protocol, seeds: int, workers: int) -> list[str]:
    """What is found without any mutant: nothing, one hopes."""
    with mutated(None) as packages:
        found = _explored(packages, protocol, seeds, ("--workers", str(workers), "--shrink", "1"))
    return [f"seed {each['seed']}: {each['invariant']}: {each['reason']}\n{each['shrunk']}" for each in found]


def bite_all(mutants: Sequence[Mutant], seeds: int | None, told: Callable[[Bite], None]) -> list[Bite]:
    """All mutants, as many at a time as there are cores; ``told`` hears of each, in order."""
    bites = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for each in pool.map(lambda mutant: bite(mutant, seeds), mutants):
            told(each)
            bites.append(each)
    return bites


def named(text: str) -> tuple[Mutant, ...]:
    """The mutants whose names contain a text."""
    return tuple(mutant for mutant in MUTANTS if text in mutant.name)


def _explored(packages: Path, protocol: Protocol, seeds: int, more: Sequence[str]) -> list[dict[str, Any]]:
    out = packages / "found.json"
    arguments = ["--runs", str(seeds), "--protocol", protocol.value, "--json", str(out), *more]
    if "--workers" not in arguments:
        arguments += ["--workers", "1"]
    # What is installed comes after PYTHONPATH: the copy is what runs, in its workers too.
    environment = {**os.environ, "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", _EXPLORE, *arguments],
        cwd=packages,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 1} or not out.exists():
        raise TeethError(f"the explorer ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    found: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["found"]
    return found
