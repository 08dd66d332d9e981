"""Over time: what a device delivered and the accelerator consumed in a run, utilization; a metric night after night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.model import Run, Series, unit_of
from bench.show.html.plots import BAD, BAND, FIRST, INK, MUTED, SERIES, WARN, drawing, in_units, svg
from bench.show.text import clean
from bench.show.wording import title

_MOST_POINTS = 240
_MOST_PANELS = 6
#: Drawn on one axis, a panel a stage; other series come after, one panel a metric.
_FEED = ("feed_device_bytes_per_second", "feed_consumed_bytes_per_second")


def timelines(run: Run) -> str | None:
    """As SVG, one panel a group; None without a time line."""
    panels = _panels([series for result in run.results for series in result.series if series.values])
    if not panels:
        return None
    with drawing(1.35 * len(panels) + 0.3, nrows=len(panels), squeeze=False) as (figure, grid):
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            for number, series in enumerate(panel):
                seconds, values = thinned(series)
                axes.plot(seconds, values, color=SERIES[number % len(SERIES)], linewidth=1.3, label=_named(series))
            axes.set_ylim(bottom=min(0.0, *(min(s.values) for s in panel)))
            in_units(axes.yaxis, panel[0].metric, most=3)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.1, fontsize=8)
            axes.margins(x=0.01)
        grid[-1, 0].set_xlabel("seconds since the stage began")
        return svg(figure, "Time lines of the run")


def thinned(series: Series) -> tuple[list[float], list[float]]:
    """At most 240 points: the mean of each piece, so that a short dip still shows as a dip."""
    step = -(-len(series.values) // _MOST_POINTS)
    pieces = [slice(i, i + step) for i in range(0, len(series.values), step)]
    return [fmean(series.seconds[piece]) for piece in pieces], [fmean(series.values[piece]) for piece in pieces]


def _panels(found: Sequence[Series]) -> list[list[Series]]:
    """The feed's stages first; then one panel a metric, ratios before the rest."""
    stages: dict[str, list[Series]] = {}
    by_metric: dict[str, list[Series]] = {}
    for series in found:
        fed = series.metric in _FEED
        group, key = (stages, series.labels.get("stage", "")) if fed else (by_metric, series.metric)
        group.setdefault(key, []).append(series)
    ratios_first = sorted(by_metric.values(), key=lambda panel: unit_of(panel[0].metric) != "ratio")
    return [*stages.values(), *(panel[: len(SERIES)] for panel in ratios_first)][:_MOST_PANELS]


def _named(series: Series) -> str:
    words = [value for key, value in series.labels.items() if key in ("stage", "device", "state", "place", "kind")]
    return clean(", ".join([title(series.metric), *words]), 60)


@dataclass(frozen=True, slots=True)
class MetricHistory:
    """One metric's past on one node, oldest first, in base units.

    ``expected`` and ``edge``: what is normal, and the bound of the one-sided prediction interval beyond which a night
    is suspect. ``visible``: the value at which a lasting drop would be seen with 80 % power. None: not enough nights.
    """

    name: str
    metric: str
    values: tuple[float, ...]
    expected: float | None = None
    edge: float | None = None
    visible: float | None = None
    limit: float | None = None


def histories(found: Sequence[MetricHistory]) -> str | None:
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


def _panel(a: Any, history: MetricHistory) -> None:
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
    a.set_title(clean(history.name, 46), fontsize=9, loc="left", color=INK)
    a.set_xticks([])
    in_units(a.yaxis, history.metric, most=4)
