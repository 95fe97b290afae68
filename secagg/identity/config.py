"""Configuration files of coordinators and clients: TOML, read strictly, written with comments.

What a file may say is in the docstrings of ``CoordinatorConfig`` and ``ClientConfig``. Relative paths are relative to
the directory of the file (``load``). No file holds a secret; it names the files that do.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, TypeVar, assert_never

from secagg.identity.address import Address
from secagg.identity.errors import AddressError, ConfigError
from secagg.identity.files import read_public
from secagg.identity.tls import (
    CertificateAuthority,
    ClientTls,
    LoopbackPlaintext,
    PinnedCertificate,
    ServerTls,
    fetch_pinned_certificate,
    load_certificate_authority,
    load_server_tls,
)
from secagg.identity.toml_reader import Table, check_integer, check_path, quoted, quoted_list
from secagg.identity.transport import (
    PLAINTEXT,
    TLS,
    AuthorityFile,
    ClientTransport,
    PinnedFingerprint,
    Plaintext,
    TlsFiles,
    check_plaintext,
    read_client_transport,
    read_server_transport,
)
from secagg.transcript.entries import MAX_COHORT
from secagg.transcript.record import Codec, RecordError, fraction_codec, hex_codec

MAX_FILE_BYTES = 1 << 16
DEFAULT_ADDRESS = Address("127.0.0.1", 7443)
_DAY_S = 24 * 3600
_MAX_RETENTION_S = 10 * 366 * _DAY_S  # as in a session's record
_MAX_PINS = 1024
_KEY = hex_codec(32)
_DIGEST = hex_codec(32)
_FRACTION = fraction_codec()
_DataclassT = TypeVar("_DataclassT", bound="CoordinatorConfig | ClientConfig | TlsFiles | AuthorityFile")


class ReflectionAudience(enum.Enum):
    """Who can ask the coordinator what it serves (gRPC server reflection)."""

    NOBODY = "nobody"
    OPERATOR = "operator"
    """On the operator's socket only."""
    EVERYONE = "everyone"
    """On the public address as well."""


