"""``secagg authority``: set up and run a key authority, which decrypts one sum of a one-shot session."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.daemon import CERTIFICATE_DAYS, add_config, certificate_hosts, make_home, until_signal
from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import (
    add_command,
    add_group,
    add_new_passphrase,
    add_passphrase_file,
    address,
    hex_bytes,
    load_key,
    read_config_error,
)
from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.identity.address import Address
    from secagg.identity.authority_config import AuthorityConfig

KEY_FILE = "authority.key"
CARD_FILE = "authority.card"
STATE_DIRECTORY = "state"


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``authority init``, ``serve`` and ``log``."""
    commands = add_group(
        subparsers,
        "authority",
        "set up and run a key authority, which decrypts one sum of a one-shot session",
        """
        The side of an institution that makes an encryption key for a session and decrypts the sum of what was
        encrypted under it, once: after it has checked log, roster and contributions for itself, after attestors have
        recomputed the sum, and only if what it finds opens the masked sum. It needs TenSEAL:
        pip install "secagg-lora[he]".""",
    )
    _add_init(commands)
    _add_serve(commands)
    _add_log(commands)


def _add_init(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "init",
        "make a key, a certificate, a configuration and a card",
        """
        Make what a key authority needs, in DIR (mode 0700): authority.toml (its configuration, with comments),
        authority.key and .pub (the key that signs answers), tls.key and tls.crt (self-signed), the state directory,
        which is made here and never again, and authority.card, which goes to the operators of coordinators. Nothing
        that exists is overwritten. Prints the public key, which contributors pin.""",
        """
        secagg authority init authority --name "Institute A" --listen 0.0.0.0:7446 --host a.example \\
            --coordinator 9a1c...e0 --registrar 77ab...31 --attestor 51d0...aa --attestor 0c88...04 \\
            --log-policy log.policy""",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="where to; made if it is missing")
    parser.add_argument("--name", required=True, help="the authority's name, for people")
    parser.add_argument(
        "--listen",
        type=address,
        metavar="HOST:PORT",
        help="where to serve; port 0 takes a free one (default: 127.0.0.1:7446)",
    )
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or IP address by which coordinators reach the service, for the certificate; may be repeated, the "
        "first stands in the card (default: the host of --listen; for loopback addresses also localhost)",
    )
    parser.add_argument(
        "--address",
        type=address,
        metavar="HOST:PORT",
        help="where coordinators reach it (default: the first host and the port of --listen)",
    )
    _add_policy(parser)
    add_new_passphrase(parser)
    parser.set_defaults(run=_init)


def _add_policy(parser: argparse.ArgumentParser) -> None:
    for name, help_text in (
        ("--coordinator", "public key of a coordinator to serve; may be repeated, and added to authority.toml later"),
        ("--registrar", "public key of a registrar whose rosters are taken; may be repeated (default: any)"),
        ("--attestor", "public key of an attestor; at least one, may be repeated"),
    ):
        parser.add_argument(
            name,
            type=hex_bytes(32),
            action="append",
            default=[],
            required=name == "--attestor",
            metavar="HEX",
            help=help_text,
        )
    parser.add_argument(
        "--attestations", type=int, metavar="N", help="how many attestors must have signed a sum (default: all)"
    )
    parser.add_argument(
        "--min-contributors", type=int, default=3, metavar="N", help="no sum of fewer is opened (default: 3)"
    )
    parser.add_argument(
        "--log-policy",
        type=Path,
        metavar="FILE",
        help="C2SP policy file with the logs, and the witnesses that have to have cosigned them (default: none)",
    )


def _add_serve(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "serve",
        "run the authority",
        """
        Serve the authority of a configuration until SIGTERM or SIGINT, then end in order. What it decided is durable
        before it decrypts; after a crash the same command goes on. Once it serves, one line on stdout says where; a
        log of events goes to stderr, one JSON object a line, without secrets. It refuses to start without TenSEAL,
        and on a state that is missing, a copy, or older than it was: then --restored accepts it, and every session in
        it is abandoned.""",
        "secagg authority serve --config authority/authority.toml",
    )
    add_config(parser, "authority.toml", "authority init")
    parser.add_argument(
        "--restored",
        action="store_true",
        help="the state was restored from a backup, or lost: abandon every session in it, with its key. Give it once, "
        "with the first start after the restore",
    )
    add_passphrase_file(parser)
    parser.set_defaults(run=_serve)


