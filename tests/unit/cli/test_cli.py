"""The command line without a coordinator: help, exit codes, errors in words and as JSON, files made and refused."""

from __future__ import annotations

import importlib
import io
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from secagg.cli import failures, main, opening, options
from secagg.cli.exit_codes import MEANINGS, ExitCode
from secagg.cli.output import OutputFormat, Reporter, now_and_then, printable, table
from secagg.client import SessionAbortedError
from secagg.crypto.notes import log_key, witness_key
from secagg.identity.address import Address
from secagg.identity.client_config import ClientConfig
from secagg.identity.config import CoordinatorConfig, LogConfig
from secagg.identity.errors import RosterError, RosterRefusal, TlsError, TlsRefusal
from secagg.identity.tls import LoopbackPlaintext
from secagg.protocol.errors import LocalProtocolError, RejectReason, RemoteProtocolError
from secagg.runtime.participant import TransportError
from secagg.runtime.ports import StaleStoreError, StoreError
from secagg.transcript.encoding import Flattening, NoFlattening
from secagg.transcript.policy import LogPolicy, LogRule, WitnessRule
from tests.support.service import EXAMPLES, tiny_adapter

KEY = "11" * 32
FINGERPRINT = "22" * 32
SESSION = "33" * 16
EXPLICIT = ("--coordinator", "127.0.0.1:1", "--coordinator-key", KEY, "--tls-fingerprint", FINGERPRINT)
LEAVES = [
    ("demo",),
    ("coordinator", "init"),
    ("coordinator", "serve"),
    ("coordinator", "mark-restored"),
    ("coordinator", "mark-moved"),
    ("session", "open"),
    ("session", "end-phase"),
    ("session", "list"),
    ("session", "show"),
    ("session", "watch"),
    ("session", "start"),
    ("session", "result"),
    ("session", "export-masked-inputs"),
    ("identity", "new"),
    ("identity", "show"),
    ("roster", "add"),
    ("roster", "sign"),
    ("roster", "show"),
    ("client", "init"),
    ("contribute",),
    ("receipt",),
    ("witness", "init"),
    ("witness", "serve"),
    ("witness", "key"),
    ("committee", "init"),
    ("committee", "serve"),
    ("committee", "log"),
    ("authority", "init"),
    ("authority", "serve"),
    ("authority", "log"),
    ("attest",),
    ("budget", "show"),
    ("budget", "accept-restored"),
    ("log", "fsck"),
    ("log", "show"),
    ("merge", "inspect"),
]


