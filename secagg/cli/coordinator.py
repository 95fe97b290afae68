"""``secagg coordinator``: set up and run the service that adds up masked adapters."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.daemon import (
    CERTIFICATE_DAYS,
    add_config,
    add_directory,
    add_listen,
    announcing,
    certificate_hosts,
    make_home,
    tls_facts,
)
from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
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
    from secagg.identity.config import CoordinatorConfig

KEY_FILE = "coordinator.key"
STATE_DIRECTORY = "state"
_LONGEST_SOCKET_PATH = 103
"""Bytes in the path of a Unix socket on every system we know (Linux takes 107)."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``coordinator init``, ``serve``, ``mark-restored`` and ``mark-moved``."""
    commands = add_group(
        subparsers,
        "coordinator",
        "set up and run the service that adds up masked adapters",
        """
        The operator's side: one directory with a configuration, two keys and a certificate, and one process
        that serves it. Sessions are opened with `secagg session open`.""",
    )
    _add_init(commands)
    _add_serve(commands)
    _add_mark_restored(commands)
    _add_mark_moved(commands)


def _add_init(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "init",
        "make keys, a certificate and a configuration",
        """
        Make what a coordinator needs, in DIR (mode 0700): coordinator.toml (its configuration, with comments),
        coordinator.key and .pub (the key that signs the log), tls.key and tls.crt (self-signed; contributors pin
        its fingerprint). The log and the results will be in DIR/record, which any static web server can publish.
        Nothing that exists is overwritten. Prints the public key and the fingerprint, which contributors need, the
        line that names the log in their policies and their auditors', and the command that starts the service.""",
        "secagg coordinator init aggregator --listen 0.0.0.0:7443 --host aggregator.example",
    )
    add_directory(parser)
    add_listen(parser, 7443)
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or IP address by which contributors reach the service, for the certificate; may be repeated "
        "(default: the host of --listen; for loopback addresses also localhost)",
    )
    parser.add_argument(
        "--origin",
        metavar="NAME",
        help="the log's name, for ever, such as aggregator.example/secagg (default: HOST/secagg)",
    )
    parser.add_argument(
        "--witnesses",
        type=Path,
        metavar="FILE",
        help="C2SP policy file with the witnesses that have to cosign the log, and their addresses (default: none)",
    )
    add_new_passphrase(parser)
    parser.set_defaults(run=_init)


def _add_serve(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "serve",
        "run the service",
        """
        Serve the coordinator of a configuration until SIGTERM or SIGINT, then end in order. Everything that was
        acknowledged is durable; after a crash the same command goes on with all open sessions. Sessions, uploads
        and the operator's socket are in the state directory. Once it serves, one line on stdout says where; a log
        of events goes to stderr, one JSON object a line, without secrets.""",
        "secagg coordinator serve --config aggregator/coordinator.toml",
    )
    add_config(parser, "coordinator.toml", "coordinator init")
    parser.add_argument(
        "--ingest",
        type=int,
        metavar="N",
        help="take uploads in N processes beside this one, on the N ports after that of the service (default: "
        "`ingest_processes` in the configuration)",
    )
    add_passphrase_file(parser)
    parser.set_defaults(run=_serve)


def _add_mark_restored(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "mark-restored",
        "accept a state directory that was restored from a backup",
        """
        A coordinator refuses to start on a database that went back in time: its sessions may have gone on after
        the backup was taken, and resuming them could contradict what contributors have seen already. This command
        accepts the database as it is now and ABANDONS every session in it, for good; contributors of open ones
        have to be asked again in a new session. Results that were published stay valid for whoever has them. Run
        it only after a restore that you made on purpose, while the coordinator is stopped; delete a file
        sessions.db-wal that belongs to the replaced database before you restore. The log cannot be restored from a
        backup: what it has shown to others it must go on with. Keep the newest record and log.head there are
        (`coordinator mark-moved`); if they are lost, begin another log, with another origin and an empty record.""",
        "secagg coordinator mark-restored --config aggregator/coordinator.toml",
    )
    add_config(parser, "coordinator.toml", "coordinator init")
    parser.set_defaults(run=_mark_restored)


def _add_mark_moved(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "mark-moved",
        "accept a log that was moved to another machine or directory",
        """
        A coordinator refuses to go on with a copy of its log: the original may have gone on, and two that do would
        show two histories, which every witness and every client that kept a checkpoint can prove. This command
        accepts record and state where they are now. Run it only on the NEWEST files, when nothing serves the others
        any more, never after restoring a backup; and after a move of sessions.db also `coordinator mark-restored`.""",
        "secagg coordinator mark-moved --config aggregator/coordinator.toml",
    )
    add_config(parser, "coordinator.toml", "coordinator init")
    parser.set_defaults(run=_mark_moved)


def load_config(path: Path) -> CoordinatorConfig:
    """The configuration in a file; errors name it."""
    from secagg.identity.config import CoordinatorConfig

    return read_config(CoordinatorConfig.load, path, "secagg coordinator init DIR")


