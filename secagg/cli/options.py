"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import os
import shutil
import textwrap
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from secagg.cli.failures import CommandError
from secagg.cli.output import OutputFormat

if TYPE_CHECKING:
    from secagg.crypto.secret import Secret
    from secagg.crypto.signing import SigningKey
    from secagg.identity.address import Address
    from secagg.identity.keys import KeyKind

ConfigT = TypeVar("ConfigT")
_MOST_DIGITS = 40
_HELP_COLUMNS = 112


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the descriptions are written."""

    def __init__(self, prog: str) -> None:
        width = min(_HELP_COLUMNS, shutil.get_terminal_size((_HELP_COLUMNS, 24)).columns)
        super().__init__(prog, max_help_position=30, width=width)


class CommandParser(argparse.ArgumentParser):
    """argparse without abbreviated options, whose errors are ours."""

    def __init__(self, **keywords: Any) -> None:  # noqa: ANN401 - argparse's own keywords
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **keywords)

    def error(self, message: str) -> NoReturn:
        """Raise CommandError."""
        raise CommandError("ARGUMENTS", message, f"`{self.prog} --help` explains the arguments")


def add_command(subparsers: Any, name: str, summary: str, description: str, example: str) -> argparse.ArgumentParser:  # noqa: ANN401 - argparse's own type is private
    """A parser for one command, with ``--format`` and its example below the options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=textwrap.dedent(description).strip(),
        epilog="example:\n" + textwrap.indent(textwrap.dedent(example).strip(), "  "),
    )
    add_format(parser)
    return parser


def add_format(parser: argparse.ArgumentParser) -> None:
    """``--format text|json``."""
    parser.add_argument(
        "--format",
        choices=[each.value for each in OutputFormat],
        default=OutputFormat.TEXT.value,
        help="text for people, or exactly one JSON object on stdout (default: text)",
    )


def add_group(subparsers: Any, name: str, summary: str, description: str) -> Any:  # noqa: ANN401
    """A command that has commands of its own; returns where to register them."""
    parser = subparsers.add_parser(name, help=summary, description=textwrap.dedent(description).strip())
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_passphrase_file(parser: argparse.ArgumentParser) -> None:
    """``--passphrase-file``, for commands that open a key file."""
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="a file (mode 0600) with the passphrase of the key on its one line; otherwise it is asked for",
    )


def add_new_passphrase(parser: argparse.ArgumentParser) -> None:
    """``--passphrase-file`` and ``--no-passphrase``, for commands that make a key file."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="encrypt the key with the passphrase on the one line of FILE (mode 0600)",
    )
    group.add_argument(
        "--no-passphrase",
        action="store_true",
        help="do not ask and do not encrypt: the file's mode 0600 is the key's only protection",
    )


def hex_bytes(length_bytes: int) -> Callable[[str], bytes]:
    """Reads so many bytes in hex."""

    def read(text: str) -> bytes:
        try:
            data = bytes.fromhex(text) if len(text) == 2 * length_bytes else b""
        except ValueError:
            data = b""
        if len(data) != length_bytes:
            raise argparse.ArgumentTypeError(f"expected {length_bytes} bytes in hex ({2 * length_bytes} characters)")
        return data

    return read


def session_id(text: str) -> bytes:
    """Reads the 16 bytes that name a session."""
    return hex_bytes(16)(text)


def fraction(text: str) -> Fraction:
    """Reads a number that is not negative: a decimal like 1.5 or a fraction like 3/2."""
    parts = text.split("/")
    if len(parts) > 2 or len(text) > 2 * _MOST_DIGITS:
        raise argparse.ArgumentTypeError("expected a number like 1.5 or 3/2")
    numbers = [_decimal(part) for part in parts]
    if len(numbers) == 2 and numbers[1] == 0:
        raise argparse.ArgumentTypeError("expected a number like 1.5 or 3/2, not a division by zero")
    value = Fraction(numbers[0]) / Fraction(numbers[1]) if len(numbers) == 2 else Fraction(numbers[0])
    if max(value.numerator, value.denominator) >= 10**_MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"expected at most {_MOST_DIGITS} digits above and below the line")
    return value


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number.is_signed() or abs(number.adjusted()) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(
            f"expected a number like 1.5 or 3/2, not negative, of at most {_MOST_DIGITS} digits"
        )
    return number


def address(text: str) -> Address:
    """Reads ``host:port``."""
    from secagg.identity.address import Address
    from secagg.identity.errors import AddressError

    try:
        return Address.parse(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_out(directory: Path | None) -> None:
    """Refuse an ``--out`` that cannot become a directory, before a long command runs in vain."""
    if directory is not None and os.path.lexists(directory) and not directory.is_dir():
        raise CommandError("OUT", f"--out {directory}: is there and is no directory", "choose another name")


def load_key(path: Path, kind: KeyKind, arguments: argparse.Namespace) -> SigningKey:
    """The key in a file, opened with ``--passphrase-file`` or a passphrase that is asked for."""
    from secagg.identity.keys import load_key_file
    from secagg.identity.passphrase import passphrase_from_file, prompt_passphrase

    given: Path | None = arguments.passphrase_file

    def ask() -> Secret:
        return passphrase_from_file(given) if given is not None else prompt_passphrase(f"Passphrase of {path}: ")

    return load_key_file(path, kind, ask)


def read_config(load: Callable[[Path], ConfigT], path: Path, make_new: str) -> ConfigT:
    """The configuration in a file.

    Raises:
        CommandError: it says something wrong; the error names the file, and the command that makes another.
    """
    from secagg.identity.errors import ConfigError

    try:
        return load(path)
    except ConfigError as error:
        advice = f"correct the file, or make another with `{make_new}`"
        raise CommandError(error.key, f"{path}: {error}", advice, kind="config") from None
