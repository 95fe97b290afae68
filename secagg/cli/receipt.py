"""``secagg receipt``: keep the proof that a contribution is in the published set."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from secagg.cli.connection import add_connection, client_config, connect_to
from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import add_command, hex_bytes, session_id
from secagg.cli.output import Reporter, table


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``receipt``."""
    parser = add_command(
        subparsers,
        "receipt",
        "keep the proof that your contribution is counted",
        """
        Save the proof that a contribution is in the closed set of a session, as a C2SP tlog-proof: the path of the
        session's close entry to a cosigned checkpoint, and inside it the path of the signed header to the set. It can
        be fetched from the moment a session is closed, needs no secret, and is checked before it is written.
        `secagg-verify check --receipt FILE` checks it against the published record, offline.""",
        "secagg receipt 6f1c...09 --out my-receipt --config client.toml",
    )
    parser.add_argument("session", type=session_id, metavar="SESSION", help="the session: 32 hex characters")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write it; must be new")
    parser.add_argument(
        "--public-key", type=hex_bytes(32), metavar="HEX", help="whose contribution (default: your identity's)"
    )
    add_connection(parser)
    parser.set_defaults(run=lambda arguments: asyncio.run(_receipt(arguments)))


async def _receipt(arguments: argparse.Namespace) -> ExitCode:
    from secagg.identity.files import PUBLIC_MODE, create_exclusively
    from secagg.identity.keys import KeyKind, load_public_key, public_path

    config = client_config(arguments)
    identity = arguments.public_key
    if identity is None:
        identity = load_public_key(public_path(config.identity_key_file), KeyKind.IDENTITY)
    if arguments.out.exists():
        raise CommandError("EXISTS", f"{arguments.out} exists", "choose another file")
    async with await connect_to(config, arguments.timeout) as remote:
        proof = await remote.contribution_proof(arguments.session, identity)
    create_exclusively(arguments.out, proof.to_bytes(), PUBLIC_MODE)
    following = f"secagg-verify check RECORD --policy FILE --receipt {arguments.out}"
    Reporter.of(arguments).result(
        {
            "session": arguments.session.hex(),
            "identity": identity.hex(),
            "log_index": proof.index,
            "receipt": str(arguments.out),
            "next": following,
        },
        table(
            [
                ("counted", f"{identity.hex()} in session {arguments.session.hex()}"),
                ("receipt", str(arguments.out)),
                ("to check it", following),
            ]
        ),
    )
    return ExitCode.OK
