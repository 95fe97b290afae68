from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from secagg.crypto.secret import Secret
from secagg.derive.member_boxes import deal, mask_secret
from secagg.protocol.one_shot import tables
from secagg.protocol.one_shot.client_states import Delivered
from secagg.protocol.one_shot.coordinator_states import Aborted, Finished
from secagg.protocol.phases import Phase
from secagg.transcript.entries import OneShotClose, OneShotResult, SessionAbort, decode_entry
from secagg.transcript.statements import Signed
from tests.support.cohort import one_hot
from tests.support.one_shot_cohort import OneShotCohort, member_key, open_one_shot

DIMENSION = 20


def run(play: Callable[[OneShotCohort], Awaitable[None]], count: int = 5, **changes: object) -> None:
    async def session() -> None:
        cohort = await open_one_shot(count, lambda number: one_hot(DIMENSION, number), **changes)
        try:
            await play(cohort)
        finally:
            await cohort.close()

    asyncio.run(session())


def largest(cohort: OneShotCohort) -> int:
    return 2 ** (cohort.session.parameters.encoding.value_bits - 1) - 1


def last_entry(cohort: OneShotCohort) -> object:
    return decode_entry(cohort.host.evidence().entries[-1])


def test_everybody_uploads_and_leaves_and_the_committee_opens_the_sum() -> None:
    async def play(cohort: OneShotCohort) -> None:
        await cohort.contribute(*range(5))
        assert all(isinstance(one.state, Delivered) for one in cohort.contributors)
        await cohort.reach(Phase.FINISHED)
        expected = np.zeros(DIMENSION, dtype=np.int64)
        expected[:5] = largest(cohort)
        assert np.array_equal(cohort.integer_sum(), expected)
        result = last_entry(cohort)
        assert isinstance(result, OneShotResult)
        assert (len(result.used), result.dissenting) == (3, ())

    run(play)


@pytest.mark.parametrize("present", [(0, 1, 2), (1, 3, 4), (0, 1, 2, 4)])
def test_whoever_drops_out_costs_nothing(present: tuple[int, ...]) -> None:
    async def play(cohort: OneShotCohort) -> None:
        await cohort.contribute(*present)
        await cohort.settle()
        await cohort.host.end_phase(Phase.MASKED_INPUT)
        await cohort.reach(Phase.FINISHED)
        assert sorted(np.flatnonzero(cohort.integer_sum())) == sorted(present)
        assert set(cohort.integer_sum()) == {0, largest(cohort)}

    run(play)


def test_members_that_are_gone_before_the_end_are_not_needed() -> None:
    async def play(cohort: OneShotCohort) -> None:
        await cohort.contribute(0, 1, 2, 3)
        await cohort.settle()
        cohort.members[2].is_up = False
        await cohort.host.end_phase(Phase.MASKED_INPUT)
        await cohort.reach(Phase.FINISHED)
        assert last_entry(cohort).used == (0, 1, 3)

    run(play)


def test_a_member_that_was_never_there_is_not_named() -> None:
    async def play(cohort: OneShotCohort) -> None:
        cohort.members[0].is_up = False
        await cohort.contribute(*range(5))
        await cohort.settle()
        await cohort.pass_deadline()
        await cohort.reach(Phase.FINISHED)
        close = next(
            entry for entry in map(decode_entry, cohort.host.evidence().entries) if isinstance(entry, OneShotClose)
        )
        assert close.opener.members == (1, 2, 3)
        assert close.count == 5

    run(play)


def test_with_fewer_members_than_needed_it_waits_and_then_aborts_and_nothing_is_lost() -> None:
    async def play(cohort: OneShotCohort) -> None:
        await cohort.contribute(0, 1, 2)
        await cohort.settle()
        cohort.members[1].is_up = cohort.members[2].is_up = False
        await cohort.host.end_phase(Phase.MASKED_INPUT)
        await cohort.reach(Phase.OPEN_SUM)
        for _ in range(200):
            await asyncio.sleep(0.001)
        assert cohort.host.status().phase is Phase.OPEN_SUM
        await cohort.pass_deadline()
        await cohort.reach(Phase.ABORTED)
        abort = last_entry(cohort)
        assert isinstance(abort, SessionAbort)
        assert abort.answers == 2
        assert isinstance(cohort.host.driver.state, Aborted)
        assert len(tables.staged_positions(cohort.host.rows)) == 3

    run(play)


def test_a_member_that_comes_back_in_time_opens_the_sum() -> None:
    async def play(cohort: OneShotCohort) -> None:
        await cohort.contribute(0, 1, 2)
        await cohort.settle()
        cohort.members[1].is_up = cohort.members[2].is_up = False
        await cohort.host.end_phase(Phase.MASKED_INPUT)
        await cohort.reach(Phase.OPEN_SUM)
        cohort.members[1].is_up = True
        await cohort.reach(Phase.FINISHED)
        assert last_entry(cohort).used == (0, 1, 3)

    run(play)


def test_too_few_contributions_are_never_closed() -> None:
    async def play(cohort: OneShotCohort) -> None:
        await cohort.contribute(0, 1)
        await cohort.settle()
        await cohort.host.end_phase(Phase.MASKED_INPUT)
        await cohort.reach(Phase.ABORTED)
        abort = last_entry(cohort)
        assert isinstance(abort, SessionAbort)
        assert (abort.reason, abort.answers) == ("fewer than min_contributors contributed", 0)

    run(play)


