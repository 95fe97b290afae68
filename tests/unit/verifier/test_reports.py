"""The three reports: what they say, and that nothing of a record can steer a terminal or a browser."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from secagg.transcript.entries import SessionAbort
from secagg.transcript.note import Note
from tests.support.forge import Forge, write_record
from tests.unit.verifier.session_checks import audit_of
from verifier.checks import Finding, Level, Place, Stage, Status
from verifier.html_report import to_html
from verifier.json_report import to_json
from verifier.progress import Progress
from verifier.report import CheckReport, SessionEnd, Verdict
from verifier.run import run_audit
from verifier.statement import statement_of
from verifier.text_report import printable, time_text, to_text

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e\"'&\n"
VOID = {"meta", "br"}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return run_audit(audit_of(write_record(tmp_path_factory.mktemp("reports")), Level.SUM))


@pytest.fixture(scope="module")
def hostile(report):
    """A report in which everything that a record could choose is hostile."""
    finding = Finding(Place(HOSTILE, 1, HOSTILE), HOSTILE, HOSTILE)
    bad = {"failures": (finding,) * 10, "missing": (finding,), "excuses": ((HOSTILE, 1),)}
    checks = tuple(replace(one, status=Status.FAIL, failed=12, **bad) for one in report.checks)
    sessions = tuple(
        replace(one, base_model=HOSTILE, end=SessionEnd.ABORTED, reason=HOSTILE, answers_released=2, failed=("CON-1",))
        for one in report.sessions
    )
    return replace(report, checks=checks, sessions=sessions)


class Page(HTMLParser):
    """Notes tags, and fails where they do not nest."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page):
    found = Page()
    found.feed(page)
    assert found.open == []
    return found


def test_the_text_begins_with_the_verdict_and_has_a_line_for_each_check(report):
    text = to_text(report)
    assert text.startswith("PASSED: every check of this level passed (level sum)\n")
    for one in report.checks:
        assert len(re.findall(rf"^  {one.check.identifier} ", text, re.MULTILINE)) == 1
    assert "3 checked: 2 with a result, 1 aborted" in text


def test_nothing_of_a_record_steers_a_terminal(hostile):
    text = to_text(hostile)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "\\x1b[2J" in text
    assert "\n\"'&" not in text


def test_nothing_of_a_record_is_markup(hostile):
    page = to_html(hostile)
    found = parsed(page)
    assert "script" not in found.tags
    assert "&lt;script&gt;" in page
    assert page.isascii()
    assert "\x1b" not in page


@pytest.mark.parametrize("name", ["report", "hostile"])
def test_the_page_loads_nothing_and_runs_nothing(name, request):
    found = parsed(to_html(request.getfixturevalue(name)))
    assert not {"script", "link", "img", "iframe", "object", "form", "a"} & set(found.tags)
    names = {attribute for attribute, _ in found.attributes}
    assert not {"src", "href", "style"} & names
    assert not any(name.startswith("on") for name in names)
    page = to_html(request.getfixturevalue(name))
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_the_page_has_every_check_and_fits_paper_and_dark_screens(report):
    page = to_html(report)
    for one in report.checks:
        assert f'<td class="id">{one.check.identifier}</td>' in page
    assert "@media print" in page
    assert "prefers-color-scheme: dark" in page


def test_json_is_ascii_and_decodes(hostile):
    text = to_json(hostile)
    assert text.isascii()
    assert json.loads(text)["checks"][0]["first_failures"][0]["file"] == HOSTILE


def test_a_file_name_that_is_not_unicode_can_be_reported(report):
    finding = Finding(Place("tile/\udcff"), "neither a tile nor an entry bundle")
    checks = (CheckReport(report.checks[0].check, Status.FAIL, 1, 1, (finding,)),)
    broken = replace(report, checks=checks)
    assert "\\udcff" in to_text(broken)
    to_html(broken).encode("ascii")
    to_json(broken).encode("ascii")


def test_failures_stand_before_everything_else_on_the_page(hostile):
    page = to_html(hostile)
    assert page.index("What failed") < page.index("What it rests on") < page.index("<h2>Checks</h2>")


@pytest.mark.parametrize("level", Level)
def test_the_statement_is_about_the_level_and_names_what_it_rests_on(report, level):
    statement = statement_of(replace(report, level=level))
    text = " ".join((*statement.shows, *statement.assumptions))
    # Of the log, of the sessions, and one for each level.
    assert len(statement.shows) == int(level) + 2
    assert "SHA-256" in text
    assert ("ring-SIS" in text) == (level in {Level.PREOPEN, Level.SUM})
    assert "registrar" in " ".join(statement.limits)
    assert "no noise was added" in " ".join(statement.limits)
    assert "noise verified" not in to_text(replace(report, level=level))


