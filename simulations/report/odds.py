"""How likely a session ends with a sum, and how far poisoned inputs move one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulations.estimates.theory import Bounds
from simulations.report.canvas import BLUE, INK, LINE, ORANGE, PAGE, RED, SKY, SOFT, Plot, draw, grid, plot
from simulations.report.curve import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def success_plot(curve: Curve) -> Plot:
    """Success against dropout rate: simulated, with Wilson's intervals, and theory."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _paint_theory(axes, curve)
        shares = [point.share for point in curve.points]
        below = [point.share - point.interval.lower for point in curve.points]
        above = [point.interval.upper - point.share for point in curve.points]
        axes.errorbar(
            [point.rate for point in curve.points],
            shares,
            yerr=[below, above],
            fmt="o",
            color=BLUE,
            markersize=5,
            elinewidth=1.4,
            capsize=3,
            clip_on=False,
            zorder=4,
            label="simulated, with Wilson 95 % intervals",
        )
        _mark(axes, curve)
        axes.set_ylim(-0.02, 1.04)
        axes.set_xlabel("dropout rate: probability that a client falls silent")
        axes.set_ylabel("sessions that end with a sum")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        grid(axes, "y")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)

    svg = draw("success", 3.4, paint)
    return plot("success", "Sessions that end with a sum", _curve_words(curve), svg)


def _paint_theory(axes: Axes, curve: Curve) -> None:
    if not curve.theory:
        return
    rates = [point.rate for point in curve.theory]
    lows, highs = [point.success.lower for point in curve.theory], [point.success.upper for point in curve.theory]
    if any(high - low > 1e-3 for low, high in zip(lows, highs, strict=True)):
        axes.fill_between(rates, lows, highs, color=ORANGE, alpha=0.25, linewidth=0, zorder=1, label="theory, bounds")
        axes.plot(rates, lows, color=ORANGE, linewidth=1.2, zorder=2)
        axes.plot(rates, highs, color=ORANGE, linewidth=1.2, zorder=2)
    else:
        axes.plot(rates, lows, color=ORANGE, linewidth=1.8, zorder=2, label="theory, exact")


def _mark(axes: Axes, curve: Curve) -> None:
    if curve.marked is None:
        return
    axes.axvline(curve.marked, color=SOFT, linewidth=1.2, linestyle="--", zorder=3)
    rates = [point.rate for point in curve.points] + [point.rate for point in curve.theory] + [curve.marked]
    is_right = curve.marked > (min(rates) + max(rates)) / 2
    axes.annotate(
        f"this scenario: {100 * curve.marked:.3g} %",
        (curve.marked, 0.5),
        xytext=(-6 if is_right else 6, 0),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="center",
        fontsize=8.5,
        color=INK,
    )


def _curve_words(curve: Curve) -> str:
    parts = []
    for point in curve.points:
        theory = curve.theory_at(point.rate)
        says = "" if theory is None else f", theory {interval_words(theory)}"
        parts.append(f"at {100 * point.rate:.3g} % {point.successes} of {point.runs}{says}")
    return f"Sessions that ended with a sum: {'; '.join(parts)}."


def interval_words(between: Bounds) -> str:
    """A probability between two ends: `0.950`, or `0.900 to 0.950`."""
    first, last = _chance(between.lower), _chance(between.upper)
    return first if first == last else f"{first} to {last}"


def _chance(value: float) -> str:
    """A probability, three decimals; what is not quite 0 or 1 says so."""
    text = f"{value:.3f}"
    if text in {"0.000", "1.000"} and value not in {0.0, 1.0}:
        return "below 0.001" if value < 0.5 else "above 0.999"
    return text


@dataclass(frozen=True, slots=True)
class Influence:
    """How far poisoned inputs of one kind moved the mean.

    Attributes:
        label: kind, and how many lied.
        distance: of the mean from the honest one, as it was; None where the poison was refused before it was encoded.
        bound: that clipping guarantees; None where nothing does.
        rounding: how much of the distance rounding may have made.
        without_clipping: the distance had nobody clipped; infinite where the mean would be no number at all.
    """

    label: str
    distance: float | None
    bound: float | None
    rounding: float
    without_clipping: float | None

    @property
    def is_within(self) -> bool:
        """Whether the distance is within the bound."""
        return self.distance is None or self.bound is None or self.distance <= self.bound + self.rounding

    @property
    def words(self) -> str:
        """What it did, in words: `moved the mean by 0.2, at most 0.25`."""
        if self.distance is None:
            return "refused before it is encoded"
        most = "nothing bounds it but the width of the fields" if self.bound is None else f"at most {self.bound:.3g}"
        broken = "" if self.is_within else ": MORE THAN THE BOUND"
        return f"moved the mean by {self.distance:.3g}, {most}{broken}"


