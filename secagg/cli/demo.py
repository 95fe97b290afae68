"""``secagg demo``: a whole session on this machine, every party a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import add_command
from secagg.cli.output import Reporter

if TYPE_CHECKING:
    from secagg.cli.demo_plan import DemoPlan
    from secagg.cli.demo_run import DemoOutcome

_DESCRIPTION = """\
Run a whole session on this machine: a coordinator and its contributors, each a process of its own, over gRPC
with TLS on loopback. Contributors add up LoRA adapters that were really trained (examples/adapters); some of
them are killed on the way, half of them before and half after they upload. In the end the merged adapter is
compared with the plain mean of the contributors' adapters, and the published record is verified. Three witnesses
cosign the log before anything follows from it. Nothing is left running.

DIR/contributors/K/ holds the adapter of contributor K (from 1), DIR/merged/ the merged adapter, as PEFT reads it,
DIR/record/ the published record (any static web server can show it), DIR/policy.toml whom its auditor trusts.
There are eight example adapters; further contributors reuse them, with all values multiplied by 1.01 in the second
round, 1.02 in the third, and so on."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register the command."""
    parser = add_command(
        subparsers,
        "demo",
        "a whole session on this machine, from keys to the merged adapter",
        _DESCRIPTION,
        "secagg demo --clients 12 --drop 3 --out my-demo",
    )
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="contributors (default 8, at least 3)")
    parser.add_argument("--drop", type=int, metavar="K", help="how many of them drop out (default 2 where possible)")
    parser.add_argument(
        "--out", type=Path, default=Path("secagg-demo"), metavar="DIR", help="where to write (default secagg-demo)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Run the demo."""
    from secagg.cli import demo_plan, demo_run

    reporter = Reporter.of(arguments)
    try:
        drop = min(2, demo_plan.max_drop(arguments.clients)) if arguments.drop is None else arguments.drop
        plan = demo_plan.plan_demo(arguments.clients, drop)
        demo_plan.prepare_directory(arguments.out)
        with tempfile.TemporaryDirectory(prefix="secagg-demo-") as private:
            outcome = asyncio.run(demo_run.run_demo(plan, arguments.out, Path(private), reporter.progress))
    except demo_plan.DemoFailedError as error:
        raise CommandError("DEMO_FAILED", str(error), kind="demo", code=ExitCode.SESSION_FAILED) from None
    except demo_plan.DemoError as error:
        raise CommandError("IMPOSSIBLE_DEMO", str(error)) from None
    reporter.result(dataclasses.asdict(outcome), _in_words(plan, outcome))
    return ExitCode.OK


def _in_words(plan: DemoPlan, outcome: DemoOutcome) -> str:
    dropped = ", ".join(f"{item['client']} ({item['phase']})" for item in outcome.dropped) or "nobody"
    return "\n".join(
        (
            f"The sum is exact: {len(outcome.contributors)} of {plan.clients} contributions, and the merged adapter is",
            f"within {outcome.max_abs_diff_steps:.2f} quantisation steps of their plain mean (rounding alone gives up",
            "to 1). The coordinator saw masked inputs only.",
            f"  contributors  {', '.join(map(str, outcome.contributors))}",
            f"  dropped out   {dropped}",
            f"  merged        {outcome.merged}",
            f"  record        {outcome.record}",
            "",
            f"$ secagg-verify check {outcome.record} --policy {outcome.policy}",
            outcome.verified.rstrip(),
        )
    )
