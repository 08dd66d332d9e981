"""From the child's JSON lines to measurements: rates, starvation and its parts by the contract's formulas. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.judge.attribution import components
from bench.judge.statistics import median
from bench.measure import jsonl as lines
from bench.measure.probe import Failed, TimedOut, Unsupported
from bench.model import Measurement, Series
from probes import _feed_beside
from probes.feed.rates import Interval, Rate, Steady, difference_interval, each_step, own, pool, steady
from probes.feed.validity import reasons

WHO = "the feed's load program"
ARMS = ("resident", "transfer", "preprocess", "fetch", "storage")
_ERRORS = {
    "in_memory": Unsupported, "torch_missing": Unsupported, "no_cuda": Unsupported,
    "package_missing": Unsupported, "unknown_loader": Unsupported, "path_hangs": TimedOut, "read_failed": Failed,
}  # fmt: skip
_REMEDIES = {
    "in_memory": "give a directory on a disk or a file server: --storage DIR",
    "torch_missing": "install the extra `torch`, or use --accelerator emulated:resnet50-h100",
    "no_cuda": "install the NVIDIA driver and a CUDA build of torch, or use --accelerator cpu",
    "package_missing": "install the package into the environment of bench, or leave --loader out",
    "unknown_loader": "leave --loader out, or give one of those",
    "path_hangs": "look at the mount and its server (dmesg, `mount`, `nfsstat`), then measure again",
    "read_failed": "look at `dmesg` for errors of the device below this directory",
}


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


def records_of(text: str) -> list[dict[str, Any]]:
    """The child's lines. Raises Unsupported, Failed or TimedOut: what it said went wrong, or that it made no sense."""
    records = lines.objects(text, WHO, "kind")
    for record in records:
        if record["kind"] == "error":
            raise lines.refusal(str(record.get("word", "failed")), str(record.get("text", "")), _ERRORS, _REMEDIES)
    if not {"ready", "end"} <= {record["kind"] for record in records}:
        raise Failed(f"tool_output: {WHO} ended before it had measured", "run it with --effort quick")
    return records


def hear(text: str) -> Heard:
    records = records_of(text)
    ready = next(record for record in records if record["kind"] == "ready")
    return Heard(ready, tuple(record for record in records if record["kind"] == "arm"))


def parse(text: str, path: str, label: str) -> Parsed:
    """Everything that one directory's arms say. ``label`` names an emulated accelerator (``resnet50-h100*8``)."""
    heard = hear(text)
    with lines.understood(WHO):
        return Feed(heard, path, label).parsed()


