"""What the reports say of noise: what was declared and what it would cost, and never that it was added."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction

import pytest

from secagg.transcript.noise import NoDifferentialPrivacy
from tests.support.forge_noise import NoisyForge
from tests.unit.verifier.session_checks import audit_of
from verifier.checks import Level
from verifier.html_report import to_html
from verifier.json_report import to_json
from verifier.run import run_audit
from verifier.statement import statement_of
from verifier.text_report import to_text

NO_NOISE = "no noise was added"
LEFT_OUT = "A client that left its noise out looks like one that added it."


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return run_audit(audit_of(NoisyForge().run().write(tmp_path_factory.mktemp("noisy")), Level.SUM))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    edit = {"second.open": lambda one, _: replace(one, noise=NoDifferentialPrivacy())}
    return run_audit(audit_of(NoisyForge(edit).run().write(tmp_path_factory.mktemp("mixed")), Level.SUM))


def words(text):
    return " ".join(text.split())


def with_noise(report, **fields):
    """The report as if its first session had declared other noise."""
    first, *others = report.sessions
    return replace(report, sessions=(replace(first, noise=replace(first.noise, **fields)), *others))


def limits(report):
    return " ".join(statement_of(report).limits)


def test_every_report_shows_mechanism_epsilon_and_budget_of_each_session(report):
    for shown in (words(to_text(report)), to_html(report)):
        assert "noise declared: skellam; this session alone costs epsilon 3.867 at delta 1e-05 if it was added" in shown
        assert "the budget of population people is epsilon 40, reservation 2" in shown
        assert "as far as the log shows, this session cost nothing" in shown
    record = json.loads(to_json(report))["sessions"][0]["noise"]
    assert record.pop("session_epsilon") == pytest.approx(3.867, abs=1e-3)
    assert record == {
        "mechanism": "skellam",
        "delta": "1/100000",
        "population": "people",
        "budget_epsilon": "40/1",
        "reservation": 2,
    }
    assert [one["noise"]["session_epsilon"] for one in json.loads(to_json(report))["sessions"]][2] == 0


def test_a_session_without_noise_shows_none(mixed):
    assert [one["noise"] is None for one in json.loads(to_json(mixed))["sessions"]] == [False, True, False]
    assert words(to_text(mixed)).count("noise declared: ") == 2


@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [(None, "what it costs is not known"), (math.inf, "no epsilon bounds it at delta 1e-05")],
)
def test_an_epsilon_that_there_is_not_is_no_number_anywhere(report, epsilon, expected):
    odd = with_noise(report, session_epsilon=epsilon)
    assert expected in words(to_text(odd))
    assert expected in to_html(odd)
    assert json.loads(to_json(odd), parse_constant=pytest.fail)["sessions"][0]["noise"]["session_epsilon"] is None


def test_the_name_of_a_population_steers_neither_terminal_nor_browser(report):
    odd = with_noise(report, population="<b>\x1b[2J\u202e", epsilon=Fraction(10**40 - 1))
    text, page = to_text(odd), to_html(odd)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "<b>" not in page
    assert page.isascii()
    assert to_json(odd).isascii()


def test_noise_is_never_said_to_have_been_added(report, mixed):
    for each in (report, mixed):
        for shown in (to_text(each), to_html(each), to_json(each)):
            assert "noise verified" not in shown.lower()
            assert "noise was verified" not in shown.lower()
        assert LEFT_OUT in limits(each)
        assert "added the noise that it declares" in " ".join(statement_of(each).assumptions)


def test_what_cannot_be_shown_depends_on_what_was_declared(report, mixed):
    assert NO_NOISE not in limits(report)
    assert "1 session declared mechanism none: no noise was added there." in limits(mixed)
    without = replace(mixed, sessions=mixed.sessions[1:2])
    assert "The declared mechanism is none: no noise was added." in limits(without)
    assert LEFT_OUT not in limits(without)
    assert "noise that it declares" not in " ".join(statement_of(without).assumptions)
    nothing = replace(mixed, sessions=())
    assert NO_NOISE not in limits(nothing)
    assert LEFT_OUT not in limits(nothing)


def test_what_is_shown_of_noise_names_the_sessions_that_declare_it(report, mixed):
    assert statement_of(report).shows[-1].startswith("In each session, which noise each contributor was to add was in")
    assert statement_of(mixed).shows[-1].startswith("In the 2 sessions that declare noise, which noise each")
    one = replace(mixed, sessions=mixed.sessions[:2])
    assert statement_of(one).shows[-1].startswith("In the 1 session that declares noise, which noise each")
    assert "If that noise was added, no population of this log spent more" in statement_of(report).shows[-1]
    without = replace(mixed, sessions=mixed.sessions[1:2])
    assert not any("noise" in sentence for sentence in statement_of(without).shows)
