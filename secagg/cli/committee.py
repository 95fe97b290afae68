"""``secagg committee``: set up and run a member of committees, which open the sums of one-shot sessions."""

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
    from secagg.identity.committee_config import CommitteeConfig

KEY_FILE = "committee.key"
CARD_FILE = "member.card"
STATE_DIRECTORY = "state"


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``committee init``, ``serve`` and ``log``."""
    commands = add_group(
        subparsers,
        "committee",
        "set up and run a member of committees, which open the sums of one-shot sessions",
        """
        The side of an institution that coordinators name in one-shot sessions: it holds a share of what masks each
        contribution, checks for itself which contributions the log says are in the sum, and gives away the sum of
        its shares of those, once. Enough members of different institutions open a sum; fewer learn nothing.""",
    )
    _add_init(commands)
    _add_serve(commands)
    _add_log(commands)


def _add_init(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "init",
        "make keys, a certificate, a configuration and a card",
        """
        Make what a committee member needs, in DIR (mode 0700): committee.toml (its configuration, with comments),
        committee.key and .pub (the key that signs answers; the key that boxes are sealed to follows from it),
        tls.key and tls.crt (self-signed), the state directory, which is made here and never again, and member.card,
        which goes to the operators of coordinators. Nothing that exists is overwritten. Prints the public key, which
        contributors pin.""",
        """
        secagg committee init member --name "Institute A" --listen 0.0.0.0:7445 --host a.example \\
            --coordinator 9a1c...e0 --registrar 77ab...31 --log-policy log.policy""",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="where to; made if it is missing")
    parser.add_argument("--name", required=True, help="the member's name, for people")
    parser.add_argument(
        "--listen",
        type=address,
        metavar="HOST:PORT",
        help="where to serve; port 0 takes a free one (default: 127.0.0.1:7445)",
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
    parser.add_argument(
        "--coordinator",
        type=hex_bytes(32),
        action="append",
        default=[],
        metavar="HEX",
        help="public key of a coordinator to serve; may be repeated, and added to committee.toml later",
    )
    parser.add_argument(
        "--registrar",
        type=hex_bytes(32),
        action="append",
        default=[],
        metavar="HEX",
        help="public key of a registrar whose rosters are taken; may be repeated (default: any)",
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
    add_new_passphrase(parser)
    parser.set_defaults(run=_init)


def _add_serve(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "serve",
        "run the member",
        """
        Serve the member of a configuration until SIGTERM or SIGINT, then end in order. What it holds and what it
        will answer is durable before anybody sees it; after a crash the same command goes on. Once it serves, one
        line on stdout says where; a log of events goes to stderr, one JSON object a line, without secrets. It
        refuses to start on a state that is missing, a copy, or older than it was: then --restored accepts it, and
        whatever may have been opened before is never opened by this member.""",
        "secagg committee serve --config member/committee.toml",
    )
    add_config(parser, "committee.toml", "committee init")
    parser.add_argument(
        "--restored",
        action="store_true",
        help="the state was restored from a backup, or lost: abandon every session in it, and serve only sessions that "
        "are opened more than ten minutes from now. Give it once, with the first start after the restore",
    )
    add_passphrase_file(parser)
    parser.set_defaults(run=_serve)


def _add_log(commands: Any) -> None:  # noqa: ANN401
    parser = add_command(
        commands,
        "log",
        "show what the member opened and what it refused",
        """
        Print what became of every request to open a sum, oldest first: the session, the SHA-256 of the close entry,
        how many contributions, and whether it was answered or why not. Reads opened.jsonl in the state directory,
        also while the member serves.""",
        "secagg committee log --config member/committee.toml",
    )
    add_config(parser, "committee.toml", "committee init")
    parser.set_defaults(run=_log)


def load_config(path: Path) -> CommitteeConfig:
    """The configuration in a file; errors name it."""
    from secagg.identity.committee_config import CommitteeConfig
    from secagg.identity.errors import ConfigError

    try:
        return CommitteeConfig.load(path)
    except ConfigError as error:
        raise read_config_error(path, error, "secagg committee init DIR --name NAME") from None


def _init(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.passphrases import new_passphrase
    from secagg.crypto.rng import SystemRng
    from secagg.derive.openers import member_of
    from secagg.identity.cards import MemberCard
    from secagg.identity.committee_config import DEFAULT_ADDRESS, CommitteeConfig
    from secagg.identity.files import PUBLIC_MODE, create_exclusively
    from secagg.identity.keys import KeyKind, create_key_file, load_key_file, public_path
    from secagg.identity.tls import CERTIFICATE_FILE, create_certificate
    from secagg.identity.tls import KEY_FILE as TLS_KEY_FILE
    from secagg.identity.transport import TlsFiles
    from secagg.runtime.clock import SystemClock
    from secagg.runtime.committee_member import member_sealing_key
    from secagg.store.member_state import MemberState

    reporter = Reporter.of(arguments)
    home: Path = arguments.directory
    listen = arguments.listen or DEFAULT_ADDRESS
    hosts = certificate_hosts(listen, arguments.host, "coordinators")
    config = CommitteeConfig(
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
    )
    config.policy()
    key_file, card_file, config_file = home / KEY_FILE, home / CARD_FILE, home / CommitteeConfig.FILE_NAME
    state = home / STATE_DIRECTORY
    tls_files = (home / CERTIFICATE_FILE, home / TLS_KEY_FILE)
    make_home(home, (key_file, public_path(key_file), *tls_files, card_file, config_file, state))
    passphrase = new_passphrase(arguments, key_file, reporter)
    create_key_file(key_file, KeyKind.COMMITTEE_MEMBER, passphrase, SystemRng())
    key = load_key_file(key_file, KeyKind.COMMITTEE_MEMBER, None if passphrase is None else lambda: passphrase)
    files = create_certificate(home, (*hosts, config.address.host), SystemClock().now_s(), CERTIFICATE_DAYS)
    pem = files.certificate.read_text(encoding="ascii")
    sealing_key = member_sealing_key(key).public_bytes
    card = MemberCard.of(member_of(config.name, key, sealing_key), str(config.address), pem)
    MemberState.create(state)
    create_exclusively(card_file, card.to_bytes() + b"\n", PUBLIC_MODE)
    create_exclusively(config_file, config.to_toml().encode("utf-8"), PUBLIC_MODE)
    _say_what_is_open(config, reporter)
    following = f"secagg committee serve --config {config_file}"
    reporter.result(
        {
            "config": str(config_file),
            "card": str(card_file),
            "identity": key.public_bytes.hex(),
            "tls_fingerprint": files.fingerprint,
            "address": str(config.address),
            "listen": str(listen),
            "next": following,
        },
        table(
            [
                ("made", f"{home}: configuration, keys, certificate, empty state, card"),
                ("for coordinators", f"{card_file}: hand it to their operators (`secagg session open --committee`)"),
                ("contributors pin", key.public_bytes.hex()),
                ("serves", "\n".join(sorted(each.hex() for each in config.coordinators)) or "nobody yet"),
                ("next", following),
            ]
        ),
    )
    return ExitCode.OK


def _public_address(listen: Address, host: str) -> Address:
    if listen.port == 0:
        raise CommandError(
            "ADDRESS", "--listen has port 0, and coordinators need one to connect to", "give --address HOST:PORT"
        )
    return type(listen)(host, listen.port)


def _say_what_is_open(config: CommitteeConfig, reporter: Reporter) -> None:
    if not config.coordinators:
        reporter.progress(f"no coordinator is served: add keys to coordinators in {config.FILE_NAME}")
    if not config.registrars:
        reporter.progress("no registrar is named: a coordinator chooses who counts as a person (registrars)")
    if config.log_policy is None:
        reporter.progress("no witnesses are named: a coordinator can show this member another log (log_policy)")


def _serve(arguments: argparse.Namespace) -> ExitCode:
    from secagg.cli.committee_serving import serve
    from secagg.identity.keys import KeyKind
    from secagg.identity.tls import ServerTls, fingerprint
    from secagg.runtime.clock import SystemClock
    from secagg.services.logs import log_to
    from secagg.store.member_state import MemberState

    config = load_config(arguments.config)
    transport = config.server_transport()
    key = load_key(config.key_file, KeyKind.COMMITTEE_MEMBER, arguments)
    reporter = Reporter.of(arguments)
    serving: dict[str, object] = {"event": "serving", "identity": key.public_bytes.hex()}
    if isinstance(transport, ServerTls):
        serving["tls_fingerprint"] = fingerprint(transport.certificate_chain)
    if arguments.restored:
        abandoned = MemberState.accept_restored(config.state_directory, SystemClock().now_s())
        serving["abandoned"] = abandoned
        reporter.progress(
            f"restored: {abandoned} sessions abandoned; new ones are served if opened in ten minutes or later"
        )

    def ready(port: int) -> None:
        where = str(type(config.listen)(config.listen.host, port))
        secured = "TLS" if "tls_fingerprint" in serving else "plaintext on loopback"
        reporter.result(
            {**serving, "address": where, "port": port},
            f"serving on {where} ({secured}), member {key.public_bytes.hex()}",
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
