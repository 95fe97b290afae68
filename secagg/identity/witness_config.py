"""The configuration file of a witness: TOML, read strictly, written with comments.

Relative paths are relative to the directory of the file (``load``). The file holds no secret; it names the key file.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from secagg.identity.address import Address
from secagg.identity.errors import ConfigError
from secagg.identity.toml_reader import (
    Table,
    check_path,
    document,
    quoted,
    quoted_list,
    read_address,
    read_text,
    resolved,
)
from secagg.transcript.note import NoteError, SignatureType, VerifierKey
from secagg.transcript.policy import PolicyError, WitnessRule

DEFAULT_ADDRESS = Address("127.0.0.1", 7444)
_ANY_HOST = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_NO_KEY = VerifierKey("x", SignatureType.COSIGNATURE_V1, bytes(32))


@dataclass(frozen=True, slots=True)
class WitnessConfig:
    """What a witness is started with.

    Keys of the file (a default in brackets; others have to be there):

    ==================  ================================================================================
    name                the witness's name, as it stands on its cosignatures
    listen              address host:port ["127.0.0.1:7444"]; port 0 takes a free one
    url                 where others reach it, for the line in policies ["http://" and listen]
    state_directory     what it cosigned last, for each log
    key_file            its signing key
    logs                keys of the logs it knows, as text (vkey) [[]]
    ==================  ================================================================================
    """

    name: str
    state_directory: Path
    key_file: Path
    listen: Address = DEFAULT_ADDRESS
    url: str = ""
    logs: tuple[VerifierKey, ...] = ()

    FILE_NAME: ClassVar[str] = "witness.toml"

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_path("state_directory", self.state_directory)
        check_path("key_file", self.key_file)
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigError("url", "expected a URL that begins with http:// or https://")
        try:
            WitnessRule(self.name, dataclasses.replace(_NO_KEY, name=self.name), self.url)
        except NoteError as error:
            raise ConfigError("name", error.reason) from None
        except PolicyError as error:
            raise ConfigError("url" if "address" in error.reason else "name", error.reason) from None
        if any(log.kind is not SignatureType.ED25519 for log in self.logs):
            raise ConfigError("logs", "a key that signs cosignatures, not checkpoints")
        if len({log.name for log in self.logs}) != len(self.logs):
            raise ConfigError("logs", "two keys for one log")

    @classmethod
    def from_toml(cls, text: str) -> WitnessConfig:
        """Read a document; paths stay as written. Raises ConfigError."""
        top = Table.parse(text)
        config = cls(
            name=top.text("name"),
            listen=read_address("listen", top.text_or("listen", str(DEFAULT_ADDRESS))),
            url=top.text_or("url", ""),
            state_directory=top.path("state_directory"),
            key_file=top.path("key_file"),
            logs=tuple(_log(position, vkey) for position, vkey in enumerate(top.texts("logs", ()))),
        )
        top.finish()
        return config

    @classmethod
    def load(cls, path: Path) -> WitnessConfig:
        """Read a file; its relative paths count from its directory. Raises ConfigError, IdentityFileError."""
        return resolved(cls.from_toml(read_text(path)), path.absolute().parent)

    def to_toml(self) -> str:
        """A commented document that ``from_toml`` reads back to an equal value."""
        return document(
            "# Configuration of a secagg witness. Relative paths count from the directory of this file.",
            f"# Stands on every cosignature; with the key it is how policies name this witness.\n"
            f"name = {quoted(self.name)}",
            f"# Where logs send their checkpoints. Plain HTTP: put a proxy in front for TLS.\n"
            f"listen = {quoted(self.listen)}",
            "# Where others reach it, if that is another address.\n"
            + (f"url = {quoted(self.url)}" if self.url else '# url = "https://witness.example"'),
            "# What was cosigned last. Never restore it from a backup and never empty it: a witness that forgot\n"
            f"# would sign a second history. A witness whose state is lost is replaced, with a new key.\n"
            f"state_directory = {quoted(self.state_directory)}",
            f"# The signing key; policies hold its public half.\nkey_file = {quoted(self.key_file)}",
            f"# The logs whose checkpoints are cosigned: one key (vkey) each.\n"
            f"logs = {quoted_list([log.to_text() for log in self.logs])}",
        )

    def rule(self, public_key: bytes, port: int) -> WitnessRule:
        """The line for policies; without an address where ``listen`` is none that others could use."""
        key = VerifierKey(self.name, SignatureType.COSIGNATURE_V1, public_key)
        usable = port != 0 and self.listen.host not in _ANY_HOST
        return WitnessRule(self.name, key, self.url or (f"http://{Address(self.listen.host, port)}" if usable else ""))


def _log(position: int, vkey: str) -> VerifierKey:
    try:
        return VerifierKey.parse(vkey)
    except NoteError as error:
        raise ConfigError(f"logs[{position}]", str(error)) from None
