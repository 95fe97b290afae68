"""The coordinator of one-shot sessions: what it refuses, and whom it names."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Awaitable, Callable

import pytest

from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.protocol.one_shot import tables
from secagg.protocol.one_shot.coordinator_states import HoldingRow, HoldingsReported, OpenerAnswered, Opening
from secagg.protocol.one_shot.messages import Attested, CommitContribution, OneShotContribution
from secagg.protocol.one_shot.session import OneShotSession
from secagg.protocol.phases import Phase
from secagg.protocol.rows import RowKind, UploadStaged, row_key
from secagg.transcript.statements import Attestation, MemberAnswer, OneShotHeader, Rejected, Signed
from tests.support.cohort import key_of, one_hot
from tests.support.one_shot_cohort import (
    Contributor,
    OneShotCohort,
    committee_of,
    member_key,
    one_shot_parameters,
    open_one_shot,
)


def run(play: Callable[[OneShotCohort], Awaitable[None]], count: int = 5) -> None:
    async def session() -> None:
        cohort = await open_one_shot(count, lambda number: one_hot(20, number))
        try:
            await play(cohort)
        finally:
            await cohort.close()

    asyncio.run(session())


def altered(one: Contributor, *, signer: str = "", **changes: object) -> OneShotContribution:
    """The contribution with other members in its header, signed again."""
    message = one.contribution
    header = dataclasses.replace(message.signed.statement, **changes)
    key = key_of(signer) if signer else one.context.identity
    return dataclasses.replace(message, signed=Signed(header, key.sign_statement(header.to_bytes())))


def outsider(one: Contributor) -> OneShotContribution:
    stranger = key_of("stranger")
    header = dataclasses.replace(one.contribution.signed.statement, identity=stranger.public_bytes)
    return dataclasses.replace(one.contribution, signed=Signed(header, stranger.sign_statement(header.to_bytes())))


def with_parts(one: Contributor, parts: tuple[bytes, ...]) -> OneShotContribution:
    """Other parts, with their digests in a header that is signed again."""
    digests = tuple(hashlib.sha256(part).digest() for part in parts)
    return dataclasses.replace(altered(one, parts=digests), parts=parts)


async def refusal(cohort: OneShotCohort, event: object) -> RejectReason:
    with pytest.raises(RemoteProtocolError) as caught:
        await cohort.host.submit(event)
    return caught.value.reason


BAD = {
    "another session": (lambda one: altered(one, session=bytes(32)), RejectReason.WRONG_SESSION),
    "a stranger": (outsider, RejectReason.UNKNOWN_IDENTITY),
    "signed by somebody else": (lambda one: altered(one, signer="contributor 1"), RejectReason.BAD_SIGNATURE),
    "fewer lanes": (lambda one: altered(one, lanes=4095), RejectReason.WRONG_LENGTH),
    "a digest too few": (
        lambda one: altered(one, parts=one.contribution.signed.statement.parts[:-1]),
        RejectReason.WRONG_PARTS,
    ),
    "a part too few": (
        lambda one: dataclasses.replace(one.contribution, parts=one.contribution.parts[:-1]),
        RejectReason.WRONG_PARTS,
    ),
    "parts exchanged": (
        lambda one: dataclasses.replace(
            one.contribution, parts=(*reversed(one.contribution.parts[:2]), *one.contribution.parts[2:])
        ),
        RejectReason.WRONG_PARTS,
    ),
    "a box of another length": (
        lambda one: with_parts(one, (b"x" + one.contribution.parts[0], *one.contribution.parts[1:])),
        RejectReason.WRONG_BOX_LENGTH,
    ),
    "the same box twice": (
        lambda one: with_parts(one, (one.contribution.parts[0],) * 2 + one.contribution.parts[2:]),
        RejectReason.DOUBLED_UPLOAD,
    ),
    "another linear hash": (
        lambda one: dataclasses.replace(one.contribution, linear_hash=bytes(16384)),
        RejectReason.WRONG_LINEAR_HASH,
    ),
    "a short linear hash": (
        lambda one: dataclasses.replace(one.contribution, linear_hash=bytes(8)),
        RejectReason.WRONG_LINEAR_HASH,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_contribution_is_refused_with_its_reason_and_leaves_nothing_behind(name: str) -> None:
    make, reason = BAD[name]

    async def play(cohort: OneShotCohort) -> None:
        before = set(cohort.blobs._blobs)
        assert await refusal(cohort, make(cohort.contributors[0])) is reason
        assert set(cohort.blobs._blobs) == before
        await cohort.contribute(*range(5))
        await cohort.reach(Phase.FINISHED)

    run(play)


def test_a_retry_is_taken_only_if_it_is_the_same_to_the_byte() -> None:
    async def play(cohort: OneShotCohort) -> None:
        one = cohort.contributors[0]
        await cohort.host.submit(one.contribution)
        await cohort.host.submit(one.contribution)
        again = altered(one, upload=bytes(32))
        assert await refusal(cohort, again) is RejectReason.EQUIVOCATION
        await cohort.deliver(one)
        assert await refusal(cohort, again) is RejectReason.EQUIVOCATION
        staged = UploadStaged(one.identity, hashlib.sha256(b"other").digest())
        assert await refusal(cohort, staged) is RejectReason.WRONG_UPLOAD

    run(play)


def test_nobody_signs_what_another_has_signed() -> None:
    async def play(cohort: OneShotCohort) -> None:
        first, second = cohort.contributors[:2]
        await cohort.host.submit(first.contribution)
        mine = first.contribution.signed.statement
        copied = altered(second, upload=mine.upload)
        assert await refusal(cohort, copied) is RejectReason.DOUBLED_UPLOAD
        parts = (first.contribution.parts[3], *second.contribution.parts[1:])
        box = (*second.contribution.parts[:3], parts[0])
        assert await refusal(cohort, with_parts(second, box)) is RejectReason.DOUBLED_UPLOAD

    run(play)


def test_what_comes_after_the_end_of_uploads_is_refused() -> None:
    async def play(cohort: OneShotCohort) -> None:
        await cohort.contribute(0, 1, 2)
        await cohort.host.submit(cohort.contributors[4].contribution)
        await cohort.settle()
        await cohort.host.end_phase(Phase.MASKED_INPUT)
        await cohort.reach(Phase.FINISHED)
        late = cohort.contributors[3].contribution
        assert await refusal(cohort, late) is RejectReason.SESSION_OVER
        one = cohort.contributors[4]
        staged = UploadStaged(one.identity, one.contribution.signed.statement.upload)
        assert await refusal(cohort, staged) is RejectReason.SESSION_OVER

    run(play)


def test_a_committee_knows_neither_commitments_nor_attestations() -> None:
    async def play(cohort: OneShotCohort) -> None:
        commitment = CommitContribution(cohort.contributors[0].contribution.signed)
        assert await refusal(cohort, commitment) is RejectReason.WRONG_PHASE
        key = key_of("attestor")
        word = Attestation(cohort.session.digest, bytes(32), key.public_bytes, bytes(32))
        signed = Signed(word, key.sign_statement(word.to_bytes()))
        assert await refusal(cohort, Attested(signed)) is RejectReason.WRONG_PROTOCOL
        with pytest.raises(RemoteProtocolError) as caught:
            cohort.host.committed_list()
        assert caught.value.reason is RejectReason.WRONG_PROTOCOL

    run(play)


def answer(cohort: OneShotCohort, place: int, share_sum: bytes = bytes(16384), **changes: object) -> OpenerAnswered:
    state = cohort.host.driver.state
    close = state.close if isinstance(state, Opening) else bytes(32)
    key = member_key(place)
    members = {"session": cohort.session.digest, "close": close, "identity": key.public_bytes, "share_sum": share_sum}
    statement = MemberAnswer(**{**members, **changes})
    return OpenerAnswered(Signed(statement, key.sign_statement(statement.to_bytes())))


def test_answers_count_only_from_named_members_to_this_close_and_once() -> None:
    async def play(cohort: OneShotCohort) -> None:
        cohort.members[3].is_up = False
        await cohort.contribute(0, 1, 2)
        assert await refusal(cohort, answer(cohort, 0)) is RejectReason.WRONG_PHASE
        await cohort.settle()
        for member in cohort.members:
            member.is_up = False
        await cohort.host.end_phase(Phase.MASKED_INPUT)
        await cohort.pass_deadline()
        await cohort.reach(Phase.OPEN_SUM)
        assert await refusal(cohort, answer(cohort, 3)) is RejectReason.NOT_NAMED
        assert await refusal(cohort, answer(cohort, 7)) is RejectReason.NOT_IN_COHORT
        assert await refusal(cohort, answer(cohort, 0, close=bytes(32))) is RejectReason.WRONG_LOG_ROOT
        assert await refusal(cohort, answer(cohort, 0, session=bytes(32))) is RejectReason.WRONG_SESSION
        assert await refusal(cohort, answer(cohort, 0, share_sum=b"\xff" * 16384)) is RejectReason.WRONG_OPENING
        forged = answer(cohort, 0).signed
        assert (
            await refusal(cohort, OpenerAnswered(dataclasses.replace(forged, signature=bytes(64))))
            is RejectReason.BAD_SIGNATURE
        )
        await cohort.host.submit(answer(cohort, 0))
        await cohort.host.submit(answer(cohort, 0))
        other = answer(cohort, 0, share_sum=b"\x01" + bytes(16383))
        assert await refusal(cohort, other) is RejectReason.EQUIVOCATION
        assert cohort.host.status().received == 1

    run(play)


def test_whose_upload_is_not_what_it_signed_is_left_out_by_name() -> None:
    async def play(cohort: OneShotCohort) -> None:
        liar = cohort.contributors[1]
        words = bytearray(liar.contribution.linear_hash)
        words[0] ^= 1
        lie = altered(liar, linear_hash=hashlib.sha256(bytes(words)).digest())
        liar.contribution = dataclasses.replace(lie, linear_hash=bytes(words))
        await cohort.host.submit(liar.contribution)
        await cohort.host.submit(UploadStaged(liar.identity, cohort.blobs.put(liar.upload)))
        await cohort.contribute(0, 2, 3, 4)
        await cohort.reach(Phase.FINISHED)
        position = cohort.session.positions[liar.identity]
        rejected = [
            each
            for each in tables.dispositions(cohort.host.rows, cohort.host.driver.state.accepted)
            if isinstance(each, Rejected)
        ]
        assert rejected == [Rejected(position, "WRONG_LINEAR_HASH")]
        assert len(cohort.host.driver.state.accepted) == 4

    run(play)


def test_the_first_that_a_member_says_of_a_contribution_stands() -> None:
    async def play(cohort: OneShotCohort) -> None:
        for member in cohort.members:
            member.is_up = False
        await cohort.contribute(0)
        position = cohort.session.positions[cohort.contributors[0].identity]
        await cohort.host.driver.feed(HoldingsReported(2, (), (position,)))
        await cohort.host.driver.feed(HoldingsReported(2, (position,), ()))
        await cohort.host.driver.feed(HoldingsReported(1, (position,), ()))
        assert tables.holdings(cohort.host.rows, position) == HoldingRow(0b010, 0b100)

    run(play)


# Whom the close names.

OPENED, ROSTER = one_shot_parameters([key_of(f"contributor {number}") for number in range(5)])


def held(*masks: int) -> dict[int, HoldingRow]:
    return {row_key(position, RowKind.HOLDING): HoldingRow(mask, 0) for position, mask in enumerate(masks)}


@pytest.mark.parametrize(
    ("masks", "max_corrupt", "members", "accepted"),
    [
        ([0b1111] * 5, 1, (0, 1, 2, 3), (0, 1, 2, 3, 4)),
        # One is lacking somewhere: it can be a corrupt client's doing, so it goes and all members stay.
        ([0b1111, 0b0111, 0b1111, 0b1111], 1, (0, 1, 2, 3), (0, 2, 3)),
        # More than corrupt clients can explain: the member goes.
        ([0b1111, 0b0111, 0b0111, 0b1111], 1, (0, 1, 2), (0, 1, 2, 3)),
        # It could be a corrupt client's doing, but too few would be left: the member goes.
        ([0b1111, 0b0111, 0b1111], 1, (0, 1, 2), (0, 1, 2)),
        ([0b0111] * 4, 0, (0, 1, 2), (0, 1, 2, 3)),
        ([0b1110] * 4, 0, (1, 2, 3), (0, 1, 2, 3)),
        # Nobody corrupt, one contribution that a member lacks: the member goes, no contribution does.
        ([0b1111, 0b1011], 0, (0, 1, 3), (0, 1)),
        # Even three members have too little in common: the three with most.
        ([0b0111, 0b1011, 0b1101, 0b1110, 0b1110], 1, (1, 2, 3), (3, 4)),
        ([0b0011] * 3, 1, (0, 1, 2, 3), ()),
    ],
)
def test_as_many_members_are_named_as_corrupt_contributors_allow(
    masks: list[int], max_corrupt: int, members: tuple[int, ...], accepted: tuple[int, ...]
) -> None:
    parameters = dataclasses.replace(OPENED, max_corrupt=max_corrupt, min_contributors=max_corrupt + 2)
    session = OneShotSession(parameters, ROSTER)
    named = tables.choose_named(held(*masks), range(len(masks)), session, committee_of(4, 3, 1))
    assert (named.members, named.accepted) == (members, accepted)


def test_the_header_lists_every_part() -> None:
    async def play(cohort: OneShotCohort) -> None:
        message = cohort.contributors[0].contribution
        header = message.signed.statement
        assert isinstance(header, OneShotHeader)
        assert header.parts == tuple(hashlib.sha256(part).digest() for part in message.parts)

    run(play)
