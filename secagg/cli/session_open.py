"""``secagg session open``: a new session."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli import coordinator
from secagg.cli.exit_codes import ExitCode
from secagg.cli.merge_options import add_merge_options
from secagg.cli.noise_options import add_noise_options
from secagg.cli.operator_socket import OPERATOR_CALL_S, REACH_S, at_socket
from secagg.cli.options import add_command, fraction, session_id
from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.cli.opening import Opening
    from secagg.identity.config import CoordinatorConfig


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``session open``."""
    parser = add_command(
        commands,
        "open",
        "open a session (operator)",
        """
        Open a session on a coordinator that serves on this machine, through the socket in its state directory.
        Reads coordinator.toml, a signed roster, and an example adapter or a base model, of which only names, shapes
        and the size of updates go into the session. Degree and threshold of the masking graph follow from the numbers
        below and cannot be chosen; parameters that cannot work are refused before anything is sent. Prints the session,
        which contributors need, and what the parameters come to.

        Strategies of two sessions (two-session, pilot-basis) are one operation: the command opens the first, waits
        until its sum is published, and opens the second. Contributors name the first and take part in whichever of the
        two they belong to.

        In a pairwise session contributors stay until the sum is published, and the coordinator alone serves them. In
        a one-shot session they upload once and leave; institutions open the sum: a committee, of whom enough have to
        take part, or one key authority with attestors. Their cards are what `secagg committee init` and
        `secagg authority init` wrote.""",
        """
        secagg session open --config aggregator/coordinator.toml --roster roster --adapter example \\
            --min-contributors 50
        secagg session open --config aggregator/coordinator.toml --roster roster --adapter example \\
            --min-contributors 50 --merge two-session --rank-out 32
        secagg session open --config aggregator/coordinator.toml --roster roster --adapter example \\
            --min-contributors 50 --protocol one-shot --committee a.card b.card d.card e.card""",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the coordinator.toml that is served"
    )
    parser.add_argument("--roster", type=Path, required=True, metavar="PATH", help="a signed roster")
    add_merge_options(parser)
    _add_openers(parser)
    parser.add_argument(
        "--min-contributors",
        type=int,
        required=True,
        metavar="N",
        help="no sum over fewer is ever opened; contributors insist on it, not only the coordinator",
    )
    parser.add_argument(
        "--max-corrupt",
        type=int,
        metavar="N",
        help="how many contributors may collude with the coordinator without harm to others; at most N - 2 of "
        "--min-contributors N (default: a tenth of the largest cohort, as far as that allows)",
    )
    parser.add_argument(
        "--max-contributors",
        type=int,
        default=1024,
        metavar="N",
        help="the most that fit into one sum; each doubling costs a bit a parameter (default: 1024)",
    )
    parser.add_argument(
        "--value-bits",
        type=int,
        metavar="N",
        help="bits of a quantised parameter, 2 to 32 (default: 15; with noise, as many as it takes)",
    )
    parser.add_argument(
        "--clip-norm",
        type=fraction,
        metavar="NUMBER",
        help="adapters of a larger norm are scaled down to it, like 12.5 or 25/2: with factors the L2 norm of A and B, "
        "otherwise the joint Frobenius norm of all updates scale * B A (default: twice the example's)",
    )
    parser.add_argument(
        "--flatten",
        choices=["auto", "off"],
        default="off",
        help="auto: rotate adapters by a public random rotation where that makes uploads smaller (default: off)",
    )
    parser.add_argument(
        "--expected-dropout",
        type=fraction,
        metavar="FRACTION",
        help="pairwise: the part of contributors that disappears by itself; decides availability only (default: 1/10)",
    )
    parser.add_argument(
        "--deadlines",
        default="",
        metavar="PHASE=SECONDS,...",
        help="how long each phase stays open (default: advertise=600,share=600,upload=3600,confirm=600,unmask=600; "
        "one-shot: commit=3600,upload=3600,hold=600,open=3600); a phase ends early when nobody is missing",
    )
    parser.add_argument(
        "--retention",
        type=int,
        metavar="SECONDS",
        help="how long masked inputs are kept after the end (default: retention_s of the configuration)",
    )
    parser.add_argument(
        "--follows",
        type=session_id,
        metavar="SESSION",
        help="two-session and pilot-basis: wait for this first session and open the second, with the other options as "
        "for the first; where the command that opened the first has ended, or the second came to nothing",
    )
    add_noise_options(parser)
    parser.set_defaults(run=_open)


def _add_openers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol",
        choices=["pairwise", "one-shot"],
        default="pairwise",
        help="pairwise: contributors stay to the end; one-shot: they upload once and leave (default: pairwise)",
    )
    group = parser.add_argument_group("who opens the sum of a one-shot session")
    group.add_argument(
        "--committee", type=Path, nargs="+", metavar="CARD", help="cards of the members, in the order of their places"
    )
    group.add_argument(
        "--needed",
        type=int,
        metavar="R",
        help="how many members open a sum; twice R must exceed members and corrupt members together, so that no two "
        "sets can be opened (default: the fewest of whom that is true)",
    )
    group.add_argument(
        "--max-corrupt-members",
        type=int,
        metavar="C",
        help="how many members may collude with the coordinator; contributors count those as corrupt whom they have "
        "not pinned (default: a third, less one)",
    )
    group.add_argument(
        "--authority", type=Path, metavar="CARD", help="instead, the card of a key authority, which makes a key for it"
    )


def _open(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli import following
    from secagg.cli.opening import plan_following, plan_opening
    from secagg.remote_operator import reach_operator

    config, reporter = coordinator.load_config(arguments.config), Reporter.of(arguments)
    first: bytes | None = arguments.follows
    if first is None:
        planned = plan_opening(arguments, config)
        # Before anything is reserved: whoever forgot to serve has not spent a session.
        asyncio.run(at_socket(arguments, reach_operator(config.state_directory, REACH_S)))
        _open_planned(arguments, config, planned, reporter)
        if not following.takes_two(planned):
            return ExitCode.OK
        first = planned.session.parameters.session
        reporter.progress(f"{following.WAITING}; if this command is ended: --follows {first.hex()}")
    ended = asyncio.run(following.wait_for_first(arguments, config, first))
    second = plan_following(arguments, config, ended.first, ended.manifest, ended.attempt)
    _open_planned(arguments, config, second, reporter)
    return ExitCode.OK


def _open_planned(
    arguments: argparse.Namespace, config: CoordinatorConfig, planned: Opening, reporter: Reporter
) -> None:
    """Open a session, and tell what it is and what contributors do."""
    from secagg.cli.describe import describe_session
    from secagg.cli.operator_ledger import in_turn
    from secagg.remote_operator import open_session

    with in_turn(planned, config) as opening:
        asyncio.run(at_socket(arguments, open_session(config.state_directory, opening.request(), OPERATOR_CALL_S)))
    for note in opening.notes:
        reporter.progress(f"note: {note}")
    described = describe_session(opening.session, opening.merging)
    following = f"secagg contribute ADAPTER_DIR --session {described.value['session']} --config client.toml"
    reporter.result(
        {**described.value, "notes": list(opening.notes), "next": following},
        table([*described.rows, ("contributors run", following)]),
    )
