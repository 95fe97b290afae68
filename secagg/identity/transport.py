"""How a configuration says what connections are made of: the keys ``transport`` and ``tls.*``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from secagg.identity.address import Address
from secagg.identity.errors import ConfigError, TlsError
from secagg.identity.tls import check_fingerprint
from secagg.identity.toml_reader import Table, check_path

TLS = "tls"
PLAINTEXT = "loopback-plaintext"


@dataclass(frozen=True, slots=True)
class Plaintext:
    """No TLS; the configuration it is in has a loopback address."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the coordinator's certificate and key are, and an authority that clients' certificates must come from."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_path("tls.certificate", self.certificate)
        check_path("tls.private_key", self.private_key)
        if self.client_ca is not None:
            check_path("tls.client_ca", self.client_ca)


@dataclass(frozen=True, slots=True)
class PinnedFingerprint:
    """The SHA-256 of the coordinator's certificate in lowercase hex, as ``coordinator init`` prints it."""

    fingerprint: str

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        try:
            check_fingerprint(self.fingerprint)
        except TlsError as error:
            raise ConfigError("tls.fingerprint", error.reason.value) from None


@dataclass(frozen=True, slots=True)
class AuthorityFile:
    """Where the certificates are that vouch for the coordinator."""

    ca_file: Path

    def __post_init__(self) -> None:
        """Raise ConfigError."""
        check_path("tls.ca_file", self.ca_file)


ClientTransport: TypeAlias = PinnedFingerprint | AuthorityFile | Plaintext


def read_server_transport(top: Table) -> TlsFiles | Plaintext:
    """Take ``transport`` and ``[tls]`` of a coordinator. Raises ConfigError."""
    tls = _tls_table(top)
    if tls is None:
        return Plaintext()
    files = TlsFiles(tls.path("certificate"), tls.path("private_key"), tls.path_or("client_ca", None))
    tls.finish()
    return files


def read_client_transport(top: Table) -> ClientTransport:
    """Take ``transport`` and ``[tls]`` of a client. Raises ConfigError."""
    tls = _tls_table(top)
    if tls is None:
        return Plaintext()
    fingerprint, ca_file = tls.text_or("fingerprint", None), tls.path_or("ca_file", None)
    tls.finish()
    if fingerprint is not None and ca_file is None:
        return PinnedFingerprint(fingerprint)
    if ca_file is not None and fingerprint is None:
        return AuthorityFile(ca_file)
    raise ConfigError("tls", "expected either fingerprint or ca_file")


def _tls_table(top: Table) -> Table | None:
    """The ``[tls]`` table, which is there exactly if the transport is TLS."""
    transport, tls = top.text_or("transport", TLS), top.table("tls")
    if transport not in (TLS, PLAINTEXT):
        raise ConfigError("transport", f'expected "{TLS}" or "{PLAINTEXT}"')
    if transport == TLS and tls is None:
        raise ConfigError("tls", "missing")
    if transport == PLAINTEXT and tls is not None:
        raise ConfigError("tls", f'not with transport = "{PLAINTEXT}"')
    return tls


def check_plaintext(transport: TlsFiles | ClientTransport, key: str, address: Address) -> None:
    """Plaintext works on a loopback address only (09)."""
    if isinstance(transport, Plaintext) and not address.is_loopback:
        raise ConfigError(key, f'transport = "{PLAINTEXT}" works on a loopback address only')
