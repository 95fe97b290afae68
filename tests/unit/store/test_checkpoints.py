"""The pinned checkpoint on disk: durable, private, one for each coordinator, and safe for many writers at once."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from secagg.runtime.ports import StoreError
from secagg.store.checkpoints import FileCheckpointMemory
from tests.support.disk import CrashError, CutTime, Disk, Loss

ROOT = Path(__file__).parents[3]
KEY, OTHER = bytes(range(32)), bytes(32)


def counted(note: bytes | None) -> bytes:
    """One more than what is kept."""
    return b"%d" % (int(note or b"0") + 1)


def memory_in(directory: Path) -> FileCheckpointMemory:
    return FileCheckpointMemory.of_coordinator(directory, KEY)


def test_before_the_first_note_there_is_none(tmp_path):
    assert memory_in(tmp_path).load() is None
    assert memory_in(tmp_path / "not" / "there").load() is None
    assert list(tmp_path.iterdir()) == []


def test_a_note_is_there_for_the_next_process(tmp_path):
    memory_in(tmp_path).update(lambda _: b"note")
    assert memory_in(tmp_path).load() == b"note"


def test_a_change_is_given_what_is_kept_and_may_leave_it(tmp_path):
    memory, given = memory_in(tmp_path), []
    for note in (b"first", b"second", None, b"third"):

        def change(kept: bytes | None, note: bytes | None = note) -> bytes | None:
            given.append(kept)
            return note

        memory.update(change)
    assert given == [None, b"first", b"second", b"second"]
    assert memory.load() == b"third"


def test_a_change_that_refuses_leaves_what_is_kept(tmp_path):
    memory = memory_in(tmp_path)
    memory.update(lambda _: b"note")

    def refuse(_: bytes | None) -> bytes:
        raise ValueError("another log")

    with pytest.raises(ValueError, match="another log"):
        memory.update(refuse)
    assert memory.load() == b"note"
    memory.update(counted_or_first)
    assert memory.load() == b"note+"


def counted_or_first(note: bytes | None) -> bytes:
    return (note or b"") + b"+"


def test_each_coordinator_has_its_own(tmp_path):
    memory_in(tmp_path).update(lambda _: b"one")
    other = FileCheckpointMemory.of_coordinator(tmp_path, OTHER)
    assert other.load() is None
    other.update(lambda _: b"other")
    assert memory_in(tmp_path).load() == b"one"


def test_it_is_for_its_owner_only(tmp_path):
    memory_in(tmp_path / "state").update(lambda _: b"note")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    for file in (tmp_path / "state").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_the_disk_refuses_is_an_error_of_the_store(tmp_path, monkeypatch):
    memory = memory_in(tmp_path)
    memory.update(lambda _: b"note")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match="Input/output error"):
        memory.update(lambda _: b"new")
    monkeypatch.undo()
    assert memory.load() in {b"note", b"new"}
    (tmp_path / f"log-{OTHER.hex()}.checkpoint").mkdir()
    with pytest.raises(StoreError):
        FileCheckpointMemory.of_coordinator(tmp_path, OTHER).load()


def test_threads_do_not_overwrite_each_others_updates(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: memory_in(tmp_path).update(counted), range(200)))
    assert memory_in(tmp_path).load() == b"200"


PROCESS = """
import pathlib, sys
from tests.unit.store.test_checkpoints import counted, memory_in
for _ in range(100):
    memory_in(pathlib.Path(sys.argv[1])).update(counted)
"""


def test_processes_do_not_overwrite_each_others_updates(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    running = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert memory_in(tmp_path).load() == b"300"


def test_who_is_killed_in_an_update_does_not_keep_others_from_theirs(tmp_path):
    script = (
        "import os, pathlib, signal, sys\n"
        "from tests.unit.store.test_checkpoints import memory_in\n"
        "memory_in(pathlib.Path(sys.argv[1])).update(lambda _: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    memory_in(tmp_path).update(lambda _: b"note")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, env=environment, check=False)
    assert killed.returncode == -9
    memory_in(tmp_path).update(lambda note: (note or b"") + b" goes on")
    assert memory_in(tmp_path).load() == b"note goes on"


CALLS = 30


@pytest.mark.parametrize("when", CutTime)
@pytest.mark.parametrize("loss", Loss)
def test_after_a_crash_at_any_system_call_it_is_the_old_note_or_the_new_one(tmp_path, monkeypatch, when, loss):
    old, new = b"old " * 100, b"new " * 200
    cuts = 0
    for at in range(1, CALLS):
        root = tmp_path / str(at)
        root.mkdir()
        disk, memory = Disk(root), memory_in(root / "state")
        with disk.life(monkeypatch):
            memory.update(lambda _: old)
        with disk.life(monkeypatch, at, when):
            try:
                memory.update(lambda _: new)
            except CrashError:
                cuts += 1
        disk.fail(loss, seed=at)
        allowed = {old, new} if at <= cuts else {new}
        assert memory.load() in allowed, at
        with disk.life(monkeypatch):
            memory.update(lambda note: (note or b"") + b"!")
        disk.fail(Loss.UNFLUSHED)
        assert memory.load() in {note + b"!" for note in allowed}
    assert 5 <= cuts < CALLS - 1


def test_the_first_note_is_durable_when_it_is_kept(tmp_path, monkeypatch):
    disk = Disk(tmp_path)
    with disk.life(monkeypatch):
        memory_in(tmp_path / "new" / "state").update(lambda _: b"note")
    disk.fail(Loss.UNFLUSHED)
    assert memory_in(tmp_path / "new" / "state").load() == b"note"
