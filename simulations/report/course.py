"""Who came, who stayed and who dropped out, over the phases of a session."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulations.report.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LINE,
    ORANGE,
    PAGE,
    PURPLE,
    RED,
    SKY,
    SOFT,
    TINT,
    Plot,
    draw,
    grid,
    plot,
)
from simulations.report.facts import (
    AFTER_THE_END,
    COUNTED,
    DROPPED,
    DROPPED_LATER,
    KINDS,
    arrived_count,
    counted_noun,
    fates_by_phase,
    kind_of,
    kinds_of,
    phase_of,
    phase_words,
    regions_of,
    seconds_words,
)
from simulations.scenarios.outcome import ClientFate, Outcome
from verifier.text_report import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MOST_LANES = 40
"""Clients of whom each gets a line of its own."""

_MOST_POINTS = 400
"""Of a curve; more are not seen."""

PHASE_COLOURS = (SKY, BLUE, GREEN, ORANGE, PURPLE)
"""Of phases in their order."""

HATCHES = ("", "///", "\\\\\\", "---", "|||")
"""Beside colours. Lines only: a pattern of dots is a quarter of a megabyte."""

MARKS = {
    COUNTED: ("o", BLUE),
    DROPPED_LATER: ("X", SKY),
    DROPPED: ("x", ORANGE),
    "refused": ("s", RED),
    "too late": ("^", SOFT),
    "left out": ("D", GREY),
    "never came": ("|", GREY),
}
"""Shape and colour of each fate."""


class PhaseAxis:
    """An axis on which every phase is as wide as every other: sessions wait for minutes and then act in seconds.

    For the same reason the beginning of a phase is drawn wider: its first quarter takes half of its width.
    """

    def __init__(self, outcome: Outcome) -> None:
        times = [at_s for each in outcome.clients for at_s in (each.arrived_s, each.at_s) if at_s is not None]
        self.names = [phase.phase for phase in outcome.phases]
        self.edges = [phase.began_s for phase in outcome.phases] + [outcome.seconds]
        if not self.names:
            self.names, self.edges = [outcome.ended], [0.0, outcome.seconds]
        last_s = max([*times, outcome.seconds])
        self.has_tail = last_s > outcome.seconds
        if self.has_tail:
            self.names.append(AFTER_THE_END)
            self.edges.append(last_s)

    @property
    def width(self) -> int:
        """How many phases wide."""
        return len(self.names)

    def place(self, at_s: float) -> float:
        """Where a time is."""
        index = min(max(bisect_right(self.edges, at_s) - 1, 0), self.width - 1)
        start, end = self.edges[index], self.edges[index + 1]
        return index + (math.sqrt(min(1.0, max(0.0, (at_s - start) / (end - start)))) if end > start else 0.0)

    def prepare(self, axes: Axes) -> None:
        """Shade every other phase, and write below when each began."""
        for index in range(0, self.width, 2):
            axes.axvspan(index, index + 1, color=TINT, linewidth=0, zorder=0)
        axes.set_xlim(0, self.width)
        labels = ["0" if edge == 0 else seconds_words(edge) for edge in self.edges]
        # Where a phase was too short to change the label it stands once.
        once = [label if label not in labels[:place] else "" for place, label in enumerate(labels)]
        axes.set_xticks(range(self.width + 1), once)
        axes.tick_params(axis="x", length=3)

    def name_phases(self, axes: Axes) -> None:
        """Write above how each phase is called, and how long it lasted."""
        for index, name in enumerate(self.names):
            axes.annotate(
                f"{phase_words(name)}\n{seconds_words(self.edges[index + 1] - self.edges[index])}",
                (index + 0.5, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
                color=SOFT,
                linespacing=1.3,
            )


def course_plots(outcome: Outcome) -> list[Plot]:
    """Who dropped when: curves; each client by itself where they are few; regions where there are any."""
    plots = [_curves(outcome)]
    if 0 < len(outcome.clients) <= MOST_LANES:
        plots.append(_lanes(outcome))
    if regions_of(outcome):
        plots.append(_regions(outcome))
    return plots


def _curves(outcome: Outcome) -> Plot:
    axis = PhaseAxis(outcome)
    lost = [each for each in outcome.clients if kind_of(each) != COUNTED and each.at_s is not None]

    def paint(figure: Figure) -> None:
        if lost:
            upper, lower = figure.subplots(2, 1, height_ratios=(3, 2))
            _paint_lost(lower, outcome, axis, lost)
        else:
            lower = upper = figure.subplots()
        _paint_came(upper, outcome, axis)
        upper.tick_params(axis="x", labelbottom=upper is lower)
        lower.set_xlabel("time since the start; every phase is drawn as wide as every other, and its beginning wider")
        figure.legend(loc="outside lower left", ncols=3)

    svg = draw("course", 5.0 if lost else 3.1, paint)
    title = "Who came, and who was lost" if lost else "Who came, and who did their part"
    return plot("course", title, _course_words(outcome), svg)


def _paint_came(axes: Axes, outcome: Outcome, axis: PhaseAxis) -> None:
    axis.prepare(axes)
    axis.name_phases(axes)
    came = [each.arrived_s for each in outcome.clients if each.arrived_s is not None]
    done = [each.at_s for each in outcome.clients if kind_of(each) == COUNTED and each.at_s is not None]
    _step(axes, axis, came, (INK, "--", "came"))
    if done:
        _step(axes, axis, done, (BLUE, "-", "in the sum, and done"))
    axes.set_ylim(0, max(1, len(outcome.clients)) * 1.06)
    axes.set_ylabel("clients")
    _whole(axes.yaxis)
    grid(axes, "y")


def _step(axes: Axes, axis: PhaseAxis, times: Sequence[float], style: tuple[str, str, str]) -> None:
    colour, dashes, label = style
    places = [0.0, *sorted(map(axis.place, times)), float(axis.width)]
    counts = [*range(len(times) + 1), len(times)]
    kept = _thinned(len(places))
    axes.step(
        [places[index] for index in kept],
        [counts[index] for index in kept],
        where="post",
        color=colour,
        linestyle=dashes,
        linewidth=1.8,
        label=label,
    )


def _paint_lost(axes: Axes, outcome: Outcome, axis: PhaseAxis, lost: Sequence[ClientFate]) -> None:
    axis.prepare(axes)
    places = sorted({axis.place(each.at_s) for each in lost if each.at_s is not None})
    places = [0.0, *(places[index] for index in _thinned(len(places))), float(axis.width)]
    layers = _layers(outcome, axis, lost)
    axes.stackplot(
        places,
        [[bisect_right(layer.places, place) for place in places] for layer in layers],
        labels=[f"{layer.label}: {len(layer.places):,}" for layer in layers],
        colors=[layer.colour for layer in layers],
        step="post",
        linewidth=0,
    )
    for area, layer in zip(axes.collections[-len(layers) :], layers, strict=True):
        area.set_hatch(layer.hatch)
        area.set_edgecolor(PAGE)
    axes.set_ylim(0, len(lost) * 1.12)
    axes.set_ylabel("lost on the way")
    _whole(axes.yaxis)
    grid(axes, "y")


@dataclass(frozen=True, slots=True)
class _Layer:
    """Clients that were lost alike; ``places`` are sorted."""

    label: str
    colour: str
    hatch: str
    places: list[float]


def _layers(outcome: Outcome, axis: PhaseAxis, lost: Sequence[ClientFate]) -> list[_Layer]:
    """Those who dropped by phase, then other fates."""
    groups: dict[tuple[int, str], list[float]] = {}
    for each in lost:
        if each.at_s is None:
            continue
        kind, phase = kind_of(each), phase_of(outcome, each)
        if kind in {DROPPED, DROPPED_LATER}:
            key = axis.names.index(phase) if phase in axis.names else axis.width, f"dropped in {phase_words(phase)}"
        else:
            key = axis.width + 1 + (KINDS.index(kind) if kind in KINDS else len(KINDS)), kind
        groups.setdefault(key, []).append(axis.place(each.at_s))
    return [
        _Layer(
            label,
            PHASE_COLOURS[order % len(PHASE_COLOURS)] if order <= axis.width else MARKS.get(label, ("", GREY))[1],
            HATCHES[(order if order <= axis.width else order - axis.width - 1) % len(HATCHES)],
            sorted(groups[order, label]),
        )
        for order, label in sorted(groups)
    ]


def _lanes(outcome: Outcome) -> Plot:
    axis = PhaseAxis(outcome)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axis.prepare(axes)
        axis.name_phases(axes)
        for row, fate in enumerate(outcome.clients):
            _paint_lane(axes, axis, row, fate)
        names = [str(each.number) + (f", {printable(each.region)}" if each.region else "") for each in outcome.clients]
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_ylabel("client")
        axes.tick_params(axis="y", length=0, pad=7)
        axes.spines["left"].set_visible(False)
        _legend_of_marks(axes, outcome)

    svg = draw("lanes", 1.3 + 0.17 * len(outcome.clients), paint)
    words = [f"{each.number} {_fate_words(outcome, each)}" for each in outcome.clients]
    return plot("lanes", "Each client", f"Clients by number: {'; '.join(words)}.", svg)


def _paint_lane(axes: Axes, axis: PhaseAxis, row: int, fate: ClientFate) -> None:
    marker, colour = MARKS.get(kind_of(fate), ("D", GREY))
    start = 0.0 if fate.arrived_s is None else axis.place(fate.arrived_s)
    end = start if fate.at_s is None else axis.place(fate.at_s)
    axes.plot([0, axis.width], [row, row], color=LINE, linewidth=0.5, zorder=1)
    axes.plot([start, end], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
    axes.plot([end], [row], marker, color=colour, markersize=5.5, markeredgewidth=1.6, clip_on=False, zorder=3)


def _legend_of_marks(axes: Axes, outcome: Outcome) -> None:
    for kind, count in kinds_of(outcome).items():
        marker, colour = MARKS.get(kind, ("D", GREY))
        label = f"{kind}: {count}"
        axes.plot([], [], marker, color=colour, markersize=5.5, markeredgewidth=1.6, linestyle="none", label=label)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=2.6, ncols=6, handletextpad=0.2)


def _fate_words(outcome: Outcome, fate: ClientFate) -> str:
    if fate.at_s is None:
        return fate.fate
    return f"{fate.fate} at {seconds_words(fate.at_s)} in {phase_words(phase_of(outcome, fate))}"


def _regions(outcome: Outcome) -> Plot:
    regions = regions_of(outcome)
    kinds = [kind for kind in KINDS if any(kind in fates for fates in regions.values())]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        left = [0] * len(regions)
        for kind in kinds:
            counts = [fates.get(kind, 0) for fates in regions.values()]
            axes.barh(
                list(map(printable, regions)),
                counts,
                left=left,
                height=0.62,
                color=MARKS[kind][1],
                edgecolor=PAGE,
                hatch=HATCHES[KINDS.index(kind) % len(HATCHES)],
                label=kind,
            )
            left = [before + count for before, count in zip(left, counts, strict=True)]
        axes.invert_yaxis()
        axes.set_xlabel("clients")
        _whole(axes.xaxis)
        axes.tick_params(axis="y", length=0)
        grid(axes, "x")
        axes.spines["left"].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, borderaxespad=0.3)

    svg = draw("regions", 1.1 + 0.3 * len(regions), paint)
    words = (
        f"{region}: " + ", ".join(f"{count:,} {kind}" for kind, count in fates.items())
        for region, fates in regions.items()
    )
    return plot("regions", "Regions", "; ".join(words) + ".", svg)


def _course_words(outcome: Outcome) -> str:
    parts = [f"{arrived_count(outcome):,} of {counted_noun(len(outcome.clients), 'client')} came"]
    parts += [f"{count:,} {kind}" for kind, count in kinds_of(outcome).items()]
    for phase, fates in fates_by_phase(outcome).items():
        if fates:
            lost = ", ".join(f"{count:,} {kind}" for kind, count in fates.items())
            parts.append(f"in {phase_words(phase)}: {lost}")
    return "; ".join(parts) + "."


def _thinned(count: int) -> list[int]:
    """Indices of at most ``_MOST_POINTS`` of so many, with the first and the last."""
    if count <= _MOST_POINTS:
        return list(range(count))
    return [index * (count - 1) // (_MOST_POINTS - 1) for index in range(_MOST_POINTS)]


def _whole(axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
