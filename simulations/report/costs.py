"""How long the phases took, which machines failed meanwhile, and how many bytes went over the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulations.report.canvas import BLUE, INK, LINE, PAGE, PURPLE, RED, SKY, SOFT, Plot, draw, grid, plot
from simulations.report.course import PHASE_COLOURS
from simulations.report.facts import (
    PhaseCost,
    arrived_count,
    bytes_words,
    costs_of,
    counted_noun,
    phase_words,
    seconds_words,
)
from simulations.scenarios.outcome import Note, Outcome
from verifier.text_report import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_MACHINES = 12
"""Rows of machines that are drawn; the page's table of notes has the rest."""


@dataclass(frozen=True, slots=True)
class Downtime:
    """A machine was down from ``start_s`` to ``end_s``; None where it never came back."""

    start_s: float
    end_s: float | None


def downtimes(notes: tuple[Note, ...], node: str) -> list[Downtime]:
    """When a machine was down."""
    found: list[Downtime] = []
    died_s: float | None = None
    for note in notes:
        if note.node != node:
            continue
        if note.what == "dies" and died_s is None:
            died_s = note.at_s
        elif note.what == "starts" and died_s is not None:
            found.append(Downtime(died_s, note.at_s))
            died_s = None
    return [*found, Downtime(died_s, None)] if died_s is not None else found


def time_plot(outcome: Outcome) -> Plot:
    """Phases one below the other, and below them the machines to which something happened."""
    machines = list(dict.fromkeys(note.node for note in outcome.notes))
    shown = machines[:_MOST_MACHINES]
    rows = len(outcome.phases) + len(shown)
    end_s = max([phase.began_s + phase.seconds for phase in outcome.phases] + [outcome.seconds], default=0.0) or 1.0

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for row, phase in enumerate(outcome.phases):
            _paint_phase(axes, row, (phase.began_s, phase.seconds, end_s))
        for row, node in enumerate(shown, len(outcome.phases)):
            _paint_machine(axes, row, [note for note in outcome.notes if note.node == node], end_s)
        names = [phase_words(phase.phase) for phase in outcome.phases] + list(map(printable, shown))
        axes.set_yticks(range(rows), names)
        if shown and outcome.phases:
            axes.axhline(len(outcome.phases) - 0.5, color=LINE, linewidth=0.8)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xlim(0, end_s)
        _time_ticks(axes, end_s)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        grid(axes, "x")
        if shown:
            _legend(axes)

    svg = draw("time", 0.8 + 0.29 * rows + (0.3 if shown else 0), paint)
    return plot("time", "Time by phase", _time_words(outcome, machines, shown), svg)


def _paint_phase(axes: Axes, row: int, times: tuple[float, float, float]) -> None:
    began_s, seconds, end_s = times
    colour = PHASE_COLOURS[row % len(PHASE_COLOURS)]
    # A phase of no length is still seen, by its edge.
    axes.barh(row, seconds, left=began_s, height=0.55, color=colour, edgecolor=colour, linewidth=1.5, zorder=2)
    is_early = began_s + seconds < 0.8 * end_s
    fits_inside = seconds > 0.3 * end_s and not is_early
    place, side = (began_s + seconds, 5) if is_early else (began_s, 5 if fits_inside else -5)
    axes.annotate(
        seconds_words(seconds),
        (place, row),
        xytext=(side, 0),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        va="center",
        fontsize=8.5,
        color=INK,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": PAGE, "edgecolor": "none"} if fits_inside else None,
        zorder=4,
    )


def _paint_machine(axes: Axes, row: int, notes: list[Note], end_s: float) -> None:
    for down in downtimes(tuple(notes), notes[0].node):
        until_s = min(end_s, end_s if down.end_s is None else down.end_s)
        if down.start_s < end_s:
            axes.plot([down.start_s, until_s], [row, row], color=RED, linewidth=2.5, solid_capstyle="butt", zorder=2)
    for note in notes:
        if note.at_s <= end_s:
            marker, colour = {"dies": ("x", RED), "starts": (">", BLUE)}.get(note.what, ("|", SOFT))
            axes.plot(
                [note.at_s], [row], marker, color=colour, markersize=6, markeredgewidth=1.8, clip_on=False, zorder=3
            )


def _time_ticks(axes: Axes, end_s: float) -> None:
    from matplotlib.ticker import MaxNLocator

    units = (("days", 86_400, 3), ("hours", 3600, 3), ("minutes", 60, 4), ("seconds", 1, 0))
    name, size, _ = next(each for each in units if end_s >= each[1] * each[2])
    ticks = MaxNLocator(nbins=8, steps=[1, 2, 5, 10]).tick_values(0, end_s / size)
    shown = [float(tick) for tick in ticks if tick * size <= end_s]
    axes.set_xticks([tick * size for tick in shown], [f"{tick:g}" for tick in shown])
    axes.set_xlabel(f"{name} since the start, virtual time")


