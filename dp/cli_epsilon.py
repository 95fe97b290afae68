"""`python -m dp epsilon`: what sessions with given parameters cost."""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from typing import Any

from dp.charge import epsilon_of
from dp.cli_values import add_json, number, plain, shown, table, whole, write
from dp.demand import MAX_SESSIONS
from dp.errors import ParameterError
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam, Gaussian, Mechanism, Skellam
from dp.parameters import check_integer
from dp.sensitivity import MAX_DIMENSION, Sensitivity

_DESCRIPTION = """\
What a number of sessions with the same noise costs together: the smallest epsilon that Renyi accounting
gives at this delta, rounded up, and the integer order that gave it.

Every mechanism has its own options; another's are refused. Variances are on the integer grid that
vectors were rounded to, and so are the norms: --l2-squared is the largest squared L2 norm of one
contributor's integers, --l1 their largest L1 norm. What colluders added does not count as noise."""

_EPILOG = """\
examples:
  python -m dp epsilon --mechanism skellam --mu 6939532 --l2-squared 17043968 --l1 4227517
  python -m dp epsilon --mechanism skellam --local-mu 72460 --survivors 1000 --corrupt 50 \\
      --l2-squared 16906665 --dimension 500000 --sessions 10
  python -m dp epsilon --mechanism discrete-gaussian --sigma-squared 72460 --clients 950 \\
      --l2-squared 16906665 --dimension 500000 --sessions 10
  python -m dp epsilon --mechanism gaussian --noise-multiplier 5 --sessions 100 --delta 1e-5"""

