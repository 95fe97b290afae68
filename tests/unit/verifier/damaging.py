"""Damages a file of a record and says what the command makes of it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from tests.support.forge import COSIGNED_AT_S
from verifier import cli

BAD = {1, 3}
"""What the command may exit with when something is not as it was."""


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
