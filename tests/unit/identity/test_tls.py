"""Certificates, and pinning one against a real gRPC server."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import socket
import ssl
import stat
import threading
import time
from contextlib import asynccontextmanager, contextmanager

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secagg.crypto.secret import Secret
from secagg.identity.address import Address
from secagg.identity.errors import AddressError, FileRefusal, IdentityFileError, TlsError, TlsRefusal
from secagg.identity.tls import (
    CertificateAuthority,
    LoopbackPlaintext,
    PinnedCertificate,
    ServerTls,
    create_certificate,
    fetch_pinned_certificate,
    fingerprint,
    load_certificate_authority,
    load_server_tls,
)

NOW_S = 4_000_000_000 // 2  # 2033: gRPC checks dates against the real clock, see ``real_now_s``
TIMEOUT_S = 10.0
PATH = "/test.Echo/Say"


def real_now_s():
    return int(time.time())


def made(directory, *hosts, now_s=None):
    files = create_certificate(directory, hosts or ("127.0.0.1",), real_now_s() if now_s is None else now_s, 30)
    return files, load_server_tls(files.certificate, files.private_key, None)


@asynccontextmanager
async def server(credentials):
    async def say(request, context):
        return b"heard " + request

    handlers = {"Say": grpc.unary_unary_rpc_method_handler(say)}
    running = grpc.aio.server()
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = running.add_secure_port("127.0.0.1:0", credentials)
    await running.start()
    try:
        yield port
    finally:
        await running.stop(None)


def credentials_of(tls: ServerTls):
    pair = [(tls.private_key.expose(), tls.certificate_chain)]
    return grpc.ssl_server_credentials(pair, tls.client_ca, require_client_auth=tls.client_ca is not None)


async def say(port, root, name=None):
    options = [("grpc.ssl_target_name_override", name)] if name else []
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(root), options) as channel:
        return await channel.unary_unary(PATH)(b"x", timeout=TIMEOUT_S)


async def fetch(port, pin, timeout_s=TIMEOUT_S):
    return await asyncio.to_thread(fetch_pinned_certificate, "127.0.0.1", port, pin, timeout_s)


def refused(refusal, call, *arguments):
    with pytest.raises(TlsError) as caught:
        call(*arguments)
    assert caught.value.reason is refusal
    return str(caught.value)


def test_a_client_that_pins_the_right_fingerprint_connects(tmp_path):
    files, tls = made(tmp_path, "127.0.0.1", "agg.example.org")

    async def scenario():
        async with server(credentials_of(tls)) as port:
            pem, name = await fetch(port, files.fingerprint)
            assert name == "127.0.0.1"
            assert fingerprint(pem) == files.fingerprint
            assert await say(port, pem, name) == b"heard x"

    asyncio.run(scenario())


def test_a_certificate_for_other_names_than_the_address_still_verifies_under_its_own(tmp_path):
    files, tls = made(tmp_path, "agg.example.org", "10.1.2.3")

    async def scenario():
        async with server(credentials_of(tls)) as port:
            pem, name = await fetch(port, files.fingerprint)
            assert name == "agg.example.org"
            assert await say(port, pem, name) == b"heard x"
            with pytest.raises(grpc.aio.AioRpcError):
                await say(port, pem)

    asyncio.run(scenario())


def test_a_wrong_fingerprint_is_refused_and_both_are_named(tmp_path):
    files, tls = made(tmp_path)
    wrong = files.fingerprint[:-1] + ("0" if files.fingerprint[-1] != "0" else "1")

    async def scenario():
        async with server(credentials_of(tls)) as port:
            with pytest.raises(TlsError) as caught:
                await fetch(port, wrong)
            assert caught.value.reason is TlsRefusal.WRONG_FINGERPRINT
            assert files.fingerprint in str(caught.value)
            assert wrong in str(caught.value)

    asyncio.run(scenario())


def test_a_server_that_takes_over_after_the_fetch_gains_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    files, tls = made(tmp_path / "a")
    _, impostor = made(tmp_path / "b")

    async def scenario():
        async with server(credentials_of(tls)) as port:
            pem, name = await fetch(port, files.fingerprint)
        async with server(credentials_of(impostor)) as port:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await say(port, pem, name)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


def test_the_holder_of_a_pinned_certificate_cannot_vouch_for_another(tmp_path):
    files, _ = made(tmp_path)
    issuer = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    issuer_key = load_pem_private_key(files.private_key.read_bytes(), None)
    leaf = issue(issuer.subject, issuer_key, "127.0.0.1")

    async def scenario():
        async with server(credentials_of(leaf)) as port:
            with pytest.raises(grpc.aio.AioRpcError):
                await say(port, files.certificate.read_bytes(), "127.0.0.1")

    asyncio.run(scenario())


def test_a_pinned_certificate_of_an_authority_connects_too(tmp_path):
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "some authority")])
    tls = issue(authority, ec.generate_private_key(ec.SECP256R1()), "127.0.0.1")

    async def scenario():
        async with server(credentials_of(tls)) as port:
            pem, name = await fetch(port, fingerprint(tls.certificate_chain))
            assert await say(port, pem, name) == b"heard x"

    asyncio.run(scenario())


def test_a_server_that_asks_for_client_certificates_can_be_pinned(tmp_path):
    files, tls = made(tmp_path)
    asking = load_server_tls(files.certificate, files.private_key, files.certificate)
    assert asking.client_ca == tls.certificate_chain

    async def scenario():
        async with server(credentials_of(asking)) as port:
            assert (await fetch(port, files.fingerprint))[1] == "127.0.0.1"

    asyncio.run(scenario())


def issue(issuer, issuer_key, *hosts):
    """A certificate for ``hosts`` (none: without names) that ``issuer`` signs, with a key of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
    builder = x509.CertificateBuilder(subject, issuer, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    if hosts:
        names = [x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = builder.sign(issuer_key, SHA256()).public_bytes(Encoding.PEM)
    return ServerTls(pem, Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())), None)


