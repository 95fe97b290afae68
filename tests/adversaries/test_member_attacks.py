"""A coordinator that wants more of a committee member than the sum of one closed set, over the real service.

The member serves with TLS and its state on disk. The coordinator has its own key and can sign any log; where no witness
is asked for it can even show each request another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from secagg.arith.seeded_shamir import shares_from_bytes
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot.messages import OpenRequest
from secagg.runtime.participant import TransportError
from secagg.store.member_state import MemberState
from secagg.transcript.entries import SessionEntry
from secagg.transcript.policy import LogPolicy
from secagg.transcript.statements import MemberAnswer
from tests.support import one_shot
from tests.support.committee_service import RunningMember, serving_member
from tests.support.one_shot import (
    WITNESSED,
    Contribution,
    abort_of,
    close_of,
    evidence_of,
    honest_session,
    open_request,
    shown_files,
)

SESSION, EVERYBODY = honest_session(6)
ID = SESSION.parameters.session
ALONE = LogPolicy.without_witnesses()
"""A member that asks for no witness: only what it remembers itself protects it."""


@contextlib.asynccontextmanager
async def holding(
    home: Path, policy: LogPolicy = WITNESSED, among: Sequence[Contribution] = EVERYBODY
) -> AsyncIterator[RunningMember]:
    """A member that holds the shares of these contributions."""
    async with serving_member(home, policy=policy) as member:
        await member.port.join(ID, shown_files(SESSION, evidence_of(SESSION)))
        assert set(await member.port.hold(ID, [each.item(0) for each in among])) == {""}
        yield member


async def answered(member: RunningMember, chosen: Sequence[Contribution], *entries: SessionEntry) -> bytes:
    """The sum of shares that the member gives away."""
    answer = await member.port.open(ID, asking(chosen, *entries))
    assert isinstance(answer.statement, MemberAnswer)
    return answer.statement.share_sum


def asking(chosen: Sequence[Contribution], *entries: SessionEntry, witnesses=(one_shot.WITNESS,)) -> OpenRequest:
    return open_request(SESSION, chosen, *entries, witnesses=witnesses)


async def refused(member: RunningMember, request: OpenRequest) -> RejectReason:
    with pytest.raises(RemoteProtocolError) as caught:
        await member.port.open(ID, request)
    return caught.value.reason


class TestTwoSets:
    @pytest.mark.parametrize("policy", [WITNESSED, ALONE], ids=["witnessed", "alone"])
    def test_the_difference_of_two_sets_is_nobody_s_share(self, tmp_path: Path, policy: LogPolicy) -> None:
        """Two sums that differ in one contribution would be that contribution's share."""

        async def run() -> None:
            async with holding(tmp_path, policy) as member:
                first = await answered(member, EVERYBODY)
                assert first == one_shot.share_sum(SESSION, EVERYBODY, 0)
                for other in (EVERYBODY[1:], EVERYBODY[:5]):
                    assert await refused(member, asking(other)) is RejectReason.LOG_FORKED
                    both = asking(other, close_of(SESSION, EVERYBODY), close_of(SESSION, other))
                    assert await refused(member, both) is RejectReason.LOG_ORDER
                    same_close = asking(other, close_of(SESSION, EVERYBODY))
                    assert await refused(member, same_close) is RejectReason.LOG_MISMATCH
                assert await answered(member, EVERYBODY) == first

        asyncio.run(run())

    def test_two_sets_asked_for_at_once_get_one_answer(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with holding(tmp_path, ALONE) as member:
                requests = [asking(EVERYBODY[:number], witnesses=()) for number in (6, 5, 4, 3) for _ in range(3)]
                outcomes = await asyncio.gather(
                    *(member.port.open(ID, request) for request in requests), return_exceptions=True
                )
                answers = {each.to_bytes() for each in outcomes if not isinstance(each, BaseException)}
                assert len(answers) == 1
                assert all(isinstance(each, RemoteProtocolError) for each in outcomes if isinstance(each, Exception))

        asyncio.run(run())

    def test_what_the_log_remembers_of_another_session_binds_this_one(self, tmp_path: Path) -> None:
        """The fork is noticed although this session never saw the log that it contradicts."""

        async def run() -> None:
            other = one_shot.session_of([each.key for each in EVERYBODY], session=b"B" * 16)
            close = close_of(SESSION, EVERYBODY).to_bytes()
            async with holding(tmp_path, ALONE) as member:
                before = [one_shot.signed_roster(SESSION).to_bytes(), SESSION.entry]
                size = await member.port.log_size(one_shot.ORIGIN)
                hashes = [one_shot.merkle.leaf_hash(each) for each in (*before, close, other.entry)]
                proof = one_shot.merkle.consistency_proof(hashes, size)
                shown = shown_files(other, evidence_of(other, before=[*before, close]), proof)
                await member.port.join(b"B" * 16, shown)
                longer = (close_of(SESSION, EVERYBODY[1:]), abort_of(other))
                assert await refused(member, asking(EVERYBODY[1:], *longer)) is RejectReason.LOG_FORKED
                # Nor was it taken note of: the log as it is gets its answer.
                honest = open_request(SESSION, EVERYBODY, close, other.entry)
                answer = await member.port.open(ID, honest)
                assert isinstance(answer.statement, MemberAnswer)
                assert answer.statement.share_sum == one_shot.share_sum(SESSION, EVERYBODY, 0)

        asyncio.run(run())

    def test_a_fork_that_the_witness_did_not_cosign_is_refused_from_the_start(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with holding(tmp_path) as member:
                request = asking(EVERYBODY, witnesses=())
                assert await refused(member, request) is RejectReason.LOG_UNWITNESSED
                impostor = one_shot.key_of("impostor")
                assert await refused(member, asking(EVERYBODY, witnesses=(impostor,))) is RejectReason.LOG_UNWITNESSED
                assert member.outcomes() == ["LOG_UNWITNESSED"]

        asyncio.run(run())


class TestTheSet:
    @pytest.mark.parametrize("number", [1, 2])
    def test_fewer_than_the_minimum_are_not_opened_and_end_the_session(self, tmp_path: Path, number: int) -> None:
        async def run() -> None:
            chosen = EVERYBODY[:number]
            # A log entry counts at least two: one contribution is claimed to be two.
            close = close_of(SESSION, chosen, count=2)
            async with holding(tmp_path) as member:
                assert await refused(member, asking(chosen, close)) is RejectReason.BELOW_MINIMUM
                assert await refused(member, asking(EVERYBODY)) is RejectReason.LOG_FORKED
                assert await refused(member, asking(chosen, close)) is RejectReason.BELOW_MINIMUM

        asyncio.run(run())

    @pytest.mark.parametrize("count", [3, 6])
    def test_one_contribution_under_the_count_of_many_is_not_opened(self, tmp_path: Path, count: int) -> None:
        async def run() -> None:
            chosen = EVERYBODY[:1]
            async with holding(tmp_path) as member:
                request = asking(chosen, close_of(SESSION, chosen, count=count))
                assert await refused(member, request) is RejectReason.LOG_MISMATCH

        asyncio.run(run())

    def test_contributions_of_strangers_do_not_fill_the_set_up(self, tmp_path: Path) -> None:
        """Whose secrets the coordinator knows, it can subtract: only people of the roster hide each other."""

        async def run() -> None:
            strangers = [one_shot.contribute(SESSION, one_shot.key_of(f"stranger {at}")) for at in range(3)]
            async with holding(tmp_path) as member:
                verdicts = await member.port.hold(ID, [each.item(0) for each in strangers])
                assert verdicts == ("UNKNOWN_IDENTITY",) * 3
                assert await refused(member, asking([EVERYBODY[0], *strangers])) is RejectReason.SHARE_NOT_HELD

        asyncio.run(run())

    @pytest.mark.parametrize(
        ("claimed", "registrars"),
        [
            ("mallory", frozenset({one_shot.REGISTRAR.public_bytes})),
            ("registrar", frozenset({one_shot.REGISTRAR.public_bytes})),
            ("registrar", frozenset()),
        ],
    )
    def test_a_roster_of_strangers_is_not_taken_for_the_registrar_s(
        self, tmp_path: Path, claimed: str, registrars: frozenset[bytes]
    ) -> None:
        """The open entry names whom contributors trust; the signature is somebody else's."""

        async def run() -> None:
            strangers = sorted((one_shot.key_of(f"s {at}") for at in range(5)), key=lambda key: key.public_bytes)
            mallory = one_shot.key_of("mallory")
            invented = one_shot.session_of([*strangers], session=b"I" * 16, registrar=one_shot.key_of(claimed))
            signed = one_shot.signed_roster(invented, mallory)
            files = dataclasses.replace(
                shown_files(invented, evidence_of(invented)),
                roster_head=signed.head.to_bytes(),
                roster_signature=signed.signature,
            )
            async with serving_member(tmp_path, registrars=registrars) as member:
                with pytest.raises(RemoteProtocolError) as caught:
                    await member.port.join(b"I" * 16, files)
                expected = {"mallory": RejectReason.NOT_SERVED, "registrar": RejectReason.MALFORMED_MESSAGE}
                assert caught.value.reason is expected[claimed]

        asyncio.run(run())

    @pytest.mark.parametrize("order", [(0, 0, 0), (0, 1, 2, 2), (0, 1, 1, 2), (1, 0, 2)])
    def test_the_same_contribution_twice_is_not_summed(self, tmp_path: Path, order: Sequence[int]) -> None:
        """Three times the same share divided by three is the share."""

        async def run() -> None:
            async with holding(tmp_path) as member:
                request = asking([EVERYBODY[at] for at in order])
                assert await refused(member, request) is RejectReason.LOG_MISMATCH

        asyncio.run(run())

    def test_a_second_header_of_the_same_person_is_not_held_beside_the_first(self, tmp_path: Path) -> None:
        async def run() -> None:
            again = [one_shot.contribute(SESSION, EVERYBODY[0].key, seed=seed) for seed in (b"1", b"2")]
            async with holding(tmp_path) as member:
                assert await member.port.hold(ID, [each.item(0) for each in again]) == ("EQUIVOCATION",) * 2
                assert await refused(member, asking([EVERYBODY[0], *again])) is RejectReason.SHARE_NOT_HELD

        asyncio.run(run())

    def test_a_header_with_a_box_of_the_coordinator_s_own_is_not_held(self, tmp_path: Path) -> None:
        """A share that the coordinator made, held under a victim's name, would open the others' sum without it."""

        async def run() -> None:
            forged = one_shot.contribute(SESSION, EVERYBODY[5].key, seed=b"forged")
            header = forged.header
            by_coordinator = one_shot.signed_by(one_shot.COORDINATOR, header)
            items = [
                dataclasses.replace(forged.item(0), signed=by_coordinator),
                dataclasses.replace(EVERYBODY[5].item(0), box=forged.boxes[0]),
            ]
            async with holding(tmp_path, among=EVERYBODY[:5]) as member:
                assert await member.port.hold(ID, items) == ("BAD_SIGNATURE", "WRONG_PARTS")
                assert await refused(member, asking(EVERYBODY)) is RejectReason.SHARE_NOT_HELD

        asyncio.run(run())

    def test_a_close_that_does_not_name_the_member_is_not_answered(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with holding(tmp_path) as member:
                request = asking(EVERYBODY, close_of(SESSION, EVERYBODY, (1, 2, 3)))
                assert await refused(member, request) is RejectReason.NOT_NAMED

        asyncio.run(run())

    def test_an_aborted_session_is_not_opened(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with holding(tmp_path) as member:
                request = asking(EVERYBODY, close_of(SESSION, EVERYBODY), abort_of(SESSION))
                assert await refused(member, request) is RejectReason.ABORTED
                assert await refused(member, asking(EVERYBODY)) is RejectReason.LOG_FORKED
                assert await refused(member, request) is RejectReason.ABORTED

        asyncio.run(run())


class TestAfterACrash:
    def test_a_member_that_died_after_its_decision_answers_nothing_else(self, tmp_path: Path) -> None:
        """The process ends between the decision, which is durable, and the sum."""

        async def run() -> None:
            async with holding(tmp_path, ALONE) as member:
                session = await member.host.find(ID)
                never = asyncio.Event()

                async def hanging(*_: object) -> None:
                    await never.wait()

                session._carry_out = hanging
                asked = asyncio.ensure_future(member.port.open(ID, asking(EVERYBODY, witnesses=())))
                while type(session.driver.state).__name__ != "Answering":
                    await session.driver.wait_for_change(session.driver.version)
                asked.cancel()
                with contextlib.suppress(asyncio.CancelledError, TransportError):
                    await asked
            async with serving_member(tmp_path, policy=ALONE) as member:
                (tmp_path / "state" / "logs").rename(tmp_path / "lost")
                # Also a member that has lost its checkpoints knows what it decided.
                assert await refused(member, asking(EVERYBODY[1:], witnesses=())) is RejectReason.OPENED_BEFORE
                expected = one_shot.share_sum(SESSION, EVERYBODY, 0)
                assert await answered(member, EVERYBODY) == expected

        asyncio.run(run())

    def test_a_member_that_died_after_its_answer_gives_the_same_again(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with holding(tmp_path, ALONE) as member:
                first = await answered(member, EVERYBODY)
            (tmp_path / "state" / "logs").rename(tmp_path / "lost")
            async with serving_member(tmp_path, policy=ALONE) as member:
                assert await refused(member, asking(EVERYBODY[1:], witnesses=())) is RejectReason.OPENED_BEFORE
                assert await answered(member, EVERYBODY) == first

        asyncio.run(run())

    @pytest.mark.parametrize("date_s", [one_shot.NOW_S, one_shot.NOW_S + 10_000])
    def test_a_restored_member_answers_nothing_that_it_may_have_answered(self, tmp_path: Path, date_s: int) -> None:
        """The backup is of before the session and knows nothing of it, which the coordinator dated as it likes."""

        async def run() -> None:
            session = one_shot.session_of([each.key for each in EVERYBODY], opened_at_s=date_s)
            files = shown_files(session, evidence_of(session))
            async with serving_member(tmp_path):
                pass
            shutil.copytree(tmp_path / "state", tmp_path / "backup")
            async with serving_member(tmp_path) as member:
                if date_s > one_shot.NOW_S:
                    with pytest.raises(RemoteProtocolError) as caught:
                        await member.port.join(ID, files)
                    assert caught.value.reason is RejectReason.NOT_SERVED
                else:
                    await member.port.join(ID, files)
            shutil.rmtree(tmp_path / "state")
            shutil.copytree(tmp_path / "backup", tmp_path / "state")
            MemberState.accept_restored(tmp_path / "state", one_shot.NOW_S)
            async with serving_member(tmp_path, policy=ALONE) as member:
                with pytest.raises(RemoteProtocolError) as caught:
                    await member.port.join(ID, files)
                assert caught.value.reason in {RejectReason.OPENED_BEFORE, RejectReason.NOT_SERVED}
                with pytest.raises(RemoteProtocolError) as caught:
                    await member.port.open(ID, asking(EVERYBODY))
                assert caught.value.reason is RejectReason.UNKNOWN_SESSION

        asyncio.run(run())


class TestWhatIsReadFromAnAnswer:
    def test_one_member_s_answer_says_nothing_of_the_secret_by_itself(self, tmp_path: Path) -> None:
        """Field elements all over the field, for a sum of secrets of at most twelve."""

        async def run() -> None:
            async with holding(tmp_path) as member:
                shares = shares_from_bytes(await answered(member, EVERYBODY))
                secret = sum(each.secret for each in EVERYBODY)
                assert np.abs(secret).max() <= 12
                assert np.count_nonzero(shares > 1 << 20) > 4000

        asyncio.run(run())
