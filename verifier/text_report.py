"""The report for a terminal: the verdict first, then a line for each check, then what it means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime

from verifier.catalogue import FAMILIES
from verifier.checks import Finding, Status
from verifier.report import CheckReport, Report, SessionEnd, Verdict
from verifier.statement import LEVEL_NAMES, statement_of

_WIDTH = 110
_YEAR_9999_S = 253402300800

VERDICTS = {
    Verdict.PASSED: "every check of this level passed",
    Verdict.FAILED: "at least one check failed",
    Verdict.INCOMPLETE: "no check failed, but not everything could be checked",
}


def printable(text: str) -> str:
    """``text`` on one line, without what could steer a terminal: whoever made the record chose parts of it."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def time_text(time_s: int) -> str:
    """A time as people read it, in UTC."""
    if not 0 <= time_s < _YEAR_9999_S:
        return f"{time_s} s after 1970"
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def session_counts(report: Report) -> str:
    """How many sessions were checked, and how they stand."""
    parts = [f"{report.count(end)} {words}" for end, words in _ENDS.items() if report.count(end)]
    text = f"{len(report.sessions)} checked"
    if parts:
        text += ": " + ", ".join(parts)
    return f"{text}; {report.left_out} left out" if report.left_out else text


_ENDS = {
    SessionEnd.RESULT: "with a result",
    SessionEnd.ABORTED: "aborted",
    SessionEnd.UNDER_WAY: "not ended",
}


def cosigned_text(report: Report) -> str:
    """Who vouches for the checkpoint, and when the newest did."""
    if not report.cosigned:
        return "none that counts"
    newest = max(cosigned.timestamp_s for cosigned in report.cosigned)
    return f"{len(report.cosigned)} of {report.policy.witnesses} known witnesses, newest {time_text(newest)}"


def to_text(report: Report) -> str:
    """The whole report; every line ends in a newline."""
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.verdict.upper()}: {VERDICTS[report.verdict]} (level {LEVEL_NAMES[report.level]})"
    yield ""
    yield from _facts(report)
    for family, about in FAMILIES.items():
        yield ""
        yield f"{family}  {about}"
        for check in report.of_family(family):
            yield from _check_lines(check)
    statement = statement_of(report)
    for heading, texts in (
        (statement.heading, (*statement.shows, statement.against)),
        ("It rests on", statement.assumptions),
        ("Not covered by this run", statement.remarks),
        ("What no record can show", statement.limits),
    ):
        if texts:
            yield ""
            yield f"{heading}:"
            for text in texts:
                yield from textwrap.wrap(text, _WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _facts(report: Report) -> Iterator[str]:
    if report.checkpoint is None:
        yield "log        its checkpoint could not be read"
    else:
        yield f"log        {printable(report.checkpoint.origin)}, {report.checkpoint.size:,} entries"
        yield f"root       {report.checkpoint.root.hex()}"
    yield f"cosigned   {cosigned_text(report)}"
    yield f"policy     SHA-256 {report.policy.digest.hex()}"
    yield f"           SHA-256 {report.policy.log_digest.hex()} (log policy)"
    yield f"sessions   {session_counts(report)}"
    yield f"checked    {time_text(report.now_s)}, secagg-verify {report.version}"
    for session in report.sessions:
        if session.failed:
            yield f"failed in  session {session.session}: {', '.join(session.failed)}"


def _check_lines(report: CheckReport) -> Iterator[str]:
    counted = f"{report.examined:,}" if report.status is not Status.NOT_AT_THIS_LEVEL else ""
    yield f"  {report.check.identifier:<6}  {report.status.value:<17} {counted:>9}  {report.check.title}"
    if report.failed:
        for finding in report.failures:
            yield f"          - {finding_text(finding)}"
        if report.failed > len(report.failures):
            yield f"          - and {report.failed - len(report.failures):,} more"
    for finding in report.missing:
        yield f"          ? {finding_text(finding)}"
    if report.status is Status.NOT_APPLICABLE:
        for excuse, _ in report.excuses:
            yield f"          {excuse}"


def finding_text(finding: Finding) -> str:
    """A finding on one line, with its session where the place does not name it."""
    text = str(finding)
    if finding.session and finding.session not in text:
        text = f"session {finding.session}: {text}"
    return printable(text)
