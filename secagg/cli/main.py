"""The entry point: ``secagg COMMAND``.

Every command is a module of its own, imported only when it is called, with ``add_parser(subparsers) -> None``, which
sets ``run=`` to a function from the parsed arguments to an exit code. Errors are reported here and nowhere else.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import sys
from collections.abc import Sequence

from secagg.cli.exit_codes import ExitCode, exit_code_help
from secagg.cli.failures import CommandError, describe, known_errors
from secagg.cli.options import CommandParser
from secagg.cli.output import OutputFormat, Reporter

COMMANDS: dict[str, str] = {
    "demo": "a whole session on this machine, from keys to the merged adapter",
    "coordinator": "set up and run the service that adds up masked adapters",
    "session": "open a session, see where it stands, fetch its result",
    "identity": "make and show signing keys",
    "roster": "say who may contribute, and sign it",
    "client": "write the configuration of a contributor",
    "contribute": "add your adapter to a session",
    "merge": "look at a merged adapter and at what is known of its error",
    "receipt": "keep the proof that your contribution is counted",
    "witness": "run a witness, which cosigns a log's one history",
    "committee": "run a member of committees, which open the sums of one-shot sessions",
    "authority": "run a key authority, which decrypts one sum of a one-shot session",
    "attest": "vouch for the sum of a session's ciphertexts, so that it can be decrypted",
    "budget": "what was spent in differential privacy, and what is left",
    "log": "look at the files of a published log",
}
"""Name and summary of each command; ``secagg.cli.NAME`` holds it."""

_DESCRIPTION = """\
Add up LoRA adapters of people who do not trust the operator. The coordinator learns the sum of all
adapters and no single one; a session's signed log shows everybody the same.

Who runs what: an operator runs `coordinator` and opens a `session`; a registrar makes a `roster` of
the contributors' keys and signs it; contributors make an `identity` and `contribute`. `secagg demo`
shows all of it on one machine."""


def main() -> None:
    """Run the command in ``sys.argv`` and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run a command; returns its exit code. ``--help`` and ``--version`` raise SystemExit(0)."""
    # gRPC's core writes to stderr by itself; what it has to say comes as errors as well.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        arguments = parser_for(argv).parse_args(argv)
    except CommandError as error:
        return _report(Reporter(_format_asked_for(argv)), error)
    reporter = Reporter.of(arguments)
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:
        # Whoever read our output has enough of it. Python flushes once more at exit: give it somewhere to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.UNAVAILABLE
    except known_errors() as error:
        return _report(reporter, error)


def _report(reporter: Reporter, error: BaseException) -> int:
    failure = describe(error)
    reporter.error(failure.kind, failure.reason, failure.message)
    return failure.code


def parser_for(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, complete for the command that ``argv`` calls; the others are there by name only."""
    parser = CommandParser(
        prog="secagg",
        description=_DESCRIPTION,
        epilog=f"`secagg COMMAND --help` explains a command.\n\n{exit_code_help()}",
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    called = next((argument for argument in argv if not argument.startswith("-")), "")
    for name, summary in COMMANDS.items():
        if name == called:
            importlib.import_module(f"secagg.cli.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


class _Version(argparse.Action):
    """``--version``: looks the version up only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("secagg-lora")
        except PackageNotFoundError:
            found = "(not installed)"
        print(f"secagg-lora {found}")
        parser.exit()


def _format_asked_for(argv: Sequence[str]) -> OutputFormat:
    """The format of a command line that does not parse."""
    asked = any(pair == ("--format", "json") for pair in itertools.pairwise(argv))
    return OutputFormat.JSON if asked or "--format=json" in argv else OutputFormat.TEXT


if __name__ == "__main__":
    main()
