"""Files that somebody else made: bounded, regular, and inside the record."""

from __future__ import annotations

import hashlib
import os

import pytest

from verifier.checks import CheckFailedError, InputMissingError, Place
from verifier.record_files import RecordFiles


@pytest.fixture
def files(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "list").write_bytes(b"one\ntwo\n")
    return RecordFiles(tmp_path, "record/")


def test_what_is_there_is_read(files):
    assert files.read("below/list", 8) == files.read_exactly("below/list", 8) == b"one\ntwo\n"
    assert list(files.lines("below/list", 3)) == [(1, b"one"), (2, b"two")]
    assert list(files.chunks("below/list", 5)) == [b"one\nt", b"wo\n"]
    assert files.digest("below/list", 8) == hashlib.sha256(b"one\ntwo\n").digest()
    assert files.size("below/list") == 8
    assert list(files.walk("below")) == ["below/list"]
    assert files.exists("below/list")
    assert not files.exists("below/other")
    assert files.below("below").place("list", 2) == Place("record/below/list", 2)


def test_no_more_is_read_than_a_file_may_have(files):
    with pytest.raises(CheckFailedError, match="longer than 7 bytes"):
        files.read("below/list", 7)
    for length in (7, 9):
        with pytest.raises(CheckFailedError, match="8 bytes, expected"):
            files.read_exactly("below/list", length)
    with pytest.raises(CheckFailedError, match="line 1: longer than 2 bytes"):
        list(files.lines("below/list", 2))


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"one", "line 1: no newline at the end"), (b"one\n\ntwo\n", "line 2: empty"), (b"\n", "line 1: empty")],
)
def test_a_list_has_one_form(files, tmp_path, data, reason):
    (tmp_path / "list").write_bytes(data)
    with pytest.raises(CheckFailedError, match=reason):
        list(files.lines("list", 10))


def test_an_empty_list_has_no_lines(files, tmp_path):
    (tmp_path / "list").write_bytes(b"")
    assert list(files.lines("list", 10)) == []


def test_what_is_no_regular_file_below_the_record_is_not_read(files, tmp_path):
    outside = tmp_path.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(outside / "secret")
    (tmp_path / "directory").symlink_to(outside)
    os.mkfifo(tmp_path / "pipe")
    for path in ("link", "directory/secret", "pipe", "below", "missing", "below/list/x"):
        with pytest.raises(InputMissingError) as raised:
            files.read(path, 100)
        assert raised.value.finding.place == Place(f"record/{path}")
        # Nothing of this machine is in what is said of it.
        assert str(tmp_path) not in str(raised.value)
    with pytest.raises(InputMissingError):
        list(files.walk("missing"))


def test_a_deep_tree_is_named_and_not_followed(files, tmp_path):
    path = tmp_path / "tile"
    for _ in range(40):
        path /= "x"
    path.mkdir(parents=True)
    assert list(files.walk("tile")) == ["tile/" + "/".join("x" * 13)]
