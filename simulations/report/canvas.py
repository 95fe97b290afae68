"""Plots as text of SVG that goes into a page: the page's colours by name, no dates, the same bytes each time."""

from __future__ import annotations

import html
import importlib.util
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from verifier.text_report import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 8.6

INK, SOFT, LINE, PAGE, TINT = "#010101", "#010102", "#010103", "#010104", "#010105"
"""What plots are drawn in: text, quiet text, grid, paper, and shaded ground. The page says which colour each is."""

BLUE, SKY, GREEN, ORANGE, PURPLE, RED, GREY = (
    "#020201",
    "#020202",
    "#020203",
    "#020204",
    "#020205",
    "#020206",
    "#020207",
)
"""Colours of data. They differ in brightness too, and nothing is told by colour alone."""

_NAMES = MappingProxyType(
    {
        INK: "ink",
        SOFT: "soft",
        LINE: "line",
        PAGE: "page",
        TINT: "tint",
        BLUE: "plot-blue",
        SKY: "plot-sky",
        GREEN: "plot-green",
        ORANGE: "plot-orange",
        PURPLE: "plot-purple",
        RED: "plot-red",
        GREY: "plot-grey",
    }
)

# Any: matplotlib's own type is a list of all its settings, which differs between its versions.
_SETTINGS: Any = {
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.color": LINE,
    "ytick.labelcolor": SOFT,
}


class PlotsMissingError(RuntimeError):
    """The extra that draws is not installed."""

    def __init__(self) -> None:
        super().__init__('needs matplotlib: pip install "secagg-lora[plots]"')


def check_plots() -> None:
    """Raise PlotsMissingError if nothing can be drawn: to be asked before anything is computed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise PlotsMissingError


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot and its words.

    Attributes:
        name: unlike that of any other plot of a page; letters and hyphens.
        title: what it is, in a few words.
        description: what it shows, with its numbers, for whoever does not see it.
        svg: one element, to be put into a page whose style has the colours.
    """

    name: str
    title: str
    description: str
    svg: str


def draw(name: str, height_inches: float, paint: Callable[[Figure], None]) -> str:
    """The SVG of what ``paint`` draws; titles are put around it by ``titled``.

    Raises:
        PlotsMissingError: matplotlib is not installed.
    """
    check_plots()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Whatever a user has in a matplotlibrc is not ours.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS | {"svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        paint(figure)
        written = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        with warnings.catch_warnings():
            # Names in a script that the font does not have are drawn as boxes; the tables have them.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(written, format="svg", metadata=nothing)
    return _for_page(name, written.getvalue())


def plot(name: str, title: str, description: str, svg: str) -> Plot:
    """A plot whose drawing carries its title and description."""
    words = (
        f'role="img" aria-labelledby="{name}-title {name}-about">'
        f'<title id="{name}-title">{html.escape(printable(title))}</title>'
        f'<desc id="{name}-about">{html.escape(printable(description))}</desc>'
    )
    return Plot(name, title, description, svg.replace(">", " " + words, 1))


def _for_page(name: str, svg: str) -> str:
    svg = svg[svg.index("<svg") :].rstrip()
    # In a page this would hold for all of the page, and it does no more than the page's own style.
    svg = re.sub(r"<style type=\"text/css\">.*?</style>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'^(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # Several plots share a page.
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    for colour, variable in _NAMES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg


def grid(axes: Axes, direction: str) -> None:
    """Quiet grid lines across ``x`` or ``y``, and no marks on that axis."""
    axes.grid(visible=True, axis="x" if direction == "x" else "y")
    axes.tick_params(axis="x" if direction == "x" else "y", length=0)
