"""Sealed boxes on disk and in memory: the same rules, and what a crash leaves behind."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from secagg.runtime.memory_boxes import MemoryBoxStore
from secagg.runtime.ports import StoreError
from secagg.store import box_file
from secagg.store.box_file import DirectoryBoxStore

ONE, TWO = b"1" * 16, b"2" * 16


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path: Path):
    return DirectoryBoxStore(tmp_path / "boxes") if request.param == "disk" else MemoryBoxStore()


def test_boxes_lie_in_consecutive_slots_and_are_read_back(store):
    assert store.append(ONE, [b"aaa", b"bbb"]) == 0
    assert store.append(ONE, [b"ccc"]) == 2
    assert store.append(TWO, [b"dddd"]) == 0
    assert store.read(ONE, 3, 0, 3) == b"aaabbbccc"
    assert store.read(ONE, 3, 1, 1) == b"bbb"
    assert store.read(TWO, 4, 0, 1) == b"dddd"


def test_slots_that_are_not_there_are_not_read(store):
    store.append(ONE, [b"aaa"])
    for session, first, count in ((ONE, 0, 2), (ONE, 1, 1), (TWO, 0, 1)):
        with pytest.raises(StoreError):
            store.read(session, 3, first, count)


def test_boxes_of_another_length_are_refused_and_spoil_nothing(store):
    store.append(ONE, [b"aaa"])
    with pytest.raises(StoreError):
        store.append(ONE, [b"bbbb"])
    with pytest.raises(StoreError):
        store.append(ONE, [b"bbb", b"cccc"])
    assert store.append(ONE, [b"ddd"]) == 1
    assert store.read(ONE, 3, 0, 2) == b"aaaddd"


def test_deleting_forgets_the_boxes_of_one_session_and_keeps_its_roster(store):
    store.keep_roster(ONE, b"roster\n")
    store.append(ONE, [b"aaa"])
    store.append(TWO, [b"bbb"])
    assert list(store.sessions()) == [ONE, TWO]
    store.delete(ONE)
    store.delete(ONE)
    assert list(store.sessions()) == [TWO]
    assert store.roster(ONE) == b"roster\n"
    assert store.append(ONE, [b"longer"]) == 0


def test_a_roster_that_was_not_kept_is_an_error(store):
    with pytest.raises(StoreError):
        store.roster(ONE)


def test_threads_that_append_at_once_get_slots_of_their_own(store):
    slots: list[tuple[int, bytes]] = []

    def append(number: int) -> None:
        for at in range(20):
            box = b"%d-%02d" % (number, at)
            slots.append((store.append(ONE, [box]), box))

    threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slot for slot, _ in slots) == list(range(80))
    assert all(store.read(ONE, 4, slot, 1) == box for slot, box in slots)


class TestOnDisk:
    def test_another_process_goes_on_after_the_last_whole_slot(self, tmp_path):
        DirectoryBoxStore(tmp_path).append(ONE, [b"aaa", b"bbb"])
        path = tmp_path / ONE.hex() / "boxes"
        path.write_bytes(path.read_bytes() + b"c")  # what a crash left of a batch
        again = DirectoryBoxStore(tmp_path)
        assert again.append(ONE, [b"ddd"]) == 2
        assert again.read(ONE, 3, 0, 3) == b"aaabbbddd"

    def test_a_batch_that_failed_gives_none_of_its_slots_to_others(self, tmp_path, monkeypatch):
        store = DirectoryBoxStore(tmp_path)
        store.append(ONE, [b"aaa"])
        with monkeypatch.context() as patch:
            patch.setattr(box_file.os, "fdatasync", failing)
            with pytest.raises(StoreError):
                store.append(ONE, [b"bbb"])
        assert store.append(ONE, [b"ccc"]) == 2
        assert store.read(ONE, 3, 2, 1) == b"ccc"

    def test_boxes_are_for_this_user_alone(self, tmp_path):
        store = DirectoryBoxStore(tmp_path / "boxes")
        store.append(ONE, [b"aaa"])
        assert (tmp_path / "boxes" / ONE.hex() / "boxes").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "boxes").stat().st_mode & 0o777 == 0o700

    def test_what_is_no_session_is_not_listed(self, tmp_path):
        store = DirectoryBoxStore(tmp_path)
        (tmp_path / "notes").mkdir()
        store.keep_roster(TWO, b"")
        assert store.sessions() == []


def failing(_: int) -> None:
    raise OSError(os.strerror(5))
