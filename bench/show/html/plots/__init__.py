"""Pictures of a run as inline SVG: no script, no font of their own, the page's colours in light and in dark.

matplotlib draws; what it writes is then bound to the page: its colours become CSS variables, its fonts the page's, and
identifiers that nothing refers to are dropped. Foreign text is cleaned, never read as mathematics, and escaped by
matplotlib's own XML writer.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bench.show.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Names of the page's colours, and the marks that stand for them while matplotlib draws.
INK, MUTED, GRID = "#010a01", "#010a02", "#010a03"
FIRST, SECOND, THIRD, FOURTH, FIFTH = "#010a04", "#010a05", "#010a06", "#010a07", "#010a08"
GOOD, BAD, WARN, BAND = "#010a09", "#010a0a", "#010a0b", "#010a0c"
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", FIRST: "--c1", SECOND: "--c2", THIRD: "--c3", FOURTH: "--c4",
    FIFTH: "--c5", GOOD: "--good", BAD: "--bad", WARN: "--warn", BAND: "--band",
}  # fmt: skip
SERIES = (FIRST, SECOND, THIRD, FOURTH, FIFTH)
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.parse_math": False,
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "figure.facecolor": "none",
    "legend.frameon": False,
}
WIDTH = 7.2


@contextmanager
def drawing(height: float, width: float = WIDTH, **grid: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure of that many inches and its axes (``subplots`` takes ``grid``), in the page's style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(**grid)


def svg(figure: Figure, title: str) -> str:
    """The figure as one ``<svg>`` element that stands in an HTML page; ``title`` is what a screen reader says."""
    from html import escape

    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    box = re.search(r'viewBox="([^"]+)"', text)
    body = text[text.index("<defs") :] if "<defs" in text else text
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.S)
    for mark, variable in _VARIABLES.items():
        body = body.replace(mark, f"var({variable})")
    body = re.sub(r"(font: [^;\"]*?[\d.]+px) [^;\"]*", r"\1 system-ui, sans-serif", body)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", body)
    body = re.sub(r"\s*\n\s*", "\n", body.replace("xlink:href", "href"))
    return f'<svg role="img" viewBox="{box[1] if box else "0 0 1 1"}"><title>{escape(clean(title))}</title>\n{body}'


def rows(axes: Axes, names: Sequence[str]) -> None:
    """A row for each name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def in_percent(axis: Any) -> None:
    """Ticks of a ratio in percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def in_units(axis: Any, metric: str, most: int = 6) -> None:
    """Ticks as people read that metric: ``200 MB/s``, ``5 ms``; on a linear axis no more than ``most``."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    from bench.units import human

    if axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: human(float(f"{value:.6g}"), metric)))
