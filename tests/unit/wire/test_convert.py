from __future__ import annotations

import dataclasses
import hashlib

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from secagg.arith.linear_hash import HASH_BYTES
from secagg.protocol import messages
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import messages as one_shot_messages
from secagg.protocol.phases import Phase
from secagg.transcript.evidence import MAX_SEGMENT_ENTRIES, LogEvidence
from secagg.transcript.openers import MAX_MEMBERS
from secagg.transcript.statements import ConfirmStatement, OneShotHeader, Signed
from secagg.transcript.tiles import MAX_ENTRY_BYTES
from secagg.v1 import aggregation_pb2 as pb
from secagg.wire import convert, one_shot
from tests.unit.transcript.record_strategies import digests, indices, sessions, signatures, signed

SESSION = bytes(range(16))
blobs = st.binary(max_size=30)
tuples_of_blobs = st.lists(blobs, max_size=4).map(tuple)
paths = st.lists(digests, max_size=4).map(tuple)
starts = st.one_of(st.integers(0, 5), st.integers(0, 2**62))
evidence = starts.flatmap(
    lambda start: st.builds(
        LogEvidence,
        st.just(start),
        st.lists(digests, min_size=start.bit_count(), max_size=start.bit_count()).map(tuple),
        tuples_of_blobs,
        blobs,
    )
)


def several(strategy):
    return st.lists(strategy, max_size=3).map(tuple)


one_shot_signed = st.builds(
    Signed,
    st.builds(OneShotHeader, digests, digests, digests, digests, st.integers(1, 2**20), paths, st.integers(0, 2**20)),
    signatures,
)
linear_hashes = blobs.map(lambda seed: hashlib.shake_256(seed).digest(HASH_BYTES))
# For each message: its values, the function to protobuf, the function back.
REQUESTS = {
    messages.AdvertiseKeys: (
        st.builds(messages.AdvertiseKeys, signed(), blobs, blobs),
        convert.advertise_keys_to_pb,
        convert.advertise_keys_from_pb,
        pb.AdvertiseKeysRequest,
    ),
    messages.ShareKeys: (
        st.builds(
            messages.ShareKeys, signed(), several(st.builds(messages.OutgoingBoxes, indices, blobs, blobs, blobs))
        ),
        convert.share_keys_to_pb,
        convert.share_keys_from_pb,
        pb.ShareKeysRequest,
    ),
    messages.Contribution: (
        st.builds(
            messages.Contribution,
            signed().filter(lambda each: not isinstance(each.statement, OneShotHeader)),
            linear_hashes,
        ),
        convert.contribution_to_pb,
        convert.contribution_from_pb,
        pb.StartUploadRequest,
    ),
    one_shot_messages.OneShotContribution: (
        st.builds(one_shot_messages.OneShotContribution, one_shot_signed, linear_hashes, tuples_of_blobs),
        convert.contribution_to_pb,
        convert.contribution_from_pb,
        pb.StartUploadRequest,
    ),
    one_shot_messages.CommitContribution: (
        st.builds(one_shot_messages.CommitContribution, signed()),
        one_shot.commit_contribution_to_pb,
        one_shot.commit_contribution_from_pb,
        pb.CommitContributionRequest,
    ),
    messages.ConfirmClose: (
        st.builds(messages.ConfirmClose, signed()),
        convert.confirm_close_to_pb,
        convert.confirm_close_from_pb,
        pb.ConfirmCloseRequest,
    ),
    messages.UnmaskAnswer: (
        st.builds(messages.UnmaskAnswer, signed()),
        convert.unmask_answer_to_pb,
        convert.unmask_answer_from_pb,
        pb.UnmaskRequest,
    ),
}
RESPONSES = {
    LogEvidence: (evidence, convert.log_evidence_to_pb, convert.log_evidence_from_pb, pb.LogEvidence),
    messages.AdvertisedList: (
        st.builds(
            messages.AdvertisedList,
            evidence,
            tuples_of_blobs,
            several(st.builds(messages.NeighbourKeys, indices, blobs, blobs)),
        ),
        convert.advertised_list_to_pb,
        convert.advertised_list_from_pb,
        pb.GetAdvertisedKeysResponse,
    ),
    messages.SharedList: (
        st.builds(
            messages.SharedList,
            evidence,
            tuples_of_blobs,
            several(st.builds(messages.IncomingBoxes, indices, blobs, blobs, blobs, paths)),
        ),
        convert.shared_list_to_pb,
        convert.shared_list_from_pb,
        pb.GetSharedKeysResponse,
    ),
    messages.ClosedList: (
        st.builds(messages.ClosedList, evidence, tuples_of_blobs),
        convert.closed_list_to_pb,
        convert.closed_list_from_pb,
        pb.GetCloseResponse,
    ),
    one_shot_messages.CommittedList: (
        st.builds(one_shot_messages.CommittedList, evidence, tuples_of_blobs),
        one_shot.committed_list_to_pb,
        one_shot.committed_list_from_pb,
        pb.GetCommittedResponse,
    ),
    messages.Confirmations: (
        st.builds(messages.Confirmations, several(signed())),
        convert.confirmations_to_pb,
        convert.confirmations_from_pb,
        pb.GetConfirmationsResponse,
    ),
    messages.SignedReceipt: (
        st.builds(messages.SignedReceipt, blobs, signatures),
        convert.receipt_to_pb,
        convert.receipt_from_pb,
        pb.Receipt,
    ),
    messages.SessionEnded: (
        st.builds(messages.SessionEnded, evidence),
        convert.session_ended_to_pb,
        convert.session_ended_from_pb,
        pb.GetOutcomeResponse,
    ),
}
EVERYTHING = REQUESTS | RESPONSES
DECODERS = [(decode, kind) for _, _, decode, kind in EVERYTHING.values()]


