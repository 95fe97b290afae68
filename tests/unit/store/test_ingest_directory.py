from __future__ import annotations

import hashlib
import zlib

import numpy as np
import pytest

from secagg.runtime.partial_sum import HashedUpload, PartialSum
from secagg.runtime.ports import StoreError, UploadError
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.ingest_directory import IngestDirectory, remove_ingest_directories

SESSION, TOKEN, DATA = bytes(16), "ab" * 16, b"eight by" * 100


def some_sum() -> PartialSum:
    total = PartialSum(4)
    lanes = np.arange(4, dtype=np.uint64)
    total.add(3, HashedUpload(bytes(32), bytes(32)), lanes, np.arange(2048, dtype=np.uint64))
    return total


def test_a_sum_is_taken_once_and_is_what_was_put(tmp_path):
    directory = IngestDirectory(tmp_path, 0)
    directory.open_blobs()
    directory.put_sum(SESSION, some_sum())
    taken = IngestDirectory(tmp_path, 0).take_sum(SESSION)
    assert taken is not None
    assert taken.to_bytes() == some_sum().to_bytes()
    assert directory.take_sum(SESSION) is None


def test_sums_that_nobody_took_are_gone_after_a_restart(tmp_path):
    directory = IngestDirectory(tmp_path, 0)
    directory.open_blobs()
    directory.put_sum(SESSION, some_sum())
    directory.open_blobs()
    assert directory.take_sum(SESSION) is None


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data + b"x"])
def test_a_damaged_sum_is_refused_and_does_not_stay(tmp_path, damage):
    directory = IngestDirectory(tmp_path, 0)
    directory.open_blobs()
    (tmp_path / "ingest-0" / "sums" / f"{SESSION.hex()}.sum").write_bytes(damage(some_sum().to_bytes()))
    with pytest.raises(StoreError):
        directory.take_sum(SESSION)
    assert directory.take_sum(SESSION) is None


def test_two_processes_stage_the_same_token_apart_and_share_the_blob(tmp_path):
    one, other = DirectoryBlobStore(tmp_path), IngestDirectory(tmp_path, 1).open_blobs()
    digest = hashlib.sha256(DATA).digest()
    for blobs in (one, other):
        assert blobs.begin_upload(TOKEN, len(DATA), digest) == 0
    wrong = bytes(len(DATA))
    one.write_chunk(TOKEN, 0, wrong, zlib.crc32(wrong))
    other.write_chunk(TOKEN, 0, DATA, zlib.crc32(DATA))
    assert IngestDirectory(tmp_path, 1).staged_bytes(TOKEN) == len(DATA)
    assert other.finish_upload(TOKEN) == digest
    with pytest.raises(UploadError, match="another digest"):
        one.finish_upload(TOKEN)
    assert one.get(digest) == DATA
    assert one.sweep_uploads(set()) == 1
    assert other.finish_upload(TOKEN) == digest, "what one process sweeps is its own"


def test_a_directory_belongs_to_one_process_at_a_time(tmp_path):
    lock = IngestDirectory(tmp_path, 0).lock()
    IngestDirectory(tmp_path, 1).lock().release()
    with pytest.raises(StoreError):
        IngestDirectory(tmp_path, 0).lock()
    lock.release()
    IngestDirectory(tmp_path, 0).lock().release()


def test_only_what_processes_beyond_the_count_left_is_removed(tmp_path):
    for place in range(3):
        IngestDirectory(tmp_path, place).open_blobs()
    (tmp_path / "ingest-notes").mkdir()
    remove_ingest_directories(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.glob("ingest-*")) == ["ingest-0", "ingest-notes"]


def test_staged_bytes_of_an_unknown_upload_are_none(tmp_path):
    assert IngestDirectory(tmp_path, 0).staged_bytes(TOKEN) == 0
