"""Institutions over gRPC: the transport of a coordinator to the committee members that it was given cards of.

Every call has a timeout of its own. What an institution refuses comes out as RemoteProtocolError, what may succeed
later as TransportError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from secagg.identity.cards import AuthorityCard, MemberCard, read_card
from secagg.identity.channels import channel_to
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.messages import HeldBox, OpenRequest, ShownSessionFiles
from secagg.runtime.institutions import DecryptRequest, PreparedContext
from secagg.runtime.participant import TransportError
from secagg.transcript.record import RecordError
from secagg.transcript.statements import Signed
from secagg.v1 import opening_pb2 as opb
from secagg.v1 import opening_pb2_grpc as opb_grpc
from secagg.wire import convert_authority, convert_opening
from secagg.wire.status import from_rpc_error

OPEN_TIMEOUT_S = 3600.0
"""For an answer: a member sums the shares of the whole set first, 0.1 ms each."""

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class GrpcMember:
    """``MemberPort`` for the member that a card describes; connects when it is used, and again whenever it must."""

    def __init__(self, card: MemberCard, timeout_s: float, open_timeout_s: float = OPEN_TIMEOUT_S) -> None:
        self.card = card
        self._timeout_s = timeout_s
        self._open_timeout_s = open_timeout_s
        self._channel = channel_to(card.address, card.tls())
        self._stub = opb_grpc.CommitteeServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def log_size(self, origin: str) -> int:
        """See ``MemberPort.log_size``. Raises RemoteProtocolError(BAD_KEY): another member answers there."""
        response = await _call(self._stub.GetMember, opb.GetMemberRequest(origin=origin), self._timeout_s)
        facts = convert_opening.member_facts_from_pb(response)
        if (facts.identity, facts.sealing_key) != (self.card.identity, self.card.sealing_key):
            raise RemoteProtocolError(RejectReason.BAD_KEY, f"{self.card.address} has other keys than the card")
        return facts.log_size

    async def join(self, session: bytes, files: ShownSessionFiles) -> None:
        """See ``MemberPort.join``."""
        await _call(self._stub.JoinSession, convert_opening.join_session_to_pb(session, files), self._timeout_s)

    async def hold(self, session: bytes, items: Sequence[HeldBox]) -> tuple[str, ...]:
        """See ``MemberPort.hold``; so many items are sent at a time as fit into a megabyte."""
        verdicts: list[str] = []
        for batch in _batches(items):
            request = convert_opening.hold_shares_to_pb(session, batch)
            response = await _call(self._stub.HoldShares, request, self._timeout_s)
            verdicts += convert_opening.verdicts_from_pb(response, len(batch))
        return tuple(verdicts)

    async def open(self, session: bytes, request: OpenRequest) -> Signed:
        """See ``MemberPort.open``; the signature is not checked here."""
        messages = convert_opening.open_sum_to_pb(session, request)
        try:
            response = await self._stub.OpenSum(messages, timeout=self._open_timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _meaning(error) from None
        return convert_opening.answer_from_pb(response)


class GrpcAuthority:
    """``AuthorityPort`` for the authority that a card describes; connects when it is used, and again when it must."""

    def __init__(self, card: AuthorityCard, timeout_s: float, decrypt_timeout_s: float = OPEN_TIMEOUT_S) -> None:
        self.card = card
        self._timeout_s = timeout_s
        self._decrypt_timeout_s = decrypt_timeout_s
        self._channel = channel_to(card.address, card.tls())
        self._stub = opb_grpc.AuthorityServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def log_size(self, origin: str) -> int:
        """See ``AuthorityPort.log_size``. Raises RemoteProtocolError(BAD_KEY): another authority answers there."""
        request = opb.GetAuthorityRequest(origin=origin)
        response = await _call(self._stub.GetAuthority, request, self._timeout_s)
        facts = convert_authority.authority_facts_from_pb(response)
        if facts.identity != self.card.identity:
            raise RemoteProtocolError(RejectReason.BAD_KEY, f"{self.card.address} has another key than the card")
        return facts.log_size

    async def prepare(self, session: bytes, coordinator: bytes) -> PreparedContext:
        """See ``AuthorityPort.prepare``."""
        request = convert_authority.prepare_session_to_pb(session, coordinator)
        response = await _call(self._stub.PrepareSession, request, self._timeout_s)
        made = convert_authority.prepared_from_pb(response)
        made.checked(session, coordinator, self.card.identity)
        return made

    async def decrypt(self, session: bytes, request: DecryptRequest) -> Signed:
        """See ``AuthorityPort.decrypt``. What the limb sum's iterator raises comes out as it is."""
        failed: list[Exception] = []
        messages = convert_authority.decrypt_sum_to_pb(session, request)

        async def sending() -> AsyncIterator[opb.DecryptSumRequest]:
            while True:
                try:
                    message = await asyncio.to_thread(next, messages, None)
                except Exception as error:
                    failed.append(error)
                    raise
                if message is None:
                    return
                yield message

        try:
            response = await self._stub.DecryptSum(sending(), timeout=self._decrypt_timeout_s)
        except grpc.aio.AioRpcError as error:
            raise (failed[0] if failed else _meaning(error)) from None
        except asyncio.CancelledError:
            # gRPC cancels a call whose requests fail: that is no cancellation of ours.
            if failed:
                raise failed[0] from None
            raise
        return convert_authority.decrypted_from_pb(response)


