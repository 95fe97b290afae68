"""The command: exit codes, arguments, what is written where; never a pass for what was not checked."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from secagg.transcript.note import Note
from tests.support.forge import COSIGNED_AT_S, Forge, write_record
from tests.unit.verifier.session_checks import IDLE
from verifier import cli
from verifier.catalogue import ALL_CHECKS, FAMILIES
from verifier.checks import Mode
from verifier.statement import LEVEL_NAMES

NOW = ["--now", str(COSIGNED_AT_S + 60)]


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("honest"))


def check(written, *more):
    """The exit code of ``check``."""
    return cli.run(["check", str(written.record), "--policy", str(written.policy), *NOW, *map(str, more)])


def failed(directory):
    def unsigned(leaves, _):
        return [replace(leaf, signature=bytes(64)) for leaf in leaves]

    return write_record(directory, {"u1": unsigned})


@pytest.mark.parametrize("level", ["meta", "preopen", "sum"])
def test_0_is_for_a_record_of_which_every_check_passed(honest, level, capsys):
    assert check(honest, "--level", level) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"PASSED: every check of this level passed (level {level})\n")


def test_0_at_the_highest_level_with_everything_at_hand(honest, capsys):
    more = [
        "--masked-inputs",
        honest.masked_inputs,
        "--receipt",
        honest.receipt,
        "--since",
        honest.record / "checkpoint",
    ]
    assert check(honest, "--level", "full", *more) == 0
    out = capsys.readouterr().out
    one_shot = {each.identifier for each in ALL_CHECKS if Mode.PAIRWISE not in each.modes}
    assert set(re.findall(r"([A-Z]{3}-\d+) +not-applicable", out)) == one_shot | IDLE
    assert out.count("a pairwise session has nothing of the kind") == len(one_shot) == 10
    assert "not-at-this-level" not in out


def test_1_is_for_a_check_that_failed(tmp_path, capsys):
    assert check(failed(tmp_path)) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAILED: ")
    assert "keys.jsonl, line 1, signature: signature does not verify" in out
    assert "and 1 more" in out
    assert "as it is, it does not" in out


def test_3_is_for_a_file_that_is_missing_a_session_that_has_not_ended_and_a_session_that_is_not_there(tmp_path, capsys):
    forge = Forge()
    forge.append(forge.roster_entry())
    forge.append(forge.main.open())
    assert check(forge.write(tmp_path / "begun")) == 3
    written = write_record(tmp_path / "missing")
    (written.session / "u2.jsonl").unlink()
    assert check(written) == 3
    assert check(written, "--session", written.forge.second.session_id.hex()) == 0
    assert check(written, "--session", "00" * 16) == 3
    assert "is not in the log" in capsys.readouterr().out


def test_3_is_for_a_record_of_which_nothing_is_there(honest, tmp_path):
    (tmp_path / "empty").mkdir()
    assert check(replace(honest, record=tmp_path / "empty")) == 3


def test_3_is_for_a_log_without_a_session(tmp_path, capsys):
    forge = Forge()
    forge.append(forge.roster_entry())
    assert check(forge.write(tmp_path)) == 3
    assert "the log has no session" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more",
    [
        ["--level", "most"],
        ["--session", "main"],
        ["--session", "AB" * 16],
        ["--now", "-1"],
        ["--now", "1e9"],
        ["--nonsense"],
        ["--level", "full"],
        ["--masked-inputs", "."],
        ["--level", "full", "--masked-inputs", "/does/not/exist"],
        ["--receipt", "/does/not/exist"],
        ["--since", "/does/not/exist"],
        ["--policy", "/does/not/exist"],
        ["--json", "/does/not/exist"],
        ["--html", "/does/not/exist"],
        ["--save", "/does/not/exist/checkpoint"],
    ],
)
def test_2_is_for_arguments_that_cannot_be_used(honest, more, capsys):
    try:
        code = check(honest, *more)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert capsys.readouterr().err.startswith(("secagg-verify: ", "usage: "))


@pytest.mark.parametrize(
    ("option", "more"),
    [
        ("--since", ["--since", "/does/not/exist"]),
        ("--receipt", ["--receipt", "/does/not/exist"]),
        ("--masked-inputs", ["--level", "full", "--masked-inputs", "/does/not/exist"]),
        ("--policy", ["--policy", "/does/not/exist"]),
        ("--json", ["--json", "/does/not/exist"]),
        ("--save", ["--save", "/does/not/exist/checkpoint"]),
    ],
)
def test_an_option_that_cannot_be_used_is_named(honest, option, more, capsys):
    assert check(honest, *more) == 2
    assert capsys.readouterr().err.startswith(f"secagg-verify: {option}")


def test_a_policy_that_lacks_a_table_is_named_with_what_to_add(honest, tmp_path, capsys):
    text = honest.policy.read_text()
    (tmp_path / "policy.toml").write_text(text.split("[noise]")[0])
    (tmp_path / "policy").write_bytes((honest.policy.parent / "policy").read_bytes())
    assert check(replace(honest, policy=tmp_path / "policy.toml")) == 2
    said = capsys.readouterr().err
    assert said.endswith('policy.toml: [noise] is missing: add [noise] and mechanism = "none"\n')


@pytest.mark.parametrize("data", [b'{"type":"receipt"}', b"", b"c2sp.org/tlog-proof@v2\n"])
def test_2_is_for_a_receipt_that_is_none_at_all(honest, tmp_path, data, capsys):
    (tmp_path / "kept.json").write_bytes(data)
    assert check(honest, "--receipt", tmp_path / "kept.json") == 2
    captured = capsys.readouterr()
    assert "is not a receipt as `secagg receipt` writes it; the JSON file that `secagg contribute`" in captured.err
    assert captured.out == ""


def test_1_is_for_a_receipt_that_is_one_and_does_not_hold(honest, tmp_path, capsys):
    (tmp_path / "receipt").write_bytes(honest.receipt.read_bytes().replace(b"index 9", b"index 8"))
    assert (tmp_path / "receipt").read_bytes() != honest.receipt.read_bytes()
    assert check(honest, "--receipt", tmp_path / "receipt") == 1


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.run(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("secagg-verify ")


def test_2_is_for_a_record_that_is_no_directory(honest, capsys):
    assert check(replace(honest, record=honest.policy)) == 2


def test_2_is_for_a_mistake_in_the_verifier_which_says_so_without_a_traceback(honest, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("a mistake\nof ours")

    monkeypatch.setattr(cli, "run_audit", broken)
    assert check(honest) == 2
    captured = capsys.readouterr()
    assert captured.err == "secagg-verify: internal error: RuntimeError: a mistake\\nof ours\n"
    assert captured.out == ""


def test_interruption_is_no_verdict(honest, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_audit", interrupted)
    assert check(honest) == 2


# Saved checkpoints


def test_a_checkpoint_is_saved_compared_and_replaced(honest, tmp_path, capsys):
    saved = tmp_path / "saved"
    assert check(honest, "--save", saved) == 0
    assert saved.read_bytes() == (honest.record / "checkpoint").read_bytes()
    assert check(honest, "--since", saved, "--save", saved) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_saved_checkpoint_is_not_replaced_unread(honest, tmp_path, capsys):
    saved = tmp_path / "saved"
    saved.write_bytes(b"the only thing that shows a rewritten history")
    assert check(honest, "--save", saved) == 2
    assert check(honest, "--save", saved, "--since", honest.record / "checkpoint") == 2
    assert saved.read_bytes().startswith(b"the only thing")


def test_nothing_is_saved_of_a_log_that_is_not_in_order(tmp_path, capsys):
    two = {"note": lambda note, _: Note(note.text, note.signatures[:-1])}
    assert check(write_record(tmp_path / "a", two), "--save", tmp_path / "saved") == 1
    longer = write_record(tmp_path / "b")
    (longer.record / "tile" / "0" / "000.p" / "14").unlink()
    assert check(longer, "--save", tmp_path / "saved") == 3
    assert not (tmp_path / "saved").exists()
    assert "was not saved" in capsys.readouterr().out


def test_a_checkpoint_is_saved_although_a_session_failed(tmp_path, capsys):
    assert check(failed(tmp_path / "failed"), "--save", tmp_path / "saved") == 1
    assert (tmp_path / "saved").exists()


def test_a_rewritten_history_is_caught_by_the_saved_checkpoint(honest, tmp_path, capsys):
    assert check(honest, "--save", tmp_path / "saved") == 0
    rewritten = write_record(tmp_path / "rewritten", {"open": lambda opened, _: replace(opened, retention_s=1)})
    assert check(rewritten) == 0
    assert check(rewritten, "--since", tmp_path / "saved", "--save", tmp_path / "saved") == 1
    assert (tmp_path / "saved").read_bytes() == (honest.record / "checkpoint").read_bytes()


# The other commands


def test_all_checks_are_listed_in_order_and_explained(capsys):
    assert cli.run(["list-checks"]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in listed] == [each.identifier for each in ALL_CHECKS]
    assert [line[1] for line in listed] == [LEVEL_NAMES[each.level] for each in ALL_CHECKS]
    for each in ALL_CHECKS:
        assert cli.run(["explain", each.identifier.lower()]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"{each.identifier}  {each.title}\n")
        assert all(read in out for read in each.reads)
    assert cli.run(["explain", "LOG-99"]) == 2


def test_identifiers_are_unique_and_without_gaps():
    found = [each.identifier for each in ALL_CHECKS]
    expected = [
        f"{family}-{number}"
        for family in FAMILIES
        for number in range(1, 1 + sum(each.family == family for each in ALL_CHECKS))
    ]
    assert found == expected


def test_help_names_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.run(["check", "--help"])
    assert stopped.value.code == 0
    assert "3  incomplete" in capsys.readouterr().out


def test_the_policy_that_help_shows_is_one(honest, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.run(["check", "--help"])
    shown = capsys.readouterr().out.split("such as policy.toml:\n")[1].split("\n\n")[0]
    assert len(shown.splitlines()) == 11
    key = honest.forge.registrar.public_bytes.hex()
    (tmp_path / "policy.toml").write_text(shown.replace("<64 hex digits>", key, 1))
    (tmp_path / "policy").write_bytes((honest.policy.parent / "policy").read_bytes())
    assert check(replace(honest, policy=tmp_path / "policy.toml")) == 0


def test_the_report_as_json_is_the_whole_of_it(honest, tmp_path, capsys):
    out = tmp_path / "report.json"
    assert check(honest, "--json", out, "--level", "meta") == 0
    report = json.loads(out.read_text())
    assert report["schema"] == "secagg-verify-report/1"
    assert (report["verdict"], report["exit_code"], report["level"]) == ("passed", 0, "meta")
    assert [each["id"] for each in report["checks"]] == [each.identifier for each in ALL_CHECKS]
    assert report["checkpoint"]["size"] == 14
    assert len(report["checkpoint"]["cosigned"]) == 3
    assert {each["status"] for each in report["checks"] if each["family"] == "RES"} == {"not-at-this-level"}
    assert [each["end"] for each in report["sessions"]] == ["result", "result", "aborted"]
