"""Measures an audit: `python -m benchmarks.verifier --json OUT` (`-`: standard output).

A record with one finished session is forged and then checked by `verifier.run`, each in a process of its own.
Reported are wall and CPU seconds, how much of them went into the keystreams of masks, what each check took (with what
it was first to need of the record), and peak memory.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secagg.transcript.encoding import Encoding
from tests.support.forge import COSIGNED_AT_S, Forge, Plan
from tests.support.forge_session import SHAPES, flattened
from verifier import run as verifier_run
from verifier.audit import Audit, Brought
from verifier.checks import Level
from verifier.families import results
from verifier.policy import load_policy
from verifier.record_files import RecordFiles

Report = dict[str, object]


@dataclass(frozen=True)
class Scenario:
    """A session with so many contributions of so many coordinates; so many more clients dropped out."""

    contributions: int
    dimension: int
    dropped: int

    @property
    def cohort(self) -> int:
        return self.contributions + self.dropped

    def plan(self) -> Plan:
        """Every k-th client drops out, so that the record has pair boxes of both kinds."""
        step = self.cohort // self.dropped if self.dropped else 1
        columns, rest = divmod(self.dimension, 4)
        if rest:
            raise SystemExit("a dimension is a multiple of 4")
        name_a, name_b = SHAPES
        return Plan(
            members=tuple(range(self.cohort)),
            dropped=frozenset(range(step // 2, self.cohort, step)[: self.dropped] if self.dropped else ()),
            encoding=self.encoding(),
            shapes={name_a: (2, columns), name_b: (columns, 2)},
            min_contributors=max(3, self.contributions // 2),
            max_corrupt=max(1, self.cohort // 20),
        )

    def encoding(self) -> Encoding:
        """Two fields a lane."""
        return flattened(self.dimension, max(1024, self.cohort))


def forge(scenario: Scenario, directory: Path) -> None:
    """Write the record, and the masked inputs beside it."""
    Forge(main=scenario.plan(), roster_size=scenario.cohort).run_main().write(directory)


class Meter:
    """Wall and CPU seconds by name."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def wrapped(self, function: Callable[..., object], name_of: Callable[..., str]) -> Callable[..., object]:
        """The function, with what each call takes charged to a name that its arguments give."""

        def measured(*arguments: object) -> object:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*arguments)
            finally:
                spent = self.spent.setdefault(name_of(*arguments), [0.0, 0.0])
                spent[0] += time.perf_counter() - wall
                spent[1] += time.process_time() - cpu

        return measured

    def figure(self, name: str) -> dict[str, float]:
        wall, cpu = self.spent.get(name, (0.0, 0.0))
        return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)}


def check(directory: Path, level: Level) -> Report:
    """One audit in this process."""
    meter = Meter()
    streams: list[int] = []

    def name_streams(_lanes: object, add: Sequence[bytes], subtract: Sequence[bytes], _threads: int) -> str:
        streams.append(len(add) + len(subtract))
        return "keystreams"

    results.add_masks = meter.wrapped(results.add_masks, name_streams)  # type: ignore[assignment]
    by_check = meter.wrapped(verifier_run.run_check, lambda one, *_: one.identifier)
    verifier_run.run_check = by_check  # type: ignore[assignment]
    before = memory_mib("VmRSS")
    brought = Brought(RecordFiles(directory / "masked-inputs"))
    policy = load_policy(directory / "policy.toml")
    audit = Audit(RecordFiles(directory / "record"), policy, level, COSIGNED_AT_S + 60, brought)
    report = meter.wrapped(verifier_run.run_audit, lambda _: "all")(audit)
    everything, masks = meter.figure("all"), meter.figure("keystreams")
    return {
        "verdict": str(report.verdict),  # type: ignore[attr-defined]
        "keystreams": sum(streams),
        "total": everything,
        "of_keystreams": masks,
        "rest": {key: round(everything[key] - masks[key], 3) for key in everything},
        "checks": {name: meter.figure(name) for name, spent in sorted(meter.spent.items()) if _is_shown(name, spent)},
        "rss_start_mib": before,
        "rss_peak_mib": memory_mib("VmHWM"),
    }


def _is_shown(name: str, spent: Sequence[float]) -> bool:
    """Checks that took a hundredth of a second."""
    return name not in {"all", "keystreams"} and spent[0] >= 0.01


def memory_mib(row: str) -> float:
    """A row of /proc/self/status in MiB: not `ru_maxrss`, which a child inherits from its parent."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == row:
            return round(int(value.split()[0]) / 1024, 1)
    return 0.0


def alone(step: str, scenario: Scenario, level: Level, directory: Path) -> Report:
    """One step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.verifier", "--step", step, "--directory", str(directory)]
    command += [
        "--level",
        level.name.lower(),
        "--scenarios",
        f"{scenario.contributions}x{scenario.dimension}+{scenario.dropped}",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    made: Report = json.loads(done.stdout)
    return made


def measure(scenario: Scenario, level: Level, repeats: int) -> Report:
    """The fastest of several audits of one record."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        started = time.perf_counter()
        alone("forge", scenario, level, directory)
        forged_s = time.perf_counter() - started
        size = sum(path.stat().st_size for path in (directory / "record").rglob("*") if path.is_file())
        runs = [alone("check", scenario, level, directory) for _ in range(repeats)]
    best = min(runs, key=lambda one: one["total"]["wall_s"])  # type: ignore[index]
    return {
        "level": level.name.lower(),
        "contributions": scenario.contributions,
        "dimension": scenario.dimension,
        "dropped": scenario.dropped,
        "record_mib": round(size / 2**20, 1),
        "forged_s": round(forged_s, 1),
        **best,
    }


def scenarios(text: str) -> list[Scenario]:
    """Scenarios as CONTRIBUTIONSxDIMENSION or with +DROPPED behind, divided by commas."""
    found = []
    for item in text.split(","):
        size, _, dropped = item.partition("+")
        contributions, _, dimension = size.partition("x")
        found.append(Scenario(int(contributions), int(dimension), int(dropped or 0)))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs everything and writes one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", default="-", metavar="OUT", help="file to write, or - for standard output")
    parser.add_argument(
        "--scenarios",
        type=scenarios,
        default="100x1000000,90x1000000+10,1000x100000",
        help="CONTRIBUTIONSxDIMENSION[+DROPPED], divided by commas",
    )
    parser.add_argument("--level", choices=("sum", "full"), default="sum", help="how much is checked")
    parser.add_argument("--repeats", type=int, default=3, help="audits of which the fastest counts")
    parser.add_argument("--step", choices=("forge", "check"), help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    level = Level[options.level.upper()]
    if options.step == "forge":
        forge(options.scenarios[0], options.directory)
        print("{}")
        return
    if options.step == "check":
        print(json.dumps(check(options.directory, level)))
        return
    report = {
        "machine": {
            "processor": platform.machine(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "runs": [measure(scenario, level, options.repeats) for scenario in options.scenarios],
    }
    text = json.dumps(report, indent=2) + "\n"
    if options.json == "-":
        print(text, end="")
    else:
        Path(options.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
