"""Durable commits and blob ingest: ``python -m benchmarks.store --json OUT``.

Measures the disk as much as the code, so it prints the disk's own fsync and streaming rate beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from secagg.runtime.ports import Commit, SessionStore
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.sealed import SealedSessionStore
from secagg.store.sqlite import SqliteSessionStore

WAITERS = (1, 8, 32, 128)
UPLOADS = 100
BLOB_BYTES = 4 << 20
CHUNK_BYTES = 256 << 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure of commits")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        root = Path(name)
        figures: dict[str, object] = {"disk": disk(root)}
        for label in ("plain", "sealed"):
            figures[f"commits_{label}"] = [
                asyncio.run(commits(root / f"{label}-{waiters}.db", label, waiters, options.seconds))
                for waiters in WAITERS
            ]
        figures["ingest"] = [ingest(root / f"blobs-{threads}", threads) for threads in (1, 2)]
    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    json.dump(figures, sys.stdout, indent=2)
    print()


def disk(root: Path) -> dict[str, float]:
    """What the disk does without us."""
    path = root / "probe"
    waits = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    for index in range(50):
        os.pwrite(descriptor, b"x" * 4096, index * 4096)
        start = time.perf_counter()
        os.fsync(descriptor)
        waits.append(time.perf_counter() - start)
    os.close(descriptor)
    data = os.urandom(BLOB_BYTES)
    start = time.perf_counter()
    for index in range(50):
        descriptor = os.open(root / f"probe-{index}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.close(descriptor)
    rate = 50 * BLOB_BYTES / (time.perf_counter() - start) / 1e6
    return {"fsync_ms": round(1e3 * statistics.median(waits), 2), "write_fsync_mb_per_s": round(rate)}


async def commits(path: Path, label: str, waiters: int, seconds: float) -> dict[str, float]:
    """Each waiter commits to its own session: state 500 bytes, one row and one effect of 200."""
    database = SqliteSessionStore(path)
    store: SessionStore = database
    if label == "sealed":
        store = SealedSessionStore(database, bytes(32), os.urandom)
    waits: list[float] = []
    end = time.perf_counter() + seconds

    async def work(number: int) -> None:
        session = number.to_bytes(16, "big")
        version = 0
        while (start := time.perf_counter()) < end:
            await store.commit(session, version, Commit(b"s" * 500, {version % 50: b"r" * 200}, [b"e" * 200]))
            version += 1
            waits.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(work(number) for number in range(waiters)))
    elapsed = time.perf_counter() - start
    await database.close()
    waits.sort()
    return {
        "waiters": waiters,
        "commits_per_s": round(len(waits) / elapsed),
        "p50_ms": round(1e3 * waits[len(waits) // 2], 2),
        "p99_ms": round(1e3 * waits[len(waits) * 99 // 100], 2),
    }


def ingest(root: Path, threads: int) -> dict[str, float]:
    """Whole uploads, begin to finish, as a service would do them."""
    store = DirectoryBlobStore(root)
    blobs = [os.urandom(BLOB_BYTES) for _ in range(UPLOADS)]
    digests = [hashlib.sha256(blob).digest() for blob in blobs]
    checksums = [[zlib.crc32(chunk) for _, chunk in chunks(blob)] for blob in blobs]

    def upload(number: int) -> None:
        token = f"{number:032x}"
        store.begin_upload(token, BLOB_BYTES, digests[number])
        for (offset, chunk), crc32 in zip(chunks(blobs[number]), checksums[number], strict=True):
            store.write_chunk(token, offset, chunk, crc32)
        store.finish_upload(token)

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(upload, range(UPLOADS)))
    elapsed = time.perf_counter() - start
    return {"threads": threads, "mb_per_s": round(UPLOADS * BLOB_BYTES / elapsed / 1e6)}


def chunks(blob: bytes) -> list[tuple[int, memoryview]]:
    view = memoryview(blob)
    return [(offset, view[offset : offset + CHUNK_BYTES]) for offset in range(0, len(blob), CHUNK_BYTES)]


if __name__ == "__main__":
    main()