def encoder(kind):
    """The function to protobuf with the session filled in where there is one."""
    to_pb = EVERYTHING[kind][1]
    return (lambda message: to_pb(SESSION, message)) if kind in REQUESTS else to_pb


def by_name(kind):
    return kind.__name__


def test_every_message_of_the_protocol_is_tested_here():
    kinds = {
        kind
        for kind in vars(messages).values()
        if dataclasses.is_dataclass(kind) and kind.__module__ == messages.__name__
    }
    parts = {messages.OutgoingBoxes, messages.IncomingBoxes, messages.NeighbourKeys}
    of_one_shot = {
        one_shot_messages.OneShotContribution,
        one_shot_messages.CommitContribution,
        one_shot_messages.CommittedList,
    }
    assert kinds - parts == set(EVERYTHING) - {LogEvidence} - of_one_shot


@settings(max_examples=40)
@given(st.data())
@pytest.mark.parametrize("kind", EVERYTHING, ids=by_name)
def test_a_message_comes_back_as_it_was_over_serialised_bytes(kind, data):
    strategy, _, from_pb, pb_kind = EVERYTHING[kind]
    message = data.draw(strategy)
    encoded = encoder(kind)(message)
    assert type(encoded) is pb_kind
    assert from_pb(pb_kind.FromString(encoded.SerializeToString())) == message


@given(sessions, st.data())
def test_a_request_names_its_session(session, data):
    for strategy, to_pb, _, _ in REQUESTS.values():
        assert convert.session_from_pb(to_pb(session, data.draw(strategy))) == session


def refusal(decode, message) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(message)
    assert caught.value.reason is RejectReason.MALFORMED_MESSAGE
    return caught.value.detail


def only_refusals(decode, message) -> None:
    try:
        decode(message)
    except RemoteProtocolError as caught:
        error = caught
    else:
        return
    assert error.reason is RejectReason.MALFORMED_MESSAGE
    field, _, reason = error.detail.partition(": ")
    assert field.split("[")[0].split(".")[0] in message.DESCRIPTOR.fields_by_name
    assert reason


@settings(max_examples=200)
@given(st.binary(max_size=120))
def test_no_bytes_raise_anything_but_a_malformed_message(data):
    for decode, kind in DECODERS:
        try:
            message = kind.FromString(data)
        except DecodeError:
            continue
        only_refusals(decode, message)


def fill(draw, message: Message) -> Message:
    """The message with arbitrary content: half of the values plausible."""
    plausible = st.one_of(blobs, digests, sessions, signatures, signed().map(Signed.to_bytes))
    for field in message.DESCRIPTOR.fields:
        repeated = field.is_repeated
        times = draw(st.integers(0, 3)) if repeated else draw(st.integers(0, 1))
        for _ in range(times):
            if field.type == field.TYPE_MESSAGE:
                inner = getattr(message, field.name)
                fill(draw, inner.add() if repeated else inner)
                if not repeated:
                    inner.SetInParent()
            else:
                value = draw(plausible if field.type == field.TYPE_BYTES else st.integers(0, 2**32 - 1))
                if repeated:
                    getattr(message, field.name).append(value)
                else:
                    setattr(message, field.name, value)
    return message


