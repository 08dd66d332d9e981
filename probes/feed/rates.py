"""From the consumption curve of an arm to a rate that holds, with its interval. Pure; used by both sides of the pipe.

A curve is the cumulative number of samples at equal steps of time, fractions of a sample included: the share of a
step's work that falls into the window is counted, no more, so the error of a rate is at most one step over the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.judge.statistics import median, median_interval, student_half_width

Interval = tuple[float, float]

#: Thirds of a window that differ by no more are flat: a burst credit of storage would show in the first of them.
FLAT_RATIO = 0.03
#: Or that differ by no more than this share of what is demanded: that is two points of starvation, one in the mean.
FLAT_OF_DEMAND = 0.02
_CANDIDATE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Steady:
    """The flat end of a curve: from which step on, the rates of its thirds, and whether it is flat at all.

    ``before`` is the rate of what came earlier when that was over the flat rate by more than the tolerance: a burst.
    """

    start: int
    thirds: tuple[float, float, float]
    flat: bool
    before: float | None

    @property
    def rate(self) -> float:
        return sum(self.thirds) / 3.0


def rate(curve: Sequence[float], step: float, first: float, last: float) -> float:
    """Samples a second between two positions on the curve (in steps, fractions allowed)."""
    if last <= first:
        return 0.0
    return (_at(curve, last) - _at(curve, first)) / ((last - first) * step)


def _at(curve: Sequence[float], position: float) -> float:
    low = min(int(position), len(curve) - 1)
    high = min(low + 1, len(curve) - 1)
    return curve[low] + (curve[high] - curve[low]) * (position - low)


def thirds(curve: Sequence[float], step: float, start: int) -> tuple[float, float, float]:
    last = len(curve) - 1
    edges = [start + (last - start) * part / 3.0 for part in range(4)]
    first, second, third = (rate(curve, step, a, b) for a, b in pairwise(edges))
    return first, second, third


def steady(
    curve: Sequence[float], step: float, warm: float, shortest: float, ceiling: float = math.inf
) -> Steady | None:
    """The longest flat end of a curve after ``warm`` seconds and at least ``shortest`` long; None if it is too short.

    Rates above ``ceiling`` are as good as it: how far storage outruns the accelerator need not be constant. When
    nothing is flat the last ``shortest`` seconds are given, marked so.
    """
    last = len(curve) - 1
    latest = last - math.ceil(shortest / step)
    earliest = math.ceil(warm / step)
    if latest < earliest:
        return None
    hop = max(1, round(_CANDIDATE_SECONDS / step))
    for start in range(earliest, latest + 1, hop):
        parts = thirds(curve, step, start)
        capped = [min(part, ceiling) for part in parts]
        mean = sum(capped) / 3.0
        if mean > 0.0 and max(capped) - min(capped) <= tolerance(mean, ceiling):
            return Steady(start, parts, True, _burst(curve, step, start, sum(parts) / 3.0, ceiling))
    return Steady(latest, thirds(curve, step, latest), False, None)


def tolerance(rate: float, demand: float) -> float:
    """How far apart rates around ``rate`` may lie and still be one rate, in samples a second."""
    return max(FLAT_RATIO * rate, FLAT_OF_DEMAND * demand if math.isfinite(demand) else 0.0)


def _burst(curve: Sequence[float], step: float, start: int, after: float, ceiling: float) -> float | None:
    before = rate(curve, step, 0, start)
    return before if min(before, ceiling) > min(after, ceiling) + tolerance(after, ceiling) else None


@dataclass(frozen=True, slots=True)
class Rate:
    """Samples a second, or what follows from them: value, its interval, and the windows that it stands on."""

    value: float
    interval: Interval
    repeats: tuple[float, ...] = ()


def pool(turns: Sequence[Sequence[float]]) -> Rate:
    """One rate from the equally long windows of one or more turns of an arm.

    The value is the mean, because a rate is work over time and not a typical moment. The interval is the larger of
    Student's t on the windows (batch means: Law, *Simulation Modeling and Analysis*, 5th ed., section 9.5.3) and the
    spread of the turns' own means, so that a device that drifts between two turns is not called well known.
    """
    windows = [value for turn in turns for value in turn]
    means = [sum(turn) / len(turn) for turn in turns if turn]
    value = sum(windows) / len(windows)
    half = student_half_width(windows, value)
    low, high = min(value - half, *means, value), max(value + half, *means, value)
    return Rate(value, (max(0.0, low), high), tuple(windows))


def own(turns: Sequence[Sequence[float]]) -> Rate:
    """What an accelerator consumes that is never kept waiting: the median of short windows, not their mean.

    It is a capability: a moment in which something else had the CPU is the host's, and would make two turns differ.
    The interval is that of the median by order statistics (`median_interval`), widened to hold each turn's own.
    """
    windows = [value for turn in turns for value in turn]
    medians = [median(turn) for turn in turns if turn]
    value, (low, high) = median_interval(windows)
    return Rate(value, (min(low, *medians, value), max(high, *medians, value)), tuple(windows))


def each_step(curve: Sequence[float], step: float, warm: float = 0.0) -> tuple[float, ...]:
    """The rate between each two neighbours of the curve after ``warm`` seconds."""
    return tuple((after - before) / step for before, after in pairwise(curve[math.ceil(warm / step) :]))


def difference_interval(high: Interval, low: Interval, over: Interval, least: float = -math.inf) -> Interval:
    """``(high - low) / over``, at least ``least``, by interval arithmetic: both ends at once, so it claims less."""
    smallest = (high[0] - low[1]) / over[1] if over[1] > 0 else 0.0
    largest = (high[1] - low[0]) / over[0] if over[0] > 0 else 1.0
    return max(least, smallest), max(least, smallest, largest)
