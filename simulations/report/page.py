"""The report as one page: no scripts, nothing loaded from anywhere, fit to print. The same outcome, the same bytes.

Names of scenarios and words of attacks come from files and machines: everything passes through ``text``.
"""

from __future__ import annotations

from collections.abc import Iterator

from simulations.report.adversaries import adversaries
from simulations.report.costs import bytes_plot, time_plot
from simulations.report.course import course_plots
from simulations.report.curve import Curve
from simulations.report.facts import (
    AFTER_THE_END,
    COUNTED,
    DROPPED_LATER,
    KINDS,
    NoteGroup,
    arrived_count,
    bytes_words,
    costs_of,
    counted_noun,
    fates_by_phase,
    faults_words,
    kinds_of,
    models_words,
    note_groups,
    phase_words,
    plan_words,
    record_text,
    refusals_of,
    seconds_words,
    sentence_of,
)
from simulations.report.markup import figure, table, text
from simulations.report.odds import interval_words, success_plot
from simulations.report.style import STYLE
from simulations.scenarios.outcome import Outcome

_MOST_NOTES = 60
"""Rows of the table of notes; the JSON has all."""


def to_html(outcome: Outcome, curve: Curve | None = None) -> str:
    """The page, in ASCII; ``curve`` is success against dropout rate, where it was simulated.

    Raises:
        PlotsMissingError: matplotlib is not installed.
    """
    page = "\n".join(_page(outcome, curve)) + "\n"
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _page(outcome: Outcome, curve: Curve | None) -> Iterator[str]:
    name = text(outcome.scenario.get("name", "a session"))
    yield "<!DOCTYPE html>"
    yield '<html lang="en">'
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # Should anything have slipped through unescaped, a browser still runs and loads nothing.
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="referrer" content="no-referrer">'
    yield f"<title>Simulation of {name}: {text(sentence_of(outcome).headline)}</title>"
    yield f"<style>{STYLE}</style>"
    yield "</head>"
    yield "<body>"
    yield "<main>"
    yield from _head(outcome)
    yield from _course(outcome)
    yield from _cost(outcome)
    yield from _success(curve)
    yield from adversaries(outcome)
    yield "</main>"
    yield "<footer>Times are virtual: machines of the product ran in a simulated network, and nobody waited. "
    yield "Whoever simulates the same scenario with the same seed gets the same page.</footer>"
    yield "</body>"
    yield "</html>"


def _head(outcome: Outcome) -> Iterator[str]:
    scenario, sentence = outcome.scenario, sentence_of(outcome)
    yield "<header>"
    yield f"<h1>Simulated session: {text(scenario.get('name', ''))}</h1>"
    yield f'<p class="lead">{text(scenario.get("about", ""))}</p>'
    yield "</header>"
    yield f'<div class="verdict {sentence.verdict}"><strong>{text(sentence.headline)}</strong>'
    yield from (f"<span>{text(detail)}</span>" for detail in sentence.details)
    yield "</div>"
    costs, came = costs_of(outcome), arrived_count(outcome)
    numbers = [
        *plan_words(scenario.get("plan") or {}),
        ("In the sum", f"{outcome.counted:,}"),
        *((kind.capitalize(), f"{count:,}") for kind, count in kinds_of(outcome).items() if kind != COUNTED),
        ("Over after", seconds_words(outcome.seconds)),
    ]
    if came:
        numbers += [
            ("A client sent", bytes_words(sum(cost.up for cost in costs) / came)),
            ("A client received", bytes_words(sum(cost.down for cost in costs) / came)),
        ]
    yield '<dl class="numbers">'
    yield from (f"<div><dt>{text(title)}</dt><dd>{text(number)}</dd></div>" for title, number in numbers)
    yield "</dl>"
    facts = [
        ("Dropouts", models_words(scenario.get("dropouts") or ())),
        ("Lines", models_words([scenario["lines"]] if scenario.get("lines") else ())),
        ("Faults", faults_words(scenario.get("faults") or ())),
        ("Coordinator takes", f"{bytes_words(scenario['capacity'])}/s at most" if scenario.get("capacity") else ""),
        ("Record", record_text(outcome)),
    ]
    yield '<dl class="facts">'
    yield from (f"<dt>{text(title)}</dt><dd>{text(words)}</dd>" for title, words in facts if words)
    yield "</dl>"


