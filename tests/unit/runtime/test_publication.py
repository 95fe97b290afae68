"""The files of a session in the record: what the rows say, before the entry that names them, and the same again."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from secagg.arith.linear_hash import HASH_BYTES
from secagg.derive import boxes
from secagg.protocol.messages import OutgoingBoxes
from secagg.protocol.pairwise.coordinator_states import Aborted, AdvertiseRow, AnswerRow, Finished, ShareRow
from secagg.protocol.phases import Phase
from secagg.protocol.rows import RowKind, row_key
from secagg.runtime import vectors
from secagg.runtime.memory import MemoryRecord
from secagg.runtime.pairwise_publication import PairwiseFiles
from secagg.runtime.transparency_log import TransparencyLog
from secagg.transcript import merkle
from secagg.transcript.entries import (
    KeysAdvertised,
    KeysShared,
    PairwiseOpen,
    SessionAbort,
    SessionClose,
    SessionResult,
    decode_entry,
)
from secagg.transcript.published import PairBox, PairPromise, decode_published_pair
from secagg.transcript.statements import Absent, Accepted, Dropped, Rejected, ShareStatement, Signed, decode_disposition
from tests.support import cohort as cohort_module
from tests.support.audit import complaints
from tests.support.cohort import Cohort
from tests.support.liars import advance, cohort_of, contribute, dealt, settled, stop, uploading
from tests.support.record_rules import FILES_OF, broken_rules, lines_of
from tests.support.stage import UNIT

SIZE = 12
ABSENT, DROPPED, LIAR, MISSING_ONE = 11, (3, 5), 9, 6
CONTRIBUTORS = (0, 1, 2, 4, 6, 7, 8, 10)
"""Index 11 shares no keys, 3 and 5 upload nothing, 9 lies about its upload, and 6 has masked without 3."""


@dataclasses.dataclass
class Played:
    """A session that is over, and its record."""

    cohort: Cohort
    record: MemoryRecord
    uploads: dict[int, bytes]
    dealt: dict[int, tuple[OutgoingBoxes, ...]]

    @property
    def files(self) -> dict[str, bytes]:
        session = self.cohort.session.parameters.session
        assert {key for key, _ in self.record.files} == {session}
        return {name: data for (_, name), data in self.record.files.items()}

    @property
    def entries(self) -> list[object]:
        return [decode_entry(entry) for entry in self.cohort.host.evidence().entries]

    def entry(self, kind: type) -> object:
        (found,) = [entry for entry in self.entries if isinstance(entry, kind)]
        return found

    def lines(self, name: str) -> list[bytes]:
        return lines_of(self.files[name])

    def row(self, index: int, kind: RowKind) -> object:
        state = self.cohort.host.driver.state
        return self.cohort.host.rows.get(row_key(state.cohort.positions[index], kind))


async def play(cohort: Cohort) -> dict[int, tuple[OutgoingBoxes, ...]]:
    """The session that the numbers at the head of this module tell of; the boxes as they were dealt."""
    clients = cohort.clients
    await cohort.advertise(clients)
    await cohort.reach(Phase.SHARE_KEYS)
    sharing = [one for index, one in enumerate(clients) if index != ABSENT]
    for one in sharing:
        one.feed(cohort.host.advertised_list(one.identity))

    def spoil(box: OutgoingBoxes) -> OutgoingBoxes:
        if box.recipient != MISSING_ONE:
            return box
        return dataclasses.replace(box, share_box=bytes(len(box.share_box)))

    clients[DROPPED[0]].outbox.append(dealt(clients[DROPPED[0]], spoil))
    given = {index: one.outbox[0].boxes for index, one in enumerate(clients) if one.outbox}
    for one in sharing:
        await cohort.deliver(one)
    await settled(cohort, Phase.SHARE_KEYS)
    for index, one in enumerate(clients):
        if index in {ABSENT, *DROPPED}:
            continue
        one.feed(await cohort.host.shared_list(one.identity))
        if index == LIAR:
            lanes = np.frombuffer(one.upload, dtype="<u8")
            await contribute(cohort, one, uploading(one, lanes, bytes(range(256)) * (HASH_BYTES // 256)))
        else:
            await cohort.deliver(one)
    await settled(cohort, Phase.MASKED_INPUT)
    await cohort.reach(Phase.CONSISTENCY_CHECK)
    contributors = [clients[index] for index in CONTRIBUTORS]
    await cohort.confirm(contributors)
    await cohort.reach(Phase.UNMASK)
    await cohort.answer(contributors)
    await cohort.reach(Phase.FINISHED)
    return given


@contextmanager
def watched() -> Iterator[MemoryRecord]:
    """The record of the sessions of the block; whether an entry went into their log before its files is told after."""
    record = MemoryRecord()
    append, early = TransparencyLog.append, []

    async def checked(log: TransparencyLog, entries: Sequence[bytes]) -> int:
        for entry in map(decode_entry, entries):
            session = getattr(entry, "session", b"")
            early.extend(broken_rules(entry, lambda name, session=session: record.files.get((session, name))))
        return await append(log, entries)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort_module, "MemoryRecord", lambda: record)
        patch.setattr(TransparencyLog, "append", checked)
        yield record
    assert early == [], "went into the log before its files"


@pytest.fixture
def record() -> Iterator[MemoryRecord]:
    with watched() as found:
        yield found


@pytest.fixture(scope="module")
def played() -> Played:
    async def run(record: MemoryRecord) -> Played:
        cohort = await cohort_of(SIZE)
        given = await play(cohort)
        await stop(cohort.host)
        uploads = {index: one.upload for index, one in enumerate(cohort.clients)}
        return Played(cohort, record, uploads, given)

    with watched() as record:
        return asyncio.run(run(record))


def written(played: Played, directory: Path) -> Path:
    """The record as a coordinator publishes it."""
    files = played.cohort.host._ports.log._files
    for (session, name), data in played.record.files.items():
        path = directory / "sessions" / session.hex() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name in files.names():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.read(name))
    (directory / "checkpoint").write_bytes(files.checkpoint())
    return directory


def test_the_session_is_what_it_is_meant_to_be(played):
    state = played.cohort.host.driver.state
    assert isinstance(state, Finished)
    assert state.accepted == CONTRIBUTORS
    header = Signed.from_bytes(played.lines("contributions.jsonl")[CONTRIBUTORS.index(MISSING_ONE)]).statement
    assert header.missing == (DROPPED[0],)


def test_every_entry_finds_its_files_and_there_are_no_others(played):
    assert [type(entry) for entry in played.entries] == [
        PairwiseOpen,
        KeysAdvertised,
        KeysShared,
        SessionClose,
        SessionResult,
    ]
    assert sorted(played.files) == sorted(name for names in FILES_OF.values() for name in names)
    for entry in played.entries:
        assert broken_rules(entry, played.files.get) == []


def test_an_auditor_finds_the_record_in_order(played, tmp_path):
    assert complaints(written(played, tmp_path)) == []


def test_the_opening_shows_roster_layout_and_template(played):
    session = played.cohort.session
    layout, template = cohort_module.tiny_template(session.parameters.encoding.dimension)
    assert played.lines("roster.jsonl") == list(session.roster.leaves())
    assert played.files["layout.json"] == cohort_module.canonical.encode(layout.to_json_value())
    assert played.files["adapter.json"] == cohort_module.canonical.encode(template.to_json_value())


def test_keys_are_listed_by_index_and_those_who_shared_none_are_absent(played):
    keys = [played.row(index, RowKind.ADVERTISE) for index in range(SIZE)]
    assert all(isinstance(row, AdvertiseRow) for row in keys)
    assert played.lines("keys.jsonl") == [row.signed.to_bytes() for row in keys]
    shares = [played.row(index, RowKind.SHARE) for index in range(SIZE)]
    expected = [row.signed.to_bytes() if isinstance(row, ShareRow) else None for row in shares]
    assert [index for index, row in enumerate(expected) if row is None] == [ABSENT]
    expected[ABSENT] = Absent(ABSENT).to_bytes()
    assert played.lines("u2.jsonl") == expected


def test_what_became_of_everybody_is_said_by_index(played):
    leaves = [decode_disposition(line) for line in played.lines("dispositions.jsonl")]
    assert [leaf.index for leaf in leaves] == list(range(SIZE))
    said = {leaf.index: leaf for leaf in leaves}
    assert {index for index, leaf in said.items() if isinstance(leaf, Accepted)} == set(CONTRIBUTORS)
    assert said[LIAR] == Rejected(LIAR, "WRONG_LINEAR_HASH")
    assert said[ABSENT] == Dropped(ABSENT, Phase.SHARE_KEYS.value)
    assert [said[index] for index in DROPPED] == [Dropped(index, Phase.MASKED_INPUT.value) for index in DROPPED]
    accepted = [said[index].contribution.to_bytes() for index in CONTRIBUTORS]
    assert played.lines("contributions.jsonl") == accepted


def test_hashes_and_limb_sum_are_those_of_the_uploads_in_set_order(played):
    lanes = [np.frombuffer(played.uploads[index], dtype="<u8") for index in CONTRIBUTORS]
    assert played.files["linear-hashes.bin"] == b"".join(map(vectors.linear_hash_of, lanes))
    limbs = sum(np.frombuffer(each.tobytes(), dtype="<u2").astype("<u8") for each in lanes)
    assert played.files["masked-limb-sum.bin"] == limbs.tobytes()


def test_the_result_is_the_exact_sum_and_the_merged_adapter(played):
    expected = [UNIT if index in CONTRIBUTORS else 0 for index in range(SIZE)]
    assert np.frombuffer(played.files["integer-sum.bin"], dtype="<i8").tolist() == expected
    result = played.entry(SessionResult)
    blobs = played.cohort.blobs
    assert [file.name for file in result.aggregate] == ["adapter_config.json", "adapter_model.safetensors"]
    for file in result.aggregate:
        assert played.files[f"aggregate/{file.name}"] == blobs.get(file.digest)
    mean = np.frombuffer(blobs.get(result.mean), dtype="<f4")
    assert mean.tobytes() in played.files["aggregate/adapter_model.safetensors"]


def test_the_openings_are_answers_that_were_given_by_index_of_who_gave_them(played):
    rows = {index: played.row(index, RowKind.ANSWER) for index in range(SIZE)}
    given = {row.leaf: index for index, row in rows.items() if isinstance(row, AnswerRow)}
    used = [given[line] for line in played.lines("openings.jsonl")]
    assert used == sorted(used)
    assert len(used) >= played.cohort.host.driver.state.cohort.threshold


def pairs_of(played: Played) -> list[PairBox | PairPromise]:
    return [decode_published_pair(line) for line in played.lines("pair-boxes.jsonl")]


def test_of_each_pair_that_a_dropped_mask_joined_the_lower_index_is_shown(played):
    dropped = (*DROPPED, LIAR)
    expected = {
        (min(gone, user), max(gone, user)): PairPromise if gone < user else PairBox
        for gone in dropped
        for user in CONTRIBUTORS
        if (gone, user) != (DROPPED[0], MISSING_ONE)
    }
    found = pairs_of(played)
    assert [(pair.sender, pair.recipient) for pair in found] == sorted(expected)
    assert {(pair.sender, pair.recipient): type(pair) for pair in found} == expected
    assert {type(pair) for pair in found} == {PairBox, PairPromise}


def test_a_box_is_shown_of_a_contributor_only_and_a_client_that_dropped_shows_digests(played):
    """The box of who dropped follows from its root; one that nobody needs stays sealed and unseen."""
    boxes_shown = {pair.box for pair in pairs_of(played) if isinstance(pair, PairBox)}
    for sender, given in played.dealt.items():
        for box in given:
            gone = box.recipient in {*DROPPED, LIAR}
            needed = sender in CONTRIBUTORS and gone and sender < box.recipient
            needed = needed and (box.recipient, sender) != (DROPPED[0], MISSING_ONE)
            assert (box.pair_box in boxes_shown) == (needed and bool(box.pair_box)), (sender, box.recipient)
            assert box.share_box not in b"".join(played.files.values())


def test_every_pair_stands_under_the_root_that_its_sender_signed(played):
    statements = {
        index: Signed.from_bytes(line).statement
        for index, line in enumerate(played.lines("u2.jsonl"))
        if index != ABSENT
    }
    for pair in pairs_of(played):
        statement = statements[pair.sender]
        assert isinstance(statement, ShareStatement)
        (box,) = [box for box in played.dealt[pair.sender] if box.recipient == pair.recipient]
        digest = hashlib.sha256(pair.box).digest() if isinstance(pair, PairBox) else pair.pair_box
        assert digest == hashlib.sha256(box.pair_box).digest()
        assert (pair.share_box, pair.commitments) == (hashlib.sha256(box.share_box).digest(), box.commitments)
        neighbours = [index for index in range(SIZE) if index != pair.sender]
        leaf = boxes.box_leaf_of_digests(pair.recipient, pair.share_box, digest, pair.commitments)
        position = neighbours.index(pair.recipient)
        merkle.verify_inclusion(merkle.leaf_hash(leaf), position, len(neighbours), pair.path, statement.boxes)


def test_what_is_written_again_from_the_rows_is_the_same(played):
    host, again = played.cohort.host, MemoryRecord()
    state, rows = host.driver.state, dict(host.rows)
    files = PairwiseFiles(host.session, again, played.cohort.blobs)
    files.opened(host.setup())
    files.advertised(rows, state.cohort)
    files.shared(rows, state.cohort)
    files.closed(played.entry(SessionClose), rows, state)
    files.result(played.entry(SessionResult), state)
    assert again.files == played.record.files


def test_a_session_without_dropouts_has_a_list_of_boxes_that_is_empty(record, tmp_path):
    async def run() -> Played:
        cohort = await cohort_of(5)
        await advance(cohort, Phase.UNMASK)
        await cohort.answer(cohort.clients)
        await cohort.reach(Phase.FINISHED)
        await stop(cohort.host)
        return Played(cohort, record, {}, {})

    played = asyncio.run(run())
    assert played.files["pair-boxes.jsonl"] == b""
    assert complaints(written(played, tmp_path)) == []


@pytest.mark.parametrize(
    ("phase", "kinds"),
    [
        (Phase.ADVERTISE_KEYS, [PairwiseOpen]),
        (Phase.SHARE_KEYS, [PairwiseOpen, KeysAdvertised]),
        (Phase.MASKED_INPUT, [PairwiseOpen, KeysAdvertised, KeysShared]),
        (Phase.UNMASK, [PairwiseOpen, KeysAdvertised, KeysShared, SessionClose]),
    ],
    ids=lambda value: value.value if isinstance(value, Phase) else "",
)
def test_of_a_session_that_ends_without_a_sum_nothing_more_is_published(record, tmp_path, phase, kinds):
    async def run() -> Played:
        cohort = await cohort_of(5)
        await advance(cohort, phase)
        await settled(cohort, phase)
        await cohort.reach(Phase.ABORTED)
        await stop(cohort.host)
        return Played(cohort, record, {}, {})

    played = asyncio.run(run())
    assert isinstance(played.cohort.host.driver.state, Aborted)
    assert [type(entry) for entry in played.entries] == [*kinds, SessionAbort]
    assert sorted(played.files) == sorted(name for kind in kinds for name in FILES_OF[kind])
    assert complaints(written(played, tmp_path)) == []
