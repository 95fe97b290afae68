"""What reports say of merges: the strategy, the session that one follows, the estimated error, and a warning."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.support.forge_following import FollowingForge, two_session
from tests.unit.verifier.session_checks import audit_of
from verifier.checks import Level
from verifier.html_report import to_html
from verifier.json_report import to_json
from verifier.report import MergeSummary
from verifier.run import run_audit
from verifier.text_report import merge_text, to_text

GOOD = MergeSummary("sketch", "sketch", "", 123_456, is_degraded=False)
POOR = replace(GOOD, error_ppm=512_345, is_degraded=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of a record of two sessions, of which the second has an adapter."""
    written = FollowingForge(two_session()).run().write(tmp_path_factory.mktemp("record"))
    return run_audit(audit_of(written, Level.SUM))


def with_merge(report, merge):
    return replace(report, sessions=(replace(report.sessions[-1], merge=merge),))


def words(text):
    return " ".join(text.split())


def test_a_merge_is_told_in_one_line():
    assert merge_text(MergeSummary("factors", "factors")) == "merge: factors"
    assert merge_text(GOOD) == "merge: sketch; estimated error of the merged adapter 12.35 %"
    assert merge_text(MergeSummary("two-session", "two-session-range")) == "merge: two-session (two-session-range)"
    follows = merge_text(MergeSummary("two-session", "two-session-projection", "ab" * 16))
    assert follows == f"merge: two-session (two-session-projection), after session {'ab' * 16}"


def test_a_degraded_adapter_is_named_so_and_no_other():
    assert "DEGRADED" in merge_text(POOR)
    assert all("DEGRADED" not in merge_text(one) for one in (GOOD, replace(GOOD, is_degraded=None)))


@pytest.mark.parametrize("merge", [GOOD, POOR])
def test_text_and_page_say_it(report, merge):
    shown = with_merge(report, merge)
    for text in (to_text(shown), to_html(shown)):
        assert merge_text(merge) in words(text)


def test_text_and_page_name_the_session_that_one_follows(report):
    for text in (to_text(report), to_html(report)):
        assert f"after session {report.sessions[0].session}" in words(text)
        assert "merge: two-session (two-session-range)" in words(text)


def test_the_json_report_has_it_as_numbers(report):
    first, second = json.loads(to_json(report))["sessions"]
    assert first["merge"] == {
        "strategy": "two-session",
        "kind": "two-session-range",
        "first_session": "",
        "estimated_error_ppm": None,
        "degraded": None,
    }
    assert second["merge"]["first_session"] == first["session"]
    assert second["merge"]["estimated_error_ppm"] == report.sessions[1].merge.error_ppm
    assert second["merge"]["degraded"] is False
    (poor,) = json.loads(to_json(with_merge(report, POOR)))["sessions"]
    assert (poor["merge"]["estimated_error_ppm"], poor["merge"]["degraded"]) == (512_345, True)