@dataclass(frozen=True, slots=True)
class CoordinatorLimits:
    """What one coordinator takes on at a time."""

    max_concurrent_rpcs: int = 4096
    max_upload_bytes: int = 4 * 2**30
    max_watchers: int = 2000

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_integer("limits.max_concurrent_rpcs", self.max_concurrent_rpcs, 1, 2**20)
        check_integer("limits.max_upload_bytes", self.max_upload_bytes, 1, 2**40)
        check_integer("limits.max_watchers", self.max_watchers, 0, 2**20 - 1)
        # A watcher holds an RPC for as long as it watches.
        if self.max_watchers >= self.max_concurrent_rpcs:
            raise ConfigError("limits.max_watchers", "must be below limits.max_concurrent_rpcs: a watcher is an RPC")


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """What a coordinator is started with.

    Keys of the file (a default in brackets; others have to be there):

    ==============================  ====================================================================
    listen                          address host:port ["127.0.0.1:7443"]; port 0 takes a free one
    state_directory                 where sessions, uploads and the log are
    key_file                        the coordinator's signing key
    transport                       "tls" or "loopback-plaintext" ["tls"]
    retention_s                     how long masked inputs are kept, 0 to ten years; a session's own value
                                    replaces it [2592000]
    expose_reflection               "nobody", "operator" or "everyone" ["operator"]
    tls.certificate                 certificate chain in PEM (transport "tls")
    tls.private_key                 its key in PEM, mode 0600 (transport "tls")
    tls.client_ca                   authority whose certificates clients must show (transport "tls") [none]
    limits.max_concurrent_rpcs      1 to 2^20 [4096]
    limits.max_upload_bytes         of one masked input, 1 to 2^40 [4294967296]
    limits.max_watchers             0 to 2^20, below max_concurrent_rpcs [2000]
    ==============================  ====================================================================
    """

    state_directory: Path
    key_file: Path
    transport: TlsFiles | Plaintext
    listen: Address = DEFAULT_ADDRESS
    limits: CoordinatorLimits = CoordinatorLimits()
    retention_s: int = 30 * _DAY_S
    expose_reflection: ReflectionAudience = ReflectionAudience.OPERATOR

    FILE_NAME: ClassVar[str] = "coordinator.toml"

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_path("state_directory", self.state_directory)
        check_path("key_file", self.key_file)
        check_integer("retention_s", self.retention_s, 0, _MAX_RETENTION_S)
        check_plaintext(self.transport, "listen", self.listen)

    @classmethod
    def from_toml(cls, text: str) -> CoordinatorConfig:
        """Read a document; paths stay as written. Raises ConfigError."""
        top = Table.parse(text)
        config = cls(
            listen=_address("listen", top.text_or("listen", str(DEFAULT_ADDRESS))),
            state_directory=top.path("state_directory"),
            key_file=top.path("key_file"),
            transport=read_server_transport(top),
            limits=_limits(top),
            retention_s=top.integer("retention_s", 30 * _DAY_S),
            expose_reflection=_audience(top.text_or("expose_reflection", ReflectionAudience.OPERATOR.value)),
        )
        top.finish()
        return config

    @classmethod
    def load(cls, path: Path) -> CoordinatorConfig:
        """Read a file; its relative paths count from its directory. Raises ConfigError, IdentityFileError."""
        return _resolved(cls.from_toml(_read_text(path)), path.absolute().parent)

    def to_toml(self) -> str:
        """A commented document that ``from_toml`` reads back to an equal value."""
        match self.transport:
            case TlsFiles(certificate, private_key, client_ca):
                transport = TLS
                tls = [
                    "[tls]",
                    f"certificate = {quoted(certificate)}",
                    f"private_key = {quoted(private_key)}",
                    "# Clients must show a certificate of this authority.",
                    '# client_ca = "clients.pem"' if client_ca is None else f"client_ca = {quoted(client_ca)}",
                ]
            case Plaintext():
                transport, tls = PLAINTEXT, []
            case _:
                assert_never(self.transport)
        return _document(
            "# Configuration of a secagg coordinator. Relative paths count from the directory of this file.",
            f"# Where clients connect; anything but a loopback address needs TLS.\nlisten = {quoted(self.listen)}",
            f"# Sessions, uploads and the log.\nstate_directory = {quoted(self.state_directory)}",
            f"# The coordinator's signing key; clients pin its public half.\nkey_file = {quoted(self.key_file)}",
            f'# "tls", or "loopback-plaintext" for trying things out on one machine.\ntransport = "{transport}"',
            "# How long masked inputs are kept for auditors, unless the session says otherwise.\n"
            f"retention_s = {self.retention_s}",
            '# Who can list the services: "nobody", "operator" (on the operator\'s socket), "everyone".\n'
            f"expose_reflection = {quoted(self.expose_reflection.value)}",
            "\n".join(tls),
            "[limits]\n"
            f"max_concurrent_rpcs = {self.limits.max_concurrent_rpcs}\n"
            f"# Of one masked input.\nmax_upload_bytes = {self.limits.max_upload_bytes}\n"
            f"# Clients that wait for news; each is one of the RPCs above.\nmax_watchers = {self.limits.max_watchers}",
        )

    def server_transport(self) -> ServerTls | LoopbackPlaintext:
        """Read the TLS files. Raises IdentityFileError."""
        match self.transport:
            case TlsFiles(certificate, private_key, client_ca):
                return load_server_tls(certificate, private_key, client_ca)
            case Plaintext():
                return LoopbackPlaintext(self.listen)
            case _:
                assert_never(self.transport)


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """What a client insists on, whatever a session says; fields as in ``protocol.session.ClientPolicy``."""

    min_contributors: int = 3
    tolerated_corrupt: Fraction = Fraction(1, 10)
    registrars: frozenset[bytes] = frozenset()
    base_models: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_integer("policy.min_contributors", self.min_contributors, 2, MAX_COHORT)
        if not 0 <= self.tolerated_corrupt < 1:
            raise ConfigError("policy.tolerated_corrupt", "expected a fraction from 0/1 to below 1/1")
        for key, pins in (("registrars", self.registrars), ("base_models", self.base_models)):
            if len(pins) > _MAX_PINS or any(len(pin) != 32 for pin in pins):
                raise ConfigError(f"policy.{key}", f"expected at most {_MAX_PINS} values of 32 bytes")


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What a client is started with.

    Keys of the file (a default in brackets; others have to be there):

    ==============================  ====================================================================
    coordinator                     address host:port
    coordinator_key                 its public signing key, 32 bytes in hex
    identity_key_file               this client's identity key
    state_directory                 where this client's part of sessions is
    transport                       "tls" or "loopback-plaintext" ["tls"]
    tls.fingerprint                 SHA-256 of the coordinator's certificate in hex (transport "tls": this
                                    or tls.ca_file)
    tls.ca_file                     certificates in PEM that vouch for the coordinator (transport "tls")
    policy.min_contributors         smallest cohort, 2 to 2^20 [3]
    policy.tolerated_corrupt        fraction of a cohort that may collude with the coordinator ["1/10"]
    policy.registrars               public keys of registrars in hex; an empty list takes any [[]]
    policy.base_models              digests of base models in hex; an empty list takes any [[]]
    ==============================  ====================================================================
    """

    coordinator: Address
    coordinator_key: bytes
    identity_key_file: Path
    state_directory: Path
    transport: ClientTransport
    policy: PolicyConfig = PolicyConfig()

    FILE_NAME: ClassVar[str] = "client.toml"

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_path("identity_key_file", self.identity_key_file)
        check_path("state_directory", self.state_directory)
        if len(self.coordinator_key) != 32:
            raise ConfigError("coordinator_key", "expected 32 bytes")
        if self.coordinator.port == 0:
            raise ConfigError("coordinator", "expected a port from 1 to 65535")
        check_plaintext(self.transport, "coordinator", self.coordinator)

    @classmethod
    def from_toml(cls, text: str) -> ClientConfig:
        """Read a document; paths stay as written. Raises ConfigError."""
        top = Table.parse(text)
        config = cls(
            coordinator=_address("coordinator", top.text("coordinator")),
            coordinator_key=_decode(_KEY, "coordinator_key", top.text("coordinator_key")),
            identity_key_file=top.path("identity_key_file"),
            state_directory=top.path("state_directory"),
            transport=read_client_transport(top),
            policy=_policy(top),
        )
        top.finish()
        return config

    @classmethod
    def load(cls, path: Path) -> ClientConfig:
        """Read a file; its relative paths count from its directory. Raises ConfigError, IdentityFileError."""
        return _resolved(cls.from_toml(_read_text(path)), path.absolute().parent)

    def to_toml(self) -> str:
        """A commented document that ``from_toml`` reads back to an equal value."""
        policy = self.policy
        match self.transport:
            case PinnedFingerprint(fingerprint):
                transport, tls = TLS, f"[tls]\nfingerprint = {quoted(fingerprint)}"
            case AuthorityFile(ca_file):
                transport, tls = TLS, f"[tls]\nca_file = {quoted(ca_file)}"
            case Plaintext():
                transport, tls = PLAINTEXT, ""
            case _:
                assert_never(self.transport)
        registrars = quoted_list(sorted(key.hex() for key in policy.registrars))
        base_models = quoted_list(sorted(digest.hex() for digest in policy.base_models))
        return _document(
            "# Configuration of a secagg client. Relative paths count from the directory of this file.",
            f"coordinator = {quoted(self.coordinator)}",
            f"# The coordinator's public signing key.\ncoordinator_key = {quoted(self.coordinator_key.hex())}",
            f"# Your identity key; keep it to yourself.\nidentity_key_file = {quoted(self.identity_key_file)}",
            f"# Sessions you take part in; never restore it from a backup.\n"
            f"state_directory = {quoted(self.state_directory)}",
            f'# "tls", or "loopback-plaintext" for a coordinator on this machine.\ntransport = "{transport}"',
            tls and f"# Either a fingerprint (what `coordinator init` printed) or a ca_file.\n{tls}",
            "# What you insist on, whatever a session says.\n[policy]\n"
            f"# The smallest cohort you add your contribution to.\nmin_contributors = {policy.min_contributors}\n"
            "# The fraction of a cohort that may collude with the coordinator.\n"
            f'tolerated_corrupt = "{_FRACTION.write(policy.tolerated_corrupt)}"\n'
            "# Registrars whose rosters you accept. Empty: whoever the coordinator names, who can invent people.\n"
            f"registrars = {registrars}\n"
            f"# Digests of base models; an empty list accepts any.\nbase_models = {base_models}",
        )

    def client_tls(self, timeout_s: float) -> ClientTls:
        """Read the authority's file, or fetch the pinned certificate (blocks). Raises IdentityFileError, TlsError."""
        match self.transport:
            case PinnedFingerprint(fingerprint):
                address = self.coordinator
                return PinnedCertificate(*fetch_pinned_certificate(address.host, address.port, fingerprint, timeout_s))
            case AuthorityFile(ca_file):
                authority: CertificateAuthority = load_certificate_authority(ca_file)
                return authority
            case Plaintext():
                return LoopbackPlaintext(self.coordinator)
            case _:
                assert_never(self.transport)


