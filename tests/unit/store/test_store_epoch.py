"""A store that went back in time is noticed; a store that crashed is not mistaken for one."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from secagg.runtime.ports import Commit, StaleStoreError, StoreError, VersionConflictError
from secagg.store.sqlite import SqliteSessionStore, mark_restored

A, B = b"a" * 16, b"b" * 16
STEPS = ("open", "pwrite", "fsync", "replace")


class CrashError(BaseException):
    """The process ends here."""


def run(path: Path, check) -> object:
    async def checked() -> object:
        store = SqliteSessionStore(path)
        try:
            return await check(store)
        finally:
            await store.close()

    return asyncio.run(checked())


def sessions(path: Path) -> list[bytes]:
    return list(run(path, lambda store: store.sessions()))


def crash_at(monkeypatch, step: int) -> None:
    """End the ``step``-th call that our own code makes into the system, before it does anything."""
    count = 0

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def counted(*arguments, **options):
            nonlocal count
            count += 1
            if count == step:
                raise CrashError
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, counted)

    for name in STEPS:
        wrap(name)


def crashes(monkeypatch, step: int, work) -> bool:
    with monkeypatch.context() as patch:
        crash_at(patch, step)
        try:
            work()
        except CrashError:
            return True
    return False


def opened_and_closed(path: Path) -> None:
    store = SqliteSessionStore(path)
    asyncio.run(store.close())


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "sessions.db"
    run(path, lambda store: store.commit(A, 0, Commit(b"first")))
    return path


def overwrite(path: Path, data: bytes) -> None:
    """Put old bytes into the same file, as ``cp`` and ``sqlite3 .restore`` do: the inode stays."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def test_a_store_opens_again_and_again(path):
    for _ in range(3):
        assert sessions(path) == [A]


def test_opening_may_crash_at_every_step(tmp_path, path, monkeypatch):
    step = 1
    while crashes(monkeypatch, step, lambda: opened_and_closed(path)):
        assert sessions(path) == [A]
        step += 1
    assert step > 10


def test_opening_may_crash_at_any_step_twice_in_a_row(path, monkeypatch):
    for first in range(1, 20):
        for second in (first, 20 - first):
            crashes(monkeypatch, first, lambda: opened_and_closed(path))
            crashes(monkeypatch, second, lambda: opened_and_closed(path))
            assert sessions(path) == [A]


def test_making_a_store_may_crash_at_every_step(tmp_path, monkeypatch):
    step = 1
    while crashes(monkeypatch, step, lambda step=step: opened_and_closed(tmp_path / str(step) / "new.db")):
        assert sessions(tmp_path / str(step) / "new.db") == []
        step += 1
    assert step > 10


def test_a_backup_from_an_earlier_run_is_refused(path):
    old = path.read_bytes()
    run(path, lambda store: store.commit(A, 1, Commit(b"second")))
    overwrite(path, old)
    with pytest.raises(StaleStoreError, match=r"carries epoch 1, the epoch file allows 2 and 2.*mark_restored"):
        SqliteSessionStore(path)


def test_a_backup_from_the_same_run_is_refused(path, tmp_path):
    copy = tmp_path / "copy.db"

    async def check(store):
        source, target = sqlite3.connect(path), sqlite3.connect(copy)
        source.backup(target)
        source.close()
        target.close()
        await store.commit(A, 1, Commit(b"second"))

    run(path, check)
    overwrite(path, copy.read_bytes())
    with pytest.raises(StaleStoreError, match="its last commit is number 1, it had reached 2"):
        SqliteSessionStore(path)


def test_another_file_with_the_same_content_is_refused(path, tmp_path):
    shutil.copy(path, tmp_path / "copy")
    os.replace(tmp_path / "copy", path)
    with pytest.raises(StaleStoreError, match="it is another file"):
        SqliteSessionStore(path)


def test_a_copied_directory_is_refused(path, tmp_path):
    shutil.copytree(tmp_path, tmp_path / "elsewhere")
    with pytest.raises(StaleStoreError, match="it is another file"):
        SqliteSessionStore(tmp_path / "elsewhere" / path.name)


@pytest.mark.parametrize("suffix", [".epoch", ".mark"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b'{"current":1,"next":1,"device":1,"inode":"1"}'])
def test_sessions_without_a_readable_sidecar_are_refused(path, suffix, content):
    sidecar = path.with_name(path.name + suffix)
    sidecar.unlink()
    if content is not None:
        sidecar.write_bytes(content)
    with pytest.raises(StaleStoreError, match="missing or unreadable"):
        SqliteSessionStore(path)


def test_a_database_that_is_gone_is_not_made_again(path):
    path.unlink()
    with pytest.raises(StaleStoreError, match="the database is gone"):
        SqliteSessionStore(path)
    assert not path.exists()


def test_an_empty_database_in_its_place_is_refused(path):
    path.unlink()
    path.touch()
    with pytest.raises(StaleStoreError, match="carries epoch 0"):
        SqliteSessionStore(path)


def test_abandoned_sessions_never_come_back(path):
    old = path.read_bytes()
    run(path, lambda store: store.commit(A, 1, Commit(b"second")))
    overwrite(path, old)
    assert mark_restored(path) == 1
    assert mark_restored(path) == 0

    async def check(store):
        assert list(await store.sessions()) == []
        with pytest.raises(StaleStoreError):
            await store.load(A)
        for version in (0, 1, 2):
            with pytest.raises(VersionConflictError, match="abandoned"):
                await store.commit(A, version, Commit(b"again"))
        await store.commit(B, 0, Commit(b"new"))
        assert list(await store.sessions()) == [B]

    run(path, check)
    assert sessions(path) == [B]


def test_no_copy_from_the_abandoned_history_is_accepted_later(path):
    first = path.read_bytes()
    run(path, lambda store: store.commit(B, 0, Commit(b"lost")))
    second = path.read_bytes()
    overwrite(path, first)
    path.with_name(path.name + ".epoch").unlink()
    path.with_name(path.name + ".mark").unlink()
    mark_restored(path)
    restored = path.read_bytes()
    overwrite(path, second)
    with pytest.raises(StaleStoreError, match="carries epoch 2"):
        SqliteSessionStore(path)
    overwrite(path, restored)
    assert sessions(path) == []


def test_restoring_may_crash_at_every_step(path, monkeypatch):
    old = path.read_bytes()
    run(path, lambda store: store.commit(A, 1, Commit(b"second")))
    overwrite(path, old)
    step, refused = 1, 0
    while crashes(monkeypatch, step, lambda: mark_restored(path)):
        try:
            assert sessions(path) == []
        except StaleStoreError:
            refused += 1
        step += 1
    assert refused > 8
    assert sessions(path) == []


def test_only_a_sound_closed_database_is_marked_as_restored(path, tmp_path):
    async def check(_store):
        with pytest.raises(StoreError, match="open already"):
            mark_restored(path)

    run(path, check)
    with pytest.raises(StoreError, match="there is no database"):
        mark_restored(tmp_path / "none.db")
    whole = path.read_bytes()
    overwrite(path, whole[:8192] + bytes(len(whole) - 8192))
    with pytest.raises(StoreError, match=r"damaged|malformed"):
        mark_restored(path)
