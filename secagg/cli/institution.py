"""What the commands of institutions that open sums share: options, the directory of a new one, what is said."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.cli.daemon import (
    CERTIFICATE_DAYS,
    add_config,
    add_directory,
    add_listen,
    certificate_hosts,
    make_home,
    tls_facts,
)
from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import add_command, add_new_passphrase, add_passphrase_file, address, hex_bytes, load_key
from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.crypto.signing import SigningKey
    from secagg.identity.address import Address
    from secagg.identity.cards import AuthorityCard, MemberCard
    from secagg.identity.institution_config import InstitutionConfig
    from secagg.identity.keys import KeyKind

STATE_DIRECTORY = "state"


@dataclass(frozen=True, slots=True)
class Institution:
    """A kind of institution: how its commands and files are called."""

    command: str
    noun: str
    makes: str
    key_file: str
    card_file: str

    @property
    def config_file(self) -> str:
        """The name of its configuration."""
        return f"{self.command}.toml"


@dataclass(frozen=True, slots=True)
class Home:
    """Where the files of a new institution go."""

    kind: Institution
    directory: Path
    key_file: Path
    card_file: Path
    config_file: Path
    state: Path

    @classmethod
    def of(cls, kind: Institution, directory: Path) -> Home:
        """The files of this kind of institution in a directory."""
        names = (kind.key_file, kind.card_file, kind.config_file, STATE_DIRECTORY)
        return cls(kind, directory, *(directory / name for name in names))

    def make(self) -> None:
        """Make the directory. Raises IdentityFileError: a file would be overwritten, or others have access."""
        from secagg.identity.keys import public_path
        from secagg.identity.tls import CERTIFICATE_FILE, KEY_FILE

        keys = (self.key_file, public_path(self.key_file), self.directory / CERTIFICATE_FILE, self.directory / KEY_FILE)
        make_home(self.directory, (*keys, self.card_file, self.config_file, self.state))


# Options


def add_contact(parser: argparse.ArgumentParser, kind: Institution, port: int) -> None:
    """``DIR``, ``--name``, ``--listen``, ``--host``, ``--address``, ``--coordinator`` and ``--registrar``."""
    add_directory(parser)
    parser.add_argument("--name", required=True, help=f"the {kind.noun}'s name, for people")
    add_listen(parser, port)
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
    added_later = f"public key of a coordinator to serve; may be repeated, and added to {kind.config_file} later"
    add_public_keys(parser, "--coordinator", added_later)
    add_public_keys(
        parser, "--registrar", "public key of a registrar whose rosters are taken; may be repeated (default: any)"
    )


def add_public_keys(parser: argparse.ArgumentParser, option: str, explained: str, *, required: bool = False) -> None:
    """An option that takes a public key each time that it is given."""
    parser.add_argument(
        option, type=hex_bytes(32), action="append", default=[], required=required, metavar="HEX", help=explained
    )


def add_conditions(parser: argparse.ArgumentParser) -> None:
    """``--min-contributors``, ``--log-policy`` and how the new key is encrypted."""
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


def add_serving(parser: argparse.ArgumentParser, kind: Institution, restored: str) -> None:
    """``--config``, ``--restored`` and ``--passphrase-file``."""
    add_config(parser, kind.config_file, f"{kind.command} init")
    parser.add_argument(
        "--restored",
        action="store_true",
        help=f"the state was restored from a backup, or lost: {restored}. Give it once, with the first start after "
        "the restore",
    )
    add_passphrase_file(parser)


def add_log(commands: Any, kind: Institution, load: Callable[[Path], InstitutionConfig], example: str) -> None:  # noqa: ANN401 - argparse's own type is private
    """Register ``log``, which shows the journal of the institution whose configuration is loaded."""
    parser = add_command(
        commands,
        "log",
        f"show what the {kind.noun} opened and what it refused",
        f"""
        Print what became of every request to open a sum, oldest first: the session, the SHA-256 of the close entry,
        how many contributions, and whether it was answered or why not. Reads opened.jsonl in the state directory,
        also while the {kind.noun} serves.""",
        example,
    )
    add_config(parser, kind.config_file, f"{kind.command} init")

    def run(arguments: argparse.Namespace) -> ExitCode:
        from secagg.cli.describe_openings import show_openings
        from secagg.store.institution_state import JOURNAL_FILE
        from secagg.store.opening_journal import read_journal

        show_openings(read_journal(load(arguments.config).state_directory / JOURNAL_FILE), Reporter.of(arguments))
        return ExitCode.OK

    parser.set_defaults(run=run)


# A new institution


def planned(
    arguments: argparse.Namespace, kind: Institution, default_listen: Address
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the options say that all institutions have, and the names for the certificate. Nothing is made yet.

    Returns:
        Arguments for a configuration; names and addresses.

    Raises:
        CommandError: the names for the certificate or the address for the card are none.
    """
    from secagg.identity.tls import CERTIFICATE_FILE, KEY_FILE
    from secagg.identity.transport import TlsFiles

    listen = arguments.listen or default_listen
    hosts = certificate_hosts(listen, arguments.host, "coordinators")
    common = {
        "name": arguments.name,
        "listen": listen,
        "address": arguments.address or _public_address(listen, hosts[0]),
        "state_directory": Path(STATE_DIRECTORY),
        "key_file": Path(kind.key_file),
        "transport": TlsFiles(Path(CERTIFICATE_FILE), Path(KEY_FILE)),
        "coordinators": frozenset(arguments.coordinator),
        "registrars": frozenset(arguments.registrar),
        "min_contributors": arguments.min_contributors,
        "log_policy": arguments.log_policy and arguments.log_policy.absolute(),
    }
    return common, hosts


