"""What the configuration files of the institutions that open sums have in common: TOML, read strictly, with comments.

Relative paths are relative to the directory of the file (``load``). A file holds no secret; it names the files that do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from secagg.identity.address import Address
from secagg.identity.config import ReflectionAudience, load_policy, read_audience
from secagg.identity.errors import ConfigError
from secagg.identity.tls import ServerTransport
from secagg.identity.toml_reader import (
    Table,
    check_integer,
    check_path,
    document,
    quoted,
    quoted_list,
    read_address,
    read_keys,
    read_text,
    resolved,
)
from secagg.identity.transport import (
    Plaintext,
    TlsFiles,
    check_plaintext,
    read_server_transport,
    server_transport,
    transport_paragraphs,
)
from secagg.transcript.encoding import MAX_CONTRIBUTORS
from secagg.transcript.policy import LogPolicy

DEFAULT_MIN_CONTRIBUTORS = 3
_MAX_NAME_BYTES = 64


@dataclass(frozen=True, slots=True)
class Comments:
    """What a document says of keys that each kind of institution uses in its own way; lines that begin with ``#``."""

    title: str
    state_directory: str
    key_file: str
    coordinators: str
    log_policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstitutionConfig(ABC):
    """What every institution that opens sums is started with; the keys are explained in the classes of each kind."""

    name: str
    address: Address
    state_directory: Path
    key_file: Path
    transport: TlsFiles | Plaintext
    listen: Address
    coordinators: frozenset[bytes] = frozenset()
    registrars: frozenset[bytes] = frozenset()
    min_contributors: int = DEFAULT_MIN_CONTRIBUTORS
    log_policy: Path | None = None
    expose_reflection: ReflectionAudience = ReflectionAudience.NOBODY

    FILE_NAME: ClassVar[str]

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        if not 0 < len(self.name.encode("utf-8")) <= _MAX_NAME_BYTES or not self.name.isprintable():
            raise ConfigError("name", f"expected printable text of 1 to {_MAX_NAME_BYTES} bytes")
        if self.address.port == 0:
            raise ConfigError("address", "expected a port from 1 to 65535")
        check_path("state_directory", self.state_directory)
        check_path("key_file", self.key_file)
        if self.log_policy is not None:
            check_path("log_policy", self.log_policy)
        if self.expose_reflection is ReflectionAudience.OPERATOR:
            raise ConfigError("expose_reflection", 'expected "nobody" or "everyone"')
        check_integer("min_contributors", self.min_contributors, 2, MAX_CONTRIBUTORS)
        check_plaintext(self.transport, "listen", self.listen)
        check_plaintext(self.transport, "address", self.address)

    @classmethod
    @abstractmethod
    def from_toml(cls, text: str) -> Self:
        """Read a document; paths stay as written. Raises ConfigError."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file; its relative paths count from its directory. Raises ConfigError, IdentityFileError."""
        return resolved(cls.from_toml(read_text(path)), path.absolute().parent)

    @abstractmethod
    def to_toml(self) -> str:
        """A commented document that ``from_toml`` reads back to an equal value."""

    def server_transport(self) -> ServerTransport:
        """Read the TLS files. Raises IdentityFileError."""
        return server_transport(self.transport, self.listen)

    def policy(self) -> LogPolicy:
        """The policy in the file, or the one that asks for no witness. Raises ConfigError, IdentityFileError."""
        return LogPolicy.without_witnesses() if self.log_policy is None else load_policy(self.log_policy)


def take_common(top: Table, default_listen: Address) -> dict[str, Any]:
    """Take the keys that all institutions have, as arguments for a configuration. Raises ConfigError."""
    return {
        "name": top.text("name"),
        "listen": read_address("listen", top.text_or("listen", str(default_listen))),
        "address": read_address("address", top.text("address")),
        "state_directory": top.path("state_directory"),
        "key_file": top.path("key_file"),
        "transport": read_server_transport(top),
        "coordinators": read_keys("coordinators", top.texts("coordinators", ())),
        "registrars": read_keys("registrars", top.texts("registrars", ())),
        "min_contributors": top.integer("min_contributors", DEFAULT_MIN_CONTRIBUTORS),
        "log_policy": top.path_or("log_policy", None),
        "expose_reflection": read_audience(top.text_or("expose_reflection", ReflectionAudience.NOBODY.value)),
    }


def institution_document(config: InstitutionConfig, comments: Comments, own: str = "") -> str:
    """The document of a configuration, with the paragraph of keys that only its kind has."""
    transport, tls = transport_paragraphs(config.transport, "Coordinators")
    policy = '# log_policy = "log.policy"' if config.log_policy is None else f"log_policy = {quoted(config.log_policy)}"
    return document(
        comments.title,
        f"# For people.\nname = {quoted(config.name)}",
        f"# Where coordinators connect; anything but a loopback address needs TLS.\nlisten = {quoted(config.listen)}",
        f"# Where they reach it, as it stands in the card.\naddress = {quoted(config.address)}",
        f"{comments.state_directory}\nstate_directory = {quoted(config.state_directory)}",
        f"{comments.key_file}\nkey_file = {quoted(config.key_file)}",
        transport,
        f"{comments.coordinators}\ncoordinators = {quoted_list(sorted(key.hex() for key in config.coordinators))}",
        "# Registrars whose rosters are taken. Empty: whoever a coordinator names, who can invent people.\n"
        f"registrars = {quoted_list(sorted(key.hex() for key in config.registrars))}",
        f"# No sum of fewer is opened, whatever a session says.\nmin_contributors = {config.min_contributors}",
        f"{comments.log_policy}\n{policy}",
        own,
        '# Who can list the services: "nobody", "everyone".\n'
        f"expose_reflection = {quoted(config.expose_reflection.value)}",
        tls,
    )