@settings(max_examples=60)
@given(st.data())
@pytest.mark.parametrize(("decode", "kind"), DECODERS, ids=lambda part: getattr(part, "__name__", None))
def test_no_fields_raise_anything_but_a_malformed_message(decode, kind, data):
    only_refusals(decode, fill(data.draw, kind()))


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_message_is_refused_or_decodes(data):
    kind = data.draw(st.sampled_from(list(EVERYTHING)))
    strategy, _, decode, pb_kind = EVERYTHING[kind]
    encoded = bytearray(encoder(kind)(data.draw(strategy)).SerializeToString())
    assume(encoded)
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        message = pb_kind.FromString(bytes(encoded))
    except DecodeError:
        return
    only_refusals(decode, message)


STATEMENT = Signed(ConfirmStatement(*[bytes(32)] * 3), bytes(64)).to_bytes()
EVIDENCE = pb.LogEvidence(start=5, prefix=[bytes(32)] * 2, entries=[b"e"], checkpoint=b"c")
BOX = pb.ShareKeysRequest.Boxes(recipient=1)
INBOX = pb.GetSharedKeysResponse.Boxes(sender=1, path=[bytes(32)])
KEYS = pb.GetAdvertisedKeysResponse.Keys(index=1)
SOUND = {
    pb.AdvertiseKeysRequest: pb.AdvertiseKeysRequest(session=SESSION, signed=STATEMENT),
    pb.ShareKeysRequest: pb.ShareKeysRequest(session=SESSION, signed=STATEMENT, boxes=[BOX, BOX]),
    pb.StartUploadRequest: pb.StartUploadRequest(session=SESSION, signed=STATEMENT, linear_hash=bytes(HASH_BYTES)),
    pb.CommitContributionRequest: pb.CommitContributionRequest(session=SESSION, signed=STATEMENT),
    pb.ConfirmCloseRequest: pb.ConfirmCloseRequest(session=SESSION, signed=STATEMENT),
    pb.UnmaskRequest: pb.UnmaskRequest(session=SESSION, signed=STATEMENT),
    pb.LogEvidence: EVIDENCE,
    pb.GetAdvertisedKeysResponse: pb.GetAdvertisedKeysResponse(evidence=EVIDENCE, keys=[KEYS, KEYS]),
    pb.GetSharedKeysResponse: pb.GetSharedKeysResponse(evidence=EVIDENCE, inbox=[INBOX, INBOX]),
    pb.GetCloseResponse: pb.GetCloseResponse(evidence=EVIDENCE),
    pb.GetCommittedResponse: pb.GetCommittedResponse(evidence=EVIDENCE),
    pb.GetConfirmationsResponse: pb.GetConfirmationsResponse(signed=[STATEMENT, STATEMENT]),
    pb.Receipt: pb.Receipt(receipt=b"r", signature=bytes(64)),
    pb.GetOutcomeResponse: pb.GetOutcomeResponse(evidence=EVIDENCE),
}
FIND = {kind: decode for decode, kind in DECODERS}


def test_the_sound_messages_decode():
    assert set(SOUND) == set(FIND)
    for kind, message in SOUND.items():
        FIND[kind](message)


def damage(kind, change):
    message = kind()
    message.CopyFrom(SOUND[kind])
    change(message)
    return refusal(FIND[kind], message)


@pytest.mark.parametrize("kind", [kind for _, _, _, kind in REQUESTS.values()], ids=by_name)
def test_a_request_with_a_malformed_field_names_it(kind):
    for session in (b"", SESSION[:15], SESSION + b"\x00"):
        detail = damage(kind, lambda message, session=session: setattr(message, "session", session))
        assert detail == f"session: expected 16 bytes, found {len(session)}"
    for data, why in [
        (b"", "bytes: not JSON"),
        (b"{}", "signed: expected a record"),
        (STATEMENT + b" ", "bytes: not in canonical form"),
        (STATEMENT.replace(b'"close":"00', b'"close":"0'), "signed.statement.close: expected 32 bytes"),
        (STATEMENT.replace(b'"version":2', b'"version":1'), "signed.version"),
    ]:
        detail = damage(kind, lambda message, data=data: setattr(message, "signed", data))
        assert detail.startswith(f"signed: {why}"), detail


