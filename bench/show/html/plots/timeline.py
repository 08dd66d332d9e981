"""Time lines: what the device delivered and the accelerator consumed in the feed run, utilization, and the rest."""

from __future__ import annotations

from collections.abc import Sequence

from bench.model import Run, Series
from bench.show.html.plots import SERIES, drawing, in_units, label, svg
from bench.show.wording import title
from bench.units import unit_of

_MOST_POINTS = 240
_MOST_PANELS = 6
#: What is drawn on one axis, in this order; other series come after, one panel a metric.
_TOGETHER = (("feed_device_bytes_per_second", "feed_consumed_bytes_per_second"),)


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
    pieces = range(0, len(series.values), max(step, 1))
    seconds = [sum(series.seconds[i : i + step]) / len(series.seconds[i : i + step]) for i in pieces]
    return seconds, [sum(series.values[i : i + step]) / len(series.values[i : i + step]) for i in pieces]


def _panels(found: Sequence[Series]) -> list[list[Series]]:
    """The feed's stages first, its longest stage of each metric; then one panel a metric."""
    panels: list[list[Series]] = []
    rest = list(found)
    for metrics in _TOGETHER:
        stages = dict.fromkeys(s.labels.get("stage", "") for s in found if s.metric in metrics)
        for stage in stages:
            panel = [s for s in found if s.metric in metrics and s.labels.get("stage", "") == stage]
            panels.append(panel)
        rest = [s for s in rest if s.metric not in metrics]
    by_metric: dict[str, list[Series]] = {}
    for series in rest:
        by_metric.setdefault(series.metric, []).append(series)
    ratios_first = sorted(by_metric.values(), key=lambda panel: unit_of(panel[0].metric) != "ratio")
    return [*panels, *(panel[: len(SERIES)] for panel in ratios_first)][:_MOST_PANELS]


def _named(series: Series) -> str:
    words = [value for key, value in series.labels.items() if key in ("stage", "device", "state", "place", "kind")]
    return label(", ".join([title(series.metric), *words]), 60)
