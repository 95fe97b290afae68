"""A committee member's real service under attack, by whoever reaches its port, by its coordinator, and by accidents."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from secagg.identity.channels import channel_to
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.member import CLOCK_TOLERANCE_S
from secagg.protocol.one_shot.member_states import Answering, Over
from secagg.protocol.one_shot.messages import OpenRequest
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import StoreError
from secagg.transcript.entries import SessionEntry
from secagg.transcript.evidence import LogEvidence
from secagg.transcript.merkle import consistency_proof, leaf_hash
from secagg.transcript.policy import LogPolicy
from secagg.transcript.statements import MemberAnswer
from secagg.v1 import opening_pb2 as opb
from secagg.v1 import opening_pb2_grpc as opb_grpc
from secagg.wire import convert
from tests.support import one_shot
from tests.support.committee_service import RunningMember, serving_member
from tests.support.one_shot import (
    WITNESSED,
    Contribution,
    close_of,
    evidence_of,
    honest_session,
    open_request,
    shown_files,
    signed_roster,
)

SESSION, EVERYBODY = honest_session(6)
ID = SESSION.parameters.session
ALONE = LogPolicy.without_witnesses()


@contextlib.asynccontextmanager
async def holding(home: Path, policy: LogPolicy = WITNESSED, place: int = 0) -> AsyncIterator[RunningMember]:
    """A member that holds the shares of everybody."""
    async with serving_member(home, place, policy=policy) as member:
        await member.port.join(ID, shown_files(SESSION, evidence_of(SESSION)))
        assert set(await member.port.hold(ID, [each.item(place) for each in EVERYBODY])) == {""}
        yield member


@contextlib.asynccontextmanager
async def stranger_to(member: RunningMember) -> AsyncIterator[opb_grpc.CommitteeServiceStub]:
    """A connection of somebody who is nobody."""
    channel = channel_to(member.card.address, member.card.tls())
    try:
        yield opb_grpc.CommitteeServiceStub(channel)
    finally:
        await channel.close()


async def refused(member: RunningMember, request: OpenRequest) -> RejectReason:
    with pytest.raises(RemoteProtocolError) as caught:
        await member.port.open(ID, request)
    return caught.value.reason


class TestWhoeverReachesThePort:
    def test_streams_that_say_nothing_keep_no_coordinator_waiting(self, tmp_path: Path) -> None:
        """All that a stranger has to know is a session's identifier, which is public."""

        async def idle() -> AsyncIterator[opb.OpenSumRequest]:
            yield opb.OpenSumRequest(session=ID)
            await asyncio.Event().wait()

        async def run() -> None:
            async with holding(tmp_path) as member, stranger_to(member) as stub:
                calls = [stub.OpenSum(idle(), timeout=60) for _ in range(16)]
                await asyncio.sleep(1.0)
                try:
                    answer = await asyncio.wait_for(member.port.open(ID, open_request(SESSION, EVERYBODY)), 5)
                finally:
                    for call in calls:
                        call.cancel()
                assert isinstance(answer.statement, MemberAnswer)

        asyncio.run(run())

    def test_a_stream_of_more_headers_than_the_roster_has_people_is_cut_off(self, tmp_path: Path) -> None:
        """32 bytes are kept of each header of one byte: up to 8 GiB a stream where n_max is 2^28."""
        session = one_shot.session_of([each.key for each in EVERYBODY], max_contributors=2**20)

        def endless() -> Iterator[opb.OpenSumRequest]:
            evidence = convert.log_evidence_to_pb(evidence_of(session))
            yield opb.OpenSumRequest(session=ID, evidence=evidence)
            for _ in range(20):
                yield opb.OpenSumRequest(contributions=[b"x"] * 10_000)

        async def run() -> None:
            async with serving_member(tmp_path) as member, stranger_to(member) as stub:
                await member.port.join(ID, shown_files(session, evidence_of(session)))
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.OpenSum(endless(), timeout=20)
                assert RejectReason.COHORT_FULL.value in (caught.value.details() or ""), caught.value.details()

        asyncio.run(run())

    def test_old_evidence_that_is_replayed_changes_nothing(self, tmp_path: Path) -> None:
        """The log is public: anybody can show a member any part of its past."""

        async def run() -> None:
            async with holding(tmp_path, ALONE) as member:
                close = close_of(SESSION, EVERYBODY)
                await member.port.join(ID, shown_files(SESSION, evidence_of(SESSION, close)))
                with pytest.raises(RemoteProtocolError) as caught:
                    await member.port.join(ID, shown_files(SESSION, evidence_of(SESSION)))
                assert caught.value.reason is RejectReason.LOG_FORKED
                answer = await member.port.open(ID, open_request(SESSION, EVERYBODY, close))
                assert answer.statement.share_sum == one_shot.share_sum(SESSION, EVERYBODY, 0)
                assert await refused(member, open_request(SESSION, EVERYBODY[1:])) is RejectReason.LOG_FORKED

        asyncio.run(run())


