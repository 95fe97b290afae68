"""The log's directory: modes, one process, copies and backups that come back, files in the way."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from pathlib import Path

import pytest

from secagg.runtime.log_check import examine
from secagg.runtime.ports import StaleLogError, StoreError
from secagg.store.log_files import LogDirectory, RecordFiles, mark_moved
from secagg.transcript.tiles import TileError
from tests.support.logs import Witness, entries, head_of, open_log


class Home:
    """A coordinator's record and private state in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.record, self.private = directory / "record", directory / "state"

    def append(self, *ends: int) -> None:
        """Open, append all entries up to each of ``ends``, close."""

        async def work() -> None:
            log = open_log(LogDirectory(self.record, self.private), Witness())
            try:
                for end in ends:
                    await log.append(entries(0, end))
            finally:
                await log.close()

        asyncio.run(work())

    def held(self) -> tuple[bytes, ...]:
        async def read() -> tuple[bytes, ...]:
            log = open_log(LogDirectory(self.record, self.private))
            try:
                return log.evidence(0).entries
            finally:
                await log.close()

        return asyncio.run(read())

    def backup(self, name: str) -> Path:
        copy = self.directory / f"backup-{name}"
        shutil.copytree(self.directory / name, copy, symlinks=True)
        return copy

    def restore(self, name: str) -> None:
        # Moved away, not deleted: a deleted file's inode may be given to the copy.
        (self.directory / name).rename(self.directory / f"moved-{name}")
        shutil.copytree(self.directory / f"backup-{name}", self.directory / name)

    def restore_over(self, name: str) -> None:
        """As a backup tool that writes into the files that are there, so that they keep their inodes."""
        backup = self.directory / f"backup-{name}"
        for file in sorted((self.directory / name).rglob("*"), reverse=True):
            counterpart = backup / file.relative_to(self.directory / name)
            if not counterpart.exists():
                file.rmdir() if file.is_dir() else file.unlink()
        for file in backup.rglob("*"):
            target = self.directory / name / file.relative_to(backup)
            if file.is_dir():
                target.mkdir(exist_ok=True)
            else:
                target.write_bytes(file.read_bytes())

    def refused(self, kind: type[StoreError] = StaleLogError) -> str:
        before = contents(self.directory)
        with pytest.raises(StoreError) as caught:
            self.held()
        assert type(caught.value) is kind
        assert contents(self.directory) == before, "refusing changed a file"
        return str(caught.value)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and file.name != "log.lock"
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_log_goes_on_where_it_ended(home):
    for end in (3, 3, 255, 256, 257, 700):
        home.append(end)
        assert home.held() == tuple(entries(0, end))
        assert examine(RecordFiles(home.record)).is_sound


def test_what_is_published_is_readable_for_everybody_whatever_the_umask_and_the_rest_for_nobody_else(home):
    before = os.umask(0o077)
    try:
        home.append(3, 300)
    finally:
        os.umask(before)
    for path in (home.record, *home.record.rglob("*")):
        if ".staging" in path.parts:
            continue
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path
    assert stat.S_IMODE((home.record / ".staging").stat().st_mode) == 0o700
    assert stat.S_IMODE(home.private.stat().st_mode) == 0o700
    for path in home.private.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert sorted(path.name for path in home.record.iterdir()) == [".staging", "checkpoint", "tile"]
    assert list((home.record / ".staging").iterdir()) == []


def test_one_process_at_a_time(home):
    async def check() -> None:
        files = LogDirectory(home.record, home.private)
        with pytest.raises(StoreError, match="open already"):
            LogDirectory(home.record, home.private)
        await files.close()
        await files.close()
        with pytest.raises(StoreError, match="closed"):
            await files.publish(b"x")
        await LogDirectory(home.record, home.private).close()

    asyncio.run(check())


def test_what_a_crash_left_in_staging_is_swept(home):
    home.append(3)
    (home.record / ".staging" / "1-0").write_bytes(b"half")
    home.append(4)
    assert list((home.record / ".staging").iterdir()) == []


# Copies and backups.


@pytest.mark.parametrize("restore", [Home.restore, Home.restore_over])
def test_an_old_backup_of_the_record_is_refused(home, restore):
    home.append(5)
    home.backup("record")
    home.append(9)
    restore(home, "record")
    assert "a checkpoint over 9 entries was signed, the record holds 5" in home.refused()


def test_an_old_checkpoint_with_its_entries_cut_off_is_refused_even_if_it_was_published_just_so(home):
    home.append(300)
    home.backup("record")
    home.append(301)
    home.restore("record")
    home.refused()


@pytest.mark.parametrize("restore", [Home.restore, Home.restore_over])
def test_an_old_backup_of_the_private_state_is_refused(home, restore):
    home.append(5)
    home.backup("state")
    home.append(9)
    restore(home, "state")
    assert "copy" in home.refused()


