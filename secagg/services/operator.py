"""The service for operators, on a Unix socket in the coordinator's state directory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from secagg.derive.boxes import PAIR_BOX_BYTES, SHARE_BOX_BYTES, commitments_bytes
from secagg.derive.openers import is_prepared
from secagg.identity.cards import Card, MemberCard, read_card
from secagg.identity.roster_file import verify_signed_roster
from secagg.lora.merging import Merging
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.pairwise.session import PairwiseSession
from secagg.protocol.rows import SetupRow
from secagg.protocol.sessions import AnySession, session_of
from secagg.runtime.adapters import check_layout
from secagg.runtime.following import Following, following
from secagg.runtime.pairwise_host import PairwiseHost
from secagg.runtime.ports import BlobStore
from secagg.runtime.registry import Registry, contributors_to_bytes
from secagg.services.logs import EventLog
from secagg.services.refusals import Context, refusing
from secagg.transcript.entries import MAX_COHORT, OneShotOpen, SessionOpen
from secagg.transcript.openers import Committee, KeyAuthority
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from secagg.wire import convert

_SIGNED_BYTES = 4096
"""More than the session and the signed statement of a request take."""


class OperatorServicer(pb_grpc.OperatorServiceServicer):
    """Implements ``secagg.v1.OperatorService``; uploads and requests of clients may be as long as given."""

    def __init__(self, registry: Registry, log: EventLog, max_upload_bytes: int, max_request_bytes: int) -> None:
        self._registry = registry
        self._max_upload_bytes = max_upload_bytes
        self._max_request_bytes = max_request_bytes
        self.log = log

    @refusing
    async def OpenSession(self, request: pb.OpenSessionRequest, context: Context) -> pb.OpenSessionResponse:
        """See the proto."""
        parameters = SessionOpen.from_bytes(request.parameters)
        ports = self._registry.ports
        if parameters.coordinator != ports.key.public_bytes:
            raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "parameters: coordinator is another key")
        roster = verify_signed_roster(
            tuple(request.roster),
            request.roster_head,
            request.roster_signature,
            frozenset({parameters.registrar}),
        )
        follows = await following(self._registry, parameters)
        session = session_of(parameters, roster, None if follows is None else follows.contributors)
        if session.upload_bytes > self._max_upload_bytes:
            raise RemoteProtocolError(
                RejectReason.WRONG_LENGTH, f"uploads of {session.upload_bytes} bytes, limit {self._max_upload_bytes}"
            )
        if session.most_contributors < parameters.min_contributors:
            may = session.most_contributors
            raise RemoteProtocolError(
                RejectReason.MALFORMED_MESSAGE,
                f"min_contributors: {parameters.min_contributors}, of whom {may} may come",
            )
        check_boxes(session, self._max_request_bytes)
        merging = check_layout(parameters, request.layout, request.adapter)
        check_institutions(parameters, request.cards, request.context)
        await asyncio.to_thread(_check_fixed, merging, ports.blobs, request.fixed, follows)
        setup = await asyncio.to_thread(_stored, ports.blobs, request, follows)
        await self._registry.open(session, setup)
        self.log.event("session_opened", session=parameters.session.hex())
        return pb.OpenSessionResponse(session=parameters.session)

    @refusing
    async def EndPhase(self, request: pb.EndPhaseRequest, context: Context) -> pb.EndPhaseResponse:
        """See the proto."""
        host = await self._registry.find(convert.session_from_pb(request))
        await host.end_phase(convert.phase_from_pb(request.phase))
        self.log.event("phase_ended", session=request.session.hex())
        return pb.EndPhaseResponse()


def check_boxes(session: AnySession, most_bytes: int) -> None:
    """The boxes of one client of the largest cohort fit a request: gRPC would refuse them without a word of why.

    Raises:
        RemoteProtocolError: WRONG_LENGTH; or UNSAFE_PARAMETERS, no safe degree exists.
    """
    if not isinstance(session, PairwiseSession):
        return
    degree = PairwiseHost.largest_degree(session)
    # The lowest index sends a pair box to each of its neighbours.
    boxes = pb.ShareKeysRequest.Boxes(
        recipient=MAX_COHORT,
        share_box=bytes(SHARE_BOX_BYTES),
        pair_box=bytes(PAIR_BOX_BYTES),
        commitments=bytes(commitments_bytes(0, 1)),
    )
    needed = _SIGNED_BYTES + degree * pb.ShareKeysRequest(boxes=[boxes]).ByteSize()
    if needed > most_bytes:
        raise RemoteProtocolError(
            RejectReason.WRONG_LENGTH,
            f"boxes for {degree} neighbours take {needed} bytes, limit {most_bytes}: lower expected_dropout or "
            "max_corrupt",
        )


def check_institutions(parameters: SessionOpen, cards: Sequence[bytes], context: bytes) -> None:
    """Whom the cards describe is whom the parameters name, in their order; the context is the one they name.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE.
        RecordError: a card cannot be read.
    """
    opening = parameters.opening if isinstance(parameters, OneShotOpen) else None
    expected: list[object] = []
    digest = b""
    match opening:
        case Committee():
            expected = list(opening.members)
        case KeyAuthority():
            expected = [(opening.name, opening.identity, opening.attestors, opening.attestations)]
            digest = opening.context
    if isinstance(parameters, OneShotOpen) and isinstance(opening, KeyAuthority):
        _check_prepared(parameters, opening)
    if [_described(read_card(card)) for card in cards] != expected:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "cards: not of those whom the parameters name")
    if (hashlib.sha256(context).digest() if context else b"") != digest:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "context: not the one that the parameters name")


def _check_prepared(parameters: OneShotOpen, authority: KeyAuthority) -> None:
    """Contributors would refuse the session: nobody opens one for nothing."""
    if not is_prepared(parameters, authority):
        raise RemoteProtocolError(
            RejectReason.MALFORMED_MESSAGE, "parameters: opening.prepared is not the authority's signature"
        )


def _described(card: Card) -> object:
    """What parameters say of an institution, as its card says it."""
    if isinstance(card, MemberCard):
        return card.member()
    return card.name, card.identity, card.attestors, card.attestations


def _check_fixed(merging: Merging, blobs: BlobStore, sent: bytes, follows: Following | None) -> None:
    """The tensors that are the same for everybody are those of the first session, or those that the operator sent.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE; sent although the coordinator has them.
        AdapterError: not those that the parameters name, or of other shapes than the session needs.
    """
    if follows is not None and sent:
        raise RemoteProtocolError(RejectReason.MALFORMED_MESSAGE, "fixed: the first session published them")
    merging.with_fixed(sent if follows is None else blobs.get(follows.fixed))


def _stored(blobs: BlobStore, request: pb.OpenSessionRequest, follows: Following | None) -> SetupRow:
    """What the session is opened with, once it is stored."""
    fixed = blobs.put(request.fixed) if request.fixed else b""
    only: frozenset[bytes] = frozenset()
    if follows is not None:
        fixed, only = follows.fixed, follows.contributors or only
    return SetupRow(
        roster=blobs.put(b"".join(leaf + b"\n" for leaf in request.roster)),
        roster_head=request.roster_head,
        roster_signature=request.roster_signature,
        layout=blobs.put(request.layout),
        adapter=blobs.put(request.adapter),
        cards=tuple(blobs.put(card) for card in request.cards),
        context=blobs.put(request.context) if request.context else b"",
        fixed=fixed,
        contributors=blobs.put(contributors_to_bytes(only)) if only else b"",
    )
