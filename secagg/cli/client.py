"""``secagg client``: write the configuration of a contributor."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.connection import DEFAULT_IDENTITY, DEFAULT_STATE, add_explicit, explicit_config
from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import add_command, add_group, fraction, hex_bytes
from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.identity.client_config import BudgetConfig


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``client init``."""
    commands = add_group(
        subparsers,
        "client",
        "write the configuration of a contributor",
        """
        A contributor's configuration says which coordinator is meant, by its key and certificate, and what the
        contributor insists on whatever a session says. It holds no secret; it names the key file.""",
    )
    init = add_command(
        commands,
        "init",
        "write client.toml",
        """
        Write a configuration with comments to FILE, which must be new. Relative paths in it count from its
        directory. The coordinator's key and fingerprint are what `secagg coordinator init` printed to the operator;
        get them by a way that you trust. Name the registrar too: otherwise the coordinator chooses who counts as
        a person. For one-shot sessions name those who open the sum and whom you take for honest: whoever is not
        named counts as corrupt, and a session with too many of those is refused.""",
        """
        secagg client init client.toml --coordinator aggregator.example:7443 --coordinator-key 9a1c...e0 \\
            --tls-fingerprint 5f02...7d --registrar 77ab...31""",
    )
    init.add_argument("file", type=Path, metavar="FILE", help="the configuration to write")
    add_explicit(init.add_argument_group("which coordinator"))
    init.add_argument(
        "--identity", type=Path, metavar="KEYFILE", help="your key file (default: identity.key beside FILE)"
    )
    init.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="where your part of sessions is kept, encrypted under your key (default: state beside FILE)",
    )
    init.add_argument(
        "--min-contributors", type=int, default=3, metavar="N", help="the smallest cohort you accept (default: 3)"
    )
    init.add_argument(
        "--tolerated-corrupt",
        type=fraction,
        default="1/10",
        metavar="FRACTION",
        help="the part of a cohort that may collude with the coordinator without harm to you (default: 1/10)",
    )
    init.add_argument(
        "--base-model",
        type=hex_bytes(32),
        action="append",
        default=[],
        metavar="HEX",
        help="digest of a base model you contribute to; may be repeated (default: any)",
    )
    init.add_argument(
        "--budget-epsilon",
        type=fraction,
        metavar="EPSILON",
        help="what all sessions together may cost you in differential privacy; sessions beyond it, and all without "
        "noise, are refused (default: nobody counts)",
    )
    init.add_argument(
        "--budget-delta", type=fraction, metavar="DELTA", help="the delta of --budget-epsilon (default: 1e-5)"
    )
    init.set_defaults(run=_init)


def _init(arguments: argparse.Namespace) -> ExitCode:
    from secagg.identity.client_config import PolicyConfig
    from secagg.identity.files import PUBLIC_MODE, create_exclusively

    file: Path = arguments.file
    config = explicit_config(
        arguments, _beside(file, arguments.identity, DEFAULT_IDENTITY), _beside(file, arguments.state, DEFAULT_STATE)
    )
    policy = PolicyConfig(
        arguments.min_contributors,
        arguments.tolerated_corrupt,
        frozenset(arguments.registrar),
        frozenset(arguments.base_model),
        None if arguments.log_policy is None else _beside(file, arguments.log_policy, Path()),
    )
    config = replace(config, policy=policy, budget=_budget(arguments))
    create_exclusively(file, config.to_toml().encode("utf-8"), PUBLIC_MODE)
    reporter = Reporter.of(arguments)
    if not policy.registrars:
        reporter.progress("no registrar is named: the coordinator chooses who counts as a person (policy.registrars)")
    if policy.log is None:
        reporter.progress("no witnesses are named: the coordinator can show you another log than others (policy.log)")
    identity = file.absolute().parent / config.identity_key_file
    following = f"secagg contribute ADAPTER_DIR --session SESSION --config {file}"
    rows = [("made", str(file)), ("next", following)]
    if not identity.exists():
        rows.insert(1, ("first", f"secagg identity new {os.path.relpath(identity)}"))
    reporter.result(
        {
            "config": str(file),
            "identity": str(identity),
            "registrars": len(policy.registrars),
            "openers": len(config.openers),
            "next": following,
        },
        table(rows),
    )
    return ExitCode.OK


def _budget(arguments: argparse.Namespace) -> BudgetConfig | None:
    from secagg.identity.client_config import BudgetConfig

    if arguments.budget_epsilon is None:
        if arguments.budget_delta is not None:
            raise CommandError("ARGUMENTS", "--budget-delta needs --budget-epsilon")
        return None
    delta = Fraction(1, 100_000) if arguments.budget_delta is None else arguments.budget_delta
    return BudgetConfig(arguments.budget_epsilon, delta)


def _beside(file: Path, given: Path | None, default: Path) -> Path:
    """``given``, which counts from the working directory, as it has to stand in ``file``."""
    if given is None:
        return default
    target, home = given.absolute(), file.absolute().parent
    return target.relative_to(home) if target.is_relative_to(home) else target
