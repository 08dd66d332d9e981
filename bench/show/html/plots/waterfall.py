"""The feed waterfall: the ceilings one above the other, and what each part of the way costs; demand against supply."""

from __future__ import annotations

from collections.abc import Mapping

from bench.model import Attribution, Run
from bench.show.html.plots import BAD, FIRST, INK, MUTED, SECOND, drawing, shares, svg
from bench.units import human

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
    rows = [(name, found[stage], part) for name, stage, part in _STEPS if stage in found]
    with drawing(0.42 * len(rows) + 0.6) as (figure, axes):
        whole, before = found["resident"], found["resident"]
        for row, (_, rate, part) in enumerate(rows):
            axes.barh(row, rate / whole, color=FIRST, height=0.62, alpha=alpha)
            lost = (before - rate) / whole
            if part and lost > 0.0:
                axes.barh(row, lost, left=rate / whole, color=BAD, height=0.62, alpha=0.85 * alpha)
            cost = f", {part} costs {100 * lost:.1f} %" if part and lost > 0.0005 else ""
            axes.text(max(rate, before) / whole + 0.01, row, f"{human(rate, RATE)}{cost}", va="center", color=INK)
            before = rate
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 2.0)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.grid(axis="y", visible=False)
        shares(axes)
        axes.set_xlabel("share of what the accelerator can consume", loc="left")
        return svg(figure, "The feed waterfall: what the accelerator could consume, and what each part costs")


def demand_and_supply(attribution: Attribution | None) -> str | None:
    """As SVG; None when either was not measured."""
    if attribution is None or not attribution.demand_bytes_per_second or attribution.supply_bytes_per_second is None:
        return None
    bars: Mapping[str, float] = {
        "needed by the accelerator": attribution.demand_bytes_per_second,
        "delivered by the path": attribution.supply_bytes_per_second,
    }
    most = max(bars.values())
    with drawing(1.1) as (figure, axes):
        for row, (name, value) in enumerate(bars.items()):
            del name
            axes.barh(row, value, color=(FIRST, SECOND)[row], height=0.6)
            axes.text(value + 0.01 * most, row, human(value, _SUPPLY), va="center", color=INK)
        axes.set_yticks(range(2), list(bars))
        axes.invert_yaxis()
        axes.set_xlim(0, 1.2 * most)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", colors=MUTED)
        return svg(figure, "Demand of the accelerator against supply of the path")
