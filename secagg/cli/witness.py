"""``secagg witness``: set up and run a witness, which cosigns a log's one history."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.daemon import Ready, add_config, add_directory, add_listen, address_in_use, make_home, until_signal
from secagg.cli.exit_codes import ExitCode
from secagg.cli.options import (
    add_command,
    add_group,
    add_new_passphrase,
    add_passphrase_file,
    load_key,
    read_config,
)
from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.crypto.signing import SigningKey
    from secagg.identity.witness_config import WitnessConfig
    from secagg.transcript.note import VerifierKey

KEY_FILE = "witness.key"
STATE_DIRECTORY = "state"


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``witness init``, ``serve`` and ``key``."""
    commands = add_group(
        subparsers,
        "witness",
        "set up and run a witness, which cosigns a log's one history",
        """
        A witness signs each checkpoint of a log only if it continues what it signed before. Whoever demands enough
        witnesses of different operators knows that everybody was shown the same log. It speaks tlog-witness
        (c2sp.org) over HTTP and serves any log that does.""",
    )
    _add_init(commands)
    _add_serve(commands)
    _add_key(commands)


def _add_init(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "init",
        "make a key, an empty state and a configuration",
        """
        Make what a witness needs, in DIR (mode 0700): witness.toml (its configuration, with comments), witness.key
        and .pub, and the state directory, which is made here and never again: a witness that forgot what it signed
        has to be replaced. Nothing that exists is overwritten. Prints the line for policies.""",
        "secagg witness init w1 --name witness.example/w1 --listen 0.0.0.0:7444 --url https://witness.example",
    )
    add_directory(parser)
    parser.add_argument("--name", required=True, help="the witness's name: best a URL without its scheme")
    add_listen(parser, 7444)
    parser.add_argument(
        "--url", default="", metavar="URL", help="where others reach it (default: http:// and the address of --listen)"
    )
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        type=_log,
        metavar="VKEY",
        help="the key of a log to cosign; may be repeated, and added to witness.toml later",
    )
    add_new_passphrase(parser)
    parser.set_defaults(run=_init)


def _add_serve(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "serve",
        "run the witness",
        """
        Serve the witness of a configuration until SIGTERM or SIGINT. What it cosigned is durable before anybody
        sees it; after a crash the same command goes on. Once it serves, one line on stdout says where and under
        which key; a log of events goes to stderr, one JSON object a line. It refuses to start on a state that is
        missing or that its key did not sign.""",
        "secagg witness serve --config w1/witness.toml",
    )
    add_config(parser, "witness.toml", "witness init")
    add_passphrase_file(parser)
    parser.set_defaults(run=_serve)


def _add_key(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "key",
        "print the line that names this witness in policies",
        """
        Print `witness NAME VKEY URL`, the line of a tlog-policy file that trusts this witness. The URL is left out
        where the configuration has none that others could use. Reads the public half of the key only.""",
        "secagg witness key --config w1/witness.toml",
    )
    add_config(parser, "witness.toml", "witness init")
    parser.set_defaults(run=_key)


def _log(text: str) -> VerifierKey:
    from secagg.transcript.note import NoteError, VerifierKey

    try:
        return VerifierKey.parse(text)
    except NoteError as error:
        raise argparse.ArgumentTypeError(f"expected the key of a log (vkey): {error}") from None


def load_config(path: Path) -> WitnessConfig:
    """The configuration in a file; errors name it."""
    from secagg.identity.witness_config import WitnessConfig

    return read_config(WitnessConfig.load, path, "secagg witness init DIR --name NAME")


