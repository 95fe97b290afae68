"""``secagg committee``: set up, served as a process of its own, asked what it opened."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from secagg.cli import main
from secagg.identity.cards import MemberCard, load_card
from secagg.institutions import GrpcMember
from secagg.protocol.errors import RejectReason, RemoteProtocolError
from secagg.runtime.member_ports import ANSWERED, OpeningLine
from secagg.store.opening_journal import FileOpeningJournal
from tests.support import one_shot

COORDINATOR = one_shot.COORDINATOR.public_bytes.hex()


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main.run([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code, out, err = run(capsys, *argv, "--format", "json")
    assert out == ""
    error = json.loads(err.splitlines()[-1])["error"]
    return code, error["kind"], error["reason"]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    made = tmp_path / "member"
    arguments = ("--name", "Institute A", "--listen", f"127.0.0.1:{free_port()}", "--coordinator", COORDINATOR)
    assert run(capsys, "committee", "init", made, *arguments, "--no-passphrase")[0] == 0
    return made


@contextmanager
def served(home: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command as a process, and what it says once it serves."""
    command = [sys.executable, "-m", "secagg.cli.main", "committee", "serve", "--config", home / "committee.toml"]
    process = subprocess.Popen(
        [*map(str, command), *options, "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def joined(card: MemberCard, opened_at_s: int) -> RejectReason | None:
    """Why the member at this card does not join a session whose committee it stands in, if it does not."""
    from secagg.transcript.openers import Committee, CommitteeMember

    async def join() -> None:
        port = GrpcMember(card, 20.0)
        try:
            others = one_shot.committee_of().members[1:]
            member = CommitteeMember("Institute A", card.identity, card.sealing_key, card.binding)
            session = one_shot.session_of(
                one_shot.contributor_keys(4), opening=Committee((member, *others), 3, 1), opened_at_s=opened_at_s
            )
            evidence = one_shot.evidence_of(session, witnesses=())
            await port.join(session.parameters.session, one_shot.shown_files(session, evidence))
        finally:
            await port.close()

    try:
        asyncio.run(join())
    except RemoteProtocolError as error:
        return error.reason
    return None


def test_init_makes_a_private_directory_with_all_that_a_member_needs(home: Path) -> None:
    names = ["committee.key", "committee.key.pub", "committee.toml", "member.card", "state", "tls.crt", "tls.key"]
    assert sorted(path.name for path in home.iterdir()) == names
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "committee.key").stat().st_mode) == 0o600


def test_the_card_holds_what_coordinators_need(home: Path, capsys) -> None:
    card = load_card(home / "member.card")
    assert isinstance(card, MemberCard)
    assert card.name == "Institute A"
    assert card.address.startswith("localhost:")
    assert card.certificate == (home / "tls.crt").read_text()
    assert card.identity.hex() in (home / "committee.key.pub").read_text()


def test_init_says_what_is_still_open(tmp_path: Path, capsys) -> None:
    _, _, err = run(capsys, "committee", "init", tmp_path / "m", "--name", "A", "--no-passphrase")
    for word in ("no coordinator is served", "no registrar is named", "no witnesses are named"):
        assert word in err


def test_a_key_with_a_passphrase_gives_the_same_card_as_its_public_half(tmp_path: Path, capsys) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    code, out, _ = run(
        capsys, "committee", "init", tmp_path / "m", "--name", "A", "--passphrase-file", secret, "--format", "json"
    )
    assert code == 0
    assert load_card(tmp_path / "m" / "member.card").identity.hex() == json.loads(out)["identity"]


