"""``secagg attest``: it signs what it added up, and only after every check of the verifier has passed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from secagg.cli import attest, main
from secagg.cli.failures import CommandError
from secagg.crypto.signing import verify_statement
from secagg.identity.keys import KeyKind, create_key_file
from secagg.transcript.entries import OneShotClose
from secagg.transcript.openers import SummedCiphertext
from secagg.transcript.statements import Attestation, Signed
from secagg.v1 import aggregation_pb2 as pb
from secagg.v1 import aggregation_pb2_grpc as pb_grpc
from tests.support.forge import Written
from tests.support.forge_one_shot import attestor_keys
from tests.support.forge_one_shot import key_of as forged_key
from tests.support.forge_one_shot_record import OneShotRecord
from verifier.audit import Audit
from verifier.checks import Level
from verifier.log_view import session_entries
from verifier.policy import load_policy
from verifier.record_files import RecordFiles
from verifier.session_record import SessionRecord


class KeySeed:
    """Gives the seed of a forged key to whoever makes a key file."""

    def __init__(self, name: str) -> None:
        self._seed = hashlib.sha256(f"forged key of {name}".encode()).digest()

    def bytes(self, count: int) -> bytes:
        assert count == len(self._seed)
        return self._seed


def closed_record(directory: Path) -> Written:
    """A record of a session with a key authority, up to its close entry."""
    forge = OneShotRecord()
    return forge.play(forge.authority, "open", "commit", "close").write(directory)


@pytest.fixture
def record(tmp_path: Path) -> Written:
    return closed_record(tmp_path / "published")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "attestor.key"
    public = create_key_file(path, KeyKind.ATTESTOR, None, KeySeed("attestor 0"))
    assert public == attestor_keys()[0].public_bytes
    return path


def session_of(record: Written) -> str:
    return record.forge.authority.session_id.hex()


def run(capsys: pytest.CaptureFixture[str], record: Written, key: Path, *more: object) -> tuple[int, str, str]:
    options = ("--session", session_of(record), "--key", key, "--policy", record.policy)
    code = main.run([str(each) for each in ("attest", record.record, *options, "--format", "json", *more)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def reason_of(err: str) -> str:
    return json.loads(err.splitlines()[-1])["error"]["reason"]


def ciphertexts(record: Written) -> list[Path]:
    return sorted((record.record / "sessions" / session_of(record) / "ciphertexts").iterdir())


def test_it_signs_the_sum_of_the_ciphertexts_of_a_record_in_order(
    tmp_path: Path, record: Written, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "attestation.json"
    code, said, report = run(capsys, record, key, "--out", out)
    assert code == 0, report
    signed = Signed.from_bytes(out.read_bytes().removesuffix(b"\n"))
    forge = record.forge.authority
    assert isinstance(forge.closing.opener, SummedCiphertext)
    assert signed.statement == Attestation(
        hashlib.sha256(forge.parameters.to_bytes()).digest(),
        hashlib.sha256(forge.closing.to_bytes()).digest(),
        attestor_keys()[0].public_bytes,
        forge.closing.opener.digest,
    )
    verify_statement(signed.statement.identity, signed.statement.to_bytes(), signed.signature)
    assert json.loads(said)["attestor"] == attestor_keys()[0].public_bytes.hex()
    assert "SUM-8" in report


def damaged(record: Written) -> None:
    path = ciphertexts(record)[0]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))


def missing(record: Written) -> None:
    ciphertexts(record)[0].unlink()


@pytest.mark.parametrize(("damage", "status"), [(damaged, 1), (missing, 3)])
def test_it_signs_nothing_if_a_check_fails_or_cannot_be_made(
    tmp_path: Path, record: Written, key: Path, capsys: pytest.CaptureFixture[str], damage: object, status: int
) -> None:
    damage(record)
    out = tmp_path / "attestation.json"
    code, said, err = run(capsys, record, key, "--out", out)
    assert (code, said) == (status, "")
    assert "nothing was signed" in err
    assert not out.exists()


def test_it_signs_nothing_of_a_session_that_is_not_closed(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge = OneShotRecord()
    record = forge.play(forge.authority, "open", "commit").write(tmp_path / "published")
    code, said, _ = run(capsys, record, key, "--out", tmp_path / "attestation.json")
    assert (code, said) == (3, "")


def test_it_signs_nothing_that_another_than_the_sessions_attestors_would_sign(
    tmp_path: Path, record: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = tmp_path / "stranger.key"
    create_key_file(stranger, KeyKind.ATTESTOR, None, KeySeed("stranger"))
    out = tmp_path / "attestation.json"
    code, _, err = run(capsys, record, stranger, "--out", out)
    assert (code, reason_of(err)) == (2, "NOT_AN_ATTESTOR")
    assert not out.exists()


def test_a_key_of_another_kind_does_not_attest(
    tmp_path: Path, record: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "registrar.key"
    create_key_file(other, KeyKind.REGISTRAR, None, KeySeed("attestor 0"))
    code, _, err = run(capsys, record, other, "--out", tmp_path / "attestation.json")
    assert (code, reason_of(err)) == (2, "WRONG_KIND")


def test_a_session_of_a_committee_has_nothing_to_attest(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge = OneShotRecord()
    record = forge.play(forge.main, "open", "close").write(tmp_path / "published")
    options = ("--session", forge.main.session_id.hex(), "--key", key, "--policy", record.policy)
    code = main.run([str(each) for each in ("attest", record.record, *options, "--out", tmp_path / "a")])
    assert code == 2
    assert "not opened by a key authority" in capsys.readouterr().err


@pytest.mark.parametrize("missing_part", ["record", "policy", "out"])
def test_what_cannot_be_used_is_said_before_anything_is_checked(
    tmp_path: Path, record: Written, key: Path, capsys: pytest.CaptureFixture[str], missing_part: str
) -> None:
    more: tuple[object, ...] = ("--out", tmp_path / "attestation.json")
    if missing_part == "record":
        record = replace(record, record=tmp_path / "nowhere")
    elif missing_part == "policy":
        record = replace(record, policy=tmp_path / "nowhere.toml")
    else:
        more = ()
    code, said, err = run(capsys, record, key, *more)
    assert (code, said) == (2, "")
    assert reason_of(err) == {"record": "RECORD", "policy": "POLICY", "out": "ARGUMENTS"}[missing_part]


def test_an_attestation_is_never_overwritten(
    tmp_path: Path, record: Written, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "attestation.json"
    out.write_bytes(b"kept")
    assert run(capsys, record, key, "--out", out)[0] == 2
    assert out.read_bytes() == b"kept"


@pytest.mark.parametrize("damage", [damaged, missing])
def test_a_record_that_changes_after_the_checks_is_not_signed(record: Written, damage: object) -> None:
    audit = Audit(RecordFiles(record.record), load_policy(record.policy), Level.PREOPEN, 1_700_000_500)
    session = SessionRecord(audit, session_entries(audit, record.forge.authority.session_id))
    assert attest.attestation(session, attestor_keys()[0]).statement.identity == attestor_keys()[0].public_bytes
    damage(record)
    with pytest.raises(CommandError) as caught:
        attest.attestation(session, attestor_keys()[0])
    assert caught.value.reason == "RECORD_CHANGED"


def test_a_close_that_binds_another_sum_is_not_signed_whatever_was_checked_before(tmp_path: Path) -> None:
    def another(entry: OneShotClose, _forge: object) -> OneShotClose:
        return replace(entry, opener=SummedCiphertext(bytes(32)))

    forge = OneShotRecord({"authority.close": another})
    record = forge.play(forge.authority, "open", "commit", "close").write(tmp_path / "published")
    audit = Audit(RecordFiles(record.record), load_policy(record.policy), Level.PREOPEN, 1_700_000_500)
    session = SessionRecord(audit, session_entries(audit, record.forge.authority.session_id))
    assert session.one_shot_close.opener == SummedCiphertext(bytes(32))
    with pytest.raises(CommandError) as caught:
        attest.attestation(session, attestor_keys()[0])
    assert caught.value.reason == "RECORD_CHANGED"


class Taking(pb_grpc.AggregationServiceServicer):
    """A coordinator that keeps what it is sent."""

    def __init__(self) -> None:
        self.taken: list[pb.AttestRequest] = []

    async def Attest(self, request: pb.AttestRequest, context: object) -> pb.AttestResponse:  # noqa: N802
        self.taken.append(request)
        return pb.AttestResponse()


@contextmanager
def coordinator() -> Iterator[tuple[Taking, int]]:
    """One on a loopback address, in a thread of its own: the command runs an event loop itself."""
    servicer, loop = Taking(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        pb_grpc.add_AggregationServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield servicer, port
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_it_is_delivered_to_the_coordinator_of_a_client_configuration(
    tmp_path: Path, record: Written, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with coordinator() as (servicer, port):
        client = tmp_path / "client.toml"
        client.write_text(
            f'coordinator = "127.0.0.1:{port}"\ncoordinator_key = "{forged_key("coordinator").public_bytes.hex()}"\n'
            'identity_key_file = "identity.key"\nstate_directory = "state"\ntransport = "loopback-plaintext"\n'
        )
        code, said, err = run(capsys, record, key, "--client", client)
    assert code == 0, err
    (request,) = servicer.taken
    assert request.session == record.forge.authority.session_id
    assert Signed.from_bytes(request.signed).statement.identity == attestor_keys()[0].public_bytes
    assert json.loads(said)["to"] == [f"127.0.0.1:{port}"]
