"""``secagg merge``: look at a merged adapter, and at what is known of its error."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.exit_codes import ExitCode
from secagg.cli.options import add_command, add_group
from secagg.cli.output import Reporter

if TYPE_CHECKING:
    from secagg.cli.merged_modules import MergedFacts


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``merge inspect``."""
    commands = add_group(
        subparsers,
        "merge",
        "look at a merged adapter and at what is known of its error",
        """
        A session that merges updates publishes merge.json beside the merged adapter: what was sent of each module,
        and an estimate of how far the merged update is from the exact mean of the contributors' updates. The
        estimate follows from sums alone. docs/merging.md says how.""",
    )
    inspect = add_command(
        commands,
        "inspect",
        "show a merged adapter module by module, with its estimated error",
        """
        Show each module of an adapter: what was sent of it, the Frobenius norm of its update, its share of the
        energy (of the squared norm of all updates), its estimated relative error and what it was multiplied by to
        fit the probe best. Any PEFT adapter can be shown; without merge.json there is no estimate. Exits with 0 for
        a degraded adapter too: --format json says `degraded`.""",
        """
        secagg merge inspect merged
        secagg merge inspect merged --plot merged.png""",
    )
    inspect.add_argument("adapter", type=Path, metavar="DIR", help="the adapter's directory, as PEFT reads it")
    inspect.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw error and energy by module: FILE ends in .png or .svg (needs matplotlib)",
    )
    inspect.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.merge_plot import check_plot_file, draw
    from secagg.cli.merged_modules import read_facts

    if arguments.plot is not None:
        check_plot_file(arguments.plot)
    facts = read_facts(arguments.adapter)
    if arguments.plot is not None:
        draw(facts, arguments.plot)
    Reporter.of(arguments).result({"adapter": str(arguments.adapter), **facts.value()}, in_words(facts))
    return ExitCode.OK


def in_words(facts: MergedFacts) -> str:
    """Table and summary for people."""
    return "\n".join((facts.table(), "", *facts.summary()))
