"""SES: every way to break one check of the sessions alone; all that follows from the broken thing is unavailable."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from fractions import Fraction

import pytest

from secagg.lora.layout import Layout
from secagg.transcript import canonical
from secagg.transcript.entries import SessionAbort
from secagg.transcript.record import VERSION
from secagg.transcript.statements import Absent, ShareStatement
from tests.support.forge import Forge, key_of, write_record
from tests.support.forge_session import flattened
from tests.unit.verifier.session_checks import audit_of, checked, failing, failing_after, found_of, reason, unclean
from verifier.checks import InputRefusedError, Level, Status
from verifier.entry_order import Kind, is_legal
from verifier.pairwise_values import GRAPH_PARAMETERS
from verifier.run import run_audit
from verifier.session_record import SessionEntries, SessionRecord


def with_floor(written, old, new):
    text = written.policy.read_text()
    assert old in text
    written.policy.write_text(text.replace(old, new))
    return written


def set_fields(**fields):
    """An edit that changes fields of a record."""
    return lambda record, _: replace(record, **fields)


def changed(index, edit):
    """An edit of one item of a mapping or list."""

    def apply(items, forge):
        items = items.copy()
        items[index] = edit(items[index])
        return items

    return apply


# SES-1


def with_entry(entry):
    """An edit that logs one more entry, as bytes."""
    return lambda entries, _: [*entries, entry]


STRANGE = [b"", b"{}", b"not JSON", b"[" * 60_000]
STRANGE += [b'{"type":"session-pause","version":2}', b'{"type": "roster","version":2}']


@pytest.mark.parametrize("entry", STRANGE)
def test_ses_1_fails_for_an_entry_that_is_no_canonical_record_of_a_known_type(tmp_path, entry):
    results = found_of(tmp_path, entries=with_entry(entry))
    assert failing(results) == ["SES-1"]
    assert results["SES-2"].status is Status.UNAVAILABLE
    assert "index 14" in reason(results, "SES-1")


def test_ses_1_fails_for_a_known_entry_written_in_another_way(tmp_path):
    def spaced(entries, _):
        return [*entries[:-1], entries[-1].replace(b",", b", ")]

    assert failing_after(tmp_path, entries=spaced) == ["SES-1"]


@pytest.mark.parametrize("kind", ["roster", "session-pause"])
def test_an_entry_of_another_version_leaves_the_verdict_open(tmp_path, kind):
    entry = canonical.encode({"type": kind, "version": VERSION + 1})
    results = found_of(tmp_path, entries=with_entry(entry))
    assert failing(results) == []
    assert results["SES-1"].status is Status.UNAVAILABLE
    assert "version" in str(results["SES-1"].missing[0])


# SES-2

ENTRY_NAMES = ["roster", "main.open", "second.open", "main.adv", "aborted.open", "second.adv", "main.shared"]
ENTRY_NAMES += ["aborted.adv", "second.shared", "main.close", "aborted.abort", "second.close", "second.result"]
ENTRY_NAMES += ["main.result"]
AT = {name: number for number, name in enumerate(ENTRY_NAMES)}


def moved(name, after):
    """An edit that puts an entry after another one."""

    def apply(entries, _):
        entry = entries[AT[name]]
        rest = [each for each in entries if each is not entry]
        place = rest.index(entries[AT[after]]) + 1
        return [*rest[:place], entry, *rest[place:]]

    return apply


def test_the_entries_of_the_forge_are_as_these_tests_take_them_to_be(tmp_path):
    forge = Forge().run()
    assert forge.entries[AT["main.close"]] == forge.main.closing.to_bytes()
    assert forge.entries[AT["aborted.abort"]] == forge.aborted.aborted.to_bytes()
    assert forge.entries[AT["second.result"]] == forge.second.finished.to_bytes()


@pytest.mark.parametrize("pair", ["main.result main.shared", "main.open main.shared", "roster main.open"])
def test_ses_2_fails_for_entries_out_of_order(tmp_path, pair):
    name, after = pair.split()
    assert failing_after(tmp_path, entries=moved(name, after)) == ["SES-2"]


@pytest.mark.parametrize("name", ENTRY_NAMES[1:])
def test_ses_2_fails_for_a_second_entry_of_any_kind_even_the_same(tmp_path, name):
    assert failing_after(tmp_path, entries=lambda entries, _: [*entries, entries[AT[name]]]) == ["SES-2"]


def test_ses_2_fails_for_another_close_of_a_session_that_nobody_asked_about(tmp_path):
    def forked(entries, forge):
        other = replace(forge.second.closing, limb_sum=bytes(32)).to_bytes()
        place = AT["second.close"]
        return [*entries[:place], other, *entries[place:]]

    assert failing_after(tmp_path, entries=forked) == ["SES-2"]


@pytest.mark.parametrize("name", ["main.open", "main.adv", "main.shared", "second.close"])
def test_ses_2_fails_for_an_entry_that_is_left_out(tmp_path, name):
    def without(entries, _):
        return [entry for number, entry in enumerate(entries) if number != AT[name]]

    assert failing_after(tmp_path, entries=without) == ["SES-2"]


def test_ses_2_fails_for_an_abort_after_the_result(tmp_path):
    def aborted(entries, forge):
        return [*entries, SessionAbort(forge.main.session_id, "too late", 0, bytes(32)).to_bytes()]

    assert failing_after(tmp_path, entries=aborted) == ["SES-2"]


def test_ses_2_fails_where_only_another_registrar_logged_the_roster(tmp_path):
    def others(entry, forge):
        return replace(entry, head=replace(entry.head, registrar=key_of("another registrar").public_bytes))

    assert failing_after(tmp_path, roster_entry=others) == ["SES-2"]


def test_exactly_the_prefixes_of_the_order_with_at_most_an_abort_behind_them_are_legal():
    orders = [
        (Kind.OPEN, Kind.ADVERTISED, Kind.SHARED, Kind.CLOSE, Kind.RESULT),
        (Kind.OPEN_COMMITTEE, Kind.ONE_SHOT_CLOSE, Kind.ONE_SHOT_RESULT),
        (Kind.OPEN_AUTHORITY, Kind.COMMITTED, Kind.ONE_SHOT_CLOSE, Kind.ONE_SHOT_RESULT),
    ]
    legal = {order[:size] for order in orders for size in range(1, len(order) + 1)}
    legal |= {(*order[:size], Kind.ABORT) for order in orders for size in range(1, len(order))}
    for size in range(5):
        for kinds in itertools.product(Kind, repeat=size):
            assert is_legal(kinds) == (kinds in legal), kinds
    for order in orders:
        assert is_legal(order)
        assert not is_legal((*order, Kind.ABORT))


# SES-3


def test_ses_3_fails_for_a_session_of_another_coordinator(tmp_path):
    edit = set_fields(coordinator=key_of("another coordinator").public_bytes)
    assert failing_after(tmp_path, open=edit) == ["SES-3"]


def test_ses_3_fails_for_a_session_that_names_another_log(tmp_path):
    assert failing_after(tmp_path, open=set_fields(log="example.org/other")) == ["SES-3"]


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("min_contributors = 3", "min_contributors = 4", "min_contributors"),
        ('"1/20"', '"1/10"', "max_corrupt"),
        ('base_models = ["', 'base_models = ["' + "00" * 32 + '"]#', "base_model_digest"),
    ],
)
def test_ses_3_fails_below_a_floor_of_the_policy(tmp_path, old, new, field):
    results = checked(with_floor(write_record(tmp_path), old, new), Level.SUM)
    assert failing(results) == ["SES-3"]
    assert results["SES-3"].failures[0].place.field == field


def test_ses_3_takes_a_fraction_that_is_just_met_and_any_base_model_where_none_is_named(tmp_path):
    written = with_floor(write_record(tmp_path), '"1/20"', '"1/11"')
    written = with_floor(written, 'base_models = ["', "base_models = []#")
    assert unclean(checked(written, Level.SUM)) == {}


def parameters_of(size, **fields):
    """What ``GRAPH_PARAMETERS`` says of a session that so many joined."""
    forge = Forge()
    opened = replace(forge.main.open(), encoding=flattened(60), **fields)
    forge.main.advertise()
    entries = SessionEntries(opened, replace(forge.main.advertised, count=size))

    class Files:
        @staticmethod
        def below(_path):
            return None

    class Audit:
        record = Files

    return SessionRecord(Audit, entries).get(GRAPH_PARAMETERS)


@pytest.mark.parametrize(
    ("size", "fields", "reason"),
    [
        (2, {"min_contributors": 2, "max_corrupt": 0}, "no safe degree and threshold"),
        (11, {"expected_dropout": Fraction(5, 11)}, "have to confirm"),
        # A sparse graph bears what a quorum of the cohort does not.
        (1000, {"expected_dropout": Fraction(1, 2), "max_corrupt": 1, "min_contributors": 3}, "have to confirm"),
    ],
)
def test_ses_3_owns_the_lack_of_a_safe_degree_and_threshold(size, fields, reason):
    with pytest.raises(InputRefusedError) as refused:
        parameters_of(size, **fields)
    assert refused.value.owner == "SES-3"
    assert reason in str(refused.value)
    assert parameters_of(11, expected_dropout=Fraction(4, 11)).degree == 10


# SES-4


@pytest.mark.parametrize("name", ["keys.jsonl", "u2.jsonl"])
@pytest.mark.parametrize("damage", ["swapped", "one less", "one more", "not terminated", "an empty line", "garbage"])
def test_ses_4_fails_for_a_list_that_is_not_the_logged_one(tmp_path, name, damage):
    def edit(files, _):
        lines = files[name].splitlines(keepends=True)
        damaged = {
            "swapped": [lines[1], lines[0], *lines[2:]],
            "one less": lines[:-1],
            "one more": [*lines, lines[-1]],
            "not terminated": [*lines[:-1], lines[-1][:-1]],
            "an empty line": [*lines, b"\n"],
            "garbage": [b"garbage\n", *lines[1:]],
        }
        return files | {name: b"".join(damaged[damage])}

    assert failing_after(tmp_path, files=edit) == ["SES-4"]


@pytest.mark.parametrize(
    "edits",
    [
        {"advertised": set_fields(root=bytes(32))},
        {"shared": set_fields(root=bytes(32))},
        {"shared": set_fields(count=9)},
        {"result": set_fields(count=7)},
        {"aborted.abort": set_fields(answers=1)},
        {"u1": lambda leaves, _: [leaves[1], leaves[0], *leaves[2:]]},
        {"u1": lambda leaves, forge: [forge.signed(0, share_of(forge, 0)), *leaves[1:]]},
        {"u2": lambda leaves, forge: [forge.signed(0, forge.advertise_statements[0]), *leaves[1:]]},
        {"u2": lambda leaves, _: [leaves[1], leaves[0], *leaves[2:]]},
        {"u2": changed(7, lambda _: Absent(6))},
        {"open": set_fields(encoding=flattened(60, 10))},
        {"open": set_fields(min_contributors=9)},
        {"open": set_fields(min_contributors=7, max_corrupt=5)},
    ],
    ids=[
        "root of U1",
        "root of U2",
        "count of U2",
        "count of the result",
        "answers before a close",
        "U1 not ascending",
        "U1 with another statement",
        "U2 with another statement",
        "U2 out of place",
        "absent out of place",
        "more than there is room for",
        "below the minimum",
        "no quorum",
    ],
)
def test_ses_4_fails_for_sets_that_are_not_what_they_should_be(tmp_path, edits):
    assert failing_after(tmp_path, **edits) == ["SES-4"]


def share_of(forge, index):
    digest = hashlib.sha256(b"").digest()
    return ShareStatement(forge.digest, digest, forge.keys[index].public_bytes, digest, digest, digest)


def test_ses_4_fails_for_a_contributor_that_did_not_share_keys(tmp_path):
    edits = {"u2": changed(0, lambda _: Absent(0)), "shared": set_fields(count=9)}
    results = found_of(tmp_path, **edits)
    assert failing(results) == ["SES-4"]
    assert "accepted, but did not share keys" in reason(results, "SES-4")


@pytest.mark.parametrize("name", ["keys.jsonl", "u2.jsonl", "roster.jsonl", "layout.json", "contributions.jsonl"])
def test_a_file_that_is_missing_leaves_the_verdict_open(tmp_path, name):
    results = found_of(tmp_path, files=lambda files, _: {key: files[key] for key in files if key != name})
    assert failing(results) == []
    assert Status.UNAVAILABLE in unclean(results).values()


# SES-5


def resigned(index, **fields):
    """An edit of statements: the client itself signs something else."""
    return changed(index, lambda statement: replace(statement, **fields))


@pytest.mark.parametrize(
    ("edits", "file"),
    [
        ({"advertise": resigned(0, session=bytes(32))}, "keys.jsonl"),
        ({"share": resigned(0, session=bytes(32))}, "u2.jsonl"),
        ({"share": resigned(0, advertised=bytes(32))}, "u2.jsonl"),
        ({"headers": resigned(0, session=bytes(32))}, "contributions.jsonl"),
        ({"headers": resigned(0, shared=bytes(32))}, "contributions.jsonl"),
    ],
)
def test_ses_5_fails_for_a_statement_that_was_made_for_something_else(tmp_path, edits, file):
    results = found_of(tmp_path, **edits)
    assert failing(results) == ["SES-5"]
    place = results["SES-5"].failures[0].place
    assert place.file.endswith(file)
    assert place.line == 1


# SES-6


def partial(directory, steps):
    """A record with one session that took so many steps."""
    forge = Forge()
    main = forge.main
    forge.append(forge.roster_entry())
    for step in (main.open, main.advertise, main.share, main.close, main.result)[:steps]:
        forge.append(step())
    return forge.write(directory)


@pytest.mark.parametrize("level", [Level.META, Level.PREOPEN, Level.SUM])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_ses_6_lets_only_a_session_pass_that_has_come_to_an_end(tmp_path, steps, level):
    results = checked(partial(tmp_path, steps), level)
    assert failing(results) == []
    enough = steps == 5 or (steps == 4 and level is Level.PREOPEN)
    assert results["SES-6"].status is (Status.PASS if enough else Status.UNAVAILABLE)
    assert unclean(results) == ({} if enough else {"SES-6": Status.UNAVAILABLE})


# SES-7


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("layout.json", b"layer.0", b"layer.1"),
        ("layout.json", b"}", b"} "),
        ("adapter.json", b'"lora_alpha":4', b'"lora_alpha":5'),
        ("adapter.json", b"CAUSAL_LM", b"\xff"),
    ],
)
def test_ses_7_fails_for_a_description_that_the_open_entry_does_not_name(tmp_path, name, old, new):
    def edit(files, _):
        assert old in files[name]
        return files | {name: files[name].replace(old, new)}

    assert failing_after(tmp_path, **{"aborted.files": edit}) == ["SES-7"]


def test_ses_7_fails_for_a_layout_of_another_dimension_or_that_does_not_fit_the_template(tmp_path):
    name = "base_model.model.layer.0"
    longer = Layout.from_shapes({f"{name}.lora_A.weight": (2, 15), f"{name}.lora_B.weight": (16, 2)})
    other_rank = Layout.from_shapes({f"{name}.lora_A.weight": (3, 4), f"{name}.lora_B.weight": (16, 3)})
    assert other_rank.dimension == 60
    for number, layout in enumerate((longer, other_rank)):
        edit = {"aborted.layout": lambda _, __, layout=layout: layout}
        assert failing_after(tmp_path / str(number), **edit) == ["SES-7"]


# The frame


def test_sessions_that_were_not_asked_for_are_left_out_but_not_of_the_order(tmp_path):
    # Not the contribution of the receipt, which is checked whatever is asked for.
    written = write_record(tmp_path, {"contributions": changed(1, lambda signed: replace(signed, signature=bytes(64)))})
    audit = audit_of(written, Level.SUM)
    report = run_audit(audit, {written.forge.second.session_id})
    assert report.verdict.exit_code == 0
    assert (len(report.sessions), report.left_out) == (1, 2)
    assert run_audit(audit_of(written, Level.SUM), {written.forge.main.session_id}).verdict.exit_code == 1
    assert run_audit(audit_of(written, Level.SUM), {bytes(16)}).verdict.exit_code == 3


def test_a_failure_names_session_file_line_and_field(tmp_path):
    results = found_of(tmp_path, contributions=changed(0, lambda signed: replace(signed, signature=bytes(64))))
    finding = results["CON-1"].failures[0]
    assert finding.session == hashlib.sha256(b"session main").digest()[:16].hex()
    assert (finding.place.line, finding.place.field) == (1, "signature")
    assert finding.place.file == f"sessions/{finding.session}/contributions.jsonl"
