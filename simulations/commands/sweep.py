"""``python -m simulations sweep``: curves over dropout rates and corruption, next to theory."""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from dp.cli_values import number
from secagg.protocol.phases import Phase
from simulations.sweeping.files import COLUMNS, MEASURED, to_csv, to_json, to_text
from simulations.sweeping.grid import Sweep, SweepError, rates_of
from simulations.sweeping.plot import check_panels, check_plot_file, draw_sweep
from simulations.sweeping.runs import DefectError, SweepResult, run_sweep
from simulations.world.people import PHASES
from simulations.world.plan import CommitteePlan, Plan, PlanError, Protocol
from simulations.world.workers import cores

DEFECT, UNUSABLE, INTERRUPTED = 1, 2, 130
STDOUT = "-"
_T = TypeVar("_T")

_DESCRIPTION = """\
Simulate a grid of sessions, each point many times, and put what came of them next to theory: how many end with a sum,
what clients send and receive, and with noise what a session costs and how far the mean is off.

Dropouts: every client falls silent with this probability, on its own, before its masked input is handled
(--drop-phase). Corruption: with this probability every client (pairwise) falls silent when its shares are asked for,
and every committee member (one-shot) when the sum is to be opened.

A published sum that is not that of the counted clients ends the sweep with exit code 1, and its seed is said."""

_EPILOG = """\
examples:
  python -m simulations sweep --dropout 0:0.5:0.05 --protocol pairwise,one-shot --repeat 20 --csv c.csv --plot c.svg
  python -m simulations sweep --corruption 0:0.6:0.1 --plot corruption.png
  python -m simulations sweep --dropout 0,0.1,0.2 --epsilon 8 --clients 30 --csv noise.csv --plot noise.png

columns of the CSV:
"""

