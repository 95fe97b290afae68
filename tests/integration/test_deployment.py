"""The deployment of the README, for real: every party a process, every step a command."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from secagg.arith.quantiser import clip
from secagg.crypto.notes import witness_key
from secagg.lora.factor_merging import adapter_to_vector
from secagg.lora.reader import read_adapter
from tests.support.service import EXAMPLES, tiny_adapter

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("alice", "bob", "carol")
WITNESS_OF_NOBODY = witness_key("w2.example", bytes(31) + b"\x01").to_text()
_COMMAND_S = 60.0
_STOP_S = 10.0


class Site:
    """A directory in which commands are run, and what still runs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command; its output is JSON."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        process = subprocess.Popen(
            [sys.executable, "-m", "secagg.cli.main", *argv, "--format", "json"],
            cwd=self.home, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], code: int = 0) -> tuple[list[dict], list[dict]]:
        """Wait for a command; the objects on its stdout and on its stderr."""
        out, err = process.communicate(timeout=_COMMAND_S)
        self.running.remove(process)
        assert process.returncode == code, f"{process.args}: {out}{err}"
        return [json.loads(line) for line in out.splitlines()], [json.loads(line) for line in err.splitlines()]

    def run(self, *argv: str) -> dict:
        """Run a command to its end; the one object it prints."""
        out, _ = self.finish(self.start(*argv))
        assert len(out) == 1
        return out[0]

    def refusal(self, code: int, *argv: str) -> dict:
        """Run a command that fails; the one error it prints."""
        out, err = self.finish(self.start(*argv), code)
        assert out == []
        assert set(err[-1]) == {"error"}
        return err[-1]["error"]


class Deployment(Site):
    """A witness, a coordinator that serves and asks it, a registrar, three contributors on a signed roster."""

    coordinator: subprocess.Popen[str]
    witness: subprocess.Popen[str]
    key: str
    fingerprint: str
    registrar: str

    def set_up(self) -> None:
        made = self.run(
            "coordinator", "init", "c", "--listen", "127.0.0.1:0", "--origin", "aggregator.example/secagg",
            "--no-passphrase",
        )  # fmt: skip
        self.key, self.fingerprint = made["coordinator_key"], made["tls_fingerprint"]
        self.log_line = made["log_line"]
        self.registrar = self.run("identity", "new", "registrar.key", "--kind", "registrar", "--no-passphrase")[
            "public_key"
        ]
        for name in NAMES:
            self.run("identity", "new", f"{name}.key", "--no-passphrase")
        self.run("roster", "add", "roster", *(f"{name}.key.pub" for name in NAMES))
        self.run("roster", "sign", "roster", "--key", "registrar.key")
        self.find_witness()
        self.serve()

    def find_witness(self) -> None:
        """Run a witness of the log, and name it in the policy of everybody."""
        log_key = self.log_line.removeprefix("log ")
        self.run(
            "witness", "init", "w1", "--name", "w1.example", "--listen", "127.0.0.1:0", "--log", log_key,
            "--no-passphrase",
        )  # fmt: skip
        self.witness = self.start("witness", "serve", "--config", "w1/witness.toml")
        assert self.witness.stdout is not None
        line = json.loads(self.witness.stdout.readline())["policy_line"]
        (self.home / "policy").write_text(f"{self.log_line}\n{line}\nquorum w1.example\n", encoding="utf-8")
        config = self.home / "c" / "coordinator.toml"
        text = config.read_text(encoding="utf-8")
        assert text.count('# witnesses = "witnesses.policy"') == 1
        config.write_text(text.replace('# witnesses = "witnesses.policy"', 'witnesses = "../policy"'))

    def verify(self, *argv: str) -> tuple[int, str]:
        """Run the verifier; its exit code and its report."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        command = [sys.executable, "-m", "verifier", "check", "c/record", "--policy", "policy.toml", *argv]
        done = subprocess.run(
            command, cwd=self.home, env=environment, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def serve(self) -> None:
        self.coordinator = self.start("coordinator", "serve", "--config", "c/coordinator.toml")
        assert self.coordinator.stdout is not None
        serving = json.loads(self.coordinator.stdout.readline())
        assert serving["event"] == "serving"
        assert (serving["coordinator_key"], serving["tls_fingerprint"]) == (self.key, self.fingerprint)
        client = self.home / "client.toml"
        client.unlink(missing_ok=True)
        self.run(
            "client", "init", "client.toml", "--registrar", self.registrar, "--log-policy", "policy",
            *self.options(serving["port"]),
        )  # fmt: skip

    def options(self, port: int, key: str = "", fingerprint: str = "") -> tuple[str, ...]:
        self.port = port
        return (
            "--coordinator", f"localhost:{port}",
            "--coordinator-key", key or self.key,
            "--tls-fingerprint", fingerprint or self.fingerprint,
        )  # fmt: skip

    def stop(self) -> list[dict]:
        """SIGTERM; the coordinator's log."""
        self.coordinator.send_signal(signal.SIGTERM)
        out, err = self.coordinator.communicate(timeout=_STOP_S)
        self.running.remove(self.coordinator)
        assert (self.coordinator.returncode, out) == (0, ""), err
        return [json.loads(line) for line in err.splitlines()]

    def open_session(self, adapter: Path, *more: str) -> dict:
        return self.run(
            "session", "open", "--config", "c/coordinator.toml", "--roster", "roster",
            "--adapter", str(adapter), "--min-contributors", "3", "--merge", "factors", *more,
        )  # fmt: skip

    def contribute(self, name: str, adapter: Path, session: str, *more: str) -> subprocess.Popen[str]:
        return self.start(
            "contribute", str(adapter), "--session", session, "--identity", f"{name}.key", "--config", "client.toml",
            *more,
        )  # fmt: skip


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    # Not tmp_path: the path of the operator's socket has to be short.
    with tempfile.TemporaryDirectory(prefix="secagg-") as home:
        site = Deployment(Path(home))
        try:
            site.set_up()
            yield site
        finally:
            for process in site.running:
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=_STOP_S)


