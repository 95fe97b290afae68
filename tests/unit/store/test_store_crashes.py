"""Real processes, really killed: what was acknowledged is there, what is there is whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from secagg.runtime.ports import UploadError
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.sqlite import SqliteSessionStore

ROOT = Path(__file__).parents[3]
SESSIONS = 12
BLOB_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16

# State, rows and effects of version v are functions of v, so any mixture of two versions shows.
COMMITTER = """
import asyncio, os, pathlib, sys
from secagg.runtime.ports import Commit
from secagg.store.sqlite import SqliteSessionStore

async def work(store, number):
    session = number.to_bytes(16, "big")
    stored = await store.load(session)
    version = stored.version if stored else 0
    while True:
        text = b"%d" % (version + 1)
        commit = Commit(text * 100, {0: text, 1: text * 300, 2 + version: text}, [text, text])
        first, second = await store.commit(session, version, commit)
        await store.effect_done(session, first)
        version += 1
        os.write(1, b"%d %d\\n" % (number, version))

async def main():
    store = SqliteSessionStore(pathlib.Path(sys.argv[1]))
    await asyncio.gather(*(work(store, number) for number in range(int(sys.argv[2]))))

asyncio.run(main())
"""

UPLOADER = """
import hashlib, os, pathlib, sys, threading, zlib
from secagg.store.blobs import DirectoryBlobStore
from tests.unit.store.test_store_crashes import BLOB_BYTES, CHUNK_BYTES, blob

def work(store, first):
    for number in range(first, 10_000, 2):
        data, token = blob(number), f"{number:032x}"
        at = store.begin_upload(token, BLOB_BYTES, hashlib.sha256(data).digest())
        while at < BLOB_BYTES:
            piece = data[at : at + CHUNK_BYTES]
            at = store.write_chunk(token, at, piece, zlib.crc32(piece))
            os.write(1, b"chunk %d %d\\n" % (number, at))
        store.finish_upload(token)
        os.write(1, b"done %d 0\\n" % number)
        store.put(b"put %d" % number)
        os.write(1, b"put %d 0\\n" % number)

store = DirectoryBlobStore(pathlib.Path(sys.argv[1]))
for first in (0, 1):
    threading.Thread(target=work, args=(store, first)).start()
"""


def blob(number: int) -> bytes:
    return hashlib.shake_128(b"%d" % number).digest(BLOB_BYTES)


def killed_after(lines: int, *command: object) -> list[list[bytes]]:
    """Run a child until it has said so many lines, kill it with SIGKILL, return all it said."""
    child = subprocess.Popen(
        [sys.executable, "-c", *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with child:
        said = [child.stdout.readline() for _ in range(lines)]
        child.kill()
        said += child.stdout.readlines()
    assert child.returncode == -9
    return [line.split() for line in said if line.endswith(b"\n")]


def test_acknowledged_commits_survive_and_none_is_visible_in_part(tmp_path):
    path = tmp_path / "sessions.db"
    acknowledged = dict.fromkeys(range(SESSIONS), 0)
    for lines in (1, 40, 333, 1500):
        for number, version in killed_after(lines, COMMITTER, path, SESSIONS):
            acknowledged[int(number)] = int(version)
        asyncio.run(check_sessions(path, acknowledged))
    assert sum(acknowledged.values()) > 1800


async def check_sessions(path: Path, acknowledged: dict[int, int]) -> None:
    store = SqliteSessionStore(path)
    try:
        for number, version in acknowledged.items():
            stored = await store.load(number.to_bytes(16, "big"))
            if stored is None:
                assert version == 0
                continue
            assert version <= stored.version <= version + 1
            text = b"%d" % stored.version
            rows = {2 + written: b"%d" % (written + 1) for written in range(stored.version)}
            assert stored.state == text * 100
            assert stored.rows == rows | {0: text, 1: text * 300}
            effects = [effect for _, effect in stored.effects]
            # One of two was done after each commit; of a commit that a crash cut off from it, both are there.
            assert sorted(set(effects)) == sorted(b"%d" % (written + 1) for written in range(stored.version))
            assert effects[::-1].count(text) in (1, 2)
            acknowledged[number] = stored.version
    finally:
        await store.close()


def test_acknowledged_uploads_survive_and_no_blob_is_visible_in_part(tmp_path):
    root = tmp_path / "blobs"
    done: set[int] = set()
    put: set[int] = set()
    for lines in (3, 30, 77, 160):
        sent: dict[int, int] = {}
        for what, number, count in killed_after(lines, UPLOADER, root):
            if what == b"chunk":
                sent[int(number)] = int(count)
            else:
                (done if what == b"done" else put).add(int(number))
        store = DirectoryBlobStore(root)
        for file in (root / "blobs").glob("*/*"):
            assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name
        for number in done:
            assert store.get(hashlib.sha256(blob(number)).digest()) == blob(number)
            assert store.finish_upload(f"{number:032x}") == hashlib.sha256(blob(number)).digest()
        for number in put:
            assert store.get(hashlib.sha256(b"put %d" % number).digest()) == b"put %d" % number
        for number in sent.keys() - done:
            go_on(store, number, sent[number])
            done.add(number)
        store.sweep_uploads({f"{number:032x}" for number in done})
        assert list((root / "put").iterdir()) == []
    assert len(done) >= 12


def go_on(store: DirectoryBlobStore, number: int, acknowledged: int) -> None:
    """The upload that the crash cut off: what was acknowledged is there, the rest goes on from there."""
    data, token = blob(number), f"{number:032x}"
    digest = hashlib.sha256(data).digest()
    committed = store.begin_upload(token, BLOB_BYTES, digest)
    assert acknowledged <= committed <= acknowledged + CHUNK_BYTES
    if committed < BLOB_BYTES:
        with pytest.raises(UploadError) as caught:
            store.finish_upload(token)
        assert caught.value.committed_bytes == committed
    rest = data[committed:]
    assert store.write_chunk(token, committed, rest, zlib.crc32(rest)) == BLOB_BYTES
    assert store.finish_upload(token) == digest
    assert store.get(digest) == data


def test_a_store_of_a_killed_process_is_free_at_once_and_knows_its_sessions(tmp_path):
    path = tmp_path / "sessions.db"
    for _ in range(3):
        killed_after(1, COMMITTER, path, 1)

    async def check() -> list[bytes]:
        store = SqliteSessionStore(path)
        try:
            return list(await store.sessions())
        finally:
            await store.close()

    assert asyncio.run(check()) == [bytes(16)]
