"""The report as one page for people: no scripts, nothing loaded from anywhere, fit to print and to attach to a letter.

Everything that comes from the record passes through ``_text``, which escapes it.
"""

from __future__ import annotations

import html
from collections.abc import Iterator

from verifier.catalogue import FAMILIES
from verifier.checks import Status
from verifier.outcome import after_a_failure, counted, outcome_of
from verifier.report import CheckReport, Report, SessionSummary
from verifier.statement import LEVEL_NAMES, statement_of
from verifier.text_report import (
    GLOSSARY,
    MODE_TEXTS,
    cosigned_text,
    end_text,
    finding_text,
    merge_text,
    noise_text,
    printable,
    session_counts,
    time_text,
)

_MAX_SESSIONS = 1000
"""Rows of the table of sessions; failed ones stand first."""

_WORDS = {
    Status.PASS: "pass",
    Status.FAIL: "fail",
    Status.UNAVAILABLE: "unavailable",
    Status.NOT_APPLICABLE: "does not apply",
    Status.NOT_AT_THIS_LEVEL: "not at this level",
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6570; --line: #d5dade; --page: #ffffff; --tint: #f4f6f7;
  --good: #17663a; --good-tint: #e6f2ea; --bad: #a3201d; --bad-tint: #fbe9e7; --open: #7d5200; --open-tint: #fbf1dc; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #9aa5b0; --line: #39424b; --page: #14181c;
  --tint: #1d2329; --good: #7fd1a0; --good-tint: #16301f; --bad: #ff9d94; --bad-tint: #3b1a19; --open: #f0c36b;
  --open-tint: #33280f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 58rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.5rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.1rem; }
h3 { margin: 0; font-size: .95rem; }
p, ul { margin: .5rem 0; }
li { margin: .35rem 0; }
.lead { margin: 0; color: var(--soft); }
.verdict { margin: 1.5rem 0; padding: 1rem 1.25rem; border-left: .4rem solid; border-radius: .25rem; }
.verdict strong { display: block; font-size: 1.35rem; letter-spacing: .01em; }
.verdict span { color: var(--ink); overflow-wrap: anywhere; }
.verdict .more { display: block; margin-top: .35rem; font-size: .92rem; }
.passed { border-color: var(--good); background: var(--good-tint); color: var(--good); }
.failed { border-color: var(--bad); background: var(--bad-tint); color: var(--bad); }
.incomplete { border-color: var(--open); background: var(--open-tint); color: var(--open); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.25rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: .86em ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .92rem; }
th, td { padding: .45rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
tbody th { font-weight: 600; }
tr.family th { padding-top: 1.1rem; background: none; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tbody.session tr:first-child td { border-bottom: none; }
td.id { white-space: nowrap; font-variant-numeric: tabular-nums; }
.status { display: inline-block; padding: 0 .5rem; border-radius: .8rem; font-size: .85rem; font-weight: 600;
  white-space: nowrap; }
.pass { background: var(--good-tint); color: var(--good); }
.fail { background: var(--bad-tint); color: var(--bad); }
.unavailable { background: var(--open-tint); color: var(--open); }
.not-applicable, .not-at-this-level { background: var(--tint); color: var(--soft); font-weight: 400; }
.findings { margin: .35rem 0 0; padding-left: 1.1rem; font-size: .9rem; overflow-wrap: anywhere; }
.findings li { margin: .15rem 0; }
.note { color: var(--soft); font-size: .9rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft);
  font-size: .85rem; }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --tint: #f2f2f2; --good: #11512d;
    --good-tint: #e8f3ec; --bad: #8c1512; --bad-tint: #fbe9e7; --open: #664300; --open-tint: #fbf1dc; }
  body { max-width: none; padding: 0; font-size: 10pt; line-height: 1.4; }
  h2 { margin: 1.5rem 0 .5rem; } th, td { padding: .2rem .4rem; } tr.family th { padding-top: .7rem; }
  .verdict, .status { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .scroll { overflow: visible; }
  h2 { break-after: avoid; } tr, li, .verdict { break-inside: avoid; } thead { display: table-header-group; }
  @page { margin: 18mm 16mm; }
}
"""


def to_html(report: Report) -> str:
    """The page, in ASCII."""
    page = "\n".join(_page(report)) + "\n"
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _text(text: str) -> str:
    """Text as HTML: whoever made the record chose parts of it."""
    return html.escape(printable(text), quote=True)


def _code(text: str) -> str:
    return f"<code>{_text(text)}</code>"


def _page(report: Report) -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield '<html lang="en">'
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # Should anything have slipped through unescaped, a browser still runs and loads nothing.
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="referrer" content="no-referrer">'
    yield f"<title>Audit of a secure-aggregation record: {report.verdict.value}</title>"
    yield f"<style>{_STYLE}</style>"
    yield "</head>"
    yield "<body>"
    yield from _head(report)
    yield from _findings(report, "What failed", Status.FAIL)
    yield from _findings(report, "What could not be checked", Status.UNAVAILABLE)
    yield from _statement(report)
    yield from _sessions(report)
    yield from _checks(report)
    yield "<h2>Words</h2>"
    yield "<dl>"
    yield from (f"<dt>{_text(word)}</dt><dd>{_text(meaning)}</dd>" for word, meaning in GLOSSARY)
    yield "</dl>"
    if advice := after_a_failure(report):
        yield f"<p>{_text(advice)}</p>"
    yield f"<footer>Written by secagg-verify {_text(report.version)}. Each check has a number that stays; "
    yield "<code>secagg-verify explain ID</code> says what it reads and proves. Whoever has the same record "
    yield "and policy gets the same result.</footer>"
    yield "</body>"
    yield "</html>"


def _head(report: Report) -> Iterator[str]:
    yield "<header>"
    yield "<h1>Audit of a secure-aggregation record</h1>"
    yield f'<p class="lead">{time_text(report.now_s)}, level {LEVEL_NAMES[report.level]}</p>'
    yield "</header>"
    yield f'<div class="verdict {report.verdict.value}"><strong>{report.verdict.value.capitalize()}</strong>'
    outcome = outcome_of(report)
    yield f"<span>{_text(_sentence(outcome.sentence))}</span>"
    yield from (f'<span class="more">{_text(note)}</span>' for note in outcome.notes)
    yield "</div>"
    yield "<dl>"
    if report.checkpoint is None:
        yield "<dt>Log</dt><dd>its checkpoint could not be read</dd>"
    else:
        entries = counted(report.checkpoint.size, "entry", "entries")
        yield f"<dt>Log</dt><dd>{_text(report.checkpoint.origin)}, {entries}</dd>"
        yield f"<dt>Root</dt><dd>{_code(report.checkpoint.root.hex())}</dd>"
    yield f"<dt>Cosigned by</dt><dd>{_text(cosigned_text(report))}</dd>"
    yield f"<dt>Policy</dt><dd>SHA-256 {_code(report.policy.digest.hex())}</dd>"
    yield f"<dt>Log policy</dt><dd>SHA-256 {_code(report.policy.log_digest.hex())}</dd>"
    yield f"<dt>Sessions</dt><dd>{_text(session_counts(report))}</dd>"
    yield "</dl>"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _findings(report: Report, heading: str, status: Status) -> Iterator[str]:
    """What the checks of one bad status found first, each cause once; the table below has more."""
    causes: dict[str, list[CheckReport]] = {}
    for check in report.checks:
        if check.status is status:
            first = (check.failures or check.missing)[0]
            causes.setdefault(finding_text(first), []).append(check)
    if not causes:
        return
    yield f"<h2>{heading}</h2>"
    yield "<ul>"
    for cause, checks in causes.items():
        names = ", ".join(check.check.identifier for check in checks)
        title = f" {_text(checks[0].check.title)}" if len(checks) == 1 else ""
        yield f'<li><strong>{names}</strong>{title}<br><span class="note">{_text(cause)}</span></li>'
    yield "</ul>"


def _statement(report: Report) -> Iterator[str]:
    statement = statement_of(report)
    for heading, texts in (
        (statement.heading, (*statement.shows, statement.against)),
        ("What it rests on", statement.assumptions),
        ("What this run does not cover", statement.remarks),
        ("What no record can show", statement.limits),
    ):
        if texts:
            yield f"<h2>{_text(heading)}</h2>"
            yield "<ul>"
            yield from (f"<li>{_text(text)}</li>" for text in texts)
            yield "</ul>"


def _sessions(report: Report) -> Iterator[str]:
    if not report.sessions:
        return
    yield "<h2>Sessions</h2>"
    yield '<div class="scroll"><table>'
    columns = ("Session", "Contributors", "min_contributors", "max_corrupt", "End", "Checks")
    headers = "".join(f'<th scope="col">{column}</th>' for column in columns)
    yield f"<thead><tr>{headers}</tr></thead>"
    ordered = sorted(report.sessions, key=lambda session: (not session.failed, not session.unavailable))
    for session in ordered[:_MAX_SESSIONS]:
        yield _session_row(session)
    yield "</table></div>"
    if len(ordered) > _MAX_SESSIONS:
        yield f'<p class="note">{len(ordered) - _MAX_SESSIONS:,} more, of which none is in a worse state.</p>'


def _session_row(session: SessionSummary) -> str:
    if session.failed:
        outcome = f"{_status(Status.FAIL)} {_text(', '.join(session.failed))}"
    elif session.unavailable:
        outcome = f"{_status(Status.UNAVAILABLE)} {_text(', '.join(session.unavailable))}"
    else:
        outcome = _status(Status.PASS)
    numbers = (session.contributors, session.min_contributors, session.max_corrupt)
    facts = [
        f"{MODE_TEXTS[session.mode]}, opened {time_text(session.opened_at_s)}, base model {_text(session.base_model)}",
        f"registrar {_code(session.registrar)}",
    ]
    if session.noise is not None:
        facts.append(_text(noise_text(session.noise)))
    facts.append(_text(merge_text(session.merge)))
    if session.adapter_model:
        facts.append(f"merged adapter\u2019s model file, SHA-256 {_code(session.adapter_model)}")
    cells = "".join(f'<td class="number">{number:,}</td>' for number in numbers)
    return (
        f'<tbody class="session"><tr><td>{_code(session.session)}</td>{cells}'
        f"<td>{_text(end_text(session))}</td><td>{outcome}</td></tr>"
        f'<tr><td colspan="6" class="note">{"<br>".join(facts)}</td></tr></tbody>'
    )


def _status(status: Status) -> str:
    return f'<span class="status {status.value}">{_WORDS[status]}</span>'


def _checks(report: Report) -> Iterator[str]:
    yield "<h2>Checks</h2>"
    yield '<div class="scroll"><table>'
    yield '<thead><tr><th scope="col">Check</th><th scope="col">Status</th><th scope="col">What holds if it passes</th>'
    yield '<th scope="col">Examined</th></tr></thead>'
    for family, about in FAMILIES.items():
        yield f'<tbody><tr class="family"><th colspan="4" scope="rowgroup"><h3>{family}: {_text(about)}</h3></th></tr>'
        for check in report.of_family(family):
            yield from _check_row(check)
        yield "</tbody>"
    yield "</table></div>"


def _check_row(report: CheckReport) -> Iterator[str]:
    examined = "" if report.status is Status.NOT_AT_THIS_LEVEL else f"{report.examined:,}"
    yield f'<tr><td class="id">{report.check.identifier}</td><td>{_status(report.status)}</td>'
    yield f"<td>{_text(report.check.title)}"
    findings = [finding_text(finding) for finding in (*report.failures, *report.missing)]
    if report.failed > len(report.failures):
        findings.append(f"and {report.failed - len(report.failures):,} more failures")
    if report.status is Status.PASS:
        findings.extend(report.notes)
    if report.status is Status.NOT_APPLICABLE:
        findings.extend(excuse for excuse, _ in report.excuses)
    if findings:
        yield '<ul class="findings">' + "".join(f"<li>{_text(finding)}</li>" for finding in findings) + "</ul>"
    yield f'</td><td class="number">{examined}</td></tr>'
