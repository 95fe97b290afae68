"""The figure: held-out loss round by round, a line for each way to merge."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

_INK, _FAINT, _RULE = "#1f2933", "#a7b0ba", "#e4e7eb"
_DOTS = (0, (1, 2))
_GAP_POINTS = 14.0
"""Labels are at least so far apart."""
_WIDTH = 1.46
"""Of the axes, in rounds: the labels need the rest."""


@dataclass(frozen=True, slots=True)
class Style:
    """Colours of Okabe and Ito; markers and dashes say the same without them."""

    color: str
    marker: str
    dashes: str | tuple[int, tuple[int, int]]

    def shown(self) -> dict[str, Any]:
        """For matplotlib."""
        return {"color": self.color, "linestyle": self.dashes, "marker": self.marker, "markersize": 5.5}


STYLES = {
    "dense": Style("#000000", "o", "-"),
    "two-session": Style("#0072b2", "s", "-"),
    "sketch": Style("#d55e00", "D", "-"),
    "pilot-basis": Style("#009e73", "^", "--"),
    "factors-shared": Style("#cc79a7", "v", "-."),
    "factors-own": Style("#cc79a7", "x", ":"),
    "frozen-a": Style("#56b4e9", "P", "--"),
}


@dataclass(frozen=True, slots=True)
class Label:
    """What stands right of the last round, for a line that ends at ``height``; its style is the line's."""

    text: str
    height: float
    style: Style


def draw(report: dict[str, Any], out: Path) -> None:
    """Write figure.svg and figure.png."""
    mpl.rcParams["svg.hashsalt"] = "secagg"
    figure, axes = plt.subplots(figsize=(8.4, 5.4), layout="constrained")
    rounds = report["settings"]["rounds"]
    axes.set_xlim(-0.02 * rounds, rounds * _WIDTH)
    axes.set_xticks(range(rounds + 1))
    axes.set_xlabel("round", x=0.5 / _WIDTH)
    seeds = len(report["seeds"])
    bars = f"; means of {seeds} seeds, bars: range of changes against the base" if seeds > 1 else ""
    axes.set_title(f"Held-out loss, nats per byte (lower is better{bars})", loc="left", fontsize=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_bounds(0, rounds)
    axes.tick_params(axis="y", length=0)
    labels = [_base(axes, report, rounds), _alone(axes, report)]
    labels += [_strategy(axes, report["strategies"][key], style) for key, style in STYLES.items()]
    axes.set_ylim(*axes.get_ylim())
    axes.hlines(axes.get_yticks(), 0, rounds, color=_RULE, linewidth=0.8, zorder=0)
    figure.canvas.draw()
    _place(axes, labels, rounds)
    figure.savefig(out / "figure.svg", metadata={"Date": None})
    figure.savefig(out / "figure.png", dpi=150, metadata={"Software": None})
    plt.close(figure)


def _base(axes: Axes, report: dict[str, Any], rounds: int) -> Label:
    height = float(np.mean([each["mean"][0] for each in report["base"]]))
    axes.plot([0, rounds], [height, height], color=_INK, linewidth=1.2, linestyle=_DOTS)
    return Label("base, not fine-tuned", height, Style(_INK, "", _DOTS))


def _alone(axes: Axes, report: dict[str, Any]) -> Label:
    """A thin line for each contributor: the mean over seeds, as the others'."""
    lines = np.array([[one["mean"] for one in seed] for seed in report["alone"]]).mean(axis=0)
    for line in lines:
        axes.plot(line, color=_FAINT, linewidth=0.8, zorder=1)
    return Label("each contributor alone", float(np.median(lines[:, -1])), Style(_FAINT, "", "-"))


def _strategy(axes: Axes, strategy: dict[str, Any], style: Style) -> Label:
    """The mean over seeds; bars from the largest change against the seed's own base to the smallest."""
    losses = np.array([each["loss"]["mean"] for each in strategy["seeds"]])
    mean = losses.mean(axis=0)
    axes.plot(mean, **style.shown(), linewidth=1.8, markevery=slice(1, None), zorder=3)
    if len(losses) > 1:
        changes = losses - losses[:, :1] + mean[0]
        ends = changes.min(axis=0)[1:], changes.max(axis=0)[1:]
        axes.vlines(np.arange(1, mean.size), *ends, color=style.color, linewidth=1.2, zorder=2)
    return Label(strategy["name"], float(mean[-1]), style)


def _place(axes: Axes, labels: Sequence[Label], rounds: int) -> None:
    """Write the labels in the order of their lines, far enough apart, each with a sample and a thin line to its own."""
    to_pixels = axes.transData
    ordered = sorted(labels, key=lambda label: label.height)
    wanted = np.array([to_pixels.transform((0, label.height))[1] for label in ordered])
    lowest, gap = axes.transAxes.transform((0, 0))[1], _GAP_POINTS * axes.figure.dpi / 72
    for label, pixels in zip(ordered, spread(wanted, float(gap), float(lowest)), strict=True):
        height = float(to_pixels.inverted().transform((0, pixels))[1])
        axes.plot([rounds * 1.015, rounds * 1.045], [label.height, height], color=_FAINT, linewidth=0.6, clip_on=False)
        sample = [rounds * 1.055, rounds * 1.085, rounds * 1.115]
        axes.plot(sample, [height] * 3, **label.style.shown(), linewidth=1.5, markevery=[1], clip_on=False)
        axes.text(rounds * 1.13, height, label.text, color=_INK, fontsize=9.5, va="center")


def spread(wanted: np.ndarray, gap: float, lowest: float) -> np.ndarray:
    """Ascending places near ``wanted``, at least ``gap`` apart: of those that are too close, their mean is kept."""
    runs: list[list[int]] = []
    for index in range(len(wanted)):
        runs.append([index])
        while len(runs) > 1 and _first(runs[-1], wanted, gap, lowest) < _first(
            runs[-2], wanted, gap, lowest
        ) + gap * len(runs[-2]):
            runs[-2:] = [runs[-2] + runs[-1]]
    return np.concatenate([_first(run, wanted, gap, lowest) + gap * np.arange(len(run)) for run in runs])


def _first(run: Sequence[int], wanted: np.ndarray, gap: float, lowest: float) -> float:
    return max(lowest, float(wanted[run].mean() - gap * (len(run) - 1) / 2))
