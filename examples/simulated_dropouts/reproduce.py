"""Success against dropouts, simulated next to theory: one figure, from the sessions to the file.

    python examples/simulated_dropouts/reproduce.py OUT_DIR

Writes figure.svg, figure.png and data.csv. README.md says what they show. Needs the extra `plots`.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from simulations.sweeping.files import COLUMNS, row_of
from simulations.sweeping.grid import Sweep, SweepError, rates_of
from simulations.sweeping.plot import BLUE, GREEN, VERMILION, check_plot_file, figure_to, paint_success, series_of
from simulations.sweeping.runs import DefectError, SweepResult, run_sweep
from simulations.world.plan import Plan, Protocol


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve of the figure: a protocol, what its graph is made for, and where to look."""

    label: str
    protocol: Protocol
    expected_dropout: Fraction
    rates: str
    style: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Setting:
    """How large the figure is. 101 clients is the smallest cohort whose graph depends on the expected dropout."""

    clients: int = 101
    max_corrupt: int = 2
    repeat: int = 8
    seed: int = 1


CURVES = (
    Curve("pairwise for 5 %", Protocol.PAIRWISE, Fraction(1, 20), "0.1:0.3:0.05", (BLUE, "o", "-")),
    Curve("pairwise for 20 %", Protocol.PAIRWISE, Fraction(1, 5), "0.25:0.45:0.05", (GREEN, "^", "-.")),
    Curve("one-shot, 5 of 7", Protocol.ONE_SHOT, Fraction(1, 20), "0.4:0.6:0.05", (VERMILION, "s", "--")),
)
QUICK = Setting(clients=4, max_corrupt=1, repeat=1)


def sweep_of(curve: Curve, setting: Setting) -> Sweep:
    """The sessions behind one curve."""
    plan = Plan(
        curve.protocol,
        clients=setting.clients,
        max_corrupt=setting.max_corrupt,
        expected_dropout=curve.expected_dropout,
    )
    return Sweep(plan, (curve.protocol,), rates_of(curve.rates), repeat=setting.repeat, seed=setting.seed)


def simulate(setting: Setting, jobs: int, say: Callable[[str], None]) -> list[SweepResult]:
    """Every session of every curve."""
    results = []
    for curve in CURVES:
        started_s = time.monotonic()
        result = run_sweep(sweep_of(curve, setting), jobs)
        successes = sum(point.successes for point in result.points)
        say(f"{curve.label}: {len(result.runs)} sessions, {successes} sums, {time.monotonic() - started_s:.0f} s")
        results.append(result)
    return results


def draw(results: Sequence[SweepResult], setting: Setting, path: Path) -> None:
    """The figure, as PNG or SVG by suffix."""
    with figure_to(path, (7.4, 3.9)) as figure:
        axes = figure.subplots()
        paint_success(
            axes,
            [
                series_of(result, curve.label, curve.style, (Fraction(0), Fraction(13, 20)))
                for curve, result in zip(CURVES, results, strict=True)
            ],
        )
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("probability that a client drops out before its masked input is handled")
        axes.set_ylabel("sessions that end with a sum (fraction)")
        axes.set_title(f"{setting.clients} clients, {setting.repeat} sessions a point, 95 % intervals")
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), borderaxespad=0)


def write_data(results: Sequence[SweepResult], path: Path) -> None:
    """A row for each point."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["curve", *COLUMNS], lineterminator="\n")
        writer.writeheader()
        for curve, result in zip(CURVES, results, strict=True):
            writer.writerows({"curve": curve.label, **row_of(point)} for point in result.points)


def reproduce(directory: Path, setting: Setting, jobs: int, say: Callable[[str], None] = lambda _text: None) -> None:
    """Simulate, write the data, draw the figure."""
    check_plot_file(directory / "figure.svg")
    directory.mkdir(parents=True, exist_ok=True)
    results = simulate(setting, jobs, say)
    write_data(results, directory / "data.csv")
    for name in ("figure.svg", "figure.png"):
        draw(results, setting, directory / name)


def main(argv: Sequence[str]) -> int:
    """The command line; returns an exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="where the figure and its data go")
    parser.add_argument("--repeat", type=int, metavar="N", help="sessions for each point (default: 8)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (all cores)")
    parser.add_argument("--quick", action="store_true", help="four clients, in seconds; its figure means nothing")
    arguments = parser.parse_args(argv)
    setting = QUICK if arguments.quick else Setting()
    if arguments.repeat is not None:
        setting = Setting(setting.clients, setting.max_corrupt, arguments.repeat, setting.seed)
    if arguments.jobs < 1:
        parser.error(f"argument --jobs: expected 1 or more, got {arguments.jobs}")
    try:
        reproduce(arguments.out, setting, arguments.jobs, lambda text: print(text, flush=True))
    except SweepError as error:
        parser.error(f"argument --{error.field}: {error.reason}")
    except OSError as error:
        parser.error(f"argument OUT_DIR: {error}")
    except DefectError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