def _add_log(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "log",
        "show what the authority opened and what it refused",
        """
        Print what became of every request to open a sum, oldest first: the session, the SHA-256 of the close entry,
        how many contributions, and whether it was answered or why not. Reads opened.jsonl in the state directory,
        also while the authority serves.""",
        "secagg authority log --config authority/authority.toml",
    )
    add_config(parser, "authority.toml", "authority init")
    parser.set_defaults(run=_log)


def load_config(path: Path) -> AuthorityConfig:
    """The configuration in a file; errors name it."""
    from secagg.identity.authority_config import AuthorityConfig
    from secagg.identity.errors import ConfigError

    try:
        return AuthorityConfig.load(path)
    except ConfigError as error:
        raise read_config_error(path, error, "secagg authority init DIR --name NAME --attestor HEX") from None


def check_tenseal() -> None:
    """Raise CommandError unless TenSEAL can be imported, before a session needs it."""
    from secagg.he.errors import HeUnavailableError
    from secagg.he.seal import load_api

    try:
        load_api()
    except HeUnavailableError as error:
        raise CommandError("TENSEAL", str(error), kind="config") from None


def _init(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.passphrases import new_passphrase
    from secagg.crypto.rng import SystemRng
    from secagg.identity.authority_config import AuthorityConfig
    from secagg.identity.cards import AuthorityCard
    from secagg.identity.files import PUBLIC_MODE, create_exclusively
    from secagg.identity.keys import KeyKind, create_key_file, public_path
    from secagg.identity.tls import CERTIFICATE_FILE, create_certificate
    from secagg.identity.tls import KEY_FILE as TLS_KEY_FILE
    from secagg.runtime.clock import SystemClock
    from secagg.store.authority_state import AuthorityState

    reporter = Reporter.of(arguments)
    home: Path = arguments.directory
    config, hosts = _planned(arguments)
    key_file, card_file, config_file = home / KEY_FILE, home / CARD_FILE, home / AuthorityConfig.FILE_NAME
    state = home / STATE_DIRECTORY
    tls_files = (home / CERTIFICATE_FILE, home / TLS_KEY_FILE)
    make_home(home, (key_file, public_path(key_file), *tls_files, card_file, config_file, state))
    passphrase = new_passphrase(arguments, key_file, reporter)
    identity = create_key_file(key_file, KeyKind.KEY_AUTHORITY, passphrase, SystemRng())
    files = create_certificate(home, (*hosts, config.address.host), SystemClock().now_s(), CERTIFICATE_DAYS)
    pem = files.certificate.read_text(encoding="ascii")
    attestors = tuple(sorted(config.attestors))
    card = AuthorityCard(config.name, identity, str(config.address), pem, attestors, config.attestations)
    AuthorityState.create(state)
    create_exclusively(card_file, card.to_bytes() + b"\n", PUBLIC_MODE)
    create_exclusively(config_file, config.to_toml().encode("utf-8"), PUBLIC_MODE)
    _say_what_is_open(config, reporter)
    following = f"secagg authority serve --config {config_file}"
    reporter.result(
        {
            "config": str(config_file),
            "card": str(card_file),
            "identity": identity.hex(),
            "tls_fingerprint": files.fingerprint,
            "address": str(config.address),
            "listen": str(config.listen),
            "next": following,
        },
        table(
            [
                ("made", f"{home}: configuration, key, certificate, empty state, card"),
                ("for coordinators", f"{card_file}: hand it to their operators (`secagg session open --authority`)"),
                ("contributors pin", identity.hex()),
                ("attestors", f"{config.attestations} of\n" + "\n".join(each.hex() for each in attestors)),
                ("serves", "\n".join(sorted(each.hex() for each in config.coordinators)) or "nobody yet"),
                ("next", following),
            ]
        ),
    )
    return ExitCode.OK


def _planned(arguments: argparse.Namespace) -> tuple[AuthorityConfig, tuple[str, ...]]:
    """The configuration that the options describe, and the names for the certificate. Nothing is made yet."""
    from secagg.identity.authority_config import DEFAULT_ADDRESS, AuthorityConfig
    from secagg.identity.tls import CERTIFICATE_FILE
    from secagg.identity.tls import KEY_FILE as TLS_KEY_FILE
    from secagg.identity.transport import TlsFiles

    listen = arguments.listen or DEFAULT_ADDRESS
    hosts = certificate_hosts(listen, arguments.host, "coordinators")
    attestors = frozenset(arguments.attestor)
    config = AuthorityConfig(
        name=arguments.name,
        listen=listen,
        address=arguments.address or _public_address(listen, hosts[0]),
        state_directory=Path(STATE_DIRECTORY),
        key_file=Path(KEY_FILE),
        transport=TlsFiles(Path(CERTIFICATE_FILE), Path(TLS_KEY_FILE)),
        coordinators=frozenset(arguments.coordinator),
        registrars=frozenset(arguments.registrar),
        min_contributors=arguments.min_contributors,
        log_policy=arguments.log_policy and arguments.log_policy.absolute(),
        attestors=attestors,
        attestations=len(attestors) if arguments.attestations is None else arguments.attestations,
    )
    if config.log_policy is not None:
        config.policy()
    return config, hosts


def _public_address(listen: Address, host: str) -> Address:
    if listen.port == 0:
        raise CommandError(
            "ADDRESS", "--listen has port 0, and coordinators need one to connect to", "give --address HOST:PORT"
        )
    return type(listen)(host, listen.port)


def _say_what_is_open(config: AuthorityConfig, reporter: Reporter) -> None:
    if not config.coordinators:
        reporter.progress(f"no coordinator is served: add keys to coordinators in {config.FILE_NAME}")
    if not config.registrars:
        reporter.progress("no registrar is named: a coordinator chooses who counts as a person (registrars)")
    if config.log_policy is None:
        reporter.progress("log_policy is missing: before serving, name a policy file with a quorum of witnesses")


def _serve(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.authority_serving import serve
    from secagg.identity.keys import KeyKind
    from secagg.identity.tls import ServerTls, fingerprint
    from secagg.services.logs import log_to
    from secagg.store.authority_state import AuthorityState

    check_tenseal()
    config = load_config(arguments.config)
    transport = config.server_transport()
    key = load_key(config.key_file, KeyKind.KEY_AUTHORITY, arguments)
    reporter = Reporter.of(arguments)
    serving: dict[str, object] = {"event": "serving", "identity": key.public_bytes.hex()}
    if isinstance(transport, ServerTls):
        serving["tls_fingerprint"] = fingerprint(transport.certificate_chain)
    if arguments.restored:
        abandoned = AuthorityState.accept_restored(config.state_directory)
        serving["abandoned"] = abandoned
        reporter.progress(f"restored: {abandoned} sessions abandoned, with their keys")

    def ready(port: int) -> None:
        where = str(type(config.listen)(config.listen.host, port))
        secured = "TLS" if "tls_fingerprint" in serving else "plaintext on loopback"
        reporter.result(
            {**serving, "address": where, "port": port},
            f"serving on {where} ({secured}), authority {key.public_bytes.hex()}",
        )

    log_to()
    asyncio.run(until_signal(lambda stop: serve(config, key, ready, stop)))
    return ExitCode.OK


def _log(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.describe_openings import show_openings
    from secagg.store.institution_state import JOURNAL_FILE
    from secagg.store.opening_journal import read_journal

    lines = read_journal(load_config(arguments.config).state_directory / JOURNAL_FILE)
    show_openings(lines, Reporter.of(arguments))
    return ExitCode.OK
