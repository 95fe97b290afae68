"""Configuration files of clients: TOML, read strictly, written with comments.

What a file may say is in the docstring of ``ClientConfig``. Relative paths are relative to the directory of the file
(``load``). No file holds a secret; it names the files that do.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, assert_never

from secagg.identity.address import Address
from secagg.identity.config import load_policy
from secagg.identity.errors import ConfigError
from secagg.identity.tls import (
    CertificateAuthority,
    ClientTls,
    LoopbackPlaintext,
    PinnedCertificate,
    fetch_pinned_certificate,
    load_certificate_authority,
)
from secagg.identity.toml_reader import (
    Table,
    check_integer,
    check_path,
    document,
    quoted,
    quoted_list,
    read_address,
    read_text,
    resolved,
)
from secagg.identity.transport import (
    PLAINTEXT,
    TLS,
    AuthorityFile,
    ClientTransport,
    PinnedFingerprint,
    Plaintext,
    check_plaintext,
    read_client_transport,
)
from secagg.transcript.entries import MAX_COHORT
from secagg.transcript.policy import LogPolicy
from secagg.transcript.record import Codec, RecordError, fraction_codec, hex_codec

_MAX_PINS = 1024
_KEY = hex_codec(32)
_DIGEST = hex_codec(32)
_FRACTION = fraction_codec()


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """What a client insists on, whatever a session says; fields as in ``protocol.session.ClientPolicy``.

    ``log`` is the C2SP policy file that says which log and which witnesses; without one none is asked for.
    """

    min_contributors: int = 3
    tolerated_corrupt: Fraction = Fraction(1, 10)
    registrars: frozenset[bytes] = frozenset()
    base_models: frozenset[bytes] = frozenset()
    log: Path | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_integer("policy.min_contributors", self.min_contributors, 2, MAX_COHORT)
        if not 0 <= self.tolerated_corrupt < 1:
            raise ConfigError("policy.tolerated_corrupt", "expected a fraction from 0/1 to below 1/1")
        for key, pins in (("registrars", self.registrars), ("base_models", self.base_models)):
            if len(pins) > _MAX_PINS or any(len(pin) != 32 for pin in pins):
                raise ConfigError(f"policy.{key}", f"expected at most {_MAX_PINS} values of 32 bytes")
        if self.log is not None:
            check_path("policy.log", self.log)

    def log_policy(self) -> LogPolicy:
        """The policy in the file. Raises ConfigError, IdentityFileError."""
        return LogPolicy.without_witnesses() if self.log is None else load_policy(self.log)


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """What a client is willing to spend on all sessions together, in differential privacy: ``epsilon`` at ``delta``."""

    epsilon: Fraction
    delta: Fraction

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        if self.epsilon <= 0:
            raise ConfigError("budget.epsilon", "must be positive")
        if not 0 < self.delta < 1:
            raise ConfigError("budget.delta", "must be between 0 and 1")


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
    policy.log                      C2SP policy file: which log it must be, who must have cosigned it [none: the
                                    coordinator's word alone]
    openers.keys                    public keys of the committee members and key authorities whom you take for honest,
                                    in hex; everybody else who opens a one-shot sum counts as corrupt [[]]
    budget.epsilon                  what all sessions together may cost you in differential privacy, such as 8;
                                    with a budget, sessions without noise are refused [no budget]
    budget.delta                    at this delta, such as 1e-5 (has to be there if budget.epsilon is)
    ==============================  ====================================================================
    """

    coordinator: Address
    coordinator_key: bytes
    identity_key_file: Path
    state_directory: Path
    transport: ClientTransport
    policy: PolicyConfig = PolicyConfig()
    openers: frozenset[bytes] = frozenset()
    budget: BudgetConfig | None = None

    FILE_NAME: ClassVar[str] = "client.toml"

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_path("identity_key_file", self.identity_key_file)
        check_path("state_directory", self.state_directory)
        if len(self.coordinator_key) != 32:
            raise ConfigError("coordinator_key", "expected 32 bytes")
        if self.coordinator.port == 0:
            raise ConfigError("coordinator", "expected a port from 1 to 65535")
        if len(self.openers) > _MAX_PINS or any(len(key) != 32 for key in self.openers):
            raise ConfigError("openers.keys", f"expected at most {_MAX_PINS} values of 32 bytes")
        check_plaintext(self.transport, "coordinator", self.coordinator)

    @classmethod
    def from_toml(cls, text: str) -> ClientConfig:
        """Read a document; paths stay as written. Raises ConfigError."""
        top = Table.parse(text)
        config = cls(
            coordinator=read_address("coordinator", top.text("coordinator")),
            coordinator_key=_decode(_KEY, "coordinator_key", top.text("coordinator_key")),
            identity_key_file=top.path("identity_key_file"),
            state_directory=top.path("state_directory"),
            transport=read_client_transport(top),
            policy=_policy(top),
            openers=_openers(top),
            budget=_budget(top),
        )
        top.finish()
        return config

    @classmethod
    def load(cls, path: Path) -> ClientConfig:
        """Read a file; its relative paths count from its directory. Raises ConfigError, IdentityFileError."""
        return resolved(cls.from_toml(read_text(path)), path.absolute().parent)

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
        return document(
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
            f"# Digests of base models; an empty list accepts any.\nbase_models = {base_models}\n"
            "# Which log it must be and who must have cosigned it (a C2SP policy file).\n"
            "# Without one the coordinator can show you another log than others.\n"
            + ('# log = "log.policy"' if policy.log is None else f"log = {quoted(policy.log)}"),
            "# Committee members and key authorities whom you take for honest, by their public keys. The coordinator\n"
            "# chooses who opens the sum of a one-shot session; whoever is not named here counts as corrupt.\n"
            f"[openers]\nkeys = {quoted_list(sorted(key.hex() for key in self.openers))}",
            "# What all sessions together may cost you in differential privacy. With a budget, sessions without noise\n"
            "# are refused; without one, nobody counts what you spend.\n" + _budget_table(self.budget),
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


def _policy(top: Table) -> PolicyConfig:
    table, default = top.table("policy"), PolicyConfig()
    if table is None:
        return default
    fraction = table.text_or("tolerated_corrupt", str(_FRACTION.write(default.tolerated_corrupt)))
    policy = PolicyConfig(
        table.integer("min_contributors", default.min_contributors),
        _decode(_FRACTION, "policy.tolerated_corrupt", fraction),
        _pins(table, "policy.registrars", _KEY),
        _pins(table, "policy.base_models", _DIGEST),
        table.path_or("log", None),
    )
    table.finish()
    return policy


def _budget(top: Table) -> BudgetConfig | None:
    table = top.table("budget")
    if table is None:
        return None
    budget = BudgetConfig(
        table.number("epsilon"),
        table.number("delta"),
    )
    table.finish()
    return budget


def _budget_table(budget: BudgetConfig | None) -> str:
    if budget is None:
        return "# [budget]\n# epsilon = 8\n# delta = 1e-5"
    return f'[budget]\nepsilon = "{budget.epsilon}"\ndelta = "{budget.delta}"'


def _openers(top: Table) -> frozenset[bytes]:
    table = top.table("openers")
    if table is None:
        return frozenset()
    keys = _pins(table, "openers.keys", _KEY)
    table.finish()
    return keys


def _pins(table: Table, name: str, codec: Codec) -> frozenset[bytes]:
    """The values of a list in a table; ``name`` is the list's, after that of its table."""
    texts = table.texts(name.partition(".")[2], ())
    return frozenset(_decode(codec, f"{name}[{i}]", text) for i, text in enumerate(texts))


def _decode(codec: Codec, key: str, text: str) -> Any:  # noqa: ANN401 - a codec's value is typed as Any
    try:
        return codec.read(text, key)
    except RecordError as error:
        raise ConfigError(error.field, error.reason) from None