_DEFAULT_DROPOUTS = "0:0.5:0.05"


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``sweep``."""
    width = max(map(len, COLUMNS))
    columns = "\n".join(f"  {name:<{width}}  {meaning}" for name, meaning in {**COLUMNS, **MEASURED}.items())
    parser = subparsers.add_parser(
        "sweep",
        help="curves over dropout rates and corruption, next to theory",
        description=_DESCRIPTION,
        epilog=_EPILOG + columns,
    )
    _add_grid(parser)
    _add_session(parser)
    _add_output(parser)
    parser.set_defaults(run=_run)


def _add_grid(parser: argparse.ArgumentParser) -> None:
    grid = parser.add_argument_group("the grid")
    grid.add_argument(
        "--dropout",
        type=_rates,
        metavar="RATES",
        help=f"START:STOP:STEP or A,B,C (default: {_DEFAULT_DROPOUTS}; with --corruption: 0)",
    )
    grid.add_argument(
        "--corruption", type=_rates, default=(Fraction(0),), metavar="RATES", help="likewise (default: 0)"
    )
    grid.add_argument(
        "--protocol",
        type=_protocols,
        default=tuple(Protocol),
        metavar="P,..",
        help="pairwise, one-shot (default: both)",
    )
    grid.add_argument("--repeat", type=int, default=20, metavar="N", help="sessions for each point (default: 20)")
    grid.add_argument("--seed", type=int, default=0, metavar="S", help="everything follows from it (default: 0)")
    grid.add_argument(
        "--drop-phase",
        type=_phase,
        default=Phase.MASKED_INPUT,
        metavar="PHASE",
        help=f"where clients drop: {', '.join(_PHASES)} (default: masked-input)",
    )


def _add_session(parser: argparse.ArgumentParser) -> None:
    session = parser.add_argument_group("the session")
    session.add_argument("--clients", type=int, default=10, metavar="N", help="in the roster (default: 10)")
    session.add_argument("--dimension", type=int, default=16, metavar="D", help="of a vector (default: 16)")
    session.add_argument("--min-contributors", type=int, metavar="N", help="default: half of the clients")
    session.add_argument("--max-corrupt", type=int, metavar="N", help="default: a twentieth of the clients, at least 1")
    session.add_argument(
        "--expected-dropout", type=number, default=Fraction(1, 10), metavar="P", help="pairwise (default: 1/10)"
    )
    session.add_argument("--members", type=int, default=7, metavar="M", help="of the committee (default: 7)")
    session.add_argument("--needed", type=int, default=5, metavar="R", help="members that open a sum (default: 5)")
    session.add_argument(
        "--corrupt-members", type=int, metavar="C", help="tolerated (default: the most that are safe, at most 2)"
    )
    session.add_argument("--epsilon", type=number, metavar="E", help="with noise that costs this at delta 1e-5")


def _add_output(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("what is written, besides a table for people")
    output.add_argument("--csv", metavar="OUT", help="a row for each point; - for standard output, alone")
    output.add_argument("--json", metavar="OUT", help="the same with every session and its seed; - as above")
    output.add_argument("--plot", type=Path, metavar="OUT", help="ends in .svg or .png (needs matplotlib)")
    output.add_argument(
        "--measure",
        choices=["cpu"],
        help="cpu: write CPU time, too, in a last column; with it, files differ from run to run",
    )
    output.add_argument("--jobs", type=int, metavar="N", help="processes (default: one for each core)")


# Values.


def _rates(text: str) -> tuple[Fraction, ...]:
    try:
        return rates_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _protocols(text: str) -> tuple[Protocol, ...]:
    known = {protocol.value: protocol for protocol in Protocol}
    return tuple(dict.fromkeys(_named(part.strip(), known) for part in text.split(",")))


_PHASES = {phase.value: phase for phase in PHASES[Protocol.PAIRWISE]}


def _phase(text: str) -> Phase:
    return _named(text, _PHASES)


def _named(text: str, known: Mapping[str, _T]) -> _T:
    if text in known:
        return known[text]
    near = difflib.get_close_matches(text, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(known)}{hint}")


# The command.


def _run(arguments: argparse.Namespace) -> int:
    try:
        sweep, jobs = _sweep(arguments), _jobs(arguments)
        _check_outputs(arguments, sweep)
        started_s = time.monotonic()
        with _progress() as progress:
            result = run_sweep(sweep, jobs, progress)
        _write(arguments, result, _Effort(jobs, time.monotonic() - started_s))
    except (SweepError, PlanError) as error:
        name = _OPTIONS.get(error.field, error.field)
        reason = error.reason.removeprefix(f"{name}: ")
        sys.stderr.write(f"python -m simulations sweep: --{name.replace('_', '-')}: {reason}\n")
        return UNUSABLE
    except DefectError as error:
        sys.stderr.write(f"python -m simulations sweep: {error}\n")
        return DEFECT
    except KeyboardInterrupt:
        sys.stderr.write("python -m simulations sweep: interrupted, nothing is written\n")
        return INTERRUPTED
    return 0


_OPTIONS = {"committee": "needed"}
"""What attributes of plans are called on the command line, where that differs."""


def _sweep(arguments: argparse.Namespace) -> Sweep:
    dropouts = arguments.dropout
    if dropouts is None:
        dropouts = (Fraction(0),) if any(arguments.corruption) else rates_of(_DEFAULT_DROPOUTS)
    plan = Plan(
        Protocol.PAIRWISE,
        clients=arguments.clients,
        dimension=arguments.dimension,
        min_contributors=arguments.min_contributors,
        max_corrupt=arguments.max_corrupt,
        expected_dropout=arguments.expected_dropout,
        committee=_committee(arguments),
        epsilon=arguments.epsilon,
    )
    return Sweep(
        plan,
        arguments.protocol,
        dropouts,
        arguments.corruption,
        arguments.repeat,
        arguments.seed,
        arguments.drop_phase,
    )


def _committee(arguments: argparse.Namespace) -> CommitteePlan:
    members, needed = arguments.members, arguments.needed
    tolerated = arguments.corrupt_members
    if tolerated is None:
        # Two sets of members that open have one in common who is honest; clients refuse committees that tolerate none.
        tolerated = max(1, min(2, needed - 1, 2 * needed - members - 1))
    if tolerated < 1:
        raise SweepError(
            "corrupt_members", f"expected 1 or more, got {tolerated}: clients refuse a committee of saints"
        )
    return CommitteePlan(members, needed, tolerated)


def _jobs(arguments: argparse.Namespace) -> int:
    if arguments.jobs is None:
        return cores()
    if arguments.jobs < 1:
        raise SweepError("jobs", f"expected 1 or more, got {arguments.jobs}")
    jobs: int = arguments.jobs
    return jobs


def _check_outputs(arguments: argparse.Namespace, sweep: Sweep) -> None:
    """Refuse what could not be written before minutes are spent on it."""
    if arguments.csv == STDOUT and arguments.json == STDOUT:
        raise SweepError("json", "standard output is taken by --csv")
    if arguments.plot is not None:
        check_plot_file(arguments.plot)
        check_panels(sweep)
    for option in ("csv", "json", "plot"):
        path = getattr(arguments, option)
        if path is None or path == STDOUT:
            continue
        if Path(path).is_dir():
            raise SweepError(option, f"{path}: is a directory")
        if not Path(path).resolve().parent.is_dir():
            raise SweepError(option, f"{path}: there is no such directory")


@dataclass(frozen=True, slots=True)
class _Effort:
    """What a sweep took: processes, and seconds by the clock on the wall."""

    jobs: int
    seconds: float


def _write(arguments: argparse.Namespace, result: SweepResult, effort: _Effort) -> None:
    with_cpu = arguments.measure == "cpu"
    if arguments.plot is not None:
        draw_sweep(result, arguments.plot, with_cpu=with_cpu)
    texts = {"csv": to_csv, "json": to_json}
    for option, to_bytes in texts.items():
        path = getattr(arguments, option)
        if path is None:
            continue
        text = to_bytes(result, with_cpu=with_cpu)
        if path == STDOUT:
            sys.stdout.write(text)
            continue
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise SweepError(option, f"{path}: {error.strerror or type(error).__name__}") from None
    if STDOUT in {arguments.csv, arguments.json}:
        return
    cpu_s = sum(run.cpu_s for run in result.runs)
    sys.stdout.write(
        f"{to_text(result, with_cpu=with_cpu)}\n"
        f"{len(result.runs)} sessions in {effort.seconds:.0f} s with {effort.jobs} "
        f"process{'' if effort.jobs == 1 else 'es'}, {cpu_s / len(result.runs):.2f} CPU s each\n"
    )


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while sessions run; nothing where nobody looks at it."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("sessions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sessions", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
