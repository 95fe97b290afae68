"""The command: ``python -m simulations run | sweep | attack | explore | teeth | estimate``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from simulations.commands import attack as cli_attack
from simulations.commands import estimate as cli_estimate
from simulations.commands import explore as cli_explore
from simulations.commands import run as cli_run
from simulations.commands import sweep as cli_sweep
from simulations.commands import teeth as cli_teeth
from simulations.report.canvas import PlotsMissingError
from simulations.world.plan import PlanError

UNUSABLE = 2
_COLUMNS = 112

_DESCRIPTION = """\
Simulate sessions: thousands of clients, dropouts, liars and crashes, in virtual time, over the machines that the
services run. The same seed gives the same session."""

_EPILOG = """\
`python -m simulations COMMAND --help` explains a command.

exit codes:
  0  done, and every promise was kept
  1  a promise was broken: a wrong sum, an invariant, an attack that succeeds; what and from which seed is said
  2  unusable arguments, or a file that cannot be written"""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the descriptions are written."""

    def __init__(self, prog: str) -> None:
        width = min(_COLUMNS, shutil.get_terminal_size((_COLUMNS, 24)).columns)
        super().__init__(prog, max_help_position=30, width=width)


class _Parser(argparse.ArgumentParser):
    """argparse without abbreviated options, whose errors are one line."""

    def __init__(self, **keywords: Any) -> None:  # noqa: ANN401 - argparse's own keywords
        super().__init__(allow_abbrev=False, **{"formatter_class": _HelpFormatter, **keywords})

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(UNUSABLE, f"{self.prog}: {message}\n")


def main() -> None:
    """Run the command in ``sys.argv`` and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run a command; returns its exit code. Help and usage errors raise SystemExit."""
    try:
        arguments = _parser().parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except (PlanError, PlotsMissingError) as error:
        sys.stderr.write(f"python -m simulations: {error}\n")
        return UNUSABLE
    except BrokenPipeError:
        # Whoever read our output has enough of it. Python flushes once more at exit: give it somewhere to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m simulations", description=_DESCRIPTION, epilog=_EPILOG)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for command in (cli_run, cli_sweep, cli_attack, cli_explore, cli_teeth, cli_estimate):
        command.add_parser(commands)
    return parser
