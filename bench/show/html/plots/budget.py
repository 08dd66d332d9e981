"""The 200 ms budget of a conversation: what each part takes of it, and how the round trips are spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.model import Finding, Measurement, Run
from bench.show.html.plots import BAD, GRID, INK, SERIES, drawing, in_units, label, svg
from bench.show.wording import needed, title
from bench.units import human

#: The gap between two speakers in human conversation (the profile realtime-inference says where it comes from).
BUDGET_SECONDS = 0.2
ROUND_TRIP = "network_round_trip_seconds"
_PARTS = (ROUND_TRIP, "storage_read_latency_seconds", "inference_first_token_seconds")
_QUANTILES = ("p50", "p99", "p99.9", "max")
_MARKS = {"p50": "o", "p99": "D", "p99.9": "s", "max": "v"}


def parts(run: Run) -> list[Finding]:
    """The gates on p99 of the three parts, of the first profile that has them; those without a number too."""
    for verdict in run.verdicts:
        found = [
            next((f for f in verdict.findings if f.metric == metric and f.labels.get("statistic") == "p99"), None)
            for metric in _PARTS
        ]
        named = [finding for finding in found if finding is not None]
        if len(named) >= 2:
            return named
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


def round_trips(run: Run) -> str | None:
    """Quantiles of the round trip, idle and loaded, by peer; None when it was not measured."""
    rows = _rows(run.find(ROUND_TRIP))
    if not rows:
        return None
    with drawing(0.34 * len(rows) + 1.0) as (figure, axes):
        for row, (_, quantiles) in enumerate(rows):
            points = [(quantiles[q].value, q) for q in _QUANTILES if q in quantiles and quantiles[q].value > 0]
            if not points:
                continue
            axes.plot([value for value, _ in points], [row] * len(points), color=GRID, linewidth=3, zorder=1)
            for value, name in points:
                hollow = quantiles[name].invalid is not None
                face = "none" if hollow else SERIES[row % 2]
                axes.scatter(value, row, marker=_MARKS[name], s=42, facecolor=face, edgecolor=SERIES[row % 2], zorder=2)
        axes.axvline(BUDGET_SECONDS, color=BAD, linewidth=1.4)
        axes.set_xscale("log")
        axes.set_yticks(range(len(rows)), [label(name) for name, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        in_units(axes.xaxis, ROUND_TRIP)
        axes.minorticks_off()
        handles = [axes.scatter([], [], marker=_MARKS[q], color=INK, s=32) for q in _QUANTILES]
        axes.legend(
            handles, _QUANTILES, ncols=4, loc="upper left", bbox_to_anchor=(-0.02, -0.3 / (0.34 * len(rows) + 0.6))
        )
        return svg(figure, "Round trips against the budget, by state of the network")


def _rows(found: Sequence[Measurement]) -> list[tuple[str, dict[str, Measurement]]]:
    rows: dict[str, dict[str, Measurement]] = {}
    for m in found:
        hidden = ("statistic", "peer", "stand_in")
        words = [value for key, value in sorted(m.labels.items()) if key not in hidden]
        name = ", ".join([*words, *([] if m.labels.get("peer") is None else [m.labels["peer"]])])
        rows.setdefault(name, {})[m.labels.get("statistic", "")] = m
    return list(rows.items())[:12]
