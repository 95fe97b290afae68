"""TLS: the coordinator's certificate, how clients pin it, and plaintext on loopback addresses only.

gRPC for Python cannot be given a function that checks a certificate. A pinned fingerprint therefore works in two
steps: fetch the certificate in a handshake of our own that trusts nobody, compare its fingerprint, and hand exactly
this certificate to gRPC as the only root (``PinnedCertificate``). What gRPC then connects to must prove possession of
its private key; whoever answered the first handshake has gained nothing. No gRPC here: services make credentials from
these values.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
import selectors
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secagg.crypto.secret import Secret
from secagg.identity.address import Address, host_is_loopback, is_host_name, parse_ip
from secagg.identity.errors import AddressError, FileRefusal, IdentityFileError, TlsError, TlsRefusal
from secagg.identity.files import (
    PRIVATE_MODE,
    PUBLIC_MODE,
    create_exclusively,
    read_private,
    read_public,
    remove_durably,
)

KEY_FILE = "tls.key"
CERTIFICATE_FILE = "tls.crt"
MAX_FILE_BYTES = 1 << 20
MAX_VALID_DAYS = 3650
_CLOCK_SKEW = datetime.timedelta(hours=1)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a server presents, in PEM; with ``client_ca`` it asks every client for a certificate of that authority."""

    certificate_chain: bytes
    private_key: Secret
    client_ca: bytes | None


@dataclass(frozen=True, slots=True)
class LoopbackPlaintext:
    """No TLS, for one loopback address; there is no such value for another."""

    address: Address

    def __post_init__(self) -> None:
        """Raise TlsError(NOT_LOOPBACK)."""
        if not self.address.is_loopback:
            raise TlsError(TlsRefusal.NOT_LOOPBACK, str(self.address))


@dataclass(frozen=True, slots=True)
class PinnedCertificate:
    """Trust this certificate (PEM) and no other; ``name`` is what it is checked for (ssl_target_name_override)."""

    pem: bytes
    name: str


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """Trust what these authorities (PEM) vouch for, under the server's own name."""

    pem: bytes


ServerTransport: TypeAlias = ServerTls | LoopbackPlaintext
ClientTls: TypeAlias = PinnedCertificate | CertificateAuthority | LoopbackPlaintext


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a new certificate is, and the fingerprint that clients pin."""

    certificate: Path
    private_key: Path
    fingerprint: str


def is_loopback(address: str) -> bool:
    """Whether ``host:port`` or a bare host is on this machine; what is neither is not."""
    try:
        return Address.parse(address).is_loopback
    except AddressError:
        return host_is_loopback(address)


def check_fingerprint(text: str) -> str:
    """``text`` if it is SHA-256 in lowercase hex without colons; TlsError(BAD_FINGERPRINT) otherwise."""
    if _FINGERPRINT.fullmatch(text) is None:
        raise TlsError(TlsRefusal.BAD_FINGERPRINT, "fingerprint")
    return text


def fingerprint(pem: bytes) -> str:
    """SHA-256 of the DER form of the first certificate in ``pem``, in lowercase hex. Raises TlsError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise TlsError(TlsRefusal.BAD_CERTIFICATE, "certificate") from None
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def create_certificate(directory: Path, hosts: Sequence[str], now_s: int, valid_days: int) -> CertificateFiles:
    """Make ``tls.key`` (ECDSA P-256, 0600) and ``tls.crt``, self-signed, for these DNS names and IP addresses.

    The certificate is no authority (it cannot vouch for others). It is valid from one hour before ``now_s``, for
    clients whose clock is late, to ``valid_days`` after it. The key comes from OpenSSL's generator.

    Raises:
        TlsError: a host that is neither name nor address, none at all, or a validity out of range.
        IdentityFileError: the directory is missing or one of the files is there.
    """
    if not 1 <= valid_days <= MAX_VALID_DAYS:
        raise TlsError(TlsRefusal.BAD_VALIDITY, f"{valid_days} days")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key, _subject_names(hosts), now_s, valid_days)
    pem = certificate.public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = CertificateFiles(directory / CERTIFICATE_FILE, directory / KEY_FILE, fingerprint(pem))
    create_exclusively(files.private_key, secret, PRIVATE_MODE)
    try:
        create_exclusively(files.certificate, pem, PUBLIC_MODE)
    except IdentityFileError:
        remove_durably(files.private_key)
        raise
    return files


def load_server_tls(certificate: Path, private_key: Path, client_ca: Path | None) -> ServerTls:
    """Read what a server presents.

    Raises:
        IdentityFileError: a file cannot be read, is not PEM, the key is encrypted, is not the certificate's, or others
            have access to it.
    """
    chain = read_public(certificate, MAX_FILE_BYTES)
    leaf = _load_certificates(certificate, chain)[0]
    key = read_private(private_key, MAX_FILE_BYTES)
    public = _public_of_private(private_key, key)
    if leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != public:
        raise IdentityFileError(private_key, FileRefusal.KEY_MISMATCH, f"not the key of {certificate}")
    authority = None if client_ca is None else load_certificate_authority(client_ca).pem
    return ServerTls(chain, Secret(key), authority)


