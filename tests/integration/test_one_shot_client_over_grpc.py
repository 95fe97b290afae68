"""The client library in one-shot sessions, over gRPC with TLS: deliver, leave, come back for the sum."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from secagg.arith.ring_mask import usable_bits_for
from secagg.client import Coordinator, OneShotParticipation, Result, SessionAbortedError, connect
from secagg.identity.cards import MemberCard
from secagg.protocol.errors import LocalProtocolError, RejectReason
from secagg.protocol.phases import Phase
from secagg.protocol.session import ClientPolicy
from secagg.remote_operator import end_phase, open_session
from secagg.runtime.clock import SystemClock
from secagg.transcript.encoding import NoFlattening
from secagg.transcript.entries import OneShotClose, OneShotDeadlines, OneShotOpen, SessionOpen
from secagg.transcript.receipt import ContributionProof
from secagg.transcript.roster import Roster, RosterMember
from tests.support.cohort import key_of
from tests.support.coordinator_process import one_hot_adapter, one_hot_session
from tests.support.one_shot_cohort import LocalMember, committee_of, local_member
from tests.support.service import RunningService, serving

IDENTITIES = [key_of(f"contributor {number}") for number in range(4)]
OPENING = committee_of()
POLICY = ClientPolicy(openers=frozenset(member.identity for member in OPENING.members))


@dataclass
class Directory:
    """Members in this process, by their cards."""

    found: dict[bytes, LocalMember]

    def members(self, cards: Sequence[bytes]) -> Sequence[LocalMember]:
        return [self.found[MemberCard.from_bytes(card).identity] for card in cards]

    def authority(self, card: bytes) -> LocalMember:
        raise AssertionError("there is none")


@dataclass
class Stage:
    """A served coordinator with a one-shot session for four, and the directory of its contributors."""

    service: RunningService
    coordinator: Coordinator
    session: bytes
    home: Path

    async def contribute(self, number: int, policy: ClientPolicy = POLICY) -> OneShotParticipation:
        own = self.home / str(number)
        adapter = own / "adapter"
        if not adapter.exists():
            own.mkdir()
            one_hot_adapter(adapter, number)
        found = await self.coordinator.contribute(self.session, adapter, IDENTITIES[number], own / "state", policy)
        assert isinstance(found, OneShotParticipation)
        return found

    async def end(self, phase: Phase) -> None:
        await end_phase(self.service.state, self.session, phase, 30.0)


def play(home: Path, scene: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole() -> None:
        roster = Roster.of([RosterMember(key.public_bytes, "") for key in IDENTITIES])
        members = [local_member(place, roster, SystemClock()) for place in range(len(OPENING.members))]
        for member in members:
            await member.host.start()
        directory = Directory({entry.identity: member for entry, member in zip(OPENING.members, members, strict=True)})
        async with serving(home / "coordinator", institutions=directory) as service:
            session = await opened(service)
            async with await connect(service.address, service.key, service.tls) as coordinator:
                await scene(Stage(service, coordinator, session, home))
        for member in members:
            await member.host.close()

    asyncio.run(whole())


async def opened(service: RunningService) -> bytes:
    pairwise, request = one_hot_session(IDENTITIES)
    common = {field.name: getattr(pairwise, field.name) for field in dataclasses.fields(SessionOpen)}
    dimension = pairwise.encoding.dimension
    encoding = dataclasses.replace(pairwise.encoding, usable_bits=usable_bits_for(15, 1024, dimension))
    assert encoding.flatten == NoFlattening()
    common |= {"protocol": "one-shot", "encoding": encoding}
    parameters = OneShotOpen(**common, opening=OPENING, deadlines=OneShotDeadlines(60, 60, 60, 60))
    cards = [
        MemberCard.of(member, f"127.0.0.1:{7001 + place}", "").to_bytes()
        for place, member in enumerate(OPENING.members)
    ]
    request.parameters = parameters.to_bytes()
    request.cards.extend(cards)
    return await open_session(service.state, request, 30.0)


def ones(result: Result) -> list[int]:
    largest = 2**14 - 1
    assert set(np.unique(result.integer_sum).tolist()) <= {0, largest}
    return np.flatnonzero(result.integer_sum).tolist()


def test_contributors_deliver_and_leave_and_come_back_for_the_sum(tmp_path):
    async def scene(stage: Stage) -> None:
        for number in range(4):
            participation = await stage.contribute(number)
            receipt = await participation.delivered()
            assert receipt == participation.receipt == await participation.delivered()
        again = await stage.contribute(2)
        result = await again.result()
        assert again.receipt is not None
        assert (result.contributors, ones(result)) == (4, [0, 1, 2, 3])
        assert ones(await stage.coordinator.result(stage.session)) == [0, 1, 2, 3]
        proof = await stage.coordinator.contribution_proof(stage.session, IDENTITIES[2].public_bytes)
        counted = ContributionProof.from_bytes(proof.extra)
        assert counted.contribution.statement.identity == IDENTITIES[2].public_bytes
        assert OneShotClose.from_bytes(counted.close.encode()).count == 4

    play(tmp_path, scene)


def test_whoever_stays_is_told_the_sum(tmp_path):
    async def scene(stage: Stage) -> None:
        results = await asyncio.gather(*[(await stage.contribute(number)).result() for number in range(4)])
        assert [ones(result) for result in results] == [[0, 1, 2, 3]] * 4

    play(tmp_path, scene)


def test_a_session_without_enough_contributors_is_aborted_and_says_so(tmp_path):
    async def scene(stage: Stage) -> None:
        participation = await stage.contribute(0)
        await participation.delivered()
        await stage.end(Phase.MASKED_INPUT)
        with pytest.raises(SessionAbortedError):
            await participation.result()
        late = await stage.contribute(1)
        with pytest.raises(SessionAbortedError):
            await late.delivered()

    play(tmp_path, scene)


def test_whoever_comes_after_the_close_is_told_that_it_is_too_late(tmp_path):
    async def scene(stage: Stage) -> None:
        for number in range(3):
            await (await stage.contribute(number)).delivered()
        await stage.end(Phase.MASKED_INPUT)
        first = await stage.contribute(0)
        assert ones(await first.result()) == [0, 1, 2]
        late = await stage.contribute(3)
        with pytest.raises(LocalProtocolError) as caught:
            await late.result()
        assert caught.value.reason is RejectReason.SESSION_OVER

    play(tmp_path, scene)


def test_a_committee_that_is_not_pinned_gets_nothing(tmp_path):
    async def scene(stage: Stage) -> None:
        with pytest.raises(LocalProtocolError) as caught:
            await stage.contribute(0, ClientPolicy())
        assert caught.value.reason is RejectReason.BELOW_POLICY
        assert not (stage.home / "0" / "state").exists()

    play(tmp_path, scene)