class Feed:
    """The rates of one directory and what follows from them."""

    def __init__(self, heard: Heard, path: str, label: str) -> None:
        self.ready, self.arms = heard.ready, heard.arms
        self.labels = {"path": path}
        kind = self.ready["accelerator"]
        if kind in ("cpu", "emulated"):
            self.labels["stand_in"] = kind
        if label:
            self.labels["accelerator"] = label
        self.demand = float(self.ready["demand"] or math.inf)
        self.turns: dict[str, list[Sequence[float]]] = {}
        self.rates: dict[str, Rate] = {}
        for name in (*ARMS, "yardstick"):
            self.turns[name] = [turn for turn in map(self._windows, self.of(name)) if turn]
            if self.turns[name] or name == "resident":
                self.rates[name] = self._rate(name)
            self.demand = self.rates["resident"].value
        means = {name: [sum(turn) / len(turn) for turn in found] for name, found in self.turns.items()}
        capability = [median(turn) for turn in self.turns["resident"]] or [self.demand]
        self.doubts = reasons(self.ready, self.arms, {**means, "resident": capability})

    def of(self, name: str) -> list[Mapping[str, Any]]:
        return [arm for arm in self.arms if arm["arm"] == name]

    def steady(self, arm: Mapping[str, Any]) -> Steady | None:
        return steady(arm["curve"], arm["grid_seconds"], arm["warm_seconds"], arm["shortest_seconds"], self.demand)

    def _windows(self, arm: Mapping[str, Any]) -> Sequence[float]:
        """The rates of the thirds of the arm's steady window; of an accelerator left alone, of its short ones."""
        if arm["arm"] == "resident":
            return each_step(arm["curve"], arm["grid_seconds"], arm["warm_seconds"])
        found = self.steady(arm)
        return found.thirds if found else ()

    def _rate(self, name: str) -> Rate:
        if name == "resident" and self.ready["demand"]:
            exact = float(self.ready["demand"])
            return Rate(exact, (exact, exact), (exact,), 0.0)
        if not self.turns[name]:
            raise ValueError(f"no {name} arm is long enough")
        seconds = sum(arm["seconds"] for arm in self.of(name))
        return own(self.turns[name], seconds) if name == "resident" else pool(self.turns[name], seconds)

    def parsed(self) -> Parsed:
        size = float(self.ready["sample_bytes"])
        exact = Measurement(
            metric="feed_sample_bytes", value=size, interval=(size, size), samples=1, labels=self.labels
        )
        found = [*self._rates(), *self._starvation(), *self._headroom(), exact, *_feed_beside.measurements(self)]
        return Parsed(tuple(found), tuple(_feed_beside.series(self)), tuple(_feed_beside.warnings(self)))

    def measurement(
        self, metric: str, value: float, interval: Interval, _rate: Rate | None = None, /, **labels: str
    ) -> Measurement:
        low, high = interval
        return Measurement(
            metric=metric,
            value=value,
            interval=(min(low, value), max(high, value)),
            samples=max(1, len(_rate.repeats)) if _rate else 1,
            labels={**self.labels, **labels},
            repeats=_rate.repeats if _rate else (),
            invalid="; ".join(self.doubts) or None,
        )

    def _rates(self) -> Iterator[Measurement]:
        for name, rate in self.rates.items():
            if name == "yardstick":
                yield self.measurement("feed_yardstick_samples_per_second", rate.value, rate.interval, rate)
                continue
            yield self.measurement("inference_samples_per_second", rate.value, rate.interval, rate, stage=name)

    def _starvation(self) -> Iterator[Measurement]:
        """The contract's parts, each with an interval by interval arithmetic on the rates'."""
        if any(name not in self.rates for name in ARMS):
            return
        c, t, p, f, s = (self.rates[name].value for name in ARMS)
        values = {"total": 1.0 - s / c, **components(c, t, p, f, s).model_dump()}
        intervals, windows = self._part_intervals(), self._part_windows()
        for name, value in values.items():
            rate = Rate(value, intervals[name], windows[name], 0.0)
            yield self.measurement("starvation_ratio", value, intervals[name], rate, component=name)

    def _part_intervals(self) -> dict[str, Interval]:
        c, t, p, f, s = (self.rates[name].interval for name in ARMS)
        lower = (min(p[0], f[0]), min(p[1], f[1]))
        return {
            "total": difference_interval(c, s, c),
            "transfer": difference_interval(c, t, c),
            "preprocess": difference_interval(t, p, c),
            "storage": difference_interval(p, f, c, least=0.0),
            "overlap": difference_interval(lower, s, c),
        }

    def _part_windows(self) -> dict[str, tuple[float, ...]]:
        """Each part by each window of the arm that makes the difference, so that a repetition can be pooled."""
        c, t, p, f, _ = (self.rates[name].value for name in ARMS)
        floor = min(p, f)
        repeats = {name: self.rates[name].repeats for name in ARMS}
        return {
            "total": tuple(1.0 - value / c for value in repeats["storage"]),
            "transfer": tuple((c - value) / c for value in repeats["transfer"]),
            "preprocess": tuple((t - value) / c for value in repeats["preprocess"]),
            "storage": tuple((p - min(p, value)) / c for value in repeats["fetch"]),
            "overlap": tuple((floor - value) / c for value in repeats["storage"]),
        }

    def _headroom(self) -> Iterator[Measurement]:
        if "fetch" not in self.rates:
            return
        c, f = self.rates["resident"], self.rates["fetch"]
        low, high = f.interval[0] / c.interval[1], f.interval[1] / c.interval[0]
        windows = Rate(f.value / c.value, (low, high), tuple(value / c.value for value in f.repeats), 0.0)
        yield self.measurement("storage_headroom_ratio", windows.value, windows.interval, windows)
        count = float(self.ready.get("count") or 1)
        feedable = [float(math.floor(ratio * count + 1e-9)) for ratio in (f.value / c.value, low, high)]
        yield self.measurement("accelerators_feedable", feedable[0], (feedable[1], feedable[2]))
