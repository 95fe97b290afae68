"""After its retention a session keeps what it published as its result, and nothing that a client uploaded."""

from __future__ import annotations

import asyncio

import pytest

from secagg.protocol.pairwise import tables
from secagg.protocol.pairwise.coordinator_states import Finished, ShareRow
from secagg.protocol.phases import Phase
from secagg.protocol.rows import HeaderRow
from secagg.runtime.registry import Registry
from secagg.transcript.entries import SessionResult
from secagg.transcript.statements import ContributionHeader
from tests.support.cohort import Cohort
from tests.support.liars import advance, cohort_of, settled, stop


async def ended(*, aborted: bool) -> Cohort:
    cohort = await cohort_of(5)
    if aborted:
        await advance(cohort, Phase.MASKED_INPUT)
        await cohort.upload(cohort.clients[:2])
        await settled(cohort, Phase.MASKED_INPUT)
        await cohort.reach(Phase.ABORTED)
    else:
        await advance(cohort, Phase.UNMASK)
        await cohort.answer(cohort.clients)
        await cohort.reach(Phase.FINISHED)
    return cohort


def uploaded(cohort: Cohort) -> set[bytes]:
    """Names of all that clients sent: boxes, masked inputs, their hashes."""
    names = set()
    for row in cohort.host.rows.values():
        if isinstance(row, ShareRow):
            names.add(row.blob)
        if isinstance(row, HeaderRow) and isinstance(row.signed.statement, ContributionHeader):
            names |= {row.signed.statement.upload, row.signed.statement.linear_hash}
    return names


@pytest.mark.parametrize("aborted", [False, True])
def test_uploads_hashes_boxes_and_limb_sum_go_and_the_result_stays(aborted: bool) -> None:
    async def run() -> None:
        cohort = await ended(aborted=aborted)
        rows = cohort.host.rows
        names = uploaded(cohort)
        assert len(names) == (9 if aborted else 15)
        kept = set()
        if not aborted:
            names.add(tables.close_entry(rows).limb_sum)
            result = SessionResult.from_bytes(cohort.host.evidence().entries[-1])
            kept = {result.integer_sum, result.mean, *(file.digest for file in result.aggregate)}
            assert isinstance(cohort.host.driver.state, Finished)
        assert all(cohort.blobs.has(name) for name in names | kept)
        registry = Registry(cohort.host._ports)
        cohort.clock.time_s -= 1000
        await registry._sweep_all()
        assert all(cohort.blobs.has(name) for name in names | kept)
        cohort.clock.time_s += 2000
        await registry._sweep_all()
        assert not any(cohort.blobs.has(name) for name in names)
        assert all(cohort.blobs.has(name) for name in kept)
        await stop(cohort.host)

    asyncio.run(run())