def _init(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.passphrases import new_passphrase
    from secagg.crypto.rng import SystemRng
    from secagg.identity.files import PUBLIC_MODE, create_exclusively
    from secagg.identity.keys import KeyKind, create_key_file, public_path
    from secagg.identity.witness_config import DEFAULT_ADDRESS, WitnessConfig
    from secagg.store.witness_state import DirectoryWitnessState

    reporter = Reporter.of(arguments)
    home: Path = arguments.directory
    key_file, config_file, state = home / KEY_FILE, home / WitnessConfig.FILE_NAME, home / STATE_DIRECTORY
    config = WitnessConfig(
        arguments.name,
        Path(STATE_DIRECTORY),
        Path(KEY_FILE),
        arguments.listen or DEFAULT_ADDRESS,
        arguments.url,
        tuple(arguments.log),
    )
    make_home(home, (key_file, public_path(key_file), config_file, state))
    public = create_key_file(key_file, KeyKind.WITNESS, new_passphrase(arguments, key_file, reporter), SystemRng())
    DirectoryWitnessState.create(state)
    create_exclusively(config_file, config.to_toml().encode("utf-8"), PUBLIC_MODE)
    rule = config.rule(public, config.listen.port)
    following = f"secagg witness serve --config {config_file}"
    reporter.result(
        {
            "config": str(config_file),
            "vkey": rule.key.to_text(),
            "url": rule.url,
            "listen": str(config.listen),
            "policy_line": rule.to_line().strip(),
            "next": following,
        },
        table(
            [
                ("made", f"{home}: configuration, key, empty state"),
                ("in policies", rule.to_line().strip()),
                ("logs", "\n".join(log.name for log in config.logs) or f"none yet: add keys to {config_file}"),
                ("next", following),
            ]
        ),
    )
    return ExitCode.OK


def _serve(arguments: argparse.Namespace) -> ExitCode:
    from secagg.identity.keys import KeyKind
    from secagg.services.logs import log_to

    config = load_config(arguments.config)
    key = load_key(config.key_file, KeyKind.WITNESS, arguments)
    reporter = Reporter.of(arguments)

    def ready(port: int) -> None:
        rule = config.rule(key.public_bytes, port)
        where = str(type(config.listen)(config.listen.host, port))
        reporter.result(
            {
                "event": "serving",
                "address": where,
                "port": port,
                "vkey": rule.key.to_text(),
                "url": rule.url,
                "policy_line": rule.to_line().strip(),
                "logs": [log.name for log in config.logs],
            },
            f"serving on {where}, witness {rule.key.to_text()}",
        )

    log_to()
    asyncio.run(until_signal(lambda stop: serve(config, key, ready, stop)))
    return ExitCode.OK


async def serve(config: WitnessConfig, key: SigningKey, ready: Ready, stop: asyncio.Event) -> None:
    """Serve a witness until ``stop``; ``ready`` is told the port.

    Raises:
        StoreError: the state is missing, in use, or not what this key signed.
        CommandError: the address cannot be bound.
    """
    from secagg.runtime.clock import SystemClock
    from secagg.runtime.witness import Witness
    from secagg.services.logs import EventLog
    from secagg.services.witness import WitnessServer
    from secagg.store.witness_state import DirectoryWitnessState

    state = await asyncio.to_thread(DirectoryWitnessState, config.state_directory)
    try:
        witness = Witness(config.name, key, config.logs, state, SystemClock())
        await asyncio.to_thread(witness.check_state)
        server = WitnessServer(witness, EventLog())
        try:
            port = await server.start(config.listen.host, config.listen.port)
        except OSError as error:
            raise address_in_use(config.listen, error.strerror or str(error)) from None
        try:
            ready(port)
            await stop.wait()
        finally:
            await server.stop()
    finally:
        state.close()


def _key(arguments: argparse.Namespace) -> ExitCode:
    from secagg.identity.keys import KeyKind, load_public_key, public_path

    config = load_config(arguments.config)
    public = load_public_key(public_path(config.key_file), KeyKind.WITNESS)
    rule = config.rule(public, config.listen.port)
    line = rule.to_line().strip()
    Reporter.of(arguments).result(
        {"name": rule.name, "vkey": rule.key.to_text(), "url": rule.url, "policy_line": line}, line
    )
    return ExitCode.OK
