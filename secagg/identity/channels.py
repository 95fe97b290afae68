"""gRPC channels to servers that are known by their certificate."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from secagg.identity.tls import CertificateAuthority, ClientTls, LoopbackPlaintext, PinnedCertificate
from secagg.runtime.participant import TransportError

MAX_MESSAGE_BYTES = 16 << 20


def channel_to(address: str, tls: ClientTls) -> grpc.aio.Channel:
    """A channel to ``host:port`` that connects when it is used, and again whenever the connection was lost."""
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 210_000),
    ]
    match tls:
        case LoopbackPlaintext():
            return grpc.aio.insecure_channel(address, options)
        case PinnedCertificate(pem, name):
            options.append(("grpc.ssl_target_name_override", name))
            return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(pem), options)
        case CertificateAuthority(pem):
            return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(pem), options)


async def open_channel(address: str, tls: ClientTls, timeout_s: float) -> grpc.aio.Channel:
    """A channel to ``address`` that is connected.

    Raises:
        TransportError: it does not come up in time.
    """
    channel = channel_to(address, tls)
    try:
        await asyncio.wait_for(channel.channel_ready(), timeout_s)
    except TimeoutError:
        await channel.close()
        raise TransportError(f"no answer from {address} within {timeout_s:.0f} s") from None
    return channel
