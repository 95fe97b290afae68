"""Messages between coordinators and institutions: what is encoded reads back, what is not ours is refused."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.messages import HeldBox, OpenRequest, ShownSessionFiles
from secagg.v1 import opening_pb2 as opb
from secagg.wire import convert_opening
from secagg.wire.convert_opening import MemberFacts
from tests.unit.transcript.record_strategies import digests, sessions, signatures, signed
from tests.unit.wire.test_convert import blobs, evidence, tuples_of_blobs

headers = st.binary(min_size=1, max_size=40)
files = st.builds(
    ShownSessionFiles, evidence, st.lists(digests, max_size=3).map(tuple), tuples_of_blobs, blobs, signatures
)
facts = st.builds(
    MemberFacts,
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20),
    digests,
    digests.map(lambda digest: digest * 38),
    st.integers(0, 2**63),
)


@given(facts)
def test_a_member_reads_back(value: MemberFacts) -> None:
    message = opb.GetMemberResponse.FromString(convert_opening.member_facts_to_pb(value).SerializeToString())
    assert convert_opening.member_facts_from_pb(message) == value


@given(sessions, files)
def test_a_session_for_a_member_reads_back(session: bytes, value: ShownSessionFiles) -> None:
    message = convert_opening.join_session_to_pb(session, value)
    assert convert_opening.join_session_from_pb(opb.JoinSessionRequest.FromString(message.SerializeToString())) == value


@given(sessions, st.lists(st.builds(HeldBox, signed(), blobs), max_size=4))
def test_boxes_read_back(session: bytes, items: list[HeldBox]) -> None:
    message = convert_opening.hold_shares_to_pb(session, items)
    assert convert_opening.hold_shares_from_pb(message) == tuple(items)


@given(sessions, evidence, st.lists(headers, max_size=20))
def test_a_closed_set_reads_back_from_its_pieces(session: bytes, shown: object, contributions: list[bytes]) -> None:
    request = OpenRequest(shown, tuple(contributions))
    first, *more = convert_opening.open_sum_to_pb(session, request)
    read = convert_opening.open_sum_first_from_pb(first)
    found = list(read.contributions)
    for message in more:
        found += convert_opening.open_sum_more_from_pb(message, len(found))
    assert OpenRequest(read.evidence, tuple(found)) == request


@given(signed())
def test_an_answer_reads_back(value: object) -> None:
    assert convert_opening.answer_from_pb(convert_opening.answer_to_pb(value)) == value


@given(st.lists(st.sampled_from(["", *RejectReason.__members__]), max_size=5))
def test_verdicts_read_back(complaints: list[str]) -> None:
    message = convert_opening.verdicts_to_pb(complaints)
    assert convert_opening.verdicts_from_pb(message, len(complaints)) == tuple(complaints)


def test_a_large_set_is_cut_into_pieces_below_a_megabyte_and_none_is_lost() -> None:
    items = [b"%07d" % at * 200 for at in range(2000)]
    pieces = list(convert_opening.pieces(items))
    assert [item for piece in pieces for item in piece] == items
    assert len(pieces) == 3
    assert max(sum(len(item) for item in piece) for piece in pieces) <= convert_opening.PIECE_BYTES
    assert list(convert_opening.pieces([])) == []
    assert list(convert_opening.pieces([b"x" * (2 << 20)])) == [[b"x" * (2 << 20)]]


FILES = opb.SessionFiles(roster_signature=bytes(64))
ID = bytes(16)


@pytest.mark.parametrize(
    ("decode", "message", "field"),
    [
        (convert_opening.origin_from_pb, opb.GetMemberRequest(), "origin"),
        (convert_opening.origin_from_pb, opb.GetMemberRequest(origin="x" * 256), "origin"),
        (convert_opening.member_facts_from_pb, opb.GetMemberResponse(identity=bytes(31)), "identity"),
        (convert_opening.member_facts_from_pb, opb.GetMemberResponse(identity=bytes(32)), "sealing_key"),
        (convert_opening.join_session_from_pb, opb.JoinSessionRequest(session=bytes(15), files=FILES), "session"),
        (convert_opening.join_session_from_pb, opb.JoinSessionRequest(session=ID), "files.roster_signature"),
        (
            convert_opening.join_session_from_pb,
            opb.JoinSessionRequest(session=ID, files=opb.SessionFiles(consistency=[bytes(31)])),
            "files.consistency[0]",
        ),
        (
            convert_opening.join_session_from_pb,
            opb.JoinSessionRequest(session=ID, files=opb.SessionFiles(consistency=[bytes(32)] * 65)),
            "files.consistency",
        ),
        (
            convert_opening.join_session_from_pb,
            opb.JoinSessionRequest(session=ID, files=opb.SessionFiles(evidence={"start": 1})),
            "files.evidence.prefix",
        ),
        (convert_opening.hold_shares_from_pb, opb.HoldSharesRequest(), "session"),
        (convert_opening.hold_shares_from_pb, opb.HoldSharesRequest(session=ID, items=[{}] * 1025), "items"),
        (convert_opening.open_sum_first_from_pb, opb.OpenSumRequest(), "session"),
        (
            convert_opening.open_sum_first_from_pb,
            opb.OpenSumRequest(session=ID, evidence={"start": 1}),
            "evidence.prefix",
        ),
        (
            convert_opening.open_sum_first_from_pb,
            opb.OpenSumRequest(session=ID, contributions=[b"x", b""]),
            "contributions[1]",
        ),
        (convert_opening.answer_from_pb, opb.OpenSumResponse(signed=b"{}"), "signed"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_field(decode, message, field: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(message)
    assert caught.value.reason is RejectReason.MALFORMED_MESSAGE
    assert caught.value.detail.startswith(f"{field}:")


def test_later_pieces_number_their_headers_through() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        convert_opening.open_sum_more_from_pb(opb.OpenSumRequest(contributions=[b"x", b"y" * 5000]), 10)
    assert caught.value.detail.startswith("contributions[11]:")


@pytest.mark.parametrize("complaints", [[], ["", ""], ["NONSENSE"]])
def test_verdicts_that_are_not_one_known_word_for_each_item_are_refused(complaints: list[str]) -> None:
    with pytest.raises(RemoteProtocolError):
        convert_opening.verdicts_from_pb(convert_opening.verdicts_to_pb(complaints), 1)


DECODERS = (
    (convert_opening.member_facts_from_pb, opb.GetMemberResponse),
    (convert_opening.join_session_from_pb, opb.JoinSessionRequest),
    (convert_opening.hold_shares_from_pb, opb.HoldSharesRequest),
    (convert_opening.open_sum_first_from_pb, opb.OpenSumRequest),
    (lambda message: convert_opening.open_sum_more_from_pb(message, 0), opb.OpenSumRequest),
    (lambda message: convert_opening.verdicts_from_pb(message, 1), opb.HoldSharesResponse),
    (convert_opening.answer_from_pb, opb.OpenSumResponse),
)


@given(st.sampled_from(DECODERS), st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(decoder, data: bytes) -> None:
    decode, kind = decoder
    try:
        message = kind.FromString(data)
    except DecodeError:
        return
    reason = RejectReason.MALFORMED_MESSAGE
    try:
        decode(message)
    except RemoteProtocolError as error:
        reason = error.reason
    assert reason is RejectReason.MALFORMED_MESSAGE
