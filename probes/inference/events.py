"""What the load printed, checked: JSON lines to events, each named by its ``event``. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.judge import statistics
from bench.measure import jsonl as lines
from bench.measure.probe import Failed, ProbeError, Unsupported
from bench.model import Code, Measurement

Event = Mapping[str, Any]
_KEY = "event"


def events(text: str) -> list[Event]:
    """The events of a whole output. Raises Failed for a line that is none, with its number."""
    return list(lines.objects(text, "the inference load", _KEY))


def readable(text: str) -> list[Event]:
    """The events of an output that was cut off, as far as they can be read."""
    return list(lines.readable(text, _KEY))


def decoded(line: str) -> Event | None:
    """One line's event, or None when it is none."""
    return lines.decoded(line, _KEY)


def refusal(found: list[Event], returncode: int, stderr: str) -> ProbeError | None:
    """Why the load has no result, or None if it came to its end."""
    for event in found:
        if event["event"] == "refused":
            kind = Unsupported if event.get("outcome") == "unsupported" else Failed
            return kind.told(str(event.get("reason")), event.get("remedy"))
    if returncode == 0 and found and found[-1]["event"] == "done":
        return None
    last = (stderr.strip().splitlines() or ["it printed nothing to standard error"])[-1][:300]
    return Failed(Code.LOAD_FAILED, f"the inference load ended with status {returncode}: {last}")


def number(event: Event, key: str) -> float:
    """A finite number of an event. Raises Failed, naming what is wrong."""
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Failed(Code.TOOL_OUTPUT, f"{event.get('event')} of the load has no number {key!r}: {str(value)[:40]}")
    return float(value)


def numbers(event: Event, key: str) -> list[float]:
    """A list of finite numbers of an event. Raises Failed."""
    values = event.get(key)
    if not isinstance(values, list):
        raise Failed(Code.TOOL_OUTPUT, f"{event.get('event')} of the load has no list {key!r}")
    return [number({"event": event.get("event"), key: value}, key) for value in values]


_SHARES = ("accelerator_busy_ratio", "inference_run_delay_ratio")

#: Quantiles in use; each is printed only where the samples support it.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


def median(metric: str, values: Sequence[float], labels: Mapping[str, str], invalid: str | None = None) -> Measurement:
    """The median of the repeats and its interval; no share of time is under zero or over one."""
    value, (low, high) = statistics.median_interval(values)
    interval = (max(0.0, low), max(value, min(1.0, high))) if metric in _SHARES else (low, high)
    return Measurement(
        metric=metric, value=value, interval=interval, samples=len(values), labels=dict(labels),
        repeats=tuple(values), invalid=invalid,
    )  # fmt: skip


def quantiles(
    metric: str, values: Sequence[float], labels: Mapping[str, str], invalid: str | None = None
) -> Iterator[Measurement]:
    """Every quantile that this many samples support (exact binomial, 99 %), and the largest value."""
    for statistic, q in QUANTILES.items():
        if len(values) >= statistics.samples_needed_for_quantile(q):
            yield Measurement(
                metric=metric, value=statistics.quantile(values, q), interval=statistics.quantile_interval(values, q),
                samples=len(values), labels={**labels, "statistic": statistic}, invalid=invalid,
            )  # fmt: skip
    if values:
        yield Measurement(
            metric=metric, value=max(values), interval=(max(values), max(values)), samples=len(values),
            labels={**labels, "statistic": "max"}, invalid=invalid,
        )  # fmt: skip


def share(metric: str, successes: int, n: int, labels: Mapping[str, str], invalid: str | None = None) -> Measurement:
    """A share of ``n`` trials with Clopper and Pearson's exact interval."""
    return Measurement(
        metric=metric, value=successes / n, interval=statistics.binomial_interval(successes, n), samples=n,
        labels=dict(labels), invalid=invalid,
    )  # fmt: skip


def exact(metric: str, value: float, labels: Mapping[str, str], invalid: str | None = None) -> Measurement:
    """A number without noise: a count, a reading."""
    return Measurement(
        metric=metric, value=value, interval=(value, value), samples=1, labels=dict(labels), invalid=invalid
    )


#: Shares of wall time. On a quiet 2-core machine the load's own delay was 0.1 to 1.1 % with one thread and 4.5 % with
#: two; on busy ones 27 to 96 %. Pressure counts the load's own waiting too, so that is taken off first.
MOST_DELAY_RATIO = 0.05
MOST_PRESSURE_RATIO = 0.10
MOST_STEAL_RATIO = 0.02
#: kubernetes-sigs/inference-perf calls a schedule healthy below 10 ms; 5 % of the limit keeps it out of the verdict.
MOST_LAG_SECONDS = 0.010
MOST_LAG_SHARE_OF_LIMIT = 0.05


def contended(windows: Sequence[Event]) -> str | None:
    """Why these windows were contended, or None. The median window counts: the value judged is a median too."""
    delay, steal = _median(windows, "delay_ratio"), _median(windows, "steal_ratio")
    if delay is not None and delay > MOST_DELAY_RATIO:
        return f"{Code.CONTENDED}: the load waited {delay:.0%} of its time for a CPU (at most {MOST_DELAY_RATIO:.0%})"
    if steal is not None and steal > MOST_STEAL_RATIO:
        return f"{Code.CONTENDED}: the hypervisor took {steal:.0%} of the CPUs (at most {MOST_STEAL_RATIO:.0%})"
    pressure = _median(windows, "pressure_ratio")
    others = None if pressure is None else pressure - (delay or 0.0)
    if others is not None and others > MOST_PRESSURE_RATIO:
        return f"{Code.CONTENDED}: others waited for a CPU {others:.0%} of the time (at most {MOST_PRESSURE_RATIO:.0%})"
    return None


def _median(windows: Sequence[Event], key: str) -> float | None:
    values = [float(w[key]) for w in windows if isinstance(w.get(key), int | float)]
    return statistics.median(values) if values else None


def late(lags: Sequence[float], first_token_limit: float) -> str | None:
    """Why the schedule was not kept, or None. ``lags``: seconds that requests were released after they could be."""
    if not lags:
        return None
    lag = statistics.quantile(lags, 0.99)
    most = min(MOST_LAG_SECONDS, MOST_LAG_SHARE_OF_LIMIT * first_token_limit)
    if lag <= most:
        return None
    return f"{Code.SCHEDULE_LAG}: requests were released {lag * 1e3:.1f} ms late (at most {most * 1e3:.0f} ms)"