def test_init_overwrites_nothing(home: Path, capsys) -> None:
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    for lost in ("committee.toml", "committee.key", "member.card"):
        (home / lost).rename(home.parent / lost)
        result = refusal(capsys, "committee", "init", home, "--name", "A", "--no-passphrase")
        assert result == (2, "identity-file", "EXISTS")
        (home.parent / lost).rename(home / lost)
    assert before == {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--name", ""), "name"),
        (("--name", "A", "--listen", "127.0.0.1:0"), "ADDRESS"),
        (("--name", "A", "--listen", "0.0.0.0:7445"), "HOST"),
        (("--name", "A", "--host", "TWO WORDS"), "HOST"),
        (("--name", "A", "--min-contributors", "1"), "min_contributors"),
        (("--name", "A", "--coordinator", "ab"), "ARGUMENTS"),
        (("--name", "A", "--log-policy", "/no/such/file"), "MISSING"),
        ((), "ARGUMENTS"),
    ],
)
def test_init_refuses_what_does_not_fit_and_makes_nothing(tmp_path: Path, capsys, arguments, reason) -> None:
    code, _, found = refusal(capsys, "committee", "init", tmp_path / "m", *arguments)
    assert (code, found) == (2, reason)
    assert not (tmp_path / "m").exists()


def test_serve_answers_at_the_card_s_address_and_ends_in_order(home: Path) -> None:
    card = load_card(home / "member.card")
    with served(home) as (process, said):
        assert said["event"] == "serving"
        assert said["identity"] == card.identity.hex()
        assert joined(card, one_shot.NOW_S) is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        events = [json.loads(line)["event"] for line in err.splitlines()]
        assert events == ["serving", "session_joined", "stopped"]


def test_a_state_from_a_backup_is_refused_with_the_way_out_and_served_with_restored(home: Path, capsys) -> None:
    card = load_card(home / "member.card")
    shutil.copytree(home / "state", home.parent / "backup")
    shutil.rmtree(home / "state")
    shutil.copytree(home.parent / "backup", home / "state")
    command = [sys.executable, "-m", "secagg.cli.main", "committee", "serve", "--config", home / "committee.toml"]
    refused = subprocess.run(
        [*map(str, command), "--format", "json"], check=False, capture_output=True, text=True, timeout=60
    )
    error = json.loads(refused.stderr)["error"]
    assert (refused.returncode, error["kind"], error["reason"]) == (2, "store", "STALE")
    assert "--restored" in error["message"]
    with served(home, "--restored") as (_, said):
        assert said["abandoned"] == 0
        assert joined(card, one_shot.NOW_S) is RejectReason.OPENED_BEFORE
    with served(home) as (_, said):
        assert "abandoned" not in said
        assert joined(card, one_shot.NOW_S) is RejectReason.OPENED_BEFORE


def test_an_address_in_use_is_said(home: Path, capsys) -> None:
    address = load_card(home / "member.card").address
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        listening.listen()
        code, kind, reason = refusal(capsys, "committee", "serve", "--config", home / "committee.toml")
    assert (kind, reason) == ("unavailable", "ADDRESS_IN_USE")
    assert code == 3


def test_log_shows_what_was_opened_and_what_was_refused_in_words(home: Path, capsys) -> None:
    config = ("--config", home / "committee.toml")
    assert run(capsys, "committee", "log", *config)[1] == "nothing was opened, and nothing refused\n"
    journal = FileOpeningJournal(home / "state" / "opened.jsonl")
    journal.add(OpeningLine(1_700_000_000, b"s" * 16, b"", 3, "LOG_UNWITNESSED", RejectReason.LOG_UNWITNESSED.value))
    journal.add(OpeningLine(1_700_000_001, b"s" * 16, b"c" * 32, 5, ANSWERED, "answered"))
    _, out, _ = run(capsys, "committee", "log", *config)
    for text in ("2023-11-14T22:13:20", RejectReason.LOG_UNWITNESSED.value, "none that holds", (b"c" * 32).hex()):
        assert text in out
    _, out, _ = run(capsys, "committee", "log", *config, "--format", "json")
    assert [line["outcome"] for line in json.loads(out)["opened"]] == ["LOG_UNWITNESSED", ANSWERED]


def test_a_configuration_that_does_not_fit_is_named(home: Path, capsys) -> None:
    path = home / "committee.toml"
    path.write_text(path.read_text() + "\nverify = false\n")
    assert refusal(capsys, "committee", "log", "--config", path) == (2, "config", "tls.verify")
