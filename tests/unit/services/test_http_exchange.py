"""Which addresses are asked, and what is sent."""

from __future__ import annotations

import pytest

from secagg.services.http_exchange import HttpError, HttpPrefix


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://witness.example", "witness.example", 80, ""),
        ("https://witness.example/", "witness.example", 443, ""),
        ("http://127.0.0.1:8080/a/b/", "127.0.0.1", 8080, "/a/b"),
        ("http://[::1]:8080/w%201", "::1", 8080, "/w%201"),
    ],
)
def test_an_address_is_read_into_where_to_connect_and_what_to_ask_for(url, host, port, path):
    prefix = HttpPrefix.parse(url)
    assert (prefix.host, prefix.port, prefix.path) == (host, port, path)
    assert (prefix.tls is not None) is url.startswith("https")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "witness.example",
        "ftp://witness.example",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://user@witness.example",
        "http://user:word@witness.example",
        "http://witness.example?query",
        "http://witness.example/#part",
        "http://witness.example:port",
        "http://witness.example:65536",
        "http://witness.example/a b",
        "http://witness.example//twice",
        "http://witness.example/a\r\nX: y",
        "http://witness.example/\u00e9",
        "http://[::1",
    ],
)
def test_what_is_no_plain_address_is_refused(url):
    with pytest.raises(HttpError):
        HttpPrefix.parse(url)
