"""The service of a key authority, and its server.

Nobody is asked who they are: what counts is signed by the coordinator, by contributors, by the registrar, by witnesses
and by attestors, and what the authority gives away it gives once. Who may connect at all is for TLS to say
(``tls.client_ca``): a stranger can make it generate keys that nobody uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from secagg.identity.config import ReflectionAudience
from secagg.runtime.institutions import DecryptPiece
from secagg.runtime.key_authority import KeyAuthorityHost
from secagg.services.institution_server import InstitutionServer
from secagg.services.logs import EventLog
from secagg.services.refusals import REFUSALS, Context, let_finish, refusing
from secagg.services.turnstile import Turnstile
from secagg.v1 import opening_pb2 as opb
from secagg.v1 import opening_pb2_grpc as opb_grpc
from secagg.wire import convert_authority, convert_opening, fields

AUTHORITY = opb.DESCRIPTOR.services_by_name["AuthorityService"].full_name
_PATIENCE_S = 600.0
"""For a coordinator that sends its limb sum slowly, or stops: it must not keep the others waiting."""


@dataclass(frozen=True, slots=True)
class AuthorityLimits:
    """What one process takes on: calls at a time, and of them those whose limb sum arrives.

    ``message_s`` is how long it waits for the first message of a call, ``stream_s`` for all of it.
    """

    max_concurrent_rpcs: int = 256
    max_decryptions: int = 4
    message_s: float = 10.0
    stream_s: float = 600.0


class AuthorityServicer(opb_grpc.AuthorityServiceServicer):
    """Implements ``secagg.v1.AuthorityService``."""

    def __init__(self, host: KeyAuthorityHost, name: str, log: EventLog, limits: AuthorityLimits) -> None:
        self._host = host
        self._name = name
        self._limits = limits
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
        async with asyncio.timeout(self._limits.message_s):
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
            async with asyncio.timeout(self._limits.stream_s):
                signed = await self._host.decrypt(first.session, head, pieces())
        except REFUSALS:
            await let_finish(request)
            raise
        self.log.event("sum_decrypted", session=first.session.hex())
        return convert_authority.decrypted_to_pb(signed)


class AuthorityServer(InstitutionServer):
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
        super().__init__(AUTHORITY, log, limits.max_concurrent_rpcs, reflect_to)
        opb_grpc.add_AuthorityServiceServicer_to_server(AuthorityServicer(host, name, log, limits), self.grpc)
