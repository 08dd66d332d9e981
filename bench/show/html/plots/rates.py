"""Rates: the feed's ceilings and what each part of the way costs, demand against supply, tokens a second, goodput."""

from __future__ import annotations

from bench.judge.attribution import RATE
from bench.model import Measurement, Run
from bench.show.html.plots import Axis, Chart, Mark, Picture, Row, axis
from bench.show.text import clean
from bench.show.wording import plural
from bench.units import human

TOKENS = "inference_tokens_per_second"
OFFERED = "inference_offered_requests_per_second"
GOODPUT = "inference_goodput_ratio"
_SUPPLY = "storage_read_bytes_per_second"
_MOST_BARS = 14
#: A part that costs less is not worth a word.
_WORTH_SAYING = 0.01
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
        if path is None or m.labels.get("path", path) == path:
            found.setdefault(m.labels.get("stage", ""), m.value)
    if "preprocess" in found and "fetch" in found:
        found["fed"] = min(found["preprocess"], found["fetch"])
    return found


def waterfall(run: Run) -> Picture | None:
    """Pale where the measurement's conditions did not hold; None when the feed was not measured."""
    found = rates(run, run.attribution.path if run.attribution else None)
    if found.get("resident", 0.0) <= 0.0 or "storage" not in found:
        return None
    pale = " pale" if run.attribution is not None and not run.attribution.valid else ""
    whole = before = found["resident"]
    shares = axis((found[stage] / whole for _, stage, _ in _STEPS if stage in found), GOODPUT)
    rows, costs = [], {}
    for name, stage, part in _STEPS:
        if stage not in found:
            continue
        rate, lost = found[stage], (before - found[stage]) / whole
        marks = [Mark("bar", f"c1{pale}", 0.0, shares.at(rate / whole))]
        cost = ""
        if part and lost > 0.0005:
            marks.append(Mark("bar", f"bad{pale}", shares.at(rate / whole), shares.at(before / whole)))
            cost, costs[part] = f", {part} costs {100 * lost:.1f} %", lost
        rows.append(Row(name, f"{human(rate, RATE)}{cost}", tuple(marks)))
        before = rate
    worst = max(costs, key=lambda part: costs[part], default=None)
    said = "Nothing on the way costs the accelerator more than 1 % of its rate."
    if worst and costs[worst] > _WORTH_SAYING:
        said = f"Most is lost to {worst}: {100 * costs[worst]:.0f} % of what the accelerator could consume."
    doubt = " Pale: the conditions of the measurement did not hold, so nothing is judged by it." if pale else ""
    keys = (("c1", "share of the accelerator's own rate"), ("bad", "lost on this part of the way"))
    return Picture(said + doubt, Chart(tuple(rows), shares.ticks, keys=keys))


def demand_and_supply(run: Run) -> Picture | None:
    """None when either was not measured."""
    found = run.attribution
    if found is None or not found.demand_bytes_per_second or found.supply_bytes_per_second is None:
        return None
    demand, supply = found.demand_bytes_per_second, found.supply_bytes_per_second
    shares = axis((demand, supply), _SUPPLY)
    bars = (("needed by the accelerator", "c1", demand), ("delivered by the path", "c2", supply))
    rows = tuple(Row(name, human(rate, _SUPPLY), (Mark("bar", css, 0.0, shares.at(rate)),)) for name, css, rate in bars)
    share = supply / demand
    times = f"{100 * share:.0f} % of" if share < 1.0 else f"{share:.3g} times"
    said = f"The path delivers {times} what the accelerator, never kept waiting, would consume."
    return Picture(said, Chart(rows, shares.ticks))


def tokens(run: Run) -> Picture | None:
    """Pale bars are for the record only. None when the load did not run."""
    every = run.find(TOKENS)
    found = every[:_MOST_BARS]
    if not found:
        return None
    scale = axis((m.interval[1] for m in found), TOKENS, 3)
    rows = tuple(_row(_named(m), m, "c1", scale) for m in found)
    most = max(found, key=lambda m: m.value)
    said = f"The most was {human(most.value, TOKENS)} ({_named(most)}); black lines are 95 % intervals."
    if len(every) > len(found):
        said += f" {plural(len(every) - len(found), 'more figure')} under Every figure."
    return Picture(said, Chart(rows, scale.ticks))


def _row(name: str, m: Measurement, css: str, scale: Axis) -> Row:
    """A bar with its 95 % interval; pale where it is for the record only."""
    bar = Mark("bar", css if m.invalid is None else f"{css} pale", 0.0, scale.at(m.value))
    interval = Mark("span", "ink", scale.at(m.interval[0]), scale.at(m.interval[1]))
    return Row(name, human(m.value, m.metric), (bar, interval))


def _named(m: Measurement) -> str:
    batch = m.labels.get("batch")
    words = [m.labels.get("stage"), f"batch {batch}" if batch else "", m.labels.get("shape")]
    words.append(m.labels.get("rate") or m.labels.get("load"))
    return clean(", ".join(word for word in words if word), 48)


def goodput(run: Run) -> Picture | None:
    """Share of requests in time, a row a load; None when it was not measured."""
    points = _points(run)
    if not points:
        return None
    scale = axis((0.0, 1.0), GOODPUT)
    names = (f"{human(offered, OFFERED).removesuffix(' /s')} requests a second" for offered, _ in points)
    rows = tuple(_row(name, m, "good", scale) for name, (_, m) in zip(names, points, strict=True))
    last = points[-1][1]
    said = f"At the highest load that was offered, {human(last.value, GOODPUT)} of the answers kept their limits."
    return Picture(said, Chart(rows, scale.ticks))


def _points(run: Run) -> list[tuple[float, Measurement]]:
    """Goodput and offered rate belong together when the labels of the rate agree."""
    pairs = ((o.value, m) for m in run.find(GOODPUT) for o in run.find(OFFERED) if o.labels.items() <= m.labels.items())
    first = {id(m): (offered, m) for offered, m in reversed(list(pairs))}
    return sorted(first.values(), key=lambda point: point[0])
