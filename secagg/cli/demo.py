"""``secagg demo``: a whole session on this machine, every party a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.noise_options import DEFAULT_DELTA, add_accept_ratio
from secagg.cli.options import add_command, fraction
from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.cli.demo_course import Course
    from secagg.cli.demo_merge import DemoMerge
    from secagg.cli.demo_noise import DemoNoise
    from secagg.cli.demo_plan import DemoPlan
    from secagg.cli.demo_run import DemoOutcome

_DESCRIPTION = """\
Run a whole session on this machine: a coordinator and its contributors, each a process of its own, over gRPC
with TLS on loopback. Contributors merge LoRA adapters that were really trained, by people who never met: with
different ranks, each from a start of its own (examples/adapters_independent). Some of them are killed on the way,
half of them before and half after they upload. In the end the mean of what they sent is compared with the plain
mean, the error that each merged module is estimated to have with its true error, and the published record is
verified. Three witnesses cosign the log before anything follows from it. Nothing is left running.

With --merge factors all adapters began from one A (examples/adapters), and the means of their A and B are the
merged adapter.

With --protocol one-shot contributors upload once and leave: their processes have ended long before the sum is
opened, and those that are killed are killed before they upload. Seven members of a committee, processes too, hold
shares of what masks the uploads; two of them are stopped before the opening, and the other five open the sum. With
--opening key-authority a key authority decrypts instead, once two attestors have run the verifier over the published
ciphertexts; that needs TenSEAL (pip install "secagg-lora[he]").

DIR/contributors/K/ holds the adapter of contributor K (from 1), DIR/merged/ the merged adapter, as PEFT reads it,
DIR/record/ the published record (any static web server can show it), DIR/policy.toml whom its auditor trusts.
With --dp-epsilon factors are merged, and each contributor adds a share of noise, so that the sum is
differentially private whoever looks at it. With as few contributors as here that takes much more noise than there
is signal: the demo says how much, and runs only if you accept it (--accept-ratio).

