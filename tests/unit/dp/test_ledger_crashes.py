"""Crashes at every durable operation, processes killed for real, and processes that race for the last budget."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from dp.charge import epsilon_of
from dp.ledger import BudgetExhaustedError, Head, Ledger, LedgerRolledBackError, LedgerStorageError
from dp.ledger_disk import Disk
from dp.mechanisms import DistributedSkellam
from dp.sensitivity import Sensitivity

ROOT = Path(__file__).parents[3]
DELTA = Fraction(1, 100000)
WORST = DistributedSkellam(Fraction(3000), 60, 10, Sensitivity.of_squared_norm(10000, 1 << 10), Fraction(1, 1 << 64))
SETTLED = WORST.with_survivors(90)
PARTICIPANTS = [bytes([number]) * 32 for number in range(90)]


class PowerCut(BaseException):
    """Nothing that runs after this was meant to run."""


class FailingDisk(Disk):
    """Fails at operation number ``at``, counted from 0, before it, in the midst of it, or after it."""

    def __init__(self, at: int, when: str, fail: Callable[[], None]) -> None:
        self.operations: list[str] = []
        self._at, self._when, self._fail = at, when, fail

    def _around(self, name: str, operation: Callable[[], None], half: Callable[[], None] | None = None) -> None:
        self.operations.append(name)
        failing = len(self.operations) == self._at + 1
        if failing and self._when == "before":
            self._fail()
        if failing and self._when == "midway":
            if half is not None:
                half()
            self._fail()
        operation()
        if failing and self._when == "after":
            self._fail()

    def commit(self, connection: sqlite3.Connection) -> None:
        self._around("commit", lambda: Disk.commit(self, connection))

    def write(self, path: Path, content: bytes) -> None:
        self._around(
            "write",
            lambda: Disk.write(self, path, content),
            lambda: Disk.write(self, path, content[: len(content) // 2]),
        )

    def replace(self, source: Path, target: Path) -> None:
        self._around("replace", lambda: Disk.replace(self, source, target))

    def sync_directory(self, path: Path) -> None:
        self._around("sync_directory", lambda: Disk.sync_directory(self, path))


STEPS: list[tuple[str, Callable[[Ledger], object]]] = [
    ("create", lambda ledger: ledger.create("p", Fraction(8), DELTA)),
    ("reserve a", lambda ledger: ledger.reserve("p", b"a", WORST)),
    ("reserve b", lambda ledger: ledger.reserve("p", b"b", WORST)),
    ("settle a", lambda ledger: ledger.settle("p", b"a", SETTLED, PARTICIPANTS)),
    ("cancel b", lambda ledger: ledger.cancel("p", b"b", "nobody joined")),
    ("reserve c", lambda ledger: ledger.reserve("p", b"c", WORST)),
]
NAMES = [name for name, _ in STEPS]


class Run:
    """The steps on a disk that fails; what was acknowledged, and the files as the crash left them."""

    def __init__(self, directory: Path, at: int, when: str, error: Callable[[], BaseException]) -> None:
        self.live, self.crashed = directory / "live", directory / "crashed"
        self.live.mkdir(parents=True)
        self.acknowledged: list[str] = []
        self.heads: list[Head] = []
        self.copies: list[Path] = []
        self.ledger: Ledger | None = None
        self.error: BaseException | None = None
        self._make_error = error
        self.disk = FailingDisk(at, when, self._fail)
        try:
            self._work()
        except (PowerCut, LedgerStorageError) as error_seen:
            self.error = error_seen

    def _fail(self) -> None:
        # What a crash leaves is what is in the files now, not what exceptions tidy up afterwards.
        shutil.copytree(self.live, self.crashed)
        raise self._make_error()

    def _work(self) -> None:
        self.ledger = Ledger(self.live / "ledger.db", self.disk)
        for name, step in STEPS:
            step(self.ledger)
            self.acknowledged.append(name)
            self.heads.append(self.ledger.head())
            self.copies.append(self.live.parent / f"{name}.db")
            shutil.copy(self.live / "ledger.db", self.copies[-1])


def runs(tmp_path: Path, when: str, error: Callable[[], BaseException]) -> Iterator[Run]:
    """One run for every operation that can fail so."""
    undisturbed = Run(tmp_path / "undisturbed", 1000, when, error)
    operations = undisturbed.disk.operations
    assert undisturbed.acknowledged == NAMES
    assert set(operations) == {"commit", "write", "replace", "sync_directory"}
    assert len(operations) > 4 * len(STEPS)
    for at, operation in enumerate(operations):
        if when != "midway" or operation == "write":
            run = Run(tmp_path / f"{at}", at, when, error)
            assert run.error is not None
            yield run


def check_survivor(run: Run, path: Path) -> None:
    """What holds of a ledger that is opened after a crash, and after the steps are taken once more."""
    with Ledger.open(path) as ledger:
        for head in run.heads:
            ledger.require(head)
        ledger.verify()
        if "create" in run.acknowledged:
            sessions = {session.session: session.state for session in ledger.state("p").sessions}
            # What was acknowledged stands, and the step that failed may.
            attempted = NAMES[: len(run.acknowledged) + 1]
            for session, ended, state in ((b"a", "settle a", "settled"), (b"b", "cancel b", "cancelled")):
                if f"reserve {session.decode()}" in run.acknowledged:
                    allowed = {state} if ended in run.acknowledged else {"reserved"}
                    assert sessions[session] in (allowed | {state} if ended in attempted else allowed)
            assert (b"c" in sessions) or "reserve c" not in run.acknowledged
            certain = [WORST] if "reserve c" in run.acknowledged else []
            certain += [SETTLED if "settle a" in attempted else WORST] if "reserve a" in run.acknowledged else []
            certain += [WORST] if "reserve b" in run.acknowledged and "cancel b" not in attempted else []
            least = sum((mechanism.charge().rdp for mechanism in certain), start=0 * WORST.charge().rdp)
            spent = sum(s.mechanism.charge().rdp for s in ledger.state("p").sessions if s.state != "cancelled")
            assert (least <= spent).all()
        for _, step in STEPS:
            # A session that is cancelled already would be charged anew.
            if not (step is STEPS[2][1] and "cancelled" in {s.state for s in _sessions(ledger)}):
                step(ledger)
        state = ledger.state("p")
        assert [(s.session, s.state) for s in state.sessions] == [
            (b"a", "settled"),
            (b"b", "cancelled"),
            (b"c", "reserved"),
        ]
        assert state.spent == epsilon_of(SETTLED.charge() + WORST.charge(), DELTA)
        assert ledger.head().sequence == len(STEPS)
        ledger.verify()


def _sessions(ledger: Ledger) -> list[object]:
    return list(ledger.state("p").sessions) if ledger.head().sequence else []


# After an operation is before the next one.
@pytest.mark.parametrize("when", ["before", "midway"])
def test_after_a_crash_at_any_operation_everything_acknowledged_is_there_and_older_copies_are_refused(
    tmp_path: Path, when: str
) -> None:
    for run in runs(tmp_path, when, PowerCut):
        path = run.crashed / "ledger.db"
        for copy in run.copies[:-1]:
            restored = run.live.parent / f"restored {copy.stem}" / "ledger.db"
            shutil.copytree(run.crashed, restored.parent)
            shutil.copy(copy, restored)
            # A journal that is left over from the newer one would make a mixture of both.
            restored.with_name("ledger.db-journal").unlink(missing_ok=True)
            with pytest.raises(LedgerRolledBackError):
                Ledger.open(restored)
        check_survivor(run, path)


@pytest.mark.parametrize("when", ["before", "midway", "after"])
def test_a_disk_that_fails_once_shuts_the_ledger_until_it_is_opened_again(tmp_path: Path, when: str) -> None:
    for run in runs(tmp_path, when, lambda: OSError(errno.EIO, "Input/output error")):
        assert isinstance(run.error, LedgerStorageError)
        if run.ledger is not None:
            with pytest.raises(LedgerStorageError, match="open it again"):
                run.ledger.reserve("p", b"z", WORST)
            run.ledger.close()
        check_survivor(run, run.live / "ledger.db")


def test_what_is_renamed_was_synced_before_and_its_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    synced, replaced = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        synced(descriptor)

    def replace(source: Path, target: Path) -> Path:
        seen.append("rename")
        return replaced(source, target)

    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert ledger._store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert ledger._store._connection.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        ledger.create("p", Fraction(8), DELTA)
    assert seen == ["ledger.db.head.tmp", "rename", tmp_path.name]


SPENDER = """
import os, pathlib, sys
from tests.unit.dp.test_ledger_crashes import *

