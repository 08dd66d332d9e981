"""From the child's JSON lines to measurements: rates, starvation and its parts by the contract's formulas. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.judge.attribution import components
from bench.measure.probe import Failed, TimedOut, Unsupported
from bench.model import Measurement, Series
from probes._feed_rates import Interval, Rate, difference_interval, pool, steady
from probes._feed_validity import reasons

ARMS = ("resident", "transfer", "preprocess", "fetch", "storage")
_ERRORS = {
    "in_memory": Unsupported, "torch_missing": Unsupported, "no_cuda": Unsupported,
    "path_hangs": TimedOut, "read_failed": Failed,
}  # fmt: skip
_REMEDIES = {
    "in_memory": "give a directory on a disk or a file server: --storage DIR",
    "torch_missing": "install the extra `torch`, or use --accelerator emulated:resnet50-h100",
    "no_cuda": "install the NVIDIA driver and a CUDA build of torch, or use --accelerator cpu",
    "path_hangs": "look at the mount and its server (dmesg, `mount`, `nfsstat`), then measure again",
    "read_failed": "look at `dmesg` for errors of the device below this directory",
}
#: Points of a time line that a document keeps for one arm.
_MOST_POINTS = 200


@dataclass(frozen=True, slots=True)
class Heard:
    """What the child said: its description of accelerator and data, and its arms."""

    ready: Mapping[str, Any]
    arms: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Parsed:
    measurements: tuple[Measurement, ...]
    series: tuple[Series, ...]
    warnings: tuple[str, ...]


def hear(text: str) -> Heard:
    """The child's lines. Raises Unsupported, Failed or TimedOut: what it said went wrong, or that it made no sense."""
    records = [_record(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for record in records:
        if record.get("kind") == "error":
            word = str(record.get("word", "failed"))
            raise _ERRORS.get(word, Failed)(f"{word}: {record.get('text', '')}"[:4000], _REMEDIES.get(word))
    ready = next((r for r in records if r.get("kind") == "ready"), None)
    if ready is None or not any(r.get("kind") == "end" for r in records):
        raise Failed(
            "tool_output: the feed's load program ended before it had measured", "run it again with --effort quick"
        )
    return Heard(ready, tuple(r for r in records if r.get("kind") == "arm"))


def _record(number: int, line: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Failed(f"tool_output: line {number} of the feed's load program is not JSON: {line[:80]!r}") from error
    if not isinstance(record, dict):
        raise Failed(f"tool_output: line {number} of the feed's load program is not an object")
    return record


def parse(text: str, path: str, label: str) -> Parsed:
    """Everything that one directory's arms say. ``label`` names an emulated accelerator (``resnet50-h100*8``)."""
    heard = hear(text)
    try:
        return _Feed(heard, path, label).parsed()
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Failed(f"tool_output: the feed's load program left something out: {error!r}") from error


class _Feed:
    """The rates of one directory and what follows from them."""

    def __init__(self, heard: Heard, path: str, label: str) -> None:
        self.ready, self.arms = heard.ready, heard.arms
        self.labels = {"path": path}
        kind = self.ready["accelerator"]
        if kind in ("cpu", "emulated"):
            self.labels["stand_in"] = kind
        if label:
            self.labels["accelerator"] = label
        turns = {name: [self._windows(arm) for arm in self._of(name)] for name in ARMS}
        self.turns = {name: [t for t in found if t] for name, found in turns.items()}
        self.rates = {name: self._rate(name) for name in ARMS if self.turns[name] or name == "resident"}
        means = {name: [sum(turn) / len(turn) for turn in found] for name, found in self.turns.items()}
        means["resident"] = means["resident"] or [self.rates["resident"].value]
        self.doubts = reasons(self.ready, self.arms, means)

    def _of(self, name: str) -> list[Mapping[str, Any]]:
        return [arm for arm in self.arms if arm["arm"] == name]

    def _demand(self) -> float:
        return self.ready["demand"] or math.inf

    def _windows(self, arm: Mapping[str, Any]) -> Sequence[float]:
        """The rates of the thirds of the arm's steady window."""
        found = steady(arm["curve"], arm["grid_seconds"], arm["warm_seconds"], arm["shortest_seconds"], self._demand())
        return found.thirds if found else ()

    def _rate(self, name: str) -> Rate:
        if name == "resident" and self.ready["demand"]:
            exact = float(self.ready["demand"])
            return Rate(exact, (exact, exact), (exact,), 0.0)
        if not self.turns[name]:
            raise ValueError(f"no {name} arm is long enough")
        return pool(self.turns[name], sum(arm["seconds"] for arm in self._of(name)))

    def parsed(self) -> Parsed:
        found = [*self._rates(), *self._starvation(), *self._headroom(), *self._busy(), *self._waits()]
        size = float(self.ready["sample_bytes"])
        found.append(
            Measurement(metric="feed_sample_bytes", value=size, interval=(size, size), samples=1, labels=self.labels)
        )
        return Parsed(tuple(found), tuple(self._series()), tuple(self._warnings()))

    def _measurement(
        self, metric: str, value: float, interval: Interval, rate: Rate | None = None, **labels: str
    ) -> Measurement:
        low, high = interval
        return Measurement(
            metric=metric,
            value=value,
            interval=(min(low, value), max(high, value)),
            samples=max(1, len(rate.repeats)) if rate else 1,
            labels={**self.labels, **labels},
            repeats=rate.repeats if rate else (),
            invalid="; ".join(self.doubts) or None,
        )

    def _rates(self) -> Iterator[Measurement]:
        for name, rate in self.rates.items():
            yield self._measurement("inference_samples_per_second", rate.value, rate.interval, rate, stage=name)

    def _starvation(self) -> Iterator[Measurement]:
        """The contract's parts, each with an interval by interval arithmetic on the rates'."""
        rates = self.rates
        if any(name not in rates for name in ARMS):
            return
        c, t, p, f, s = (rates[name] for name in ARMS)
        parts = components(c.value, t.value, p.value, f.value, s.value)
        lower = (min(p.interval[0], f.interval[0]), min(p.interval[1], f.interval[1]))
        intervals = {
            "transfer": difference_interval(c.interval, t.interval, c.interval),
            "preprocess": difference_interval(t.interval, p.interval, c.interval),
            "storage": difference_interval(p.interval, lower, c.interval) if f.value < p.value else (0.0, 0.0),
            "overlap": difference_interval(lower, s.interval, c.interval),
        }
        total = difference_interval(c.interval, s.interval, c.interval)
        yield self._measurement("starvation_ratio", 1.0 - s.value / c.value, total, component="total")
        for name, interval in intervals.items():
            yield self._measurement("starvation_ratio", getattr(parts, name), interval, component=name)

    def _headroom(self) -> Iterator[Measurement]:
        if "fetch" not in self.rates:
            return
        c, f = self.rates["resident"], self.rates["fetch"]
        low, high = f.interval[0] / c.interval[1], f.interval[1] / c.interval[0]
        yield self._measurement("storage_headroom_ratio", f.value / c.value, (low, high))
        count = float(self.ready.get("count") or 1)
        feedable = [float(math.floor(ratio * count + 1e-9)) for ratio in (f.value / c.value, low, high)]
        yield self._measurement("accelerators_feedable", feedable[0], (feedable[1], feedable[2]))

    def _busy(self) -> Iterator[Measurement]:
        """The share of each arm's time in which the accelerator computed: its rate over the resident one."""
        c = self.rates["resident"]
        for name in ("transfer", "preprocess", "storage"):
            if name in self.rates:
                rate = self.rates[name]
                low, high = rate.interval[0] / c.interval[1], min(1.0, rate.interval[1] / c.interval[0])
                value = min(1.0, rate.value / c.value)
                yield self._measurement(
                    "accelerator_busy_ratio", value, (low, high), stage=f"feed.{name}", device=self.ready["accelerator"]
                )

    def _waits(self) -> Iterator[Measurement]:
        """How long a step waited for its batch, over the storage arm's turns: the median of the turns' quantiles."""
        for statistic in ("p50", "p99"):
            found = sorted(arm[f"wait_{statistic}_seconds"] for arm in self._of("storage") if arm.get("waits"))
            if found:
                middle = found[len(found) // 2]
                yield self._measurement(
                    "feed_wait_seconds", middle, (found[0], found[-1]), stage="storage", statistic=statistic
                )

    def _series(self) -> Iterator[Series]:
        size = self.ready["sample_bytes"]
        for arm in self._of("storage"):
            labels = {**self.labels, "stage": f"feed.storage.{arm['turn']}"}
            step = arm["grid_seconds"]
            rates = [((i + 1) * step, (b - a) / step * size) for i, (a, b) in enumerate(pairwise(arm["curve"]))]
            yield _series("feed_consumed_bytes_per_second", labels, rates)
            yield _series("feed_device_bytes_per_second", labels, arm["device_curve"])

    def _warnings(self) -> Iterator[str]:
        for arm in self._of("storage"):
            found = steady(
                arm["curve"], arm["grid_seconds"], arm["warm_seconds"], arm["shortest_seconds"], self._demand()
            )
            if found and found.before:
                size = self.ready["sample_bytes"] / 1e6
                yield (
                    f"burst: {self.labels['path']} gave {found.before * size:.0f} MB/s at first and "
                    f"{found.rate * size:.0f} MB/s from then on; the sustained rate counts"
                )


def _series(metric: str, labels: dict[str, str], rows: Sequence[Sequence[float]]) -> Series:
    every = max(1, -(-len(rows) // _MOST_POINTS))
    kept = rows[::every]
    times, values = [round(row[0], 2) for row in kept], [float(round(row[1])) for row in kept]
    return Series(metric=metric, labels=labels, seconds=tuple(times), values=tuple(values))
