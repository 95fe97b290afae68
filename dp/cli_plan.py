"""`python -m dp plan`: parameters that meet a demand, or what to relax."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from dp.cli_values import STDOUT, add_json, number, whole, write
from dp.demand import Demand, MechanismKind, default_max_contributors
from dp.flattening import flattened_bound, flattened_dimension
from dp.plan_report import Request, plan_text, plan_value, refusal_text, refusal_value, warning_of
from dp.planner import PlanError, plan
from dp.plots import check_plot_file, draw_plan

INFEASIBLE = 1

_DESCRIPTION = """\
Find the parameters of sessions in which every contributor adds a share of the noise: the integer grid,
the noise, the width of a field and the bytes of an upload. The noise is the least that keeps all the
sessions a contributor takes part in within the epsilon and delta you ask for, at the fewest survivors and
with as many colluders as you allow for; when more contribute, it costs less.

If nothing meets the demand, the exit code is 1, and each line says one demand to relax and by how much.

Look at the noise-to-signal ratio before anything else: the length of the noise over that of the longest
possible sum, sqrt(dimension) * noise / (contributors * clip). Above 1 the sum is mostly noise."""

_EPILOG = """\
examples:
  python -m dp plan --epsilon 8 --sessions 10 --min-survivors 1000 --corrupt 50 --dimension 500000
  python -m dp plan --epsilon 8 --min-survivors 2000 --dimension 65536 --flatten --json plan.json --plot p.png"""


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register `plan`."""
    parser = commands.add_parser(
        "plan",
        help="parameters that meet a demand, or which demand to relax",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _add_promise(parser)
    _add_vectors(parser)
    output = parser.add_argument_group("where the plan goes, besides a table for people")
    add_json(output)
    output.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw epsilon against noise and against survivors: FILE ends in .png or .svg (needs matplotlib)",
    )
    parser.set_defaults(run=_run)


def _add_promise(parser: argparse.ArgumentParser) -> None:
    privacy = parser.add_argument_group("what contributors are promised")
    privacy.add_argument(
        "--epsilon", type=number, required=True, metavar="E", help="the most that all sessions may cost one contributor"
    )
    privacy.add_argument(
        "--delta",
        type=number,
        default=Fraction(1, 10**5),
        metavar="D",
        help="the probability of more than that, well below one in all contributors (default: 1e-5)",
    )
    privacy.add_argument(
        "--sessions", type=whole, default=1, metavar="T", help="in how many sessions one may take part (default: 1)"
    )
    crowd = parser.add_argument_group("who contributes")
    crowd.add_argument(
        "--min-survivors", type=whole, required=True, metavar="N", help="with fewer contributions no sum is opened"
    )
    crowd.add_argument(
        "--corrupt", type=whole, default=0, metavar="N", help="how many of them may leave out their noise (default: 0)"
    )
    crowd.add_argument(
        "--max-contributors",
        type=whole,
        metavar="N",
        help="the most that one sum may hold (default: the power of two at or above --min-survivors, at least 1024)",
    )


def _add_vectors(parser: argparse.ArgumentParser) -> None:
    vectors = parser.add_argument_group("what they contribute")
    vectors.add_argument("--dimension", type=whole, required=True, metavar="N", help="parameters of one vector")
    vectors.add_argument(
        "--clip",
        type=number,
        default=Fraction(1),
        metavar="C",
        help="its largest L2 norm, in its own units (default: 1)",
    )
    vectors.add_argument(
        "--flatten",
        action="store_true",
        help="vectors are rotated first, so that coordinates are small and fields narrow; pads to whole blocks",
    )
    vectors.add_argument(
        "--mechanism",
        choices=[kind.value for kind in MechanismKind],
        default=MechanismKind.SKELLAM.value,
        help="the noise (default: skellam)",
    )


def _run(arguments: argparse.Namespace) -> int:
    request = _request(arguments)
    if arguments.plot is not None:
        check_plot_file(arguments.plot)
    try:
        planned = plan(request.demand)
    except PlanError as error:
        write(arguments.json, refusal_value(request, error), refusal_text(request, error))
        if arguments.json == STDOUT:
            _say(("dp: no plan: " + error.reason,))
        return INFEASIBLE
    warning = warning_of(request, planned)
    if arguments.plot is not None:
        draw_plan(planned, arguments.plot)
    write(arguments.json, plan_value(request, planned, warning), plan_text(request, planned, warning))
    if arguments.json == STDOUT and warning is not None:
        _say((f"dp: warning: {warning.summary}",))
    return 0


def _say(lines: Sequence[str]) -> None:
    sys.stderr.write("\n".join(lines) + "\n")


def _request(arguments: argparse.Namespace) -> Request:
    dimension, bound = arguments.dimension, None
    # Checked here as well: both are computed with before the demand can refuse them.
    if arguments.flatten and arguments.dimension >= 1 and arguments.clip > 0:
        dimension, bound = (
            flattened_dimension(arguments.dimension),
            flattened_bound(arguments.clip, arguments.dimension),
        )
    room = arguments.max_contributors
    demand = Demand(
        arguments.epsilon,
        arguments.delta,
        arguments.sessions,
        arguments.min_survivors,
        arguments.corrupt,
        dimension,
        arguments.clip,
        default_max_contributors(arguments.min_survivors) if room is None else room,
        MechanismKind(arguments.mechanism),
        bound,
    )
    return Request(demand, arguments.dimension if arguments.flatten else None)
