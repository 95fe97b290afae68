"""The published files of sessions: whole or not there, for everybody to read, the same when written again."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from secagg.runtime.ports import StoreError
from secagg.store.session_files import SessionDirectory
from tests.support.disk import CrashError, CutTime, Disk, Loss

SESSION, OTHER = bytes(range(16)), bytes(16)
FILES = {"keys.jsonl": [b"first\n", b"second\n"], "aggregate/adapter.bin": [b"a" * 100_000, memoryview(b"b" * 3)]}


def content(name: str) -> bytes:
    return b"".join(map(bytes, FILES[name]))


def path_of(record: Path, name: str, session: bytes = SESSION) -> Path:
    return record / "sessions" / session.hex() / name


def write_all(record: Path) -> None:
    for name, pieces in FILES.items():
        SessionDirectory(record).write(SESSION, name, iter(pieces))


@pytest.fixture
def record(tmp_path: Path) -> Path:
    (tmp_path / "record").mkdir()
    return tmp_path / "record"


def test_a_file_has_its_pieces_one_after_the_other_under_its_session(record):
    write_all(record)
    found = {str(path.relative_to(record)): path.read_bytes() for path in record.rglob("*") if path.is_file()}
    assert found == {f"sessions/{SESSION.hex()}/{name}": content(name) for name in FILES}


def test_a_list_without_members_is_an_empty_file(record):
    SessionDirectory(record).write(SESSION, "pair-boxes.jsonl", [])
    assert path_of(record, "pair-boxes.jsonl").read_bytes() == b""


def test_sessions_lie_apart(record):
    files = SessionDirectory(record)
    files.write(SESSION, "keys.jsonl", [b"one"])
    files.write(OTHER, "keys.jsonl", [b"other"])
    assert path_of(record, "keys.jsonl").read_bytes() == b"one"
    assert path_of(record, "keys.jsonl", OTHER).read_bytes() == b"other"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_everybody_may_read_and_only_the_owner_write_whatever_the_umask_is(record, umask):
    if umask == 0o777 and os.geteuid() != 0:
        pytest.skip("nobody but root could make a directory within another without permissions")
    before = os.umask(umask)
    try:
        write_all(record)
    finally:
        os.umask(before)
    for path in (record / "sessions").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path
    assert stat.S_IMODE((record / "sessions").stat().st_mode) == 0o755


def test_a_directory_that_a_crash_left_closed_is_opened(record):
    path_of(record, "aggregate").mkdir(parents=True)
    for directory in (record / "sessions", path_of(record, ""), path_of(record, "aggregate")):
        directory.chmod(0o700)
    write_all(record)
    for directory in (record / "sessions", path_of(record, ""), path_of(record, "aggregate")):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o755


def test_what_is_written_again_replaces_what_is_there_and_leaves_nothing_beside_it(record):
    path = path_of(record, "keys.jsonl")
    write_all(record)
    path.with_name(".keys.jsonl.partial").write_bytes(b"longer than what is written again, by a crash" * 9)
    write_all(record)
    assert path.read_bytes() == content("keys.jsonl")
    SessionDirectory(record).write(SESSION, "keys.jsonl", [b"short"])
    assert path.read_bytes() == b"short"
    assert sorted(child.name for child in path.parent.iterdir()) == ["aggregate", "keys.jsonl"]


def test_a_reader_meanwhile_sees_the_old_content_and_then_the_new(record):
    path, seen = path_of(record, "keys.jsonl"), []
    files = SessionDirectory(record)
    files.write(SESSION, "keys.jsonl", [b"old"])

    def pieces() -> Iterator[bytes]:
        for piece in (b"n", b"e", b"w"):
            yield piece
            seen.append(path.read_bytes())

    files.write(SESSION, "keys.jsonl", pieces())
    assert seen == [b"old"] * 3
    assert path.read_bytes() == b"new"


def test_a_name_that_no_web_server_lists_is_all_that_half_a_file_has(record):
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise StoreError("the blob is gone")

    with pytest.raises(StoreError, match="the blob is gone"):
        SessionDirectory(record).write(SESSION, "keys.jsonl", pieces())
    assert [child.name[0] for child in path_of(record, "").iterdir()] == ["."]


@pytest.mark.parametrize("call", ["open", "fchmod", "pwrite", "fsync", "replace"])
def test_what_the_disk_refuses_is_an_error_of_the_store_and_publishes_nothing(record, monkeypatch, call):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(StoreError, match="No space left on device"):
            SessionDirectory(record).write(SESSION, "keys.jsonl", [b"x"])
    assert not path_of(record, "keys.jsonl").exists()


def life(record: Path, disk: Disk, monkeypatch, at: int = 0, when: CutTime = CutTime.BEFORE, error_at: int = 0) -> bool:
    """Write all files, again after an error of the disk; whether the process was cut off."""
    with disk.life(monkeypatch, at, when, error_at):
        try:
            write_all(record)
        except CrashError:
            return True
        except StoreError:
            if not error_at:
                raise
            write_all(record)
    return False


def check(record: Path) -> None:
    """A file is there with all that was written, or it is not."""
    for path in (record / "sessions").rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            assert path.read_bytes() == content(str(path.relative_to(path_of(record, "")))), path


CALLS = 40


@pytest.mark.parametrize("when", CutTime)
@pytest.mark.parametrize("loss", Loss)
def test_a_crash_at_any_system_call_leaves_no_half_file_and_the_next_life_writes_the_same(
    tmp_path, monkeypatch, when, loss
):
    cuts = 0
    for at in range(1, CALLS):
        record = tmp_path / str(at) / "record"
        record.mkdir(parents=True)
        disk = Disk(record)
        cuts += life(record, disk, monkeypatch, at, when)
        disk.fail(loss, seed=at)
        check(record)
        assert not life(record, disk, monkeypatch)
        disk.fail(Loss.UNFLUSHED)
        check(record)
        assert [path_of(record, name).read_bytes() for name in FILES] == [content(name) for name in FILES]
    assert 15 <= cuts < CALLS - 1


def test_a_file_is_durable_when_it_is_acknowledged_also_after_a_call_that_failed(tmp_path, monkeypatch):
    for error_at in range(1, CALLS):
        record = tmp_path / str(error_at) / "record"
        record.mkdir(parents=True)
        disk = Disk(record)
        life(record, disk, monkeypatch, error_at=error_at)
        disk.fail(Loss.UNFLUSHED)
        assert [path_of(record, name).read_bytes() for name in FILES] == [content(name) for name in FILES], error_at
