"""How a probe declares many metrics of one kind (a table of names, help texts, own labels and directions), and makes
measurements of repeats, counts, distributions and single figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from bench.judge.pooling import SHARES, quantile_of
from bench.judge.statistics import Interval, binomial_interval, median_interval, samples_needed_for_quantile
from bench.measure.probe import Failed
from bench.model import Code, Distribution, Measurement, Metric, unit_of

Labels = Mapping[str, str]
_PARTS = 5  # of a window, as repeats for the interval of a rate
#: Name, help, labels separated by spaces, and what is better.
Row = tuple[str, str, str, Literal["higher", "lower", "none"]]


class Between(NamedTuple):
    """How far whole sessions of a table's metrics lie apart (`Metric.session_spread`), by name, else by base unit."""

    source: str
    spread: Mapping[str, float | None]

    def of(self, name: str) -> tuple[float | None, str]:
        """The spread, and where it comes from."""
        found = self.spread.get(name, self.spread.get(unit_of(name)))
        return found, "" if found is None else self.source


_NO_SPREAD = Between("", {})
#: Of what is measured against another host.
BETWEEN_HOSTS = Between(
    "Our choice: as of storage, because no sessions of two hosts were recorded.",
    {"bytes_per_second": 0.03, "seconds": 0.10},
)


def metrics(
    *rows: Row, first: str = "", last: str = "", over_one: str = "", between: Between = _NO_SPREAD
) -> tuple[Metric, ...]:
    """The metrics of a table. All of them carry the labels ``first`` before their own, and ``last`` after them.

    A label with an asterisk (``limited_by*``) tells what was found, and is no part of a series' identity. ``over_one``
    names the ratios that are no shares. ``between`` is of those that have a better side.
    """
    found = []
    for name, text, own, better in rows:
        spread, source = _NO_SPREAD.of(name) if better == "none" else between.of(name)
        labels = f"{first} {own} {last}".split()
        metric = Metric(
            name=name, help=text, labels=tuple(label.rstrip("*") for label in labels), better=better,
            over_one=name in over_one.split(), session_spread=spread, session_source=source,
            varying=tuple(label.rstrip("*") for label in labels if label.endswith("*")),
        )  # fmt: skip
        found.append(metric)
    return tuple(found)


def figure(
    metric: str, value: float, labels: Labels, interval: Interval | None = None, n: int = 1,
    invalid: str | None = None, repeats: Sequence[float] = (),
) -> Measurement:  # fmt: skip
    """One value of ``n`` samples, within an interval widened to hold it; without one (a count, say) it has no noise."""
    low, high = interval or (value, value)
    return Measurement(
        metric=metric, value=value, interval=(min(low, value), max(high, value)), samples=max(1, n),
        labels=dict(labels), repeats=tuple(repeats), invalid=invalid,
    )  # fmt: skip


def of_repeats(
    metric: str, values: Sequence[float], labels: Labels, invalid: str | None = None, most: float = math.inf
) -> Measurement:
    """The median of repeats with its interval, cut at 0 and at ``most``. Raises Failed for none."""
    if not values:
        raise Failed(Code.EMPTY, f"nothing was measured for {metric}")
    value, (low, high) = median_interval(values)
    return figure(metric, value, labels, (max(low, 0.0), min(high, most)), len(values), invalid, values)


def of_counts(metric: str, k: int, n: int, labels: Labels, invalid: str | None = None) -> Measurement:
    """The share of ``k`` in ``n`` with Clopper and Pearson's exact interval."""
    found = figure(metric, k / n, labels, binomial_interval(k, n), n, invalid)
    return found.model_copy(update={"counts": (k, n)})


def of_distributions(
    metric: str, rounds: Sequence[Distribution], statistic: str, labels: Labels, invalid: str | None = None
) -> Measurement:
    """A quantile of rounds that count alike, by its name (``p99``), or their largest value (``max``)."""
    value, interval = quantile_of(rounds, SHARES.get(statistic, 1.0))
    named, n = {**labels, "statistic": statistic}, sum(count for one in rounds for _, count in one)
    return figure(metric, value, named, interval, n, invalid).model_copy(update={"distributions": tuple(rounds)})


def distribution(values: Sequence[float]) -> Distribution:
    """One round's values, ascending, each with how many there are."""
    return tuple(sorted(Counter(values).items()))


def needed(statistic: str) -> int:
    """The fewest values of which two order statistics hold that quantile with 95 %: 368 for p99, 3688 for p99.9."""
    return samples_needed_for_quantile(SHARES[statistic], confidence=0.975) if statistic in SHARES else 1


def quantiles(
    metric: str, values: Sequence[float], labels: Labels, invalid: str | None = None
) -> Iterator[Measurement]:
    """Every quantile that has values enough for its 95 % interval, and the largest value."""
    supported = [name for name in SHARES if len(values) >= needed(name)]
    for name in [*supported, "max"] if values else ():
        yield of_distributions(metric, (distribution(values),), name, labels, invalid)


def rate_of_parts(
    metric: str, times: Sequence[float], window: float, labels: Labels, invalid: str | None
) -> Measurement:
    """Events a second of the whole window; the interval comes from its five parts."""
    width = window / _PARTS
    parts = [sum(i * width < t <= (i + 1) * width for t in times) / width for i in range(_PARTS)]
    _, (low, high) = median_interval(parts)
    return figure(metric, sum(t <= window for t in times) / window, labels, (max(0.0, low), high), len(times), invalid)