def test_parts_come_with_headers_of_one_shot_sessions_only_and_with_no_more_than_a_committee_has():
    header = OneShotHeader(*[bytes(32)] * 4, 4096, (bytes(32),), 1)
    signed_one = Signed(header, bytes(64)).to_bytes()

    def upload(statement: bytes, parts: int) -> pb.StartUploadRequest:
        many = [b"part"] * parts
        return pb.StartUploadRequest(session=SESSION, signed=statement, linear_hash=bytes(HASH_BYTES), parts=many)

    most = convert.contribution_from_pb(upload(signed_one, MAX_MEMBERS))
    assert isinstance(most, one_shot_messages.OneShotContribution)
    assert most.parts == (b"part",) * MAX_MEMBERS
    many = upload(signed_one, MAX_MEMBERS + 1)
    assert refusal(convert.contribution_from_pb, many) == "parts: expected at most 16 items, found 17"
    other = upload(STATEMENT, 1)
    assert refusal(convert.contribution_from_pb, other) == "parts: expected at most 0 items, found 1"


@pytest.mark.parametrize("length", [0, 8, HASH_BYTES - 8, HASH_BYTES + 8, 2 * HASH_BYTES])
def test_a_linear_hash_of_another_length_is_malformed(length):
    detail = damage(pb.StartUploadRequest, lambda message: setattr(message, "linear_hash", bytes(length)))
    assert detail == f"linear_hash: expected {HASH_BYTES} bytes, found {length}"


RESPONSES_WITH_EVIDENCE = [
    pb.GetAdvertisedKeysResponse,
    pb.GetSharedKeysResponse,
    pb.GetCloseResponse,
    pb.GetOutcomeResponse,
]


BAD_EVIDENCE = [
    (lambda m: setattr(m, "start", 7), "prefix: expected 3 hashes, got 2"),
    (lambda m: setattr(m, "start", 2**63), "start: expected a size from 0 to 2^63 - 1"),
    (lambda m: setattr(m, "start", 2**64 - 1), "start: expected a size from 0 to 2^63 - 1"),
    (lambda m: m.prefix.append(bytes(32)), "prefix: expected 2 hashes, got 3"),
    (lambda m: m.prefix.pop(), "prefix: expected 2 hashes, got 1"),
    (lambda m: m.prefix.__setitem__(1, bytes(31)), "prefix: a hash has 32 bytes"),
    (
        lambda m: m.entries.extend([b""] * MAX_SEGMENT_ENTRIES),
        f"entries: expected at most {MAX_SEGMENT_ENTRIES}, got {MAX_SEGMENT_ENTRIES + 1}",
    ),
    (
        lambda m: m.entries.append(bytes(MAX_ENTRY_BYTES + 1)),
        f"entries: an entry has at most {MAX_ENTRY_BYTES} bytes",
    ),
]


@pytest.mark.parametrize("kind", [pb.LogEvidence, *RESPONSES_WITH_EVIDENCE], ids=by_name)
@pytest.mark.parametrize(("change", "detail"), BAD_EVIDENCE, ids=[detail for _, detail in BAD_EVIDENCE])
def test_an_answer_with_malformed_evidence_names_it(kind, change, detail):
    own = kind is pb.LogEvidence
    found = damage(kind, lambda message: change(message if own else message.evidence))
    assert found == (detail if own else f"evidence.{detail}")


def test_a_log_of_more_entries_than_there_are_sizes_is_malformed():
    message = pb.LogEvidence(start=2**63 - 1, prefix=[bytes(32)] * 63)
    assert convert.log_evidence_from_pb(message).size == 2**63 - 1
    message.entries.append(b"one more")
    detail = refusal(convert.log_evidence_from_pb, message)
    assert detail == "entries: the log would have 2^63 entries or more"


def test_an_answer_without_evidence_shows_an_empty_log_that_nothing_vouches_for():
    for kind in RESPONSES_WITH_EVIDENCE:
        message = kind()
        message.CopyFrom(SOUND[kind])
        message.ClearField("evidence")
        assert FIND[kind](message).evidence == LogEvidence(0, (), (), b"")


def test_a_consistency_proof_comes_back_as_it_was():
    proof = tuple(bytes([number]) * 32 for number in range(64))
    message = pb.GetSessionResponse.FromString(pb.GetSessionResponse(consistency=proof).SerializeToString())
    assert convert.consistency_from_pb(message) == proof
    assert convert.consistency_from_pb(pb.GetSessionResponse()) == ()