def test_the_statement_claims_nothing_for_a_record_that_did_not_pass(report, hostile):
    assert statement_of(report).heading == "What this shows (level sum)"
    assert "as it is, it does not" in statement_of(hostile).heading


def test_the_statement_says_what_this_run_left_out(report):
    remarks = " ".join(statement_of(report).remarks)
    assert "not compared with an earlier checkpoint" in remarks
    assert "asks for no witness" not in remarks
    less = replace(report, compared=True, left_out=4, policy=replace(report.policy, has_quorum=False, overlap=0))
    remarks = " ".join(statement_of(less).remarks)
    assert "not compared" not in remarks
    assert "4 sessions of the log were not asked for" in remarks
    assert "asks for no witness" in remarks
    assert "two quorums" not in " ".join(statement_of(less).assumptions)
    assert "1 session of the log was not asked for, and nothing is said of it." in remarks_of(report, left_out=1)


def remarks_of(report, **changes):
    return statement_of(replace(report, **changes)).remarks


def claims(report):
    return " ".join(statement_of(report).shows)


def of_ends(report, *ends):
    """The report as if only the sessions that stand so had been checked."""
    return replace(report, sessions=tuple(one for one in report.sessions if one.end in ends))


def test_nothing_is_claimed_of_a_sum_where_no_session_was_closed(report):
    aborted = of_ends(report, SessionEnd.ABORTED)
    assert aborted.verdict is Verdict.PASSED
    for word in ("masked sum", "published sum", "adapter", "accounted for", "U3"):
        assert word not in claims(aborted)
    assert "ring-SIS" not in " ".join(statement_of(aborted).assumptions)
    for shown in (to_text(aborted), to_html(aborted)):
        assert "no sum was published in what was checked" in shown
        assert "(too few clients); its abort entry counts no answers" in " ".join(shown.split())
    assert "no sum was published" not in to_text(report)


def test_nothing_is_claimed_of_a_result_where_a_session_was_closed_and_has_none(report):
    (aborted,) = of_ends(report, SessionEnd.ABORTED).sessions
    closed = replace(report, sessions=(replace(aborted, stage=Stage.CLOSED, answers_released=1),))
    assert "The masked sum that was fixed at the close" in claims(closed)
    assert "published sum" not in claims(closed)
    assert f"{aborted.session} was aborted" in to_text(closed)
    assert "1 answer had been released: count its sum as published" in " ".join(to_text(closed).split())


def test_claims_say_of_how_many_sessions_they_are_where_it_is_not_all(report):
    assert "In the 2 sessions that were closed, the masked sum" in claims(report)
    assert "In the 2 sessions with a result, the published sum" in claims(report)
    results = of_ends(report, SessionEnd.RESULT)
    assert "The published sum, its mean" in claims(results)
    one = replace(report, sessions=report.sessions[1:])
    assert "In the 1 session with a result, the published sum" in claims(one)


def with_overlap(report, overlap, *, has_quorum=True):
    return replace(report, policy=replace(report.policy, overlap=overlap, has_quorum=has_quorum))


def test_forks_are_spoken_of_only_where_two_quorums_share_a_witness(report):
    assert "forks" in statement_of(report).against
    apart, none = with_overlap(report, 0), with_overlap(report, 0, has_quorum=False)
    for weak in (apart, none):
        assert "forks" not in to_text(weak).split("What no record can show")[0]
        assert "dishonest (two quorums" not in to_text(weak)
    assert "quorums need not overlap: two histories can each have one" in " ".join(statement_of(apart).remarks)
    assert "need not overlap" not in " ".join(statement_of(none).remarks + statement_of(report).remarks)
    assert "cosigned" not in claims(none)
    assert "cosigned" in claims(apart)


@pytest.mark.parametrize(
    ("overlap", "words"),
    [
        (1, "None of the 3 witnesses of the policy is dishonest (two quorums share at least 1)."),
        (2, "At most 1 of the 3 witnesses of the policy is dishonest (two quorums share at least 2)."),
        (3, "At most 2 of the 3 witnesses of the policy are dishonest (two quorums share at least 3)."),
    ],
)
def test_the_number_of_dishonest_witnesses_is_one_below_what_two_quorums_share(report, overlap, words):
    assert words in statement_of(with_overlap(report, overlap)).assumptions


def test_the_overlap_of_the_policy_is_the_one_that_is_reported(report):
    assert (report.policy.quorum, report.policy.overlap) == (3, 3)
    assert report.cosigned_by == ("w0", "w1", "w2")
    assert "3 known: w0, w1, w2; the policy asks for 3 witnesses; newest" in to_text(report)


def begun(directory, *steps):
    """A report on the sessions ``second``, which has a result, and ``main`` as far as it came."""
    forge = Forge()
    second = forge.second
    forge.append(forge.roster_entry())
    for step in (second.open, second.advertise, second.share, second.close, second.result):
        forge.append(step())
    for step in steps:
        forge.append(getattr(forge.main, step)())
    return run_audit(audit_of(forge.write(directory), Level.SUM))


