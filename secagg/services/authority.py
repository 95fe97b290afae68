"""The service of a key authority, and its server.

Nobody is asked who they are: what counts is signed by the coordinator, by contributors, by the registrar, by witnesses
and by attestors, and what the authority gives away it gives once. Who may connect at all is for TLS to say
(``tls.client_ca``): a stranger can make it generate keys that nobody uses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from secagg.identity.config import ReflectionAudience
from secagg.runtime.institutions import DecryptPiece
from secagg.runtime.key_authority import KeyAuthorityHost
from secagg.services.logs import EventLog
from secagg.services.refusals import REFUSALS, Context, let_finish, refusing
from secagg.services.server import ServerSocket, add_port, allow_many_connections, keep_freed_memory, public_server
from secagg.services.turnstile import Turnstile
from secagg.v1 import opening_pb2 as opb
from secagg.v1 import opening_pb2_grpc as opb_grpc
from secagg.wire import convert_authority, convert_opening, fields

AUTHORITY = opb.DESCRIPTOR.services_by_name["AuthorityService"].full_name
_STOP_GRACE_S = 5.0
_PATIENCE_S = 600.0
"""For a coordinator that sends its limb sum slowly, or stops: it must not keep the others waiting."""


@dataclass(frozen=True, slots=True)
class AuthorityLimits:
    """What one process takes on: calls at a time, and of them those whose limb sum arrives."""

    max_concurrent_rpcs: int = 256
    max_decryptions: int = 4


class AuthorityServicer(opb_grpc.AuthorityServiceServicer):
    """Implements ``secagg.v1.AuthorityService``."""

    def __init__(self, host: KeyAuthorityHost, name: str, log: EventLog, limits: AuthorityLimits) -> None:
        self._host = host
        self._name = name
        self._decryptions = Turnstile(limits.max_decryptions, _PATIENCE_S)
        self.log = log

    @refusing
    async def GetAuthority(self, request: opb.GetAuthorityRequest, context: Context) -> opb.GetAuthorityResponse:
        """See the proto."""
        size = await self._host.log_size(convert_opening.origin_from_pb(request))
        own = self._host.own
        attestors = tuple(sorted(own.policy.attestors))
        facts = convert_authority.AuthorityFacts(
            self._name, own.key.public_bytes, attestors, own.policy.attestations, size
        )
        return convert_authority.authority_facts_to_pb(facts)

    @refusing
    async def PrepareSession(self, request: opb.PrepareSessionRequest, context: Context) -> opb.PrepareSessionResponse:
        """See the proto."""
        session, coordinator = convert_authority.prepare_session_from_pb(request)
        made = await self._host.prepare(session, coordinator)
        self.log.event("session_prepared", session=session.hex())
        return convert_authority.prepared_to_pb(made)

    @refusing
    async def DecryptSum(
        self, request: AsyncIterator[opb.DecryptSumRequest], context: Context
    ) -> opb.DecryptSumResponse:
        """See the proto."""
        first = await anext(aiter(request), None)
        if first is None:
            raise fields.malformed("session", "expected a first message")
        head = convert_authority.sum_request_from_pb(first)

        async def pieces() -> AsyncIterator[DecryptPiece]:
            # Asked for only once the head is in order: strangers do not stand in this line.
            await self._decryptions.enter(context)
            yield convert_authority.first_piece_from_pb(first)
            async for message in request:
                yield convert_authority.piece_from_pb(message)

        try:
            signed = await self._host.decrypt(first.session, head, pieces())
        except REFUSALS:
            await let_finish(request)
            raise
        self.log.event("sum_decrypted", session=first.session.hex())
        return convert_authority.decrypted_to_pb(signed)


class AuthorityServer:
    """Serves one authority."""

    def __init__(
        self,
        host: KeyAuthorityHost,
        name: str,
        log: EventLog,
        limits: AuthorityLimits | None = None,
        reflect_to: ReflectionAudience = ReflectionAudience.NOBODY,
    ) -> None:
        limits = limits or AuthorityLimits()
        self._log = log
        keep_freed_memory()
        allow_many_connections()
        self._server = public_server(log, limits.max_concurrent_rpcs)
        self._health = health.aio.HealthServicer()
        opb_grpc.add_AuthorityServiceServicer_to_server(AuthorityServicer(host, name, log, limits), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if reflect_to is ReflectionAudience.EVERYONE:
            names = (AUTHORITY, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)

    async def start(self, socket: ServerSocket) -> int:
        """Listen; returns the port.

        Raises:
            RuntimeError: the address cannot be bound.
        """
        port = add_port(self._server, socket)
        await self._server.start()
        for name in ("", AUTHORITY):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._log.event("serving", address=socket.address, port=port)
        return port

    async def stop(self) -> None:
        """Say not serving and let calls end; what was decided is durable already."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(_STOP_GRACE_S)
        self._log.event("stopped")