def vector_of(directory: Path) -> np.ndarray:
    adapter = read_adapter(directory, None)
    return adapter_to_vector(adapter, adapter.layout)


def test_three_contributors_in_processes_of_their_own_add_up_their_adapters(deployment):
    adapters = [EXAMPLES / str(number) for number in (1, 2, 3)]
    opened = deployment.open_session(adapters[0])
    session = opened["session"]
    assert opened["full_roster"] == {"cohort": 3, "degree": 2, "threshold": 2}
    assert opened["upload_bytes"] > 0
    watching = deployment.start("session", "watch", session, "--config", "client.toml")
    contributing = [
        deployment.contribute(name, adapter, session, *(["--out", "merged"] if name == "alice" else []))
        for name, adapter in zip(NAMES, adapters, strict=True)
    ]
    for name, adapter, process in zip(NAMES, adapters, contributing, strict=True):
        [result], progress = deployment.finish(process)
        assert (result["session"], result["contributors"], result["clamped"]) == (session, 3, 0)
        assert result["norm"] == pytest.approx(float(np.linalg.norm(vector_of(adapter))), rel=1e-5)
        shown = progress[0]["progress"]
        assert deployment.registrar in shown["registrar"]
        assert "pinned" in shown["registrar"]
        assert [line["progress"] for line in progress[1:]][-1] == "the sum is published"
        receipt = json.loads(Path(result["receipt"]).read_text(encoding="utf-8"))
        public = deployment.run("identity", "show", f"{name}.key")["public_key"]
        assert (receipt["session"], receipt["identity"]) == (session, public)
        assert len(bytes.fromhex(receipt["signature"])) == 64

    statuses, errors = deployment.finish(watching)
    assert errors == []
    assert [status["session"] for status in statuses] == [session] * len(statuses)
    assert statuses[-1]["phase"] == "finished"

    fetched = deployment.run("session", "result", session, "--out", "fetched", "--config", "client.toml")
    assert fetched == {"session": session, "contributors": 3, "merged": "fetched", "quality": None}
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (deployment.home / "merged" / name).read_bytes() == (deployment.home / "fetched" / name).read_bytes()
    clip_norm = Fraction(opened["clip_norm"])
    mean = np.mean([clip(vector_of(adapter), clip_norm)[0].astype(np.float64) for adapter in adapters], axis=0)
    difference = np.abs(vector_of(deployment.home / "merged") - mean).max()
    assert difference <= opened["quantisation_step"]

    shown = deployment.run("session", "show", session, *deployment.options(deployment.port))
    assert (shown["phase"], shown["registrar_pinned"], shown["abort_reason"]) == ("finished", False, None)
    listed = deployment.run("session", "list", "--config", "client.toml")
    assert listed == {"sessions": [{"session": session, "phase": "finished"}]}
    [again], _ = deployment.finish(deployment.contribute("alice", adapters[0], session))
    assert again["contributors"] == 3

    check_the_record(deployment, session)
    log = deployment.stop()
    assert {"serving", "session_opened", "stopped"} <= {line["event"] for line in log}
    assert not (deployment.home / "c" / "state" / "operator.sock").exists()
    deployment.witness.send_signal(signal.SIGTERM)
    deployment.finish(deployment.witness)
    assert deployment.running == []
    assert deployment.refusal(3, "session", "list", "--config", "client.toml")["reason"] == "UNREACHABLE"


