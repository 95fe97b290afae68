"""A sweep as small multiples: what was simulated, with intervals, over the curves of theory."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulations.sweeping.expected import Expected, expected
from simulations.sweeping.grid import Cell, Sweep, SweepError
from simulations.sweeping.runs import Point, SweepResult
from simulations.world.plan import Plan, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

SUFFIXES = (".png", ".svg")
MOST_COLUMNS = 6

_STEPS = 80
_KIB = 1024
_APART_POINTS, _POINTS_AN_INCH = 3.0, 72
_INK, _SOFT, _LINE = "#1f2933", "#52606d", "#e4e7eb"
# Okabe and Ito's colours, which colour-blind readers can tell apart; markers and dashes say the same once more.
BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"
_STYLES = {Protocol.PAIRWISE: (BLUE, "o", "-"), Protocol.ONE_SHOT: (VERMILION, "s", "--")}

_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "secagg-sweep",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
}


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: simulated points and theory, both by the same rate.

    Attributes:
        label: in the legend.
        style: colour, marker, dashes of the line.
        points: simulated, each with its rate.
        theory: at as many rates as it takes to look smooth.
    """

    label: str
    style: tuple[str, str, str]
    points: tuple[tuple[float, Point], ...]
    theory: tuple[tuple[float, Expected], ...]

    @property
    def rates(self) -> list[float]:
        """Of the points."""
        return [rate for rate, _ in self.points]


def check_plot_file(path: Path) -> None:
    """Refuse a file that could not be drawn, before anything is simulated.

    Raises:
        SweepError: field ``plot``: another suffix than .png or .svg, or matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise SweepError("plot", f"must end in {' or '.join(SUFFIXES)}, got {path.name!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise SweepError("plot", 'needs matplotlib: pip install "secagg-lora[plots]"')


def check_panels(sweep: Sweep) -> None:
    """Refuse a sweep with too many panels. Raises SweepError, field ``plot``."""
    across = sweep.dropouts if _by_corruption(sweep) else sweep.corruptions
    if len(across) > MOST_COLUMNS:
        raise SweepError("plot", f"has a column of panels for each of {len(across)} rates, at most {MOST_COLUMNS} fit")


def draw_sweep(result: SweepResult, path: Path, *, with_cpu: bool = False) -> None:
    """Draw a sweep as PNG or SVG by suffix; the same sweep gives the same bytes, unless CPU time is drawn.

    The rate of which there are more values runs along; the other one has a column of panels for each value. Rows:
    success, corruption beyond what is tolerated (where it runs along), bytes, with noise epsilon and error, CPU time.

    Raises:
        SweepError: field ``plot``: see ``check_plot_file`` and ``check_panels``, or the file cannot be written.
    """
    check_plot_file(path)
    check_panels(result.sweep)
    columns = list(_columns(result))
    rows = _rows(result.sweep, with_cpu=with_cpu)
    with figure_to(path, (2.6 + 3.4 * len(columns), 0.9 + 2.35 * len(rows))) as figure:
        panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex="all", sharey="row")
        for across, (paint, label) in zip(panels, rows, strict=True):
            for axes, (_, series) in zip(across, columns, strict=True):
                paint(axes, series)
            # After all columns: they share the axis, and the limits that one sets would hide what others have.
            across[0].set_ylim(*((-0.03, 1.03) if paint in _PROBABILITIES else (0, None)))
            across[0].set_ylabel(label)
            across[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), borderaxespad=0)
        for axes, (title, _) in zip(panels[0], columns, strict=True):
            axes.set_title(title)
        for axes in panels[-1]:
            axes.set_xlabel(_CORRUPT_WORDS if _by_corruption(result.sweep) else "dropout probability of a client")
        figure.suptitle(_headline(result), x=0.01, ha="left", fontsize=10.5)


@contextmanager
def figure_to(path: Path, inches: tuple[float, float]) -> Iterator[Figure]:
    """A figure in the style of these plots, which is written to a file in the end, without a date.

    Raises:
        SweepError: field ``plot``: the file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Whatever a user has in a matplotlibrc is not ours.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)  # type: ignore[arg-type]
        figure = Figure(figsize=inches, dpi=150, layout="constrained")
        yield figure
        kind = path.suffix.lower()[1:]
        nothing = {"Date": None} if kind == "svg" else {"Software": None}
        try:
            figure.savefig(path, format=kind, metadata=nothing)
        except OSError as error:
            raise SweepError("plot", f"{path}: {error.strerror or type(error).__name__}") from None


