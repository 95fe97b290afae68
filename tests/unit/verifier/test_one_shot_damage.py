"""Whatever byte of a record of one-shot sessions is flipped, cut or added: the verifier fails or says what is missing.

It never raises. Every file is damaged in turn and at many places, at level full; consistent rewrites are caught by a
saved checkpoint alone.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secagg.transcript.openers import NamedMembers
from secagg.transcript.statements import Dropped
from tests.support.forge import COSIGNED_AT_S
from tests.support.forge_one_shot import context_of
from tests.support.forge_one_shot_record import write_one_shot_record
from tests.unit.verifier.damaging import BAD, after, damage, exit_code
from tests.unit.verifier.session_checks import audit_of
from verifier import cli
from verifier.audit import Brought
from verifier.checks import Level
from verifier.run import run_audit


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_one_shot_record(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def files(written):
    """Every file that is read: of the record, the masked inputs of those in a sum, and the receipt."""
    found = [path for path in sorted(written.record.rglob("*")) if path.is_file()]
    for session in written.forge.sessions:
        for index in getattr(session, "accepted", ()):
            digest = hashlib.sha256(session.uploads[index].tobytes()).hexdigest()
            found.append(written.masked_inputs / f"{digest}.bin")
    return [*found, written.receipt]


def test_the_record_is_clean_as_it_is_and_has_every_file_of_one_shot_sessions(written, files, capsys):
    assert exit_code(written, capsys) == 0
    names = {path.name for path in files if path.is_relative_to(written.record)}
    assert {"commitments.jsonl", "context.bin", "ciphertext-sum.bin", "attestations.jsonl", "secret-sum.bin"} <= names


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
            assert after(path, content, written, capsys) in ({2} if path == written.receipt else BAD), path


def test_a_flipped_bit_is_noticed_at_either_end_and_in_the_middle_of_every_file(written, files, capsys):
    for path in files:
        before = path.read_bytes()
        for position in {0, len(before) // 3, len(before) // 2, len(before) - 1}:
            flipped = bytearray(before)
            flipped[position] ^= 1
            bad = {2} if path == written.receipt and position == 0 else BAD
            assert after(path, bytes(flipped), written, capsys) in bad, (path, position)


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


# Rewrites that agree with themselves


REWRITES = {
    "parameters": {"open": lambda opened, _: replace(opened, retention_s=1)},
    "who is named": {
        "close": lambda closing, _: replace(closing, opener=NamedMembers((0, 1, 2))),
        "answers": lambda answers, _: answers[:3],
    },
    "who dropped": {"dispositions": lambda leaves, _: [leaf for leaf in leaves if not isinstance(leaf, Dropped)]},
    "the reason of an abort": {"aborted.abort": lambda entry, _: replace(entry, reason="NOBODY_CAME")},
    "another authority's key": {
        "authority.opening": lambda _, session: session.authority(context_of("other")),
        "authority.files": lambda files, _: files | {"context.bin": context_of("other")},
    },
}
"""Edits that everybody whose key it takes has followed, the log and its witnesses among them."""


@pytest.mark.parametrize("name", REWRITES)
def test_a_rewrite_that_agrees_with_itself_is_caught_by_the_saved_checkpoint(written, tmp_path, name, capsys):
    rewritten = write_one_shot_record(tmp_path, REWRITES[name])
    rewritten.receipt.unlink()
    arguments = ["check", rewritten.record, "--policy", rewritten.policy, "--now", COSIGNED_AT_S + 60]
    assert cli.run(list(map(str, arguments))) == 0
    assert cli.run([*map(str, arguments), "--since", str(written.record / "checkpoint")]) == 1
    assert "history was rewritten" in capsys.readouterr().out


def test_a_rewrite_is_caught_by_a_receipt_of_what_was_there(written, tmp_path):
    rewritten = write_one_shot_record(tmp_path, REWRITES["who dropped"])
    audit = replace(audit_of(rewritten, Level.META), brought=Brought(None, written.receipt.read_bytes()))
    report = run_audit(audit)
    failed = [each.check.identifier for each in report.checks if each.failed]
    assert (failed, report.verdict.exit_code) == (["RCP-1"], 1)


def test_what_was_attested_besides_is_in_no_entry(tmp_path):
    """Attestations count by who signed them: one more than there have to be can be taken away."""
    more = {"authority.attestations": lambda leaves, session: session.all_attestations()}
    first, second = write_one_shot_record(tmp_path / "more", more), write_one_shot_record(tmp_path / "enough")
    assert (first.record / "checkpoint").read_bytes() == (second.record / "checkpoint").read_bytes()
    assert run_audit(audit_of(first, Level.SUM)).verdict.exit_code == 0
    assert run_audit(audit_of(second, Level.SUM)).verdict.exit_code == 0
