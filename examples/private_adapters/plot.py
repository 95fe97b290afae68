"""The plot: held-out loss before and after, and what each kind of privacy cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

_INK, _FAINT = "#1f2933", "#9aa5b1"


@dataclass(frozen=True, slots=True)
class Row:
    """One way to use the adapters.

    ``losses`` are those on each contributor's held-out text, in nats per byte, (parties,); ``others`` are mean losses
    of other draws, shown as small dots: of single adapters, or of noise.
    """

    key: str
    name: str
    losses: npt.NDArray[np.float64]
    others: Sequence[float] = ()


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The mean, and half of the 95 % interval that chance in the choice of texts leaves."""
    return float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(values.size))


def draw(rows: Sequence[Row], caption: str, path: Path) -> None:
    """Write the plot: losses on the left, and on the right how far each is below the first row, text by text."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.3), sharey=True, layout="constrained")
    base = rows[0].losses
    for place, row in enumerate(rows):
        _dot(left, place, interval(row.losses), row.others)
        if place:
            mean = base.mean()
            _dot(right, place, interval(row.losses - base), [other - mean for other in row.others])
    right.axvline(0.0, color=_FAINT, linewidth=1)
    left.set_yticks(range(len(rows)), [row.name for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlabel("held-out loss (nats per byte)")
    right.set_xlabel("change of held-out loss (nats per byte)")
    left.set_title("Loss (lower is better)", loc="left", fontsize=10)
    right.set_title("Change against the base, text by text (lower is better)", loc="left", fontsize=10)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    figure.supxlabel(caption, fontsize=8, color=_INK, x=0.01, ha="left")
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)


def _dot(axes: plt.Axes, place: int, value: tuple[float, float], others: Sequence[float]) -> None:
    mean, half = value
    # Small dots lie below the large one, so that neither hides the other.
    axes.plot(others, [place + 0.22] * len(others), "o", markersize=3.5, color=_FAINT, alpha=0.7, markeredgewidth=0)
    axes.errorbar(mean, place, xerr=half, fmt="o", markersize=7, color=_INK, capsize=4)
    axes.annotate(f"{mean:.3f}", (mean, place), (0, 8), textcoords="offset points", ha="center", fontsize=9)