@contextmanager
def listener(serve):
    """A server on a port of its own that hands its first connection to ``serve``."""
    listening = socket.create_server(("127.0.0.1", 0))

    def run():
        connection, _ = listening.accept()
        with connection:
            serve(connection)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        thread.join()
        listening.close()


def tls_listener(tmp_path, tls):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "pair.pem").write_bytes(tls.certificate_chain + tls.private_key.expose())
    context.load_cert_chain(tmp_path / "pair.pem")

    def serve(connection):
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    return listener(serve)


@pytest.mark.parametrize(
    ("hosts", "host", "name"),
    [
        (("*.0.0.1", "b.example.org"), "127.0.0.1", "b.example.org"),
        (("a.example.org", "127.0.0.1"), "127.0.0.1", "127.0.0.1"),
        (("*.example.org", "10.0.0.1"), "127.0.0.1", "10.0.0.1"),
        (("Agg.Example.ORG",), "127.0.0.1", "agg.example.org"),
        (("localhost", "a.example.org"), "localhost", "localhost"),
    ],
)
def test_the_name_is_the_host_where_possible(tmp_path, hosts, host, name):
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
    tls = issue(issuer, ec.generate_private_key(ec.SECP256R1()), *hosts)
    with tls_listener(tmp_path, tls) as port:
        assert fetch_pinned_certificate(host, port, fingerprint(tls.certificate_chain), TIMEOUT_S)[1] == name


@pytest.mark.parametrize("hosts", [(), ("*.example.org",)])
def test_a_certificate_without_a_usable_name_is_refused(tmp_path, hosts):
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
    tls = issue(issuer, ec.generate_private_key(ec.SECP256R1()), *hosts)
    with tls_listener(tmp_path, tls) as port:
        pin = fingerprint(tls.certificate_chain)
        refused(TlsRefusal.NAMELESS_CERTIFICATE, fetch_pinned_certificate, "127.0.0.1", port, pin, TIMEOUT_S)