def _init(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.passphrases import new_passphrase
    from secagg.crypto.notes import log_key
    from secagg.crypto.rng import SystemRng
    from secagg.identity.config import DEFAULT_ADDRESS, CoordinatorConfig, LogConfig
    from secagg.identity.files import PUBLIC_MODE, create_exclusively
    from secagg.identity.keys import KeyKind, create_key_file, public_path
    from secagg.identity.tls import CERTIFICATE_FILE, create_certificate
    from secagg.identity.tls import KEY_FILE as TLS_KEY_FILE
    from secagg.identity.transport import TlsFiles
    from secagg.runtime.clock import SystemClock

    reporter = Reporter.of(arguments)
    home: Path = arguments.directory
    listen = arguments.listen or DEFAULT_ADDRESS
    hosts = certificate_hosts(listen, arguments.host, "contributors")
    key_file, config_file = home / KEY_FILE, home / CoordinatorConfig.FILE_NAME
    log = LogConfig(arguments.origin or f"{hosts[0]}/secagg", arguments.witnesses and arguments.witnesses.absolute())
    log.policy()
    config = CoordinatorConfig(
        Path(STATE_DIRECTORY),
        Path(KEY_FILE),
        TlsFiles(Path(CERTIFICATE_FILE), Path(TLS_KEY_FILE)),
        log,
        listen=listen,
    )
    _check_socket_path(home.absolute() / STATE_DIRECTORY)
    make_home(home, (key_file, public_path(key_file), home / CERTIFICATE_FILE, home / TLS_KEY_FILE, config_file))
    key = create_key_file(key_file, KeyKind.COORDINATOR, new_passphrase(arguments, key_file, reporter), SystemRng())
    files = create_certificate(home, hosts, SystemClock().now_s(), CERTIFICATE_DAYS)
    create_exclusively(config_file, config.to_toml().encode("utf-8"), PUBLIC_MODE)
    following = f"secagg coordinator serve --config {config_file}"
    public_address = f"{hosts[0]}:{listen.port or 'PORT'}"
    joining = (
        f"secagg client init client.toml --coordinator {public_address} --coordinator-key {key.hex()} "
        f"--tls-fingerprint {files.fingerprint}"
    )
    log_line = f"log {log_key(log.origin, key).to_text()}"
    reporter.result(
        {
            "config": str(config_file),
            "coordinator_key": key.hex(),
            "tls_fingerprint": files.fingerprint,
            "hosts": list(hosts),
            "listen": str(listen),
            "log_line": log_line,
            "next": following,
            "contributors_run": joining,
        },
        table(
            [
                ("made", f"{home}: configuration, keys, certificate for {', '.join(hosts)}"),
                ("coordinator key", key.hex()),
                ("TLS fingerprint", files.fingerprint),
                ("policies name", log_line),
                ("next", following),
                ("contributors run", joining),
            ]
        ),
    )
    return ExitCode.OK


def _check_socket_path(state: Path) -> None:
    length = len(os.fsencode(state / "operator.sock"))
    if length > _LONGEST_SOCKET_PATH:
        raise CommandError(
            "state_directory",
            f"{state}: the path of the operator's socket would have {length} bytes, a system takes "
            f"{_LONGEST_SOCKET_PATH}",
            "choose a directory with a shorter path",
            kind="config",
        )


def _serve(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.serving import serve_until_signal
    from secagg.identity.keys import KeyKind
    from secagg.services.logs import log_to

    config = load_config(arguments.config)
    if arguments.ingest is not None:
        config = dataclasses.replace(config, ingest_processes=arguments.ingest)
    _check_socket_path(config.state_directory)
    secured = tls_facts(config.server_transport())
    key = load_key(config.key_file, KeyKind.COORDINATOR, arguments)
    reporter = Reporter.of(arguments)
    facts = {"coordinator_key": key.public_bytes.hex(), **secured}
    ready = announcing(reporter, config.listen, facts, f"coordinator key {key.public_bytes.hex()}")
    log_to()
    asyncio.run(serve_until_signal(config, key, ready))
    return ExitCode.OK


def _mark_restored(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.serving import SESSIONS_FILE
    from secagg.store.sqlite import mark_restored

    config = load_config(arguments.config)
    database = config.state_directory / SESSIONS_FILE
    abandoned = mark_restored(database)
    Reporter.of(arguments).result(
        {"database": str(database), "abandoned": abandoned}, f"accepted {database}; sessions abandoned: {abandoned}"
    )
    return ExitCode.OK


def _mark_moved(arguments: argparse.Namespace) -> ExitCode:
    from secagg.store.log_files import mark_moved

    config = load_config(arguments.config)
    signed = mark_moved(config.record_directory, config.state_directory)
    Reporter.of(arguments).result(
        {"record": str(config.record_directory), "log_size": signed},
        f"accepted {config.record_directory}; the log has signed {signed} entries",
    )
    return ExitCode.OK
