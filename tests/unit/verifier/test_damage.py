"""Whatever byte of a record is flipped, cut or added: the verifier fails or says what is missing, and never raises.

Every file is damaged in turn and at many places, at level full, so that whatever a check reads is in what is damaged.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.forge import COSIGNED_AT_S, write_record
from verifier import cli

BAD = {1, 3}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def files(written):
    """Every file that is read: of the record, the masked inputs of those in a sum, and the receipt."""
    found = [path for path in sorted(written.record.rglob("*")) if path.is_file()]
    for session in written.forge.sessions:
        for index in getattr(session, "accepted", ()):
            digest = hashlib.sha256(session.uploads[index].tobytes()).hexdigest()
            found.append(written.masked_inputs / f"{digest}.bin")
    return [*found, written.receipt]


def exit_code(written, capsys):
    """What the command says of the record as it lies there."""
    arguments = ["check", written.record, "--policy", written.policy, "--level", "full", "--now", COSIGNED_AT_S + 60]
    arguments += ["--masked-inputs", written.masked_inputs, "--receipt", written.receipt]
    code = cli.run([str(argument) for argument in arguments])
    capsys.readouterr()
    return code


def after(path: Path, data: bytes, written, capsys):
    """The exit code while a file has other content."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        return exit_code(written, capsys)
    finally:
        path.write_bytes(before)


def damage(draw, data: bytes) -> bytes:
    """Other bytes than ``data``: one flipped, some cut or put in somewhere, or swapped with what is behind them."""
    kind = draw(st.sampled_from(["flip", "flip", "cut", "insert", "truncate", "append", "swap"]))
    # Half of all places are near an end, where lengths and newlines are.
    last = max(len(data) - 1, 0)
    place = draw(st.one_of(st.integers(0, last), st.sampled_from([0, last])))
    some = draw(st.binary(min_size=1, max_size=4))
    match kind:
        case "flip" if data:
            return data[:place] + bytes([data[place] ^ draw(st.integers(1, 255))]) + data[place + 1 :]
        case "cut" if data:
            return data[:place] + data[place + len(some) :]
        case "truncate" if data:
            return data[:place]
        case "swap" if data[place : place + 1] != data[place + 1 : place + 2] != b"":
            return data[:place] + data[place + 1 : place + 2] + data[place : place + 1] + data[place + 2 :]
        case "insert":
            return data[:place] + some + data[place:]
        case _:
            return data + some


def test_the_record_is_clean_as_it_is(written, capsys):
    assert exit_code(written, capsys) == 0


def test_every_file_that_is_there_is_needed(written, files, capsys):
    kept = written.record.parent / "kept"
    for path in files:
        if path == written.receipt:
            continue
        shutil.move(path, kept)
        try:
            assert exit_code(written, capsys) in BAD, path
        finally:
            shutil.move(kept, path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\x00", b"{}\n", b"[" * 100_000, b"\xff" * 70_000])
def test_every_file_may_hold_anything_at_all(written, files, content, capsys):
    for path in files:
        if path.read_bytes() != content:
            # What does not even begin as a receipt is a mistake of whoever gave it.
            assert after(path, content, written, capsys) in ({2} if path == written.receipt else BAD), path


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_any_file_is_noticed(written, files, capsys, data):
    path = data.draw(st.sampled_from(files))
    before = path.read_bytes()
    damaged = damage(data.draw, before)
    if damaged != before:
        first_line = before.split(b"\n")[0] + b"\n"
        no_receipt = path == written.receipt and not damaged.startswith(first_line)
        assert after(path, damaged, written, capsys) in ({2} if no_receipt else BAD)
