"""Figures with their intervals, as the inference probe makes them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.judge import statistics
from bench.model import Measurement

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
