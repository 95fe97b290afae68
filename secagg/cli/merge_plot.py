"""A picture of a merged adapter: error and energy by module. The only user of matplotlib in ``secagg``."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secagg.cli.failures import CommandError
from secagg.cli.merged_modules import MergedFacts, ModuleFacts
from secagg.lora.merge_report import DEGRADED_ERROR

SUFFIXES = (".png", ".svg")
MOST_BARS = 40
"""With more modules than this their names do not fit; they are drawn by layer, one line for each kind."""
_MOST_KINDS = 10
_DOTS_PER_INCH = 100
_ERROR, _POOR, _ENERGY, _LIMIT = "#1f5fa8", "#c0392b", "#5b8c5a", "#c0392b"
_KINDS = ("#1f5fa8", "#d9822b", "#3a8f5c", "#b03a8c", "#6b5b95", "#8c6d31", "#2a9d9d", "#c0392b", "#7f7f7f", "#bcbd22")
_MARKERS = "os^Dvp*XP<"
_NUMBER = re.compile(r"\d+")
_OTHERS = "others"


def check_plot_file(path: Path) -> None:
    """Refuse a file that could not be drawn, before anything is read.

    Raises:
        CommandError: another suffix than .png or .svg, or matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise CommandError("PLOT", f"--plot {path.name}: must end in {' or '.join(SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError("PLOT", "--plot needs matplotlib", 'install it: pip install "secagg-lora[plots]"')


def draw(facts: MergedFacts, path: Path) -> None:
    """Draw estimated error, where it is known, above the share of energy, as PNG or SVG by suffix.

    Raises:
        CommandError: as ``check_plot_file``.
        OSError: the file cannot be written.
    """
    check_plot_file(path)
    from matplotlib.figure import Figure

    modules = facts.modules
    panels = 1 if facts.report is None else 2
    if len(modules) <= MOST_BARS:
        figure = Figure(figsize=(4.2 + 4 * panels, 1.7 + 0.27 * len(modules)), dpi=_DOTS_PER_INCH, layout="constrained")
        _draw_bars(list(figure.subplots(1, panels, sharey=True, squeeze=False)[0]), modules)
    else:
        figure = Figure(figsize=(12, 1.2 + 3.6 * panels), dpi=_DOTS_PER_INCH, layout="constrained")
        _draw_layers(figure, list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]), modules)
    figure.suptitle(_title(facts), fontsize=12)
    # No date in the file: the same adapter gives the same picture.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
    figure.savefig(path, format=path.suffix.lower()[1:], metadata=metadata)


def _title(facts: MergedFacts) -> str:
    report = facts.report
    if report is None:
        return "Share of energy by module; without merge.json there is no estimate of error"
    degraded = ", DEGRADED" if report.is_degraded else ""
    error = report.error_ppm / 10**6
    return f"{report.strategy}, {report.contributors} contributors: estimated error {error:.3f}{degraded}"


def _draw_bars(panels: Sequence[Any], modules: Sequence[ModuleFacts]) -> None:
    """Names on the left, one bar a module."""
    places = range(len(modules))
    *first, last = panels
    for axes in first:
        errors = [module.error or 0.0 for module in modules]
        colors = [_POOR if module.is_poor else _ERROR for module in modules]
        axes.barh(places, errors, color=colors, height=0.7)
        axes.axvline(DEGRADED_ERROR, color=_LIMIT, linestyle="--", linewidth=1.2)
        axes.set_xlim(0, max(0.5, 1.08 * max(errors)))
        axes.set_xlabel(f"estimated relative error (dashed: {DEGRADED_ERROR})", fontsize=10)
    last.barh(places, [100 * module.energy for module in modules], color=_ENERGY, height=0.7)
    last.set_xlabel("share of energy, %", fontsize=10)
    panels[0].set_yticks(places, [module.path for module in modules], fontsize=9)
    panels[0].set_ylim(len(modules) - 0.4, -0.6)
    for axes in panels:
        axes.grid(axis="x", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)


def _draw_layers(figure: Any, panels: Sequence[Any], modules: Sequence[ModuleFacts]) -> None:  # noqa: ANN401
    """Layers from left to right, one line for each kind of module."""
    kinds = _by_kind(modules)
    *first, last = panels
    for number, (kind, members) in enumerate(kinds.items()):
        style = {"color": _KINDS[number], "marker": _MARKERS[number], "markersize": 4, "linewidth": 1.2}
        if kind == _OTHERS:
            style["linestyle"] = "none"
        places = [place for place, _ in members]
        for axes in first:
            axes.plot(places, [module.error for _, module in members], label=kind, **style)
        last.plot(places, [100 * module.energy for _, module in members], label=kind, **style)
    for axes in first:
        axes.axhline(DEGRADED_ERROR, color=_LIMIT, linestyle="--", linewidth=1.2, label=f"limit {DEGRADED_ERROR}")
        axes.set_ylabel("estimated relative error", fontsize=10)
    last.set_ylabel("share of energy, %", fontsize=10)
    last.set_xlabel("layer", fontsize=10)
    for axes in panels:
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.grid(color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=9)


def _by_kind(modules: Sequence[ModuleFacts]) -> dict[str, list[tuple[int, ModuleFacts]]]:
    """Modules that differ in the numbers of their paths only, with the first of these, which is that of the layer."""
    names = _kinds([module.path for module in modules])
    kinds: dict[str, list[tuple[int, ModuleFacts]]] = {}
    for module in modules:
        found = _NUMBER.search(module.path)
        kinds.setdefault(names[_NUMBER.sub("*", module.path)], []).append((int(found[0]) if found else 0, module))
    return kinds


def _kinds(paths: Sequence[str]) -> dict[str, str]:
    """What to call each pattern of paths: by its last part, unless others end alike; the rarest are others."""
    counts = Counter(_NUMBER.sub("*", path) for path in paths)
    endings = Counter(pattern.rpartition(".")[2] for pattern in counts)
    names = {}
    for rank, (pattern, _) in enumerate(counts.most_common()):
        ending = pattern.rpartition(".")[2]
        names[pattern] = ending if endings[ending] == 1 else pattern
        if rank >= _MOST_KINDS - 1 and len(counts) > _MOST_KINDS:
            names[pattern] = _OTHERS
    return names
