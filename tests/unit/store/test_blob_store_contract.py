"""What every blob store does, and what only files can do wrong."""

from __future__ import annotations

import hashlib
import stat
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from secagg.runtime.memory import MemoryBlobStore
from secagg.runtime.ports import StoreError, UploadError
from secagg.store.blobs import DirectoryBlobStore

TOKEN, OTHER = "0123456789abcdef" * 2, "f" * 32
DATA = bytes(range(256)) * 64
DIGEST = hashlib.sha256(DATA).digest()
CHUNK = 5000


@pytest.fixture(params=["memory", "directory"])
def store(request, tmp_path):
    return MemoryBlobStore() if request.param == "memory" else DirectoryBlobStore(tmp_path / "blobs")


@pytest.fixture
def directory(tmp_path):
    return DirectoryBlobStore(tmp_path / "blobs")


def send(store, token: str, start: int, end: int, data: bytes = DATA) -> int:
    piece = data[start:end]
    return store.write_chunk(token, start, piece, zlib.crc32(piece))


def upload(store, token: str, data: bytes = DATA, chunk: int = CHUNK) -> bytes:
    at = store.begin_upload(token, len(data), hashlib.sha256(data).digest())
    while at < len(data):
        at = send(store, token, at, at + chunk, data)
    return store.finish_upload(token)


def refused(call, *arguments) -> tuple[str, int]:
    with pytest.raises(UploadError) as caught:
        call(*arguments)
    return caught.value.reason, caught.value.committed_bytes


def test_what_is_put_can_be_got(store):
    assert store.put(DATA) == DIGEST
    assert store.put(memoryview(DATA)) == DIGEST
    assert store.has(DIGEST)
    assert store.get(DIGEST) == DATA


def test_a_deleted_blob_is_gone_and_may_come_back(store):
    store.put(DATA)
    store.delete(DIGEST)
    store.delete(DIGEST)
    assert not store.has(DIGEST)
    with pytest.raises(StoreError):
        store.get(DIGEST)
    store.put(DATA)
    assert store.get(DIGEST) == DATA


@pytest.mark.parametrize("data", [b"", b"x", DATA])
@pytest.mark.parametrize("chunk", [1 << 20, CHUNK])
def test_an_upload_becomes_a_blob(store, data, chunk):
    digest = hashlib.sha256(data).digest()
    assert upload(store, TOKEN, data, chunk) == digest
    assert store.get(digest) == data


def test_nothing_is_visible_before_the_end(store):
    store.begin_upload(TOKEN, len(DATA), DIGEST)
    assert send(store, TOKEN, 0, len(DATA)) == len(DATA)
    assert not store.has(DIGEST)


def test_a_finished_upload_is_finished_again(store):
    upload(store, TOKEN)
    assert store.finish_upload(TOKEN) == DIGEST
    assert store.begin_upload(TOKEN, len(DATA), DIGEST) == len(DATA)
    assert send(store, TOKEN, 0, CHUNK) == len(DATA)
    assert store.finish_upload(TOKEN) == DIGEST


def test_an_upload_whose_blob_was_deleted_starts_again(store):
    upload(store, TOKEN)
    store.delete(DIGEST)
    assert refused(store.finish_upload, TOKEN) == ("the upload is incomplete", 0)
    assert upload(store, TOKEN) == DIGEST
    assert store.get(DIGEST) == DATA


def test_a_blob_that_is_there_does_not_shorten_somebody_elses_upload(store):
    upload(store, TOKEN)
    assert store.begin_upload(OTHER, len(DATA), DIGEST) == 0
    assert refused(store.finish_upload, OTHER) == ("the upload is incomplete", 0)
    assert upload(store, OTHER) == DIGEST


def test_a_repeated_chunk_is_acknowledged_and_an_overlapping_one_adds_its_end(store):
    store.begin_upload(TOKEN, len(DATA), DIGEST)
    assert send(store, TOKEN, 0, 1000) == 1000
    assert send(store, TOKEN, 0, 1000) == 1000
    assert send(store, TOKEN, 200, 300) == 1000
    assert send(store, TOKEN, 500, 1500) == 1500
    assert send(store, TOKEN, 1500, 1500) == 1500
    assert store.begin_upload(TOKEN, len(DATA), DIGEST) == 1500
    assert upload(store, TOKEN) == DIGEST


def test_chunks_that_do_not_fit_say_where_to_go_on(store):
    store.begin_upload(TOKEN, len(DATA), DIGEST)
    send(store, TOKEN, 0, 1000)
    assert refused(send, store, TOKEN, 1001, 1100) == ("the chunk leaves a gap", 1000)
    assert refused(store.write_chunk, TOKEN, 1000, b"x", 1) == ("the chunk has another CRC-32", 1000)
    assert refused(store.write_chunk, TOKEN, -1, b"", 0) == ("the chunk leaves a gap", 1000)
    too_long = DATA[1000:] + b"x"
    reason = "the chunk goes beyond the declared length"
    assert refused(store.write_chunk, TOKEN, 1000, too_long, zlib.crc32(too_long)) == (reason, 1000)
    assert refused(store.finish_upload, TOKEN) == ("the upload is incomplete", 1000)
    assert upload(store, TOKEN) == DIGEST


