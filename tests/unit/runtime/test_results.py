"""What a session logs at its end is what it computed from, no more and no less."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import numpy as np
import pytest

from secagg.derive.result import mean_of
from secagg.lora.factor_merging import adapter_to_vector
from secagg.lora.reader import read_adapter
from secagg.lora.template import AdapterTemplate
from secagg.protocol.pairwise import recovery, tables
from secagg.protocol.pairwise.coordinator_states import AnswerRow
from secagg.protocol.phases import Phase
from secagg.protocol.rows import RowKind, row_key
from secagg.runtime import pairwise_host as host_module
from secagg.runtime import vectors
from secagg.runtime.limb_sums import masked_sum
from secagg.transcript import merkle
from secagg.transcript.entries import SessionAbort, SessionResult
from tests.support.cohort import Cohort, tiny_template
from tests.support.liars import advance, cohort_of, settled, stop, uploading

CONFIG, MODEL = "adapter_config.json", "adapter_model.safetensors"


def last_entry(cohort: Cohort) -> bytes:
    return cohort.host.evidence().entries[-1]


def answers(cohort: Cohort) -> list[bytes]:
    rows = cohort.host.rows
    found = [rows.get(row_key(position, RowKind.ANSWER)) for position in range(len(cohort.clients))]
    return [row.leaf for row in found if isinstance(row, AnswerRow)]


def test_the_merged_adapter_is_the_mean_in_files_that_can_be_read(tmp_path: Path) -> None:
    async def run() -> None:
        cohort = await cohort_of(5)
        await advance(cohort, Phase.UNMASK)
        await cohort.answer(cohort.clients)
        await cohort.reach(Phase.FINISHED)
        result = SessionResult.from_bytes(last_entry(cohort))
        (tmp_path / MODEL).write_bytes(cohort.blobs.get(result.digest_of(MODEL)))
        (tmp_path / CONFIG).write_bytes(cohort.blobs.get(result.digest_of(CONFIG)))
        layout, template = tiny_template(5)
        adapter = read_adapter(tmp_path, "example/base")
        assert AdapterTemplate.from_adapter(adapter).digest == template.digest == cohort.session.parameters.adapter
        parameters, total = cohort.session.parameters, cohort.integer_sum().astype(np.int64)
        mean = mean_of(parameters.encoding, parameters.noise, total, 5)
        assert np.array_equal(adapter_to_vector(adapter, layout), mean)
        assert vectors.digest_of(mean) == result.mean
        await stop(cohort.host)

    asyncio.run(run())


def test_the_masked_sum_is_that_of_the_logged_limb_sum() -> None:
    async def run() -> None:
        cohort = await cohort_of(5)
        await advance(cohort, Phase.CONSISTENCY_CHECK)
        limb_sum = tables.close_entry(cohort.host.rows).limb_sum
        lanes = cohort.session.field_layout.lanes
        uploads = [np.frombuffer(one.upload, dtype="<u8") for one in cohort.clients]
        expected = np.sum(uploads, axis=0, dtype=np.uint64)
        assert np.array_equal(masked_sum(cohort.blobs, limb_sum, 5, lanes), expected)
        limbs = [upload.view("<u2").astype("<u8") for upload in uploads]
        assert hashlib.sha256(sum(limbs).tobytes()).digest() == limb_sum
        await stop(cohort.host)

    asyncio.run(run())


def test_an_answer_that_comes_while_the_sum_is_opened_is_not_among_those_that_opened_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        cohort = await cohort_of(5)
        await advance(cohort, Phase.UNMASK)
        original, used = recovery.recover, []

        def recover(session, rows, state, read):
            used.extend(tables.answer_leaves(rows, state.cohort, state.accepted).values())
            removal = original(session, rows, state, read)
            # One more client's answer becomes durable meanwhile.
            position = cohort.session.positions[cohort.clients[4].identity]
            late = AnswerRow(used[0])
            cohort.host.driver._durable_rows[row_key(position, RowKind.ANSWER)] = late
            return removal

        monkeypatch.setattr(host_module.recovery, "recover", recover)
        await cohort.answer(cohort.clients[:4])
        await settled(cohort, Phase.UNMASK)
        await cohort.reach(Phase.FINISHED)
        result = SessionResult.from_bytes(last_entry(cohort))
        assert len(used) == 4
        assert result.openings == merkle.root(used)
        await stop(cohort.host)

    asyncio.run(run())


def test_an_abort_commits_to_every_answer_that_was_given() -> None:
    async def run() -> None:
        cohort = await cohort_of(5)
        await advance(cohort, Phase.MASKED_INPUT)
        one = cohort.clients[1]
        one.feed(await cohort.host.shared_list(one.identity))
        noise = np.full(cohort.session.field_layout.lanes, 0x0123456789ABCDEF, dtype=np.uint64)
        one.outbox.append(uploading(one, noise))
        await cohort.deliver(one)
        await cohort.upload([other for other in cohort.clients if other is not one])
        await cohort.reach(Phase.CONSISTENCY_CHECK)
        await cohort.confirm(cohort.clients)
        await cohort.reach(Phase.UNMASK)
        await cohort.answer(cohort.clients)
        await settled(cohort, Phase.UNMASK)
        await cohort.reach(Phase.ABORTED)
        abort = SessionAbort.from_bytes(last_entry(cohort))
        assert abort.answers == 5
        assert abort.openings == merkle.root(answers(cohort)) != merkle.root(())
        await stop(cohort.host)

    asyncio.run(run())


def test_an_abort_for_too_few_answers_commits_to_those_that_came() -> None:
    async def run() -> None:
        cohort = await cohort_of(5)
        await advance(cohort, Phase.UNMASK)
        await cohort.answer(cohort.clients[:1])
        await settled(cohort, Phase.UNMASK)
        await cohort.reach(Phase.ABORTED)
        abort = SessionAbort.from_bytes(last_entry(cohort))
        assert abort.answers == 1
        assert abort.openings == merkle.root(answers(cohort))
        assert len(answers(cohort)) == 1
        await stop(cohort.host)

    asyncio.run(run())