def wrong(place: int, signed: Signed) -> Signed:
    """A member's answer with a share sum that is off by one in one element, another for each member."""
    share_sum = bytearray(signed.statement.share_sum)
    share_sum[4 * place] ^= 1
    statement = dataclasses.replace(signed.statement, share_sum=bytes(share_sum))
    return Signed(statement, member_key(place).sign_statement(statement.to_bytes()))


def test_a_member_that_lies_is_found_out_and_listed_and_the_sum_is_right() -> None:
    async def play(cohort: OneShotCohort) -> None:
        cohort.members[1].answer = lambda signed: wrong(1, signed)
        await cohort.contribute(0, 1, 2, 3)
        await cohort.settle()
        cohort.members[3].is_up = False
        await cohort.host.end_phase(Phase.MASKED_INPUT)
        await cohort.reach(Phase.OPEN_SUM)
        await cohort.answered(3)
        cohort.members[3].is_up = True
        await cohort.reach(Phase.FINISHED)
        result = last_entry(cohort)
        assert isinstance(result, OneShotResult)
        assert (result.used, result.dissenting) == ((0, 2, 3), (1,))
        assert set(cohort.integer_sum()) == {0, largest(cohort)}

    run(play)


def test_where_no_set_of_answers_opens_the_sum_nothing_is_published() -> None:
    async def play(cohort: OneShotCohort) -> None:
        for place in (0, 1):
            cohort.members[place].answer = lambda signed, place=place: wrong(place, signed)
        await cohort.contribute(*range(5))
        await cohort.reach(Phase.ABORTED)
        abort = last_entry(cohort)
        assert isinstance(abort, SessionAbort)
        assert abort.answers == 4
        assert not isinstance(cohort.host.driver.state, Finished)

    run(play)


def test_contributions_that_a_few_members_complain_of_are_left_out() -> None:
    async def play(cohort: OneShotCohort) -> None:
        spoiled = cohort.contributors[2].identity
        cohort.members[3].verdict = lambda box, verdict: (
            "WRONG_PARTS" if box.signed.statement.identity == spoiled else verdict
        )
        await cohort.contribute(*range(5))
        await cohort.reach(Phase.FINISHED)
        assert sorted(np.flatnonzero(cohort.integer_sum())) == [0, 1, 3, 4]

    run(play)


def test_a_member_that_complains_of_more_than_corrupt_clients_can_explain_is_left_out_itself() -> None:
    async def play(cohort: OneShotCohort) -> None:
        cohort.members[3].verdict = lambda _box, _verdict: "WRONG_PARTS"
        await cohort.contribute(*range(5))
        await cohort.reach(Phase.FINISHED)
        assert sorted(np.flatnonzero(cohort.integer_sum())) == [0, 1, 2, 3, 4]
        assert last_entry(cohort).used == (0, 1, 2)

    run(play)


def deal_otherwise(cohort: OneShotCohort, number: int, places: tuple[int, ...]) -> None:
    """Let a contributor seal to these members shares of another secret than the one it masks with."""
    one = cohort.contributors[number]
    session, message = cohort.session, one.contribution
    seeds = [Secret(bytes([place + 1]) * 32) for place in range(session.opening.needed - 1)]
    other = mask_secret(Secret(b"another secret".ljust(32)), session.digest)
    dealt = deal(session.opening, other, seeds, session.digest, one.identity)
    parts = tuple(dealt[at] if at in places else part for at, part in enumerate(message.parts))
    digests = tuple(hashlib.sha256(part).digest() for part in parts)
    header = dataclasses.replace(message.signed.statement, parts=digests)
    signed = Signed(header, one.context.identity.sign_statement(header.to_bytes()))
    one.contribution = dataclasses.replace(message, signed=signed, parts=parts)
    one.state = dataclasses.replace(one.state, sent=signed)


def test_a_contributor_who_deals_shares_that_do_not_belong_together_spoils_the_session_and_nothing_is_published() -> (
    None
):
    async def play(cohort: OneShotCohort) -> None:
        deal_otherwise(cohort, 1, (0, 3))
        await cohort.contribute(*range(5))
        await cohort.reach(Phase.ABORTED)
        assert last_entry(cohort).reason == "no set of answers opens the sum"
        published = {name for _, name in cohort.record.files}
        assert not published & {"integer-sum.bin", "openings.jsonl", "secret-sum.bin"}

    run(play)


def test_a_wrong_share_for_a_member_who_is_not_needed_spoils_nothing_and_nobody_is_blamed() -> None:
    async def play(cohort: OneShotCohort) -> None:
        deal_otherwise(cohort, 1, (3,))
        await cohort.contribute(0, 1, 2, 3)
        await cohort.settle()
        cohort.members[2].is_up = False
        await cohort.host.end_phase(Phase.MASKED_INPUT)
        await cohort.reach(Phase.OPEN_SUM)
        await cohort.answered(3)
        cohort.members[2].is_up = True
        await cohort.reach(Phase.FINISHED)
        result = last_entry(cohort)
        assert (result.used, result.dissenting) == ((0, 1, 2), (3,))
        assert set(cohort.integer_sum()) == {0, largest(cohort)}

    run(play)


def test_members_forget_their_boxes_once_they_know_of_the_end() -> None:
    async def play(cohort: OneShotCohort) -> None:
        cohort.members[3].is_up = False
        await cohort.contribute(*range(5))
        await cohort.settle()
        await cohort.pass_deadline()
        await cohort.reach(Phase.FINISHED)
        for _ in range(2000):
            if not any(member.host.ports.boxes.sessions() for member in cohort.members[:3]):
                return
            await asyncio.sleep(0.001)
        raise AssertionError("boxes are left")

    run(play)
