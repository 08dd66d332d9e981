"""Night after night: a gating metric's values, where the next one is expected, and what would be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench.show.html.plots import BAD, BAND, FIRST, INK, MUTED, WARN, drawing, in_units, label, svg


@dataclass(frozen=True, slots=True)
class History:
    """One metric's past on one node, oldest first, in base units.

    ``expected`` and ``edge``: what is normal, and the bound of the one-sided prediction interval beyond which a night
    is suspect. ``visible``: the value at which a lasting drop would be seen with 80 % power. None: not enough nights.
    """

    name: str
    metric: str
    moments: tuple[datetime, ...]
    values: tuple[float, ...]
    expected: float | None = None
    edge: float | None = None
    visible: float | None = None
    limit: float | None = None


def histories(found: Sequence[History]) -> str | None:
    """As SVG, one panel a metric; None where no metric has two values."""
    shown = [history for history in found if len(history.values) > 1]
    if not shown:
        return None
    rows = -(-len(shown) // 2)
    with drawing(1.6 * rows, nrows=rows, ncols=2, squeeze=False) as (figure, grid):
        for axes, history in zip(grid.flat, shown, strict=False):
            _panel(axes, history)
        for axes in list(grid.flat)[len(shown) :]:
            axes.set_visible(False)
        return svg(figure, "History of the gating metrics")


def _panel(a: Any, history: History) -> None:
    nights = range(1, len(history.values) + 1)
    if history.expected is not None and history.edge is not None:
        a.axhspan(history.edge, history.expected, color=BAND, linewidth=0)
        a.axhline(history.expected, color=MUTED, linewidth=1)
    if history.visible is not None:
        a.axhline(history.visible, color=WARN, linewidth=1, linestyle=(0, (4, 3)))
    if history.limit is not None:
        a.axhline(history.limit, color=BAD, linewidth=1.2)
    a.plot(nights, history.values, color=FIRST, linewidth=1, marker="o", markersize=3.5)
    a.plot(nights[-1], history.values[-1], color=INK, marker="o", markersize=6)
    a.set_title(label(history.name, 46), fontsize=9, loc="left", color=INK)
    a.set_xticks([])
    in_units(a.yaxis, history.metric, most=4)
