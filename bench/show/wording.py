"""How people read a run: a gate by its name, number, need and margin; what was not measured and why; when."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bench.judge.gate import keeps
from bench.model import Code, Decision, Finding, Limit, Measurement, Outcome, Run, Status, Verdict, code_of, unit_of
from bench.show.text import clean
from bench.units import human

if TYPE_CHECKING:
    from bench.judge.fleet.model import FleetVerdict

#: In these the first word says what is counted: "inference tokens", where "inference" alone would say nothing.
_COUNTED = ("tokens", "samples", "operations", "flops")
_WORD = re.compile(r"([a-z][a-z0-9]*(?:_[a-z0-9]+)*): ")
STATUS = {status: status.replace("_", " ") for status in Status}
OUTCOME = {outcome: outcome.replace("_", " ") for outcome in Outcome}
#: A gate without data for one of these is explained by its probe, which stands among the holes itself.
OF_A_PROBE = (Code.PROBE_SKIPPED, Code.PROBE_UNSUPPORTED, Code.PROBE_FAILED, Code.PROBE_TIMED_OUT)


def title(metric: str) -> str:
    """``storage_read_latency_seconds`` -> ``storage read latency``."""
    unit = unit_of(metric)
    kept = next((word for word in _COUNTED if unit.startswith(word)), "")
    stem = metric.removesuffix("_" + unit)
    return clean(f"{stem}_{kept}" if kept else stem).replace("_", " ").strip()


def gate_name(finding: Finding) -> str:
    """Title, labels, and what sets the gate apart: ``storage read (random, 4 KiB) [optional] [stand-in: cpu]``."""
    name = bare_name(finding) + ("" if finding.required else " [optional]")
    return name + (f" [stand-in: {clean(finding.stand_in)}]" if finding.stand_in else "")


def bare_name(finding: Finding) -> str:
    """Title and labels: ``storage read (random, 4 KiB)``."""
    return series_name(finding.metric, finding.labels)


def series_name(metric: str, labels: Mapping[str, str], hidden: Container[str] = ("stand_in",)) -> str:
    """Title, and the values of the labels that are not ``hidden``."""
    values = [label_words(key, value) for key, value in labels.items() if key not in hidden]
    return title(metric) + (f" ({', '.join(values)})" if values else "")


def split_reason(reason: str | None) -> tuple[str, str]:
    """The machine-readable word in front of a reason, empty where there is none, and the sentence for people."""
    text = clean(reason or "")
    found = _WORD.match(text)
    return (found[1], text[found.end() :]) if found else ("", text)


def reason_text(reason: str | None) -> str:
    """A reason without the machine-readable word in front: people read the rest."""
    return split_reason(reason)[1]


def label_words(key: str, value: str) -> str:
    """Most values speak for themselves; a size in bytes is shown as people name block sizes."""
    if key.endswith("_bytes") and value.isascii() and value.isdigit() and len(value) < 16:
        size = int(value)
        for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if size and size % (1 << power) == 0:
                return f"{size >> power} {unit}"
    if key.endswith("_seconds"):
        return f"{title(key)} {clean(value, 60)} s"
    if not any(c.isalpha() for c in value):
        return f"{key.replace('_', ' ')} {clean(value, 60)}"
    return clean(value, 60)


def quantity(value: float, interval: tuple[float, float] | None, metric: str) -> str:
    """``1.02 GB/s (0.998..1.04)``: the interval in the unit of the value; none when it is one point."""
    shown = human(value, metric)
    if interval is None or interval[0] == interval[1]:
        return shown
    number = float(shown.partition(" ")[0].replace(",", ""))
    if not value or not number:
        return f"{shown} ({human(interval[0], metric)}..{human(interval[1], metric)})"
    factor = 10.0 ** round(math.log10(number / value))
    return f"{shown} ({_number(interval[0] * factor)}..{_number(interval[1] * factor)})"


def pair_rate(bytes_per_second: float) -> str:
    """What went between two nodes: ``1.02 GB/s``."""
    return human(bytes_per_second, "network_throughput_bytes_per_second")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(f'{value:.3g}'):g}"


def observed(finding: Finding) -> str:
    """What was measured for the gate, or ``not measured``."""
    found = finding.observed
    return "not measured" if found is None else quantity(found, finding.interval, finding.metric)


def needed(limit: Limit, metric: str) -> str:
    """``>= 2 GB/s`` or ``<= 200 ms``."""
    bound, value = bound_of(limit)
    return "nothing" if value is None else f"{'>=' if bound == 'min' else '<='} {human(value, metric)}"


def bound_of(limit: Limit) -> tuple[str, float | None]:
    """``min`` or ``max``, and its value; ``max`` and None for no limit."""
    return ("min", limit.min) if limit.min is not None else ("max", limit.max)


def against_limit(finding: Finding) -> str:
    """``38 % (35..41), needs <= 10 %``."""
    return f"{observed(finding)}, needs {needed(finding.limit, finding.metric)}"


def margin(finding: Finding) -> str:
    """How far from the limit, relative to it: ``12 % spare``, ``38 % short``, ``30 x over``; empty without a limit."""
    (bound, limit), distance = bound_of(finding.limit), closeness(finding)
    if finding.observed is None or not limit or limit < 0 or finding.status is Status.UNDECIDED:
        return ""
    if keeps(finding.observed, finding.limit):
        return f"{_share(distance)} spare"
    return f"{_share(distance)} {'short' if bound == 'min' else 'over'}"


def closeness(finding: Finding) -> float:
    """The margin as a number to sort by: 0 at the limit, infinite where there is none to tell."""
    _, limit = bound_of(finding.limit)
    return math.inf if finding.observed is None or not limit else abs(finding.observed / limit - 1.0)


def _share(distance: float) -> str:
    if not math.isfinite(distance) or distance > 1e6:
        return "far"
    if distance >= 9.995:
        return f"{distance:,.0f} x"
    return f"{100 * distance:.0f} %" if distance >= 0.0995 else f"{100 * distance:.1f} %"


def doubts(run: Run, *, each_reason: bool = False) -> list[str]:
    """What the probes warn of, and what was measured for the record only: a line a code, or ``each_reason``."""
    found = [f"{result.probe}: {clean(text)}" for result in run.results for text in result.warnings]
    for result in run.results:
        same: dict[str, list[str]] = {}
        for word, sentence in (split_reason(m.invalid) for m in result.measurements if m.invalid):
            same.setdefault(sentence if each_reason or not word else word, []).append(sentence)
        for sentences in same.values():
            number = plural(len(sentences), "measurement")
            found.append(f"{result.probe}: {number} for the record only: {sentences[0]}")
    return found


def to_do(run: Run) -> dict[str, dict[str, None]]:
    """The remedies of what failed or is undecided; of each the names of the required gates that it mends, each once."""
    found: dict[str, dict[str, None]] = {}
    for finding in (f for v in run.verdicts for f in v.findings if f.required and f.remedy):
        if finding.status in (Status.FAIL, Status.UNDECIDED):
            found.setdefault(clean(finding.remedy), {})[gate_name(finding)] = None
    return found


def score(value: float) -> str:
    """Rounded down, so that 100 is shown if and only if it is 100."""
    return f"{math.floor(value * 10) / 10:g}"


def scored(verdict: Verdict | FleetVerdict) -> str:
    """The score with what it stands on: ``0 (7 of 8 measured, weakest 83)``. A fleet's, and an old one, stand alone."""
    whole = score(verdict.score)
    if not isinstance(verdict, Verdict) or verdict.required is None:
        return whole
    return f"{whole} ({shown_of(verdict)})"


