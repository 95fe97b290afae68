"""The log is cut off at every system call, and by SIGKILL: nothing acknowledged is lost, nothing is signed twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from secagg.runtime.log_record import FaultKind, check_tiles, parse_names, read_entries
from secagg.runtime.ports import StoreError
from secagg.store.log_files import LogDirectory, RecordFiles
from tests.support.disk import CrashError, CutTime, Disk, Loss
from tests.support.logs import Witness, entries, head_of, open_log

ROOT = Path(__file__).parents[3]
STEPS = ((0, 2), (2, 255), (1, 257), (257, 258))
"""Entries of each append; the third one goes over the end of a bundle and repeats what is there."""
TOTAL = 258


class History:
    """What the world has seen of one log, over all its lives."""

    def __init__(self, directory: Path) -> None:
        self.record, self.private = directory / "record", directory / "state"
        self.heads: dict[int, bytes] = {}
        self.acknowledged: set[int] = set()

    def see(self, note: bytes) -> None:
        head = head_of(note)
        assert self.heads.setdefault(head.size, head.root) == head.root, "two heads of one size"

    def run(self) -> None:
        """One life of the log: all appends, a reopening in between."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        for steps in (STEPS[:3], STEPS[3:]):
            log = open_log(
                LogDirectory(self.record, self.private), Witness(watch=lambda note: self.see(note.to_bytes()))
            )
            try:
                for start, end in steps:
                    try:
                        last = await log.append(entries(start, end))
                    except StoreError:
                        last = await log.append(entries(start, end))
                    self.see(log.inclusion(last)[1])
                    self.acknowledged.update(range(start, end))
                    assert last == end - 1
            finally:
                await log.close()

    def check(self) -> None:
        """What lies there after a crash, as a reader of the files sees it."""
        record = RecordFiles(self.record)
        names = parse_names(record.names())
        found = read_entries(record, names)
        checkpoint = record.checkpoint()
        if checkpoint is not None:
            self.see(checkpoint)
        published = head_of(checkpoint).size if checkpoint is not None else 0
        faults = [*found.faults, *check_tiles(record, names, found.tree, published)]
        assert [fault for fault in faults if fault.kind is not FaultKind.LEFTOVER] == []
        for size, root in self.heads.items():
            assert found.tree.root(size) == root, "a head was shown whose entries are not durable"
        assert max(self.acknowledged, default=-1) < published, "an acknowledged entry is not covered"


def live(
    history: History, disk: Disk, monkeypatch, at: int = 0, when: CutTime = CutTime.BEFORE, error_at: int = 0
) -> bool:
    """One life that is cut off at its ``at``-th call; whether it was."""
    with disk.life(monkeypatch, at, when, error_at):
        try:
            history.run()
        except CrashError:
            pass
        except StoreError:
            assert disk.is_dead or error_at
    return disk.is_dead


def calls_of_a_life(tmp_path: Path, monkeypatch) -> list[str]:
    history, disk = new(tmp_path, "uncut")
    assert not live(history, disk, monkeypatch)
    return disk.calls


def new(tmp_path: Path, name: str) -> tuple[History, Disk]:
    directory = tmp_path / name
    directory.mkdir()
    return History(directory), Disk(directory)


def crash_everywhere(tmp_path: Path, monkeypatch, when: CutTime, loss: Loss, stride: int) -> None:
    """Cut at every ``stride``-th call; where to begin depends on the loss, so that each call meets some loss."""
    calls = calls_of_a_life(tmp_path, monkeypatch)
    assert len(calls) > 200
    for at in range(1 + list(Loss).index(loss) % stride, len(calls) + 1, stride):
        if when is CutTime.TORN and calls[at - 1] != "pwrite":
            continue
        history, disk = new(tmp_path, str(at))
        # Old partial files are removed beside the answer to an append, so the last few calls come or come not.
        assert live(history, disk, monkeypatch, at, when) or at > len(calls) - 20
        disk.fail(loss, seed=at)
        history.check()
        assert not live(history, disk, monkeypatch)
        history.check()
        assert len(history.acknowledged) == TOTAL


@pytest.mark.parametrize("loss", Loss, ids=lambda loss: loss.name)
@pytest.mark.parametrize("when", CutTime, ids=lambda when: when.name)
def test_a_crash_at_any_system_call_loses_nothing_acknowledged_and_forks_nothing(tmp_path, monkeypatch, when, loss):
    crash_everywhere(tmp_path, monkeypatch, when, loss, 1 if when is CutTime.TORN else 3)


@pytest.mark.long
@pytest.mark.parametrize("loss", Loss, ids=lambda loss: loss.name)
@pytest.mark.parametrize("when", CutTime, ids=lambda when: when.name)
def test_a_crash_at_any_system_call_with_any_loss_forks_nothing(tmp_path, monkeypatch, when, loss):
    crash_everywhere(tmp_path, monkeypatch, when, loss, 1)


