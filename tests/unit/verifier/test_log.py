"""LOG: every way to break one check of the log alone, and a rewrite of history that only a saved checkpoint shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secagg.crypto.notes import cosign, log_key, sign_checkpoint
from secagg.transcript import tiles
from secagg.transcript.checkpoint import Checkpoint
from secagg.transcript.merkle import leaf_hash
from secagg.transcript.note import Note
from secagg.transcript.policy import LogPolicy, LogRule
from tests.support.forge import COSIGNED_AT_S, ORIGIN, QUORUM, WITNESSES, Forge, key_of, write_record
from tests.unit.verifier.session_checks import audit_of, failing, reason, unclean
from verifier.audit import Brought
from verifier.checks import Level, Status
from verifier.report import Verdict
from verifier.run import run_audit

OTHER_KEY = key_of("another log")
OLDEST_OF_A_QUORUM_S = WITNESSES - QUORUM
"""After ``COSIGNED_AT_S``: all that are younger are one too few."""


def found(written, saved=None, now_s=COSIGNED_AT_S + 60):
    """What became of the checks of level meta."""
    audit = replace(audit_of(written, Level.META), now_s=now_s, brought=Brought(None, None, saved))
    return {one.check.identifier: one for one in run_audit(audit).checks if one.status is not Status.NOT_AT_THIS_LEVEL}


def with_log_policy(written, edit):
    """The record under another policy for logs."""
    path = written.policy.parent / "policy"
    path.write_text(edit(LogPolicy.parse(path.read_text())).to_text())
    return written


def with_policy(written, old, new):
    """The record under another policy."""
    text = written.policy.read_text()
    assert old in text
    written.policy.write_text(text.replace(old, new))
    return written


def with_note(written, edit):
    """The record with another checkpoint, as bytes."""
    path = written.record / "checkpoint"
    path.write_bytes(edit(path.read_bytes()))
    return written


def without_witnesses(policy):
    return LogPolicy(policy.logs, policy.witnesses, policy.groups, "none")


def many_entries(entries, _):
    """Enough rosters for a second tile: they belong to no session."""
    return [*entries, *[entries[0]] * (300 - len(entries))]


@pytest.fixture
def written(tmp_path):
    return write_record(tmp_path)


@pytest.fixture
def long(tmp_path):
    return write_record(tmp_path, {"entries": many_entries})


def test_an_honest_record_is_clean(written):
    assert unclean(found(written)) == {}


# LOG-1


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data.replace(b"\n14\n", b"\n014\n"),
        lambda data: data[:-1],
        lambda data: data + data[data.index("—".encode()) :],
        lambda data: data.replace(b"\n14\n", b"\n14\nan extension\n"),
        lambda _: b"",
        lambda _: b"\xff" * 100_000,
    ],
    ids=["leading zero", "no newline", "lines twice", "extension", "empty", "not text and too long"],
)
def test_log_1_fails_for_a_note_outside_the_profile_and_nothing_else_does(written, edit):
    results = found(with_note(written, edit))
    assert failing(results) == ["LOG-1"]
    assert results["LOG-6"].status is Status.UNAVAILABLE


# LOG-2


def test_log_2_fails_for_an_origin_that_the_policy_does_not_name(written):
    def other_origin(policy):
        rule = policy.logs[0]
        return replace(policy, logs=(replace(rule, key=replace(rule.key, name="example.org/other")),))

    assert failing(found(with_log_policy(written, other_origin))) == ["LOG-2"]


def test_log_2_fails_for_a_log_with_the_right_origin_and_another_key(written):
    def other_key(policy):
        rule = policy.logs[0]
        return replace(policy, logs=(replace(rule, key=replace(rule.key, public_key=OTHER_KEY.public_bytes)),))

    results = found(with_log_policy(written, other_key))
    assert failing(results) == ["LOG-2"]
    assert "no signature by the key" in reason(results, "LOG-2")


def two_logs(policy):
    """The policy with another log in front."""
    other = LogRule(log_key("example.org/other", OTHER_KEY.public_bytes))
    return replace(policy, logs=(other, *policy.logs))


def test_log_2_finds_the_log_among_several(written):
    assert failing(found(with_log_policy(written, two_logs))) == []


# LOG-3


def test_log_3_fails_for_a_signature_that_does_not_verify(tmp_path):
    def forged(note, forge):
        first, *others = note.signatures
        return Note(note.text, (replace(first, signature=bytes(64)), *others))

    results = found(write_record(tmp_path, {"note": forged}))
    assert failing(results) == ["LOG-3"]
    assert results["LOG-4"].status is Status.UNAVAILABLE


# LOG-4


def test_log_4_fails_below_the_quorum(tmp_path):
    written = write_record(tmp_path, {"note": lambda note, _: Note(note.text, note.signatures[:-1])})
    results = found(written)
    assert failing(results) == ["LOG-4"]
    assert "2 of 3" in reason(results, "LOG-4")


def test_log_4_counts_a_witness_that_cosigned_twice_once(tmp_path):
    def twice(note, forge):
        again = cosign(forge.witnesses[0], "witness0.example", note.text, COSIGNED_AT_S + 7)
        return Note(note.text, (*note.signatures[:-1], again))

    assert failing(found(write_record(tmp_path, {"note": twice}))) == ["LOG-4"]


def test_log_4_does_not_count_a_witness_that_the_policy_does_not_know(tmp_path):
    def stranger(note, forge):
        line = cosign(key_of("stranger"), "stranger.example", note.text, COSIGNED_AT_S)
        return Note(note.text, (*note.signatures[:-1], line))

    assert failing(found(write_record(tmp_path, {"note": stranger}))) == ["LOG-4"]


def test_log_4_fails_for_a_known_witness_whose_cosignature_does_not_verify_although_others_are_a_quorum(tmp_path):
    def one_more(note, forge):
        wrong = cosign(forge.witnesses[0], "witness0.example", note.text, COSIGNED_AT_S + 7)
        tampered = replace(wrong, signature=wrong.signature[:-1] + bytes([wrong.signature[-1] ^ 1]))
        return note.with_signatures([tampered])

    assert failing(found(write_record(tmp_path, {"note": one_more}))) == ["LOG-4"]


def test_log_4_takes_a_cosignature_of_another_checkpoint_for_none(tmp_path):
    def replayed(note, forge):
        other = Checkpoint(ORIGIN, 3, bytes(32)).to_text()
        line = cosign(forge.witnesses[2], "witness2.example", other, COSIGNED_AT_S)
        return Note(note.text, (*note.signatures[:-1], line))

    assert failing(found(write_record(tmp_path, {"note": replayed}))) == ["LOG-4"]


def test_log_4_does_not_apply_where_the_policy_asks_for_no_witness(written):
    results = found(with_log_policy(written, without_witnesses))
    assert results["LOG-4"].status is Status.NOT_APPLICABLE
    assert failing(results) == []


# LOG-5


@pytest.mark.parametrize(("early_s", "expected"), [(300, []), (301, ["LOG-5"])])
def test_log_5_fails_for_a_cosignature_more_than_five_minutes_ahead(written, early_s, expected):
    newest = COSIGNED_AT_S + 2
    assert failing(found(written, now_s=newest - early_s)) == expected


@pytest.mark.parametrize(("age_s", "expected"), [(3600, []), (3601, ["LOG-5"]), (3602, ["LOG-5"]), (3603, ["LOG-5"])])
def test_log_5_fails_where_no_quorum_of_cosignatures_is_as_young_as_the_policy_asks(written, age_s, expected):
    """The three witnesses cosigned one second after the other; a single young one could be a lie."""
    with_policy(written, "[registrar]", "max_age_s = 3600\n[registrar]")
    assert failing(found(written, now_s=COSIGNED_AT_S + OLDEST_OF_A_QUORUM_S + age_s)) == expected


def test_log_5_fails_where_nobody_cosigned_and_the_age_is_limited(tmp_path):
    written = write_record(tmp_path, {"note": lambda note, _: Note(note.text, note.signatures[:1])})
    with_log_policy(written, without_witnesses)
    assert found(written)["LOG-5"].status is Status.NOT_APPLICABLE
    with_policy(written, "[registrar]", "max_age_s = 3600\n[registrar]")
    assert failing(found(written)) == ["LOG-5"]


# LOG-6


def test_log_6_fails_for_a_root_that_the_entries_do_not_have(tmp_path):
    written = write_record(tmp_path, {"checkpoint": lambda checkpoint, _: replace(checkpoint, root=bytes(32))})
    results = found(written)
    assert failing(results) == ["LOG-6"]
    assert results["SES-1"].status is results["CON-1"].status is Status.UNAVAILABLE


def test_log_6_fails_for_entries_in_another_order(written):
    path = written.record / tiles.bundle_path(0, 14)
    first, second, *others = tiles.decode_bundle(path.read_bytes())
    path.write_bytes(tiles.encode_bundle([second, first, *others]))
    assert failing(found(written)) == ["LOG-6"]


def test_log_6_fails_for_a_bundle_with_fewer_entries_than_its_name_says(written):
    path = written.record / tiles.bundle_path(0, 14)
    path.write_bytes(tiles.encode_bundle(tiles.decode_bundle(path.read_bytes())[:-1]))
    results = found(written)
    assert failing(results) == ["LOG-6"]
    assert "13 entries, expected 14" in reason(results, "LOG-6")


def test_log_6_fails_for_a_torn_bundle(written):
    path = written.record / tiles.bundle_path(0, 14)
    path.write_bytes(path.read_bytes()[:-1])
    assert failing(found(written)) == ["LOG-6"]


def test_a_checkpoint_that_claims_more_entries_than_there_are_is_not_believed(tmp_path):
    edits = {"checkpoint": lambda checkpoint, _: replace(checkpoint, size=2**62)}
    results = found(write_record(tmp_path, edits))
    assert failing(results) == []
    assert results["LOG-6"].status is results["LOG-7"].status is Status.UNAVAILABLE


# LOG-7


def test_log_7_fails_for_a_tile_with_another_hash(written):
    path = written.record / tiles.tile_path(0, 0, 14)
    path.write_bytes(bytes(32) + path.read_bytes()[32:])
    assert failing(found(written)) == ["LOG-7"]


def test_log_7_fails_for_a_torn_tile(written):
    path = written.record / tiles.tile_path(0, 0, 14)
    path.write_bytes(path.read_bytes()[:-1])
    assert failing(found(written)) == ["LOG-7"]


def test_log_7_cannot_pass_without_a_tile(long):
    (long.record / tiles.tile_path(1, 0, 1)).unlink()
    results = found(long)
    assert failing(results) == []
    assert results["LOG-7"].status is Status.UNAVAILABLE


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/000.p/15",
        "tile/0/001",
        "tile/1/000.p/1",
        "tile/entries/001.p/1",
    ],
)
def test_log_7_fails_for_what_a_log_of_this_size_does_not_have(written, path):
    (written.record / path).parent.mkdir(parents=True, exist_ok=True)
    (written.record / path).write_bytes(bytes(32))
    results = found(written)
    assert failing(results) == ["LOG-7"]
    assert reason(results, "LOG-7") == f"{path}: not of a log of this size"


@pytest.mark.parametrize(
    "path",
    [
        "tile/index.html",
        "tile/0/index.html",
        "tile/0/000.p/index.html",
        "tile/entries/index.html?C=N;O=D",
        "tile/entries/.000.swp",
        "tile/0/000.p/014",
        "tile/0/.t",
    ],
)
def test_log_7_does_not_read_what_has_no_name_of_a_tile_or_bundle(written, path):
    before = found(written)["LOG-7"]
    (written.record / path).write_bytes(bytes(32))
    results = found(written)
    assert failing(results) == []
    assert results["LOG-7"].examined == before.examined


def leftover(written, width, *, bundle):
    """What the first tile or bundle was when the log had ``width`` entries; its path and content."""
    entries = tiles.decode_bundle((written.record / tiles.bundle_path(0, 256)).read_bytes())[:width]
    path = tiles.bundle_path(0, width) if bundle else tiles.tile_path(0, 0, width)
    data = tiles.encode_bundle(entries) if bundle else b"".join(map(leaf_hash, entries))
    (written.record / path).parent.mkdir(exist_ok=True)
    return written.record / path, data


@pytest.mark.parametrize("bundle", [True, False])
def test_log_7_tolerates_a_partial_tile_or_bundle_that_a_full_one_replaced_and_reads_it(long, bundle):
    path, data = leftover(long, 40, bundle=bundle)
    path.write_bytes(data)
    assert unclean(found(long)) == {}
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert failing(found(long)) == ["LOG-7"]


# LOG-8


def checkpoint_of(forge, entries):
    """The cosigned checkpoint of the forge's log when it had these entries."""
    forge.entries = entries
    return forge.note().to_bytes()