def series_of(result: SweepResult, label: str, style: tuple[str, str, str], reach: tuple[Fraction, Fraction]) -> Series:
    """The curve by dropout of a sweep's first protocol and corruption, with theory over all rates within ``reach``."""
    sweep = result.sweep
    protocol, fixed = sweep.protocols[0], sweep.corruptions[0]
    mine = [each for each in result.points if (each.cell.protocol, each.cell.corruption) == (protocol, fixed)]
    points = tuple((float(each.cell.dropout), each) for each in mine)
    plan = sweep.plan_of(protocol)
    theory = _theory(sweep, plan, (*sweep.dropouts, *reach), lambda rate: Cell(protocol, rate, fixed))
    return Series(label, style, points, theory)


def paint_success(axes: Axes, all_series: Sequence[Series]) -> None:
    """Sessions that end with a sum: points with 95 % intervals over theory, a band where that is two bounds."""
    for place, series in enumerate(all_series):
        colour, marker, dashes = series.style
        rates = [rate for rate, _ in series.theory]
        lower = [theory.success.lower for _, theory in series.theory]
        upper = [theory.success.upper for _, theory in series.theory]
        is_band = any(high - low > 1e-3 for low, high in zip(lower, upper, strict=True))
        if is_band:
            axes.fill_between(
                rates, lower, upper, color=colour, alpha=0.18, linewidth=0, zorder=1, label=f"{series.label}: bounds"
            )
            axes.plot(rates, lower, color=colour, linewidth=0.8, linestyle=dashes, zorder=2)
            axes.plot(rates, upper, color=colour, linewidth=0.8, linestyle=dashes, zorder=2)
        else:
            label = f"{series.label}: theory"
            axes.plot(rates, lower, color=colour, linewidth=1.4, linestyle=dashes, zorder=2, label=label)
        shares = [point.successes / point.runs for _, point in series.points]
        ends = [point.interval for _, point in series.points]
        axes.errorbar(
            series.rates,
            shares,
            yerr=[
                [share - end.lower for share, end in zip(shares, ends, strict=True)],
                [end.upper - share for share, end in zip(shares, ends, strict=True)],
            ],
            fmt=marker,
            color=colour,
            markersize=4.5,
            elinewidth=1.1,
            capsize=2,
            clip_on=False,
            transform=_beside(axes, place, len(all_series)),
            zorder=4,
            label=f"{series.label}: simulated",
        )


def _beside(axes: Axes, place: int, count: int) -> Transform:
    """Data coordinates moved sideways by some points, so that no curve's intervals hide another's."""
    from matplotlib.transforms import ScaledTranslation

    points = _APART_POINTS * (place - (count - 1) / 2)
    return axes.transData + ScaledTranslation(points / _POINTS_AN_INCH, 0, axes.figure.dpi_scale_trans)


# Rows of panels.

_CORRUPT_WORDS = "probability that a client (pairwise)\nor member (one-shot) is corrupt"
_Paint = Callable[["Axes", Sequence[Series]], None]


def _rows(sweep: Sweep, *, with_cpu: bool) -> list[tuple[_Paint, str]]:
    rows: list[tuple[_Paint, str]] = [(paint_success, "sessions that end\nwith a sum (fraction)")]
    if _by_corruption(sweep):
        rows.append((_paint_excess, "more are corrupt than\ntolerated (probability)"))
    rows.append((_paint_bytes, "bytes of one client\n(KiB)"))
    if sweep.plan.epsilon is not None:
        rows.append((_paint_epsilon, "epsilon of a session\n(mean)"))
        rows.append((_paint_error, "RMS error of the mean\n(units of the clip norm)"))
    if with_cpu:
        rows.append((_paint_cpu, "CPU seconds of a\nsession, all machines"))
    return rows


def _paint_excess(axes: Axes, all_series: Sequence[Series]) -> None:
    for series in all_series:
        colour, _, dashes = series.style
        # A committee's members are what is corrupt in a one-shot session.
        chances = [
            theory.corrupt_clients if theory.corrupt_members is None else theory.corrupt_members
            for _, theory in series.theory
        ]
        rates = [rate for rate, _ in series.theory]
        axes.plot(rates, chances, color=colour, linewidth=1.4, linestyle=dashes, label=f"{series.label}: theory")


def _paint_bytes(axes: Axes, all_series: Sequence[Series]) -> None:
    for series in all_series:
        colour, marker, dashes = series.style
        for name, face, values in (
            ("sent", colour, [point.up_bytes / _KIB for _, point in series.points]),
            ("received", "white", [point.down_bytes / _KIB for _, point in series.points]),
        ):
            axes.plot(
                series.rates,
                values,
                linestyle=dashes,
                marker=marker,
                color=colour,
                markerfacecolor=face,
                markersize=4.5,
                linewidth=1,
                clip_on=False,
                label=f"{series.label}: {name}",
            )


