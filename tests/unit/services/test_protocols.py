"""Calls that a session's protocol does not have, and the institutions that a session is opened with."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib

import pytest

from secagg.arith.linear_hash import HASH_BYTES
from secagg.crypto.labels import Label
from secagg.identity.cards import AuthorityCard, MemberCard
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.sessions import AnySession
from secagg.runtime.hosts import host_for, one_shot, pairwise
from secagg.runtime.memory import MemoryBlobStore, MemoryRecord, MemorySessionStore
from secagg.runtime.session_host import AnyHost, CoordinatorPorts
from secagg.services.aggregation import AggregationServicer
from secagg.services.operator import check_institutions
from secagg.services.uploads import UploadDesk
from secagg.transcript.openers import KeyAuthority, PreparedKey
from secagg.transcript.record import RecordError
from secagg.transcript.statements import AdvertiseStatement, ContributionHeader, Signed
from secagg.v1 import aggregation_pb2 as pb
from tests.support import cohort
from tests.support import one_shot as committee_stage
from tests.support.cohort import VirtualClock, key_of
from tests.support.published import memory_log

KEYS = [key_of(f"client {number}") for number in range(4)]
PAIRWISE = cohort.session_of(KEYS)
ONE_SHOT = committee_stage.session_of(KEYS)
AUTHORITY = key_of("authority")
ATTESTORS = tuple(key_of(f"attestor {number}").public_bytes for number in range(3))
CONTEXT = b"public encryption context"


class _RefusedError(Exception):
    pass


class _Context:
    async def abort_with_status(self, status: object) -> None:
        raise _RefusedError


class _Log:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def event(self, name: str, **fields: str) -> None:
        assert name == "refused"
        self.reasons.append(fields["reason"])


class _Registry:
    def __init__(self, host: AnyHost, ports: CoordinatorPorts) -> None:
        self.ports = ports
        self.host = host

    async def find(self, key: bytes) -> AnyHost:
        return self.host


def _ports() -> CoordinatorPorts:
    key = key_of("coordinator")
    return CoordinatorPorts(
        MemorySessionStore(), MemoryBlobStore(), memory_log(key), MemoryRecord(), VirtualClock(), key, lambda *_: None
    )


def refusals(session: AnySession, *calls: tuple[str, object]) -> list[str]:
    """Why the service refuses each call on a session; it must refuse all."""

    async def run() -> list[str]:
        ports, log = _ports(), _Log()
        desk = UploadDesk(ports.blobs, key_of("uploads").derive_seed(Label.UPLOAD_KEY))
        servicer = AggregationServicer(_Registry(host_for(session, ports), ports), desk, log, 1)
        for method, request in calls:
            with pytest.raises(_RefusedError):
                await getattr(servicer, method)(request, _Context())
        return log.reasons

    return asyncio.run(run())


NAMED = PAIRWISE.parameters.session
IDENTITY = KEYS[0].public_bytes


def signed(statement: AdvertiseStatement | ContributionHeader) -> bytes:
    """A statement with its signature, as it travels."""
    return Signed(statement, KEYS[0].sign_statement(statement.to_bytes())).to_bytes()


ADVERTISE = signed(AdvertiseStatement(bytes(32), IDENTITY, bytes(32), bytes(32)))
PAIRWISE_HEADER = signed(ContributionHeader(bytes(32), bytes(32), IDENTITY, bytes(32), bytes(32), 20, ()))
ONE_SHOT_HEADER = committee_stage.contribute(ONE_SHOT, KEYS[0]).leaf
PAIRWISE_CALLS = {
    "AdvertiseKeys": pb.AdvertiseKeysRequest(session=NAMED, signed=ADVERTISE),
    "GetAdvertisedKeys": pb.GetAdvertisedKeysRequest(session=NAMED, identity=IDENTITY),
    "ShareKeys": pb.ShareKeysRequest(session=NAMED, signed=ADVERTISE),
    "GetSharedKeys": pb.GetSharedKeysRequest(session=NAMED, identity=IDENTITY),
    "StartUpload": pb.StartUploadRequest(session=NAMED, signed=PAIRWISE_HEADER, linear_hash=bytes(HASH_BYTES)),
    "ConfirmClose": pb.ConfirmCloseRequest(session=NAMED, signed=ADVERTISE),
    "GetConfirmations": pb.GetConfirmationsRequest(session=NAMED, identity=IDENTITY),
    "Unmask": pb.UnmaskRequest(session=NAMED, signed=ADVERTISE),
}
ONE_SHOT_CALLS = {
    "CommitContribution": pb.CommitContributionRequest(session=NAMED, signed=ONE_SHOT_HEADER),
    "GetCommitted": pb.GetCommittedRequest(session=NAMED),
    "Attest": pb.AttestRequest(session=NAMED, signed=ADVERTISE),
    "StartUpload": pb.StartUploadRequest(session=NAMED, signed=ONE_SHOT_HEADER, linear_hash=bytes(HASH_BYTES)),
}


@pytest.mark.parametrize("method", PAIRWISE_CALLS)
def test_a_one_shot_session_refuses_what_only_pairwise_sessions_have(method: str) -> None:
    assert refusals(ONE_SHOT, (method, PAIRWISE_CALLS[method])) == ["WRONG_PROTOCOL"]


@pytest.mark.parametrize("method", ONE_SHOT_CALLS)
def test_a_pairwise_session_refuses_what_only_one_shot_sessions_have(method: str) -> None:
    assert refusals(PAIRWISE, (method, ONE_SHOT_CALLS[method])) == ["WRONG_PROTOCOL"]


def test_the_host_of_a_session_is_of_its_protocol() -> None:
    async def run() -> None:
        first, second = host_for(PAIRWISE, _ports()), host_for(ONE_SHOT, _ports())
        assert pairwise(first) is first
        assert one_shot(second) is second
        for narrow, host in ((one_shot, first), (pairwise, second)):
            with pytest.raises(RemoteProtocolError) as caught:
                narrow(host)
            assert caught.value.reason is RejectReason.WRONG_PROTOCOL

    asyncio.run(run())


CARDS = [MemberCard.of(each, "127.0.0.1:7445", "").to_bytes() for each in ONE_SHOT.opening.members]
AUTHORITY_CARD = AuthorityCard("authority", AUTHORITY.public_bytes, "127.0.0.1:7446", "", ATTESTORS, 2)
DIGEST = hashlib.sha256(CONTEXT).digest()
PREPARED = PreparedKey(
    ONE_SHOT.parameters.session, ONE_SHOT.parameters.coordinator, AUTHORITY.public_bytes, DIGEST
).to_bytes()
WITH_AUTHORITY = dataclasses.replace(
    ONE_SHOT.parameters,
    opening=KeyAuthority("authority", AUTHORITY.public_bytes, DIGEST, AUTHORITY.sign_statement(PREPARED), ATTESTORS, 2),
)


def test_a_session_is_opened_with_those_whom_its_parameters_name() -> None:
    check_institutions(PAIRWISE.parameters, [], b"")
    check_institutions(ONE_SHOT.parameters, CARDS, b"")
    check_institutions(WITH_AUTHORITY, [AUTHORITY_CARD.to_bytes()], CONTEXT)


@pytest.mark.parametrize(
    ("parameters", "cards", "context", "field"),
    [
        (PAIRWISE.parameters, CARDS[:1], b"", "cards"),
        (PAIRWISE.parameters, [], CONTEXT, "context"),
        (ONE_SHOT.parameters, CARDS[:-1], b"", "cards"),
        (ONE_SHOT.parameters, CARDS[::-1], b"", "cards"),
        (ONE_SHOT.parameters, [AUTHORITY_CARD.to_bytes()], b"", "cards"),
        (ONE_SHOT.parameters, CARDS, CONTEXT, "context"),
        (WITH_AUTHORITY, CARDS, CONTEXT, "cards"),
        (WITH_AUTHORITY, [dataclasses.replace(AUTHORITY_CARD, attestations=1).to_bytes()], CONTEXT, "cards"),
        (WITH_AUTHORITY, [AUTHORITY_CARD.to_bytes()], b"", "context"),
        (WITH_AUTHORITY, [AUTHORITY_CARD.to_bytes()], CONTEXT[1:], "context"),
    ],
)
def test_other_institutions_or_another_context_are_refused(parameters, cards, context, field) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check_institutions(parameters, cards, context)
    assert caught.value.reason is RejectReason.MALFORMED_MESSAGE
    assert caught.value.detail.startswith(f"{field}:")


def test_a_card_that_is_none_is_refused() -> None:
    with pytest.raises(RecordError):
        check_institutions(ONE_SHOT.parameters, [b"{}", *CARDS[1:]], b"")
