"""What the reports say of one-shot sessions: which checks are whose, and never more than a pass shows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.support.forge import MAIN
from tests.support.forge_closing import SessionForge
from tests.support.forge_one_shot import COMMITTEE_PLAN, OneShotForge
from tests.support.forge_one_shot_record import OneShotRecord, write_one_shot_record
from tests.unit.verifier.session_checks import IDLE, audit_of
from verifier import cli
from verifier.catalogue import SESSION_CHECKS
from verifier.checks import Level, Mode, Stage, Status
from verifier.html_report import to_html
from verifier.json_report import to_json
from verifier.report import SessionEnd, Verdict
from verifier.run import run_audit
from verifier.statement import statement_of
from verifier.text_report import to_text


class Mixed(OneShotRecord):
    """A pairwise session, one with an authority and one with a committee, all of them finished."""

    def _session_forge(self, around, name, _plan, edits):
        if name == "main":
            return SessionForge(around, name, MAIN, edits)
        plan = self._plans["second"] if name == "second" else COMMITTEE_PLAN
        return OneShotForge(around, name, plan, edits)

    def run(self):
        """Play all sessions, their entries interleaved."""
        pairwise, authority, committee = self.sessions
        self.append(self.roster_entry())
        for step in (
            pairwise.open,
            authority.open,
            pairwise.advertise,
            authority.commit,
            committee.open,
            pairwise.share,
            committee.close,
            pairwise.close,
            authority.close,
            committee.result,
            authority.result,
            pairwise.result,
        ):
            self.append(step())
        return self


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return run_audit(audit_of(write_one_shot_record(tmp_path_factory.mktemp("reports")), Level.SUM))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return Mixed().run().write(tmp_path_factory.mktemp("mixed"))


def of_mode(report, *modes):
    """The report as if only sessions of these modes had been checked."""
    return replace(report, sessions=tuple(one for one in report.sessions if one.mode in modes))


def shown(report):
    return " ".join(statement_of(report).shows)


def limits(report):
    return " ".join(statement_of(report).limits)


def test_in_a_record_with_sessions_of_every_mode_every_check_passes(mixed):
    found = run_audit(audit_of(mixed, Level.FULL))
    assert found.verdict is Verdict.PASSED
    assert {each.check.identifier for each in found.checks if each.status is not Status.PASS} == {"LOG-8"} | IDLE


@pytest.mark.parametrize("mode", Mode)
def test_a_run_over_sessions_of_one_mode_examines_what_is_of_that_mode_and_nothing_else(mixed, mode):
    number = {Mode.PAIRWISE: 0, Mode.AUTHORITY: 1, Mode.COMMITTEE: 2}[mode]
    found = run_audit(audit_of(mixed, Level.FULL), {mixed.forge.sessions[number].session_id})
    assert found.verdict is Verdict.PASSED
    of_sessions = {check.identifier for check in SESSION_CHECKS}
    for each in found.checks:
        if each.check.identifier in of_sessions:
            examines = mode in each.check.modes and each.check.identifier not in IDLE
            expected = Status.PASS if examines else Status.NOT_APPLICABLE
            assert each.status is expected, each.check.identifier
    for each in found.checks:
        if each.status is Status.NOT_APPLICABLE and each.check.identifier != "LOG-8":
            assert [count for _, count in each.excuses] == [1]


def test_the_mode_of_a_session_is_in_every_report(report):
    assert [each["mode"] for each in json.loads(to_json(report))["sessions"]] == [
        "committee",
        "key-authority",
        "committee",
    ]
    for text in (to_text(report), to_html(report)):
        assert "one-shot with a committee" in text
        assert "one-shot with a key authority" in text


@pytest.mark.parametrize("level", Level)
def test_the_statement_has_a_sentence_for_each_level_and_mode(report, level):
    for modes in ((Mode.COMMITTEE,), (Mode.AUTHORITY,), (Mode.COMMITTEE, Mode.AUTHORITY)):
        statement = statement_of(replace(of_mode(report, *modes), level=level))
        # Of the log once; then of each mode one, and one for each level.
        assert len(statement.shows) == 1 + len(modes) * (1 + int(level))


def test_sentences_name_the_sessions_that_they_are_about(report):
    text = shown(report)
    assert "In the 1 one-shot session with a committee with a result, the published sum" in text
    assert "In the 1 one-shot session with a key authority that was closed, the masked sum" in text
    finished = replace(report, sessions=tuple(one for one in report.sessions if one.end is SessionEnd.RESULT))
    alone = of_mode(finished, Mode.COMMITTEE)
    assert "The published sum, its mean and what is merged of it follow from that masked sum and" in shown(alone)


def test_nothing_is_said_of_answers_of_contributors_or_of_u1_where_there_are_none(report):
    text = " ".join((shown(report), statement_of(report).against))
    for words in ("answers that contributors signed", "shared keys", "both kinds of share"):
        assert words not in text


def test_nothing_is_claimed_of_a_sum_before_there_is_one(report):
    opened = replace(report, sessions=(replace(report.sessions[0], stage=Stage.OPENED, end=SessionEnd.ABORTED),))
    for words in ("masked sum", "secret sum", "adapter", "accounted"):
        assert words not in shown(opened)
    closed = replace(report, sessions=(replace(report.sessions[1], stage=Stage.CLOSED, end=SessionEnd.ABORTED),))
    assert "the one ciphertext that the close entry names" in shown(closed)
    assert "secret sum" not in shown(closed)
    assert "second small secret sum" not in " ".join(statement_of(closed).assumptions)


def test_the_statement_says_what_those_who_open_could_do_in_private(report):
    both = limits(report)
    assert "members of a committee opened no other set in private" in both
    assert "a key authority decrypted nothing but the sum" in both
    assert "waited for the attestations" in both
    committee, authority = of_mode(report, Mode.COMMITTEE), of_mode(report, Mode.AUTHORITY)
    assert "key authority decrypted" not in limits(committee)
    assert "members of a committee opened" not in limits(authority)
    assert "left out of a one-shot session with a committee" in limits(committee)
    pairwise = replace(report, sessions=tuple(replace(one, mode=Mode.PAIRWISE) for one in report.sessions))
    assert "one-shot" not in " ".join((limits(pairwise), statement_of(pairwise).against, shown(pairwise)))


def test_what_a_run_rests_on_names_the_second_opening_only_where_one_was_checked(report):
    words = "second small secret sum"
    assert words in " ".join(statement_of(report).assumptions)
    for level in (Level.META, Level.PREOPEN):
        assert words not in " ".join(statement_of(replace(report, level=level)).assumptions)


@pytest.mark.parametrize(("answers", "words"), [(0, "0 answers"), (3, "3 answers")])
def test_a_session_that_was_aborted_after_its_close_is_counted_as_published(tmp_path, answers, words):
    forge = OneShotRecord({"abort": lambda entry, _: replace(entry, answers=answers)})
    written = forge.play(forge.main, "open", "close", "abort").write(tmp_path)
    found = run_audit(audit_of(written, Level.SUM))
    assert found.verdict is Verdict.PASSED
    assert f"after its close, with {words}: count its sum as published" in " ".join(to_text(found).split())


def test_one_that_was_aborted_before_is_not(report):
    (aborted,) = (one for one in report.sessions if one.end is SessionEnd.ABORTED)
    assert f"{aborted.session} was aborted (BELOW_MINIMUM); its abort entry counts no answers" in " ".join(
        to_text(report).split()
    )


def test_explain_names_the_modes_of_a_check(capsys):
    for identifier, modes in (
        ("OPN-1", "pairwise"),
        ("OPN-7", "committee"),
        ("SUM-8", "key-authority"),
        ("OPN-10", "committee, key-authority"),
        ("SUM-1", "pairwise, committee, key-authority"),
    ):
        assert cli.run(["explain", identifier]) == 0
        assert f"\nmodes    {modes}\n" in capsys.readouterr().out
    assert cli.run(["explain", "LOG-1"]) == 0
    assert "modes" not in capsys.readouterr().out


def test_checks_of_one_shot_sessions_are_listed(capsys):
    assert cli.run(["list-checks"]) == 0
    listed = capsys.readouterr().out
    for check in SESSION_CHECKS:
        if Mode.PAIRWISE not in check.modes:
            assert f"{check.identifier:<7} " in listed
            assert check.title in listed


@pytest.mark.parametrize("old", ["keys", "attestors"])
def test_a_policy_may_leave_out_either_list_of_openers_and_misspell_none(tmp_path, old, capsys):
    written = write_one_shot_record(tmp_path)
    text = written.policy.read_text()
    head, table = text.split("[openers]\n")
    lines = table.splitlines()
    written.policy.write_text(head + "[openers]\n" + "\n".join(line for line in lines if not line.startswith(old)))
    arguments = ["check", str(written.record), "--policy", str(written.policy), "--now", "1700010060"]
    assert cli.run(arguments) == 1
    assert "SES-8" in capsys.readouterr().out
    written.policy.write_text(text.replace(f"{old} =", f"{old}x =", 2))
    assert cli.run(arguments) == 2