@pytest.mark.parametrize("serve", [lambda c: None, lambda c: c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")])
def test_what_does_not_speak_tls_is_refused(serve):
    with listener(serve) as port:
        refused(TlsRefusal.UNREACHABLE, fetch_pinned_certificate, "127.0.0.1", port, "0" * 64, TIMEOUT_S)


def test_a_server_that_drips_bytes_does_not_hold_us_beyond_the_timeout():
    done = threading.Event()

    def drip(connection):
        for byte in b"\x16\x03\x03\x40\x00" + bytes(1000):
            if done.is_set():
                return
            connection.sendall(bytes([byte]))
            done.wait(0.02)

    with listener(drip) as port:
        begun_s = time.monotonic()
        text = refused(TlsRefusal.UNREACHABLE, fetch_pinned_certificate, "127.0.0.1", port, "0" * 64, 0.3)
        done.set()
        assert time.monotonic() - begun_s < 5
    assert "timed out" in text


def test_a_port_where_nobody_listens_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    text = refused(TlsRefusal.UNREACHABLE, fetch_pinned_certificate, "127.0.0.1", port, "0" * 64, TIMEOUT_S)
    assert f"127.0.0.1:{port}" in text


@pytest.mark.parametrize("pin", ["", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", ":".join(["00"] * 32)])
def test_a_malformed_fingerprint_is_refused_before_connecting(pin):
    refused(TlsRefusal.BAD_FINGERPRINT, fetch_pinned_certificate, "127.0.0.1", 1, pin, TIMEOUT_S)
    with pytest.raises(AddressError):
        fetch_pinned_certificate("no host", 1, "0" * 64, TIMEOUT_S)


def test_the_certificate_is_what_it_is_meant_to_be(tmp_path):
    files, _ = made(tmp_path, "agg.example.org", "127.0.0.1", "::1", "127.0.0.1", now_s=NOW_S)
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["agg.example.org"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert isinstance(certificate.public_key().curve, ec.SECP256R1)
    assert certificate.not_valid_before_utc.timestamp() == NOW_S - 3600
    assert certificate.not_valid_after_utc.timestamp() == NOW_S + 30 * 24 * 3600
    certificate.verify_directly_issued_by(certificate)
    assert files.fingerprint == certificate.fingerprint(SHA256()).hex()


def test_the_key_is_private_and_the_certificate_public(tmp_path):
    before = os.umask(0o077)
    try:
        files, _ = made(tmp_path)
    finally:
        os.umask(before)
    assert (files.private_key.name, stat.S_IMODE(files.private_key.stat().st_mode)) == ("tls.key", 0o600)
    assert (files.certificate.name, stat.S_IMODE(files.certificate.stat().st_mode)) == ("tls.crt", 0o644)


def test_nothing_is_overwritten_and_no_key_is_left_without_a_certificate(tmp_path):
    (tmp_path / "tls.crt").write_bytes(b"mine")
    with pytest.raises(IdentityFileError) as caught:
        made(tmp_path)
    assert caught.value.reason is FileRefusal.EXISTS
    assert [path.name for path in tmp_path.iterdir()] == ["tls.crt"]
    with pytest.raises(IdentityFileError):
        made(tmp_path / "none")


@pytest.mark.parametrize(
    "host", ["", "HOST", "a b", "*.example.org", "h\u00f6st", "127.0.0.1:80", "a\nb", "-x", "::1%lo"]
)
def test_a_bad_host_is_refused_and_nothing_is_written(tmp_path, host):
    refused(TlsRefusal.BAD_HOST, create_certificate, tmp_path, ["ok.example.org", host], NOW_S, 30)
    refused(TlsRefusal.BAD_HOST, create_certificate, tmp_path, [], NOW_S, 30)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_a_validity_out_of_range_is_refused(tmp_path, days):
    refused(TlsRefusal.BAD_VALIDITY, create_certificate, tmp_path, ["localhost"], NOW_S, days)


def test_a_key_that_others_can_read_is_refused(tmp_path):
    files, _ = made(tmp_path)
    files.private_key.chmod(0o640)
    with pytest.raises(IdentityFileError, match="chmod 600"):
        load_server_tls(files.certificate, files.private_key, None)


def test_a_key_of_another_certificate_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, _ = made(tmp_path / "a")
    b, _ = made(tmp_path / "b")
    with pytest.raises(IdentityFileError) as caught:
        load_server_tls(a.certificate, b.private_key, None)
    assert caught.value.reason is FileRefusal.KEY_MISMATCH


def test_an_encrypted_key_is_refused_with_the_reason(tmp_path):
    files, _ = made(tmp_path)
    key = load_pem_private_key(files.private_key.read_bytes(), None)
    files.private_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    with pytest.raises(IdentityFileError, match="encrypted") as caught:
        load_server_tls(files.certificate, files.private_key, None)
    assert caught.value.__context__ is None


def test_no_repr_and_no_error_shows_the_key(tmp_path):
    files, tls = made(tmp_path)
    line = files.private_key.read_text().splitlines()[1]
    assert line not in repr(tls)
    files.private_key.write_text(files.private_key.read_text().replace("\n", "\n*", 2))
    with pytest.raises(IdentityFileError) as caught:
        load_server_tls(files.certificate, files.private_key, None)
    assert line not in repr(caught.value) + str(caught.value)
    assert caught.value.__context__ is None


def test_plaintext_exists_for_loopback_addresses_only():
    assert LoopbackPlaintext(Address("127.0.0.1", 7443)).address.port == 7443
    for host in ("0.0.0.0", "10.0.0.1", "example.org"):  # noqa: S104 - refused
        refused(TlsRefusal.NOT_LOOPBACK, LoopbackPlaintext, Address(host, 7443))


def test_an_authority_is_read_from_its_file(tmp_path):
    files, tls = made(tmp_path)
    both = tls.certificate_chain * 2
    files.certificate.write_bytes(both)
    assert load_certificate_authority(files.certificate) == CertificateAuthority(both)
    assert PinnedCertificate(b"pem", "name").name == "name"
    refused(TlsRefusal.BAD_CERTIFICATE, fingerprint, b"none")


PEM_LIKE = st.binary(max_size=300).map(
    lambda body: b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | PEM_LIKE | PEM_LIKE.map(lambda pem: pem.replace(b"CERTIFICATE", b"PRIVATE KEY")))
def test_arbitrary_bytes_give_only_the_declared_errors(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    good = tmp_path_factory.getbasetemp() / "good.pem"
    if not good.exists():
        good.write_bytes(issue(x509.Name([]), ec.generate_private_key(ec.SECP256R1())).certificate_chain)
    for call, arguments in (
        (load_certificate_authority, (path,)),
        (load_server_tls, (path, path, None)),
        (load_server_tls, (good, path, None)),
    ):
        with pytest.raises(IdentityFileError):
            call(*arguments)
    with pytest.raises(TlsError):
        fingerprint(data)
