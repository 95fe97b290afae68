"""What ``secagg committee`` and ``secagg authority`` share: options, the directory of a new institution, what is said."""

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
    secured_facts,
)
from secagg.cli.exit_codes import ExitCode
from secagg.cli.failures import CommandError
from secagg.cli.options import add_command, add_new_passphrase, add_passphrase_file, address, hex_bytes
from secagg.cli.output import Reporter, table

if TYPE_CHECKING:
    from secagg.crypto.signing import SigningKey
    from secagg.identity.address import Address
    from secagg.identity.cards import AuthorityCard, MemberCard
    from secagg.identity.institution_config import InstitutionConfig
    from secagg.identity.tls import CertificateFiles

STATE_DIRECTORY = "state"


@dataclass(frozen=True, slots=True)
class Institution:
    """A kind of institution: how its commands and files are called."""

    command: str
    noun: str
    key_file: str
    card_file: str

    @property
    def config_file(self) -> str:
        """The name of its configuration."""
        return f"{self.command}.toml"


@dataclass(frozen=True, slots=True)
class Home:
    """Where the files of a new institution go."""

    directory: Path
    key_file: Path
    card_file: Path
    config_file: Path
    state: Path

    @classmethod
    def of(cls, kind: Institution, directory: Path) -> Home:
        """The files of this kind of institution in a directory."""
        names = (kind.key_file, kind.card_file, kind.config_file, STATE_DIRECTORY)
        return cls(directory, *(directory / name for name in names))

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


def add_public_keys(parser: argparse.ArgumentParser, option: str, explained: str) -> argparse.Action:
    """An option that takes a public key each time that it is given."""
    return parser.add_argument(
        option, type=hex_bytes(32), action="append", default=[], metavar="HEX", help=explained
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


def planned(arguments: argparse.Namespace, kind: Institution, default_listen: Address) -> dict[str, Any]:
    """What the options say that all institutions have, as arguments for a configuration. Nothing is made yet.

    Raises:
        CommandError: the names for the certificate or the address for the card are none.
    """
    from secagg.identity.tls import CERTIFICATE_FILE, KEY_FILE
    from secagg.identity.transport import TlsFiles

    listen = arguments.listen or default_listen
    return {
        "name": arguments.name,
        "listen": listen,
        "address": arguments.address or _public_address(listen, planned_hosts(arguments, listen)[0]),
        "state_directory": Path(STATE_DIRECTORY),
        "key_file": Path(kind.key_file),
        "transport": TlsFiles(Path(CERTIFICATE_FILE), Path(KEY_FILE)),
        "coordinators": frozenset(arguments.coordinator),
        "registrars": frozenset(arguments.registrar),
        "min_contributors": arguments.min_contributors,
        "log_policy": arguments.log_policy and arguments.log_policy.absolute(),
    }


def planned_hosts(arguments: argparse.Namespace, listen: Address) -> tuple[str, ...]:
    """The names and addresses for the certificate. Raises CommandError."""
    return certificate_hosts(listen, arguments.host, "coordinators")


def _public_address(listen: Address, host: str) -> Address:
    if listen.port == 0:
        raise CommandError(
            "ADDRESS", "--listen has port 0, and coordinators need one to connect to", "give --address HOST:PORT"
        )
    return type(listen)(host, listen.port)
