"""The options of ``secagg session open`` about what is merged and how."""

from __future__ import annotations

import argparse
from pathlib import Path

from secagg.cli.options import fraction

STRATEGIES = ("sketch", "two-session", "pilot-basis", "factors", "frozen-a", "dense")


def add_merge_options(parser: argparse.ArgumentParser) -> None:
    """Add them; none has a default that a strategy would not understand."""
    group = parser.add_argument_group("what is merged and how (docs/merging.md)")
    group.add_argument(
        "--merge",
        choices=STRATEGIES,
        default="sketch",
        help="sketch: adapters of any rank and start, in one upload; two-session: more precise and smaller, but the "
        "same contributors are needed twice; pilot-basis: a random part of the roster finds a basis, everybody else "
        "sends little; dense: whole updates, exact; frozen-a: adapters with one A that was never trained; factors: the "
        "mean of A and of B, only for adapters with one start that drifted little (default: sketch)",
    )
    group.add_argument(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="an example adapter: which modules there are, and how large updates are; with factors, of the shape that "
        "all are to have; with frozen-a, the one whose A is frozen",
    )
    group.add_argument(
        "--base",
        metavar="DIR_OR_DIGEST",
        help="the base model: a directory with config.json, whose modules are merged where there is no --adapter, and "
        "whose digest contributors can pin; or that digest, 64 hex digits",
    )
    group.add_argument(
        "--base-model", metavar="NAME", help="the base model's name in adapters (default: what --adapter or --base say)"
    )
    group.add_argument(
        "--target-modules",
        nargs="+",
        metavar="NAME",
        help="which modules of --base, by the last part of their names (default: all linear ones)",
    )
    group.add_argument(
        "--rank-out",
        type=int,
        metavar="R",
        help="rank of the merged adapter; more than contributors used keeps more (default: twice the example's, or 16)",
    )
    group.add_argument(
        "--columns",
        type=int,
        metavar="K",
        help="columns of the test matrices or bases (default: sketch and pilot-basis 2 R, two-session R + 8)",
    )
    group.add_argument("--core-columns", type=int, metavar="S", help="sketch: of the core (default: 8 R)")
    group.add_argument(
        "--probe-columns", type=int, metavar="P", help="of what errors are estimated by (default: 8; two sides 16)"
    )
    group.add_argument(
        "--sides",
        type=int,
        choices=(1, 2),
        help="pilot-basis: 1 sends K rows of each module, 2 a core of K x K, much less (default: 1)",
    )
    group.add_argument(
        "--pilot-share",
        type=fraction,
        metavar="FRACTION",
        help="pilot-basis: the part of the roster that is drawn for the first session (default: 1/5)",
    )
    group.add_argument(
        "--missing",
        choices=("refuse", "zero"),
        help="adapters without one of the modules are refused, or count as zero there (default: refuse)",
    )
