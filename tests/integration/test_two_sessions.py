"""Merges that take two sessions, whole, over gRPC: client library against real server."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from secagg.arith.ring_mask import usable_bits_for
from secagg.client import connect
from secagg.crypto.notes import cosign
from secagg.crypto.signing import SigningKey
from secagg.identity.cards import MemberCard
from secagg.lora.reader import read_adapter
from secagg.protocol.errors import LocalProtocolError, RejectReason
from secagg.protocol.phases import Phase
from secagg.protocol.session import ClientPolicy
from secagg.remote_operator import open_session
from secagg.runtime.clock import SystemClock
from secagg.runtime.log_trust import ForgetfulMemory, LogTrust
from secagg.session_details import Result
from secagg.transcript.entries import OneShotDeadlines, OneShotOpen, PairwiseOpen, SessionOpen
from secagg.transcript.note import Note, NoteSignature
from tests.support import one_shot
from tests.support.audit import complaints
from tests.support.cohort import key_of
from tests.support.one_shot_cohort import LocalMember, committee_of, local_member
from tests.support.service import serving
from tests.support.two_sessions import PILOTS, RANGE, RANK, Two, parameters_of, pilots, request_of, roster_of, update_of
from verifier.policy import PinnedOpeners


def merged_update(directory: Path) -> np.ndarray:
    adapter = read_adapter(directory, "tiny-base")
    name = "base_model.model.layer.q_proj"
    return adapter.tensors[f"{name}.lora_B.weight"] @ adapter.tensors[f"{name}.lora_A.weight"]


def error(found: np.ndarray, numbers: list[int]) -> tuple[float, float]:
    """Relative error of a merged update, and that of the best of its rank."""
    mean = np.mean([update_of(number) for number in numbers], axis=0)
    singular = np.linalg.svd(mean, compute_uv=False)
    best = np.sqrt((singular[RANK:] ** 2).sum() / (singular**2).sum())
    return float(np.linalg.norm(found - mean) / np.linalg.norm(mean)), float(best)


def test_two_sessions_over_the_same_people_give_almost_the_best_adapter(tmp_path: Path) -> None:
    async def run() -> None:
        identities = tuple(key_of(f"id{i}") for i in range(5))
        async with serving(tmp_path / "coordinator") as service:
            two = Two(service, identities, tmp_path)
            first = await two.open(RANGE)
            # One who may come does not: the second session is over the four who did.
            came = identities[:4]
            first_sums = await asyncio.gather(
                *(two.contribute(first.session, each) for each in came), _end_of_advertising(two, first.session, 4)
            )
            assert first_sums[0].contributors == 4
            first_sums[0].write_adapter(tmp_path / "bases")
            basis = two.basis(first)
            assert (tmp_path / "bases" / "basis.safetensors").read_bytes() == basis
            async with await two.connected() as coordinator:
                waiting = asyncio.ensure_future(coordinator.second_session_of(await coordinator.details(first.session)))
                second = two.second(first, basis, [each.public_bytes for each in came])
                await two.open_second(second)
                assert (await waiting).session.parameters == second
            # The phase ends by itself: no more than four are waited for.
            results = await two.contribute_all(second.session, came)
            results[0].write_adapter(tmp_path / "merged")
            async with await two.connected() as coordinator:
                (await coordinator.result(second.session)).write_adapter(tmp_path / "fetched")
            published = service.state / "record" / "sessions" / second.session.hex() / "aggregate"
            for name in ("adapter_config.json", "adapter_model.safetensors", "merge.json"):
                expected = (published / name).read_bytes()
                assert (tmp_path / "merged" / name).read_bytes() == expected
                assert (tmp_path / "fetched" / name).read_bytes() == expected
        found, best = error(merged_update(tmp_path / "merged"), [0, 1, 2, 3])
        assert found < best + 0.02
        assert complaints(tmp_path / "coordinator" / "record") == []

    asyncio.run(run())


def test_pilots_choose_the_basis_and_the_others_merge(tmp_path: Path) -> None:
    async def run() -> None:
        identities = tuple(key_of(f"id{i}") for i in range(10))
        first_ones = pilots(identities)
        others = [each for each in identities if each not in first_ones]
        assert min(len(first_ones), len(others)) >= 3
        async with serving(tmp_path / "coordinator") as service:
            two = Two(service, identities, tmp_path)
            first = await two.open(PILOTS)
            sums = await two.contribute_all(first.session, first_ones)
            assert sums[0].contributors == len(first_ones)
            second = two.second(first, two.basis(first), [each.public_bytes for each in first_ones])
            await two.open_second(second)
            results = await two.contribute_all(second.session, others)
            results[0].write_adapter(tmp_path / "merged")
        found, best = error(merged_update(tmp_path / "merged"), [identities.index(each) for each in others])
        assert best < found < 0.1, "the basis is of others, so not the best, but close"
        assert complaints(tmp_path / "coordinator" / "record") == []

    asyncio.run(run())


OPENING = committee_of()


class Witness:
    """The one witness that these clients ask for."""

    async def cosign(self, checkpoint: Note, consistency: object) -> tuple[NoteSignature, ...]:
        del consistency
        return (cosign(one_shot.WITNESS, one_shot.WITNESS_NAME, checkpoint.text, SystemClock().now_s()),)


@dataclasses.dataclass
class Committee:
    """Its members in this process, by their cards."""

    found: dict[bytes, LocalMember]

    def members(self, cards: Sequence[bytes]) -> Sequence[LocalMember]:
        return [self.found[MemberCard.from_bytes(card).identity] for card in cards]

    def authority(self, card: bytes) -> LocalMember:
        raise AssertionError("there is none")


def opened_by_committee(parameters: PairwiseOpen) -> OneShotOpen:
    """The same session, as a one-shot one."""
    common = {field.name: getattr(parameters, field.name) for field in dataclasses.fields(SessionOpen)}
    encoding = parameters.encoding
    usable = usable_bits_for(encoding.value_bits, encoding.max_contributors, encoding.dimension)
    common |= {"protocol": "one-shot", "encoding": dataclasses.replace(encoding, usable_bits=usable)}
    return OneShotOpen(**common, opening=OPENING, deadlines=OneShotDeadlines(60, 60, 60, 60))


async def open_one_shot(two: Two, parameters: PairwiseOpen) -> bytes:
    """Open it through the operator's socket."""
    request = request_of(parameters, two.identities)
    request.parameters = opened_by_committee(parameters).to_bytes()
    request.cards.extend(
        MemberCard.of(member, f"127.0.0.1:{7001 + place}", "").to_bytes()
        for place, member in enumerate(OPENING.members)
    )
    return await open_session(two.service.state, request, 30.0)


