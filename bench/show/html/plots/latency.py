"""Latencies: the quantiles of storage and network, and what each part takes of the 200 ms of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.model import Finding, Measurement, Run
from bench.show.html.plots import BAD, GRID, INK, SERIES, drawing, in_units, rows, svg
from bench.show.text import clean
from bench.show.wording import label_words, needed, title
from bench.units import human

#: The gap between two speakers in human conversation (the profile realtime-inference says where it comes from).
BUDGET_SECONDS = 0.2
ROUND_TRIP = "network_round_trip_seconds"
STORAGE = {"storage_read_latency_seconds": "read", "storage_write_latency_seconds": "write"}
_PARTS = (ROUND_TRIP, "storage_read_latency_seconds", "inference_first_token_seconds")
_MARKS = {"p50": "o", "p99": "D", "p99.9": "s", "max": "v"}
#: The colour of a row, and its measurements by quantile.
Row = tuple[str, dict[str, Measurement]]


# --- quantiles


def storage(run: Run) -> str | None:
    """Latency of the storage by direction, pattern, block size and queue depth; None when it was not measured."""
    found: dict[str, Row] = {}
    hidden = {"statistic", "stand_in"} | (set() if len(run.request.storage) > 1 else {"path"})
    for (metric, word), colour in zip(STORAGE.items(), SERIES, strict=False):
        for m in run.find(metric):
            name = ", ".join([word, *(label_words(k, v) for k, v in m.labels.items() if k not in hidden)])
            found.setdefault(name, (colour, {}))[1][m.labels.get("statistic", "")] = m
    return _quantiles(dict(list(found.items())[:24]), "Storage latency quantiles by pattern")


def round_trips(run: Run) -> str | None:
    """Round trips, idle and loaded, by peer, against the whole budget; None when they were not measured."""
    found: dict[str, Row] = {}
    for m in run.find(ROUND_TRIP):
        words = [value for key, value in sorted(m.labels.items()) if key not in ("statistic", "peer", "stand_in")]
        name = ", ".join([*words, *([m.labels["peer"]] if "peer" in m.labels else [])])
        found.setdefault(name, (SERIES[len(found) % 2], {}))[1][m.labels.get("statistic", "")] = m
    shown = dict(list(found.items())[:12])
    return _quantiles(shown, "Round trips against the budget, by state of the network", BUDGET_SECONDS)


def _quantiles(found: Mapping[str, Row], heading: str, limit: float | None = None) -> str | None:
    """A row a name, seconds on a logarithmic axis; hollow marks are for the record only. None without a row."""
    if not found:
        return None
    with drawing(0.3 * len(found) + 0.9) as (figure, axes):
        for row, (colour, quantiles) in enumerate(found.values()):
            points = {q: quantiles[q] for q in _MARKS if q in quantiles and quantiles[q].value > 0}
            axes.plot([m.value for m in points.values()], [row] * len(points), color=GRID, linewidth=3, zorder=1)
            for quantile, m in points.items():
                face = "none" if m.invalid is not None else colour
                axes.scatter(m.value, row, marker=_MARKS[quantile], s=40, facecolor=face, edgecolor=colour, zorder=2)
        if limit is not None:
            axes.axvline(limit, color=BAD, linewidth=1.4)
        axes.set_xscale("log")
        axes.minorticks_off()
        rows(axes, [clean(name, 60) for name in found])
        in_units(axes.xaxis, ROUND_TRIP)
        handles = [axes.scatter([], [], marker=mark, color=INK, s=30) for mark in _MARKS.values()]
        figure.legend(handles, _MARKS, ncols=4, loc="outside lower left")
        return svg(figure, heading)


# --- the budget


def parts(run: Run) -> list[Finding]:
    """The gates on p99 of the three parts, of the first profile that has them; those without a number too."""
    for verdict in run.verdicts:
        p99 = {f.metric: f for f in reversed(verdict.findings) if f.labels.get("statistic") == "p99"}
        found = [p99[metric] for metric in _PARTS if metric in p99]
        if len(found) >= 2:
            return found
    return []


def budget(run: Run) -> str | None:
    """Each part's p99 against its share, stacked against the budget; None when fewer than one was measured."""
    found = parts(run)
    measured = [f for f in found if f.observed is not None]
    if not measured:
        return None
    total = sum(f.observed or 0.0 for f in measured)
    with drawing(1.6 + 0.2 * len(found)) as (figure, axes):
        _stack(axes, 0, [(f, f.limit.max) for f in found if f.limit.max is not None], 0.45)
        _stack(axes, 1, [(f, f.observed) for f in measured], 1.0)
        axes.axvline(BUDGET_SECONDS, color=BAD, linewidth=1.4)
        missing = "" if len(measured) == len(found) else " (not all parts)"
        axes.set_yticks([0, 1], ["shares of the budget", f"measured, p99{missing}"])
        axes.set_xlim(0, 1.15 * max(BUDGET_SECONDS, total))
        axes.set_ylim(1.5, -0.5)
        axes.grid(axis="y", visible=False)
        in_units(axes.xaxis, ROUND_TRIP)
        handles = [axes.barh(0, 0, color=SERIES[_PARTS.index(f.metric)]) for f in found]
        figure.legend(handles, [_named(f) for f in found], loc="outside lower left", ncols=1)
        return svg(figure, "The 200 ms budget: network, storage and model")


def _stack(axes: Any, row: int, values: Sequence[tuple[Finding, float | None]], alpha: float) -> None:
    left = 0.0
    for finding, value in values:
        colour = SERIES[_PARTS.index(finding.metric)]
        axes.barh(row, value or 0.0, left=left, color=colour, alpha=alpha, height=0.55)
        left += value or 0.0


def _named(finding: Finding) -> str:
    value = "not measured" if finding.observed is None else human(finding.observed, finding.metric)
    return f"{title(finding.metric)}: {value} of {needed(finding.limit, finding.metric).removeprefix('<= ')}"
