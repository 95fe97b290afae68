"""The journal of a member, and its state directory that is made once."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

from secagg.runtime.member_ports import ANSWERED, OpeningLine
from secagg.runtime.ports import StaleStoreError, StoreError
from secagg.store import opening_journal
from secagg.store.member_state import MemberState
from secagg.store.opening_journal import MOST_REFUSALS, FileOpeningJournal, read_journal

LINE = OpeningLine(1_000_000, b"s" * 16, b"c" * 32, 5, "NOT_NAMED", "the close entry does not name this member")


def line(**changes: object) -> OpeningLine:
    values = {name: getattr(LINE, name) for name in ("at_s", "session", "close", "count", "outcome", "words")}
    return OpeningLine(**(values | changes))


class TestTheJournal:
    def test_lines_are_read_back_in_order_by_this_and_by_another_process(self, tmp_path):
        path = tmp_path / "opened.jsonl"
        journal = FileOpeningJournal(path)
        lines = [LINE, line(close=b"d" * 32), line(outcome=ANSWERED, words="answered")]
        for each in lines:
            journal.add(each)
        FileOpeningJournal(path).add(line(session=b"t" * 16))
        assert read_journal(path) == [*lines, line(session=b"t" * 16)]
        assert json.loads(path.read_text().splitlines()[0])["words"] == LINE.words

    def test_the_same_outcome_again_adds_nothing_also_after_a_restart(self, tmp_path):
        path = tmp_path / "opened.jsonl"
        for _ in range(2):
            journal = FileOpeningJournal(path)
            for _ in range(2):
                journal.add(line(at_s=2_000_000))
        assert read_journal(path) == [line(at_s=2_000_000)]

    def test_refusals_of_one_session_are_bounded_and_answers_always_stand_there(self, tmp_path):
        path = tmp_path / "opened.jsonl"
        journal = FileOpeningJournal(path)
        for number in range(MOST_REFUSALS + 10):
            journal.add(line(close=number.to_bytes(32, "big")))
        journal.add(line(outcome=ANSWERED))
        journal.add(line(session=b"t" * 16))
        assert len(read_journal(path)) == MOST_REFUSALS + 2

    def test_a_line_that_a_crash_cut_off_is_removed(self, tmp_path):
        path = tmp_path / "opened.jsonl"
        FileOpeningJournal(path).add(LINE)
        path.write_bytes(path.read_bytes() + b'{"at_s"')
        assert read_journal(path) == [LINE]
        FileOpeningJournal(path).add(line(outcome=ANSWERED))
        assert read_journal(path) == [LINE, line(outcome=ANSWERED)]

    def test_a_line_that_could_not_be_written_leaves_no_part_of_itself(self, tmp_path, monkeypatch):
        path = tmp_path / "opened.jsonl"
        journal = FileOpeningJournal(path)
        journal.add(LINE)

        def failing(descriptor: int) -> None:
            raise OSError(28, "full")

        with monkeypatch.context() as patch:
            patch.setattr(opening_journal.os, "fsync", failing)
            with pytest.raises(StoreError):
                journal.add(line(outcome=ANSWERED))
        assert read_journal(path) == [LINE]
        journal.add(line(outcome=ANSWERED))
        assert read_journal(path) == [LINE, line(outcome=ANSWERED)]

    def test_a_damaged_line_is_an_error_and_no_file_is_no_lines(self, tmp_path):
        assert read_journal(tmp_path / "none") == []
        (tmp_path / "opened.jsonl").write_text('{"at_s": 1}\n')
        with pytest.raises(StoreError):
            FileOpeningJournal(tmp_path / "opened.jsonl")


class TestTheStateDirectory:
    def test_it_is_made_once(self, tmp_path):
        MemberState.create(tmp_path / "state")
        with pytest.raises(StoreError, match="there already"):
            MemberState.create(tmp_path / "state")
        state = MemberState(tmp_path / "state")
        assert state.restored_at_s == 0
        asyncio.run(state.close())

    def test_an_empty_backup_of_the_first_day_is_not_taken_for_the_state(self, tmp_path):
        """Its database knows no session, and so the store alone would begin with it."""
        home = tmp_path / "state"
        MemberState.create(home)
        shutil.copytree(home, tmp_path / "backup")
        asyncio.run(MemberState(home).close())
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "backup", home)
        with pytest.raises(StaleStoreError, match="--restored"):
            MemberState(home)
        assert MemberState.accept_restored(home, 1000) == 0
        state = MemberState(home)
        assert state.restored_at_s == 1000
        asyncio.run(state.close())

    def test_a_restored_file_that_got_its_old_inode_is_noticed_all_the_same(self, tmp_path):
        home = tmp_path / "state"
        MemberState.create(home)
        noted = int((home / "born.noted").read_bytes())
        while (home / "born").stat().st_ctime_ns == noted:  # clocks of file systems tick coarsely
            (home / "born").chmod(0o600)
        with pytest.raises(StaleStoreError, match="was restored"):
            MemberState(home)

    def test_the_latest_restore_counts(self, tmp_path):
        home = tmp_path / "state"
        MemberState.accept_restored(home, 1000)
        MemberState.accept_restored(home, 900)
        state = MemberState(home)
        assert state.restored_at_s == 1000
        asyncio.run(state.close())

    def test_a_damaged_date_is_an_error(self, tmp_path):
        home = tmp_path / "state"
        MemberState.accept_restored(home, 1000)
        (home / "restored").write_text("long ago")
        with pytest.raises(StoreError, match="damaged"):
            MemberState(home)

    def test_a_state_in_use_is_not_accepted_as_restored(self, tmp_path):
        home = tmp_path / "state"
        MemberState.create(home)
        state = MemberState(home)
        with pytest.raises(StoreError, match="open already"):
            MemberState.accept_restored(home, 1000)
        asyncio.run(state.close())

    def test_each_log_of_each_coordinator_has_a_memory_of_its_own(self, tmp_path):
        MemberState.create(tmp_path / "state")
        state = MemberState(tmp_path / "state")
        state.memory_of(b"a" * 32, "log").update(lambda _: b"note")
        assert state.memory_of(b"a" * 32, "log").load() == b"note"
        assert state.memory_of(b"b" * 32, "log").load() is None
        assert state.memory_of(b"a" * 32, "other").load() is None
        asyncio.run(state.close())