def load_certificate_authority(path: Path) -> CertificateAuthority:
    """Read the certificates of one or more authorities. Raises IdentityFileError."""
    pem = read_public(path, MAX_FILE_BYTES)
    _load_certificates(path, pem)
    return CertificateAuthority(pem)


def fetch_pinned_certificate(host: str, port: int, fingerprint: str, timeout_s: float) -> tuple[bytes, str]:
    """The server's certificate in PEM, whose SHA-256 is ``fingerprint``, and one of its names; blocks.

    The name is ``host`` where the certificate has it. ``timeout_s`` bounds connecting and handshake together, once the
    name is resolved.

    Raises:
        TlsError: a malformed fingerprint, no connection, another fingerprint, or a certificate without names.
    """
    expected = check_fingerprint(fingerprint)
    subject = str(Address(host, port))
    try:
        der = _fetch_certificate(host, port, timeout_s)
    except OSError as error:  # ssl.SSLError and TimeoutError among them
        raise TlsError(TlsRefusal.UNREACHABLE, subject, error.strerror or str(error)) from error
    found = hashlib.sha256(der).hexdigest()
    if not hmac.compare_digest(found, expected):
        raise TlsError(TlsRefusal.WRONG_FINGERPRINT, subject, f"found {found}, expected {expected}")
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError:
        raise TlsError(TlsRefusal.BAD_CERTIFICATE, subject) from None
    return certificate.public_bytes(Encoding.PEM), _name_of(certificate, host, subject)


def pinned_certificate(pem: bytes, address: Address) -> PinnedCertificate:
    """Trust this one certificate for the server at ``address``, under one of its names. Raises TlsError."""
    subject = str(address)
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise TlsError(TlsRefusal.BAD_CERTIFICATE, subject) from None
    return PinnedCertificate(certificate.public_bytes(Encoding.PEM), _name_of(certificate, address.host, subject))


def _name_of(certificate: x509.Certificate, host: str, subject: str) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise TlsError(TlsRefusal.NAMELESS_CERTIFICATE, subject) from None
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise TlsError(TlsRefusal.BAD_CERTIFICATE, subject) from None
    return _matching_name(names, host, subject)


def _fetch_certificate(host: str, port: int, timeout_s: float) -> bytes:
    """The DER certificate that the server presents, unchecked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the caller compares the fingerprint; nothing is sent on this connection
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    deadline_s = time.monotonic() + timeout_s
    with socket.create_connection((host, port), timeout_s) as connection:
        name = None if parse_ip(host) else host
        with context.wrap_socket(connection, server_hostname=name, do_handshake_on_connect=False) as tls:
            _handshake(tls, deadline_s)
            return tls.getpeercert(binary_form=True) or b""


def _handshake(tls: ssl.SSLSocket, deadline_s: float) -> None:
    """Do the handshake before ``deadline_s`` also with a server that sends a byte at a time."""
    tls.settimeout(0.0)
    with selectors.DefaultSelector() as selector:
        selector.register(tls, selectors.EVENT_READ)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                selector.modify(tls, selectors.EVENT_READ)
            except ssl.SSLWantWriteError:
                selector.modify(tls, selectors.EVENT_WRITE)
            else:
                return
            if not selector.select(max(0.0, deadline_s - time.monotonic())):
                raise TimeoutError("timed out")


def _matching_name(names: x509.SubjectAlternativeName, host: str, subject: str) -> str:
    """A name under which the certificate verifies: ``host`` if possible, since it is also sent to the server."""
    dns = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    parent = host.partition(".")[2]
    if host in dns or host in addresses or (parent and parse_ip(host) is None and f"*.{parent}" in dns):
        return host
    usable = [name for name in dns if is_host_name(name)] + addresses
    if not usable:
        raise TlsError(TlsRefusal.NAMELESS_CERTIFICATE, subject)
    return usable[0]


def _subject_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        address = parse_ip(host)
        if address is not None:
            names.append(x509.IPAddress(address))
        elif is_host_name(host):
            names.append(x509.DNSName(host))
        else:
            raise TlsError(TlsRefusal.BAD_HOST, host)
    if not names:
        raise TlsError(TlsRefusal.BAD_HOST, "hosts", "none given")
    return x509.SubjectAlternativeName(names)


def _self_signed(
    key: ec.EllipticCurvePrivateKey, names: x509.SubjectAlternativeName, now_s: int, valid_days: int
) -> x509.Certificate:
    now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "secagg")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - _CLOCK_SKEW).not_valid_after(now + datetime.timedelta(days=valid_days))
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(identifier, critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return builder.add_extension(issuer, critical=False).sign(key, SHA256())


def _load_certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise IdentityFileError(path, FileRefusal.MALFORMED, "expected certificates in PEM form") from None


def _public_of_private(path: Path, pem: bytes) -> bytes:
    # Raised after the except block, so that the error holds nothing of what the decoder saw.
    problem = "expected a private key in PEM form"
    try:
        public = load_pem_private_key(pem, password=None).public_key()
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except TypeError:
        problem = "the key is encrypted, which gRPC cannot use"
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise IdentityFileError(path, FileRefusal.MALFORMED, problem)
