"""A picture of a plan: what other noise, and other numbers of survivors, would cost. The only user of matplotlib."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp.charge import epsilon_of
from dp.errors import ParameterError
from dp.mechanisms import DistributedMechanism
from dp.rdp import MAX_CLIENTS, MIN_SIGMA_SQUARED

if TYPE_CHECKING:
    from dp.planner import Plan

SUFFIXES = (".png", ".svg")

_POINTS = 81
_NOISE_SPAN = 8
_SIZE_INCHES, _DOTS_PER_INCH = (12, 5), 100
_LINE, _SINGLE, _MARK, _REFUSED = "#1f5fa8", "#7fa8d1", "#c0392b", "#f2d9d6"


def check_plot_file(path: Path) -> None:
    """Refuses a file that could not be drawn, before anything is computed.

    Raises:
        ParameterError: field `plot`: another suffix than .png or .svg, or matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ParameterError("plot", f"must end in {' or '.join(SUFFIXES)}, got {path.name!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ParameterError("plot", 'needs matplotlib: pip install "secagg-lora[plots]"')


def draw_plan(planned: Plan, path: Path) -> None:
    """Draws epsilon against total noise, and against survivors, as PNG or SVG by suffix, 1200 x 500 pixels.

    Raises:
        ParameterError: field `plot`: as `check_plot_file`, or the file cannot be written.
    """
    check_plot_file(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_noise(left, planned)
    _draw_survivors(right, planned)
    demand = planned.demand
    figure.suptitle(
        f"{demand.mechanism.words} noise, {demand.dimension:,} coordinates, "
        f"{demand.sessions:,} session{'s' if demand.sessions > 1 else ''}, delta {float(demand.delta):g}",
        fontsize=13,
    )
    # No date in the file: the same plan gives the same picture.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
    try:
        figure.savefig(path, format=path.suffix.lower()[1:], metadata=metadata)
    except OSError as error:
        raise ParameterError("plot", f"{path}: {error.strerror}") from None


def _draw_noise(axes: Any, planned: Plan) -> None:  # noqa: ANN401 - matplotlib's axes
    demand = planned.demand
    center = planned.total_sigma / float(demand.clip)
    mechanism = planned.mechanism
    factors = [_NOISE_SPAN ** (2 * step / (_POINTS - 1) - 1) for step in range(_POINTS)]
    scaled = [(factor, planned.local_variance * Fraction(factor) ** 2) for factor in factors]
    if demand.mechanism is demand.mechanism.DISCRETE_GAUSSIAN:
        scaled = [(factor, variance) for factor, variance in scaled if variance >= MIN_SIGMA_SQUARED]
    noises = [center * factor for factor, _ in scaled]
    variants = [replace(mechanism, local_variance=variance) for _, variance in scaled]
    if demand.sessions > 1:
        _plot(axes, noises, _epsilons(planned, variants, demand.sessions), _LINE, f"{demand.sessions} sessions")
    _plot(axes, noises, _epsilons(planned, variants, 1), _SINGLE if demand.sessions > 1 else _LINE, "1 session")
    axes.plot([center], [planned.epsilon], "o", color=_MARK, markersize=9, zorder=5, label="the plan")
    axes.annotate(
        f"sigma {center:.3g} clip\nepsilon {planned.epsilon:.3g}",
        (center, planned.epsilon),
        textcoords="offset points",
        xytext=(12, 3),
        color=_MARK,
        fontsize=11,
    )
    axes.set_xlabel("noise in the sum: standard deviation of a coordinate, in clips", fontsize=11)
    axes.set_title("Epsilon against noise", fontsize=12)
    _finish(axes, "lower left")


def _draw_survivors(axes: Any, planned: Plan) -> None:  # noqa: ANN401 - matplotlib's axes
    demand, mechanism = planned.demand, planned.mechanism
    first = max(demand.corrupt + 1, demand.min_survivors // 4)
    last = min(MAX_CLIENTS, max(demand.max_contributors, 2 * demand.min_survivors))
    counts = _geometric(first, last)
    variants = [replace(mechanism, survivors=count) for count in counts]
    _plot(axes, counts, _epsilons(planned, variants, demand.sessions), _LINE, "with the noise of the plan")
    if first < demand.min_survivors:
        axes.axvspan(first, demand.min_survivors, color=_REFUSED, zorder=0)
        axes.text(
            0.02,
            0.04,
            f"refused: fewer than {demand.min_survivors:,}",
            transform=axes.transAxes,
            color=_MARK,
            fontsize=11,
        )
    axes.axvline(demand.min_survivors, color=_MARK, linewidth=1.2, linestyle="--")
    axes.plot([demand.min_survivors], [planned.epsilon], "o", color=_MARK, markersize=9, zorder=5, label="the plan")
    axes.set_xlim(first, last)
    axes.set_xlabel("survivors: contributors whose vectors are in the sum", fontsize=11)
    axes.set_title("Epsilon against survivors", fontsize=12)
    _finish(axes, "upper right")


def _epsilons(planned: Plan, variants: list[DistributedMechanism], sessions: int) -> list[float]:
    delta = planned.demand.delta
    costs = (epsilon_of(each.charge().times(sessions), delta).epsilon for each in variants)
    return [cost if 0 < cost < math.inf else math.nan for cost in costs]


def _plot(axes: Any, horizontal: Sequence[float], vertical: Sequence[float], color: str, label: str) -> None:  # noqa: ANN401
    axes.plot(horizontal, vertical, color=color, linewidth=2.2, label=label)


def _geometric(first: int, last: int) -> list[int]:
    ratio = last / first
    return sorted({round(first * ratio ** (step / (_POINTS - 1))) for step in range(_POINTS)})


def _finish(axes: Any, legend: str) -> None:  # noqa: ANN401 - matplotlib's axes
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("epsilon", fontsize=11)
    axes.margins(y=0.12)
    axes.grid(which="major", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(fontsize=10, loc=legend, framealpha=0.95)
