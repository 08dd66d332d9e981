"""When a figure of the load must not be judged: the host kept the load waiting, or requests were sent late. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench.judge import statistics
from probes.inference.events import Event

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
        return f"contended: the load waited {delay:.0%} of its time for a CPU (at most {MOST_DELAY_RATIO:.0%})"
    if steal is not None and steal > MOST_STEAL_RATIO:
        return f"contended: the hypervisor took {steal:.0%} of the CPUs (at most {MOST_STEAL_RATIO:.0%})"
    pressure = _median(windows, "pressure_ratio")
    others = None if pressure is None else pressure - (delay or 0.0)
    if others is not None and others > MOST_PRESSURE_RATIO:
        return f"contended: others waited for a CPU {others:.0%} of the time (at most {MOST_PRESSURE_RATIO:.0%})"
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
    return f"schedule_lag: requests were released {lag * 1e3:.1f} ms late (at most {most * 1e3:.0f} ms)"