def _public_address(listen: Address, host: str) -> Address:
    if listen.port == 0:
        raise CommandError(
            "ADDRESS", "--listen has port 0, and coordinators need one to connect to", "give --address HOST:PORT"
        )
    return type(listen)(host, listen.port)


def write_home(
    home: Home,
    config: InstitutionConfig,
    hosts: Sequence[str],
    card_of: Callable[[str], AuthorityCard | MemberCard],
    create_state: Callable[[Path], None],
) -> str:
    """Make certificate, state, card and configuration of an institution that has its key.

    Args:
        home: where to; ``make`` made it.
        config: the configuration.
        hosts: the names and addresses for the certificate, beside that of the card.
        card_of: the card, with a certificate in PEM.
        create_state: makes the state directory.

    Returns:
        The certificate's fingerprint.
    """
    from secagg.identity.files import PUBLIC_MODE, create_exclusively
    from secagg.identity.tls import create_certificate
    from secagg.runtime.clock import SystemClock

    files = create_certificate(home.directory, (*hosts, config.address.host), SystemClock().now_s(), CERTIFICATE_DAYS)
    card = card_of(files.certificate.read_text(encoding="ascii"))
    create_state(home.state)
    create_exclusively(home.card_file, card.to_bytes() + b"\n", PUBLIC_MODE)
    create_exclusively(home.config_file, config.to_toml().encode("utf-8"), PUBLIC_MODE)
    return files.fingerprint


def say_what_is_open(config: InstitutionConfig, without_policy: str, reporter: Reporter) -> None:
    """Say which keys of the configuration are still to be filled in, or left to the coordinators' word."""
    if not config.coordinators:
        reporter.progress(f"no coordinator is served: add keys to coordinators in {config.FILE_NAME}")
    if not config.registrars:
        reporter.progress("no registrar is named: a coordinator chooses who counts as a person (registrars)")
    if config.log_policy is None:
        reporter.progress(without_policy)


def say_made(
    reporter: Reporter,
    home: Home,
    config: InstitutionConfig,
    identity: bytes,
    fingerprint: str,
    *rows: tuple[str, str],
) -> None:
    """Say what was made, with ``rows`` that only this kind has, and what comes next."""
    following = f"secagg {home.kind.command} serve --config {home.config_file}"
    to_operators = f"hand it to their operators (`secagg session open --{home.kind.command}`)"
    reporter.result(
        {
            "config": str(home.config_file),
            "card": str(home.card_file),
            "identity": identity.hex(),
            "tls_fingerprint": fingerprint,
            "address": str(config.address),
            "listen": str(config.listen),
            "next": following,
        },
        table(
            [
                ("made", f"{home.directory}: configuration, {home.kind.makes}, certificate, empty state, card"),
                ("for coordinators", f"{home.card_file}: {to_operators}"),
                ("contributors pin", identity.hex()),
                *rows,
                ("serves", "\n".join(sorted(each.hex() for each in config.coordinators)) or "nobody yet"),
                ("next", following),
            ]
        ),
    )


# One that serves


def opened_key(
    arguments: argparse.Namespace, config: InstitutionConfig, kind: KeyKind
) -> tuple[SigningKey, dict[str, object]]:
    """The institution's key, and what it will say of itself once it serves. The TLS files are read first."""
    secured = tls_facts(config.server_transport())
    key = load_key(config.key_file, kind, arguments)
    return key, {"identity": key.public_bytes.hex(), **secured}
