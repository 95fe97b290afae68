"""Addresses of the form ``host:port``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from secagg.identity.errors import AddressError

_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_NAME = 253

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_ip(host: str) -> IpAddress | None:
    """The IP address that ``host`` writes, without brackets or a zone; None for anything else."""
    try:
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError:
        return None


def is_host_name(host: str) -> bool:
    """Whether ``host`` is a DNS name in lowercase ASCII (A-labels) that cannot be mistaken for an IP address."""
    labels = host.split(".")
    every = all(_LABEL.fullmatch(label) for label in labels)
    return every and len(host) <= _MAX_NAME and not labels[-1].isdigit()


def host_is_loopback(host: str) -> bool:
    """Whether packets to ``host`` stay on this machine: 127.0.0.0/8, ::1 or ``localhost`` (RFC 6761, section 6.3)."""
    if host == "localhost":
        return True
    address = parse_ip(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and address.is_loopback


@dataclass(frozen=True, slots=True)
class Address:
    """A host (a DNS name in lowercase, or an IP address in its shortest form) and a port from 0 to 65535."""

    host: str
    port: int

    def __post_init__(self) -> None:
        """Raise AddressError."""
        address = parse_ip(self.host)
        if not (is_host_name(self.host) if address is None else str(address) == self.host):
            raise AddressError("expected host:port with a host name in lowercase, an IPv4 address or [IPv6]")
        if type(self.port) is not int or not 0 <= self.port <= 65535:
            raise AddressError("expected a port from 0 to 65535")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``name:port``, ``127.0.0.1:port`` or ``[::1]:port``. Raises AddressError."""
        host, colon, port = text.rpartition(":")
        if not colon or _PORT.fullmatch(port) is None:
            raise AddressError("expected host:port with a decimal port")
        bracketed = host.startswith("[") and host.endswith("]")
        inner = host[1:-1] if bracketed else host
        address = parse_ip(inner)
        if bracketed is not isinstance(address, ipaddress.IPv6Address):
            raise AddressError("expected brackets around an IPv6 address and nothing else")
        return cls(inner.lower() if address is None else str(address), int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether packets to this address stay on this machine."""
        return host_is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
