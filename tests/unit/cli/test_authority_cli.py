"""``secagg authority``: set up, served as a process of its own, refused where it must not open anything."""

from __future__ import annotations

import json
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from secagg.cli import main
from secagg.identity.authority_config import AuthorityConfig
from secagg.identity.cards import AuthorityCard, load_card
from secagg.identity.keys import KeyKind, load_public_key
from secagg.runtime.member_ports import OpeningLine
from secagg.store.authority_state import JOURNAL_FILE
from secagg.store.opening_journal import FileOpeningJournal
from tests.support.one_shot import WITNESSED

ATTESTORS = [bytes([number]).hex() * 32 for number in (1, 2)]
WITHOUT_TENSEAL = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tenseal":
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
from secagg.cli import main
sys.exit(main.run(sys.argv[1:]))
"""


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main.run([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def init(capsys: pytest.CaptureFixture[str], home: Path, *more: object) -> tuple[int, str, str]:
    named = [part for key in ATTESTORS for part in ("--attestor", key)]
    return run(capsys, "authority", "init", home, "--name", "A", "--no-passphrase", "--format", "json", *named, *more)


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    made = tmp_path / "authority"
    policy = tmp_path / "log.policy"
    policy.write_text(WITNESSED.to_text())
    code, _, _ = init(capsys, made, "--listen", "127.0.0.1:0", "--address", "localhost:7446", "--log-policy", policy)
    assert code == 0
    return made


def test_init_makes_key_certificate_configuration_card_and_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "authority"
    key = bytes(32).hex()
    code, out, err = init(capsys, home, "--coordinator", key, "--attestations", 1, "--min-contributors", 5)
    assert code == 0
    said = json.loads(out)
    card = load_card(home / "authority.card")
    assert isinstance(card, AuthorityCard)
    assert card.identity.hex() == said["identity"]
    assert card.identity == load_public_key(home / "authority.key.pub", KeyKind.KEY_AUTHORITY)
    assert (card.address, card.attestations) == ("localhost:7446", 1)
    assert [each.hex() for each in card.attestors] == ATTESTORS
    assert card.certificate == (home / "tls.crt").read_text()
    config = AuthorityConfig.load(home / "authority.toml")
    assert (config.attestations, config.min_contributors) == (1, 5)
    assert config.coordinators == {bytes(32)}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "authority.key").stat().st_mode) == 0o600
    assert "log_policy is missing" in err


def test_init_overwrites_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (home / "authority.key").read_bytes()
    code, out, err = init(capsys, home)
    assert (code, out) == (2, "")
    assert json.loads(err.splitlines()[-1])["error"]["reason"] == "EXISTS"
    assert (home / "authority.key").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--listen", "127.0.0.1:0"), "ADDRESS"),
        (("--attestations", 3), "attestations"),
        (("--min-contributors", 1), "min_contributors"),
        (("--log-policy", "missing.policy"), "MISSING"),
        (("--host", "Not A Host"), "HOST"),
    ],
)
def test_init_makes_nothing_of_what_cannot_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[object, ...], reason: str
) -> None:
    code, _, err = init(capsys, tmp_path / "authority", *more)
    assert code == 2
    assert json.loads(err.splitlines()[-1])["error"]["reason"] == reason
    assert not (tmp_path / "authority").exists()


def test_without_an_attestor_there_is_no_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "authority", "init", tmp_path / "authority", "--name", "A", "--no-passphrase")
    assert code == 2
    assert "--attestor" in err


def test_serve_says_where_and_ends_in_order(home: Path) -> None:
    command = [sys.executable, "-m", "secagg.cli.main", "authority", "serve", "--config", str(home / "authority.toml")]
    process = subprocess.Popen(
        [*command, "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    assert said["event"] == "serving"
    assert said["identity"] == load_public_key(home / "authority.key.pub", KeyKind.KEY_AUTHORITY).hex()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["serving", "stopped"]


def test_serve_without_tenseal_says_what_to_install(home: Path) -> None:
    arguments = ["authority", "serve", "--config", str(home / "authority.toml"), "--format", "json"]
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSEAL, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    error = json.loads(finished.stderr)["error"]
    assert (error["kind"], error["reason"]) == ("config", "TENSEAL")
    assert 'pip install "secagg-lora[he]"' in error["message"]


def test_serve_refuses_a_copy_of_its_state(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(home / "state", home / "copy")
    shutil.rmtree(home / "state")
    (home / "copy").rename(home / "state")
    code, out, err = run(capsys, "authority", "serve", "--config", home / "authority.toml", "--format", "json")
    assert (code, out) == (2, "")
    assert "--restored" in json.loads(err.splitlines()[-1])["error"]["message"]


def test_serve_accepts_it_when_told_that_it_was_restored_but_not_without_a_store_that_is_whole(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(home / "state")
    (home / "state").mkdir(mode=0o700)
    (home / "state" / "sessions.db").write_bytes(b"no database")
    config = home / "authority.toml"
    code, out, _ = run(capsys, "authority", "serve", "--config", config, "--restored", "--format", "json")
    assert (code, out) == (3, "")
    assert run(capsys, "authority", "serve", "--config", config)[0] == 2


def test_log_shows_what_was_opened_and_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "authority", "log", "--config", home / "authority.toml")[1].startswith("nothing was opened")
    journal = FileOpeningJournal(home / "state" / JOURNAL_FILE)
    journal.add(OpeningLine(1_700_000_000, b"s" * 16, b"c" * 32, 6, "ANSWERED", "answered"))
    journal.add(OpeningLine(1_700_000_001, b"t" * 16, b"", 0, "NOT_SERVED", "not here"))
    code, out, _ = run(capsys, "authority", "log", "--config", home / "authority.toml", "--format", "json")
    assert code == 0
    opened = json.loads(out)["opened"]
    assert [(each["session"], each["outcome"]) for each in opened] == [
        ((b"s" * 16).hex(), "ANSWERED"),
        ((b"t" * 16).hex(), "NOT_SERVED"),
    ]
    text = run(capsys, "authority", "log", "--config", home / "authority.toml")[1]
    assert "2023-11-14T22:13:20+00:00" in text
    assert "none that holds" in text


def test_a_configuration_that_does_not_fit_names_its_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "authority.toml"
    path.write_text(path.read_text().replace("attestations = 2", "attestations = 9"))
    code, _, err = run(capsys, "authority", "log", "--config", path, "--format", "json")
    assert code == 2
    assert json.loads(err)["error"]["reason"] == "attestations"