def shown_of(verdict: Verdict) -> str:
    """``7 of 8 measured, weakest 83``: what a score stands on."""
    weakest = verdict.weakest_measured_score
    low = "" if weakest is None else f", weakest {score(weakest)}"
    return f"{verdict.measured} of {verdict.required} measured{low}"


def asked(finding: Finding) -> bool:
    """Whether the gate asks this node at all."""
    return code_of(finding.reason) is not Code.NOT_APPLICABLE


def moment(text: str | None) -> datetime | None:
    """An RFC 3339 time in UTC, or None for what is no time."""
    try:
        found = datetime.fromisoformat(text or "")
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def ended(run: Run) -> datetime | None:
    """When the run's figures were complete: its end, or its start where it has none."""
    return moment(run.finished_at) or moment(run.started_at)


def when(text: str | None) -> str:
    """``2026-11-22 10:51 UTC``; what is no time is shown as it is."""
    found = moment(text)
    return f"{found:%Y-%m-%d %H:%M} UTC" if found else clean(text or "at an unknown time", 40)


def gpus(run: Run) -> list[str]:
    """The names of the GPUs that were found, one each."""
    found = run.node.facts.get("gpus")
    return [clean(str(gpu), 60) for gpu in found] if isinstance(found, list | tuple) else []


def stand_ins(run: Run) -> list[str]:
    """What stood in for a real thing anywhere in the run."""
    return sorted({clean(m.stand_in, 60) for m in run.measurements() if m.stand_in})


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_BOUND, _EVENTS = "network_spike_rate_upper_bound_per_second", "network_spike_events"
#: A profile with a gate on this asks for the network as a person feels it.
_FELT = "network_round_trip_seconds"
_HOUR = 3600.0


def proved(run: Run, verdict: Verdict) -> list[str]:
    """A sentence a peer, for a GO that rests on round trips: spikes seen, and how many an hour are still plausible.

    The rate is one-sided, Poisson, 95 %. Empty where it was not measured, or is for the record only.
    """
    if verdict.decision is not Decision.GO or all(finding.metric != _FELT for finding in verdict.findings):
        return []
    bounds = [bound for bound in run.find(_BOUND) if bound.invalid is None]
    peers = dict.fromkeys(bound.labels.get("peer", "") for bound in bounds)
    return [_sentence(run, peer, bounds, several=len(peers) > 1) for peer in peers]


def _sentence(run: Run, peer: str, bounds: list[Measurement], several: bool) -> str:
    own = [bound for bound in bounds if bound.labels.get("peer", "") == peer]
    notes = [clean(peer, 60)] if several else []
    notes += [f"stand-in: {clean(own[0].stand_in, 60)}"] if own[0].stand_in else []
    said: dict[str, list[str]] = {}
    for bound in own:
        said.setdefault(_said(run, bound), []).append(clean(bound.labels.get("state", ""), 20))
    parts = [text if len(said) == 1 else f"{' and '.join(states)}: {text}" for text, states in said.items()]
    about = f" ({', '.join(notes)})" if notes else ""
    return f"network spikes{about}{': ' if len(said) == 1 else ', '}{'; '.join(parts)}"


def _said(run: Run, bound: Measurement) -> str:
    """The rate, and the network's own events above the lowest threshold, which is what the rate is of."""
    most = f"at most {bound.value * _HOUR:.3g} an hour at 95 %"
    events = run.find(_EVENTS, **{**bound.labels, "place": "network"})
    if not events:
        return most
    seen = min(events, key=_threshold).value
    return f"{f'{seen:.0f}' if seen else 'none'} seen, {most}"


def _threshold(events: Measurement) -> float:
    try:
        return float(events.labels.get("threshold_seconds", "inf"))
    except ValueError:  # a stored run may hold any text
        return math.inf
