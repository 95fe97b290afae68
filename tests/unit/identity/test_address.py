"""Addresses, and which of them stay on this machine."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.identity.address import Address
from secagg.identity.errors import AddressError
from secagg.identity.tls import is_loopback


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7443", "127.0.0.1", 7443),
        ("[::1]:0", "::1", 0),
        ("[2001:DB8:0::1]:65535", "2001:db8::1", 65535),
        ("Agg.Example.org:443", "agg.example.org", 443),
        ("localhost:1", "localhost", 1),
    ],
)
def test_an_address_is_a_host_and_a_port(text, host, port):
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "7443", "host", "host:", ":7443", "host:-1", "host:+1", "host:01", "host:65536", "host:1 ", " host:1",
        "::1:7443", "[127.0.0.1]:1", "[host]:1", "[::1%lo]:1", "[::1]", "[]:1", "a..b:1", "-a:1", "a-:1", "a_b:1",
        "300.1.1.1:1", "127.1:1", "0x7f.1:1", "h\u00f6st:1", "host:\u0661", "host/path:1", "user@host:1", "a\0b:1",
        "x" * 64 + ":1", "unix:/tmp/s:1",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(AddressError):
        Address.parse(text)


def test_an_invalid_address_cannot_be_built():
    for host, port in (("HOST", 1), ("::0001", 1), ("host", -1), ("host", 70000), ("host", True), ("", 1)):
        with pytest.raises(AddressError):
            Address(host, port)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.255.254", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_hosts_are_loopback(host):
    assert is_loopback(host)
    assert is_loopback(f"[{host}]:7443" if ":" in host else f"{host}:7443")


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0", "::",  # noqa: S104 - is not loopback
        "10.0.0.1", "128.0.0.1", "example.org", "localhost.example.org", "evil-localhost", "LOCALHOST.",
        "127.0.0.1.example.org", "127.1", "2130706433", "::ffff:10.0.0.1", "fe80::1", "", "unix:/tmp/s", "127.0.0.1%lo",
    ],
)  # fmt: skip
def test_other_hosts_are_not(host):
    assert not is_loopback(host)
    assert not is_loopback(f"[{host}]:7443")
    assert not is_loopback(f"{host}:7443")


@given(st.text(max_size=40) | st.from_regex(r"[\[\]a-f0-9.:]{1,30}:[0-9]{1,5}", fullmatch=True))
def test_arbitrary_text_gives_an_address_that_reads_back_or_the_declared_error(text):
    is_loopback(text)
    with contextlib.suppress(AddressError):
        address = Address.parse(text)
        assert Address.parse(str(address)) == address
