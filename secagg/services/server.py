"""A coordinator's server: sockets, credentials, health, reflection, orderly start and end."""

from __future__ import annotations

import ctypes
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from secagg.crypto.labels import Label
from secagg.identity.config import ReflectionAudience
from secagg.runtime.registry import Registry
from secagg.services.aggregation import AggregationServicer
from secagg.services.ingest import INGEST_SOCKET, IngestServicer
from secagg.services.ingest_processes import IngestProcesses
from secagg.services.logs import EventLog
from secagg.services.operator import OperatorServicer
from secagg.services.unreadable import UnreadableRequests
from secagg.services.uploads import UploadDesk
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.v1 import ingest_pb2_grpc

AGGREGATION = pb.DESCRIPTOR.services_by_name["AggregationService"].full_name
OPERATOR = pb.DESCRIPTOR.services_by_name["OperatorService"].full_name
OPERATOR_SOCKET = "operator.sock"

LARGE_MESSAGE_BYTES = 16 << 20
"""Of answers, and of requests between institutions: lists of 10,000 leaves are below 8 MiB."""

OPERATOR_REQUEST_BYTES = 512 << 20
"""Of requests of the operator: a session is opened with its fixed tensors, 84 MB for a model of 8 billion weights."""

SMALL_REQUEST_BYTES = 4 << 20
"""Of requests of clients: boxes for 1680 neighbours. Cohorts of some thousands need fewer, unless very many of them
drop out or are corrupt; no session that needs more is opened. gRPC reads a request whole before anybody can refuse
it: 60 strangers at once with 15 MiB each cost 1.7 GiB."""

_READ_AHEAD_BYTES = 128 << 10
"""Of a stream nobody reads yet: 10 Mbit/s at a round trip of 100 ms. gRPC's own estimate grew until whole uploads
were read ahead: 1000 of 400 kB took 300 MiB."""

_OPEN_FILES = 1 << 16
_STOP_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one process takes on."""

    max_concurrent_rpcs: int = 4096
    max_watchers: int = 2000
    max_upload_bytes: int = 4 << 30


@dataclass(frozen=True, slots=True)
class ServerSocket:
    """Where clients connect; ``credentials`` are None on a loopback address only."""

    address: str
    credentials: grpc.ServerCredentials | None


class CoordinatorServer:
    """Serves one registry to clients, to its operator, and to its ingest processes if there are any."""

    def __init__(
        self,
        registry: Registry,
        state_directory: Path,
        log: EventLog,
        limits: ServerLimits | None = None,
        reflect_to: ReflectionAudience = ReflectionAudience.OPERATOR,
        ingest: IngestProcesses | None = None,
    ) -> None:
        limits = limits or ServerLimits()
        self._registry = registry
        self._log = log
        self._state_directory = state_directory
        keep_freed_memory()
        allow_many_connections()
        self._server = public_server(log, limits.max_concurrent_rpcs, SMALL_REQUEST_BYTES)
        self._at_sockets: dict[str, grpc.aio.Server] = {}
        upload_key = registry.ports.key.derive_seed(Label.UPLOAD_KEY)
        self._uploads = UploadDesk(registry.ports.blobs, upload_key, ingest)
        self._aggregation = AggregationServicer(registry, self._uploads, log, limits.max_watchers)
        self._health = health.aio.HealthServicer()
        pb_grpc.add_AggregationServiceServicer_to_server(self._aggregation, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        operator = self._at_socket(OPERATOR_SOCKET, OPERATOR_REQUEST_BYTES)
        pb_grpc.add_OperatorServiceServicer_to_server(
            OperatorServicer(registry, log, limits.max_upload_bytes, SMALL_REQUEST_BYTES), operator
        )
        # The operator looks at its own sessions without a certificate.
        pb_grpc.add_AggregationServiceServicer_to_server(self._aggregation, operator)
        _reflect(reflect_to, self._server, operator)
        if ingest is not None:
            servicer = IngestServicer(registry, self._uploads, ingest, log)
            ingest_pb2_grpc.add_IngestServiceServicer_to_server(
                servicer, self._at_socket(INGEST_SOCKET, LARGE_MESSAGE_BYTES)
            )

    async def start(self, socket: ServerSocket) -> int:
        """Resume the sessions, then listen; returns the port.

        Raises:
            RuntimeError: the address cannot be bound.
        """
        await self._registry.start()
        await self._uploads.sweep(self._registry.hosts())
        port = add_port(self._server, socket)
        for name, server in self._at_sockets.items():
            path = self._state_directory / name
            path.unlink(missing_ok=True)
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            path.chmod(0o600)
        await self._server.start()
        for name in ("", AGGREGATION):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._log.event("serving", address=socket.address, port=port)
        return port

    async def stop(self) -> None:
        """Say not serving, let calls end, stop the sessions' work; everything accepted is durable already."""
        await self._health.enter_graceful_shutdown()
        self._aggregation.end_watches()
        await self._server.stop(_STOP_GRACE_S)
        for server in self._at_sockets.values():
            await server.stop(_STOP_GRACE_S)
        await self._uploads.close()
        await self._registry.close()
        for name in self._at_sockets:
            (self._state_directory / name).unlink(missing_ok=True)
        self._log.event("stopped")

    def _at_socket(self, name: str, most_bytes: int) -> grpc.aio.Server:
        """A server on a Unix socket of this name in the state directory; requests may be so long."""
        options = [("grpc.max_receive_message_length", most_bytes)]
        server = self._at_sockets[name] = grpc.aio.server(interceptors=[UnreadableRequests(self._log)], options=options)
        return server


def _reflect(audience: ReflectionAudience, clients: grpc.aio.Server, operator: grpc.aio.Server) -> None:
    """Let those who may ask see what is served: descriptors only, no data."""
    match audience:
        case ReflectionAudience.NOBODY:
            return
        case ReflectionAudience.OPERATOR:
            names = (AGGREGATION, OPERATOR, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, operator)
        case ReflectionAudience.EVERYONE:
            names = (AGGREGATION, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, clients)


def public_server(
    log: EventLog, max_concurrent_rpcs: int, max_request_bytes: int, *more: tuple[str, int]
) -> grpc.aio.Server:
    """A server for others than the operator, with ``more`` options of gRPC's; it refuses what does not decode."""
    options = [
        *more,
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", LARGE_MESSAGE_BYTES),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 60_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _READ_AHEAD_BYTES),
    ]
    return grpc.aio.server(
        interceptors=[UnreadableRequests(log)], options=options, maximum_concurrent_rpcs=max_concurrent_rpcs
    )


def add_port(server: grpc.aio.Server, socket: ServerSocket) -> int:
    """Bind; returns the port. Raises RuntimeError: the address cannot be bound."""
    if socket.credentials is None:
        return server.add_insecure_port(socket.address)
    return server.add_secure_port(socket.address, socket.credentials)


def server_credentials(chain: bytes, private_key: bytes, client_ca: bytes | None) -> grpc.ServerCredentials:
    """TLS for the server; with ``client_ca`` clients must show a certificate that it signed."""
    return grpc.ssl_server_credentials(
        [(private_key, chain)], root_certificates=client_ca, require_client_auth=client_ca is not None
    )


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 32 MiB instead of returning them to the kernel.

    Fresh pages cost more than everything else that is done to an upload's bytes: with 1 MiB messages ingest is
    almost twice as fast.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 512 << 20)
        mallopt(top_pad, 16 << 20)


def allow_many_connections() -> None:
    """Raise the soft limit of open files, usually 1024: each client is a connection, and 1000 do not fit below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