def test_another_digest_starts_the_upload_again(store):
    store.begin_upload(TOKEN, len(DATA), DIGEST)
    send(store, TOKEN, 0, len(DATA), DATA[::-1])
    assert refused(store.finish_upload, TOKEN) == ("the bytes have another digest", 0)
    assert not store.has(DIGEST)
    assert store.begin_upload(TOKEN, len(DATA), DIGEST) == 0
    assert upload(store, TOKEN) == DIGEST


def test_a_token_is_bound_to_its_declaration_until_it_is_discarded(store):
    store.begin_upload(TOKEN, len(DATA), DIGEST)
    send(store, TOKEN, 0, 1000)
    reason = "the upload was begun with another length or digest"
    assert refused(store.begin_upload, TOKEN, len(DATA) + 1, DIGEST) == (reason, 1000)
    assert refused(store.begin_upload, TOKEN, len(DATA), bytes(32)) == (reason, 1000)
    store.discard_upload(TOKEN)
    store.discard_upload(TOKEN)
    assert refused(send, store, TOKEN, 1000, 2000) == ("unknown upload", 0)
    assert store.begin_upload(TOKEN, 1, bytes(32)) == 0


def test_a_sweep_keeps_what_it_is_told_and_every_blob(store):
    store.begin_upload(TOKEN, len(DATA), DIGEST)
    upload(store, OTHER)
    store.begin_upload("a" * 32, 1, bytes(32))
    assert store.sweep_uploads({TOKEN}) == 2
    assert store.sweep_uploads({TOKEN}) == 0
    assert send(store, TOKEN, 0, 10) == 10
    assert refused(store.finish_upload, OTHER) == ("unknown upload", 0)
    assert store.get(DIGEST) == DATA


@pytest.mark.parametrize("token", ["", "a" * 31, "a" * 33, "A" * 32, "a" * 32 + "\n", "../" + "a" * 29, "٣" * 32])
def test_a_token_is_32_hexadecimal_digits(store, tmp_path, token):
    for call in (
        lambda: store.begin_upload(token, 1, bytes(32)),
        lambda: store.write_chunk(token, 0, b"", 0),
        lambda: store.finish_upload(token),
        lambda: store.discard_upload(token),
    ):
        assert refused(call) == ("an upload token is 32 hexadecimal digits", 0)


def test_lengths_and_digests_are_checked(store):
    refused(store.begin_upload, TOKEN, -1, DIGEST)
    refused(store.begin_upload, TOKEN, 1, DIGEST[:-1])
    for call in (store.get, store.has, store.delete):
        with pytest.raises(StoreError):
            call(b"short")


def test_lanes_are_read_in_place(store):
    store.put(DATA)
    lanes = np.frombuffer(DATA, "<u8")
    out = np.zeros((4, 100), np.uint64)
    store.read_into(DIGEST, 24, out[1:3])
    assert np.array_equal(out[1:3].reshape(-1), lanes[3:203])
    assert not out[0].any()
    assert not out[3].any()
    store.read_into(DIGEST, len(DATA), np.zeros(0, np.uint64))


def test_lanes_that_are_not_there_or_do_not_fit_are_refused(store):
    store.put(DATA)
    good = np.zeros(2, np.uint64)
    frozen = np.zeros(2, np.uint64)
    frozen.flags.writeable = False
    for digest, offset, out in (
        (DIGEST, 4, good),
        (DIGEST, -8, good),
        (DIGEST, len(DATA) - 8, good),
        (bytes(32), 0, good),
        (DIGEST, 0, np.zeros((2, 2), np.uint64)[:, 0]),
        (DIGEST, 0, frozen),
        (DIGEST, 0, np.zeros(2, np.int32)),
    ):
        with pytest.raises(StoreError):
            store.read_into(digest, offset, out)


def test_a_part_of_a_blob_is_read_whole_or_not_at_all(store):
    store.put(DATA)
    assert store.read(DIGEST, 0, len(DATA)) == DATA
    assert store.read(DIGEST, 5, 7) == DATA[5:12]
    assert store.read(DIGEST, len(DATA), 0) == b""
    for digest, offset, length in (
        (DIGEST, len(DATA) - 1, 2),
        (DIGEST, -3, 2),
        (DIGEST, 0, -1),
        (bytes(32), 0, 1),
        (b"short", 0, 1),
    ):
        with pytest.raises(StoreError):
            store.read(digest, offset, length)


