"""The service of a committee member, and its server.

Nobody is asked who they are: what counts is signed by the coordinator, by contributors, by the registrar and by
witnesses, and what the member gives away it gives once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

from secagg.identity.config import ReflectionAudience
from secagg.identity.roster_file import verify_signed_roster
from secagg.protocol.errors import RejectReason
from secagg.runtime.committee_member import CommitteeMemberHost, shown_parameters
from secagg.runtime.member_session import MemberSession
from secagg.services.institution_server import InstitutionServer
from secagg.services.logs import EventLog
from secagg.services.refusals import REFUSALS, Context, let_finish, refusing
from secagg.services.server import ServerSocket
from secagg.services.turnstile import Places
from secagg.transcript.merkle import leaf_hash
from secagg.v1 import opening_pb2 as opb
from secagg.v1 import opening_pb2_grpc as opb_grpc
from secagg.wire import convert, convert_opening, fields

COMMITTEE = opb.DESCRIPTOR.services_by_name["CommitteeService"].full_name


@dataclass(frozen=True, slots=True)
class CommitteeLimits:
    """What one process takes on.

    Attributes:
        max_concurrent_rpcs: calls at a time.
        max_openings: closed sets that come in at a time, of sessions to answer; as many again of answered ones.
        max_openings_of_session: how many of them may be of one session.
        wait_s: how long a stream whose evidence holds waits to be one of them.
        message_s: how long a stream may be silent.
        stream_s: how long a closed set may take in all.
    """

    max_concurrent_rpcs: int = 1024
    max_openings: int = 16
    max_openings_of_session: int = 2
    wait_s: float = 30.0
    message_s: float = 10.0
    stream_s: float = 600.0


class CommitteeServicer(opb_grpc.CommitteeServiceServicer):
    """Implements ``secagg.v1.CommitteeService``."""

    def __init__(self, host: CommitteeMemberHost, name: str, log: EventLog, limits: CommitteeLimits) -> None:
        self._host = host
        self._name = name
        self._limits = limits
        bounds = limits.max_openings, limits.max_openings_of_session, limits.wait_s
        # Evidence is public: what is over, of which there is more and more, must not stand in the way of what is not.
        self.openings, self.repetitions = Places(*bounds), Places(*bounds)
        self.log = log

    @refusing
    async def GetMember(self, request: opb.GetMemberRequest, context: Context) -> opb.GetMemberResponse:
        """See the proto."""
        size = await self._host.log_size(convert_opening.origin_from_pb(request))
        ports = self._host.ports
        return convert_opening.member_facts_to_pb(
            convert_opening.MemberFacts(self._name, ports.key.public_bytes, ports.sealing_key.public_bytes, size)
        )

    @refusing
    async def JoinSession(self, request: opb.JoinSessionRequest, context: Context) -> opb.JoinSessionResponse:
        """See the proto."""
        files = convert_opening.join_session_from_pb(request)
        registrar = frozenset({shown_parameters(request.session, files).registrar})
        roster = await asyncio.to_thread(
            verify_signed_roster, files.roster, files.roster_head, files.roster_signature, registrar
        )
        await self._host.join(request.session, files, roster)
        self.log.event("session_joined", session=request.session.hex())
        return opb.JoinSessionResponse()

    @refusing
    async def HoldShares(self, request: opb.HoldSharesRequest, context: Context) -> opb.HoldSharesResponse:
        """See the proto."""
        session = await self._host.find(convert.session_from_pb(request))
        items = await asyncio.to_thread(convert_opening.hold_shares_from_pb, request)
        held = iter(await session.hold([item for item in items if item is not None]))
        malformed = RejectReason.MALFORMED_MESSAGE.name
        return convert_opening.verdicts_to_pb([malformed if item is None else next(held) for item in items])

    @refusing
    async def OpenSum(self, request: AsyncIterator[opb.OpenSumRequest], context: Context) -> opb.OpenSumResponse:
        """See the proto."""
        try:
            return await self._open(request)
        except REFUSALS:
            await let_finish(request)
            raise

    async def _open(self, request: AsyncIterator[opb.OpenSumRequest]) -> opb.OpenSumResponse:
        async with asyncio.timeout(self._limits.message_s):
            first = await anext(request, None)
        if first is None:
            raise fields.malformed("session", "expected a first message")
        session = await self._host.find(convert.session_from_pb(first))
        asked = convert_opening.open_sum_first_from_pb(first)
        leaves = self._leaves(session, asked.contributions, request)
        answer = await session.open_streamed(asked.evidence, leaves)
        self.log.event("sum_opened", session=first.session.hex())
        return convert_opening.answer_to_pb(answer)

    async def _leaves(
        self, session: MemberSession, headers: Sequence[bytes], more: AsyncIterator[opb.OpenSumRequest]
    ) -> AsyncGenerator[bytes, None]:
        """The leaf hashes of the headers; these are hashed and let go, since a closed set can be larger than memory.

        Bounded in every way: whoever reaches the port and has seen the log can begin a stream and never end it.
        """
        places = self.repetitions if session.is_over else self.openings
        async with places.one(session.context.session.parameters.session):
            now_s = asyncio.get_running_loop().time
            end_s, count = now_s() + self._limits.stream_s, 0
            while True:
                yield b"".join(map(leaf_hash, headers))
                count += len(headers)
                async with asyncio.timeout_at(min(end_s, now_s() + self._limits.message_s)):
                    message = await anext(more, None)
                if message is None:
                    return
                headers = convert_opening.open_sum_more_from_pb(message, count)


class CommitteeServer(InstitutionServer):
    """Serves one member."""

    def __init__(
        self,
        host: CommitteeMemberHost,
        name: str,
        log: EventLog,
        limits: CommitteeLimits | None = None,
        reflect_to: ReflectionAudience = ReflectionAudience.NOBODY,
    ) -> None:
        limits = limits or CommitteeLimits()
        super().__init__(COMMITTEE, log, limits.max_concurrent_rpcs, reflect_to)
        self._host = host
        self.servicer = CommitteeServicer(host, name, log, limits)
        opb_grpc.add_CommitteeServiceServicer_to_server(self.servicer, self.grpc)

    async def start(self, socket: ServerSocket) -> int:
        """Resume the sessions, then listen; returns the port.

        Raises:
            RuntimeError: the address cannot be bound.
            StoreError: the store does not answer.
        """
        await self._host.start()
        return await super().start(socket)

    async def _end_work(self) -> None:
        await self._host.close()