def second_opening(*more: bytes | SessionEntry) -> LogEvidence:
    """One log, cosigned, in which the session is opened, closed over all, and opened again; shown from there on."""
    return evidence_of(SESSION, *more, before=hidden())


def hidden() -> list[bytes]:
    return [signed_roster(SESSION).to_bytes(), SESSION.entry, close_of(SESSION, EVERYBODY).to_bytes()]


class TestASessionThatIsOpenedTwiceInOneLog:
    """What a member is shown begins with an open entry of the session: is it the first?"""

    OTHER: tuple[Contribution, ...] = EVERYBODY[1:]

    def asking_for_the_second(self) -> OpenRequest:
        return OpenRequest(second_opening(close_of(SESSION, self.OTHER)), tuple(each.leaf for each in self.OTHER))

    @pytest.mark.parametrize("policy", [WITNESSED, ALONE], ids=["witnessed", "alone"])
    def test_whoever_answered_the_first_does_not_look_at_the_second(self, tmp_path: Path, policy: LogPolicy) -> None:
        async def run() -> None:
            async with holding(tmp_path, policy) as member:
                await member.port.open(ID, open_request(SESSION, EVERYBODY))
                assert await refused(member, self.asking_for_the_second()) is RejectReason.OPENED_BEFORE
                with pytest.raises(RemoteProtocolError) as caught:
                    await member.port.join(ID, shown_files(SESSION, second_opening()))
                assert caught.value.reason is RejectReason.OPENED_BEFORE

        asyncio.run(run())

    def test_whoever_joined_the_first_and_did_not_answer_yet_neither(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with holding(tmp_path) as member:
                assert await refused(member, self.asking_for_the_second()) is RejectReason.LOG_FORKED
                answer = await member.port.open(ID, open_request(SESSION, EVERYBODY))
                assert answer.statement.share_sum == one_shot.share_sum(SESSION, EVERYBODY, 0)

        asyncio.run(run())

    def test_whoever_joined_the_second_answers_it_alone(self, tmp_path: Path) -> None:
        """A member gives one answer, whichever: two different sums then need more members than there are."""

        async def run() -> None:
            async with serving_member(tmp_path, place=1) as member:
                await member.port.join(ID, shown_files(SESSION, second_opening()))
                assert set(await member.port.hold(ID, [each.item(1) for each in EVERYBODY])) == {""}
                assert await refused(member, open_request(SESSION, EVERYBODY)) is RejectReason.LOG_FORKED
                answer = await member.port.open(ID, self.asking_for_the_second())
                assert answer.statement.share_sum == one_shot.share_sum(SESSION, self.OTHER, 1)
                assert await refused(member, open_request(SESSION, EVERYBODY)) is RejectReason.LOG_FORKED

        asyncio.run(run())

    def test_a_log_that_shows_both_is_nobody_s(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with holding(tmp_path) as member:
                both = (close_of(SESSION, EVERYBODY), SESSION.entry, close_of(SESSION, self.OTHER))
                assert await refused(member, open_request(SESSION, self.OTHER, *both)) is RejectReason.LOG_ORDER

        asyncio.run(run())


class TestTheFirstCloseInPieces:
    def test_a_close_whose_set_was_never_named_right_is_still_the_first(self, tmp_path: Path) -> None:
        """Shown by a request that fails; the next shows a longer log of another session's, and then another close."""

        async def run() -> None:
            other = one_shot.session_of([each.key for each in EVERYBODY], session=b"O" * 16)
            async with holding(tmp_path, ALONE) as member:
                first = close_of(SESSION, EVERYBODY)
                wrong = OpenRequest(evidence_of(SESSION, first), tuple(each.leaf for each in EVERYBODY[1:]))
                assert await refused(member, wrong) is RejectReason.LOG_MISMATCH
                for entries in (
                    (other, close_of(SESSION, EVERYBODY[1:])),
                    (first, other, close_of(SESSION, EVERYBODY[1:])),
                ):
                    shown = [entry.entry if entry is other else entry for entry in entries]
                    request = open_request(SESSION, EVERYBODY[1:], *shown)
                    assert await refused(member, request) in {RejectReason.LOG_FORKED, RejectReason.LOG_ORDER}
                answer = await member.port.open(ID, open_request(SESSION, EVERYBODY, first, other.entry))
                assert answer.statement.share_sum == one_shot.share_sum(SESSION, EVERYBODY, 0)

        asyncio.run(run())

    def test_a_pairwise_close_of_the_session_is_no_close(self, tmp_path: Path) -> None:
        async def run() -> None:
            from secagg.transcript.entries import SessionClose

            close = close_of(SESSION, EVERYBODY)
            plain = SessionClose(
                close.session, close.count, 0, 0, close.contributions, close.dispositions, close.limb_sum
            )
            async with holding(tmp_path, ALONE) as member:
                assert await refused(member, open_request(SESSION, EVERYBODY, plain)) is RejectReason.LOG_ORDER
                assert await refused(member, open_request(SESSION, EVERYBODY, plain, close)) is RejectReason.LOG_ORDER

        asyncio.run(run())


class TestBackupsAndDisks:
    def test_what_could_be_joined_before_a_restore_cannot_be_joined_after_it(self) -> None:
        """At the latest date that was allowed, and answered; then restored from a backup of before, fast."""
        date_s = one_shot.NOW_S + CLOCK_TOLERANCE_S
        session = one_shot.session_of([each.key for each in EVERYBODY], opened_at_s=date_s)
        one_shot.rules_of().check(session.parameters, one_shot.NOW_S)
        with pytest.raises(RemoteProtocolError) as caught:
            one_shot.rules_of(restored_at_s=one_shot.NOW_S).check(session.parameters, one_shot.NOW_S)
        assert caught.value.reason is RejectReason.OPENED_BEFORE

    def test_one_damaged_roster_keeps_no_other_session_from_being_served(self, tmp_path: Path) -> None:
        async def run() -> None:
            other = one_shot.session_of([each.key for each in EVERYBODY], session=b"O" * 16)
            async with holding(tmp_path) as member:
                before = [signed_roster(SESSION).to_bytes(), SESSION.entry]
                hashes = [leaf_hash(each) for each in (*before, other.entry)]
                files = shown_files(other, evidence_of(other, before=before), consistency_proof(hashes, 2))
                await member.port.join(b"O" * 16, files)
            (tmp_path / "state" / "boxes" / ID.hex() / "roster.jsonl").write_bytes(b"\0" * 100)
            async with serving_member(tmp_path) as member:
                assert (await member.host.find(b"O" * 16)).context.session.entry == other.entry

        asyncio.run(run())

    def test_a_session_whose_boxes_are_gone_ends_when_its_time_is_over(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with holding(tmp_path) as member:
                (tmp_path / "state" / "boxes" / ID.hex() / "boxes").unlink()
                asked = asyncio.ensure_future(member.port.open(ID, open_request(SESSION, EVERYBODY)))
                session = await member.host.find(ID)
                while not isinstance(session.driver.state, Answering):
                    await asyncio.sleep(0.01)
                member.clock.time_s = session.keeps_until_s
                await member.host.sweep()
                state = session.driver.state
                asked.cancel()
                with contextlib.suppress(asyncio.CancelledError, TransportError, RemoteProtocolError, StoreError):
                    await asked
                assert isinstance(state, Over)

        asyncio.run(run())
