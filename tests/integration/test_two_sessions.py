"""Merges that take two sessions, whole, over gRPC: client library against real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from secagg.lora.reader import read_adapter
from tests.support.cohort import key_of
from tests.support.service import serving
from tests.support.two_sessions import PILOTS, RANGE, RANK, Two, pilots, update_of


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

    asyncio.run(run())


async def _end_of_advertising(two: Two, session: bytes, expected: int) -> None:
    """End the first phase once so many have come: nobody else will."""
    from secagg.protocol.phases import Phase

    host = await two.service.registry.find(session)
    while host.status().received < expected:
        await host.driver.wait_for_change(host.driver.version)
    await host.end_phase(Phase.ADVERTISE_KEYS)