def test_a_session_under_way_does_not_take_back_what_is_shown_of_the_others(tmp_path):
    found = begun(tmp_path, "open", "advertise", "share", "close")
    assert found.verdict.exit_code == 3
    text = to_text(found)
    words = "1 session has not ended; for the log and the 1 session that has ended, every check passed"
    assert text.startswith(f"INCOMPLETE: {words} (level sum)")
    assert f"--session {found.settled[0].session}" in text
    assert "What this shows of the log and the 1 session that has ended (level sum):" in text
    assert "as it is, it does not" not in text
    assert words in to_html(found)


def test_nothing_is_shown_where_something_else_is_missing_too(tmp_path):
    found = begun(tmp_path, "open")
    assert found.awaited
    other = replace(found.checks[-2], status=Status.UNAVAILABLE, missing=(Finding(Place(), "gone"),))
    assert not replace(found, checks=(*found.checks[:-2], other, found.checks[-1])).awaited
    failed = replace(found.checks[-2], status=Status.FAIL)
    assert not replace(found, checks=(*found.checks[:-2], failed, found.checks[-1])).awaited
    forge = Forge()
    forge.append(forge.roster_entry())
    forge.append(forge.main.open())
    report = run_audit(audit_of(forge.write(tmp_path / "asked"), Level.SUM), (forge.main.session_id, bytes(16)))
    assert not report.awaited


def test_what_a_session_was_opened_with_and_gave_is_in_every_report(report):
    (session, *_) = report.sessions
    record = json.loads(to_json(report))["sessions"][0]
    assert (record["min_contributors"], record["max_corrupt"], record["contributors"]) == (
        session.min_contributors,
        session.max_corrupt,
        session.contributors,
    )
    for shown in (to_text(report), to_html(report), to_json(report)):
        assert session.adapter_model in shown
        assert session.registrar[:16] in shown
    assert len(session.adapter_model) == len(session.registrar) == 64
    assert not of_ends(report, SessionEnd.ABORTED).sessions[0].adapter_model


def test_a_failure_says_what_it_can_be_and_stands_in_the_head(hostile, report):
    advice = "It may be a damaged download: get another copy and check again."
    assert advice in " ".join(to_text(hostile).split())
    assert advice in to_html(hostile)
    assert advice not in to_text(report)
    head = to_text(hostile).split("LOG  the log")[0]
    assert "failed     LOG-1 " in head


def test_the_statement_says_that_there_is_no_sum_where_there_is_none(report):
    aborted = tuple(one for one in report.sessions if one.end is SessionEnd.ABORTED)
    assert "was ever closed" in " ".join(statement_of(replace(report, sessions=aborted)).remarks)
    closed = tuple(replace(one, contributors=3, stage=Stage.CLOSED, answers_released=2) for one in aborted)
    remarks = " ".join(statement_of(replace(report, sessions=closed)).remarks)
    assert "has a result" in remarks
    assert "aborted after answers had been released" in remarks


def test_a_session_that_was_aborted_after_its_close_is_counted_as_published(tmp_path):
    forge = Forge()
    main = forge.main
    forge.append(forge.roster_entry())
    for step in (main.open, main.advertise, main.share, main.close):
        forge.append(step())
    forge.append(SessionAbort(main.session_id, "bad shares", 5, bytes(32)))
    found = run_audit(audit_of(forge.write(tmp_path), Level.SUM))
    assert found.verdict is Verdict.PASSED
    assert found.sessions[0].answers_released == 5
    assert "aborted after answers had been released" in to_text(found)


def test_a_record_that_cannot_be_read_at_all_is_reported(tmp_path):
    written = write_record(tmp_path, {"note": lambda note, _: Note(note.text, note.signatures[:1])})
    (written.record / "checkpoint").write_bytes(b"\xff")
    found = run_audit(audit_of(written, Level.SUM))
    assert found.verdict is Verdict.FAILED
    assert "its checkpoint could not be read" in to_text(found)
    assert json.loads(to_json(found))["checkpoint"] is None
    parsed(to_html(found))


def test_times_and_texts_have_a_form_whatever_they_are():
    assert time_text(0) == "1970-01-01 00:00:00 UTC"
    assert time_text(2**53) == f"{2**53} s after 1970"
    assert printable("a\u202eb\x00\ud800\u00e9") == "a\\u202eb\\x00\\ud800\u00e9"


def test_progress_is_for_terminals_only():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, shown in ((io.StringIO(), False), (Terminal(), True)):
        with Progress(stream) as progress:
            progress.show("at work")
        assert ("at work" in stream.getvalue()) == shown
        assert stream.getvalue().endswith("\x1b[K") == shown
