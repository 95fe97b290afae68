"""What a real coordinator publishes of one-shot sessions passes the verifier, whatever happened in them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from secagg.protocol.phases import Phase
from secagg.transcript.entries import OneShotResult, decode_entry
from simulations.attacks.published_record import log_files
from tests.support.audit import complaints
from tests.support.cohort import one_hot
from tests.support.one_shot_cohort import OneShotCohort, open_one_shot
from verifier.policy import PinnedOpeners

DIMENSION = 20
Play = Callable[[OneShotCohort], Awaitable[None]]


def published(directory: Path, play: Play, count: int = 5) -> tuple[list[str], object]:
    """What an auditor at level full complains about after a session was played so, and the session's last entry."""

    async def session() -> tuple[list[str], object]:
        cohort = await open_one_shot(count, lambda number: one_hot(DIMENSION, number))
        try:
            await play(cohort)
            return audited(directory, cohort), decode_entry(cohort.ports.log.evidence(0).entries[-1])
        finally:
            await cohort.close()

    return asyncio.run(session())


def audited(directory: Path, cohort: OneShotCohort) -> list[str]:
    evidence = cohort.ports.log.evidence(0)
    files = {"checkpoint": evidence.checkpoint, **log_files(evidence.entries)}
    files |= {f"sessions/{session.hex()}/{name}": data for (session, name), data in cohort.record.files.items()}
    inputs = {hashlib.sha256(one.upload).hexdigest(): one.upload for one in cohort.contributors}
    for name, data in {f"record/{name}": data for name, data in files.items()}.items():
        write(directory / name, data)
    for digest, data in inputs.items():
        write(directory / "masked-inputs" / f"{digest}.bin", data)
    openers = PinnedOpeners(frozenset(member.identity for member in cohort.session.parameters.opening.members))
    return complaints(
        directory / "record", min_contributors=2, masked_inputs=directory / "masked-inputs", openers=openers
    )


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


async def everybody_contributes(cohort: OneShotCohort) -> None:
    await cohort.contribute(*range(5))
    await cohort.reach(Phase.FINISHED)


async def some_drop_out(cohort: OneShotCohort) -> None:
    await cohort.contribute(1, 3, 4)
    await cohort.settle()
    await cohort.host.end_phase(Phase.MASKED_INPUT)
    await cohort.reach(Phase.FINISHED)


async def one_never_sends_what_it_signed(cohort: OneShotCohort) -> None:
    message = cohort.contributors[0].contribution
    assert message is not None
    await cohort.host.submit(message)
    await some_drop_out(cohort)


async def a_member_is_gone(cohort: OneShotCohort) -> None:
    await cohort.contribute(0, 1, 2, 3)
    await cohort.settle()
    cohort.members[2].is_up = False
    await cohort.host.end_phase(Phase.MASKED_INPUT)
    await cohort.reach(Phase.FINISHED)


@pytest.mark.parametrize(
    "play", [everybody_contributes, some_drop_out, one_never_sends_what_it_signed, a_member_is_gone]
)
def test_a_session_with_a_result_passes_at_level_full(tmp_path: Path, play: Play) -> None:
    said, last = published(tmp_path, play)
    assert isinstance(last, OneShotResult)
    assert said == []


async def too_few_contribute(cohort: OneShotCohort) -> None:
    await cohort.contribute(0)
    await cohort.settle()
    await cohort.host.end_phase(Phase.MASKED_INPUT)
    await cohort.reach(Phase.ABORTED)


async def too_few_members_answer(cohort: OneShotCohort) -> None:
    await cohort.contribute(0, 1, 2, 3)
    await cohort.settle()
    cohort.members[1].is_up = cohort.members[2].is_up = False
    await cohort.host.end_phase(Phase.MASKED_INPUT)
    await cohort.reach(Phase.OPEN_SUM)
    await cohort.pass_deadline()
    await cohort.reach(Phase.ABORTED)


@pytest.mark.parametrize("play", [too_few_contribute, too_few_members_answer])
def test_an_aborted_session_passes(tmp_path: Path, play: Play) -> None:
    said, last = published(tmp_path, play)
    assert not isinstance(last, OneShotResult)
    assert said == []
