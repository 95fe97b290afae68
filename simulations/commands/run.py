"""``python -m simulations run``: one scenario, its summary, its data and its page."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from dp.cli_values import number
from simulations.commands.beside import check_attacks, curve_beside, with_attacks
from simulations.report.canvas import check_plots
from simulations.report.page import to_html
from simulations.report.text import to_text
from simulations.scenarios.files import load_scenario
from simulations.scenarios.named import SCENARIOS, named
from simulations.scenarios.run import Progress, play
from simulations.scenarios.scenario import Scenario
from simulations.world.plan import CommitteePlan, Plan, PlanError, Protocol

_DESCRIPTION = """\
Simulate one session and say how it went: who was counted, who dropped out when, what it took in time and bytes, and
what the coordinator with its corrupt helpers could compute in the end."""

_EPILOG = f"""\
scenarios:
  {", ".join(SCENARIOS)}
  or the path of a TOML file (docs/simulations.md shows one)

examples:
  python -m simulations run dropouts --clients 1000 --dimension 10000 --seed 7 --html report.html
  python -m simulations run crashes --protocol one-shot --witnesses 3"""

_COMMITTEE = re.compile(r"(\d+)/(\d+)/(\d+)")


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``run``."""
    parser = commands.add_parser("run", help="one session of a scenario", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("scenario", metavar="SCENARIO", help="a name, or a TOML file")
    parser.add_argument("--protocol", choices=[each.value for each in Protocol], default=Protocol.PAIRWISE.value)
    parser.add_argument("--clients", type=int, default=20, metavar="N", help="in the roster (default: 20)")
    parser.add_argument("--dimension", type=int, default=1000, metavar="D", help="of a vector (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="everything follows from it (default: 0)")
    parser.add_argument("--dropout", type=float, default=0.1, metavar="P", help="what the scenario makes of it (0.1)")
    parser.add_argument("--min-contributors", type=int, metavar="N", help="default: half of the clients")
    parser.add_argument("--max-corrupt", type=int, metavar="N", help="default: a twentieth of the clients, at least 1")
    parser.add_argument("--expected-dropout", type=number, default=Fraction(1, 10), metavar="P", help="pairwise (1/10)")
    parser.add_argument("--committee", default="7/5/2", metavar="M/R/C", help="members, needed, corrupt (7/5/2)")
    parser.add_argument("--witnesses", type=int, default=0, metavar="N", help="that cosign the log (default: 0)")
    parser.add_argument("--phase-seconds", type=int, default=600, metavar="S", help="a phase lasts at most (600)")
    parser.add_argument("--json", metavar="OUT", help="write everything to a file; - for standard output, alone")
    parser.add_argument("--html", type=Path, metavar="OUT", help="write a page with plots")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.html is not None:
        check_plots()
        _check_place("--html", arguments.html)
    if arguments.json not in {None, "-"}:
        _check_place("--json", Path(arguments.json))
    scenario = _scenario(arguments)
    check_attacks(scenario)
    with _progress() as progress:
        outcome = play(scenario, progress)
    outcome = with_attacks(outcome, scenario)
    if arguments.json == "-":
        sys.stdout.write(outcome.to_json())
    else:
        sys.stdout.write(to_text(outcome))
    if arguments.json not in {None, "-"}:
        _write("--json", Path(arguments.json), outcome.to_json())
    if arguments.html is not None:
        curve = curve_beside(scenario, arguments.dropout)
        _write("--html", arguments.html, to_html(outcome, curve))
    return 0 if outcome.is_good else 1


def _scenario(arguments: argparse.Namespace) -> Scenario:
    if arguments.scenario.endswith(".toml"):
        return load_scenario(Path(arguments.scenario))
    plan = Plan(
        protocol=Protocol(arguments.protocol),
        clients=arguments.clients,
        dimension=arguments.dimension,
        seed=arguments.seed,
        min_contributors=arguments.min_contributors,
        max_corrupt=arguments.max_corrupt,
        expected_dropout=arguments.expected_dropout,
        committee=_committee(arguments.committee),
        witnesses=arguments.witnesses,
        phase_s=arguments.phase_seconds,
    )
    return named(arguments.scenario, plan, arguments.dropout)


def _committee(text: str) -> CommitteePlan:
    found = _COMMITTEE.fullmatch(text)
    if found is None:
        raise PlanError("--committee", f"expected members/needed/corrupt such as 7/5/2, got {text!r}")
    return CommitteePlan(*map(int, found.groups()))


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error while a session runs; nothing where nobody looks at it."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[clock]}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("clients that are done", total=None, clock="")

        def show(now_s: float, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, clock=f"{done} of {total}, {now_s:.0f} s have passed there")

        yield show


def _check_place(option: str, path: Path) -> None:
    """Refuse a file that cannot be written before anything is simulated for it."""
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise PlanError(option, f"{path}: no directory to write to")


def _write(option: str, path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PlanError(option, f"{path}: {error.strerror or type(error).__name__}") from None
