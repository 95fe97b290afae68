"""What the servers of institutions that open sums share: one public port, health, reflection, start and end."""

from __future__ import annotations

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from secagg.identity.config import ReflectionAudience
from secagg.services.logs import EventLog
from secagg.services.server import (
    LARGE_MESSAGE_BYTES,
    ServerSocket,
    add_port,
    allow_many_connections,
    keep_freed_memory,
    public_server,
)

_STOP_GRACE_S = 5.0


class InstitutionServer:
    """Serves one gRPC service, which who inherits adds to ``grpc``.

    Args:
        service: full name of the service.
        log: for events.
        max_concurrent_rpcs: calls at a time.
        reflect_to: who can list the services.
    """

    def __init__(self, service: str, log: EventLog, max_concurrent_rpcs: int, reflect_to: ReflectionAudience) -> None:
        keep_freed_memory()
        allow_many_connections()
        self.grpc = public_server(log, max_concurrent_rpcs, LARGE_MESSAGE_BYTES)
        self._service = service
        self._log = log
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        if reflect_to is ReflectionAudience.EVERYONE:
            names = (service, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.grpc)

    async def start(self, socket: ServerSocket) -> int:
        """Listen; returns the port.

        Raises:
            RuntimeError: the address cannot be bound.
        """
        port = add_port(self.grpc, socket)
        await self.grpc.start()
        for name in ("", self._service):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._log.event("serving", address=socket.address, port=port)
        return port

    async def stop(self) -> None:
        """Say not serving, let calls end, then what goes on beside them; what was decided is durable already."""
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(_STOP_GRACE_S)
        await self._end_work()
        self._log.event("stopped")

    async def _end_work(self) -> None:
        """End what goes on beside calls: nothing, unless who inherits has such work."""
