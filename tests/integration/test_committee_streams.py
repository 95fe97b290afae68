"""The stream in which a committee member is told a closed set: who may keep it waiting, and for how long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.member_states import Holding
from secagg.runtime.participant import TransportError
from secagg.services.committee import CommitteeLimits
from secagg.transcript.merkle import consistency_proof, leaf_hash
from secagg.transcript.statements import MemberAnswer
from secagg.v1 import opening_pb2 as opb
from secagg.v1 import opening_pb2_grpc as opb_grpc
from secagg.wire import convert
from secagg.wire.status import from_rpc_error
from tests.support import one_shot
from tests.support.committee_service import RunningMember, serving_member
from tests.support.one_shot import close_of, evidence_of, honest_session, open_request, shown_files

SESSION, EVERYBODY = honest_session()
ID = SESSION.parameters.session


async def join(member: RunningMember) -> None:
    await member.port.join(ID, shown_files(SESSION, evidence_of(SESSION)))


async def hold(member: RunningMember) -> None:
    assert not any(await member.port.hold(ID, [each.item(0) for each in EVERYBODY]))


def stub(member: RunningMember) -> opb_grpc.CommitteeServiceStub:
    return opb_grpc.CommitteeServiceStub(member.port._channel)


def first_message(evidence) -> opb.OpenSumRequest:
    return opb.OpenSumRequest(session=ID, evidence=convert.log_evidence_to_pb(evidence))


async def silent_after(*messages: opb.OpenSumRequest):
    """A stream that does not end."""
    for message in messages:
        yield message
    await asyncio.Event().wait()


@pytest.mark.parametrize("first", ["nothing", "evidence"])
def test_a_stream_that_falls_silent_is_ended(tmp_path: Path, first: str) -> None:
    async def run() -> None:
        async with serving_member(tmp_path, limits=CommitteeLimits(message_s=0.05)) as member:
            await join(member)
            messages = [first_message(evidence_of(SESSION))] if first == "evidence" else []
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub(member).OpenSum(silent_after(*messages), timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(run())


def test_a_stream_that_goes_on_for_ever_is_ended(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path, limits=CommitteeLimits(stream_s=0.2, message_s=60)) as member:
            await join(member)

            async def messages():
                yield first_message(evidence_of(SESSION))
                while True:
                    yield opb.OpenSumRequest()

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub(member).OpenSum(messages(), timeout=5)
            assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(run())


ONE_PLACE = CommitteeLimits(max_openings=1, max_openings_of_session=1, wait_s=0.05)


async def until(condition) -> None:
    """Let the server work until something is the case."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def test_who_waits_for_a_place_too_long_is_told_to_come_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path, limits=ONE_PLACE) as member:
            await join(member)
            await hold(member)
            request = open_request(SESSION, EVERYBODY)
            silent = stub(member).OpenSum(silent_after(first_message(request.evidence)), timeout=20)
            await until(lambda: member.servicer.openings.taken == 1)
            with pytest.raises(TransportError):
                await asyncio.wait_for(member.port.open(ID, request), 5)
            silent.cancel()
            async with asyncio.timeout(5):
                while True:
                    try:
                        assert isinstance((await member.port.open(ID, request)).statement, MemberAnswer)
                        return
                    except TransportError:
                        continue

    asyncio.run(run())


async def two_sessions(member: RunningMember):
    """This one and another, both held; what the other is opened with."""
    other = one_shot.session_of([each.key for each in EVERYBODY], session=b"B" * 16)
    everybody = [one_shot.contribute(other, each.key) for each in EVERYBODY[:3]]
    await join(member)
    await hold(member)
    before = [one_shot.signed_roster(SESSION).to_bytes(), SESSION.entry, close_of(SESSION, EVERYBODY).to_bytes()]
    await member.port.join(ID, shown_files(SESSION, evidence_of(SESSION, before[2])))
    proof = consistency_proof([leaf_hash(each) for each in (*before, other.entry)], 3)
    await member.port.join(b"B" * 16, shown_files(other, evidence_of(other, before=before), proof))
    assert not any(await member.port.hold(b"B" * 16, [each.item(0) for each in everybody]))
    return before, other, open_request(other, everybody, before=before)


def test_streams_of_one_session_keep_no_other_waiting(tmp_path: Path) -> None:
    """What they show is public, and holds."""

    async def run() -> None:
        limits = CommitteeLimits(max_openings=2, max_openings_of_session=1)
        async with serving_member(tmp_path, limits=limits) as member:
            before, other, request = await two_sessions(member)
            shown = evidence_of(SESSION, before[2], other.entry)
            calls = [stub(member).OpenSum(silent_after(first_message(shown)), timeout=20) for _ in range(8)]
            session = await member.host.find(ID)
            openings = member.servicer.openings
            await until(lambda: openings.taken + openings.waiting == 8)
            answer = await asyncio.wait_for(member.port.open(b"B" * 16, request), 5)
            assert isinstance(answer.statement, MemberAnswer)
            assert isinstance(session.driver.state, Holding)
            for call in calls:
                call.cancel()

    asyncio.run(run())


def test_streams_of_answered_sessions_keep_none_waiting_that_is_to_be_answered(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path, limits=ONE_PLACE) as member:
            before, other, request = await two_sessions(member)
            shown = open_request(SESSION, EVERYBODY, before[2], other.entry)
            await member.port.open(ID, shown)
            silent = stub(member).OpenSum(silent_after(first_message(shown.evidence)), timeout=20)
            await until(lambda: member.servicer.openings.taken + member.servicer.repetitions.taken == 1)
            assert isinstance((await member.port.open(b"B" * 16, request)).statement, MemberAnswer)
            silent.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("refused_at", ["the evidence", "the headers"])
def test_a_refusal_reaches_a_client_that_is_still_sending(tmp_path: Path, refused_at: str) -> None:
    """What it sends is more than lies in buffers anywhere."""

    async def run() -> None:
        async with serving_member(tmp_path) as member:
            await join(member)
            witnesses = () if refused_at == "the evidence" else (one_shot.WITNESS,)

            async def messages():
                yield first_message(evidence_of(SESSION, witnesses=witnesses))
                for _ in range(64):
                    yield opb.OpenSumRequest(contributions=[b"x" * 4096] * 256)

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub(member).OpenSum(messages(), timeout=20)
            expected = RejectReason.LOG_UNWITNESSED if refused_at == "the evidence" else RejectReason.COHORT_FULL
            refusal = from_rpc_error(caught.value)
            assert isinstance(refusal, RemoteProtocolError)
            assert refusal.reason is expected

    asyncio.run(run())
