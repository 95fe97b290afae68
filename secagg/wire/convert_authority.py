"""Protobuf messages between coordinators and key authorities to the types of the protocol and back.

As in ``convert``: decoding trusts nothing and names the field at fault, encoding checks nothing. Lists are bounded here
by the length of an item; how many there may be the log says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from secagg.he.residues import CIPHERTEXT_BYTES
from secagg.protocol.one_shot.authority_states import SumRequest
from secagg.runtime.institutions import DecryptPiece, DecryptRequest, PreparedContext, pieces_of
from secagg.transcript.openers import MAX_ATTESTORS
from secagg.transcript.statements import Signed
from secagg.v1 import opening_pb2 as opb
from secagg.wire import convert, fields
from secagg.wire.convert_opening import MAX_HEADER_BYTES, session_files_from_pb, session_files_to_pb

_FIRST_ONLY = ("session", "ciphertext_sum", "attestations")


@dataclass(frozen=True, slots=True)
class AuthorityFacts:
    """What an authority says of itself, and of a log."""

    name: str
    identity: bytes
    attestors: tuple[bytes, ...]
    attestations: int
    log_size: int


def authority_facts_to_pb(facts: AuthorityFacts) -> opb.GetAuthorityResponse:
    """An authority, encoded."""
    return opb.GetAuthorityResponse(
        name=facts.name,
        identity=facts.identity,
        log_size=facts.log_size,
        attestors=facts.attestors,
        attestations=facts.attestations,
    )


def authority_facts_from_pb(response: opb.GetAuthorityResponse) -> AuthorityFacts:
    """An authority, decoded. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    fields.at_most("attestors", response.attestors, MAX_ATTESTORS)
    attestors = [fields.exactly(f"attestors[{at}]", key, 32) for at, key in enumerate(response.attestors)]
    identity = fields.exactly("identity", response.identity, convert.IDENTITY_BYTES)
    return AuthorityFacts(response.name, identity, tuple(attestors), response.attestations, response.log_size)


def prepare_session_to_pb(session: bytes, coordinator: bytes) -> opb.PrepareSessionRequest:
    """Who asks for the key of which session, encoded."""
    return opb.PrepareSessionRequest(session=session, coordinator=coordinator)


def prepare_session_from_pb(request: opb.PrepareSessionRequest) -> tuple[bytes, bytes]:
    """Session identifier and coordinator key. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    session = convert.session_from_pb(request)
    return session, fields.exactly("coordinator", request.coordinator, convert.IDENTITY_BYTES)


def prepared_to_pb(made: PreparedContext) -> opb.PrepareSessionResponse:
    """The key's public half, encoded."""
    return opb.PrepareSessionResponse(prepared=made.prepared, signature=made.signature, context=made.context)


def prepared_from_pb(response: opb.PrepareSessionResponse) -> PreparedContext:
    """The key's public half, decoded and not checked yet."""
    return PreparedContext(response.prepared, response.signature, response.context)


def decrypt_sum_to_pb(session: bytes, request: DecryptRequest) -> Iterator[opb.DecryptSumRequest]:
    """The closed set and what opens it, encoded in pieces."""
    yield opb.DecryptSumRequest(
        session=session,
        files=session_files_to_pb(request.files),
        ciphertext_sum=request.ciphertext_sum,
        attestations=[signed.to_bytes() for signed in request.attestations],
    )
    for piece in pieces_of(request):
        yield opb.DecryptSumRequest(
            committed=piece.committed, contributions=piece.contributions, limb_sum=piece.limb_sum
        )


def sum_request_from_pb(message: opb.DecryptSumRequest) -> SumRequest:
    """The head of a request, in its first message. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    convert.session_from_pb(message)
    fields.at_most("attestations", message.attestations, MAX_ATTESTORS)
    attestations = [fields.signed(f"attestations[{at}]", data) for at, data in enumerate(message.attestations)]
    ciphertext_sum = fields.exactly("ciphertext_sum", message.ciphertext_sum, CIPHERTEXT_BYTES)
    return SumRequest(session_files_from_pb(message.files), ciphertext_sum, tuple(attestations))


def first_piece_from_pb(message: opb.DecryptSumRequest) -> DecryptPiece:
    """What a first message has beside the head. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return DecryptPiece(
        _headers("committed", message.committed), _headers("contributions", message.contributions), message.limb_sum
    )


def piece_from_pb(message: opb.DecryptSumRequest) -> DecryptPiece:
    """A later message. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    for name in _FIRST_ONLY:
        if getattr(message, name):
            raise fields.malformed(name, "only in the first message")
    if message.HasField("files"):
        raise fields.malformed("files", "only in the first message")
    return first_piece_from_pb(message)


def _headers(field: str, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    for number, leaf in enumerate(leaves):
        if not 0 < len(leaf) <= MAX_HEADER_BYTES:
            raise fields.malformed(f"{field}[{number}]", f"expected 1 to {MAX_HEADER_BYTES} bytes")
    return tuple(leaves)


def decrypted_to_pb(answer: Signed) -> opb.DecryptSumResponse:
    """The authority's answer, encoded."""
    return opb.DecryptSumResponse(signed=answer.to_bytes())


def decrypted_from_pb(response: opb.DecryptSumResponse) -> Signed:
    """The authority's answer, decoded; its signature is not checked. Raises RemoteProtocolError(MALFORMED_MESSAGE)."""
    return fields.signed("signed", response.signed)