def _course(outcome: Outcome) -> Iterator[str]:
    yield "<h2>Who dropped when</h2>"
    for plot in course_plots(outcome):
        yield figure(plot, _COURSE_NOTES.get(plot.name, ""))
    lost = fates_by_phase(outcome)
    kinds = [kind for kind in KINDS if any(kind in fates for fates in lost.values())]
    if not kinds:
        yield '<p class="note">Nobody was lost.</p>'
        return
    shown = [phase for phase, fates in lost.items() if fates or phase != AFTER_THE_END]
    rows = [[phase_words(phase), *(f"{lost[phase].get(kind, 0):,}" for kind in kinds)] for phase in shown]
    yield table("Clients that were lost on the way, by phase", ["Phase", *kinds], rows)
    if DROPPED_LATER in kinds:
        yield '<p class="note">Dropped later: its input was taken, and is in the sum; then it fell silent.</p>'
    if reasons := refusals_of(outcome):
        words = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
        yield f'<p class="note">Clients refused to go on: {text(words)}.</p>'


_COURSE_NOTES = {
    "course": "Every phase is drawn as wide as every other; below stands when it began. A phase waits for those "
    "who are silent until its deadline, and most of what happens in it happens at its beginning: its first quarter "
    "takes half of its width.",
    "lanes": "From when a client came to when its fate was decided.",
}


def _cost(outcome: Outcome) -> Iterator[str]:
    yield "<h2>Time and bytes</h2>"
    yield figure(time_plot(outcome))
    yield from _notes(outcome)
    yield figure(bytes_plot(outcome))
    costs, came = costs_of(outcome), max(1, arrived_count(outcome))
    rows = [
        [
            phase_words(cost.phase),
            "" if cost.seconds is None else seconds_words(cost.seconds),
            f"{cost.calls:,}",
            bytes_words(cost.up / came),
            bytes_words(cost.down / came),
            bytes_words(cost.up),
            bytes_words(cost.down),
            bytes_words(cost.institutions),
        ]
        for cost in costs
    ]
    up, down, others = (
        sum(counts)
        for counts in zip(*((each.up, each.down, each.institutions) for each in costs), strict=True)
    ) if costs else (0, 0, 0)  # fmt: skip
    total = [bytes_words(each) for each in (up / came, down / came, up, down, others)]
    columns = ["Phase", "Time", "Calls", "Up a client", "Down a client", "Up", "Down", "Institutions"]
    yield table(
        f"By phase; what a client sent and received is the mean over {counted_noun(arrived_count(outcome), 'client')}",
        columns,
        rows,
        ["All", seconds_words(outcome.seconds), f"{sum(cost.calls for cost in costs):,}", *total],
    )


def _notes(outcome: Outcome) -> Iterator[str]:
    groups = note_groups(outcome.notes)
    if not groups:
        return
    rows = [[seconds_words(group.first_s), group.node, _group_words(group)] for group in groups[:_MOST_NOTES]]
    yield table("What happened to machines", ["When", "Machine", "What"], rows, words_from=1)
    if len(groups) > _MOST_NOTES:
        yield f'<p class="note">{len(groups) - _MOST_NOTES:,} more: the JSON has all of them.</p>'


def _group_words(group: NoteGroup) -> str:
    if group.times == 1:
        return group.words
    return f"{group.words}, {group.times:,} times until {seconds_words(group.last_s)}"


def _success(curve: Curve | None) -> Iterator[str]:
    if curve is None:
        return
    yield "<h2>Success against dropout rate</h2>"
    plan = curve.plan
    yield figure(
        success_plot(curve),
        f"Sessions with {counted_noun(plan.clients, 'client')} ({plan.protocol}), of whom at least {plan.minimum:,} "
        f"have to be in the sum; {_runs_words(curve)}. Theory assumes that every client drops out on its own.",
    )
    rows = []
    for point in curve.points:
        theory = curve.theory_at(point.rate)
        rows.append(
            [
                f"{100 * point.rate:.3g} %",
                f"{point.successes:,} of {point.runs:,}",
                f"{point.interval.lower:.3f} to {point.interval.upper:.3f}",
                "" if theory is None else interval_words(theory),
            ]
        )
    yield table("Sessions that ended with a sum", ["Dropout rate", "Simulated", "Wilson 95 % interval", "Theory"], rows)


def _runs_words(curve: Curve) -> str:
    runs = {point.runs for point in curve.points}
    return f"{min(runs):,} runs at each rate" if len(runs) == 1 else f"{min(runs):,} to {max(runs):,} runs at each rate"