def _paint_epsilon(axes: Axes, all_series: Sequence[Series]) -> None:
    _paint_pairs(axes, all_series, lambda point: point.epsilon, lambda theory: theory.epsilon)


def _paint_error(axes: Axes, all_series: Sequence[Series]) -> None:
    _paint_pairs(axes, all_series, lambda point: point.error, lambda theory: theory.error)


def _paint_cpu(axes: Axes, all_series: Sequence[Series]) -> None:
    _paint_pairs(axes, all_series, lambda point: point.cpu_s, lambda _theory: None, "measured")


def _paint_pairs(
    axes: Axes,
    all_series: Sequence[Series],
    simulated: Callable[[Point], float | None],
    by_theory: Callable[[Expected], float | None],
    word: str = "simulated",
) -> None:
    for place, series in enumerate(all_series):
        colour, marker, dashes = series.style
        theory = [(rate, value) for rate, each in series.theory if (value := by_theory(each)) is not None]
        if theory:
            axes.plot(
                *zip(*theory, strict=True),
                color=colour,
                linewidth=1.4,
                linestyle=dashes,
                label=f"{series.label}: theory",
            )
        points = [(rate, value) for rate, each in series.points if (value := simulated(each)) is not None]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                marker,
                color=colour,
                markersize=4.5,
                clip_on=False,
                transform=_beside(axes, place, len(all_series)),
                label=f"{series.label}: {word}",
            )
            # What is moved sideways does not count by itself.
            axes.update_datalim(points)
    axes.autoscale_view()


_PROBABILITIES = (paint_success, _paint_excess)


# Columns of panels.


def _columns(result: SweepResult) -> Iterator[tuple[str, list[Series]]]:
    """A title and its curves for each value of the rate that does not run along."""
    sweep = result.sweep
    if _by_corruption(sweep):
        for dropout in sweep.dropouts:
            cell_of = _cells_at_dropout(dropout)
            yield (
                f"dropout {_percent(dropout)}",
                [_series(result, protocol, sweep.corruptions, cell_of) for protocol in sweep.protocols],
            )
        return
    for corruption in sweep.corruptions:
        cell_of = _cells_at_corruption(corruption)
        title = f"{_percent(corruption)} refuse to help" if any(sweep.corruptions) else ""
        yield title, [_series(result, protocol, sweep.dropouts, cell_of) for protocol in sweep.protocols]


_CellOf = Callable[[Protocol, Fraction], Cell]


def _cells_at_dropout(dropout: Fraction) -> _CellOf:
    return lambda protocol, rate: Cell(protocol, dropout, rate)


def _cells_at_corruption(corruption: Fraction) -> _CellOf:
    return lambda protocol, rate: Cell(protocol, rate, corruption)


def _series(result: SweepResult, protocol: Protocol, rates: tuple[Fraction, ...], cell_of: _CellOf) -> Series:
    by_cell = {point.cell: point for point in result.points}
    points = tuple((float(rate), by_cell[cell_of(protocol, rate)]) for rate in sorted(rates))
    plan = result.sweep.plan_of(protocol)
    theory = _theory(result.sweep, plan, rates, lambda rate: cell_of(protocol, rate))
    return Series(str(protocol), _STYLES[protocol], points, theory)


def _theory(
    sweep: Sweep, plan: Plan, rates: Sequence[Fraction], cell_of: Callable[[Fraction], Cell]
) -> tuple[tuple[float, Expected], ...]:
    """At the rates themselves and between them."""
    first, last = min(rates), max(rates)
    between = {first + (last - first) * step / _STEPS for step in range(_STEPS + 1)}
    return tuple(
        (float(rate), expected(plan, cell_of(rate), sweep.drop_phase)) for rate in sorted(between | set(rates))
    )


def _by_corruption(sweep: Sweep) -> bool:
    return len(sweep.corruptions) > len(sweep.dropouts)


def _percent(rate: Fraction) -> str:
    return f"{100 * float(rate):.3g} %"


def _headline(result: SweepResult) -> str:
    sweep = result.sweep
    plan, committee = sweep.plan, sweep.plan.committee
    parts = [f"{plan.clients} clients, minimum {plan.minimum}, max corrupt {plan.corrupt}"]
    if Protocol.ONE_SHOT in sweep.protocols:
        parts.append(f"committee {committee.needed} of {committee.members}")
    if plan.epsilon is not None:
        parts.append(f"noise for epsilon {float(plan.epsilon):g}")
    parts.append(f"{plan.dimension:,} parameters; {sweep.repeat} sessions a point, 95 % intervals")
    return "; ".join(parts[:-1]) + f"\n{parts[-1]}"
