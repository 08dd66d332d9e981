"""Several rounds of one measurement as one: the figure and its interval, made anew from all raw data. Pure.

Raw data are repeats (the figure is their median), counts (k of n, a share) or distributions (the figure is a quantile
of them, one distribution a round). What has none is a fact of its round: their median, and an interval around all.

A quantile over several rounds takes each round as equally long: a round in which every read was slow completes few of
them, and would vanish among the many of a good round. Its interval is Woodruff's (JASA 47, 1952): the quantiles at the
shares that are still plausible, by order statistics of all values and, from three rounds on, by the rounds' own scatter
(Student's t over them, as of clusters), whichever is wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import reduce
from itertools import chain, groupby
from operator import itemgetter

from bench.judge.statistics import Interval, binomial_interval, median, median_interval, quantile_ranks, t_quantile
from bench.model import Distribution, Measurement

#: How often a probe's figures may be looked at, and measured once more where they do not decide: four rounds in all.
LOOKS = 4
#: The label ``statistic`` -> the share of a quantile.
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
#: Of two rounds Student's t says nothing that is of use: 12.7 standard errors.
_FEWEST_CLUSTERS = 3
_ROUNDING = 1e-12


def pooled(rounds: Sequence[Sequence[Measurement]], key: Callable[[Measurement], Hashable]) -> tuple[Measurement, ...]:
    """All rounds of a probe as one, in the order in which things were first measured; ``key`` tells what is one thing.

    An invalid measurement gives way to a valid one of any other round; where all are invalid the newest stands.
    """
    found: dict[Hashable, list[Measurement]] = {}
    for measurement in chain.from_iterable(rounds):
        found.setdefault(key(measurement), []).append(measurement)
    valid = ([m for m in same if m.invalid is None] or same[-1:] for same in found.values())
    return tuple(reduce(merge, same) for same in valid)


def merge(first: Measurement, second: Measurement) -> Measurement:
    """Two valid measurements of one thing as one. Where they differ in a label the second's stands, and a label that
    only one of them has stays (``limited_by``): such a figure is a lower bound, and stays open as far up as it was.
    """
    kept = first.repeats and second.repeats
    both = first.model_copy(
        update={
            "labels": {**first.labels, **second.labels},
            "samples": first.samples + second.samples,
            "repeats": first.repeats + second.repeats if kept else (),
            "counts": _sums(first.counts, second.counts),
            "distributions": first.distributions + second.distributions,
            "wide": first.wide or second.wide,
        }
    )
    value, (low, high) = estimate(both) or _around(first, second)
    open_to = [m.interval[1] for m in (first, second) if "limited_by" in m.labels]
    return both.model_copy(update={"value": value, "interval": (low, max([high, *open_to]))})


def estimate(measurement: Measurement, confidence: float = 0.95) -> tuple[float, Interval] | None:
    """The value and its interval from a measurement's raw data; None where it has none."""
    if measurement.distributions:
        share = SHARES.get(measurement.labels.get("statistic", ""), 1.0)
        return quantile_of(measurement.distributions, share, confidence)
    if measurement.counts:
        k, n = measurement.counts
        return k / n, binomial_interval(k, n, confidence)
    if measurement.repeats:
        value, (low, high) = median_interval(measurement.repeats, confidence)
        return value, (max(low, 0.0) if min(measurement.repeats) >= 0.0 else low, high)
    return None


def quantile_of(rounds: Sequence[Distribution], q: float, confidence: float = 0.95) -> tuple[float, Interval]:
    """The q-quantile of rounds that count alike, and its interval. Raises ValueError for none, or an empty one.

    Of one round, and of its raw values, it is the nearest rank and two order statistics.
    """
    if not rounds or not all(rounds):
        raise ValueError("no values")
    if q >= 1.0:
        largest = max(values[-1][0] for values in rounds)
        return largest, (largest, largest)
    places, shares, spreads = _curve(rounds, confidence)
    whole = sum(count for one in rounds for _, count in one)
    low, high = (rank / whole for rank in quantile_ranks(whole, q, confidence))

    highs = [share + spread for share, spread in zip(shares, spreads, strict=True)]
    lows = [share - spread for share, spread in zip(shares, spreads, strict=True)]

    def reached(levels: Sequence[float], wanted: float) -> int:
        return next((at for at, level in enumerate(levels) if level >= wanted - _ROUNDING), len(places) - 1)

    short = next((at for at in reversed(range(len(places))) if lows[at] < q - _ROUNDING), -1)
    lowest = min(reached(shares, low), reached(highs, q))
    highest = max(reached(shares, high), min(short + 1, len(places) - 1))
    return places[reached(shares, q)], (places[lowest], places[highest])


def _curve(rounds: Sequence[Distribution], confidence: float) -> tuple[list[float], list[float], list[float]]:
    """The values in ascending order; the share of all rounds up to each; and how far their scatter leaves that open."""
    n = len(rounds)
    steps = sorted((value, at, count) for at, one in enumerate(rounds) for value, count in one)
    whole, seen = [sum(count for _, count in one) for one in rounds], [0] * n
    times = t_quantile((1.0 - confidence) / 2.0, n - 1.0) / math.sqrt(n * (n - 1)) if n >= _FEWEST_CLUSTERS else 0.0
    places, shares, spreads = [], [], []
    for value, same in groupby(steps, key=itemgetter(0)):
        for _, at, count in same:
            seen[at] += count
        each = [k / m for k, m in zip(seen, whole, strict=True)]
        mean = sum(each) / n
        places.append(value)
        shares.append(mean)
        spreads.append(times * math.sqrt(sum((one - mean) ** 2 for one in each)))
    return places, shares, spreads


def _sums(first: tuple[int, int] | None, second: tuple[int, int] | None) -> tuple[int, int] | None:
    return (first[0] + second[0], first[1] + second[1]) if first and second else None


def _around(first: Measurement, second: Measurement) -> tuple[float, Interval]:
    ends = (*first.interval, *second.interval)
    return median((first.value, second.value)), (min(ends), max(ends))
