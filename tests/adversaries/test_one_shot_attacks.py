"""A whole one-shot session with a committee under attack: its coordinator, contributors, or members are not honest.

Everything is real but the wire.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Awaitable, Callable
from fractions import Fraction

import numpy as np
import pytest

from secagg.arith.seeded_shamir import reconstruct_sum
from secagg.crypto.sealing import SealingKey
from secagg.crypto.secret import Secret
from secagg.derive.member_boxes import member_box_info, open_box
from secagg.derive.result import decode
from secagg.protocol.errors import LocalProtocolError, RejectReason
from secagg.protocol.one_shot import tables
from secagg.protocol.one_shot.client import OneShotClientContext
from secagg.protocol.one_shot.coordinator_states import Finished
from secagg.protocol.one_shot.messages import HeldBox, OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import UploadStaged
from secagg.protocol.session import ClientPolicy
from secagg.runtime.ports import Commit
from secagg.runtime.registry import Registry
from secagg.transcript.openers import Committee
from secagg.transcript.statements import MemberAnswer, OneShotHeader, Signed
from tests.support.cohort import key_of, one_hot
from tests.support.one_shot_cohort import (
    Contributor,
    OneShotCohort,
    committee_of,
    member_key,
    one_shot_parameters,
    one_shot_setup,
    open_one_shot,
)

DIMENSION = 20


def run(play: Callable[[OneShotCohort], Awaitable[None]], count: int = 4, **changes: object) -> None:
    async def session() -> None:
        cohort = await open_one_shot(count, lambda number: one_hot(DIMENSION, number), **changes)
        try:
            await play(cohort)
        finally:
            await cohort.close()

    asyncio.run(session())


def largest(session: OneShotSession) -> int:
    return 2 ** (session.parameters.encoding.value_bits - 1) - 1


def signed_again(one: Contributor, parts: tuple[bytes, ...], linear_hash: bytes) -> OneShotContribution:
    """Another contribution that its sender signed in place of the honest one, with the same upload."""
    header = one.contribution.signed.statement
    assert isinstance(header, OneShotHeader)
    header = dataclasses.replace(
        header,
        linear_hash=hashlib.sha256(linear_hash).digest(),
        parts=tuple(hashlib.sha256(part).digest() for part in parts),
    )
    signed = Signed(header, one.context.identity.sign_statement(header.to_bytes()))
    return OneShotContribution(signed, linear_hash, parts)


async def send(cohort: OneShotCohort, one: Contributor, message: OneShotContribution) -> None:
    await cohort.host.submit(message)
    await cohort.host.submit(UploadStaged(one.identity, cohort.blobs.put(one.upload)))


def lying_about_its_hash(one: Contributor) -> OneShotContribution:
    words = bytearray(one.contribution.linear_hash)
    words[0] ^= 1
    return signed_again(one, one.contribution.parts, bytes(words))


class TestWhoTheBoxesAreFor:
    """A coordinator writes the committee into the session record, sealing keys included."""

    MALLORY = tuple(SealingKey(Secret(bytes([place + 1]) * 32)) for place in range(4))

    def committee(self, swapped: int) -> Committee:
        """The committee that everybody pins, with the coordinator's own sealing keys at the first places."""
        honest = committee_of()
        members = [
            dataclasses.replace(member, sealing_key=self.MALLORY[place].public_bytes) if place < swapped else member
            for place, member in enumerate(honest.members)
        ]
        return dataclasses.replace(honest, members=tuple(members))

    def read(self, session: OneShotSession, one: Contributor) -> np.ndarray:
        """What the coordinator reads of one contribution, from what that contributor sends and nothing else."""
        shares = [
            open_box(
                self.MALLORY[place],
                member_box_info(session.digest, one.identity, place),
                one.contribution.parts[place],
                session.opening,
                place,
            )
            for place in range(3)
        ]
        secret = reconstruct_sum(np.array([1, 2, 3], dtype=np.uint64), np.stack(shares), 2)
        lanes = np.frombuffer(one.upload, dtype="<u8").copy()
        session.ring_mask.certify_and_unmask(lanes, secret, 1, session.public_key)
        parameters, own = session.parameters, lanes[: session.field_layout.lanes]
        return decode(parameters.encoding, parameters.noise, own, 1).integer_sum

    @pytest.mark.parametrize("swapped", [3, 4])
    def test_pinned_members_under_sealing_keys_of_the_coordinator_s_own_are_dealt_nothing(self, swapped: int) -> None:
        async def attack() -> None:
            try:
                cohort = await open_one_shot(
                    3, lambda number: one_hot(DIMENSION, number), opening=self.committee(swapped)
                )
            except LocalProtocolError as error:
                if error.reason is not RejectReason.BELOW_POLICY:
                    raise
                return
            victim = cohort.contributors[1]
            read = self.read(cohort.session, victim)
            await cohort.close()
            assert not (read[1] == largest(cohort.session) and np.count_nonzero(read) == 1), "one input was read"

        asyncio.run(attack())

    def test_a_member_itself_never_serves_under_another_sealing_key(self) -> None:
        async def play() -> None:
            honest = await open_one_shot(3, lambda number: one_hot(DIMENSION, number))
            parameters, roster = one_shot_parameters(
                [each.context.identity for each in honest.contributors], opening=self.committee(1)
            )
            session = OneShotSession(parameters, roster)
            for place, member in enumerate(honest.members):
                context = member.host._context
                if place == 0:
                    with pytest.raises(Exception, match="two keys") as caught:
                        context(session.parameters, roster)
                    assert caught.value.reason is RejectReason.NOT_SERVED
                else:
                    assert context(session.parameters, roster).place == place
            await honest.close()

        asyncio.run(play())


