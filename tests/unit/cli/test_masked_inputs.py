"""``secagg session export-masked-inputs``: what an auditor gets, and what nobody gets."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest

from secagg.cli import main
from secagg.cli.masked_inputs import MANIFEST
from secagg.crypto.signing import SigningKey
from secagg.store.blobs import DirectoryBlobStore
from secagg.store.session_files import SessionDirectory
from secagg.transcript.statements import AdvertiseStatement, ContributionHeader, Signed, Statement
from tests.support.cohort import key_of

SESSION = bytes(range(16))
LANES = 150_000
"""More than is copied at a time."""


def signed(key: SigningKey, statement: Statement) -> bytes:
    return Signed(statement, key.sign_statement(statement.to_bytes())).to_bytes()


def upload(number: int) -> bytes:
    return hashlib.shake_256(b"upload %d" % number).digest(8 * LANES)


def header(number: int) -> bytes:
    key = key_of(f"contributor {number}")
    digest = hashlib.sha256(upload(number)).digest()
    statement = ContributionHeader(bytes(32), bytes(32), key.public_bytes, digest, bytes(32), LANES, missing=())
    return signed(key, statement)


class Operator:
    """A coordinator's directory with one session whose set is closed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        assert main.run(["coordinator", "init", "c", "--no-passphrase"]) == 0
        self.publish([header(number) for number in range(3)])
        self.blobs = DirectoryBlobStore(Path("c/state"))
        for number in range(3):
            self.blobs.put(upload(number))
        self.blobs.put(b"of somebody who was left out")
        capsys.readouterr()

    def publish(self, lines: list[bytes]) -> None:
        SessionDirectory(Path("c/record")).write(SESSION, "contributions.jsonl", [line + b"\n" for line in lines])

    def export(self, *more: str, session: bytes = SESSION, auditor: str = "Ada, example.org") -> tuple[int, dict]:
        """Exit code, and what the command says as JSON: its result, or its error."""
        argv = [
            "session",
            "export-masked-inputs",
            session.hex(),
            "--config",
            "c/coordinator.toml",
            "--auditor",
            auditor,
        ]
        code = main.run([*argv, "--out", "out", "--format", "json", *more])
        captured = self._capsys.readouterr()
        if code:
            assert captured.out == ""
            return code, json.loads(captured.err)["error"]
        assert captured.err == ""
        return code, json.loads(captured.out)


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    monkeypatch.chdir(tmp_path)
    return Operator(capsys)


def test_an_auditor_gets_the_accepted_uploads_by_their_digests_and_nothing_else(operator):
    code, said = operator.export()
    assert code == 0
    found = {path.name: path.read_bytes() for path in Path("out").iterdir() if path.name != MANIFEST}
    assert found == {f"{hashlib.sha256(upload(n)).hexdigest()}.bin": upload(n) for n in range(3)}
    assert (said["files"], said["bytes"], said["auditor"]) == (3, 3 * 8 * LANES, "Ada, example.org")
    assert said["next"] == "secagg-verify check RECORD --policy FILE --level full --masked-inputs out"


def test_who_got_them_is_written_beside_them(operator):
    _, said = operator.export()
    manifest = json.loads((Path("out") / MANIFEST).read_text())
    assert set(manifest) == {"session", "auditor", "exported_at_s", "files"}
    assert manifest.items() <= said.items()
    assert (manifest["session"], manifest["auditor"], manifest["files"]) == (SESSION.hex(), "Ada, example.org", 3)


def test_they_are_for_nobody_else(operator):
    operator.export()
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o700
    Path("open").mkdir(mode=0o755)
    operator.export("--out", "open")
    for file in Path("open").glob("*.bin"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_coordinator_keeps_what_it_has(operator):
    operator.export()
    assert all(operator.blobs.has(hashlib.sha256(upload(number)).digest()) for number in range(3))


@pytest.mark.parametrize("auditor", ["", "  "])
def test_without_a_name_nobody_gets_anything(operator, auditor):
    code, error = operator.export(auditor=auditor)
    assert (code, error["reason"]) == (2, "AUDITOR")
    assert not Path("out").exists()


def test_a_session_that_is_unknown_or_not_closed_is_refused(operator):
    code, error = operator.export(session=bytes(16))
    assert (code, error["reason"]) == (2, "NOT_CLOSED")
    assert not Path("out").exists()


def test_a_directory_that_holds_something_is_not_written_into(operator):
    Path("out").mkdir()
    (Path("out") / "thesis.tex").write_text("years of work")
    code, error = operator.export()
    assert (code, error["reason"]) == (2, "OUT")
    assert [path.name for path in Path("out").iterdir()] == ["thesis.tex"]


def test_after_the_retention_nothing_is_half_exported(operator):
    operator.blobs.delete(hashlib.sha256(upload(2)).digest())
    code, error = operator.export()
    assert (code, error["kind"], error["reason"]) == (2, "store", "DELETED")
    assert key_of("contributor 2").public_bytes.hex() in error["message"]
    assert not Path("out").exists()


def test_a_record_that_is_damaged_is_named_with_its_line(operator):
    stranger = key_of("contributor 0")
    other = AdvertiseStatement(bytes(32), stranger.public_bytes, bytes(32), bytes(32))
    for bad in (b"{}", header(1)[:-1], b"", signed(stranger, other)):
        operator.publish([header(0), bad])
        code, error = operator.export()
        assert (code, error["reason"]) == (2, "RECORD")
        assert "line 2" in error["message"]
        assert not Path("out").exists()
