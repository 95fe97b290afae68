"""The SQLite store itself: groups, locks, errors of the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from secagg.runtime.ports import Commit, StoredSession, StoreError, VersionConflictError
from secagg.store.sqlite import MAX_CELL_BYTES, SqliteSessionStore

A, B, C = (bytes([letter]) * 16 for letter in b"abc")
ROOT = Path(__file__).parents[3]


class Gate:
    """Holds up the writer, so that what is submitted meanwhile becomes one group."""

    def __init__(self, store: SqliteSessionStore) -> None:
        self._store = store
        self._reached = threading.Event()
        self._open = threading.Event()

    async def __aenter__(self) -> None:
        def wait(_: sqlite3.Connection) -> tuple[int, ...]:
            self._reached.set()
            self._open.wait(30)
            return ()

        self._held = asyncio.ensure_future(self._store._writer.submit(wait, 0))
        await asyncio.to_thread(self._reached.wait, 30)

    async def __aexit__(self, *error: object) -> None:
        self._open.set()
        await self._held


async def in_one_group(store: SqliteSessionStore, *calls) -> list[object]:
    async with Gate(store):
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


def run(path: Path, check) -> None:
    async def checked() -> None:
        store = SqliteSessionStore(path)
        try:
            await check(store)
        finally:
            await store.close()

    asyncio.run(checked())


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "made" / "on demand" / "sessions.db"


def groups(path: Path) -> int:
    reading = sqlite3.connect(path)
    try:
        return reading.execute("SELECT sequence FROM store").fetchone()[0]
    finally:
        reading.close()


def test_waiters_that_queue_up_share_one_transaction_in_order_of_arrival(path):
    async def check(store):
        before = groups(path)
        done: list[int] = []

        async def one(number: int) -> None:
            await store.commit(number.to_bytes(16, "big"), 0, Commit(b""))
            done.append(number)

        await in_one_group(store, *(one(number) for number in range(500)))
        assert done == list(range(500))
        assert groups(path) == before + 2  # the gate's own, and one for all
        assert [int.from_bytes(key, "big") for key in await store.sessions()] == done

    run(path, check)


def test_one_busy_session_does_not_hold_up_another(path):
    async def check(store):
        last = 0
        started = asyncio.Event()

        async def busy() -> None:
            nonlocal last
            for version in range(60):
                await store.commit(A, version, Commit(b""))
                last = version
                started.set()

        task = asyncio.ensure_future(busy())
        await started.wait()
        await store.commit(B, 0, Commit(b""))
        assert last < 10  # B waits for the group under way and its own
        await task

    run(path, check)


def test_a_conflict_in_a_group_is_nobody_elses(path):
    async def check(store):
        answers = await in_one_group(
            store,
            store.commit(A, 0, Commit(b"first", {1: b"x"}, [b"e"])),
            store.commit(A, 0, Commit(b"second", {1: b"y", 2: b"z"}, [b"f"])),
            store.commit(B, 0, Commit(b"b")),
            store.commit(A, 1, Commit(b"third")),
        )
        assert isinstance(answers[1], VersionConflictError)
        assert [type(answers[n]) for n in (0, 2, 3)] == [list] * 3
        assert await store.load(A) == StoredSession(2, b"third", {1: b"x"}, [(answers[0][0], b"e")])

    run(path, check)


def test_everybody_in_a_group_that_the_disk_refused_is_told_and_nothing_of_it_is_there(path):
    async def check(store):
        await store.commit(A, 0, Commit(b"before"))
        (pages,) = store._writer._connection.execute("PRAGMA page_count").fetchone()
        store._writer._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
        answers = await in_one_group(
            store,
            store.commit(B, 0, Commit(b"small")),
            store.commit(A, 1, Commit(bytes(1 << 20))),
            store.commit(A, 0, Commit(b"conflict")),
        )
        assert [type(answer) for answer in answers] == [StoreError] * 3
        assert all("full" in str(answer) for answer in answers)
        assert await store.load(B) is None
        assert await store.load(A) == StoredSession(1, b"before", {}, [])
        await store.commit(A, 1, Commit(b"there is room for this"))

    run(path, check)


def test_after_a_failed_write_of_unknown_outcome_the_store_stops_until_it_is_opened_again(path):
    run(path, lambda store: store.commit(A, 0, Commit(b"before")))
    child = """
import asyncio, pathlib, resource, sys
from secagg.runtime.ports import Commit, StoreError
from secagg.store.sqlite import SqliteSessionStore

