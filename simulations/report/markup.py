"""Pieces of the page."""

from __future__ import annotations

import html
from collections.abc import Sequence

from simulations.report.canvas import Plot
from verifier.text_report import printable


def text(words: object) -> str:
    """Words as HTML, on one line."""
    return html.escape(printable(str(words)), quote=True)


def figure(plot: Plot, note: str = "") -> str:
    """A plot with its title above, and a note below."""
    below = f'<p class="note">{text(note)}</p>' if note else ""
    return (
        f'<figure class="plot"><figcaption>{text(plot.title)}</figcaption>'
        f"{_scrolling(plot.title, plot.svg)}{below}</figure>"
    )


def table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    total: Sequence[str] = (),
    *,
    words_from: int = 0,
) -> str:
    """A table. The first column names its row; others are numbers, or words from column ``words_from`` if not 0."""
    classes = [
        "" if index == 0 or (words_from and index >= words_from) else ' class="number"' for index in range(len(columns))
    ]
    head = "".join(f'<th scope="col"{kind}>{text(name)}</th>' for name, kind in zip(columns, classes, strict=True))
    body = "\n".join(_row(row, classes) for row in rows)
    foot = f"<tfoot>{_row(total, classes)}</tfoot>" if total else ""
    inner = f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>{foot}"
    return _scrolling(caption, f"<table>{inner}</table>")


def _scrolling(label: str, inner: str) -> str:
    """What may be wider than a small screen: the keyboard reaches it, to scroll."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{text(label)}">{inner}</div>'


def _row(cells: Sequence[str], classes: Sequence[str]) -> str:
    first, *others = cells
    rest = "".join(f"<td{kind}>{text(cell)}</td>" for cell, kind in zip(others, classes[1:], strict=True))
    return f'<tr><th scope="row">{text(first)}</th>{rest}</tr>'
