"""Latencies: the quantiles of storage and network, and what each part takes of the 200 ms of a conversation."""

from __future__ import annotations

from collections.abc import Mapping

from bench.judge.latency_budget import BUDGET_SECONDS, FIRST_TOKEN, PART, ROUND_TRIP
from bench.model import Finding, Measurement, Run
from bench.show.html.plots import SERIES, Chart, Mark, Picture, Row, axis
from bench.show.text import clean, listed
from bench.show.wording import label_words, title
from bench.units import human

STORAGE = {"storage_read_latency_seconds": "read", "storage_write_latency_seconds": "write"}
#: What of the answer it is, by the metric of its gate.
_PARTS = {
    ROUND_TRIP: "network", "storage_read_latency_seconds": "storage", FIRST_TOKEN: "model",
}  # fmt: skip
_QUANTILES = ("p50", "p99", "p99.9", "max")
_HOLLOW = " Hollow marks are for the record only: too few samples, or a contended host."
#: The class of a row, and its measurements by quantile.
Quantiles = tuple[str, dict[str, Measurement]]


def storage(run: Run) -> Picture | None:
    """Latency of the storage by direction, pattern, block size and queue depth; None when it was not measured."""
    found: dict[str, Quantiles] = {}
    hidden = {"statistic", "stand_in"} | (set() if len(run.request.storage) > 1 else {"path"})
    for (metric, word), css in zip(STORAGE.items(), SERIES, strict=False):
        for m in run.find(metric):
            name = ", ".join([word, *(label_words(k, v) for k, v in m.labels.items() if k not in hidden)])
            found.setdefault(name, (css, {}))[1][m.labels.get("statistic", "")] = m
    shown = dict(list(found.items())[:24])
    p99s = {name: points["p99"].value for name, (_, points) in shown.items() if "p99" in points}
    slowest = max(p99s, key=lambda name: p99s[name], default=None)
    said = f"At the 99th percentile, {slowest} is the slowest: {human(p99s[slowest], ROUND_TRIP)}." if slowest else ""
    return _quantiles(said, shown)


def round_trips(run: Run) -> Picture | None:
    """Round trips, idle and loaded, by peer, against the whole budget; None when they were not measured."""
    found: dict[str, Quantiles] = {}
    for m in run.find(ROUND_TRIP):
        words = [value for key, value in sorted(m.labels.items()) if key not in ("statistic", "peer", "stand_in")]
        name = ", ".join([*words, *([m.labels["peer"]] if "peer" in m.labels else [])])
        found.setdefault(name, (SERIES[len(found) % 2], {}))[1][m.labels.get("statistic", "")] = m
    shown = dict(list(found.items())[:12])
    said = "Idle and beside batch traffic: far apart, a queue on the way is too deep. The red line is the whole budget."
    return _quantiles(said, shown, BUDGET_SECONDS)


def loads(run: Run) -> Picture | None:
    """A real server's time to the first token by the load that it was offered; None where none was named."""
    found: dict[str, Quantiles] = {}
    kept = {m.labels.get("offered"): m for m in run.find("endpoint_load_goodput_ratio")}
    for m in sorted(run.find("endpoint_load_first_token_seconds"), key=lambda m: float(m.labels.get("offered", 0))):
        offered = m.labels.get("offered", "")
        share = f", {human(kept[offered].value, kept[offered].metric)} in time" if offered in kept else ""
        found.setdefault(f"{offered} requests a second{share}", (SERIES[0], {}))[1][m.labels["statistic"]] = m
    said = "From the scheduled arrival to the first token, at each load of the search and at the one that was held."
    return _quantiles(said, dict(list(found.items())[:12]))


