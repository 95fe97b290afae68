"""Calls of the operator's service, through the socket in a coordinator's state directory."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable
from typing import Any

from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError

OPERATOR_CALL_S = 60.0
REACH_S = 3.0
"""How long a coordinator on the same machine may take to answer at all."""


async def at_socket(arguments: argparse.Namespace, call: Awaitable[Any]) -> None:
    """Await a call of the operator's service; say where it was looked for if nobody answers."""
    from secagg.runtime.participant import TransportError

    try:
        await call
    except TransportError as error:
        if str(error) != "UNAVAILABLE":
            raise CommandError(
                "COORDINATOR_FAILED",
                f"the coordinator did not answer ({error})",
                "its log on stderr says why",
                kind="transport",
                code=ExitCode.UNAVAILABLE,
            ) from None
        raise CommandError(
            "UNREACHABLE",
            f"no coordinator of {arguments.config} answers on this machine",
            f"start it with `secagg coordinator serve --config {arguments.config}`, as the same user",
            kind="transport",
            code=ExitCode.UNAVAILABLE,
        ) from None
