"""How a configuration says what connections are made of: the keys ``transport`` and ``tls.*``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, assert_never

from secagg.identity.address import Address
from secagg.identity.errors import ConfigError, TlsError
from secagg.identity.tls import (
    LoopbackPlaintext,
    ServerTransport,
    check_fingerprint,
    load_server_tls,
)
from secagg.identity.toml_reader import Table, check_path, quoted

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


def transport_paragraphs(transport: TlsFiles | Plaintext, clients: str) -> tuple[str, str]:
    """What a server's document says of its transport: the key itself, and the table, which belongs below all keys.

    Args:
        transport: what to write.
        clients: who connects, as the first word of a sentence.
    """
    match transport:
        case TlsFiles(certificate, private_key, client_ca):
            name = TLS
            tls = [
                "[tls]",
                f"certificate = {quoted(certificate)}",
                f"private_key = {quoted(private_key)}",
                f"# {clients} must show a certificate of this authority.",
                '# client_ca = "clients.pem"' if client_ca is None else f"client_ca = {quoted(client_ca)}",
            ]
        case Plaintext():
            name, tls = PLAINTEXT, []
        case _:
            assert_never(transport)
    says = f'# "{TLS}", or "{PLAINTEXT}" for trying things out on one machine.\ntransport = "{name}"'
    return says, "\n".join(tls)


def server_transport(transport: TlsFiles | Plaintext, listen: Address) -> ServerTransport:
    """Read a server's TLS files. Raises IdentityFileError."""
    match transport:
        case TlsFiles(certificate, private_key, client_ca):
            return load_server_tls(certificate, private_key, client_ca)
        case Plaintext():
            return LoopbackPlaintext(listen)
        case _:
            assert_never(transport)


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