There are eight example adapters; further contributors reuse them, with all values multiplied by 1.01 in the second
round, 1.02 in the third, and so on."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register the command."""
    parser = add_command(
        subparsers,
        "demo",
        "a whole session on this machine, from keys to the merged adapter",
        _DESCRIPTION,
        """
        secagg demo --clients 12 --drop 3 --out my-demo
        secagg demo --protocol one-shot
        secagg demo --merge factors
        secagg demo --dp-epsilon 8 --accept-ratio 1000""",
    )
    parser.add_argument(
        "--protocol",
        choices=["pairwise", "one-shot"],
        default="pairwise",
        help="pairwise: contributors stay to the end; one-shot: they upload once and leave (default: pairwise)",
    )
    parser.add_argument(
        "--opening",
        choices=["committee", "key-authority"],
        help="who opens the sum of a one-shot session (default: committee)",
    )
    parser.add_argument(
        "--merge",
        choices=["sketch", "dense", "factors"],
        help="sketch or dense: adapters of different ranks and starts, by their updates; factors: adapters of one "
        "start, by A and B (default: sketch; with --dp-epsilon factors)",
    )
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="contributors (default 8, at least 3)")
    parser.add_argument("--drop", type=int, metavar="K", help="how many of them drop out (default 2 where possible)")
    parser.add_argument(
        "--out", type=Path, default=Path("secagg-demo"), metavar="DIR", help="where to write (default secagg-demo)"
    )
    parser.add_argument(
        "--dp-epsilon",
        type=fraction,
        metavar="EPSILON",
        help="contributors add noise, so that the session costs each of them at most this epsilon at delta 1e-5",
    )
    add_accept_ratio(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Run the demo."""
    from secagg.cli import demo_plan, demo_run

    reporter = Reporter.of(arguments)
    try:
        course = _course(arguments, reporter)
        if course.noise is not None:
            _check_noise(course.noise, course.plan)
        demo_plan.prepare_directory(arguments.out)
        with tempfile.TemporaryDirectory(prefix="secagg-demo-") as private:
            outcome = asyncio.run(demo_run.run_demo(course, arguments.out, Path(private), reporter.progress))
    except demo_plan.DemoFailedError as error:
        raise CommandError("DEMO_FAILED", str(error), kind="demo", code=ExitCode.SESSION_FAILED) from None
    except demo_plan.DemoError as error:
        raise CommandError("IMPOSSIBLE_DEMO", str(error)) from None
    reporter.result(outcome.value(), _in_words(course.plan, outcome))
    return ExitCode.OK


def _course(arguments: argparse.Namespace, reporter: Reporter) -> Course:
    """The demo that the options ask for. Raises DemoError, CommandError, HeUnavailableError."""
    kind = _kind_of_course(arguments)
    kind.check_installed()
    plan, noise = kind.planned(arguments.clients, arguments.drop), _noise(arguments)
    return kind(plan, reporter.progress, _merge(arguments), noise)


def _merge(arguments: argparse.Namespace) -> DemoMerge:
    """How to merge: with noise, factors, of which there are fewest numbers to add noise to."""
    from secagg.cli.demo_merge import DemoMerge

    if arguments.dp_epsilon is None:
        return DemoMerge.of(arguments.merge or "sketch")
    if arguments.merge not in {None, "factors"}:
        raise CommandError("ARGUMENTS", f"--dp-epsilon is not for --merge {arguments.merge}", "add --merge factors")
    return DemoMerge.of("factors")


def _check_noise(noise: DemoNoise, plan: DemoPlan) -> None:
    """Refuse noise that was not accepted before anything is written. Raises DemoError."""
    from secagg.cli.demo_merge import FactorDemo
    from secagg.cli.demo_noise import check_accepted
    from secagg.cli.demo_plan import read_vectors, write_contributors

    with tempfile.TemporaryDirectory(prefix="secagg-demo-") as directory:
        write_contributors(plan, Path(directory), FactorDemo.examples)
        check_accepted(noise, plan, read_vectors(plan, Path(directory)))


def _noise(arguments: argparse.Namespace) -> DemoNoise | None:
    from secagg.cli.demo_noise import DemoNoise
    from secagg.cli.noise_plan import check_accept_ratio

    if arguments.dp_epsilon is None:
        if arguments.accept_ratio is not None:
            raise CommandError("ARGUMENTS", "--accept-ratio needs --dp-epsilon")
        return None
    if arguments.accept_ratio is not None:
        check_accept_ratio(arguments.accept_ratio)
    ratio = Fraction(1) if arguments.accept_ratio is None else arguments.accept_ratio
    return DemoNoise(arguments.dp_epsilon, DEFAULT_DELTA, ratio)


def _kind_of_course(arguments: argparse.Namespace) -> type[Course]:
    match arguments.protocol, arguments.opening:
        case "pairwise", None:
            from secagg.cli.demo_pairwise import PairwiseCourse

            return PairwiseCourse
        case "one-shot", "key-authority":
            from secagg.cli.demo_authority import AuthorityCourse

            return AuthorityCourse
        case "one-shot", _:
            from secagg.cli.demo_committee import CommitteeCourse

            return CommitteeCourse
        case _:
            raise CommandError("ARGUMENTS", "--opening is for one-shot sessions", "add --protocol one-shot")


def _comparison(plan: DemoPlan, outcome: DemoOutcome) -> tuple[str, ...]:
    added = f"{len(outcome.contributors)} of {plan.clients} contributions"
    if outcome.errors is not None:
        return (
            f"The sum is exact: {added}, and the mean of what they sent is within",
            f"{outcome.max_abs_diff_steps:.2f} quantisation steps of the plain mean (rounding alone gives up to 1).",
            "The coordinator saw masked inputs only.",
            "",
            *outcome.errors.in_words(),
            "",
        )
    if outcome.noise is None:
        return (
            f"The sum is exact: {added}, and the merged adapter is",
            f"within {outcome.max_abs_diff_steps:.2f} quantisation steps of their plain mean (rounding alone gives up",
            "to 1). The coordinator saw masked inputs only.",
        )
    return (
        f"The sum holds {added} and the noise that each of them added: as much as was",
        "announced. The coordinator saw masked inputs only, and nobody the sum without noise.",
    )


def _in_words(plan: DemoPlan, outcome: DemoOutcome) -> str:
    dropped = ", ".join(f"{item['client']} ({item['phase']})" for item in outcome.dropped) or "nobody"
    rows = [
        ("contributors", ", ".join(map(str, outcome.contributors))),
        ("dropped out", dropped),
        *outcome.opened.rows,
        ("merged", outcome.merged),
        ("record", outcome.record),
    ]
    if outcome.noise is not None:
        rows += outcome.noise.rows()
    return "\n".join(
        (
            *_comparison(plan, outcome),
            *(f"  {line}" for line in table(rows).split("\n")),
            "",
            f"$ secagg-verify check {outcome.record} --policy {outcome.policy}",
            outcome.verified.rstrip(),
        )
    )