def check_the_record(deployment: Deployment, session: str) -> None:
    """What contributors keep, and what an auditor does with the coordinator's directory while it serves on."""
    config = ("--config", "client.toml")
    public = {name: deployment.run("identity", "show", f"{name}.key")["public_key"] for name in NAMES}
    for name in NAMES:
        kept = deployment.run("receipt", session, "--out", f"{name}.receipt", "--public-key", public[name], *config)
        assert (kept["identity"], kept["session"], kept["log_index"]) == (public[name], session, 4)
    before = (deployment.home / "alice.receipt").read_bytes()
    again = ("receipt", session, "--out", "alice.receipt", "--public-key", public["bob"], *config)
    assert deployment.refusal(2, *again)["reason"] == "EXISTS"
    assert (deployment.home / "alice.receipt").read_bytes() == before
    stranger = ("receipt", session, "--out", "other.receipt", "--public-key", deployment.registrar, *config)
    assert deployment.refusal(1, *stranger)["reason"] == "LEFT_OUT"
    assert not (deployment.home / "other.receipt").exists()

    exported = deployment.run(
        "session", "export-masked-inputs", session, "--config", "c/coordinator.toml", "--auditor", "Ada",
        "--out", "masked",
    )  # fmt: skip
    assert exported["files"] == len(NAMES)
    fsck = deployment.run("log", "fsck", "c/record")
    assert (fsck["published"], fsck["faults"]) == (6, [])
    (deployment.home / "policy.toml").write_text(
        f'log_policy = "policy"\n[registrar]\nkeys = ["{deployment.registrar}"]\n'
        '[session]\nmin_contributors = 3\n[noise]\nmechanism = "none"\n'
    )
    for arguments in (("--receipt", "carol.receipt"), ("--level", "full", "--masked-inputs", "masked")):
        code, report = deployment.verify(*arguments)
        assert code == 0, report
    # Everybody who contributed from here remembers the log, in one file.
    assert len(list((deployment.home / "state").glob("log-*.checkpoint"))) == 1


