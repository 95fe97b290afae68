"""Protobuf messages between coordinators and institutions to the types of the protocol and back.

As in ``convert``: decoding trusts nothing and names the field at fault, encoding checks nothing. Headers of a closed
set are bounded here in length; what they say only the machines judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from secagg.protocol.errors import RejectReason
from secagg.protocol.one_shot.messages import HeldBox, OpenRequest, ShownSessionFiles
from secagg.transcript.entries import MAX_ORIGIN_BYTES
from secagg.transcript.openers import SEALING_KEY_BYTES
from secagg.transcript.statements import Signed
from secagg.v1 import opening_pb2 as opb
from secagg.wire import convert, fields

MAX_HEADER_BYTES = 4096
"""A signed header that names sixteen boxes has 1,648 bytes."""
MAX_BATCH_ITEMS = 1024
MAX_BOX_BYTES = 1 << 20
PIECE_BYTES = 1 << 20
"""Batches and pieces are cut so that a message stays below this, and far below what a server takes."""


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """What a member says of itself, and of a log."""

    name: str
    identity: bytes
    sealing_key: bytes
    log_size: int


class _HasOrigin(Protocol):
    @property
    def origin(self) -> str: ...


def origin_from_pb(request: _HasOrigin) -> str:
    """The log that an institution is asked about. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    if not 0 < len(request.origin.encode("utf-8")) <= MAX_ORIGIN_BYTES:
        raise fields.malformed("origin", f"expected 1 to {MAX_ORIGIN_BYTES} bytes")
    return request.origin


def member_facts_to_pb(facts: MemberFacts) -> opb.GetMemberResponse:
    """A member, encoded."""
    return opb.GetMemberResponse(
        name=facts.name, identity=facts.identity, sealing_key=facts.sealing_key, log_size=facts.log_size
    )


def member_facts_from_pb(response: opb.GetMemberResponse) -> MemberFacts:
    """A member, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return MemberFacts(
        response.name,
        fields.exactly("identity", response.identity, convert.IDENTITY_BYTES),
        fields.exactly("sealing_key", response.sealing_key, SEALING_KEY_BYTES),
        response.log_size,
    )


def session_files_to_pb(files: ShownSessionFiles) -> opb.SessionFiles:
    """A session as its coordinator shows it, encoded."""
    return opb.SessionFiles(
        evidence=convert.log_evidence_to_pb(files.evidence),
        consistency=files.consistency,
        roster=files.roster,
        roster_head=files.roster_head,
        roster_signature=files.roster_signature,
    )


def session_files_from_pb(message: opb.SessionFiles, prefix: str = "files.") -> ShownSessionFiles:
    """A session as its coordinator shows it, decoded; ``prefix`` stands before the field in a refusal.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE.
    """
    return ShownSessionFiles(
        fields.log_evidence(message.evidence, f"{prefix}evidence."),
        fields.hashes(f"{prefix}consistency", message.consistency, fields.MAX_PROOF),
        tuple(message.roster),
        message.roster_head,
        fields.exactly(f"{prefix}roster_signature", message.roster_signature, convert.SIGNATURE_BYTES),
    )


def join_session_to_pb(session: bytes, files: ShownSessionFiles) -> opb.JoinSessionRequest:
    """A session for a member, encoded."""
    return opb.JoinSessionRequest(session=session, files=session_files_to_pb(files))


def join_session_from_pb(request: opb.JoinSessionRequest) -> ShownSessionFiles:
    """A session for a member, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    convert.session_from_pb(request)
    return session_files_from_pb(request.files)


def hold_shares_to_pb(session: bytes, items: Sequence[HeldBox]) -> opb.HoldSharesRequest:
    """Some contributions, encoded."""
    held = [opb.HoldSharesRequest.Item(signed=item.signed.to_bytes(), box=item.box) for item in items]
    return opb.HoldSharesRequest(session=session, items=held)