def test_many_threads_upload_at_once(store):
    blobs = [bytes([n]) * 300_000 for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda n: upload(store, f"{n:032x}", blobs[n], 1 << 16), range(24)))
    assert [store.get(digest) for digest in digests] == blobs


def test_several_threads_may_send_one_upload(store):
    store.begin_upload(TOKEN, len(DATA), DIGEST)
    with ThreadPoolExecutor(4) as pool:
        finished = list(pool.map(lambda _: upload(store, TOKEN), range(4)))
    assert finished == [DIGEST] * 4
    assert store.get(DIGEST) == DATA


def test_an_upload_in_use_holds_up_no_other(directory):
    with directory._upload(TOKEN):
        assert upload(directory, OTHER) == DIGEST


def test_memory_holds_open_uploads_only(directory):
    upload(directory, TOKEN)
    refused(send, directory, OTHER, 0, 1)
    assert directory._uploads == {}


def test_an_upload_goes_on_after_a_restart(directory, tmp_path):
    directory.begin_upload(TOKEN, len(DATA), DIGEST)
    send(directory, TOKEN, 0, 7000)
    again = DirectoryBlobStore(tmp_path / "blobs")
    assert send(again, TOKEN, 7000, 8000) == 8000
    again = DirectoryBlobStore(tmp_path / "blobs")
    assert again.begin_upload(TOKEN, len(DATA), DIGEST) == 8000
    assert upload(again, TOKEN) == DIGEST
    again = DirectoryBlobStore(tmp_path / "blobs")
    assert again.finish_upload(TOKEN) == DIGEST


def test_an_upload_that_lost_its_bytes_does_not_become_somebody_elses_blob(directory, tmp_path):
    upload(directory, TOKEN)
    directory.begin_upload(OTHER, len(DATA), DIGEST)
    (tmp_path / "blobs" / "uploads" / OTHER).unlink()
    again = DirectoryBlobStore(tmp_path / "blobs")
    assert refused(again.finish_upload, OTHER) == ("the upload is incomplete", 0)
    assert again.begin_upload(OTHER, len(DATA), DIGEST) == 0
    assert upload(again, OTHER) == DIGEST


def test_a_spoilt_sidecar_makes_the_upload_unknown(directory, tmp_path):
    directory.begin_upload(TOKEN, len(DATA), DIGEST)
    send(directory, TOKEN, 0, 7000)
    (tmp_path / "blobs" / "uploads" / f"{TOKEN}.decl").write_bytes(bytes(60))
    again = DirectoryBlobStore(tmp_path / "blobs")
    assert refused(again.finish_upload, TOKEN) == ("unknown upload", 0)
    assert again.begin_upload(TOKEN, len(DATA), DIGEST) == 0
    send(again, TOKEN, 0, 10)
    assert DirectoryBlobStore(tmp_path / "blobs").begin_upload(TOKEN, len(DATA), DIGEST) == 10


def test_bytes_that_a_power_failure_lost_are_found_at_the_end(directory, tmp_path):
    directory.begin_upload(TOKEN, len(DATA), DIGEST)
    send(directory, TOKEN, 0, len(DATA))
    staged = tmp_path / "blobs" / "uploads" / TOKEN
    staged.write_bytes(bytes(4096) + DATA[4096:] + b"more")
    again = DirectoryBlobStore(tmp_path / "blobs")
    assert again.begin_upload(TOKEN, len(DATA), DIGEST) == len(DATA)
    assert refused(again.finish_upload, TOKEN) == ("the bytes have another digest", 0)
    assert upload(again, TOKEN) == DIGEST


def test_a_damaged_blob_is_not_handed_out(directory, tmp_path):
    directory.put(DATA)
    (path,) = (tmp_path / "blobs" / "blobs").glob("*/*")
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(StoreError, match="other bytes"):
        directory.get(DIGEST)


def test_an_error_of_the_disk_is_a_store_error_and_the_upload_goes_on(directory, monkeypatch):
    directory.begin_upload(TOKEN, len(DATA), DIGEST)
    pwrite = __import__("os").pwrite

    def full(descriptor, data, offset):
        pwrite(descriptor, bytes(data)[:100], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        with pytest.raises(StoreError, match="No space left"):
            send(directory, TOKEN, 0, 1000)
    assert directory.begin_upload(TOKEN, len(DATA), DIGEST) == 100
    assert upload(directory, TOKEN) == DIGEST


def test_a_sweep_removes_what_a_crash_left_of_put(directory, tmp_path):
    left = tmp_path / "blobs" / "put" / "1-0"
    left.write_bytes(b"half")
    directory.sweep_uploads(set())
    assert not left.exists()


def test_files_are_private(directory, tmp_path):
    upload(directory, TOKEN)
    directory.put(b"put")
    directory.begin_upload(OTHER, 1, DIGEST)
    for path in (tmp_path / "blobs", *(tmp_path / "blobs").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
