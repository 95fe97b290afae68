"""Strict reading and writing of TOML: no unknown key, no key of the wrong type; what every configuration shares."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from secagg.identity.address import Address
from secagg.identity.errors import AddressError, ConfigError
from secagg.identity.files import read_public
from secagg.transcript.record import RecordError, hex_codec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_FILE_BYTES = 1 << 16
_ESCAPED = re.compile(r'[\x00-\x1f\x7f"\\]')
_MAX_TEXT = 4096
_MAX_NUMBER = 40
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?|[0-9]+/[1-9][0-9]*")
_MAX_KEYS = 1024
_PUBLIC_KEY = hex_codec(32)
_SHOWN_CHARACTERS = 200
_T = TypeVar("_T")
_DataclassT = TypeVar("_DataclassT", bound="DataclassInstance")


class Table:
    """One table: every key is taken once, by type, and ``finish`` refuses what is left."""

    def __init__(self, values: Mapping[str, object], prefix: str = "") -> None:
        self._values = dict(values)
        self._prefix = prefix

    @classmethod
    def parse(cls, text: str) -> Table:
        """The top table of a document. Raises ConfigError."""
        try:
            return cls(tomllib.loads(text))
        except RecursionError:
            raise ConfigError("file", "nested too deeply") from None
        except ValueError as error:
            raise ConfigError("file", f"not TOML: {error}"[:_SHOWN_CHARACTERS]) from None

    def text(self, key: str) -> str:
        """A string of 1 to 4096 characters."""
        value = self._take(key)
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or "\0" in value:
            raise self._wrong(key, f"expected text of 1 to {_MAX_TEXT} characters")
        return value

    def text_or(self, key: str, default: _T) -> str | _T:
        """As ``text``, or ``default`` where the key is not there."""
        return self.text(key) if key in self._values else default

    def path(self, key: str) -> Path:
        """The name of a file or directory."""
        return Path(self.text(key))

    def path_or(self, key: str, default: _T) -> Path | _T:
        """As ``path``, or ``default`` where the key is not there."""
        return self.path(key) if key in self._values else default

    def integer(self, key: str, default: int) -> int:
        """An integer; its range is checked where it is used."""
        value = self._take(key, default)
        if type(value) is not int:
            raise self._wrong(key, "expected an integer")
        return value

    def number(self, key: str) -> Fraction:
        """A number that is not negative: 8, 0.5, 1e-5, or text such as "1/3"."""
        value = self._take(key)
        text = str(value) if type(value) in {int, float, str} else ""
        if len(text) > _MAX_NUMBER or not _NUMBER.fullmatch(text):
            raise self._wrong(key, 'expected a number such as 8, 1e-5 or "1/3", not negative')
        return Fraction(text)

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of strings."""
        value = self._take(key, list(default))
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "expected a list of strings")
        return tuple(value)

    def table(self, key: str) -> Table | None:
        """A table, or None where there is none."""
        value = self._take(key, None)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(key, "expected a table")
        return Table(value, f"{self._prefix}{key}.")

    def finish(self) -> None:
        """Raise ConfigError for the first key that nobody took."""
        for key in sorted(self._values):
            raise self._wrong(key[:_SHOWN_CHARACTERS], "unknown key")

    def _take(self, key: str, *default: object) -> object:
        if key in self._values:
            return self._values.pop(key)
        if not default:
            raise self._wrong(key, "missing")
        return default[0]

    def _wrong(self, key: str, reason: str) -> ConfigError:
        return ConfigError(f"{self._prefix}{key}", reason)


def quoted(value: object) -> str:
    """``value`` as text in a TOML basic string."""
    return '"' + _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", str(value)) + '"'


def quoted_list(values: list[str]) -> str:
    """A TOML list of strings, one on each line."""
    return "[" + "".join(f"\n  {quoted(value)}," for value in values) + ("\n]" if values else "]")


def check_integer(key: str, value: int, least: int, most: int) -> None:
    """Raise ConfigError unless ``value`` is within inclusive bounds."""
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(key, f"expected an integer from {least} to {most}")


def check_path(key: str, path: Path) -> None:
    """Raise ConfigError unless ``path`` can be written down in TOML and read back."""
    text = str(path)
    if not 0 < len(text) <= _MAX_TEXT or "\0" in text:
        raise ConfigError(key, f"expected a path of 1 to {_MAX_TEXT} characters")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(key, "expected a path in Unicode") from None


def read_text(path: Path) -> str:
    """A configuration file's text. Raises ConfigError, IdentityFileError."""
    data = read_public(path, MAX_FILE_BYTES)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("file", "not UTF-8") from None


def read_address(key: str, text: str) -> Address:
    """``host:port`` under a key. Raises ConfigError."""
    try:
        return Address.parse(text)
    except AddressError as error:
        raise ConfigError(key, str(error)) from None


def read_keys(key: str, texts: tuple[str, ...]) -> frozenset[bytes]:
    """Public keys of 32 bytes in hex, under a key. Raises ConfigError."""
    if len(texts) > _MAX_KEYS:
        raise ConfigError(key, f"expected at most {_MAX_KEYS}")
    found = []
    for position, text in enumerate(texts):
        try:
            found.append(_PUBLIC_KEY.read(text, f"{key}[{position}]"))
        except RecordError as error:
            raise ConfigError(error.field, error.reason) from None
    return frozenset(found)


def resolved(config: _DataclassT, directory: Path) -> _DataclassT:
    """The same with every relative path in it, and in the values it is made of, taken from ``directory``."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        member = getattr(config, field.name)
        if isinstance(member, Path):
            changes[field.name] = directory / member
        elif dataclasses.is_dataclass(member) and not isinstance(member, type):
            changes[field.name] = resolved(member, directory)
    return dataclasses.replace(config, **changes)


def document(*paragraphs: str) -> str:
    """Paragraphs with a blank line between them; empty ones are left out."""
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"
