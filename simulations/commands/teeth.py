"""``python -m simulations teeth``: one-line mutants of the protocol, each of which the explorer has to find."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import Any

from simulations.commands.explore import whole
from simulations.exploring.mutants import MUTANTS
from simulations.exploring.teeth import Bite, TeethError, bite_all, false_alarms, named
from simulations.world.plan import Protocol
from simulations.world.workers import cores

_DESCRIPTION = """\
Copy the packages, weaken one line of the protocol, and let the explorer look for it: it has to find every mutant within
the stated number of seeds, and nothing in the same seeds without one (which is looked at first).

exit codes: 0 every mutant was found; 1 one was not, or something was found without; 2 unusable arguments."""


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``teeth``."""
    parser = commands.add_parser(
        "teeth",
        help="weaken the protocol line by line; the explorer has to notice each",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="only mutants whose name contains this")
    parser.add_argument("--seeds", type=whole, help="so many for each (default: what each says)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    mutants = named(arguments.only)
    if not mutants:
        sys.stderr.write(f"python -m simulations teeth: no mutant of {len(MUTANTS)} is named like that\n")
        return 2
    try:
        for protocol in Protocol:
            seeds = max((arguments.seeds or each.seeds for each in mutants if each.protocol is protocol), default=0)
            alarms = false_alarms(protocol, seeds, cores()) if seeds else []
            if alarms:
                print(f"without any mutant, {protocol}:\n" + "\n".join(alarms))
                return 1
            if seeds:
                print(f"without any mutant: nothing in {seeds} sessions, {protocol}", flush=True)
        bites = bite_all(mutants, arguments.seeds, _tell)
    except TeethError as error:
        sys.stderr.write(f"python -m simulations teeth: {error}\n")
        return 2
    missed = [each for each in bites if not each.is_expected]
    print(f"{len(bites) - len(missed)} of {len(bites)} mutants found")
    return 1 if missed else 0


def _tell(bite: Bite) -> None:
    if bite.seed is None:
        print(f"NOT FOUND  {bite.mutant.name}", flush=True)
        return
    word = "found" if bite.is_expected else "BY ANOTHER"
    print(f"{word:10} {bite.mutant.name}: seed {bite.seed}, {bite.invariant}: {bite.reason}")
    print(textwrap.indent(bite.script.rstrip(), " " * 13), flush=True)