def test_a_backup_of_both_is_refused_although_nothing_in_it_disagrees(home):
    home.append(5)
    home.backup("record")
    home.backup("state")
    home.append(9)
    home.restore("record")
    home.restore("state")
    assert "is a copy" in home.refused()


def test_a_record_without_its_private_state_is_refused(home):
    home.append(5)
    shutil.rmtree(home.private)
    assert "does not know it" in home.refused()


def test_entries_alone_are_a_log_that_somebody_has_to_know(home):
    home.append(5)
    (home.record / "checkpoint").unlink()
    shutil.rmtree(home.private)
    assert "does not know it" in home.refused()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"[1,2]", b'{"inode":1}', b'{"inode":"1","signed":""}', b'{"inode":1,"signed":2}']
)
def test_a_private_file_that_was_not_written_here_is_refused(home, content):
    home.append(5)
    (home.private / "log.head").write_bytes(content)
    assert "not what was written" in home.refused()


def test_a_move_that_was_meant_goes_on_once_it_was_accepted(home, tmp_path):
    home.append(5)
    moved = Home(tmp_path / "elsewhere")
    shutil.copytree(home.record, moved.record)
    shutil.copytree(home.private, moved.private)
    assert "mark-moved" in moved.refused()
    assert mark_moved(moved.record, moved.private) == 5
    moved.append(7)
    assert moved.held() == tuple(entries(0, 7))


def test_accepting_a_move_takes_the_larger_of_what_was_signed_and_what_was_published(home):
    home.append(5)
    old_state, _ = home.backup("state"), home.backup("record")
    home.append(9)
    shutil.rmtree(home.private)
    assert mark_moved(home.record, home.private) == 9
    assert home.held() == tuple(entries(0, 9))
    shutil.rmtree(home.private)
    shutil.copytree(old_state, home.private)
    assert mark_moved(home.record, home.private) == 9
    home.append(10)
    # An old record next to a private state that knows better stays refused.
    home.restore("record")
    assert mark_moved(home.record, home.private) == 10
    assert "the record holds 5" in home.refused()


def test_accepting_a_move_needs_the_log_to_be_closed_and_its_checkpoints_to_be_readable(home):
    home.append(5)

    async def check() -> None:
        files = LogDirectory(home.record, home.private)
        with pytest.raises(StoreError, match="open already"):
            mark_moved(home.record, home.private)
        await files.close()

    asyncio.run(check())
    (home.record / "checkpoint").write_bytes(b"junk")
    with pytest.raises(StoreError, match="unreadable"):
        mark_moved(home.record, home.private)


# Files in the way.


def test_a_file_that_is_there_with_other_bytes_is_not_touched(home):
    async def check() -> None:
        files = LogDirectory(home.record, home.private)
        await files.add([("tile/0/000.p/1", b"a" * 32)])
        await files.add([("tile/0/000.p/1", b"a" * 32)])
        with pytest.raises(StoreError, match="it was not touched"):
            await files.add([("tile/0/000.p/2", b"b" * 64), ("tile/0/000.p/1", b"c" * 32)])
        assert files.read("tile/0/000.p/1") == b"a" * 32
        assert files.read("tile/0/000.p/2") is None
        await files.close()

    asyncio.run(check())


@pytest.mark.parametrize("path", ["tile/entries/000.p/5", "tile/0/000.p/5", "checkpoint"])
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_torn_file_is_refused_and_left_as_it_is(home, path, cut):
    home.append(5)
    torn = home.record / path
    torn.write_bytes(torn.read_bytes()[:cut])
    if path == "checkpoint" and cut == 0:
        # An empty checkpoint is none: the one that was signed is published again.
        home.append(6)
        assert head_of((home.record / path).read_bytes()).size == 6
    else:
        home.refused(StoreError)


def test_tiles_can_be_written_over_and_nothing_else_can(home):
    home.append(5)
    record = RecordFiles(home.record)
    before = contents(home.record)
    for path in ("tile/entries/000.p/5", "checkpoint", "tile/0/../../checkpoint", "tile/00/000", "../state/log.head"):
        with pytest.raises(TileError):
            record.replace_tiles([(path, b"x")])
    assert contents(home.record) == before
    record.replace_tiles([("tile/0/000.p/5", b"x")])
    assert record.read("tile/0/000.p/5") == b"x"


def test_a_disk_that_refuses_is_a_store_error_and_the_log_goes_on_when_it_does(home, monkeypatch):
    async def check() -> None:
        log = open_log(LogDirectory(home.record, home.private))
        await log.append(entries(0, 3))
        with monkeypatch.context() as patch:

            def full(*_: object) -> int:
                raise OSError(28, "No space left on device")

            patch.setattr(os, "pwrite", full)
            with pytest.raises(StoreError, match="No space left"):
                await log.append(entries(0, 5))
        assert await log.append(entries(0, 5)) == 4
        await log.close()

    asyncio.run(check())
    assert home.held() == tuple(entries(0, 5))
    assert examine(RecordFiles(home.record)).is_sound