async def prepare(
    card: AuthorityCard, session_id: bytes, coordinator_key: bytes, timeout_s: float = 30.0
) -> PreparedContext:
    """The key that an authority makes for a session which is about to be opened, checked.

    Raises:
        TransportError: it does not answer.
        RemoteProtocolError: it does not serve this coordinator, or does not answer as it must.
    """
    authority = GrpcAuthority(card, timeout_s)
    try:
        return await authority.prepare(session_id, coordinator_key)
    finally:
        await authority.close()


class Institutions:
    """``InstitutionDirectory`` over gRPC, one connection for each card. Close it with ``async with`` or ``close``."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self._timeout_s = timeout_s
        self._members: dict[MemberCard, GrpcMember] = {}
        self._authorities: dict[AuthorityCard, GrpcAuthority] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        ports: list[GrpcMember | GrpcAuthority] = [*self._members.values(), *self._authorities.values()]
        self._members.clear()
        self._authorities.clear()
        await asyncio.gather(*(port.close() for port in ports))

    def members(self, cards: Sequence[bytes]) -> list[GrpcMember]:
        """See ``InstitutionDirectory.members``."""
        return [self.member(_member_card(f"cards[{at}]", data)) for at, data in enumerate(cards)]

    def member(self, card: MemberCard) -> GrpcMember:
        """The member of a card."""
        if card not in self._members:
            self._members[card] = GrpcMember(card, self._timeout_s)
        return self._members[card]

    def authority(self, card: bytes) -> GrpcAuthority:
        """See ``InstitutionDirectory.authority``."""
        try:
            found = read_card(card)
        except RecordError as error:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, str(error)) from None
        if not isinstance(found, AuthorityCard):
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "card.type: expected an authority-card")
        if found not in self._authorities:
            self._authorities[found] = GrpcAuthority(found, self._timeout_s)
        return self._authorities[found]


def _member_card(field: str, data: bytes) -> MemberCard:
    card = read_card(data, field)
    if not isinstance(card, MemberCard):
        raise RecordError(f"{field}.type", "expected a member-card")
    return card


def _batches(items: Sequence[HeldBox]) -> Iterator[list[HeldBox]]:
    batch: list[HeldBox] = []
    length = 0
    for item in items:
        size = len(item.signed.to_bytes()) + len(item.box) + 16
        full = length + size > convert_opening.PIECE_BYTES or len(batch) == convert_opening.MAX_BATCH_ITEMS
        if batch and full:
            yield batch
            batch, length = [], 0
        batch.append(item)
        length += size
    if batch:
        yield batch


async def _call(
    method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], request: RequestT, timeout_s: float
) -> ResponseT:
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise _meaning(error) from None


def _meaning(error: grpc.aio.AioRpcError) -> Exception:
    found = from_rpc_error(error)
    return TransportError(error.code().name) if found is None else found
