"""What coordinators and key authorities say to each other, to protobuf and back."""

from __future__ import annotations

import pytest

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.runtime.institutions import PreparedContext, pieces_of
from secagg.v1 import opening_pb2 as opb
from secagg.wire import convert_authority as wire
from tests.support.authority_stage import SESSION, stage_of

STAGE = stage_of()


def refused(message: opb.DecryptSumRequest, decode: object) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(message)
    assert caught.value.reason is RejectReason.MALFORMED_MESSAGE
    return caught.value.detail.partition(":")[0]


def test_a_request_arrives_as_it_was_sent() -> None:
    first, *rest = wire.decrypt_sum_to_pb(SESSION, STAGE.closed.whole_request())
    assert first.session == SESSION
    assert wire.sum_request_from_pb(first) == STAGE.closed.request()
    pieces = [wire.first_piece_from_pb(first), *map(wire.piece_from_pb, rest)]
    assert tuple(leaf for piece in pieces for leaf in piece.committed) == STAGE.closed.committed
    assert tuple(leaf for piece in pieces for leaf in piece.contributions) == STAGE.closed.contributions
    assert b"".join(piece.limb_sum for piece in pieces) == STAGE.closed.limb_sum


def test_no_message_is_large() -> None:
    request = STAGE.closed.whole_request()
    many = request.__class__(
        request.files,
        request.ciphertext_sum,
        request.attestations,
        request.committed * 500,
        request.contributions * 500,
        iter([bytes(3_000_001)]),
    )
    messages = list(wire.decrypt_sum_to_pb(SESSION, many))
    assert max(message.ByteSize() for message in messages[1:]) < 1_100_000
    assert sum(len(message.limb_sum) for message in messages) == 3_000_001
    assert sum(len(message.committed) for message in messages) == 3000


def test_what_an_authority_says_of_itself_arrives() -> None:
    facts = wire.AuthorityFacts("A", bytes(32), (b"a" * 32, b"b" * 32), 2, 7)
    assert wire.authority_facts_from_pb(wire.authority_facts_to_pb(facts)) == facts
    made = PreparedContext(b"statement", b"signature", b"context")
    assert wire.prepared_from_pb(wire.prepared_to_pb(made)) == made
    asked = wire.prepare_session_from_pb(wire.prepare_session_to_pb(SESSION, bytes(32)))
    assert asked == (SESSION, bytes(32))
    signed = STAGE.closed.attestations()[0]
    assert wire.decrypted_from_pb(wire.decrypted_to_pb(signed)) == signed


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"session": b""}, "session"),
        ({"ciphertext_sum": b"short"}, "ciphertext_sum"),
        ({"attestations": [b"{}"]}, "attestations[0]"),
        ({"attestations": [b"{}"] * 17}, "attestations"),
    ],
)
def test_a_head_that_does_not_decode_names_its_field(changes: dict[str, object], field: str) -> None:
    first = next(wire.decrypt_sum_to_pb(SESSION, STAGE.closed.whole_request()))
    for name, value in changes.items():
        first.ClearField(name)
        first.MergeFrom(opb.DecryptSumRequest(**{name: value}))
    assert refused(first, wire.sum_request_from_pb) == field


@pytest.mark.parametrize(
    "later",
    [
        opb.DecryptSumRequest(session=SESSION),
        opb.DecryptSumRequest(ciphertext_sum=b"x"),
        opb.DecryptSumRequest(attestations=[b"x"]),
        opb.DecryptSumRequest(files=opb.SessionFiles()),
    ],
    ids=["session", "ciphertext_sum", "attestations", "files"],
)
def test_single_fields_come_in_the_first_message_only(later: opb.DecryptSumRequest) -> None:
    assert refused(later, wire.piece_from_pb) in {"session", "ciphertext_sum", "attestations", "files"}


@pytest.mark.parametrize("field", ["committed", "contributions"])
@pytest.mark.parametrize("leaf", [b"", bytes(4097)], ids=["empty", "long"])
def test_headers_have_a_length(field: str, leaf: bytes) -> None:
    assert refused(opb.DecryptSumRequest(**{field: [b"x", leaf]}), wire.piece_from_pb) == f"{field}[1]"


def test_nothing_is_sent_before_it_is_read() -> None:
    request = STAGE.closed.whole_request()
    pieces = pieces_of(request)
    for _ in range(2):
        next(pieces)
    assert len(b"".join(request.limb_sum)) == len(STAGE.closed.limb_sum)