class Shell:
    """Runs commands in this process, in a directory of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *argv: str | Path) -> tuple[int, str, str]:
        code = main.run([str(argument) for argument in argv])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, *argv: str | Path) -> dict:
        code, out, err = self(*argv, "--format", "json")
        assert (code, err) == (0, ""), err
        return json.loads(out)

    def refusal(self, *argv: str | Path) -> tuple[int, str, str, str]:
        """Exit code, kind, reason and message of a command that fails, which writes nothing to stdout."""
        code, out, err = self(*argv, "--format", "json")
        assert out == ""
        lines = [json.loads(line) for line in err.splitlines()]
        assert [set(line) for line in lines] == [{"error"}], err
        error = lines[0]["error"]
        assert set(error) == {"kind", "reason", "message"}
        assert "\n" not in error["message"]
        return code, error["kind"], error["reason"], error["message"]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return Shell(capsys)


def help_of(*command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main.run([*command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


# Help.


def test_the_help_names_every_command_and_every_exit_code(capsys):
    text = help_of(capsys=capsys)
    for name in main.COMMANDS:
        assert name in text
    for code, meaning in MEANINGS.items():
        assert f"{code.value}" in text
        assert meaning in text


@pytest.mark.parametrize("command", LEAVES, ids=" ".join)
def test_the_help_of_a_command_says_what_it_does_and_shows_an_example(command, capsys):
    text = help_of(*command, capsys=capsys)
    assert text.startswith(f"usage: secagg {' '.join(command)}")
    assert f"secagg {' '.join(command)}" in text.split("example:")[1]
    assert "--format" in text
    description = text.split("\n\n")[1]
    assert len(description) > 40
    assert max(map(len, text.splitlines())) <= 120


def test_every_command_module_registers_the_command_of_its_name():
    for name in main.COMMANDS:
        assert callable(importlib.import_module(f"secagg.cli.{name}").add_parser)
    assert {leaf[0] for leaf in LEAVES} == set(main.COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["session", "open", "--help"], ["contribute", "--help"]])
def test_help_imports_neither_grpc_nor_numpy(arguments):
    script = (
        "import sys\nfrom secagg.cli import main\n"
        f"try:\n    main.run({arguments!r})\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'grpc', 'numpy', 'scipy', 'cryptography', 'rich', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy - {'asyncio'} else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        main.run(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("secagg-lora ")


# Exit codes and errors.


@pytest.mark.parametrize(
    ("error", "code", "kind", "reason"),
    [
        (SessionAbortedError("too-few"), ExitCode.SESSION_FAILED, "session-aborted", "too-few"),
        (
            RemoteProtocolError(RejectReason.WRONG_PHASE),
            ExitCode.SESSION_FAILED,
            "remote-protocol",
            "WRONG_PHASE",
        ),
        (
            RemoteProtocolError(RejectReason.TOO_MANY_WATCHERS),
            ExitCode.UNAVAILABLE,
            "remote-protocol",
            "TOO_MANY_WATCHERS",
        ),
        (
            RemoteProtocolError(RejectReason.LOG_UNWITNESSED),
            ExitCode.SESSION_FAILED,
            "remote-protocol",
            "LOG_UNWITNESSED",
        ),
        (LocalProtocolError(RejectReason.BELOW_POLICY), ExitCode.UNUSABLE_INPUT, "local-protocol", "BELOW_POLICY"),
        (LocalProtocolError(RejectReason.LOG_FORKED), ExitCode.SESSION_FAILED, "local-protocol", "LOG_FORKED"),
        (RosterError(RosterRefusal.UNSIGNED), ExitCode.UNUSABLE_INPUT, "roster", "UNSIGNED"),
        (TransportError("no answer"), ExitCode.UNAVAILABLE, "transport", "UNREACHABLE"),
        (StoreError("x: the store is open already, by process 1"), ExitCode.UNAVAILABLE, "store", "STORE"),
        (StaleStoreError("x: is older"), ExitCode.UNUSABLE_INPUT, "store", "STALE"),
        (TlsError(TlsRefusal.UNREACHABLE, "x:1"), ExitCode.UNAVAILABLE, "tls", "UNREACHABLE"),
        (TlsError(TlsRefusal.WRONG_FINGERPRINT, "x:1"), ExitCode.SESSION_FAILED, "tls", "WRONG_FINGERPRINT"),
        (TlsError(TlsRefusal.BAD_HOST, "x"), ExitCode.UNUSABLE_INPUT, "tls", "BAD_HOST"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted", "INTERRUPTED"),
        (PermissionError(13, "Permission denied", "out"), ExitCode.UNAVAILABLE, "system", "PermissionError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_has_one_exit_code_and_one_line(error, code, kind, reason):
    assert isinstance(error, failures.known_errors())
    found = failures.describe(error)
    assert (found.code, found.kind, found.reason) == (code, kind, reason)
    assert "\n" not in found.message


@pytest.mark.parametrize("reason", [reason for reason in RejectReason if reason.name.startswith("LOG_")])
def test_every_doubt_about_the_log_comes_with_what_to_do(reason):
    plain = str(RemoteProtocolError(reason))
    assert len(failures.describe(RemoteProtocolError(reason)).message) > len(f"the coordinator: {plain}.")


def test_every_known_error_is_described():
    for known in failures.known_errors():
        error = known.__new__(known)
        error.args = ("detail",)
        for name in ("reason", "refusal"):
            if not hasattr(error, name):
                vars(error)[name] = RejectReason.WRONG_PHASE
        for name in ("field", "key", "fix", "kind", "message"):
            if not hasattr(error, name) or name not in vars(error):
                vars(error)[name] = "x"
        vars(error).setdefault("code", ExitCode.UNUSABLE_INPUT)
        assert isinstance(failures.describe(error).code, ExitCode)


def test_an_interrupted_command_ends_with_130_and_no_traceback(shell, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("secagg.identity.keys.create_key_file", interrupted)
    assert shell("identity", "new", "a.key", "--no-passphrase") == (130, "", "secagg: error: interrupted\n")


def test_a_bug_keeps_its_traceback(shell, monkeypatch):
    monkeypatch.setattr("secagg.identity.keys.create_key_file", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        shell("identity", "new", "a.key", "--no-passphrase")


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        ((), "COMMAND"),
        (("frobnicate",), "frobnicate"),
        (("identity",), "COMMAND"),
        (("identity", "new"), "FILE"),
        (("identity", "new", "a", "--kind", "witch"), "witch"),
        (("identity", "new", "a", "--no-passphrase", "--passphrase-file", "f"), "not allowed"),
        (("identity", "new", "a", "--pass", "f"), "--pass"),
        (("session", "show", "zz", *EXPLICIT), "16 bytes in hex"),
        (("session", "show", SESSION + "00", *EXPLICIT), "16 bytes in hex"),
        (("session", "show", SESSION), "--coordinator is missing"),
        (("session", "list", "--config", "client.toml", "--coordinator", "h:1"), "exclude each other"),
        (("session", "list", *EXPLICIT[:4]), "--tls-fingerprint"),
        (("session", "list", *EXPLICIT, "--tls-ca", "ca.pem"), "--tls-fingerprint"),
        (("session", "list", *EXPLICIT, "--timeout", "0"), "seconds"),
        (("session", "list", *EXPLICIT, "--timeout", "nan"), "seconds"),
        (("session", "list", "--coordinator", "no port"), "host:port"),
        (("contribute", "a", "--session", SESSION, "--coordinator-key", "11", "--coordinator", "h:1"), "32 bytes"),
        (("session", "end-phase", SESSION, "finished", "--config", "c.toml"), "finished"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_refused_with_2_in_both_formats(argv, word, shell):
    code, out, err = shell(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("secagg: error: ")
    assert word in err
    code, kind, _, message = shell.refusal(*argv)
    assert (code, kind) == (2, "usage")
    assert word in message


def test_a_missing_configuration_is_named(shell):
    for command in (
        ("coordinator", "serve"),
        ("coordinator", "mark-restored"),
        ("coordinator", "mark-moved"),
        ("session", "export-masked-inputs", SESSION, "--auditor", "Ada", "--out", "out"),
        ("receipt", SESSION, "--out", "receipt"),
        ("session", "list"),
        ("contribute", "adapter", "--session", SESSION),
        ("session", "open", "--roster", "r", "--adapter", "a", "--min-contributors", "3"),
    ):
        assert shell.refusal(*command, "--config", "gone.toml")[:3] == (2, "identity-file", "MISSING")


def test_a_broken_configuration_is_named_with_file_and_key(shell):
    Path("bad.toml").write_text('coordinator = "h:1"\n', encoding="utf-8")
    code, kind, reason, message = shell.refusal("session", "list", "--config", "bad.toml")
    assert (code, kind, reason) == (2, "config", "coordinator_key")
    assert "bad.toml: coordinator_key: missing" in message
    code, kind, reason, message = shell.refusal("coordinator", "serve", "--config", "bad.toml")
    assert (code, kind) == (2, "config")
    assert message.startswith("bad.toml: ")


def test_nobody_listening_is_unavailable(shell):
    assert shell.refusal("session", "list", *EXPLICIT)[:3] == (3, "tls", "UNREACHABLE")


def test_a_malformed_fingerprint_is_unusable(shell):
    argv = ("session", "list", *EXPLICIT[:4], "--tls-fingerprint", "xyz")
    assert shell.refusal(*argv)[:3] == (2, "config", "tls.fingerprint")


def test_a_missing_authority_file_is_unusable(shell):
    argv = ("session", "list", *EXPLICIT[:4], "--tls-ca", "gone.pem")
    assert shell.refusal(*argv)[:3] == (2, "identity-file", "MISSING")


# identity.


def test_a_new_identity_is_private_and_its_public_key_is_shown(shell):
    made = shell.json("identity", "new", "alice.key", "--no-passphrase")
    assert set(made) == {"file", "kind", "public_key"}
    assert stat.S_IMODE(Path("alice.key").stat().st_mode) == 0o600
    for name in ("alice.key", "alice.key.pub"):
        assert shell.json("identity", "show", name)["public_key"] == made["public_key"]
    assert made["public_key"] in shell("identity", "show", "alice.key")[1]


def test_without_a_terminal_a_new_key_is_unencrypted_and_says_so(shell):
    code, out, err = shell("identity", "new", "alice.key")
    assert code == 0
    assert "not encrypted" in err
    assert "not encrypted" not in out


def test_an_identity_is_never_overwritten(shell):
    shell.json("identity", "new", "alice.key", "--no-passphrase")
    before = Path("alice.key").read_bytes()
    code, kind, reason, message = shell.refusal("identity", "new", "alice.key", "--no-passphrase")
    assert (code, kind, reason) == (2, "identity-file", "EXISTS")
    assert "alice.key" in message
    assert Path("alice.key").read_bytes() == before


def test_a_passphrase_file_encrypts_a_key_and_opens_it(shell):
    passphrase = Path("passphrase")
    passphrase.write_text("correct horse\n", encoding="utf-8")
    passphrase.chmod(0o600)
    shell.json("identity", "new", "r.key", "--kind", "registrar", "--passphrase-file", passphrase)
    assert b"scrypt" in Path("r.key").read_bytes()
    member = shell.json("identity", "new", "a.key", "--no-passphrase")["public_key"]
    shell.json("roster", "add", "roster", member)
    code, kind, _, message = shell.refusal("roster", "sign", "roster", "--key", "r.key")
    assert (code, kind) == (2, "passphrase")
    assert "correct horse" not in message
    shell.json("roster", "sign", "roster", "--key", "r.key", "--passphrase-file", passphrase)
    passphrase.write_text("wrong\n", encoding="utf-8")
    argv = ("roster", "sign", "roster", "--key", "r.key", "--passphrase-file", passphrase)
    assert shell.refusal(*argv)[:3] == (2, "identity-file", "DOES_NOT_OPEN")


@pytest.mark.parametrize(
    ("answers", "encrypted"), [(["horse", "horse"], True), ([""], False), (["horse", "house"], None)]
)
def test_at_a_terminal_the_passphrase_is_asked_for_twice(answers, encrypted, shell, monkeypatch):
    waiting = list(answers)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: waiting.pop(0))
    code, _, err = shell("identity", "new", "alice.key")
    assert waiting == []
    if encrypted is None:
        assert code == 2
        assert "differ" in err
        assert not Path("alice.key").exists()
    else:
        assert code == 0
        assert (b"scrypt" in Path("alice.key").read_bytes()) is encrypted
        assert ("not encrypted" in err) is not encrypted


# roster.


def test_a_roster_is_made_signed_and_shown(shell):
    registrar = shell.json("identity", "new", "r.key", "--kind", "registrar", "--no-passphrase")["public_key"]
    alice = shell.json("identity", "new", "a.key", "--no-passphrase")["public_key"]
    bob = shell.json("identity", "new", "b.key", "--no-passphrase")["public_key"]
    added = shell.json("roster", "add", "roster", "a.key.pub", bob, "--stratum", "north")
    assert (added["size"], added["signature"]) == (2, "none")
    assert shell.json("roster", "show", "roster")["registrar"] is None
    assert shell.json("roster", "sign", "roster", "--key", "r.key")["registrar"] == registrar
    shown = shell.json("roster", "show", "roster")
    assert shown["registrar"] == registrar
    assert {member["identity"] for member in shown["members"]} == {alice, bob}
    assert {member["stratum"] for member in shown["members"]} == {"north"}
    shell.json("identity", "new", "c.key", "--no-passphrase")
    code, out, _ = shell("roster", "add", "roster", "c.key.pub")
    assert code == 0
    assert "sign the roster again" in out


def test_what_cannot_be_in_a_roster_is_refused(shell):
    shell.json("identity", "new", "r.key", "--kind", "registrar", "--no-passphrase")
    shell.json("identity", "new", "a.key", "--no-passphrase")
    assert shell.refusal("roster", "add", "roster", "r.key.pub")[:3] == (2, "identity-file", "WRONG_KIND")
    assert shell.refusal("roster", "add", "roster", "nobody.pub")[:3] == (2, "identity-file", "MISSING")
    assert shell.refusal("roster", "add", "roster", "12ab")[:3] == (2, "usage", "PUBLIC_KEY")
    assert shell.refusal("roster", "add", "roster", "00" * 32)[:3] == (2, "roster", "NOT_A_KEY")
    shell.json("roster", "add", "roster", "a.key.pub")
    assert shell.refusal("roster", "add", "roster", "a.key.pub")[:3] == (2, "roster", "DUPLICATE")
    assert shell.refusal("roster", "sign", "roster", "--key", "a.key")[:3] == (2, "identity-file", "WRONG_KIND")
    assert shell.refusal("roster", "show", "elsewhere")[:3] == (2, "identity-file", "MISSING")


# client and coordinator.


def test_a_client_configuration_is_written_as_asked(shell):
    made = shell.json(
        "client", "init", "conf/../client.toml", *EXPLICIT, "--registrar", KEY, "--min-contributors", "50",
        "--tolerated-corrupt", "0.2", "--identity", "keys/alice.key", "--log-policy", "conf/log.policy",
    ) if Path("conf").mkdir() is None else {}  # fmt: skip
    assert made["registrars"] == 1
    config = ClientConfig.load(Path("client.toml"))
    assert (config.policy.min_contributors, str(config.policy.tolerated_corrupt)) == (50, "1/5")
    assert config.coordinator_key.hex() == KEY
    assert config.identity_key_file.resolve() == (Path.cwd() / "keys" / "alice.key").resolve()
    assert config.state_directory.name == "state"
    assert config.policy.log.resolve() == Path.cwd() / "conf" / "log.policy"


def test_a_policy_file_counts_from_where_the_command_runs_and_not_from_the_configuration(shell):
    Path("conf").mkdir()
    shell("client", "init", "conf/client.toml", *EXPLICIT, "--log-policy", "log.policy")
    assert ClientConfig.load(Path("conf/client.toml")).policy.log == Path.cwd() / "log.policy"


def test_a_policy_file_that_is_gone_or_broken_stops_a_command(shell, monkeypatch):
    monkeypatch.setattr(ClientConfig, "client_tls", lambda *_: LoopbackPlaintext(Address("127.0.0.1", 1)))
    argv = ("session", "list", *EXPLICIT, "--log-policy", "log.policy")
    assert shell.refusal(*argv)[:3] == (2, "identity-file", "MISSING")
    Path("log.policy").write_text("quorum nobody\n", encoding="utf-8")
    code, kind, reason, message = shell.refusal(*argv)
    assert (code, kind, reason) == (2, "config", "log.policy")
    assert "line 1: a quorum that is not defined before" in message


def test_a_client_configuration_without_a_registrar_or_witnesses_says_what_that_means(shell):
    code, _, err = shell("client", "init", "client.toml", *EXPLICIT)
    assert code == 0
    assert "no registrar" in err
    assert "no witnesses are named" in err
    assert ClientConfig.load(Path("client.toml")).policy.log is None
    assert shell.refusal("client", "init", "client.toml", *EXPLICIT)[:3] == (2, "identity-file", "EXISTS")


@pytest.mark.parametrize(
    ("more", "kind", "reason"),
    [
        (("--min-contributors", "1"), "config", "policy.min_contributors"),
        (("--tolerated-corrupt", "1"), "config", "policy.tolerated_corrupt"),
        (("--tolerated-corrupt", "-1"), "usage", "ARGUMENTS"),
        (("--base-model", "12"), "usage", "ARGUMENTS"),
    ],
)
def test_a_client_policy_out_of_range_is_refused(more, kind, reason, shell):
    assert shell.refusal("client", "init", "client.toml", *EXPLICIT, *more)[:3] == (2, kind, reason)
    assert not Path("client.toml").exists()


def test_a_coordinator_directory_is_private_and_complete(shell):
    made = shell.json("coordinator", "init", "c", "--no-passphrase")
    assert stat.S_IMODE(Path("c").stat().st_mode) == 0o700
    names = {"coordinator.toml", "coordinator.key", "coordinator.key.pub", "tls.key", "tls.crt"}
    assert {path.name for path in Path("c").iterdir()} == names
    for private in ("coordinator.key", "tls.key"):
        assert stat.S_IMODE((Path("c") / private).stat().st_mode) == 0o600
    assert made["hosts"] == ["localhost", "127.0.0.1"]
    assert made["next"] == "secagg coordinator serve --config c/coordinator.toml"
    config = CoordinatorConfig.load(Path("c/coordinator.toml"))
    assert config.state_directory == Path.cwd() / "c" / "state"
    assert config.record_directory == Path.cwd() / "c" / "record"
    assert config.log == LogConfig("localhost/secagg")
    log = log_key("localhost/secagg", bytes.fromhex(made["coordinator_key"]))
    assert made["log_line"] == f"log {log.to_text()}"
    assert LogPolicy.parse(f"{made['log_line']}\nquorum none\n").logs == (LogRule(log),)
    assert shell.json("identity", "show", "c/coordinator.key")["public_key"] == made["coordinator_key"]
    code, kind, reason, _ = shell.refusal("coordinator", "init", "c", "--no-passphrase")
    assert (code, kind, reason) == (2, "identity-file", "EXISTS")


def test_a_coordinator_has_the_log_and_the_witnesses_that_it_is_told(shell):
    witness = WitnessRule("w", witness_key("witness.example", bytes(31) + b"\x01"), "http://127.0.0.1:1")
    policy = LogPolicy((), (witness,), (), "w")
    Path("log.policy").write_text(policy.to_text(), encoding="utf-8")
    argv = ("coordinator", "init", "c", "--no-passphrase", "--origin", "log.example/x", "--witnesses", "log.policy")
    made = shell.json(*argv)
    config = CoordinatorConfig.load(Path("c/coordinator.toml"))
    assert config.log == LogConfig("log.example/x", Path.cwd() / "log.policy")
    assert config.log.policy() == policy
    assert made["log_line"].startswith("log log.example/x+")


@pytest.mark.parametrize(
    ("more", "kind", "reason"),
    [
        (("--origin", "two words"), "config", "log.origin"),
        (("--origin", "a+b"), "config", "log.origin"),
        (("--witnesses", "gone.policy"), "identity-file", "MISSING"),
        (("--witnesses", "bad.policy"), "config", None),
    ],
)
def test_a_log_that_could_never_work_is_refused_before_anything_is_made(more, kind, reason, shell):
    Path("bad.policy").write_text("quorum nobody\n", encoding="utf-8")
    code, found, why, _ = shell.refusal("coordinator", "init", "c", "--no-passphrase", *more)
    assert (code, found, why) == (2, kind, reason or str(Path.cwd() / "bad.policy"))
    assert not Path("c").exists()


def test_a_coordinator_does_not_serve_a_log_that_its_own_policy_does_not_name(shell):
    other = shell.json("coordinator", "init", "other", "--no-passphrase")
    Path("log.policy").write_text(f"{other['log_line']}\nquorum none\n", encoding="utf-8")
    made = shell.json("coordinator", "init", "c", "--no-passphrase", "--witnesses", "log.policy")
    code, kind, reason, message = shell.refusal("coordinator", "serve", "--config", "c/coordinator.toml")
    assert (code, kind, reason) == (2, "config", "OTHER_LOG")
    assert made["log_line"].removeprefix("log ") in message
    assert not (Path("c") / "record").exists()


def test_a_coordinator_directory_that_others_can_read_is_refused(shell):
    Path("c").mkdir(mode=0o755)
    Path("c/notes").write_text("mine", encoding="utf-8")
    code, kind, reason, message = shell.refusal("coordinator", "init", "c", "--no-passphrase")
    assert (code, kind, reason) == (2, "identity-file", "OPEN_PERMISSIONS")
    assert "chmod 700 c" in message


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--listen", "0.0.0.0:7443"), "HOST"),
        (("--host", "Not A Name"), "HOST"),
        (("--listen", "nowhere"), "ARGUMENTS"),
    ],
)
def test_a_coordinator_without_a_usable_name_is_refused_before_anything_is_made(more, reason, shell):
    assert shell.refusal("coordinator", "init", "c", "--no-passphrase", *more)[:3] == (2, "usage", reason)
    assert not Path("c").exists()


def test_a_coordinator_directory_with_too_long_a_path_is_refused(shell):
    code, kind, reason, _ = shell.refusal("coordinator", "init", "c" * 90, "--no-passphrase")
    assert (code, kind, reason) == (2, "config", "state_directory")


def test_marking_a_database_that_is_not_there_is_refused(shell):
    shell.json("coordinator", "init", "c", "--no-passphrase")
    assert shell.refusal("coordinator", "mark-restored", "--config", "c/coordinator.toml")[:2] == (3, "store")


# session open.


@pytest.fixture
def operator(shell: Shell) -> Shell:
    """A shell in a directory with a coordinator, a signed roster of four, and a tiny adapter."""
    shell.json("coordinator", "init", "c", "--no-passphrase")
    shell.json("identity", "new", "r.key", "--kind", "registrar", "--no-passphrase")
    names = ["a.key", "b.key", "d.key", "e.key"]
    for name in names:
        shell.json("identity", "new", name, "--no-passphrase")
    shell.json("roster", "add", "roster", *(f"{name}.pub" for name in names))
    shell.json("roster", "sign", "roster", "--key", "r.key")
    tiny_adapter(Path("example"), 1)
    return shell


OPEN = (
    "session",
    "open",
    "--config",
    "c/coordinator.toml",
    "--roster",
    "roster",
    "--adapter",
    "example",
    "--merge",
    "factors",
)


def test_opening_without_a_running_coordinator_is_unavailable_and_says_how_to_start_it(operator):
    code, kind, reason, message = operator.refusal(*OPEN, "--min-contributors", "3")
    assert (code, kind, reason) == (3, "transport", "UNREACHABLE")
    assert "secagg coordinator serve --config c/coordinator.toml" in message


@pytest.mark.parametrize(
    ("more", "kind", "word"),
    [
        (("--min-contributors", "1"), "record", "min_contributors"),
        (("--min-contributors", "5"), "record", "exceeds the roster"),
        (("--min-contributors", "3", "--max-corrupt", "2"), "record", "must exceed max_corrupt"),
        (("--min-contributors", "3", "--max-corrupt", "-1"), "record", "max_corrupt"),
        (("--min-contributors", "3", "--max-contributors", "2"), "record", "max_contributors"),
        (("--min-contributors", "3", "--value-bits", "1"), "record", "value_bits"),
        (("--min-contributors", "3", "--value-bits", "33"), "record", "value_bits"),
        (("--min-contributors", "3", "--clip-norm", "0"), "record", "clip_norm"),
        (("--min-contributors", "3", "--clip-norm", "1/0"), "usage", "division by zero"),
        (("--min-contributors", "3", "--clip-norm", "NaN"), "usage", "--clip-norm"),
        (("--min-contributors", "3", "--clip-norm", "1e999999999"), "usage", "--clip-norm"),
        (("--min-contributors", "3", "--expected-dropout", "1"), "record", "expected_dropout"),
        (("--min-contributors", "3", "--expected-dropout", "9/10"), "local-protocol", "expected_dropout"),
        (("--min-contributors", "3", "--deadlines", "lunch=3600"), "usage", "lunch"),
        (("--min-contributors", "3", "--deadlines", "upload=-1"), "usage", "upload=-1"),
        (("--min-contributors", "3", "--deadlines", "upload=0"), "record", "upload_s"),
        (("--min-contributors", "3", "--retention", "-1"), "record", "retention_s"),
        (("--min-contributors", "3", "--base", "00"), "usage", "32 bytes"),
        (("--min-contributors", "3", "--flatten", "maybe"), "usage", "--flatten"),
        (("--min-contributors", "three"), "usage", "--min-contributors"),
        ((), "usage", "--min-contributors"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_impossible_session_is_refused_before_the_coordinator_is_asked(more, kind, word, operator):
    code, found, _, message = operator.refusal(*OPEN, *more)
    assert (code, found) == (2, kind), message
    assert word in message


def test_an_unsigned_roster_opens_nothing(operator):
    Path("roster/roster.head.json").unlink()
    code, kind, reason, message = operator.refusal(*OPEN, "--min-contributors", "3")
    assert (code, kind, reason) == (2, "roster", "UNSIGNED")
    assert "secagg roster sign" in message


def test_an_adapter_that_is_none_opens_nothing(operator):
    Path("example/adapter_config.json").unlink()
    assert operator.refusal(*OPEN, "--min-contributors", "3")[:3] == (2, "adapter", "MISSING_FILE")


def plan(*more: str) -> opening.Opening:
    return planned(*OPEN, "--min-contributors", "3", *more)


def planned(*argv: str) -> opening.Opening:
    """What ``session open`` with these words would open."""
    parser = options.CommandParser()
    importlib.import_module("secagg.cli.session").add_parser(parser.add_subparsers())
    arguments = parser.parse_args([*argv])
    return opening.plan_opening(arguments, CoordinatorConfig.load(arguments.config))


def test_what_is_not_said_of_a_session_has_a_default_that_clients_accept(operator):
    opened = plan()
    parameters = opened.session.parameters
    assert (parameters.max_corrupt, parameters.encoding.max_contributors, parameters.encoding.value_bits) == (
        1,
        1024,
        15,
    )
    assert parameters.retention_s == 30 * 24 * 3600
    assert parameters.log == "localhost/secagg"
    assert parameters.deadlines.upload_s == 3600
    assert any("twice the example" in note for note in opened.notes)
    assert plan().session.parameters.session != parameters.session


def test_what_is_said_of_a_session_is_in_its_entry(operator):
    opened = plan(
        "--clip-norm", "3/2", "--deadlines", "upload=7,unmask=9", "--retention", "5", "--base", KEY,
        "--max-corrupt", "0", "--expected-dropout", "0", "--value-bits", "20",
    )  # fmt: skip
    parameters = opened.session.parameters
    assert str(parameters.encoding.clip_norm) == "3/2"
    assert (parameters.deadlines.upload_s, parameters.deadlines.unmask_s, parameters.deadlines.share_s) == (7, 9, 600)
    assert (parameters.retention_s, parameters.base_model_digest.hex()) == (5, KEY)
    assert any("default policy" in note for note in opened.notes)


def test_flattening_is_chosen_where_it_makes_uploads_smaller_and_only_if_asked(operator):
    assert isinstance(plan("--value-bits", "26").session.parameters.encoding.flatten, NoFlattening)
    small = plan("--value-bits", "26", "--flatten", "auto")
    assert isinstance(small.session.parameters.encoding.flatten, NoFlattening)
    assert any("not flattened" in note for note in small.notes)
    arguments = ("--value-bits", "23", "--adapter", str(EXAMPLES / "1"))
    flat, plain = plan(*arguments, "--flatten", "auto"), plan(*arguments)
    assert isinstance(flat.session.parameters.encoding.flatten, Flattening)
    assert flat.session.upload_bytes < plain.session.upload_bytes


# Output.


def test_what_peers_chose_cannot_steer_a_terminal():
    assert printable("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb\nc\\u202e"


def test_a_table_aligns_labels_and_continues_values():
    assert table([("a", "1"), ("long", "2\n3")]) == "a     1\nlong  2\n      3"


def test_what_is_said_often_is_passed_on_now_and_then():
    said: list[str] = []
    moments = iter([0, 1, 4, 5, 5, 6, 9, 11, 11])
    say = now_and_then(said.append, lambda: next(moments), every_s=5)
    for text in "abcdef":
        say(text)
    assert said == ["c", "f"]


def test_progress_is_json_lines_or_plain_lines_or_for_a_person_at_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    said = {}
    for name, stream, output_format in [
        ("plain", io.StringIO(), OutputFormat.TEXT),
        ("json", io.StringIO(), OutputFormat.JSON),
        ("person", Terminal(), OutputFormat.JSON),
    ]:
        monkeypatch.setattr(sys, "stderr", stream)
        reporter = Reporter(output_format)
        with reporter.waiting("working"):
            reporter.progress("[bold]step")
            reporter.details([("label", "value")])
        said[name] = stream.getvalue()
    assert said["plain"] == "[bold]step\nlabel  value\n"
    assert [json.loads(line) for line in said["json"].splitlines()] == [
        {"progress": "[bold]step"},
        {"progress": {"label": "value"}},
    ]
    assert "[bold]step" in said["person"]
    assert "label  value" in said["person"]