class TestASetOfTheCoordinatorsFriends:
    """Nobody but the coordinator decides whose contributions of a whole roster are in the sum."""

    def test_a_client_that_expects_a_tenth_of_all_to_be_corrupt_is_not_summed_with_them_alone(self) -> None:
        """Of sixteen two are corrupt, about a tenth, and they are all that the victim is hidden among."""

        identities = [key_of(f"contributor {number}") for number in range(16)]
        parameters, _ = one_shot_parameters(identities)
        policy = ClientPolicy(openers=frozenset(member.identity for member in parameters.opening.members))
        assert (parameters.max_corrupt, policy.tolerated_corrupt) == (1, Fraction(1, 10))
        with pytest.raises(LocalProtocolError) as caught:
            policy.check_parameters(parameters)
        assert caught.value.reason is RejectReason.BELOW_POLICY
        policy.check_parameters(dataclasses.replace(parameters, max_corrupt=2, min_contributors=4))


class TestMembersWhoBlock:
    def test_one_member_that_complains_of_one_contribution_does_not_end_a_session_of_just_enough(self) -> None:
        async def play(cohort: OneShotCohort) -> None:
            victim = cohort.contributors[0].identity
            cohort.members[3].verdict = lambda box, verdict: (
                "SHARE_NOT_HELD" if box.signed.statement.identity == victim else verdict
            )
            await cohort.contribute(0, 1, 2)
            await cohort.reach(Phase.FINISHED)
            assert np.count_nonzero(cohort.integer_sum()) == 3

        run(play, count=3)

    def test_one_member_and_one_liar_do_not_end_a_session_of_enough_honest_ones(self) -> None:
        """The member's complaint costs an honest contribution while the liar's still counts; then the liar's goes."""

        async def play(cohort: OneShotCohort) -> None:
            victim, liar = cohort.contributors[0], cohort.contributors[3]
            cohort.members[3].verdict = lambda box, verdict: (
                "SHARE_NOT_HELD" if box.signed.statement.identity == victim.identity else verdict
            )
            await send(cohort, liar, lying_about_its_hash(liar))
            await cohort.contribute(0, 1, 2)
            await cohort.reach(Phase.FINISHED)
            assert np.flatnonzero(cohort.integer_sum()).tolist() == [0, 1, 2]

        run(play, count=4)

    @pytest.mark.parametrize("what", ["header", "another member", "another close", "another session", "too large"])
    def test_an_answer_that_is_none_is_refused_and_the_others_open_the_sum(self, what: str) -> None:
        async def play(cohort: OneShotCohort) -> None:
            header = cohort.contributors[0].contribution.signed

            def answer(signed: Signed) -> Signed:
                statement = signed.statement
                assert isinstance(statement, MemberAnswer)
                changed = {
                    "header": None,
                    "another member": {"identity": member_key(1).public_bytes},
                    "another close": {"close": bytes(32)},
                    "another session": {"session": bytes(32)},
                    "too large": {"share_sum": b"\xff" * len(statement.share_sum)},
                }[what]
                if changed is None:
                    return header
                other = dataclasses.replace(statement, **changed)
                return Signed(other, member_key(0).sign_statement(other.to_bytes()))

            cohort.members[0].answer = answer
            await cohort.contribute(*range(4))
            await cohort.reach(Phase.FINISHED)
            assert isinstance(cohort.host.driver.state, Finished)
            assert np.count_nonzero(cohort.integer_sum()) == 4
            assert 0 not in tables.answers(cohort.host.rows)

        run(play)


