"""``secagg log``: what fsck finds and mends, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from secagg.cli import main
from secagg.store.log_files import LogDirectory
from secagg.transcript import canonical
from tests.support.logs import Witness, open_log

SESSION = "5e" * 16
SIZE = 700


def entry(number: int) -> bytes:
    return canonical.encode({"type": "session-open", "version": 1, "session": SESSION, "number": number})


@pytest.fixture
def record(tmp_path: Path) -> Path:
    async def write() -> None:
        log = open_log(LogDirectory(tmp_path / "record", tmp_path / "state"), Witness())
        await log.append([entry(number) for number in range(SIZE - 1)])
        await log.append([b"\x1b[2Jnot canonical"])
        await log.close()

    asyncio.run(write())
    return tmp_path / "record"


@pytest.fixture
def shell(capsys):
    def run(*argv: str | Path) -> tuple[int, str, str]:
        code = main.run(["log", *map(str, argv)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def fsck(shell, record: Path, *options: str) -> tuple[int, dict]:
    code, out, err = shell("fsck", record, "--format", "json", *options)
    assert err == ""
    return code, json.loads(out)


def found(report: dict) -> set[tuple[str, str]]:
    return {(fault["path"], fault["fault"]) for fault in report["faults"]}


def contents(record: Path) -> dict[str, bytes]:
    files = (file for file in record.rglob("*") if file.is_file())
    return {str(file.relative_to(record)): file.read_bytes() for file in files}


def test_a_whole_log_has_no_faults(shell, record):
    before = contents(record)
    code, report = fsck(shell, record)
    assert code == 0
    assert (report["origin"], report["published"], report["entries"]) == ("log.example/secagg", SIZE, SIZE)
    assert report["faults"] == []
    assert report["tiles_checked"] is True
    code, report = fsck(shell, record, "--rebuild")
    assert (code, report["rebuilt"]) == (0, [])
    assert contents(record) == before
    code, out, _ = shell("fsck", record)
    assert code == 0
    assert "faults     none" in out


def test_tiles_that_are_missing_torn_or_wrong_are_named_and_written_again(shell, record):
    whole = contents(record)
    (record / "tile/0/000").unlink()
    (record / "tile/0/001").write_bytes(whole["tile/0/001"][:100])
    (record / "tile/0/002.p/188").write_bytes(bytes(188 * 32))
    (record / "tile/1/000.p/2").write_bytes(b"")
    damaged = {
        ("tile/0/000", "missing"),
        ("tile/0/001", "torn"),
        ("tile/0/002.p/188", "wrong"),
        ("tile/1/000.p/2", "torn"),
    }
    before = contents(record)
    code, report = fsck(shell, record)
    assert (code, found(report)) == (2, damaged)
    assert contents(record) == before, "fsck alone changes nothing"
    code, out, _ = shell("fsck", record)
    assert code == 2
    assert all(path in out for path, _ in damaged)
    code, report = fsck(shell, record, "--rebuild")
    assert code == 0
    assert (set(report["rebuilt"]), report["faults"]) == ({path for path, _ in damaged}, [])
    assert contents(record) == whole


def test_all_tiles_follow_from_the_entries(shell, record):
    whole = contents(record)
    for name in whole:
        if name.startswith("tile/") and not name.startswith("tile/entries/"):
            (record / name).unlink()
    assert fsck(shell, record, "--rebuild")[0] == 0
    kept = {name: data for name, data in whole.items() if name != "tile/0/002.p/187"}
    assert contents(record) == kept, "all but the partial tile of an older checkpoint"


@pytest.mark.parametrize(
    ("path", "change", "fault"),
    [
        ("tile/entries/000", None, ("tile/entries/000", "missing")),
        ("tile/entries/001", lambda data: data[:-1], ("tile/entries/001", "torn")),
        ("tile/entries/001", lambda data: data + data[-20:], ("tile/entries/001", "torn")),
        ("tile/entries/001", lambda data: data[:9] + b"x" + data[10:], ("checkpoint", "wrong")),
        ("tile/entries/002.p/188", None, ("tile/entries", "missing")),
        ("tile/entries/002.p/187", lambda data: data[:9] + b"x" + data[10:], ("tile/entries/002.p/187", "wrong")),
        ("checkpoint", None, ("checkpoint", "missing")),
        ("checkpoint", lambda data: data[:-1], ("checkpoint", "torn")),
    ],
)
def test_entries_and_checkpoints_that_are_not_right_are_named_and_never_touched(shell, record, path, change, fault):
    file = record / path
    data = file.read_bytes()
    file.unlink()
    if change is not None:
        file.write_bytes(change(data))
    (record / "tile/0/000").unlink()
    before = contents(record)
    for options in ((), ("--rebuild",)):
        code, report = fsck(shell, record, *options)
        assert code == 2
        assert fault in found(report)
        assert report["tiles_checked"] is False
        assert report["rebuilt"] == []
        assert contents(record) == before, "nothing says what the tiles have to hold"
    assert "not checked" in shell("fsck", record)[1]


def test_what_nothing_explains_is_named_and_stays(shell, record):
    for name in ("tile/0/002.p/200", "tile/0/notes.txt", "tile/entries/x000/005"):
        (record / name).parent.mkdir(exist_ok=True)
        (record / name).write_bytes(b"x")
    before = contents(record)
    for options in ((), ("--rebuild",)):
        code, report = fsck(shell, record, *options)
        assert code == 2
        assert {kind for _, kind in found(report)} == {"superfluous"}
        assert len(report["faults"]) == 3
        assert contents(record) == before


def test_a_partial_tile_whose_full_one_is_there_is_no_fault(shell, record):
    (record / "tile/0/000.p").mkdir()
    (record / "tile/0/000.p/9").write_bytes((record / "tile/0/000").read_bytes()[: 9 * 32])
    code, report = fsck(shell, record)
    assert (code, report["leftovers"], report["faults"]) == (0, 1, [])


def test_a_full_tile_stands_in_for_the_partial_one_that_a_checkpoint_asks_for(shell, record, tmp_path):
    async def more() -> None:
        log = open_log(LogDirectory(record, tmp_path / "state"))
        await log.append([b"%d" % number for number in range(100)])
        await log.append([b"last"])
        await log.close()

    old = (record / "checkpoint").read_bytes()
    asyncio.run(more())
    assert not (record / "tile/0/002.p").exists()
    # A mirror may have fetched the checkpoint before, and the tiles after, a full tile replaced the partial ones.
    (record / "checkpoint").write_bytes(old)
    code, report = fsck(shell, record)
    assert (code, report["published"], report["faults"]) == (0, SIZE, [])


def test_show_lists_every_entry(shell, record):
    code, out, err = shell("show", record)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == SIZE
    assert lines[3].split()[:3] == ["3", "session-open", SESSION]
    assert "\x1b" not in out
    assert lines[-1].split()[1:3] == ["unknown", "-"]
    report = json.loads(shell("show", record, "--format", "json")[1])
    assert [each["index"] for each in report["entries"]] == list(range(SIZE))
    assert all(each["published"] for each in report["entries"])


def test_show_marks_what_no_checkpoint_covers_yet(shell, record):
    (record / "checkpoint").unlink()
    assert "not published yet" in shell("show", record)[1]


def test_show_points_to_fsck_where_entries_cannot_be_read(shell, record):
    bundle = record / "tile/entries/001"
    bundle.write_bytes(bundle.read_bytes()[:-1])
    code, out, err = shell("show", record)
    assert (code, out) == (2, "")
    assert f"secagg log fsck {record}" in err


@pytest.mark.parametrize("command", ["fsck", "show"])
def test_what_is_no_directory_is_refused(shell, tmp_path, command):
    code, out, err = shell(command, tmp_path / "nothing")
    assert (code, out) == (2, "")
    assert "is no directory" in err


def test_an_empty_directory_is_no_log(shell, tmp_path):
    code, report = fsck(shell, tmp_path)
    assert (code, found(report)) == (2, {("checkpoint", "missing")})
    assert shell("show", tmp_path)[:2] == (0, "no entries\n")


@pytest.mark.parametrize("command", ["fsck", "show"])
def test_the_help_says_what_it_does_and_shows_an_example(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main.run(["log", command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"secagg log {command}" in text.split("example:")[1]
