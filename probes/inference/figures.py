"""Values to measurements, and what voids them: a load that waited for a CPU, a schedule that was not kept. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.judge import statistics
from bench.model import Code, Measurement
from probes.inference.events import Stretch

Labels = Mapping[str, str]
_SHARES = ("accelerator_busy_ratio", "inference_run_delay_ratio")
#: Quantiles in use; each is printed only where the samples support it.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}

#: Shares of wall time. On a quiet 2-core machine the load's own delay was 0.1 to 1.1 % with one thread and 4.5 % with
#: two; on busy ones 27 to 96 %. Pressure counts the load's own waiting too, so that is taken off first.
MOST_DELAY_RATIO = 0.05
MOST_PRESSURE_RATIO = 0.10
MOST_STEAL_RATIO = 0.02
#: kubernetes-sigs/inference-perf calls a schedule healthy below 10 ms; 5 % of the limit keeps it out of the verdict.
MOST_LAG_SECONDS = 0.010
MOST_LAG_SHARE_OF_LIMIT = 0.05


def median(metric: str, values: Sequence[float], labels: Labels, invalid: str | None = None) -> Measurement:
    """The median of the repeats and its interval; no share of time is under zero or over one."""
    value, (low, high) = statistics.median_interval(values)
    interval = (max(0.0, low), max(value, min(1.0, high))) if metric in _SHARES else (low, high)
    return Measurement(
        metric=metric, value=value, interval=interval, samples=len(values), labels=dict(labels),
        repeats=tuple(values), invalid=invalid,
    )  # fmt: skip


def quantiles(
    metric: str, values: Sequence[float], labels: Labels, invalid: str | None = None
) -> Iterator[Measurement]:
    """Every quantile that this many samples support (exact binomial, 99 %), and the largest value."""
    for name, q in QUANTILES.items():
        if len(values) >= statistics.samples_needed_for_quantile(q):
            value, interval = statistics.quantile(values, q), statistics.quantile_interval(values, q)
            yield figure(metric, value, {**labels, "statistic": name}, invalid, interval, len(values))
    if values:
        yield figure(metric, max(values), {**labels, "statistic": "max"}, invalid, n=len(values))


def figure(
    metric: str, value: float, labels: Labels, invalid: str | None = None,
    interval: statistics.Interval | None = None, n: int = 1,
) -> Measurement:  # fmt: skip
    """One value of ``n`` samples; without an interval it has no noise: a count, a reading."""
    return Measurement(
        metric=metric, value=value, interval=interval or (value, value), samples=n, labels=dict(labels), invalid=invalid
    )


def contended(stretches: Sequence[Stretch]) -> str | None:
    """Why these windows were contended, or None. The median window counts: the value judged is a median too."""
    delay, steal = _middle([s.delay_ratio for s in stretches]), _middle([s.steal_ratio for s in stretches])
    others = _middle([s.pressure_ratio for s in stretches]) - delay
    if delay > MOST_DELAY_RATIO:
        return f"{Code.CONTENDED}: the load waited {delay:.0%} of its time for a CPU (at most {MOST_DELAY_RATIO:.0%})"
    if steal > MOST_STEAL_RATIO:
        return f"{Code.CONTENDED}: the hypervisor took {steal:.0%} of the CPUs (at most {MOST_STEAL_RATIO:.0%})"
    if others > MOST_PRESSURE_RATIO:
        return f"{Code.CONTENDED}: others waited for a CPU {others:.0%} of the time (at most {MOST_PRESSURE_RATIO:.0%})"
    return None


def _middle(ratios: Sequence[float | None]) -> float:
    """Their median; what the kernel does not say voids nothing, so it counts as 0."""
    return statistics.median([ratio for ratio in ratios if ratio is not None] or [0.0])


def late(lags: Sequence[float], first_token_limit: float) -> str | None:
    """Why the schedule was not kept, or None. ``lags``: seconds that requests were released after they could be."""
    lag = statistics.quantile(lags, 0.99) if lags else 0.0
    most = min(MOST_LAG_SECONDS, MOST_LAG_SHARE_OF_LIMIT * first_token_limit)
    if lag <= most:
        return None
    return f"{Code.SCHEDULE_LAG}: requests were released {lag * 1e3:.1f} ms late (at most {most * 1e3:.0f} ms)"