def _quantiles(said: str, found: Mapping[str, Quantiles], limit: float | None = None) -> Picture | None:
    """A row a name, seconds on a logarithmic axis; hollow marks are for the record only. None without a row."""
    known = {
        name: (css, {q: measured[q] for q in _QUANTILES if q in measured and measured[q].value > 0.0})
        for name, (css, measured) in found.items()
    }
    values = [m.value for _, points in known.values() for m in points.values()]
    if not values:
        return None
    scale, rows = axis([*values, *([limit] if limit else [])], ROUND_TRIP, log=True), []
    for name, (css, points) in known.items():
        ends = [scale.at(m.value) for m in points.values()]
        reach = [Mark("span", "wide", min(ends), max(ends))] if ends else []
        marks = [
            Mark(q, f"{css} hollow" if m.invalid else css, scale.at(m.value), title=f"{q}: {human(m.value, m.metric)}")
            for q, m in points.items()
        ]
        shown = points.get("p99") or next(iter(points.values()), None)
        text = f"{shown.labels.get('statistic', '')} {human(shown.value, shown.metric)}" if shown else ""
        rows.append(Row(clean(name, 80), text, (*reach, *marks)))
    doubt = _HOLLOW if any(m.invalid for _, points in known.values() for m in points.values()) else ""
    keys = tuple((q, q) for q in _QUANTILES)
    at = None if limit is None else scale.at(limit)
    return Picture(said + doubt, Chart(tuple(rows), scale.ticks, at, keys))


def parts(run: Run) -> list[Finding]:
    """The gates on p99 of the three parts, of the first profile that has them; those without a number too."""
    for verdict in run.verdicts:
        p99 = {f.metric: f for f in reversed(verdict.findings) if f.labels.get("statistic") == "p99"}
        found = [p99[metric] for metric in _PARTS if metric in p99]
        if len(found) >= 2:
            return found
    return []


def budget(run: Run) -> Picture | None:
    """The parts' p99 one after another as one bar of 200 ms; None when none was measured.

    A part that was not measured stands there hollow, as large as its share of the budget.
    """
    found = [_alone(run, finding) for finding in parts(run)]
    measured = {_PARTS[f.metric]: f.observed for f in found if f.observed is not None}
    if not measured:
        return None
    sizes = [(f, f.observed if f.observed is not None else f.limit.max or 0.0) for f in found]
    scale, reached = axis((BUDGET_SECONDS, sum(size for _, size in sizes)), ROUND_TRIP), 0.0
    marks, keys = [Mark("bar", "free", 0.0, scale.at(BUDGET_SECONDS))], []
    for finding, size in sizes:
        css = SERIES[list(_PARTS).index(finding.metric)] + ("" if finding.observed is not None else " hollow")
        marks.append(Mark("bar", css, scale.at(reached), scale.at(reached + size), _told(finding)))
        keys.append((css, _told(finding)))
        reached += size
    used = sum(measured.values())
    left = BUDGET_SECONDS - used
    open_ = [_PARTS[f.metric] for f in found if f.observed is None]
    told = f"{human(left, ROUND_TRIP)} are left" if left >= 0.0 else f"{human(-left, ROUND_TRIP)} too much"
    take, their = ("takes", "its 99th percentile") if len(measured) == 1 else ("take", "their 99th percentiles")
    said = f"{listed(list(measured)).capitalize()} {take} {human(used, ROUND_TRIP)} of 200 ms at {their}: {told}"
    said += f" for what was not measured: {listed(open_)}." if open_ and left >= 0.0 else "."
    row = Row("until the answer begins", f"{human(used, ROUND_TRIP)} of 200 ms", tuple(marks))
    return Picture(said, Chart((row,), scale.ticks, scale.at(BUDGET_SECONDS), tuple(keys)))


def _alone(run: Run, finding: Finding) -> Finding:
    """Of a server on another host, whose times have its network in them: what each of both takes."""
    name = {FIRST_TOKEN: "server", ROUND_TRIP: "network"}.get(finding.metric, "")
    split = next(iter(run.find(PART, part=name, statistic="p99")), None)
    return finding.model_copy(update={"observed": split.value, "stand_in": None}) if split else finding


def _told(finding: Finding) -> str:
    """``network round trip: 0.2 ms, may take 50 ms``, with what stood in."""
    value = "not measured" if finding.observed is None else human(finding.observed, finding.metric)
    doubt = f" [stand-in: {clean(finding.stand_in, 20)}]" if finding.stand_in else ""
    share = f", may take {human(finding.limit.max, finding.metric)}" if finding.limit.max is not None else ""
    return f"{title(finding.metric)}{doubt}: {value}{share}"
