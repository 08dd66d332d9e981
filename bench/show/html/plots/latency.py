"""Latency quantiles of the storage, by direction, pattern, block size and queue depth."""

from __future__ import annotations

from bench.model import Measurement, Run
from bench.show.html.plots import GRID, INK, SERIES, drawing, in_units, label, svg
from bench.show.wording import label_words

METRICS = {"storage_read_latency_seconds": "read", "storage_write_latency_seconds": "write"}
_QUANTILES = {"p50": "o", "p99": "D", "p99.9": "s", "max": "v"}
_MOST_ROWS = 24


def latency(run: Run) -> str | None:
    """As SVG; hollow marks are for the record only. None when nothing was measured."""
    rows = _rows(run)
    if not rows:
        return None
    height = 0.3 * len(rows) + 0.9
    with drawing(height) as (figure, axes):
        for row, (name, quantiles) in enumerate(rows.items()):
            colour = SERIES[0] if name.startswith("read") else SERIES[1]
            points = [(quantiles[q].value, q) for q in _QUANTILES if q in quantiles and quantiles[q].value > 0]
            axes.plot([value for value, _ in points], [row] * len(points), color=GRID, linewidth=3, zorder=1)
            for value, quantile in points:
                face = "none" if quantiles[quantile].invalid is not None else colour
                axes.scatter(value, row, marker=_QUANTILES[quantile], s=40, facecolor=face, edgecolor=colour, zorder=2)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_yticks(range(len(rows)), [label(name, 60) for name in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        in_units(axes.xaxis, "storage_read_latency_seconds")
        handles = [axes.scatter([], [], marker=mark, color=INK, s=30) for mark in _QUANTILES.values()]
        figure.legend(handles, _QUANTILES, ncols=4, loc="outside lower left")
        return svg(figure, "Storage latency quantiles by pattern")


def _rows(run: Run) -> dict[str, dict[str, Measurement]]:
    rows: dict[str, dict[str, Measurement]] = {}
    several = len(run.request.storage) > 1
    for metric, word in METRICS.items():
        for m in run.find(metric):
            hidden = {"statistic", "stand_in"} | (set() if several else {"path"})
            shown = [label_words(key, value) for key, value in m.labels.items() if key not in hidden]
            rows.setdefault(", ".join([word, *shown]), {})[m.labels.get("statistic", "")] = m
    return dict(list(rows.items())[:_MOST_ROWS])