async def main():
    store = SqliteSessionStore(pathlib.Path(sys.argv[1]))
    await store.commit(b"a" * 16, 1, Commit(b"acknowledged"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))
    for size in (1 << 20, 1):
        try:
            await store.commit(b"a" * 16, 2, Commit(bytes(size)))
        except StoreError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print((await store.load(b"a" * 16)).state)
    await store.close()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", child, path], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    failed, stopped, state = done.stdout.splitlines()
    assert "the write failed" in failed
    assert "the store has stopped, open it again" in stopped
    assert state == "b'acknowledged'"

    async def check(store):
        assert await store.load(A) == StoredSession(2, b"acknowledged", {}, [])

    run(path, check)


def test_a_cancelled_waiter_disturbs_nobody(path):
    async def check(store):
        async with Gate(store):
            cancelled = asyncio.ensure_future(store.commit(A, 0, Commit(b"a")))
            other = asyncio.ensure_future(store.commit(B, 0, Commit(b"b")))
            await asyncio.sleep(0)
            cancelled.cancel()
        await other
        assert (await store.load(B)).state == b"b"

    run(path, check)


def test_waiters_of_a_loop_that_is_gone_are_forgotten(path):
    store = SqliteSessionStore(path)

    async def leave() -> None:
        task = asyncio.ensure_future(store.commit(A, 0, Commit(b"a")))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())

    async def check() -> None:
        assert (await store.load(A)) is None or (await store.load(A)).state == b"a"
        await store.commit(B, 0, Commit(b"b"))
        assert (await store.load(A)).state == b"a"
        await store.close()

    asyncio.run(check())


def test_closing_writes_what_is_queued_and_refuses_what_comes_later(path):
    async def check() -> None:
        store = SqliteSessionStore(path)
        async with Gate(store):
            queued = [asyncio.ensure_future(store.commit(key, 0, Commit(b""))) for key in (A, B)]
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(store.close())
        await asyncio.gather(closing, *queued)
        await store.close()
        for call in (store.commit(C, 0, Commit(b"")), store.load(A), store.sessions(), store.effect_done(A, 1)):
            with pytest.raises(StoreError, match="closed"):
                await call

    asyncio.run(check())

    async def both_are_there(store):
        assert list(await store.sessions()) == [A, B]

    run(path, both_are_there)


def test_a_bug_in_a_write_is_told_to_everybody_and_ends_the_store(path, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    async def check(store):
        await store.commit(A, 0, Commit(b"before"))
        answers = await in_one_group(
            store,
            store.commit(B, 0, Commit(b"b")),
            store._writer.submit(lambda _: 1 // 0, 0),
        )
        assert [type(answer) for answer in answers] == [StoreError] * 2
        assert await store.load(B) is None
        with pytest.raises(StoreError):
            await store.commit(B, 0, Commit(b"b"))

    run(path, check)


def test_cells_beyond_the_limit_are_refused_before_they_reach_a_group(path):
    async def check(store):
        with pytest.raises(StoreError, match="limit"):
            await store.commit(A, 0, Commit(b"", {}, [bytes(MAX_CELL_BYTES + 1)]))
        assert await store.load(A) is None

    run(path, check)


def test_a_second_open_says_who_has_the_store(path):
    async def check(_store):
        with pytest.raises(StoreError, match=r"open already, by process \d+ on "):
            SqliteSessionStore(path)
        child = "import sys, pathlib; from secagg.store.sqlite import *; SqliteSessionStore(pathlib.Path(sys.argv[1]))"
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", child, path],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "open already, by process" in done.stderr

    run(path, check)
    run(path, lambda store: store.commit(A, 0, Commit(b"")))


def test_an_unknown_schema_is_refused_with_advice(path):
    run(path, lambda store: store.commit(A, 0, Commit(b"")))
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 7")
    other.close()
    with pytest.raises(StoreError, match=r"schema version 7; .* Open it with the release that wrote it"):
        SqliteSessionStore(path)


def test_somebody_elses_file_is_refused_and_left_alone(tmp_path):
    foreign = tmp_path / "foreign.db"
    other = sqlite3.connect(foreign)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(StoreError, match="schema version 0"):
        SqliteSessionStore(foreign)
    text = tmp_path / "text.db"
    text.write_bytes(b"no database at all, but rather long" * 100)
    with pytest.raises(StoreError, match="not a database"):
        SqliteSessionStore(text)
    with pytest.raises(StoreError, match=f"opening {tmp_path}"):
        SqliteSessionStore(tmp_path)


def test_files_are_private(path):
    async def check(store):
        await store.commit(A, 0, Commit(b""))
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert {file.name.removeprefix(path.name) for file in path.parent.iterdir()} == {
            "",
            "-wal",
            "-shm",
            ".lock",
            ".epoch",
            ".mark",
        }

    run(path, check)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