def _legend(axes: Axes) -> None:
    for marker, colour, label in (("x", RED, "dies"), (">", BLUE, "starts again"), ("|", SOFT, "something else")):
        axes.plot([], [], marker, color=colour, markersize=6, markeredgewidth=1.8, linestyle="none", label=label)
    axes.plot([], [], color=RED, linewidth=2.5, label="down")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)


def _time_words(outcome: Outcome, machines: list[str], shown: list[str]) -> str:
    parts = [f"{phase_words(phase.phase)} {seconds_words(phase.seconds)}" for phase in outcome.phases]
    parts.append(f"over after {seconds_words(outcome.seconds)}")
    for node in machines:
        downs = downtimes(outcome.notes, node)
        if downs:
            parts.append(f"{node} died {counted_noun(len(downs), 'time')}")
    if len(shown) < len(machines):
        parts.append(f"{len(machines) - len(shown)} more machines are not drawn")
    return "; ".join(parts) + "."


@dataclass(frozen=True, slots=True)
class _Bar:
    """One bar: which direction it is, how long, and where."""

    direction: int
    count: int
    place: float


_DIRECTIONS = (
    ("clients send", BLUE, ""),
    ("clients receive", SKY, "///"),
    ("coordinator, members and witnesses, both ways", PURPLE, "\\\\\\"),
)


def bytes_plot(outcome: Outcome) -> Plot:
    """Bytes by phase: of all clients up and down, and of institutions."""
    costs = [cost for cost in costs_of(outcome) if cost.up or cost.down or cost.institutions]
    clients = arrived_count(outcome)
    bars, ticks, length = _laid_out(costs)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        longest = max((bar.count for bar in bars), default=1)
        for direction, style in enumerate(_DIRECTIONS):
            _paint_bars(axes, [bar for bar in bars if bar.direction == direction], style)
        for bar in bars:
            share = f", {bytes_words(bar.count / clients)} a client" if bar.direction < 2 and clients > 1 else ""
            axes.annotate(
                f"{bytes_words(bar.count)}{share}",
                (bar.count, bar.place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=SOFT,
                zorder=3,
            )
        axes.set_yticks(ticks, [phase_words(cost.phase) for cost in costs])
        axes.set_ylim(length, -1)
        axes.set_xlim(0, longest * 1.4)
        axes.set_xlabel("bytes")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        _byte_ticks(axes, longest)
        grid(axes, "x")
        if bars:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)

    svg = draw("bytes", 0.9 + 0.17 * (length + 1), paint)
    words = [
        f"{phase_words(cost.phase)}: up {bytes_words(cost.up)}, down {bytes_words(cost.down)}"
        + (f", institutions {bytes_words(cost.institutions)}" if cost.institutions else "")
        for cost in costs
    ]
    about = f"Bytes of {counted_noun(clients, 'client')}. {'; '.join(words) or 'None'}."
    return plot("bytes", "Bytes by phase", about, svg)


def _laid_out(costs: list[PhaseCost]) -> tuple[list[_Bar], list[float], float]:
    """Bars, places of the names of phases, and where all ends; bars are one apart, phases a little more."""
    bars: list[_Bar] = []
    ticks: list[float] = []
    place = 0.0
    for cost in costs:
        counts = [
            (direction, count) for direction, count in enumerate((cost.up, cost.down, cost.institutions)) if count
        ]
        bars += [_Bar(direction, count, place + index) for index, (direction, count) in enumerate(counts)]
        ticks.append(place + (len(counts) - 1) / 2)
        place += len(counts) + 0.7
    return bars, ticks, max(1.0, place - 0.5)


def _paint_bars(axes: Axes, bars: list[_Bar], style: tuple[str, str, str]) -> None:
    label, colour, hatch = style
    if bars:
        axes.barh(
            [bar.place for bar in bars],
            [bar.count for bar in bars],
            height=0.84,
            color=colour,
            edgecolor=PAGE,
            linewidth=0,
            hatch=hatch,
            label=label,
            zorder=2,
        )


def _byte_ticks(axes: Axes, longest: float) -> None:
    step = 1.0
    while longest / step > 5:
        step *= 2
    axes.set_xticks([step * index for index in range(int(longest / step) + 1)])
    axes.xaxis.set_major_formatter(lambda value, _: bytes_words(value))