def refuse_unwitnessed(deployment: Deployment, adapter: Path, session: str) -> None:
    """Who asks for another witness, or cannot say for whom, sends nothing."""
    policy = deployment.home / "bad.policy"
    bad = ("contribute", str(adapter), "--session", session, "--identity", "bob.key", "--log-policy", "bad.policy")
    policy.write_text(f"witness w2 {WITNESS_OF_NOBODY}\nquorum w2\n", encoding="utf-8")
    assert deployment.refusal(1, *bad, *deployment.options(deployment.port))["reason"] == "LOG_UNWITNESSED"
    policy.write_text("quorum w2\n", encoding="utf-8")
    broken = deployment.refusal(2, *bad, *deployment.options(deployment.port))
    assert (broken["kind"], broken["reason"]) == ("config", "bad.policy")


def test_what_does_not_fit_is_refused_and_a_session_of_too_few_ends_without_a_sum(deployment):
    tiny = tiny_adapter(deployment.home / "tiny", 1)
    other = EXAMPLES / "1"
    session = deployment.open_session(tiny, "--clip-norm", "5")["session"]
    watching = deployment.start("session", "watch", session, "--config", "client.toml")
    # The only contributor: the others stay away, and the session is aborted when the operator ends the phase.
    lonely = deployment.contribute("alice", tiny, session)
    assert watching.stdout is not None
    while json.loads(watching.stdout.readline())["received"] != 1:
        pass

    deployment.run("identity", "new", "mallory.key", "--no-passphrase")
    expected = {
        ("local-protocol", "UNKNOWN_IDENTITY"): deployment.contribute("mallory", tiny, session),
        ("adapter", "BASE_MODEL_MISMATCH"): deployment.contribute("bob", other, session),
        ("identity-file", "MISSING"): deployment.contribute("nobody", tiny, session),
        ("identity-file", "WRONG_KIND"): deployment.contribute("registrar", tiny, session),
    }
    for (kind, reason), process in expected.items():
        out, err = deployment.finish(process, 2)
        assert out == []
        assert (err[-1]["error"]["kind"], err[-1]["error"]["reason"]) == (kind, reason)
    out_file = deployment.home / "file"
    out_file.touch()
    [error] = deployment.finish(deployment.contribute("bob", tiny, session, "--out", "file"), 2)[1]
    assert error["error"]["reason"] == "OUT"

    config = (deployment.home / "client.toml").read_text(encoding="utf-8")
    (deployment.home / "strict.toml").write_text(config.replace("min_contributors = 3", "min_contributors = 9"))
    strict = ("contribute", str(tiny), "--session", session, "--identity", "bob.key", "--config", "strict.toml")
    assert deployment.refusal(2, *strict)["reason"] == "BELOW_POLICY"
    (deployment.home / "other.toml").write_text(config.replace(deployment.registrar, "44" * 32))
    assert deployment.refusal(2, "session", "show", session, "--config", "other.toml")["reason"] == "BELOW_POLICY"

    unknown = deployment.refusal(1, "session", "show", "55" * 16, "--config", "client.toml")
    assert (unknown["kind"], unknown["reason"]) == ("remote-protocol", "UNKNOWN_SESSION")
    early = deployment.refusal(1, "session", "result", session, "--out", "early", "--config", "client.toml")
    assert (early["kind"], early["reason"]) == ("remote-protocol", "WRONG_PHASE")
    imposter = deployment.refusal(1, "session", "show", session, *deployment.options(deployment.port, key="66" * 32))
    assert imposter["reason"] == "LOG_SIGNATURE"
    refuse_unwitnessed(deployment, tiny, session)
    elsewhere = deployment.options(deployment.port, fingerprint="77" * 32)
    assert deployment.refusal(1, "session", "list", *elsewhere)["reason"] == "WRONG_FINGERPRINT"
    second = deployment.refusal(3, "coordinator", "serve", "--config", "c/coordinator.toml")
    assert second["kind"] == "store"
    restored = deployment.refusal(3, "coordinator", "mark-restored", "--config", "c/coordinator.toml")
    assert restored["kind"] == "store"

    deployment.run("session", "end-phase", session, "advertise-keys", "--config", "c/coordinator.toml")
    _, errors = deployment.finish(lonely, 1)
    assert errors[-1]["error"]["kind"] == "session-aborted"
    statuses, errors = deployment.finish(watching, 1)
    assert statuses[-1]["phase"] == "aborted"
    assert errors[-1]["error"]["kind"] == "session-aborted"
    shown = deployment.run("session", "show", session, "--config", "client.toml")
    assert shown["phase"] == "aborted"
    assert shown["abort_reason"]
    deployment.stop()


