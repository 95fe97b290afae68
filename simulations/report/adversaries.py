"""The part of the page that tells what each adversary tried, who refused what, and what it learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simulations.report.facts import result_words
from simulations.report.markup import figure, table, text
from simulations.report.odds import distance_words, influence_plot, influences
from simulations.scenarios.outcome import Outcome

_MOST_LETTERS = 600


def adversaries(outcome: Outcome) -> Iterator[str]:
    """Headings, tables and stories."""
    yield "<h2>What each adversary learned</h2>"
    yield "<h3>The coordinator of this session, with the clients and members that may collude with it</h3>"
    if outcome.learned:
        yield from _items("ul", outcome.learned)
    else:
        yield "<p>Nothing beyond what was published.</p>"
    if outcome.attacks:
        yield from _attacks(outcome.attacks)
    rows = influences(outcome.influence)
    if rows:
        yield "<h2>Poisoned inputs</h2>"
        yield figure(influence_plot(rows))
        cells = [
            [
                row.label,
                "refused" if row.distance is None else f"{row.distance:.3g}",
                "" if row.distance is None else "none" if row.bound is None else f"{row.bound:.3g}",
                "yes" if row.is_within else "no",
                distance_words(row.without_clipping),
            ]
            for row in rows
        ]
        columns = ["Input", "Moved the mean by", "Bound", "Within", "Without clipping"]
        yield table("Influence of poisoned inputs on the mean, L2 distance", columns, cells)


def _attacks(attacks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        [
            str(attack.get("name", "")),
            result_words(attack),
            str(attack.get("ended", "")),
            "; ".join(map(str, attack.get("refusals") or ())) or "nobody",
            "; ".join(map(str, attack.get("learned") or ())) or "nothing beyond the sum",
        ]
        for attack in attacks
    ]
    columns = ["Attack", "Result", "The session", "Who refused what", "Learned"]
    yield table("Attacks that were replayed beside it", columns, rows, words_from=1)
    for attack in attacks:
        yield from _story(attack)


def _story(attack: Mapping[str, Any]) -> Iterator[str]:
    kind = "bad" if not attack["as_it_should"] else "open" if attack["succeeded"] else "good"
    status = f'<span class="status {kind}">{text(result_words(attack))}</span>'
    yield f'<section class="attack"><h3>{text(attack.get("name", ""))} {status}</h3>'
    yield "<dl>"
    yield f"<dt>Wants</dt><dd>{text(attack.get('goal', ''))}</dd>"
    yield f"<dt>Who lies</dt><dd>{text(attack.get('adversary', ''))}</dd>"
    for title, kind, key in (("Tried", "ol", "steps"), ("Refused by", "ul", "refusals"), ("Learned", "ul", "learned")):
        if attack.get(key):
            yield f"<dt>{title}</dt><dd>"
            yield from _items(kind, attack[key])
            yield "</dd>"
    yield f"<dt>Ended</dt><dd>{text(attack.get('ended', ''))}</dd>"
    yield f"<dt>{'Why' if attack['succeeded'] else 'Why it fails'}</dt><dd>{text(attack.get('why', ''))}</dd>"
    yield "</dl></section>"


def _items(kind: str, items: Sequence[object]) -> Iterator[str]:
    yield f"<{kind}>"
    yield from (f"<li>{text(_shortened(str(item)))}</li>" for item in items)
    yield f"</{kind}>"


def _shortened(words: str) -> str:
    """What names thousands of clients one by one is in the JSON."""
    return words if len(words) <= _MOST_LETTERS else f"{words[:_MOST_LETTERS]} ... (the JSON has all of it)"
