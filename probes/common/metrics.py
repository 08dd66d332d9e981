"""How a probe declares many metrics of one kind (a table of names, help texts, own labels and directions), and makes
measurements of repeats and of exact figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from bench.judge.statistics import Interval, median_interval
from bench.measure.probe import Failed
from bench.model import Code, Measurement, Metric

Labels = Mapping[str, str]
#: Name, help, labels separated by spaces, and what is better.
Row = tuple[str, str, str, Literal["higher", "lower", "none"]]


def metrics(*rows: Row, first: str = "", last: str = "", over_one: str = "") -> tuple[Metric, ...]:
    """The metrics of a table. All of them carry the labels ``first`` before their own, and ``last`` after them.

    ``over_one`` names the ratios that are no shares.
    """
    return tuple(
        Metric(
            name=name, help=text, labels=(*first.split(), *labels.split(), *last.split()), better=better,
            over_one=name in over_one.split(),
        )
        for name, text, labels, better in rows
    )  # fmt: skip


def figure(
    metric: str, value: float, labels: Labels, interval: Interval | None = None, n: int = 1,
    invalid: str | None = None, repeats: Sequence[float] = (),
) -> Measurement:  # fmt: skip
    """One value of ``n`` samples, within an interval widened to hold it; without one, a value that has no noise."""
    low, high = interval or (value, value)
    return Measurement(
        metric=metric, value=value, interval=(min(low, value), max(high, value)), samples=max(1, n),
        labels=dict(labels), repeats=tuple(repeats), invalid=invalid,
    )  # fmt: skip


def exact(metric: str, value: float, samples: int, labels: Labels, invalid: str | None = None) -> Measurement:
    """A figure without an interval: a count, a rate that a device names."""
    return figure(metric, value, labels, n=samples, invalid=invalid)


def of_repeats(
    metric: str, values: Sequence[float], labels: Labels, invalid: str | None = None, most: float = math.inf
) -> Measurement:
    """The median of repeats with its interval, cut at 0 and at ``most``. Raises Failed for none."""
    if not values:
        raise Failed(Code.EMPTY, f"nothing was measured for {metric}")
    value, (low, high) = median_interval(values)
    return figure(metric, value, labels, (max(low, 0.0), min(high, most)), len(values), invalid, values)
