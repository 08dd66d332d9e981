"""From the consumption curve of an arm to a rate that holds, with its interval. Pure; used by both sides of the pipe.

A curve is the cumulative number of samples at equal steps of time, fractions of a sample included: the share of a
step's work that falls into the window is counted, no more, so the error of a rate is at most one step over the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.judge.statistics import Interval, median_interval, t_quantile

#: Thirds of a window that differ by no more are flat: a burst credit of storage would show in the first of them.
FLAT_RATIO = 0.03
#: Or that differ by no more than this share of what is demanded: that is two points of starvation, one in the mean.
FLAT_OF_DEMAND = 0.02
_CANDIDATE_SECONDS = 0.5
_FEWEST_TURNS = 3
_LEAST_DIVISOR = 0.01  # of an interval that reaches down to nothing at all


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
    """Samples a second, or what follows from them: value, its interval, and the turns that it stands on, one each."""

    value: float
    interval: Interval
    repeats: tuple[float, ...] = ()


def pool(turns: Sequence[Sequence[float]], demand: float = math.inf) -> Rate:
    """One rate from the thirds of the steady windows of an arm's turns.

    The value is the mean, because a rate is work over time and not a typical moment. Windows were chosen because they
    look flat, so their own scatter says too little, and it is the turns' that counts. What `steady` takes as flat may
    still fall, in all turns alike, and go on falling: the mean fall is part of the interval.
    """
    means = [sum(turn) / len(turn) for turn in turns]
    fall = abs(sum(turn[0] - turn[-1] for turn in turns)) / len(turns)
    alone = tolerance(means[0], demand) if len(turns) == 1 else 0.0
    return _of_turns(means, max(fall, alone))


def own(turns: Sequence[Sequence[float]]) -> Rate:
    """What an accelerator consumes that is never kept waiting: the median of a turn's short windows, not their mean.

    It is a capability: a moment in which something else had the CPU is the host's, and would make two turns differ.
    """
    medians, ends = zip(*(median_interval(turn) for turn in turns), strict=True)
    within = sum((high - low) / 2.0 for low, high in ends) / len(ends)
    return _of_turns(medians, within if len(medians) < _FEWEST_TURNS else 0.0)


def again(rounds: Sequence[Rate]) -> Rate:
    """One rate from those of several rounds: all their turns, and no better known than the rounds agree.

    How far a round's interval goes over the scatter of its turns (its windows were not flat) goes over it here too.
    """
    if len(rounds) == 1:
        return rounds[0]
    over = [max(0.0, one.interval[1] - one.value - around(one.repeats)) for one in rounds]
    turns = [turn for one in rounds for turn in one.repeats]
    half = max(around(turns), around([sum(one.repeats) / len(one.repeats) for one in rounds]))
    return _within(turns, half + sum(over) / len(over))


def around(turns: Sequence[float]) -> float:
    """How far the truth may lie from the mean of these turns, at 95 %.

    Student's t on the means of three or more turns (batch means: Law, *Simulation Modeling and Analysis*, 5th ed.,
    section 9.5.3). Two say too little for it (12.7 standard errors): as far beyond each as they are apart, which is
    80 % for normal turns. One says nothing.
    """
    if len(turns) < 2:
        return 0.0
    if len(turns) < _FEWEST_TURNS:
        return 1.5 * abs(turns[0] - turns[1])
    mean = sum(turns) / len(turns)
    deviation = math.sqrt(sum((turn - mean) ** 2 for turn in turns) / (len(turns) - 1))
    return t_quantile(0.025, len(turns) - 1.0) * deviation / math.sqrt(len(turns))


def _of_turns(turns: Sequence[float], over: float) -> Rate:
    return _within(turns, around(turns) + over)


def _within(turns: Sequence[float], half: float) -> Rate:
    value = sum(turns) / len(turns)
    return Rate(value, (max(0.0, value - half), value + half), tuple(turns))


def each_step(curve: Sequence[float], step: float, warm: float = 0.0) -> tuple[float, ...]:
    """The rate between each two neighbours of the curve after ``warm`` seconds."""
    return tuple((after - before) / step for before, after in pairwise(curve[math.ceil(warm / step) :]))


def quotient(over: Interval, under: Interval) -> Interval:
    """Every ``over / under`` of two intervals, ``under`` above 0: both ends at once, so it claims less, never more."""
    low, high = max(under[0], _LEAST_DIVISOR * under[1]), under[1]
    if high <= 0.0:
        return 0.0, 0.0
    return over[0] / (low if over[0] < 0.0 else high), over[1] / (high if over[1] < 0.0 else low)


def difference(high: Interval, low: Interval, under: Interval) -> Interval:
    """``(high - low) / under`` likewise. Noise makes negative numerators, whose extreme is over the least divisor."""
    return quotient((high[0] - low[1], high[1] - low[0]), under)
