"""``python -m simulations explore``: random sessions with everything that may go wrong, judged by all invariants."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from simulations.exploring.search import Explored, Found, Search, explore
from simulations.world.plan import Protocol

_DESCRIPTION = """\
Draw sessions from seeds, with crashes, dropouts, lost, repeated, delayed and replayed messages, partitions, clients and
members that lie, a coordinator that signs two closes; play them and check every invariant all along. What violates one
is shrunk to a minimal list of operations and printed as a test.

exit codes: 0 nothing was found; 1 something was; 2 unusable arguments."""


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``explore``."""
    parser = commands.add_parser(
        "explore",
        help="random sessions with faults and lies, every invariant checked, failures shrunk",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def main(argv: Sequence[str]) -> int:
    """The command by itself; returns the exit code."""
    parser = argparse.ArgumentParser(description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked for."""
    parser.add_argument("--seed", type=whole, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--runs", type=whole, default=200, help="how many seeds (default: %(default)s)")
    parser.add_argument("--protocol", choices=[each.value for each in Protocol], help="of all sessions (default: both)")
    parser.add_argument("--most", type=whole, default=20, help="end after so many findings (default: %(default)s)")
    parser.add_argument("--shrink", type=whole, default=3, help="shrink so many of them (default: %(default)s)")
    parser.add_argument("--workers", type=whole, help="processes (default: one for each core)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything to this file as well")


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    search = Search(
        seeds=range(arguments.seed, arguments.seed + arguments.runs),
        protocol=None if arguments.protocol is None else Protocol(arguments.protocol),
        most=max(1, arguments.most),
        shrinks=arguments.shrink,
        workers=arguments.workers or None,
    )
    began_s = time.monotonic()
    with _progress(len(search.seeds)) as progress:
        explored = explore(search, progress)
    seconds = time.monotonic() - began_s
    if sys.stderr.isatty():
        sys.stderr.write(f"{explored.runs / max(seconds, 1e-9):.1f} sessions a second\n")
    if arguments.json is not None:
        try:
            arguments.json.write_text(to_json(explored), encoding="utf-8")
        except OSError as error:
            sys.stderr.write(f"python -m simulations explore: {arguments.json}: {error.strerror}\n")
            return 2
    print(to_words(explored), end="")
    return 1 if explored.found else 0


def to_words(explored: Explored) -> str:
    """What was found, for people."""
    lines = [f"{explored.runs} sessions, {len(explored.found)} findings"]
    lines += [f"  {count:6} {ending}" for ending, count in explored.endings.items()]
    for found in explored.found:
        lines += ["", *_finding(found)]
    return "\n".join(lines) + "\n"


def _finding(found: Found) -> list[str]:
    lines = [f"seed {found.seed} violates {found.finding.invariant}: {found.finding.reason}"]
    script = found.shrunk or found.script
    name = re.sub(r"\W+", "_", found.finding.invariant)
    return [
        *lines,
        "",
        f"def test_{name}_in_the_session_of_seed_{found.seed}():",
        '    script = Script.parse("""\\',
        script.to_text().rstrip(),
        '""")',
        "    assert isinstance(run_script(script), Fine)",
    ]


def to_json(explored: Explored) -> str:
    """The same for programs; the same for the same seeds."""
    found = [
        {
            "seed": each.seed,
            "invariant": each.finding.invariant,
            "reason": each.finding.reason,
            "script": each.script.to_text(),
            "shrunk": None if each.shrunk is None else each.shrunk.to_text(),
        }
        for each in explored.found
    ]
    value = {"runs": explored.runs, "endings": explored.endings, "found": found}
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def whole(text: str) -> int:
    """A whole number of an argument."""
    if re.fullmatch(r"[0-9]{1,12}", text) is None:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def _progress(total: int) -> AbstractContextManager[Callable[[int], None]]:
    """A bar on stderr, if somebody sits there."""
    if not sys.stderr.isatty():
        return nullcontext(lambda _runs: None)
    return _Bar(total)


class _Bar:
    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("sessions", total=total)

    def __enter__(self) -> Callable[[int], None]:
        self._progress.start()
        return lambda runs: self._progress.update(self._task, completed=runs)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