class TestContributorsWhoSpoil:
    def test_a_contributor_that_equivocates_to_members_loses_its_own_place_and_nobody_else_s(self) -> None:
        """Members talk to everybody: another header of its own is with two of them before the coordinator's comes."""

        async def play(cohort: OneShotCohort) -> None:
            one = cohort.contributors[0]
            await cohort.contribute(1)  # members have joined by then
            await cohort.settle()
            parts = tuple(reversed(one.contribution.parts[:2])) + one.contribution.parts[2:]
            other = signed_again(one, parts, one.contribution.linear_hash)
            for place in (2, 3):
                item = HeldBox(other.signed, other.parts[place])
                assert await cohort.members[place].hold(cohort.session.parameters.session, [item]) == ("",)
            await cohort.contribute(0, 2, 3)
            await cohort.reach(Phase.FINISHED)
            assert np.flatnonzero(cohort.integer_sum()).tolist() == [1, 2, 3]
            assert len(cohort.host.driver.state.accepted) == 3

        run(play)

    def test_saying_again_that_an_upload_is_done_takes_no_memory(self) -> None:
        async def play(cohort: OneShotCohort) -> None:
            await cohort.contribute(0)
            one = cohort.contributors[0]
            for _ in range(50):
                await cohort.host.submit(UploadStaged(one.identity, hashlib.sha256(one.upload).digest()))
            assert len(cohort.host._openers._arrivals) == 1

        run(play)

    def test_what_ended_sessions_shared_is_not_deleted_from_under_a_contribution(self) -> None:
        """The same parts and hash as in a session that is past its retention, sent while the sweep is at work."""

        async def play(cohort: OneShotCohort) -> None:
            registry = Registry(cohort.ports)
            registry._hosts[cohort.session.parameters.session] = cohort.host
            one = cohort.contributors[0]
            await cohort.contribute(0)
            await cohort.settle()
            await cohort.host.end_phase(Phase.MASKED_INPUT)
            await cohort.reach(Phase.ABORTED)
            parameters, roster = one_shot_parameters(
                [each.context.identity for each in cohort.contributors], session=b"second session.."
            )
            second = OneShotSession(parameters, roster)
            host = await registry.open(second, one_shot_setup(second, cohort.blobs))
            context = OneShotClientContext(one.context.identity, second, one.context.policy, one.context.log)
            opened_at = host.evidence().start
            header = dataclasses.replace(one.contribution.signed.statement, session=second.digest, opened_at=opened_at)
            signed = Signed(header, context.identity.sign_statement(header.to_bytes()))
            commit, swept = cohort.ports.store.commit, False

            # Everything of the contribution is on the disk, and the row that says so is about to be.
            async def at_the_worst_time(key: bytes, version: int, changes: Commit) -> object:
                nonlocal swept
                if key == parameters.session and not swept:
                    swept = True
                    await registry._sweep_all()
                return await commit(key, version, changes)

            cohort.ports.store.commit = at_the_worst_time
            message = OneShotContribution(signed, one.contribution.linear_hash, one.contribution.parts)
            try:
                await host.submit(message)
                assert swept
                assert cohort.blobs.has(header.linear_hash), "accepted, and gone: the session will never be added up"
            finally:
                await host.close()

        run(play)
