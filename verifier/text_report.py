"""The report for a terminal: the verdict first, then a line for each check, then what it means."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime

from verifier.catalogue import FAMILIES
from verifier.checks import Finding, Mode, Status
from verifier.outcome import after_a_failure, counted, outcome_of
from verifier.report import CheckReport, MergeSummary, NoiseSummary, Report, SessionEnd, SessionSummary
from verifier.statement import LEVEL_NAMES, statement_of

_WIDTH = 110
_YEAR_9999_S = 253402300800

_MAX_SESSIONS = 20
_SHOWN_HEX = 16
"""Digits of a digest or key in the table of the text report; HTML and JSON have all."""

GLOSSARY = (
    ("U1, U2, U3", "the clients that came, those of them that shared keys, and those of them that contributed"),
    ("masked sum, limb sum", "the sum of all masked inputs, and the form with room for carries that it is kept in"),
    ("linear hash", "a short value of an input that adds up as inputs do, so that sums are checked without inputs"),
    ("cosigned", "signed by witnesses, who keep a log from showing different histories to different people"),
    ("registrar", "who signed the list of people that may take part"),
    ("one-shot", "of sessions in which clients send once and leave; a committee or a key authority opens the sum"),
    ("secret sum", "the sum of the contributors' mask secrets, which takes the masks off their sum and off no part"),
)
"""Words of the report that are not everybody's."""


MODE_TEXTS = {
    Mode.PAIRWISE: "pairwise",
    Mode.COMMITTEE: "one-shot with a committee",
    Mode.AUTHORITY: "one-shot with a key authority",
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
    asked = f"the policy asks for {counted(report.policy.quorum, 'witness', 'witnesses')}"
    if not report.policy.has_quorum:
        asked = "the policy asks for none"
    elif report.policy.quorum < report.policy.witnesses:
        asked += f" of {report.policy.witnesses}"
    if not report.cosigned:
        return f"none that counts; {asked}"
    newest = max(cosigned.timestamp_s for cosigned in report.cosigned)
    return f"{len(report.cosigned)} known: {', '.join(report.cosigned_by)}; {asked}; newest {time_text(newest)}"


def to_text(report: Report) -> str:
    """The whole report; every line ends in a newline."""
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    outcome = outcome_of(report)
    yield f"{report.verdict.upper()}: {outcome.sentence} (level {LEVEL_NAMES[report.level]})"
    for note in outcome.notes:
        yield from _wrapped(printable(note), "  ", "  ")
    yield ""
    yield from _facts(report)
    yield from _failures(report)
    yield from _sessions(report)
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
        ("Words", tuple(f"{word}: {meaning}." for word, meaning in GLOSSARY)),
    ):
        if texts:
            yield ""
            yield f"{heading}:"
            for text in texts:
                yield from _wrapped(text, "  - ", "    ")
    if advice := after_a_failure(report):
        yield ""
        yield from _wrapped(advice, "", "")


def _wrapped(text: str, first: str, others: str) -> list[str]:
    # An option or a digest that is broken at a hyphen could not be copied.
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)


def _facts(report: Report) -> Iterator[str]:
    if report.checkpoint is None:
        yield "log        its checkpoint could not be read"
    else:
        yield f"log        {printable(report.checkpoint.origin)}, {counted(report.checkpoint.size, 'entry', 'entries')}"
        yield f"root       {report.checkpoint.root.hex()}"
    yield f"cosigned   {printable(cosigned_text(report))}"
    yield f"policy     SHA-256 {report.policy.digest.hex()}"
    yield f"           SHA-256 {report.policy.log_digest.hex()} (log policy)"
    yield f"sessions   {session_counts(report)}"
    yield f"checked    {time_text(report.now_s)}, secagg-verify {report.version}"


def _failures(report: Report) -> Iterator[str]:
    """What failed, before everything that passed: checks of the whole log by name, those of sessions with these."""
    for check in report.checks:
        if check.failed and not any(check.check.identifier in session.failed for session in report.sessions):
            yield f"failed     {check.check.identifier} {check.check.title}"
            yield from (f"           - {finding_text(finding)}" for finding in check.failures[:1])
    for session in report.sessions:
        if session.failed:
            yield f"failed in  session {session.session}: {', '.join(session.failed)}"


def _sessions(report: Report) -> Iterator[str]:
    for session in report.sessions[:_MAX_SESSIONS]:
        yield ""
        yield f"session {session.session}  {MODE_TEXTS[session.mode]}, {printable(end_text(session))}"
        contributors = f"{session.contributors:,}" if session.contributors else "none fixed"
        yield (
            f"  contributors {contributors} (min_contributors {session.min_contributors:,}, "
            f"max_corrupt {session.max_corrupt:,}), base model {printable(session.base_model)}"
        )
        yield f"  registrar {session.registrar[:_SHOWN_HEX]}..., opened {time_text(session.opened_at_s)}"
        if session.noise is not None:
            yield from _wrapped(printable(noise_text(session.noise)), "  ", "    ")
        yield from _wrapped(merge_text(session.merge), "  ", "    ")
        if session.adapter_model:
            yield f"  merged adapter's model file SHA-256 {session.adapter_model}"
    if len(report.sessions) > _MAX_SESSIONS:
        yield ""
        yield f"{counted(len(report.sessions) - _MAX_SESSIONS, 'more session')}: see the report as HTML or JSON"


def merge_text(merge: MergeSummary) -> str:
    """How a session merges, and how good what it published is."""
    text = f"merge: {merge.strategy}"
    if merge.kind != merge.strategy:
        text += f" ({merge.kind})"
    if merge.first:
        text += f", after session {merge.first}"
    if merge.error_ppm is not None:
        text += f"; estimated error of the merged adapter {merge.error_ppm / 10_000:.2f} %"
    if merge.is_degraded:
        text += "; DEGRADED: do not deploy it without another look"
    return text


def noise_text(noise: NoiseSummary) -> str:
    """What a session declares of its noise, and what it costs if that was added."""
    if noise.session_epsilon is None:
        cost = "what it costs is not known"
    elif not noise.session_epsilon:
        cost = "as far as the log shows, this session cost nothing"
    elif not math.isfinite(noise.session_epsilon):
        cost = f"no epsilon bounds it at delta {float(noise.delta):.4g}"
    else:
        cost = f"this session alone costs epsilon {noise.session_epsilon:.4g} at delta {float(noise.delta):.4g}"
        cost += " if it was added"
    budget = f"the budget of population {noise.population} is epsilon {float(noise.epsilon):.4g}"
    return f"noise declared: {noise.mechanism}; {cost}; {budget}, reservation {noise.sequence}"


def end_text(session: SessionSummary) -> str:
    """How a session stands, with the reason of an abort."""
    if session.end is not SessionEnd.ABORTED:
        return _ENDS[session.end]
    text = f"aborted: {session.reason}"
    if session.answers_released:
        text += f" ({counted(session.answers_released, 'answer')} had been released)"
    return text


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
    if report.status is Status.PASS:
        for note in report.notes:
            yield f"          {printable(note)}"
    if report.status is Status.NOT_APPLICABLE:
        for excuse, _ in report.excuses:
            yield f"          {excuse}"


def finding_text(finding: Finding) -> str:
    """A finding on one line, with its session where the place does not name it."""
    text = str(finding)
    if finding.session and finding.session not in text:
        text = f"session {finding.session}: {text}"
    return printable(text)