path, budget, name = pathlib.Path(sys.argv[1]), Fraction(sys.argv[2]), sys.argv[3]
with Ledger.open(path) as ledger:
    ledger.create("p", budget, DELTA)
    os.write(1, b"ready\\n")
    sys.stdin.readline()
    for number in range(10_000):
        session = f"{name} {number}".encode()
        try:
            reservation = ledger.reserve("p", session, WORST)
        except BudgetExhaustedError:
            os.write(1, b"exhausted\\n")
            break
        os.write(1, b"reserve %s %d %s\\n" % (session, reservation.sequence, reservation.digest.hex().encode()))
        if name == "settles" and number % 3:
            os.write(1, b"begin %s\\n" % session)
            if number % 3 == 1:
                ledger.settle("p", session, SETTLED, PARTICIPANTS)
                os.write(1, b"settled %s\\n" % session)
            else:
                ledger.cancel("p", session, "nobody joined")
                os.write(1, b"cancelled %s\\n" % session)
"""


def spender(path: Path, budget: int, name: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", SPENDER, str(path), str(budget), name],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


@pytest.mark.parametrize("lines", [1, 8, 23, 60])
def test_a_process_that_is_killed_takes_nothing_back(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "ledger.db"
    child = spender(path, 10_000, "settles")
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"go\n")
    child.stdin.flush()
    said = [child.stdout.readline() for _ in range(lines)]
    child.kill()
    said += child.stdout.readlines()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    told = [line.decode().split() for line in said if line.endswith(b"\n")]
    with Ledger.open(path) as ledger:
        ledger.verify()
        states = {session.session.decode(): session.state.value for session in ledger.state("p").sessions}
        begun = {" ".join(words[1:]) for words in told if words[0] == "begin"}
        ended = {" ".join(words[1:]): words[0] for words in told if words[0] in {"settled", "cancelled"}}
        for words in told:
            if words[0] == "reserve":
                session = " ".join(words[1:3])
                ledger.require(Head(int(words[3]), bytes.fromhex(words[4])))
                assert states[session] == ended.get(session, "reserved") or session in begun - set(ended)
        # At most one more than was said: the last line may not have come out any more.
        assert len(states) <= sum(words[0] == "reserve" for words in told) + 1
        ledger.reserve("p", b"afterwards", WORST)


def test_two_processes_do_not_both_get_the_last_budget(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    children = [spender(path, 5, name) for name in ("one", "other")]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    said = [child.communicate()[0].splitlines() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    with Ledger.open(path) as ledger:
        ledger.verify()
        state = ledger.state("p")
        assert state.spent.epsilon <= 5
        assert ledger.fits("p", WORST) == 0
        assert len(state.sessions) > 4
        assert sum(len(lines) for lines in said) == len(state.sessions) + 2
        assert {lines[-1] for lines in said} == {b"exhausted"}


def test_two_threads_do_not_both_get_the_last_budget(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    won: list[str] = []
    with Ledger.open(path) as one, Ledger.open(path) as other:
        for turn in range(8):
            population = f"p{turn}"
            one.create(population, Fraction(epsilon_of(WORST.charge(), DELTA).epsilon), DELTA)
            start = threading.Barrier(3)

            def race(ledger: Ledger, name: str, population: str = population, start: threading.Barrier = start) -> None:
                start.wait()
                try:
                    ledger.reserve(population, name.encode(), WORST)
                    won.append(population)
                except BudgetExhaustedError:
                    pass

            racers = [
                threading.Thread(target=race, args=(ledger, name))
                for ledger, name in ((one, "a"), (other, "b"), (one, "c"))
            ]
            for racer in racers:
                racer.start()
            for racer in racers:
                racer.join()
        assert won == [f"p{turn}" for turn in range(8)]
        assert one.head() == other.head()
        one.verify()


def test_what_is_remembered_never_falls_behind_what_another_process_was_told(tmp_path: Path) -> None:
    """The one that appended first may be the last to write the head: it then writes the newest, not its own."""
    path = tmp_path / "ledger.db"

    class Slow(Disk):
        def commit(self, connection: sqlite3.Connection) -> None:
            super().commit(connection)
            if armed.is_set():
                armed.clear()
                with Ledger.open(path) as quick:
                    quick.reserve("p", b"quick", WORST)
                    told.append(quick.head())

    armed, told = threading.Event(), []
    with Ledger(path, Slow()) as slow:
        slow.create("p", Fraction(8), DELTA)
        armed.set()
        slow.reserve("p", b"slow", WORST)
        assert slow.head() == told[0]
        assert str(told[0].sequence) in path.with_name("ledger.db.head").read_text()


def test_an_event_of_a_process_that_died_is_remembered_before_anybody_is_told_of_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as survivor:
        survivor.create("p", Fraction(8), DELTA)
        shutil.copy(path, tmp_path / "old.db")

        def die() -> None:
            raise PowerCut

        # Operation 0 is the commit of the schema, 1 that of the opening, 2 that of the event.
        dying = Ledger(path, FailingDisk(2, "after", die))
        with pytest.raises(PowerCut):
            dying.reserve("p", b"a", WORST)
        dying.close()
        assert survivor.reserve("p", b"a", WORST).sequence == 2
    shutil.copy(tmp_path / "old.db", path)
    with pytest.raises(LedgerRolledBackError):
        Ledger.open(path)
