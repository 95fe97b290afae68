"""``secagg witness``: set up, served as a process of its own, refused where it must not sign."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from secagg.cli import main
from secagg.crypto.notes import open_checkpoint
from secagg.runtime.clock import SystemClock
from secagg.services.cosigners import HttpCosigners
from secagg.transcript.note import Note, VerifierKey
from secagg.transcript.policy import LogPolicy
from tests.support.witnessed_log import History

LOG = History.of(9)
NAME = "witness.example/w1"


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main.run([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code, out, err = run(capsys, *argv, "--format", "json")
    assert out == ""
    error = json.loads(err)["error"]
    return code, error["kind"], error["reason"]


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    made = tmp_path / "w1"
    arguments = ("--name", NAME, "--listen", "127.0.0.1:0", "--log", LOG.key.to_text(), "--no-passphrase")
    assert run(capsys, "witness", "init", made, *arguments)[0] == 0
    return made


@contextmanager
def served(home: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command as a process, and what it says once it serves."""
    command = [sys.executable, "-m", "secagg.cli.main", "witness", "serve", "--config", home / "witness.toml"]
    process = subprocess.Popen(
        [*map(str, command), "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def cosigned(policy_line: str, history: History, size: int) -> frozenset[bytes]:
    """Who cosigns a checkpoint under a policy of this one line."""
    name = policy_line.split(" ")[1]
    policy = LogPolicy.parse(f"{policy_line}\nquorum {name}\n")
    asking = HttpCosigners(policy, history.key, SystemClock())
    lines = asyncio.run(asking.cosign(Note.parse(history.note(size)), lambda old: history.proof(old, size)))
    note = Note.parse(history.note(size)).with_signatures(lines)
    return open_checkpoint(note.to_bytes(), history.key, policy.witness_keys).public_keys


def test_init_makes_a_private_directory_with_a_key_an_empty_state_and_a_configuration(home):
    assert sorted(path.name for path in home.iterdir()) == ["state", "witness.key", "witness.key.pub", "witness.toml"]
    assert [path.name for path in (home / "state").iterdir()] == ["made"]
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "witness.key").stat().st_mode) == 0o600


def test_init_prints_the_line_for_policies(tmp_path, capsys):
    arguments = ("--name", NAME, "--listen", "127.0.0.1:7000", "--no-passphrase", "--format", "json")
    code, out, _ = run(capsys, "witness", "init", tmp_path / "w1", *arguments)
    made = json.loads(out)
    assert code == 0
    assert made["policy_line"] == f"witness {NAME} {made['vkey']} http://127.0.0.1:7000"
    assert VerifierKey.parse(made["vkey"]).name == NAME


def test_init_overwrites_nothing(home, capsys):
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    for lost in ("witness.toml", "witness.key"):
        (home / lost).rename(home.parent / lost)
        code, kind, reason = refusal(capsys, "witness", "init", home, "--name", NAME, "--no-passphrase")
        assert (code, kind, reason) == (2, "identity-file", "EXISTS")
        (home.parent / lost).rename(home / lost)
    assert before == {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}


def test_init_refuses_a_directory_in_use_that_others_can_read(tmp_path, capsys):
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open" / "notes.txt").touch()
    assert refusal(capsys, "witness", "init", tmp_path / "open", "--name", NAME)[2] == "OPEN_PERMISSIONS"
    assert [path.name for path in (tmp_path / "open").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--name", "two words"), "name"),
        (("--name", NAME, "--url", "witness.example"), "url"),
        (("--name", NAME, "--log", "nonsense"), "ARGUMENTS"),
        (("--name", NAME, "--listen", "here"), "ARGUMENTS"),
        ((), "ARGUMENTS"),
    ],
)
def test_init_refuses_what_does_not_fit_and_makes_nothing(tmp_path, capsys, arguments, reason):
    code, _, found = refusal(capsys, "witness", "init", tmp_path / "w1", *arguments)
    assert (code, found) == (2, reason)
    assert not (tmp_path / "w1").exists()


def test_key_prints_the_line_for_policies_from_the_public_half(tmp_path, capsys):
    arguments = ("--name", NAME, "--listen", "0.0.0.0:7444", "--url", "https://witness.example", "--no-passphrase")
    run(capsys, "witness", "init", tmp_path / "w1", *arguments)
    (tmp_path / "w1" / "witness.key").unlink()
    code, out, _ = run(capsys, "witness", "key", "--config", tmp_path / "w1" / "witness.toml")
    policy = LogPolicy.parse(f"{out}quorum {NAME}\n")
    assert code == 0
    assert (policy.witnesses[0].name, policy.witnesses[0].url) == (NAME, "https://witness.example")


def test_serve_cosigns_at_the_port_it_names_and_ends_in_order(home):
    with served(home) as (process, said):
        assert said["event"] == "serving"
        assert said["address"] == f"127.0.0.1:{said['port']}"
        assert said["url"] == f"http://127.0.0.1:{said['port']}"
        assert said["logs"] == [LOG.origin]
        key = VerifierKey.parse(said["vkey"])
        assert cosigned(said["policy_line"], LOG, 5) == {key.public_key}
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        events = [json.loads(line)["event"] for line in err.splitlines()]
        assert events == ["witness_serving", "witness_answered"]
    with served(home) as (_, said):
        assert cosigned(said["policy_line"], LOG, 9) == {key.public_key}


def refused_to_serve(home: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "secagg.cli.main", "witness", "serve", "--config", home / "witness.toml"]
    ended = subprocess.run(
        [*map(str, command), "--format", "json"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout == ""
    return ended.returncode, json.loads(ended.stderr)["error"]["message"]


def test_serve_refuses_a_state_that_is_gone(home):
    shutil.rmtree(home / "state")
    code, message = refused_to_serve(home)
    assert code == 3
    assert "lost its state" in message
    assert not (home / "state").exists()


def test_serve_refuses_a_state_that_its_key_did_not_sign(home):
    with served(home) as (_, said):
        cosigned(said["policy_line"], LOG, 5)
    (file,) = [path for path in (home / "state").iterdir() if path.name not in {"lock", "made"}]
    file.write_bytes(LOG.note(3))
    code, message = refused_to_serve(home)
    assert code == 3
    assert LOG.origin in message


def test_serve_refuses_a_state_that_another_process_has(home):
    with served(home):
        code, message = refused_to_serve(home)
    assert code == 3
    assert "open already" in message


def test_serve_says_which_address_it_could_not_bind(home, tmp_path, capsys):
    with served(home) as (_, said):
        other = tmp_path / "w2"
        arguments = ("--name", "w2", "--listen", said["address"], "--no-passphrase")
        run(capsys, "witness", "init", other, *arguments)
        code, message = refused_to_serve(other)
    assert code == 3
    assert said["address"] in message


def test_serve_names_the_file_and_key_of_a_wrong_configuration(home, capsys):
    (home / "witness.toml").write_text("listen = 5\n")
    assert refusal(capsys, "witness", "serve", "--config", home / "witness.toml") == (2, "config", "name")
