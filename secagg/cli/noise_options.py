"""The options of ``secagg session open`` and ``secagg demo`` about noise."""

from __future__ import annotations

import argparse
from fractions import Fraction

from secagg.cli.options import fraction

DEFAULT_POPULATION = "contributors"
DEFAULT_DELTA = Fraction(1, 100_000)
NOISE_OPTIONS = ("dp_delta", "dp_sessions", "dp_mechanism", "dp_population", "accept_ratio")
"""What has no meaning without ``dp_epsilon``."""


def add_noise_options(parser: argparse.ArgumentParser) -> None:
    """``--dp-epsilon`` and what belongs to it."""
    group = parser.add_argument_group(
        "differential privacy (without --dp-epsilon no noise is added: the sum is exact, and says what it says)"
    )
    group.add_argument(
        "--dp-epsilon",
        type=fraction,
        metavar="EPSILON",
        help="contributors add noise, so that all --dp-sessions together cost each of them at most this epsilon",
    )
    group.add_argument("--dp-delta", type=fraction, metavar="DELTA", help="at this delta (default: 1e-5)")
    group.add_argument(
        "--dp-sessions", type=int, metavar="T", help="for how many sessions like this one it has to do (default: 1)"
    )
    group.add_argument(
        "--dp-mechanism",
        choices=["skellam", "discrete-gaussian"],
        help="the distribution of the noise (default: skellam)",
    )
    group.add_argument(
        "--dp-population",
        metavar="NAME",
        help=f"whose budget it is: all sessions of one name draw on one (default: {DEFAULT_POPULATION})",
    )
    add_accept_ratio(group)


def add_accept_ratio(group: argparse._ActionsContainer) -> None:
    """``--accept-ratio``."""
    group.add_argument(
        "--accept-ratio",
        type=fraction,
        metavar="X",
        help="open the session even if the noise in the sum is up to X times as large as the largest possible signal; "
        "recorded (default: 1)",
    )