@pytest.mark.parametrize("size", [1, 8, 13])
def test_log_8_passes_for_a_log_that_goes_on(written, size):
    saved = checkpoint_of(written.forge, written.forge.entries[:size])
    assert found(written, saved)["LOG-8"].status is Status.PASS


def test_log_8_passes_for_the_same_checkpoint_and_does_not_apply_without_one(written):
    assert found(written, (written.record / "checkpoint").read_bytes())["LOG-8"].status is Status.PASS
    assert found(written)["LOG-8"].status is Status.NOT_APPLICABLE


def test_log_8_fails_for_a_record_that_is_older_than_what_was_seen(written):
    forge = written.forge
    results = found(written, checkpoint_of(forge, [*forge.entries, forge.entries[0]]))
    assert failing(results) == ["LOG-8"]
    assert "older" in reason(results, "LOG-8")


def test_log_8_alone_fails_for_a_history_that_log_and_witnesses_rewrote_together(tmp_path):
    honest = Forge().run()
    rewritten = write_record(tmp_path, {"open": lambda opened, _: replace(opened, retention_s=1)})
    assert unclean(found(rewritten)) == {}
    results = found(rewritten, checkpoint_of(honest, honest.entries[:8]))
    assert failing(results) == ["LOG-8"]
    assert "rewritten" in reason(results, "LOG-8")


