"""What a witness keeps on disk: durable before it is used, compared before it is replaced, never made anew."""

from __future__ import annotations

import hashlib
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from secagg.runtime.ports import StoreError, VersionConflictError
from secagg.store import witness_state
from secagg.store.witness_state import DirectoryWitnessState

ROOT = Path(__file__).parents[3]
ORIGIN = "aggregator.example/log"
FILE = hashlib.sha256(ORIGIN.encode()).hexdigest()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    DirectoryWitnessState.create(tmp_path / "state")
    return tmp_path / "state"


def test_nothing_was_cosigned_at_first(directory):
    assert DirectoryWitnessState(directory).latest(ORIGIN) is None


def test_what_was_written_is_there_after_a_restart_in_the_file_of_its_origin(directory):
    state = DirectoryWitnessState(directory)
    state.advance(ORIGIN, None, b"one")
    state.advance(ORIGIN, b"one", b"two")
    state.close()
    assert (directory / FILE).read_bytes() == b"two"
    assert DirectoryWitnessState(directory).latest(ORIGIN) == b"two"
    assert stat.S_IMODE((directory / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("expected", [None, b"", b"zero", b"one "])
def test_another_note_than_the_last_is_a_conflict_and_changes_nothing(directory, expected):
    state = DirectoryWitnessState(directory)
    state.advance(ORIGIN, None, b"one")
    with pytest.raises(VersionConflictError):
        state.advance(ORIGIN, expected, b"two")
    assert state.latest(ORIGIN) == b"one"


def test_of_many_threads_that_advance_from_the_same_note_one_succeeds(directory):
    state = DirectoryWitnessState(directory)
    state.advance(ORIGIN, None, b"one")
    barrier, won = threading.Barrier(8), []

    def advance(number: int) -> None:
        barrier.wait()
        try:
            state.advance(ORIGIN, b"one", b"%d" % number)
        except VersionConflictError:
            return
        won.append(b"%d" % number)

    threads = [threading.Thread(target=advance, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [state.latest(ORIGIN)] == won


def test_one_process_has_the_state(directory):
    state = DirectoryWitnessState(directory)
    program = (
        "import pathlib, sys; from secagg.store.witness_state import DirectoryWitnessState as State; "
        "State(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, directory]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert "open already" in second.stderr
    state.close()
    subprocess.run(command, cwd=ROOT, check=True)


def test_a_state_that_is_gone_is_not_made_anew(tmp_path):
    with pytest.raises(StoreError, match="lost its state"):
        DirectoryWitnessState(tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_state_that_goes_away_while_it_is_open_takes_nothing_more(directory):
    state = DirectoryWitnessState(directory)
    state.advance(ORIGIN, None, b"one")
    directory.rename(directory.with_name("moved"))
    with pytest.raises(StoreError):
        state.advance(ORIGIN, None, b"fork")


def test_a_state_is_made_once(directory):
    with pytest.raises(StoreError, match="there already"):
        DirectoryWitnessState.create(directory)


def test_a_write_that_fails_before_it_is_seen_changes_nothing(directory, monkeypatch):
    state = DirectoryWitnessState(directory)
    state.advance(ORIGIN, None, b"one")

    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(witness_state, "replace_durably", fail)
        with pytest.raises(StoreError, match="No space left"):
            state.advance(ORIGIN, b"one", b"two")
    assert state.latest(ORIGIN) == b"one"
    state.advance(ORIGIN, b"one", b"two")


def test_a_note_whose_write_failed_half_way_is_shown_to_nobody_before_it_is_durable(directory, monkeypatch):
    state = DirectoryWitnessState(directory)
    state.advance(ORIGIN, None, b"one")

    def visible_but_not_durable(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(witness_state, "replace_durably", visible_but_not_durable)
        for call in (lambda: state.advance(ORIGIN, b"one", b"two"), lambda: state.latest(ORIGIN)):
            with pytest.raises(StoreError, match="Input/output"):
                call()
        state.close()
        restarted = DirectoryWitnessState(directory)
        with pytest.raises(StoreError, match="Input/output"):
            restarted.latest(ORIGIN)
    assert restarted.latest(ORIGIN) == b"two"


def test_a_note_of_an_earlier_process_is_written_again_once(directory, monkeypatch):
    state = DirectoryWitnessState(directory)
    state.advance(ORIGIN, None, b"one")
    state.close()
    written = []
    original = witness_state.replace_durably

    def count(path: Path, data: bytes) -> None:
        written.append(data)
        original(path, data)

    monkeypatch.setattr(witness_state, "replace_durably", count)
    state = DirectoryWitnessState(directory)
    assert [state.latest(ORIGIN), state.latest(ORIGIN)] == [b"one", b"one"]
    assert written == [b"one"]
