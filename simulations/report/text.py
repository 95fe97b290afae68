"""What the terminal is told of an outcome: plain lines, numbers in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from simulations.report.facts import (
    KINDS,
    arrived_count,
    bytes_words,
    costs_of,
    counted_noun,
    deaths_of,
    fates_by_phase,
    kinds_of,
    phase_words,
    record_text,
    refusals_of,
    result_words,
    seconds_words,
    sentence_of,
)
from simulations.report.odds import influences
from simulations.scenarios.outcome import Outcome
from verifier.text_report import printable

_WIDTH = 120
_MOST_DETAILS, _MOST_ATTACKS, _MOST_INFLUENCES = 4, 15, 12
"""Lines of parts that could have many: the page and the JSON have the rest."""


def to_text(outcome: Outcome) -> str:
    """At most about 40 lines, with a final newline."""
    return "\n".join(printable(line).rstrip() for line in _lines(outcome)) + "\n"


def _lines(outcome: Outcome) -> Iterator[str]:
    scenario = outcome.scenario
    plan = scenario.get("plan") or {}
    yield _shortened(f"{scenario.get('name', '')}: {scenario.get('about', '')}")
    yield (
        f"{plan.get('protocol', '')}, {counted_noun(len(outcome.clients), 'client')}, "
        f"{plan.get('dimension', 0):,} coordinates, at least {plan.get('minimum', 0):,} in the sum, "
        f"{plan.get('corrupt', 0):,} may collude, seed {plan.get('seed', 0)}"
    )
    yield ""
    sentence = sentence_of(outcome)
    yield f"{sentence.headline.rstrip('.')}, after {seconds_words(outcome.seconds)} of virtual time."
    yield from _some([_shortened(f"  {detail}") for detail in sentence.details], _MOST_DETAILS)
    yield ""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in kinds_of(outcome).items())
    yield f"clients   {arrived_count(outcome):,} came: {kinds}"
    if reasons := refusals_of(outcome):
        shown = [f"{reason} {count:,}" for reason, count in reasons.items()]
        yield _shortened(f"refused   {', '.join(shown)}")
    yield _shortened(f"record    {record_text(outcome)}")
    yield _shortened(f"learned   {'; '.join(outcome.learned) or 'nothing beyond what was published'}")
    yield ""
    yield from _phases(outcome)
    yield from _machines(outcome)
    yield from _attacks(outcome)
    yield from _influence(outcome)


def _phases(outcome: Outcome) -> Iterator[str]:
    lost, came = fates_by_phase(outcome), max(1, arrived_count(outcome))
    kinds = [kind for kind in KINDS if any(kind in fates for fates in lost.values())]
    costs = costs_of(outcome)
    names = [*lost, *(cost.phase for cost in costs if cost.phase not in lost)]
    by_name = {cost.phase: cost for cost in costs}
    rows = [["phase", "time", *kinds, "up", "down", "up a client", "down a client", "institutions"]]
    for name in names:
        cost, fates = by_name.get(name), lost.get(name, {})
        numbers = [f"{fates[kind]:,}" if kind in fates else "" for kind in kinds]
        if cost is None:
            rows.append([phase_words(name), "", *numbers, "", "", "", "", ""])
            continue
        counts = (cost.up, cost.down, cost.up / came, cost.down / came, cost.institutions)
        time = "" if cost.seconds is None else seconds_words(cost.seconds)
        rows.append([phase_words(name), time, *numbers, *(bytes_words(count) if count else "" for count in counts)])
    yield from _aligned(rows)


def _machines(outcome: Outcome) -> Iterator[str]:
    deaths = deaths_of(outcome.notes)
    if deaths:
        yield ""
        words = [node if count == 1 else f"{node} ({count} times)" for node, count in deaths.items()]
        yield _shortened(f"died      {', '.join(words)}")


def _attacks(outcome: Outcome) -> Iterator[str]:
    if not outcome.attacks:
        return
    yield ""
    width = max(len(str(attack["name"])) for attack in outcome.attacks)
    # What went wrong first: it must not be what is left out.
    ordered = sorted(outcome.attacks, key=lambda attack: (attack["as_it_should"], not attack["succeeded"]))
    lines = []
    for attack in ordered:
        refusals = attack.get("refusals") or ()
        refused = f"; {refusals[0]}" if refusals else ""
        words = result_words(attack)
        end = words.upper() if not attack["as_it_should"] else words
        lines.append(_shortened(f"attack    {attack['name']!s:{width}}  {end}  {attack.get('ended', '')}{refused}"))
    yield from _some(lines, _MOST_ATTACKS)


def _influence(outcome: Outcome) -> Iterator[str]:
    rows = influences(outcome.influence)
    if not rows:
        return
    yield ""
    width = max(len(row.label) for row in rows)
    # What did more than it may stands first: it must not be what is left out.
    ordered = sorted(rows, key=lambda row: row.is_within)
    lines = [f"poison    {row.label:{width}}  {row.words}" for row in ordered]
    yield from _some(lines, _MOST_INFLUENCES)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([f"{first:{widths[0]}}", *cells])


def _some(lines: Sequence[str], most: int) -> Iterator[str]:
    yield from lines[:most]
    if len(lines) > most:
        yield f"          and {len(lines) - most} more"


def _shortened(line: str) -> str:
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3].rstrip() + "..."