def test_an_operator_ends_a_phase_and_a_restored_database_is_accepted_by_hand_only(deployment):
    tiny = tiny_adapter(deployment.home / "tiny", 1)
    session = deployment.open_session(tiny, "--clip-norm", "5")["session"]
    end = ("session", "end-phase", session, "advertise-keys", "--config", "c/coordinator.toml")
    assert deployment.run(*end) == {"session": session, "phase": "advertise-keys"}
    [status], [error] = deployment.finish(deployment.start("session", "watch", session, "--config", "client.toml"), 1)
    assert (status["phase"], error["error"]["kind"]) == ("aborted", "session-aborted")
    deployment.stop()

    database = deployment.home / "c" / "state" / "sessions.db"
    shutil.copy(database, deployment.home / "backup")
    deployment.serve()
    deployment.stop()
    shutil.copy(deployment.home / "backup", database)
    stale = deployment.refusal(2, "coordinator", "serve", "--config", "c/coordinator.toml")
    assert (stale["kind"], stale["reason"]) == ("store", "STALE")
    assert "secagg coordinator mark-restored" in stale["message"]
    accepted = deployment.run("coordinator", "mark-restored", "--config", "c/coordinator.toml")
    assert accepted["abandoned"] == 1
    deployment.serve()
    assert deployment.run("session", "list", "--config", "client.toml") == {"sessions": []}
    deployment.stop()


def test_a_log_that_was_moved_is_accepted_by_hand_and_one_from_a_backup_never(deployment):
    tiny = tiny_adapter(deployment.home / "tiny", 1)
    home = deployment.home
    first = deployment.open_session(tiny, "--clip-norm", "5")["session"]
    deployment.stop()
    shutil.copytree(home / "c" / "record", home / "old record")
    deployment.serve()
    end = ("session", "end-phase", first, "advertise-keys", "--config", "c/coordinator.toml")
    deployment.run(*end)
    deployment.finish(deployment.start("session", "watch", first, "--config", "client.toml"), 1)
    deployment.stop()

    # A copy, as on another machine: its inodes are others.
    shutil.copytree(home / "c", home / "moved")
    shutil.rmtree(home / "c")
    (home / "moved").rename(home / "c")
    serve = ("coordinator", "serve", "--config", "c/coordinator.toml")
    stale = deployment.refusal(2, *serve)
    assert (stale["kind"], stale["reason"]) == ("store", "STALE")
    deployment.run("coordinator", "mark-restored", "--config", "c/coordinator.toml")
    stale = deployment.refusal(2, *serve)
    assert (stale["kind"], stale["reason"]) == ("log", "STALE_LOG")
    assert "secagg coordinator mark-moved" in stale["message"]
    moved = deployment.run("coordinator", "mark-moved", "--config", "c/coordinator.toml")
    assert moved["log_size"] == 3
    deployment.serve()
    second = deployment.open_session(tiny, "--clip-norm", "5")["session"]
    assert deployment.run("session", "show", second, "--config", "client.toml")["phase"] == "advertise-keys"
    assert deployment.run("log", "fsck", "c/record")["published"] == 4
    deployment.stop()

    shutil.rmtree(home / "c" / "record")
    shutil.copytree(home / "old record", home / "c" / "record")
    assert deployment.refusal(2, *serve)["reason"] == "STALE_LOG"
    deployment.run("coordinator", "mark-moved", "--config", "c/coordinator.toml")
    assert deployment.refusal(2, *serve)["reason"] == "STALE_LOG"
