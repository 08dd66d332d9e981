"""From the five rates to what follows from them: starvation and its parts, headroom. Pure.

One round's rates come from `probes.feed.parse`; those of several rounds are pooled here, and what follows is computed
anew, because a share of two rates is no better known than both of them are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.judge.attribution import RATE, components
from bench.judge.baseline.series import key_of
from bench.judge.pooling import pooled
from bench.model import Measurement
from probes.feed.rates import Rate, again, difference, quotient
from probes.feed.validity import widened

ARMS = ("resident", "transfer", "preprocess", "fetch", "storage")
YARDSTICK = "feed_yardstick_samples_per_second"
_RATES = (RATE, YARDSTICK)
_FOLLOWS = ("starvation_ratio", "storage_headroom_ratio", "accelerators_feedable", "feed_loader_gap_ratio")


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of one path by arm; why an arm must not decide, and what made its interval wide, where there is that.

    A figure has the doubts of the arms that it follows from, and no others.
    """

    labels: Mapping[str, str]
    rates: Mapping[str, Rate]
    doubts: Mapping[str, str] = field(default_factory=dict)
    wide: Mapping[str, str] = field(default_factory=dict)

    def figure(self, metric: str, rate: Rate, arms: Sequence[str], /, **labels: str) -> Measurement:
        low, high = rate.interval
        return Measurement(
            metric=metric,
            value=rate.value,
            interval=(min(low, rate.value), max(high, rate.value)),
            samples=max((len(self.rates[arm].repeats) for arm in arms if arm in self.rates), default=1),
            labels={**self.labels, **labels},
            repeats=rate.repeats,
            invalid=_each(self.doubts, arms),
            wide=_each(self.wide, arms),
        )

    def measurements(self, loader: Mapping[str, str]) -> Iterator[Measurement]:
        """The rates and what follows from them. ``loader``: the labels of the loader's gap, where there is one."""
        for arm, rate in self.rates.items():
            if arm == "yardstick":
                yield self.figure(YARDSTICK, rate, [arm])
            else:
                yield self.figure(RATE, rate, [arm], stage=arm)
        yield from self._starvation()
        yield from self._headroom()
        if loader and "yardstick" in self.rates and "storage" in self.rates:
            yield self._gap(loader)

    def _starvation(self) -> Iterator[Measurement]:
        """The contract's parts. Storage that is never slower than the decode has exactly no part, whatever C is."""
        if any(name not in self.rates for name in ARMS):
            return
        c, t, p, f, s = (self.rates[name] for name in ARMS)
        lost = quotient(s.interval, c.interval)
        total = Rate(1.0 - s.value / c.value, (1.0 - lost[1], 1.0 - lost[0]))
        yield self.figure("starvation_ratio", total, ("resident", "storage"), component="total")
        parts = components(c.value, t.value, p.value, f.value, s.value).model_dump()
        copied = quotient(t.interval, c.interval)
        withheld = difference(p.interval, f.interval, c.interval)
        supply = min(p.interval[0], f.interval[0]), min(p.interval[1], f.interval[1])
        falls = {
            "transfer": ((1.0 - copied[1], 1.0 - copied[0]), ARMS[:2]),
            "preprocess": (difference(t.interval, p.interval, c.interval), ARMS[:3]),
            "storage": ((max(0.0, withheld[0]), max(0.0, withheld[1])), ("resident", "preprocess", "fetch")),
            "overlap": (difference(supply, s.interval, c.interval), ("resident", "preprocess", "fetch", "storage")),
        }
        for name, (interval, arms) in falls.items():
            yield self.figure("starvation_ratio", Rate(parts[name], interval), arms, component=name)

    def _headroom(self) -> Iterator[Measurement]:
        """How often the path could feed one accelerator; with several of them ``resident`` is what all consume."""
        if "fetch" not in self.rates:
            return
        c, f, count = self.rates["resident"], self.rates["fetch"], accelerators(self.labels)
        low, high = (count * end for end in quotient(f.interval, c.interval))
        value = count * f.value / c.value
        yield self.figure("storage_headroom_ratio", Rate(value, (low, high)), ("resident", "fetch"))
        feedable, least, most = (float(math.floor(end + 1e-9)) for end in (value, low, high))
        yield self.figure("accelerators_feedable", Rate(feedable, (least, most)), ("resident", "fetch"))

    def _gap(self, loader: Mapping[str, str]) -> Measurement:
        """What another loader loses against our own reader on the same path, of the accelerator's capability."""
        ours, theirs, alone = (self.rates[arm] for arm in ("yardstick", "storage", "resident"))
        interval = difference(ours.interval, theirs.interval, alone.interval)
        gap = Rate((ours.value - theirs.value) / alone.value, interval)
        return self.figure("feed_loader_gap_ratio", gap, ("yardstick", "storage", "resident"), **loader)


def accelerators(labels: Mapping[str, str]) -> int:
    """How many accelerators are fed at once: ``resnet50-h100*8`` are eight."""
    count = labels.get("accelerator", "").rpartition("*")[2]
    return int(count) if count.isdigit() else 1


def _each(reasons: Mapping[str, str], arms: Sequence[str]) -> str | None:
    return "; ".join(dict.fromkeys(reasons[arm] for arm in arms if arm in reasons)) or None


# --- several rounds


def pool(rounds: Sequence[Sequence[Measurement]]) -> tuple[Measurement, ...]:
    """The rounds' rates by all their turns, what follows from them anew, and all else each by itself."""
    beside = [[m for m in one if m.metric not in (*_RATES, *_FOLLOWS)] for one in rounds]
    by_path: dict[tuple[tuple[str, str], ...], list[list[Measurement]]] = {}
    for number, one in enumerate(rounds):
        for m in one:
            if m.metric in _RATES:
                path = tuple(sorted((key, value) for key, value in m.labels.items() if key != "stage"))
                by_path.setdefault(path, [[] for _ in rounds])[number].append(m)
    gaps = {m.labels.get("path"): m.labels for one in rounds for m in one if m.metric == "feed_loader_gap_ratio"}
    found: list[Measurement] = []
    for path, measured in by_path.items():
        rates, gap = _pooled(dict(path), measured), gaps.get(dict(path).get("path"), {})
        found += rates.measurements({key: value for key, value in gap.items() if key not in rates.labels})
    return (*found, *pooled(beside, lambda m: key_of(m, None)))


def _pooled(labels: Mapping[str, str], rounds: Sequence[Sequence[Measurement]]) -> Rates:
    """An arm's valid rounds; where none is valid, the newest with its doubt."""
    arms: dict[str, list[Measurement]] = {}
    for m in (m for one in rounds for m in one):
        arms.setdefault(m.labels.get("stage", "yardstick"), []).append(m)
    good = {arm: [m for m in found if m.invalid is None] or found[-1:] for arm, found in arms.items()}
    rates = {
        arm: again([Rate(m.value, m.interval, m.repeats or (m.value,)) for m in found]) for arm, found in good.items()
    }
    doubts = {arm: doubt for arm, found in good.items() if (doubt := found[-1].invalid)}
    turns = {arm: [(turn,) for turn in rate.repeats] for arm, rate in rates.items() if arm not in doubts}
    demand = rates["resident"].value if "resident" in rates else math.inf
    return Rates(labels, rates, doubts, widened(turns, demand))