def _limits(top: Table) -> CoordinatorLimits:
    table, default = top.table("limits"), CoordinatorLimits()
    if table is None:
        return default
    limits = CoordinatorLimits(
        table.integer("max_concurrent_rpcs", default.max_concurrent_rpcs),
        table.integer("max_upload_bytes", default.max_upload_bytes),
        table.integer("max_watchers", default.max_watchers),
    )
    table.finish()
    return limits


def _policy(top: Table) -> PolicyConfig:
    table, default = top.table("policy"), PolicyConfig()
    if table is None:
        return default
    fraction = table.text_or("tolerated_corrupt", str(_FRACTION.write(default.tolerated_corrupt)))
    policy = PolicyConfig(
        table.integer("min_contributors", default.min_contributors),
        _decode(_FRACTION, "policy.tolerated_corrupt", fraction),
        _pins(table, "registrars", _KEY),
        _pins(table, "base_models", _DIGEST),
    )
    table.finish()
    return policy


def _pins(table: Table, key: str, codec: Codec) -> frozenset[bytes]:
    texts = table.texts(key, ())
    return frozenset(_decode(codec, f"policy.{key}[{i}]", text) for i, text in enumerate(texts))


def _decode(codec: Codec, key: str, text: str) -> Any:  # noqa: ANN401 - a codec's value is typed as Any
    try:
        return codec.read(text, key)
    except RecordError as error:
        raise ConfigError(error.field, error.reason) from None


def _address(key: str, text: str) -> Address:
    try:
        return Address.parse(text)
    except AddressError as error:
        raise ConfigError(key, str(error)) from None


def _audience(text: str) -> ReflectionAudience:
    try:
        return ReflectionAudience(text)
    except ValueError:
        words = ", ".join(f'"{audience.value}"' for audience in ReflectionAudience)
        raise ConfigError("expose_reflection", f"expected one of {words}") from None


def _resolved(config: _DataclassT, directory: Path) -> _DataclassT:
    """The same with every relative path taken from ``directory``."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        member = getattr(config, field.name)
        if isinstance(member, Path):
            changes[field.name] = directory / member
        elif isinstance(member, TlsFiles | AuthorityFile):
            changes[field.name] = _resolved(member, directory)
    return dataclasses.replace(config, **changes)


def _read_text(path: Path) -> str:
    data = read_public(path, MAX_FILE_BYTES)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("file", "not UTF-8") from None


def _document(*paragraphs: str) -> str:
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"
