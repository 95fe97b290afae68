"""The configuration file of a key authority: TOML, read strictly, written with comments.

Relative paths are relative to the directory of the file (``load``). The file holds no secret; it names the files that
do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

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
from secagg.transcript.entries import MAX_CONTRIBUTORS
from secagg.transcript.openers import MAX_ATTESTORS
from secagg.transcript.policy import LogPolicy

DEFAULT_ADDRESS = Address("127.0.0.1", 7446)
DEFAULT_MIN_CONTRIBUTORS = 3
_MAX_NAME_BYTES = 64


@dataclass(frozen=True, slots=True)
class AuthorityConfig:
    """What a key authority is started with.

    Keys of the file (a default in brackets; others have to be there):

    ==================  ================================================================================
    name                the authority's name, for people, of 1 to 64 bytes
    listen              address host:port ["127.0.0.1:7446"]; port 0 takes a free one
    address             where coordinators reach it, for its card
    state_directory     sessions with their keys, what it opened
    key_file            its signing key; the sessions are encrypted under one that follows from it
    transport           "tls" or "loopback-plaintext" ["tls"]
    tls.certificate     certificate chain in PEM (transport "tls")
    tls.private_key     its key in PEM, mode 0600 (transport "tls")
    tls.client_ca       authority whose certificates coordinators must show (transport "tls") [none]
    coordinators        public keys of the coordinators it serves, in hex [[]: nobody]
    registrars          public keys of the registrars whose rosters it takes, in hex [[]: any]
    min_contributors    it opens no sum of fewer, 2 to 2^28 [3]
    log_policy          C2SP policy file: which logs, whose cosignatures; nothing is served without it [none]
    attestors           public keys of those whose attestations count, in hex, 1 to 16
    attestations        of how many of them it wants one [all]
    expose_reflection   "nobody" or "everyone" ["nobody"]
    ==================  ================================================================================
    """

    name: str
    address: Address
    state_directory: Path
    key_file: Path
    transport: TlsFiles | Plaintext
    attestors: frozenset[bytes]
    attestations: int
    listen: Address = DEFAULT_ADDRESS
    coordinators: frozenset[bytes] = frozenset()
    registrars: frozenset[bytes] = frozenset()
    min_contributors: int = DEFAULT_MIN_CONTRIBUTORS
    log_policy: Path | None = None
    expose_reflection: ReflectionAudience = ReflectionAudience.NOBODY

    FILE_NAME: ClassVar[str] = "authority.toml"

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
        check_integer("min_contributors", self.min_contributors, 2, MAX_CONTRIBUTORS)
        if not 1 <= len(self.attestors) <= MAX_ATTESTORS:
            raise ConfigError(
                "attestors", f"expected 1 to {MAX_ATTESTORS} keys: without attestations nothing is opened"
            )
        check_integer("attestations", self.attestations, 1, len(self.attestors))
        check_plaintext(self.transport, "listen", self.listen)
        check_plaintext(self.transport, "address", self.address)

    @classmethod
    def from_toml(cls, text: str) -> AuthorityConfig:
        """Read a document; paths stay as written. Raises ConfigError."""
        top = Table.parse(text)
        attestors = read_keys("attestors", top.texts("attestors", ()))
        config = cls(
            name=top.text("name"),
            listen=read_address("listen", top.text_or("listen", str(DEFAULT_ADDRESS))),
            address=read_address("address", top.text("address")),
            state_directory=top.path("state_directory"),
            key_file=top.path("key_file"),
            transport=read_server_transport(top),
            coordinators=read_keys("coordinators", top.texts("coordinators", ())),
            registrars=read_keys("registrars", top.texts("registrars", ())),
            min_contributors=top.integer("min_contributors", DEFAULT_MIN_CONTRIBUTORS),
            log_policy=top.path_or("log_policy", None),
            attestors=attestors,
            attestations=top.integer("attestations", len(attestors)),
            expose_reflection=read_audience(top.text_or("expose_reflection", ReflectionAudience.NOBODY.value)),
        )
        top.finish()
        return config

    @classmethod
    def load(cls, path: Path) -> AuthorityConfig:
        """Read a file; its relative paths count from its directory. Raises ConfigError, IdentityFileError."""
        return resolved(cls.from_toml(read_text(path)), path.absolute().parent)

    def to_toml(self) -> str:
        """A commented document that ``from_toml`` reads back to an equal value."""
        transport, tls = transport_paragraphs(self.transport, "Coordinators")
        return document(
            "# Configuration of a secagg key authority. Relative paths count from the directory of this file.",
            f"# For people.\nname = {quoted(self.name)}",
            f"# Where coordinators connect; anything but a loopback address needs TLS.\nlisten = {quoted(self.listen)}",
            f"# Where they reach it, as it stands in the card.\naddress = {quoted(self.address)}",
            "# Sessions with their keys, what was opened. Never restore it from a backup without telling the service:\n"
            "# `authority serve --restored` then opens nothing of the sessions in it.\n"
            f"state_directory = {quoted(self.state_directory)}",
            "# The signing key. The key that the sessions are encrypted under follows from it.\n"
            f"key_file = {quoted(self.key_file)}",
            transport,
            "# For whose sessions keys are made: public keys of coordinators.\n"
            f"coordinators = {quoted_list(sorted(key.hex() for key in self.coordinators))}",
            "# Registrars whose rosters are taken. Empty: whoever a coordinator names, who can invent people.\n"
            f"registrars = {quoted_list(sorted(key.hex() for key in self.registrars))}",
            f"# No sum of fewer is opened, whatever a session says.\nmin_contributors = {self.min_contributors}",
            "# Which logs, and who must have cosigned them: a C2SP policy file with witnesses. Without one nothing is\n"
            "# served: a coordinator could show this authority other commitments than to contributors.\n"
            + ('# log_policy = "log.policy"' if self.log_policy is None else f"log_policy = {quoted(self.log_policy)}"),
            "# Who recomputes the sum of the ciphertexts (`secagg attest`), and how many of them have to have signed\n"
            "# it before anything is decrypted. Sessions name those in authority.card: keep the two the same.\n"
            f"attestors = {quoted_list(sorted(key.hex() for key in self.attestors))}\n"
            f"attestations = {self.attestations}",
            '# Who can list the services: "nobody", "everyone".\n'
            f"expose_reflection = {quoted(self.expose_reflection.value)}",
            tls,
        )

    def server_transport(self) -> ServerTransport:
        """Read the TLS files. Raises IdentityFileError."""
        return server_transport(self.transport, self.listen)

    def policy(self) -> LogPolicy:
        """The policy in the file, which has to ask for witnesses.

        What contributors committed to is fixed by the log alone: in a fork that nobody cosigned, the authority would be
        shown other commitments than they were.

        Raises:
            ConfigError: there is none, or it asks for no witness.
            IdentityFileError: the file cannot be read.
        """
        policy = LogPolicy.without_witnesses() if self.log_policy is None else load_policy(self.log_policy)
        if policy.is_met_by(()):
            raise ConfigError("log_policy", "expected a C2SP policy file with a quorum of witnesses")
        return policy
