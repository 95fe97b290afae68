"""The command: `python -m dp plan | epsilon`. Every error becomes one line here, and an exit code."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dp import cli_epsilon, cli_plan
from dp.errors import ParameterError

UNUSABLE = 2

_DESCRIPTION = """\
How much noise privacy needs, and what privacy a given noise buys.

Contributors add a share of noise each before they mask their vectors, so that nobody sees a sum without
it. `plan` finds the parameters of such sessions, or says which demand to relax and by how much;
`epsilon` says what sessions with given parameters cost. A cost is a pair (epsilon, delta): whether one
contributor's vector was in the sums changes the probability of anything that is published by a factor of
at most e^epsilon, except with probability delta. That somebody took part is not hidden."""

_EXIT_CODES = """\
`python -m dp COMMAND --help` explains a command.

exit codes:
  0  done
  1  nothing meets the demand; what would is said, one line each
  2  unusable arguments, or a file that cannot be written"""

_COLUMNS = 112
_ONE_ARGUMENT = re.compile(r"argument (?:--)?(\S+): (.*)", re.DOTALL)
_MISSING = re.compile(r"the following arguments are required: (?:--)?([A-Za-z0-9-]+)")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the descriptions are written."""

    def __init__(self, prog: str) -> None:
        width = min(_COLUMNS, shutil.get_terminal_size((_COLUMNS, 24)).columns)
        super().__init__(prog, max_help_position=30, width=width)


class _Parser(argparse.ArgumentParser):
    """argparse without abbreviated options, whose errors are ours."""

    def __init__(self, **keywords: Any) -> None:  # noqa: ANN401 - argparse's own keywords
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **keywords)

    def error(self, message: str) -> NoReturn:
        """Raise ParameterError."""
        if found := _ONE_ARGUMENT.fullmatch(message):
            raise ParameterError(found[1].lower(), found[2])
        if found := _MISSING.match(message):
            raise ParameterError(found[1].lower(), "is required")
        raise ParameterError("arguments", message)


def main() -> None:
    """Run the command in `sys.argv` and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run a command; returns its exit code. `--help` raises SystemExit(0)."""
    try:
        arguments = parser().parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except ParameterError as error:
        return _report(error.field.replace("_", "-"), error.reason)
    except BrokenPipeError:
        # Whoever read our output has enough of it. Python flushes once more at exit: give it somewhere to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNUSABLE


def parser() -> argparse.ArgumentParser:
    """The parser of both commands."""
    made = _Parser(prog="python -m dp", description=_DESCRIPTION, epilog=_EXIT_CODES)
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    cli_plan.add_parser(commands)
    cli_epsilon.add_parser(commands)
    return made


def _report(field: str, reason: str) -> int:
    line = " ".join(f"{field}: {reason}".split())
    sys.stderr.write(f"dp: error: {line}\n")
    return UNUSABLE
