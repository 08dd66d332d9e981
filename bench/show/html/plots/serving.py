"""The inference load: tokens a second by stage and batch, and goodput over the offered load."""

from __future__ import annotations

from bench.model import Measurement, Run
from bench.show.html.plots import FIRST, GOOD, INK, MUTED, drawing, label, svg
from bench.units import human

TOKENS = "inference_tokens_per_second"
OFFERED = "inference_offered_requests_per_second"
GOODPUT = "inference_goodput_ratio"
_MOST_BARS = 14


def tokens(run: Run) -> str | None:
    """As SVG; pale bars are for the record only. None when the load did not run."""
    found = run.find(TOKENS)[:_MOST_BARS]
    if not found:
        return None
    with drawing(0.3 * len(found) + 0.55) as (figure, axes):
        most = max(m.value for m in found) or 1.0
        for row, m in enumerate(found):
            axes.barh(row, m.value, color=FIRST, height=0.62, alpha=0.4 if m.invalid is not None else 1.0)
            low, high = m.interval
            axes.plot([low, high], [row, row], color=INK, linewidth=1.2)
            axes.text(max(m.value, high) + 0.01 * most, row, human(m.value, TOKENS), va="center", color=INK)
        axes.set_yticks(range(len(found)), [_named(m) for m in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlim(0, 1.25 * max(m.interval[1] for m in found))
        axes.grid(axis="y", visible=False)
        axes.set_xticks([])
        return svg(figure, "Tokens a second by stage and batch")


def _named(m: Measurement) -> str:
    batch = m.labels.get("batch")
    words = [m.labels.get("stage", ""), f"batch {batch}" if batch else "", m.labels.get("shape", "")]
    several = m.labels.get("rate") or m.labels.get("load")
    return label(", ".join(word for word in [*words, several or ""] if word), 48)


def goodput(run: Run) -> str | None:
    """Share of requests in time over the offered load; None when it was not measured."""
    points = _points(run)
    if not points:
        return None
    with drawing(2.1) as (figure, axes):
        xs, ys = [offered for offered, _ in points], [m.value for _, m in points]
        axes.plot(xs, ys, color=MUTED, linewidth=1, zorder=1)
        for offered, m in points:
            axes.plot([offered, offered], m.interval, color=INK, linewidth=1.2)
            face = "none" if m.invalid is not None else GOOD
            axes.scatter(offered, m.value, s=46, facecolor=face, edgecolor=GOOD, zorder=3)
        axes.set_ylim(-0.03, 1.05)
        axes.set_xlim(0, 1.25 * max(xs))
        from matplotlib.ticker import PercentFormatter

        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.set_xlabel("offered requests a second")
        axes.set_ylabel("in time")
        return svg(figure, "Goodput over the offered load")


def _points(run: Run) -> list[tuple[float, Measurement]]:
    """Goodput and offered rate belong together when their common labels agree."""
    offered = run.find(OFFERED)
    points = []
    for m in run.find(GOODPUT):
        same = [o.value for o in offered if all(m.labels.get(key) == value for key, value in o.labels.items())]
        if same:
            points.append((same[0], m))
    return sorted(points, key=lambda point: point[0])