# What each mechanism takes beside --sessions, --delta and --json: needed options first.
_NORMS = ("l2_squared", "l1", "dimension", "distance")
_TAKES = {
    "skellam": ("mu", "local_mu", "survivors", "corrupt", *_NORMS),
    "discrete-gaussian": ("sigma_squared", "clients", "corrupt", *_NORMS),
    "gaussian": ("noise_multiplier",),
}
_OPTIONS = tuple(dict.fromkeys(option for options in _TAKES.values() for option in options))


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register `epsilon`."""
    parser = commands.add_parser(
        "epsilon",
        help="what sessions with given parameters cost",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("--mechanism", required=True, choices=tuple(_TAKES), help="the noise")
    parser.add_argument("--sessions", type=whole, default=1, metavar="T", help="how many sessions (default: 1)")
    parser.add_argument(
        "--delta", type=number, default=Fraction(1, 10**5), metavar="D", help="above 0 and below 1 (default: 1e-5)"
    )
    _add_noise(parser)
    _add_norms(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _add_noise(parser: argparse.ArgumentParser) -> None:
    skellam = parser.add_argument_group("Skellam noise: its total variance, or a share of it for each contributor")
    skellam.add_argument("--mu", type=number, metavar="V", help="variance of all honest noise in one coordinate")
    skellam.add_argument("--local-mu", type=number, metavar="V", help="variance that each contributor adds")
    skellam.add_argument("--survivors", type=whole, metavar="N", help="contributors in the sum, with --local-mu")
    gaussian = parser.add_argument_group("discrete Gaussian noise, a share of each contributor")
    gaussian.add_argument(
        "--sigma-squared", type=number, metavar="V", help="parameter of each contributor's noise, at least 4"
    )
    gaussian.add_argument("--clients", type=whole, metavar="N", help="contributors in the sum")
    continuous = parser.add_argument_group("continuous Gaussian noise")
    continuous.add_argument("--noise-multiplier", type=number, metavar="Z", help="standard deviation over clip")


def _add_norms(parser: argparse.ArgumentParser) -> None:
    both = parser.add_argument_group("both Skellam and discrete Gaussian noise")
    both.add_argument("--corrupt", type=whole, metavar="N", help="contributors who may collude (default: 0)")
    both.add_argument("--l2-squared", type=whole, metavar="N", help="largest squared L2 norm of one vector")
    both.add_argument(
        "--l1",
        type=whole,
        metavar="N",
        help="largest L1 norm of one vector (default: the most that the squared L2 norm and --dimension allow)",
    )
    both.add_argument(
        "--dimension",
        type=whole,
        metavar="N",
        help="coordinates; Skellam noise needs it for that default only (and then takes 2^32)",
    )
    both.add_argument(
        "--distance",
        type=number,
        metavar="P",
        help="total variation between a session as it is run and the ideal noise (default: 0); charged to delta",
    )


def _run(arguments: argparse.Namespace) -> int:
    for option in _OPTIONS:
        if getattr(arguments, option) is not None and option not in _TAKES[arguments.mechanism]:
            raise ParameterError(option, f"is not an option of --mechanism {arguments.mechanism}")
    if not 0 < arguments.delta < 1:
        raise ParameterError("delta", "must be above 0 and below 1")
    check_integer("sessions", arguments.sessions, 1, MAX_SESSIONS)
    mechanism = _mechanism(arguments)
    spent = epsilon_of(mechanism.charge().times(arguments.sessions), arguments.delta)
    found = math.isfinite(spent.epsilon)
    value = {
        "epsilon": spent.epsilon if found else None,
        "order": spent.order,
        "delta": plain(arguments.delta),
        "sessions": arguments.sessions,
        "mechanism": mechanism.to_json(),
    }
    cost = f"{spent.epsilon:.6f}" if found else "none: the distance alone exceeds delta, or the noise is far too small"
    rows = [
        ("mechanism", arguments.mechanism),
        ("sessions", str(arguments.sessions)),
        ("delta", shown(arguments.delta)),
        ("epsilon", cost),
        ("order", str(spent.order) if spent.order else "-"),
    ]
    write(arguments.json, value, table(rows))
    return 0 if found else 1


def _mechanism(arguments: argparse.Namespace) -> Mechanism:
    match arguments.mechanism:
        case "gaussian":
            return Gaussian(_needed(arguments, "noise_multiplier"))
        case "discrete-gaussian":
            names = {"local_variance": "sigma_squared", "survivors": "clients"}
            sigma_squared, clients = _needed(arguments, "sigma_squared"), _needed(arguments, "clients")
            _needed(arguments, "dimension")
            sensitivity, distance = _sensitivity(arguments), _distance(arguments)
            try:
                return DistributedDiscreteGaussian(
                    sigma_squared, clients, arguments.corrupt or 0, sensitivity, distance
                )
            except ParameterError as error:
                raise ParameterError(names.get(error.field, error.field), error.reason) from None
    return _skellam(arguments)


def _skellam(arguments: argparse.Namespace) -> Mechanism:
    sensitivity, distance = _sensitivity(arguments), _distance(arguments)
    names = {"variance": "mu", "local_variance": "local_mu"}
    try:
        if arguments.local_mu is None:
            for option in ("survivors", "corrupt"):
                if getattr(arguments, option) is not None:
                    raise ParameterError(option, "goes with --local-mu: --mu is the variance of honest noise only")
            if arguments.mu is None:
                raise ParameterError("mu", "is required, or --local-mu and --survivors")
            return Skellam(arguments.mu, sensitivity, distance)
        if arguments.mu is not None:
            raise ParameterError("mu", "give it, or --local-mu and --survivors, not both")
        survivors = _needed(arguments, "survivors")
        return DistributedSkellam(arguments.local_mu, survivors, arguments.corrupt or 0, sensitivity, distance)
    except ParameterError as error:
        raise ParameterError(names.get(error.field, error.field), error.reason) from None


def _sensitivity(arguments: argparse.Namespace) -> Sensitivity:
    """The norms; without a dimension, which Skellam noise does not ask for, it is the largest one."""
    squared = _needed(arguments, "l2_squared")
    dimension = MAX_DIMENSION if arguments.dimension is None else arguments.dimension
    try:
        if arguments.l1 is None:
            return Sensitivity.of_squared_norm(squared, dimension)
        return Sensitivity(squared, arguments.l1, dimension)
    except ParameterError as error:
        field = "l2_squared" if error.field == "squared_l2" else error.field
        raise ParameterError(field, error.reason.replace("squared_l2", "l2-squared")) from None


def _distance(arguments: argparse.Namespace) -> Fraction:
    return Fraction(0) if arguments.distance is None else arguments.distance


def _needed(arguments: argparse.Namespace, option: str) -> Any:  # noqa: ANN401 - whatever the option's type is
    value = getattr(arguments, option)
    if value is None:
        raise ParameterError(option, f"is required with --mechanism {arguments.mechanism}")
    return value
