"""Rates: the feed's ceilings and what each part of the way costs, demand against supply, tokens a second, goodput."""

from __future__ import annotations

from bench.model import Attribution, Measurement, Run
from bench.show.html.plots import BAD, FIRST, GOOD, INK, MUTED, SECOND, drawing, in_percent, rows, svg
from bench.show.text import clean
from bench.units import human

TOKENS = "inference_tokens_per_second"
OFFERED = "inference_offered_requests_per_second"
GOODPUT = "inference_goodput_ratio"
_MOST_BARS = 14
RATE = "inference_samples_per_second"
_SUPPLY = "storage_read_bytes_per_second"
#: (what the bar is, the stage whose rate it is, the part that was lost since the bar above)
_STEPS = (
    ("accelerator alone", "resident", None),
    ("with the copy to the device", "transfer", "copy"),
    ("with decoding from memory", "preprocess", "decoding"),
    ("with reading, if nothing else cost", "fed", "storage"),
    ("as it really ran, from storage", "storage", "loader (one after the other)"),
)


def rates(run: Run, path: str | None = None) -> dict[str, float]:
    """Stage -> samples a second, of that path (the attribution's) where several were measured."""
    found: dict[str, float] = {}
    for m in run.find(RATE):
        if path in (None, m.labels.get("path", path)):
            found.setdefault(m.labels.get("stage", ""), m.value)
    if "preprocess" in found and "fetch" in found:
        found["fed"] = min(found["preprocess"], found["fetch"])
    return found


def waterfall(run: Run) -> str | None:
    """As SVG, pale where the measurement's conditions did not hold; None when the feed was not measured."""
    path = run.attribution.path if run.attribution else None
    found = rates(run, path)
    if found.get("resident", 0.0) <= 0.0 or "storage" not in found:
        return None
    alpha = 0.4 if run.attribution is not None and not run.attribution.valid else 1.0
    bars = [(name, found[stage], part) for name, stage, part in _STEPS if stage in found]
    with drawing(0.42 * len(bars) + 0.6) as (figure, axes):
        whole, before = found["resident"], found["resident"]
        for row, (_, rate, part) in enumerate(bars):
            axes.barh(row, rate / whole, color=FIRST, height=0.62, alpha=alpha)
            lost = (before - rate) / whole
            if part and lost > 0.0:
                axes.barh(row, lost, left=rate / whole, color=BAD, height=0.62, alpha=0.85 * alpha)
            cost = f", {part} costs {100 * lost:.1f} %" if part and lost > 0.0005 else ""
            axes.text(max(rate, before) / whole + 0.01, row, f"{human(rate, RATE)}{cost}", va="center", color=INK)
            before = rate
        rows(axes, [name for name, _, _ in bars])
        axes.set_xlim(0, 2.0)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.grid(axis="y", visible=False)
        in_percent(axes.xaxis)
        axes.set_xlabel("share of what the accelerator can consume", loc="left")
        return svg(figure, "The feed waterfall: what the accelerator could consume, and what each part costs")


def demand_and_supply(attribution: Attribution | None) -> str | None:
    """As SVG; None when either was not measured."""
    if attribution is None or not attribution.demand_bytes_per_second or attribution.supply_bytes_per_second is None:
        return None
    bars = {
        "needed by the accelerator": attribution.demand_bytes_per_second,
        "delivered by the path": attribution.supply_bytes_per_second,
    }
    most = max(bars.values())
    with drawing(1.1) as (figure, axes):
        for row, value in enumerate(bars.values()):
            axes.barh(row, value, color=(FIRST, SECOND)[row], height=0.6)
            axes.text(value + 0.01 * most, row, human(value, _SUPPLY), va="center", color=INK)
        rows(axes, list(bars))
        axes.set_xlim(0, 1.2 * most)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", colors=MUTED)
        return svg(figure, "Demand of the accelerator against supply of the path")


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
        rows(axes, [_named(m) for m in found])
        axes.set_xlim(0, 1.25 * max(m.interval[1] for m in found))
        axes.grid(axis="y", visible=False)
        axes.set_xticks([])
        return svg(figure, "Tokens a second by stage and batch")


def _named(m: Measurement) -> str:
    batch = m.labels.get("batch")
    words = [m.labels.get("stage"), f"batch {batch}" if batch else "", m.labels.get("shape")]
    words.append(m.labels.get("rate") or m.labels.get("load"))
    return clean(", ".join(word for word in words if word), 48)


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
        in_percent(axes.yaxis)
        axes.set_xlabel("offered requests a second")
        axes.set_ylabel("in time")
        return svg(figure, "Goodput over the offered load")


def _points(run: Run) -> list[tuple[float, Measurement]]:
    """Goodput and offered rate belong together when the labels of the rate agree."""
    pairs = ((o.value, m) for m in run.find(GOODPUT) for o in run.find(OFFERED) if o.labels.items() <= m.labels.items())
    first = {id(m): (offered, m) for offered, m in reversed(list(pairs))}
    return sorted(first.values(), key=lambda point: point[0])