async def contribute_one_shot(two: Two, session: bytes, identity: SigningKey, trust: LogTrust) -> Result:
    policy = ClientPolicy(tolerated_corrupt=0, openers=frozenset(member.identity for member in OPENING.members))
    service, state = two.service, two.home / "clients"
    async with await connect(service.address, service.key, service.tls, trust) as coordinator:
        participation = await coordinator.contribute(session, two.adapter(identity), identity, state, policy)
        return await participation.result()


def test_two_one_shot_sessions_need_witnesses_and_are_over_the_same_people(tmp_path: Path) -> None:
    async def run() -> None:
        identities = tuple(key_of(f"id{i}") for i in range(4))
        members = [local_member(place, roster_of(identities), SystemClock()) for place in range(len(OPENING.members))]
        for member in members:
            await member.host.start()
        found = {entry.identity: member for entry, member in zip(OPENING.members, members, strict=True)}
        coordinator = one_shot.COORDINATOR
        async with serving(tmp_path / "coordinator", coordinator, Witness(), Committee(found)) as service:
            two = Two(service, identities, tmp_path)

            def trust() -> LogTrust:
                return LogTrust(one_shot.WITNESSED, ForgetfulMemory())

            first = parameters_of(service.key, identities, RANGE)
            await open_one_shot(two, first)
            await asyncio.gather(*(contribute_one_shot(two, first.session, each, trust()) for each in identities))
            basis = two.basis(first)
            second = two.second(first, basis, [each.public_bytes for each in identities])
            await open_one_shot(two, second)
            with pytest.raises(LocalProtocolError) as caught:
                await contribute_one_shot(two, second.session, identities[0], LogTrust.nobody())
            assert caught.value.reason is RejectReason.LOG_UNWITNESSED
            results = await asyncio.gather(
                *(contribute_one_shot(two, second.session, each, trust()) for each in identities)
            )
            results[0].write_adapter(tmp_path / "merged")
        for member in members:
            await member.host.close()
        error_found, best = error(merged_update(tmp_path / "merged"), [0, 1, 2, 3])
        assert error_found < best + 0.02
        openers = PinnedOpeners(frozenset(member.identity for member in OPENING.members))
        assert complaints(tmp_path / "coordinator" / "record", one_shot.WITNESSED, openers=openers) == []

    asyncio.run(run())


async def _end_of_advertising(two: Two, session: bytes, expected: int) -> None:
    """End the first phase once so many have come: nobody else will."""
    host = await two.service.registry.find(session)
    while host.status().received < expected:
        await host.driver.wait_for_change(host.driver.version)
    await host.end_phase(Phase.ADVERTISE_KEYS)