def influences(rows: Sequence[Mapping[str, Any]]) -> list[Influence]:
    """Rows of ``Outcome.influence``: the fields of ``simulations.attacks.poisoning.Influence``."""
    found = []
    for row in rows:
        liars, of = row.get("clients"), row.get("of")
        lying = "" if liars is None else f", {liars} lie" if of is None else f", {liars} of {of}"
        found.append(
            Influence(
                f"{str(row.get('kind', '')).replace('-', ' ')}{lying}",
                _number(row.get("distance")),
                _number(row.get("bound")),
                _number(row.get("rounding")) or 0.0,
                # What is not finite is None in an outcome, for JSON has no infinity.
                _number(row["without_clipping"], math.inf) if "without_clipping" in row else None,
            )
        )
    return found


def _number(value: object, missing: float | None = None) -> float | None:
    """A number; infinity for what is none, as a mean over NaN; ``missing`` where there is nothing."""
    if value is None or isinstance(value, bool):
        return missing
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else math.inf


def influence_plot(rows: Sequence[Influence]) -> Plot:
    """How far poisoned inputs moved the mean, what clipping allows, and where it would be without."""
    numbers = [each for row in rows for each in (row.distance, row.bound, row.without_clipping)]
    seen = [each for each in numbers if each is not None and 0 < each < math.inf]
    low, high = min(seen, default=1.0), max(seen, default=1.0)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_xlim(low / 3, high * 4)
        for place, row in enumerate(rows):
            _paint_influence(axes, place, row, (low / 2, high * 2.2))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("distance of the mean from the honest mean (L2)")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        grid(axes, "x")
        for marker, colour, face, label in _INFLUENCE_MARKS:
            axes.plot([], [], marker, color=colour, markerfacecolor=face, markersize=7, linestyle="none", label=label)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)

    svg = draw("influence", 0.9 + 0.3 * len(rows), paint)
    words = [
        f"{row.label}: {row.words}"
        + ("" if row.without_clipping is None else f", without clipping {distance_words(row.without_clipping)}")
        for row in rows
    ]
    return plot("influence", "What poisoned inputs did to the mean", "; ".join(words) + ".", svg)


_INFLUENCE_MARKS = (
    ("o", BLUE, BLUE, "as published"),
    ("|", INK, INK, "bound"),
    ("D", RED, "none", "without clipping"),
)


def _paint_influence(axes: Axes, place: int, row: Influence, ends: tuple[float, float]) -> None:
    start, edge = ends
    axes.axhline(place, color=LINE, linewidth=0.5, zorder=1)
    if row.distance is None:
        _note(axes, (start, place), "refused")
    else:
        distance = max(row.distance, start)
        axes.plot([start / 2, distance], [place, place], color=SKY, linewidth=2.5, solid_capstyle="butt", zorder=2)
        axes.plot([distance], [place], "o", color=BLUE, markersize=7, zorder=4, clip_on=False)
    if row.distance is not None and row.bound is not None and 0 < row.bound < math.inf:
        axes.plot([row.bound], [place], "|", color=INK, markersize=12, markeredgewidth=2, zorder=3)
    if row.without_clipping is None:
        return
    is_lost = math.isinf(row.without_clipping)
    without = edge if is_lost else max(row.without_clipping, start)
    axes.plot([without], [place], "D", color=RED, markerfacecolor="none", markersize=6, markeredgewidth=1.5, zorder=3)
    if is_lost:
        _note(axes, (without, place), "no number")


def _note(axes: Axes, place: tuple[float, float], words: str) -> None:
    axes.annotate(
        words,
        place,
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=SOFT,
        bbox={"boxstyle": "round,pad=0.1", "facecolor": PAGE, "edgecolor": "none"},
        zorder=2,
    )


def distance_words(distance: float | None) -> str:
    """A distance for a table."""
    if distance is None:
        return ""
    return "no number at all" if math.isinf(distance) else f"{distance:.3g}"