def test_a_crash_while_a_log_is_made_leaves_none_that_does_not_open(tmp_path, monkeypatch):
    made = calls_of_a_life(tmp_path, monkeypatch).index("replace") + 3
    for at in range(1, made + 1):
        for seed in range(8):
            history, disk = new(tmp_path, f"{at}-{seed}")
            assert live(history, disk, monkeypatch, at)
            disk.fail(Loss.SOME, seed)
            assert not live(history, disk, monkeypatch)


@pytest.mark.parametrize("loss", [Loss.UNFLUSHED, Loss.SOME], ids=lambda loss: loss.name)
def test_what_a_killed_process_had_not_flushed_is_flushed_before_anything_is_built_on_it(tmp_path, monkeypatch, loss):
    calls = calls_of_a_life(tmp_path, monkeypatch)
    renames = [at for at, call in enumerate(calls, start=1) if call in ("rename", "replace", "mkdir")]
    for at in renames:
        for second in range(12 + at % 9, 40, 14):
            history, disk = new(tmp_path, f"{at}-{second}")
            assert live(history, disk, monkeypatch, at, CutTime.AFTER)
            # The process was killed; the machine fails during the next life.
            live(history, disk, monkeypatch, second, CutTime.BEFORE)
            disk.fail(loss, seed=second)
            history.check()
            assert not live(history, disk, monkeypatch)
            history.check()


@pytest.mark.parametrize("call", ["pwrite", "fsync", "replace"])
def test_a_call_that_fails_loses_nothing_even_if_the_machine_fails_soon_after(tmp_path, monkeypatch, call):
    calls = calls_of_a_life(tmp_path, monkeypatch)
    opened = next(at for at, each in enumerate(calls) if each == "pwrite" and at > 20)
    for at in [at for at, each in enumerate(calls, start=1) if each == call and at > opened]:
        for later in (0, 20 + at % 7):
            history, disk = new(tmp_path, f"{at}-{later}")
            live(history, disk, monkeypatch, at + later if later else 0, error_at=at)
            disk.fail(Loss.UNFLUSHED)
            history.check()
            assert not live(history, disk, monkeypatch)
            history.check()
            assert len(history.acknowledged) == TOTAL


LOGGER = """
import asyncio, os, pathlib, sys
from secagg.store.log_files import LogDirectory
from tests.support.logs import Witness, entries, open_log

def say(*words):
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")

async def work(log, lane):
    # Every life repeats a little of the one before; lanes share every tenth entry.
    for number in range(int(sys.argv[2]) + lane, 100_000, 4):
        index = await log.append([b"%d" % number, b"shared %d" % (number // 40)])
        say("ack", number, log.find(b"%d" % number), number // 40, index)

async def main():
    directory = pathlib.Path(sys.argv[1])
    witness = Witness(watch=lambda note: say("head", note.to_bytes().hex()))
    log = open_log(LogDirectory(directory / "record", directory / "state"), witness)
    await asyncio.gather(*(work(log, lane) for lane in range(4)))

asyncio.run(main())
"""


def killed_after(lines: int, directory: Path, start: int) -> list[list[str]]:
    """Run a child until it has said so many lines, kill it with SIGKILL, return all it said."""
    child = subprocess.Popen(
        [sys.executable, "-c", LOGGER, str(directory), str(start)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with child:
        said = [child.stdout.readline() for _ in range(lines)]
        child.kill()
        said += child.stdout.readlines()
    assert child.returncode == -9
    return [line.decode().split() for line in said if line.endswith(b"\n")]


def kill_in_a_loop(directory: Path, lives: list[int]) -> None:
    history = History(directory)
    places: dict[bytes, int] = {}
    reached = 0
    for lines in lives:
        for what, *words in killed_after(lines, directory, max(0, reached - 40) // 40 * 40):
            if what == "head":
                history.see(bytes.fromhex(words[0]))
                continue
            number, index, shared, shared_index = map(int, words)
            reached = max(reached, number)
            assert places.setdefault(b"%d" % number, index) == index
            assert places.setdefault(b"shared %d" % shared, shared_index) == shared_index
        history.check()
        asyncio.run(check_places(history, places))
    assert len(places) > 100
    assert len(set(places.values())) == len(places)


async def check_places(history: History, places: dict[bytes, int]) -> None:
    log = open_log(LogDirectory(history.record, history.private))
    try:
        if not places:
            return
        evidence = log.evidence(0)
        assert len(set(evidence.entries)) == len(evidence.entries)
        for text, index in places.items():
            assert evidence.entries[index] == text
    finally:
        await log.close()


def test_a_process_that_is_killed_again_and_again_keeps_one_history(tmp_path):
    kill_in_a_loop(tmp_path, [1, 30, 333, 77, 500])


@pytest.mark.long
def test_a_process_that_is_killed_a_hundred_times_keeps_one_history(tmp_path):
    kill_in_a_loop(tmp_path, [7 + 13 * life % 401 for life in range(100)])