def hold_shares_from_pb(request: opb.HoldSharesRequest) -> tuple[HeldBox | None, ...]:
    """Some contributions, decoded; None in place of one whose header does not decode: the others are not its concern.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE.
    """
    convert.session_from_pb(request)
    fields.at_most("items", request.items, MAX_BATCH_ITEMS)
    return tuple(_item(item) for item in request.items)


def _item(item: opb.HoldSharesRequest.Item) -> HeldBox | None:
    if len(item.signed) > MAX_HEADER_BYTES or len(item.box) > MAX_BOX_BYTES:
        return None
    try:
        return HeldBox(Signed.from_bytes(item.signed), item.box)
    except ValueError:
        return None


def verdicts_to_pb(complaints: Sequence[str]) -> opb.HoldSharesResponse:
    """What became of each box, encoded."""
    return opb.HoldSharesResponse(
        verdicts=[opb.HoldSharesResponse.Verdict(complaint=complaint) for complaint in complaints]
    )


def verdicts_from_pb(response: opb.HoldSharesResponse, items: int) -> tuple[str, ...]:
    """What became of each of ``items`` boxes, decoded: "" or the name of a reason.

    Raises:
        RemoteProtocolError: MALFORMED_MESSAGE.
    """
    if len(response.verdicts) != items:
        raise fields.malformed("verdicts", f"expected {items}, found {len(response.verdicts)}")
    return tuple(_complaint(f"verdicts[{at}].complaint", each.complaint) for at, each in enumerate(response.verdicts))


def _complaint(field: str, text: str) -> str:
    if text and text not in RejectReason.__members__:
        raise fields.malformed(field, "unknown reason")
    return text


def open_sum_to_pb(session: bytes, request: OpenRequest) -> Iterator[opb.OpenSumRequest]:
    """The closed set, encoded in pieces."""
    first = opb.OpenSumRequest(session=session, evidence=convert.log_evidence_to_pb(request.evidence))
    yield first
    for piece in pieces(request.contributions):
        yield opb.OpenSumRequest(contributions=piece)


def pieces(items: Sequence[bytes]) -> Iterator[list[bytes]]:
    """``items`` in order, as many at a time as fit into a message."""
    piece: list[bytes] = []
    length = 0
    for item in items:
        if piece and length + len(item) > PIECE_BYTES:
            yield piece
            piece, length = [], 0
        piece.append(item)
        length += len(item) + 8
    if piece:
        yield piece


def open_sum_first_from_pb(message: opb.OpenSumRequest) -> OpenRequest:
    """The first piece, decoded: the evidence, and headers if it has some. Raises RemoteProtocolError."""
    convert.session_from_pb(message)
    return OpenRequest(fields.log_evidence(message.evidence, "evidence."), _headers(message, 0))


def open_sum_more_from_pb(message: opb.OpenSumRequest, offset: int) -> tuple[bytes, ...]:
    """The headers of a later piece, of which the first has number ``offset``. Raises RemoteProtocolError."""
    for name, there in (("session", bool(message.session)), ("evidence", message.HasField("evidence"))):
        if there:
            raise fields.malformed(name, "only in the first message")
    return _headers(message, offset)


def _headers(message: opb.OpenSumRequest, offset: int) -> tuple[bytes, ...]:
    """Bytes of signed headers, none of which is decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    for number, header in enumerate(message.contributions, start=offset):
        if not 0 < len(header) <= MAX_HEADER_BYTES:
            raise fields.malformed(f"contributions[{number}]", f"expected 1 to {MAX_HEADER_BYTES} bytes")
    return tuple(message.contributions)


def answer_to_pb(answer: Signed) -> opb.OpenSumResponse:
    """A member's answer, encoded."""
    return opb.OpenSumResponse(signed=answer.to_bytes())


def answer_from_pb(response: opb.OpenSumResponse) -> Signed:
    """A member's answer, decoded; its signature is not checked. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return fields.signed("signed", response.signed)