def test_a_rewrite_without_the_witnesses_fails_the_quorum(tmp_path):
    edits = {
        "open": lambda opened, _: replace(opened, retention_s=1),
        "note": lambda note, _: Note(note.text, note.signatures[:1]),
    }
    assert failing(found(write_record(tmp_path, edits))) == ["LOG-4"]


def cosigned(forge, checkpoint, key=None):
    note = sign_checkpoint(key or forge.coordinator, checkpoint)
    lines = [cosign(key, f"witness{n}.example", note.text, COSIGNED_AT_S) for n, key in enumerate(forge.witnesses)]
    return note.with_signatures(lines)


def test_log_8_fails_for_a_saved_checkpoint_of_another_log_that_the_policy_knows_and_that_says_the_same(written):
    with_log_policy(written, two_logs)
    ours = Checkpoint.parse(Note.parse((written.record / "checkpoint").read_bytes()).text)
    theirs = replace(ours, origin="example.org/other")
    saved = cosigned(written.forge, theirs, OTHER_KEY).to_bytes()
    results = found(written, saved)
    assert failing(results) == ["LOG-8"]
    assert "of another log" in reason(results, "LOG-8")


@pytest.mark.parametrize("kind", ["of another log", "not cosigned", "not signed", "not a note"])
def test_log_8_fails_for_a_saved_checkpoint_that_the_policy_does_not_trust(written, kind):
    forge = written.forge
    note = Note.parse(checkpoint_of(forge, forge.entries[:8]))
    saved = {
        "of another log": cosigned(forge, Checkpoint("example.org/other", 8, bytes(32))).to_bytes(),
        "not cosigned": Note(note.text, note.signatures[:1]).to_bytes(),
        "not signed": Note(note.text, note.signatures[1:]).to_bytes(),
        "not a note": b"\x00",
    }[kind]
    assert failing(found(written, saved=saved)) == ["LOG-8"]


def test_an_empty_log_is_no_verdict(written, tmp_path):
    empty = tmp_path / "empty"
    (empty / "tile").mkdir(parents=True)
    (empty / "checkpoint").write_bytes(checkpoint_of(written.forge, []))
    audit = replace(audit_of(replace(written, record=empty), Level.META), brought=Brought())
    report = run_audit(audit)
    assert report.verdict is Verdict.INCOMPLETE
    assert report.verdict.exit_code == 3
