"""A committee member over real gRPC with TLS and its state on disk; and over stores that fail at every call."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from secagg.crypto.signing import verify_statement
from secagg.identity.cards import MemberCard
from secagg.identity.channels import channel_to
from secagg.identity.config import ReflectionAudience
from secagg.institutions import GrpcMember, Institutions
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.member_states import Answered, Holding, Over
from secagg.protocol.one_shot.messages import HeldBox, OpenRequest
from secagg.runtime.committee_member import CommitteeMemberHost
from secagg.runtime.log_trust import ForgetfulMemory
from secagg.runtime.member_ports import MemberPorts
from secagg.runtime.memory import MemorySessionStore
from secagg.runtime.memory_boxes import MemoryBoxStore, MemoryJournal
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import StaleStoreError, StoreError
from secagg.store.member_state import MemberState
from secagg.transcript.merkle import leaf_hash
from secagg.transcript.record import RecordError
from secagg.transcript.statements import MemberAnswer
from secagg.v1 import opening_pb2 as opb
from secagg.v1 import opening_pb2_grpc as opb_grpc
from secagg.wire import convert
from tests.support import one_shot
from tests.support.cohort import VirtualClock
from tests.support.committee_service import RunningMember, serving_member
from tests.support.faults import FaultTime, FaultyStore
from tests.support.one_shot import abort_of, close_of, evidence_of, honest_session, open_request, shown_files

SESSION, EVERYBODY = honest_session()
ID = SESSION.parameters.session


async def join(member: RunningMember) -> None:
    await member.port.join(ID, shown_files(SESSION, evidence_of(SESSION)))


async def hold(member: RunningMember, place: int = 0, among=EVERYBODY) -> tuple[str, ...]:
    return await member.port.hold(ID, [each.item(place) for each in among])


async def refused(call) -> RejectReason:
    with pytest.raises(RemoteProtocolError) as caught:
        await call
    return caught.value.reason


@pytest.mark.parametrize("place", [0, 3])
def test_a_session_from_join_to_answer_and_what_is_left_of_it(tmp_path: Path, place: int) -> None:
    async def run() -> None:
        async with serving_member(tmp_path, place) as member:
            assert await member.port.log_size(one_shot.ORIGIN) == 0
            await join(member)
            assert await member.port.log_size(one_shot.ORIGIN) == 2
            assert await hold(member, place) == ("",) * 5
            boxes = tmp_path / "state" / "boxes" / ID.hex() / "boxes"
            sealed = boxes.read_bytes()
            assert all(each.boxes[place] in sealed for each in EVERYBODY)
            request = open_request(SESSION, EVERYBODY[:4])
            answer = await member.port.open(ID, request)
            expected = one_shot.share_sum(SESSION, EVERYBODY[:4], place)
            assert isinstance(answer.statement, MemberAnswer)
            assert answer.statement.share_sum == expected
            verify_statement(member.card.identity, answer.statement.to_bytes(), answer.signature)
            assert await member.port.open(ID, request) == answer
            assert member.outcomes() == ["ANSWERED"]
            assert not boxes.exists()
        async with serving_member(tmp_path, place) as member:
            assert await member.port.open(ID, request) == answer
            assert member.outcomes() == ["ANSWERED"]

    asyncio.run(run())


def test_answers_of_enough_members_open_the_sum_of_exactly_the_closed_set(tmp_path: Path) -> None:
    async def run() -> None:
        import numpy as np

        from secagg.arith.seeded_shamir import reconstruct_sum, shares_from_bytes

        chosen, sums = EVERYBODY[1:], []
        for place in (0, 1, 3):
            async with serving_member(tmp_path / str(place), place) as member:
                await join(member)
                await hold(member, place)
                answer = await member.port.open(ID, open_request(SESSION, chosen))
                assert isinstance(answer.statement, MemberAnswer)
                sums.append(shares_from_bytes(answer.statement.share_sum))
        secret = reconstruct_sum(np.array([1, 2, 4], dtype=np.uint64), np.stack(sums), 100)
        assert np.array_equal(secret, sum(each.secret for each in chosen))

    asyncio.run(run())


def test_one_bad_item_of_a_batch_leaves_the_others_alone(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path) as member:
            await join(member)
            stranger = one_shot.contribute(SESSION, one_shot.key_of("stranger"))
            swapped = HeldBox(EVERYBODY[1].signed, EVERYBODY[2].boxes[0])
            other = one_shot.contribute(SESSION, EVERYBODY[0].key, seed=b"other")
            items = [EVERYBODY[0], stranger, EVERYBODY[3], other, EVERYBODY[0]]
            batch = [each.item(0) for each in items]
            batch.insert(2, swapped)
            verdicts = await member.port.hold(ID, batch)
            assert verdicts == ("", "UNKNOWN_IDENTITY", "WRONG_PARTS", "", "EQUIVOCATION", "")
            session = await member.host.find(ID)
            assert len(session.rows) == 3
            assert (tmp_path / "state" / "boxes" / ID.hex() / "boxes").stat().st_size == 2 * len(batch[0].box)

    asyncio.run(run())


def test_an_item_that_does_not_decode_gets_a_verdict_of_its_own(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path) as member:
            await join(member)
            good = EVERYBODY[0].item(0)
            items = [(b"{}", good.box), (good.signed.to_bytes(), good.box), (b"x" * 5000, b"")]
            request = opb.HoldSharesRequest(
                session=ID, items=[opb.HoldSharesRequest.Item(signed=signed, box=box) for signed, box in items]
            )
            response = await stub(member).HoldShares(request, timeout=20)
            assert [each.complaint for each in response.verdicts] == ["MALFORMED_MESSAGE", "", "MALFORMED_MESSAGE"]

    asyncio.run(run())


def stub(member: RunningMember) -> opb_grpc.CommitteeServiceStub:
    return opb_grpc.CommitteeServiceStub(member.port._channel)


def test_a_batch_is_cut_below_a_megabyte_and_every_item_has_its_verdict(tmp_path: Path) -> None:
    async def run() -> None:
        keys = one_shot.contributor_keys(70)
        session = one_shot.session_of(keys, max_contributors=128)
        key = session.parameters.session
        everybody = [one_shot.contribute(session, each) for each in keys]
        async with serving_member(tmp_path, 3) as member:
            await member.port.join(key, shown_files(session, evidence_of(session)))
            calls = []
            inner = member.port._stub.HoldShares

            def counted(request, timeout):
                calls.append(request.ByteSize())
                return inner(request, timeout=timeout)

            member.port._stub.HoldShares = counted
            assert await member.port.hold(key, [each.item(3) for each in everybody]) == ("",) * 70
            assert len(calls) == 2
            assert max(calls) <= (1 << 20) + 4096
            answer = await member.port.open(key, open_request(session, everybody))
            assert isinstance(answer.statement, MemberAnswer)
            assert answer.statement.share_sum == one_shot.share_sum(session, everybody, 3)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        (0, "session: expected a first message"),
        (["later session"], "session: only in the first message"),
        (["later evidence"], "evidence: only in the first message"),
        (["long header"], "contributions[0]: expected 1 to 4096 bytes"),
        (["empty header"], "contributions[0]: expected 1 to 4096 bytes"),
        (["many"], "contributions: more than 5"),
        (["more than held"], "contributions: more than the 4 that are held"),
    ],
)
def test_a_stream_that_is_no_closed_set_is_refused_with_its_field(tmp_path: Path, pieces, reason: str) -> None:
    async def run() -> None:
        async with serving_member(tmp_path) as member:
            await join(member)
            await hold(member, among=EVERYBODY[:4])
            first = opb.OpenSumRequest(session=ID, evidence=convert.log_evidence_to_pb(evidence_of(SESSION)))
            second = {
                "later session": opb.OpenSumRequest(session=ID),
                "later evidence": opb.OpenSumRequest(evidence={}),
                "long header": opb.OpenSumRequest(contributions=[b"x" * 4097]),
                "empty header": opb.OpenSumRequest(contributions=[b""]),
                "many": opb.OpenSumRequest(contributions=[b"x"] * 6),
                "more than held": opb.OpenSumRequest(contributions=[b"x"] * 5),
            }
            messages = [first, second[pieces[0]]] if pieces else []
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub(member).OpenSum(iter(messages), timeout=20)
            assert reason in (caught.value.details() or "")

    asyncio.run(run())


def test_what_was_not_joined_is_unknown_and_what_is_no_session_of_ours_is_not_joined(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path) as member:
            assert await refused(member.port.hold(ID, [EVERYBODY[0].item(0)])) is RejectReason.UNKNOWN_SESSION
            request = open_request(SESSION, EVERYBODY)
            assert await refused(member.port.open(ID, request)) is RejectReason.UNKNOWN_SESSION
            files = shown_files(SESSION, evidence_of(SESSION))
            assert await refused(member.port.join(bytes(16), files)) is RejectReason.LOG_MISMATCH
            unsigned = dataclasses.replace(files, roster_signature=bytes(64))
            assert await refused(member.port.join(ID, unsigned)) is RejectReason.MALFORMED_MESSAGE
            fewer = dataclasses.replace(files, roster=files.roster[:-1])
            assert await refused(member.port.join(ID, fewer)) is RejectReason.MALFORMED_MESSAGE
            empty = dataclasses.replace(files, evidence=dataclasses.replace(files.evidence, entries=()))
            assert await refused(member.port.join(ID, empty)) is RejectReason.LOG_ORDER
            unseen = shown_files(SESSION, evidence_of(SESSION, witnesses=()))
            assert await refused(member.port.join(ID, unseen)) is RejectReason.LOG_UNWITNESSED

    asyncio.run(run())


def test_joining_again_brings_the_news_of_the_log_and_an_abort_ends_the_session(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path) as member:
            await join(member)
            await join(member)
            await hold(member)
            ended = evidence_of(SESSION, close_of(SESSION, EVERYBODY), abort_of(SESSION))
            await member.port.join(ID, shown_files(SESSION, ended))
            assert (await member.host.find(ID)).driver.state == Over(RejectReason.ABORTED)
            assert not (tmp_path / "state" / "boxes" / ID.hex() / "boxes").exists()
            assert await refused(hold(member)) is RejectReason.ABORTED
            request = open_request(SESSION, EVERYBODY, close_of(SESSION, EVERYBODY), abort_of(SESSION))
            assert await refused(member.port.open(ID, request)) is RejectReason.ABORTED
            assert member.outcomes() == ["ABORTED"]

    asyncio.run(run())


def test_a_session_past_its_retention_is_forgotten(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path) as member:
            await join(member)
            await hold(member)
            member.clock.time_s += 239
            await member.host.sweep()
            assert isinstance((await member.host.find(ID)).driver.state, Holding)
            member.clock.time_s += 1
            await member.host.sweep()
            assert (await member.host.find(ID)).driver.state == Over(RejectReason.SESSION_OVER)
            assert member.state.boxes.sessions() == []

    asyncio.run(run())


def test_two_sessions_of_one_log_are_tied_together_by_consistency_proofs(tmp_path: Path) -> None:
    async def run() -> None:
        from secagg.transcript import merkle

        other = one_shot.session_of([each.key for each in EVERYBODY], session=b"B" * 16)
        before = [one_shot.signed_roster(SESSION).to_bytes(), SESSION.entry, b"1", b"2"]
        hashes = [leaf_hash(entry) for entry in (*before, other.entry)]
        async with serving_member(tmp_path) as member:
            await join(member)
            size = await member.port.log_size(one_shot.ORIGIN)
            evidence = evidence_of(other, before=before)
            for wrong in ((), merkle.consistency_proof(hashes, 3)):
                reason = await refused(member.port.join(b"B" * 16, shown_files(other, evidence, wrong)))
                assert reason is RejectReason.LOG_FORKED
            await member.port.join(b"B" * 16, shown_files(other, evidence, merkle.consistency_proof(hashes, size)))
            # What the first session's log showed is shorter than what was seen by now: it has to be shown anew.
            request = open_request(SESSION, EVERYBODY)
            assert await refused(member.port.open(ID, request)) is RejectReason.LOG_FORKED

    asyncio.run(run())


@pytest.mark.parametrize("audience", [ReflectionAudience.NOBODY, ReflectionAudience.EVERYONE])
def test_the_server_says_that_it_serves_and_lists_its_services_to_everyone_if_told_so(tmp_path: Path, audience) -> None:
    async def listed(member: RunningMember) -> set[str]:
        asking = reflection_pb2_grpc.ServerReflectionStub(member.port._channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [each async for each in asking.ServerReflectionInfo(iter([question]), timeout=20)]
        return {service.name for service in answers[0].list_services_response.service}

    async def run() -> None:
        async with serving_member(tmp_path, reflect_to=audience) as member:
            health = health_pb2_grpc.HealthStub(member.port._channel)
            request = health_pb2.HealthCheckRequest(service="secagg.v1.CommitteeService")
            assert (await health.Check(request, timeout=20)).status == health_pb2.HealthCheckResponse.SERVING
            if audience is ReflectionAudience.EVERYONE:
                assert "secagg.v1.CommitteeService" in await listed(member)
                return
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await listed(member)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(run())


def test_another_certificate_is_not_talked_to_and_other_keys_are_noticed(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path / "a", 0) as member, serving_member(tmp_path / "b", 1) as other:
            wrong = dataclasses.replace(member.card, certificate=other.card.certificate)
            port = GrpcMember(wrong, 5.0)
            with pytest.raises(TransportError):
                await port.log_size(one_shot.ORIGIN)
            await port.close()
            renamed = dataclasses.replace(other.card, address=member.card.address, certificate=member.card.certificate)
            port = GrpcMember(renamed, 5.0)
            assert await refused(port.log_size(one_shot.ORIGIN)) is RejectReason.BAD_KEY
            await port.close()

    asyncio.run(run())


def test_a_member_that_is_away_is_unreachable_and_found_again_when_it_is_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path) as member:
            card = member.card
        port = GrpcMember(card, 2.0)
        with pytest.raises(TransportError):
            await port.log_size(one_shot.ORIGIN)
        await port.close()

    asyncio.run(run())


def test_the_directory_of_institutions_finds_members_by_their_cards(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path) as member, Institutions(20.0) as institutions:
            (first,) = institutions.members([member.card.to_bytes()])
            (again,) = institutions.members([member.card.to_bytes() + b"\n"])
            assert first is again
            assert await first.log_size(one_shot.ORIGIN) == 0
            with pytest.raises(RecordError) as caught:
                institutions.members([member.card.to_bytes(), b"{}"])
            assert caught.value.field.startswith("cards[1]")

    asyncio.run(run())


def test_a_request_that_is_no_protobuf_is_refused_as_bad_input(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path) as member:
            channel = channel_to(member.card.address, member.card.tls())
            call = channel.unary_unary("/secagg.v1.CommitteeService/GetMember")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"\xff\xff", timeout=20)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            await channel.close()

    asyncio.run(run())


def test_no_share_lies_on_the_disk_in_the_clear(tmp_path: Path) -> None:
    async def run() -> None:
        from secagg.derive.member_boxes import member_box_info

        async with serving_member(tmp_path, 0) as member:
            await join(member)
            await hold(member)
        plaintexts = []
        for each in EVERYBODY:
            info = member_box_info(SESSION.digest, each.key.public_bytes, 0)
            plaintexts.append(one_shot.sealing_key(0).open(each.boxes[0], info).expose())
        for path in tmp_path.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert not any(seed in data or seed.hex().encode() in data for seed in plaintexts)

    asyncio.run(run())


# Restored members.


def test_a_copied_state_is_refused_until_the_operator_says_so_and_then_opens_nothing_of_before(tmp_path: Path) -> None:
    import shutil

    async def run() -> None:
        async with serving_member(tmp_path / "m") as member:
            await join(member)
            await hold(member)
        home, backup = tmp_path / "m", tmp_path / "backup"
        shutil.copytree(home / "state", backup)
        async with serving_member(home) as member:
            await member.port.open(ID, open_request(SESSION, EVERYBODY))
        shutil.rmtree(home / "state")
        shutil.copytree(backup, home / "state")
        with pytest.raises(StaleStoreError):
            async with serving_member(home):
                pass
        assert MemberState.accept_restored(home / "state", one_shot.NOW_S) == 1
        later = one_shot.session_of(
            [each.key for each in EVERYBODY], session=b"L" * 16, opened_at_s=one_shot.NOW_S + 601
        )
        unknown = one_shot.session_of(
            [each.key for each in EVERYBODY], session=b"U" * 16, opened_at_s=one_shot.NOW_S + 600
        )
        async with serving_member(home) as member:
            member.clock.time_s += 601
            assert await refused(join(member)) is RejectReason.OPENED_BEFORE
            assert await refused(hold(member)) is RejectReason.OPENED_BEFORE
            request = open_request(SESSION, EVERYBODY[:4])
            assert await refused(member.port.open(ID, request)) is RejectReason.OPENED_BEFORE
            assert member.state.boxes.sessions() == []
            before = [one_shot.signed_roster(SESSION).to_bytes(), SESSION.entry]
            for session, key in ((unknown, b"U" * 16), (later, b"L" * 16)):
                from secagg.transcript import merkle

                proof = merkle.consistency_proof([leaf_hash(each) for each in (*before, session.entry)], 2)
                call = member.port.join(key, shown_files(session, evidence_of(session, before=before), proof))
                if session is unknown:
                    assert await refused(call) is RejectReason.OPENED_BEFORE
                else:
                    await call
        async with serving_member(home) as member:
            assert isinstance((await member.host.find(b"L" * 16)).driver.state, Holding)

    asyncio.run(run())


def test_a_state_that_is_gone_or_emptied_is_not_made_anew(tmp_path: Path) -> None:
    import shutil

    async def run() -> None:
        async with serving_member(tmp_path) as member:
            await join(member)
        shutil.rmtree(tmp_path / "state")
        for make in (lambda: None, (tmp_path / "state").mkdir):
            make()
            with pytest.raises(StaleStoreError, match="--restored"):
                MemberState(tmp_path / "state")
        assert MemberState.accept_restored(tmp_path / "state", one_shot.NOW_S) == 0
        async with serving_member(tmp_path) as member:
            assert await refused(join(member)) is RejectReason.OPENED_BEFORE

    asyncio.run(run())


# A store that fails at the n-th call, before or after it took effect, for every n.


class FaultyBoxes:
    """Boxes whose ``fail_at``-th call that writes or reads raises, before or after it took effect."""

    def __init__(self, inner: MemoryBoxStore, fail_at: int, when: FaultTime) -> None:
        self._inner, self._fail_at, self._when = inner, fail_at, when
        self.calls = 0

    def __getattr__(self, name: str):
        method = getattr(self._inner, name)

        def call(*args):
            self.calls += 1
            fails = self.calls == self._fail_at
            if fails and self._when is FaultTime.BEFORE:
                raise StoreError(f"{name}, before")
            answer = method(*args)
            if fails:
                raise StoreError(f"{name}, after")
            return answer

        return call


@dataclasses.dataclass
class Disk:
    """What survives the processes of one member."""

    sessions: MemorySessionStore = dataclasses.field(default_factory=MemorySessionStore)
    boxes: MemoryBoxStore = dataclasses.field(default_factory=MemoryBoxStore)
    journal: MemoryJournal = dataclasses.field(default_factory=MemoryJournal)
    answers: list[bytes] = dataclasses.field(default_factory=list)

    def host(self, store=None, boxes=None) -> CommitteeMemberHost:
        ports = MemberPorts(
            store=store or self.sessions,
            boxes=boxes or self.boxes,
            journal=self.journal,
            clock=VirtualClock(),
            key=one_shot.member_key(3),
            sealing_key=one_shot.sealing_key(3),
            rules=one_shot.rules_of(),
            policy=one_shot.LogPolicy.without_witnesses(),
            memory_of=lambda *_: ForgetfulMemory(),
            report=lambda *_: None,
        )
        return CommitteeMemberHost(ports)

    async def life(self, store, boxes, request: OpenRequest) -> None:
        """One process: everything a coordinator asks for; it ends with the first failure."""
        host = self.host(store, boxes)
        try:
            await host.start()
            try:
                session = await host.find(ID)
            except RemoteProtocolError:
                await host.join(ID, shown_files(SESSION, evidence_of(SESSION)), SESSION.roster)
                session = await host.find(ID)
            items = [each.item(3) for each in EVERYBODY]
            for batch in (items[:3], items[3:]):
                if isinstance(session.driver.state, Holding):
                    assert not any(await session.hold(batch))
            leaves = b"".join(map(leaf_hash, request.contributions))
            async with asyncio.timeout(5):
                answer = await session.open(request.evidence, leaves)
            self.answers.append(answer.to_bytes())
        except (StoreError, RemoteProtocolError, TimeoutError):
            pass
        finally:
            await host.close()


@pytest.mark.parametrize("when", FaultTime)
@pytest.mark.parametrize("faulty", ["store", "boxes"])
def test_a_member_that_dies_at_any_call_never_gives_two_answers(when: FaultTime, faulty: str) -> None:
    """Its coordinator forks the log: after every crash it asks for another set. No witness is asked for."""
    sets = [EVERYBODY, EVERYBODY[:4], EVERYBODY[1:]]

    async def run() -> int:
        for fail_at in range(1, 60):
            disk = Disk()
            store = FaultyStore(disk.sessions, fail_at, when) if faulty == "store" else None
            boxes = FaultyBoxes(disk.boxes, fail_at, when) if faulty == "boxes" else None
            await disk.life(store, boxes, open_request(SESSION, sets[0], witnesses=()))
            await disk.life(None, None, open_request(SESSION, sets[1], witnesses=()))
            await disk.life(None, None, open_request(SESSION, sets[2], witnesses=()))
            await disk.life(None, None, open_request(SESSION, sets[0], witnesses=()))
            assert len(set(disk.answers)) <= 1, fail_at
            assert disk.answers, fail_at
            answered = [line for line in disk.journal.lines if line.outcome == "ANSWERED"]
            assert len(answered) == 1
            stored = await disk.sessions.load(ID)
            assert stored is not None
            from secagg.protocol.one_shot.member_states import MEMBER_PERSISTENCE

            assert isinstance(MEMBER_PERSISTENCE.decode(stored.state), Answered)
            assert ID not in disk.boxes.sessions()
            calls = store.calls if store is not None else boxes.calls
            if calls < fail_at:
                return fail_at
        raise AssertionError("more calls than expected")

    assert asyncio.run(run()) > 5


def test_a_damaged_box_is_reported_and_gives_no_answer(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving_member(tmp_path) as member:
            await join(member)
            await hold(member)
            path = tmp_path / "state" / "boxes" / ID.hex() / "boxes"
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(bytes(data))
            request = open_request(SESSION, EVERYBODY)
            assert await refused(member.port.open(ID, request)) is RejectReason.SHARE_NOT_HELD
            assert [report[0] for report in member.reports] == ["box_damaged"]
            assert member.outcomes() == ["SHARE_NOT_HELD"]

    asyncio.run(run())


def test_a_card_says_what_its_server_is() -> None:
    card = MemberCard.of(one_shot.committee_of().members[0], "127.0.0.1:7445", "")
    assert card.member() == one_shot.committee_of().members[0]
    for changes in ({"address": "a.example:7445"}, {"address": "127.0.0.1:0"}, {"certificate": "none"}):
        with pytest.raises(RecordError):
            dataclasses.replace(card, **changes)
    with pytest.raises(RecordError):
        dataclasses.replace(card, sealing_key=bytes(1216))
    with pytest.raises(RecordError) as caught:
        dataclasses.replace(card, sealing_key=one_shot.sealing_key(1).public_bytes)
    assert caught.value.field == "member-card.binding"


@pytest.mark.parametrize("damage", ["no row of its own", "a row that does not decode", "a state that does not decode"])
def test_a_damaged_session_is_reported_and_keeps_no_member_from_starting(damage: str) -> None:
    async def run() -> None:
        disk, reports = Disk(), []
        first = disk.host()
        await first.start()
        await first.join(ID, shown_files(SESSION, evidence_of(SESSION)), SESSION.roster)
        await first.close()
        stored = await disk.sessions.load(ID)
        damaged = {
            "no row of its own": dataclasses.replace(stored, rows={}),
            "a row that does not decode": dataclasses.replace(stored, rows=dict.fromkeys(stored.rows, b"\xc1")),
            "a state that does not decode": dataclasses.replace(stored, state=b"\xc1"),
        }[damage]

        async def load(_: bytes):
            return damaged

        disk.sessions.load = load
        host = disk.host()
        host.ports = dataclasses.replace(host.ports, report=lambda *report: reports.append(report))
        await host.start()
        assert [(event, key) for event, key, _ in reports] == [("session_unreadable", ID)]
        with pytest.raises(StoreError):
            await host.find(ID)
        await host.close()

    asyncio.run(run())