@pytest.mark.parametrize(
    ("proof", "detail"),
    [
        ([bytes(32), bytes(31)], "consistency[1]: expected 32 bytes, found 31"),
        ([b""], "consistency[0]: expected 32 bytes, found 0"),
        ([bytes(32)] * 65, "consistency: expected at most 64 items, found 65"),
    ],
)
def test_a_malformed_consistency_proof_is_named(proof, detail):
    assert refusal(convert.consistency_from_pb, pb.GetSessionResponse(consistency=proof)) == detail


@pytest.mark.parametrize(
    ("kind", "change", "detail"),
    [
        (pb.Receipt, lambda m: setattr(m, "signature", bytes(65)), "signature: expected 64 bytes, found 65"),
        (
            pb.ShareKeysRequest,
            lambda m: setattr(m.boxes[1], "recipient", 2**20),
            "boxes[1].recipient: expected an index below 1048576",
        ),
        (
            pb.GetAdvertisedKeysResponse,
            lambda m: setattr(m.keys[1], "index", 2**32 - 1),
            "keys[1].index: expected an index below 1048576",
        ),
        (
            pb.GetSharedKeysResponse,
            lambda m: setattr(m.inbox[0], "sender", 2**20),
            "inbox[0].sender: expected an index below 1048576",
        ),
        (
            pb.GetSharedKeysResponse,
            lambda m: m.inbox[1].path.append(bytes(31)),
            "inbox[1].path[1]: expected 32 bytes, found 31",
        ),
        (
            pb.GetSharedKeysResponse,
            lambda m: m.inbox[1].path.extend([bytes(32)] * 32),
            "inbox[1].path: expected at most 32 items, found 33",
        ),
        (
            pb.GetConfirmationsResponse,
            lambda m: m.signed.append(b"{}"),
            "signed[2]: signed: expected a record of type signed",
        ),
        (
            pb.ShareKeysRequest,
            lambda m: m.boxes.extend([BOX] * 2**14),
            "boxes: expected at most 16384 items, found 16386",
        ),
        (
            pb.GetAdvertisedKeysResponse,
            lambda m: m.keys.extend([KEYS] * 2**14),
            "keys: expected at most 16384 items, found 16386",
        ),
        (
            pb.GetSharedKeysResponse,
            lambda m: m.inbox.extend([INBOX] * 2**14),
            "inbox: expected at most 16384 items, found 16386",
        ),
        (
            pb.GetConfirmationsResponse,
            lambda m: m.signed.extend([STATEMENT] * 2**14),
            "signed: expected at most 16384 items, found 16386",
        ),
        *(
            (
                kind,
                lambda m: m.leaves.extend([b""] * (2**20 + 1)),
                "leaves: expected at most 1048576 items, found 1048577",
            )
            for kind in RESPONSES_WITH_EVIDENCE[:3]
        ),
    ],
)
def test_a_malformed_field_is_named(kind, change, detail):
    assert damage(kind, change) == detail


@pytest.mark.parametrize("length", [0, 31, 33])
def test_an_identity_has_32_bytes(length):
    assert convert.identity_from_pb(pb.GetSharedKeysRequest(identity=bytes(32))) == bytes(32)
    detail = refusal(convert.identity_from_pb, pb.GetConfirmationsRequest(identity=bytes(length)))
    assert detail == f"identity: expected 32 bytes, found {length}"


def test_what_a_peer_sends_is_quoted_in_part():
    huge = STATEMENT[:-1] + b',"' + b"z" * 100_000 + b'":1}'
    detail = damage(pb.ConfirmCloseRequest, lambda message: setattr(message, "signed", huge))
    assert len(detail) < 200


def test_phases_map_one_to_one():
    assert {convert.phase_to_pb(phase) for phase in Phase} == set(pb.Phase.values()) - {pb.PHASE_UNSPECIFIED}
    for phase in Phase:
        assert convert.phase_from_pb(convert.phase_to_pb(phase)) is phase
        assert pb.Phase.Name(convert.phase_to_pb(phase)) == f"PHASE_{phase.name}"


@pytest.mark.parametrize("value", [0, 11, -1, 2**31 - 1])
def test_an_unknown_phase_is_refused(value):
    assert refusal(convert.phase_from_pb, value) == f"phase: unknown value {value}"
