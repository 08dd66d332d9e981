"""From the child's JSON lines to measurements: rates, starvation and its parts by the contract's formulas. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

from bench.judge.attribution import components
from bench.judge.statistics import median
from bench.measure import jsonl as lines
from bench.measure.probe import Failed, TimedOut, Unsupported
from bench.model import Code, Measurement, Series
from probes.feed.rates import Interval, Rate, Steady, difference_interval, each_step, own, pool, rate, steady
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
        raise Failed(Code.TOOL_OUTPUT, f"{WHO} ended before it had measured", "run it with --effort quick")
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
        found = [*self._rates(), *self._starvation(), *self._headroom(), exact, *measurements(self)]
        return Parsed(tuple(found), tuple(series(self)), tuple(warnings(self)))

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
        for stage, measured in self.rates.items():
            if stage == "yardstick":
                yield self.measurement("feed_yardstick_samples_per_second", measured.value, measured.interval, measured)
                continue
            yield self.measurement(
                "inference_samples_per_second", measured.value, measured.interval, measured, stage=stage
            )

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


Arm = Mapping[str, Any]

#: Points of a time line that a document keeps for one arm.
_MOST_POINTS = 150


def measurements(feed: Feed) -> Iterator[Measurement]:
    parts = (_busy, _interference, _waits, _cores, _mlperf, _loader, _ways_to_read)
    return chain.from_iterable(part(feed) for part in parts)


def _busy(feed: Feed) -> Iterator[Measurement]:
    """The share of each arm's window in which the accelerator computed; steps at the window's edges are cut there."""
    for name in ("transfer", "preprocess", "storage"):
        arms = [arm for arm in feed.of(name) if "busy_ratio" in arm]
        if not arms:
            continue
        shares = [min(1.0, float(arm["busy_ratio"])) for arm in arms]
        error = max(float(arm["busy_error_ratio"]) for arm in arms)
        value = sum(shares) / len(shares)
        interval = max(0.0, min(shares) - error), min(1.0, max(shares) + error)
        device = feed.ready["name"] or feed.ready["accelerator"]
        yield feed.measurement("accelerator_busy_ratio", value, interval, stage=f"feed.{name}", device=device)


def _interference(feed: Feed) -> Iterator[Measurement]:
    """How much slower a sample is computed while it is also loaded: not idleness, and no storage mends it."""
    alone = [arm["sample_seconds"] for arm in feed.of("resident") if arm.get("sample_seconds")]
    loading = [arm["sample_seconds"] for arm in feed.of("storage") if arm.get("sample_seconds")]
    if not alone or not loading:
        return
    mean = sum(alone) / len(alone)
    lost = sorted(1.0 - mean / seconds for seconds in loading)
    yield feed.measurement("feed_interference_ratio", sum(lost) / len(lost), (lost[0], lost[-1]))


def _waits(feed: Feed) -> Iterator[Measurement]:
    """How long a step waited for its batch, over the storage arm's turns: the median of the turns' quantiles."""
    for statistic in ("p50", "p99"):
        found = sorted(arm[f"wait_{statistic}_seconds"] for arm in feed.of("storage") if arm.get("waits"))
        if found:
            ends = (found[0], found[-1])
            yield feed.measurement(
                "feed_wait_seconds", found[len(found) // 2], ends, stage="storage", statistic=statistic
            )


def _cores(feed: Feed) -> Iterator[Measurement]:
    """CPU cores that preparing the samples would keep busy at the accelerator's full rate, by the CPU time it took."""
    size = feed.ready["sample_bytes"]
    for arm in feed.of("preprocess"):
        if feed.ready["decode"] != "none" and arm["read_bytes"] > 0:
            cores = feed.demand * arm["reader_cpu_seconds"] * size / arm["read_bytes"]
            yield feed.measurement("feed_preprocess_cores", cores, (cores, cores))
            have = float(feed.ready["cores"])
            yield feed.measurement("feed_available_cores", have, (have, have))
            return


def _mlperf(feed: Feed) -> Iterator[Measurement]:
    """MLPerf Storage's accelerator utilization: computing time over running time, the first batch left out of both."""
    if feed.ready["accelerator"] != "emulated":
        return
    found = sorted(value for arm in feed.of("storage") if (value := _utilization(arm, feed)) is not None)
    if found:
        value = sum(found) / len(found)
        yield feed.measurement("feed_mlperf_utilization_ratio", value, (found[0], found[-1]))


def _utilization(arm: Arm, feed: Feed) -> float | None:
    curve, step = arm["curve"], arm["grid_seconds"]
    first = next((index for index, done in enumerate(curve) if done >= feed.ready["batch"]), None)
    if first is None or first >= len(curve) - 1:
        return None
    return min(1.0, rate(curve, step, first, len(curve) - 1) / feed.demand)


def _loader(feed: Feed) -> Iterator[Measurement]:
    """What another loader loses against our own reader on the same path, as a share of the accelerator's capability."""
    name = feed.ready.get("loader")
    if not name or "yardstick" not in feed.rates or "storage" not in feed.rates:
        return
    ours, theirs, alone = (feed.rates[arm] for arm in ("yardstick", "storage", "resident"))
    value = (ours.value - theirs.value) / alone.value
    low = (ours.interval[0] - theirs.interval[1]) / alone.interval[1]
    high = (ours.interval[1] - theirs.interval[0]) / alone.interval[0]
    workers = str(feed.ready["loader_workers"])
    yield feed.measurement("feed_loader_gap_ratio", value, (min(low, high), high), loader=name, workers=workers)


def _ways_to_read(feed: Feed) -> Iterator[Measurement]:
    """Reading alone, in the way of the fetch arm and in those that the search tried."""
    size = feed.ready["sample_bytes"]
    if "fetch" in feed.rates:
        usual = feed.rates["fetch"]
        low, high = (bound * size for bound in usual.interval)
        labels = _way(feed.ready["workers"], feed.ready["block_bytes"], not feed.ready["direct"])
        yield feed.measurement("feed_fetch_bytes_per_second", usual.value * size, (low, high), **labels)
    seen = {(feed.ready["workers"], feed.ready["block_bytes"], not feed.ready["direct"])}
    for arm in feed.of("mend"):
        way = (arm["workers"], arm["block_bytes"], bool(arm["buffered"]))
        if way not in seen:
            seen.add(way)
            yield from _one_way(feed, arm, _way(*way))


def _one_way(feed: Feed, arm: Arm, labels: dict[str, str]) -> Iterator[Measurement]:
    curve, step = arm["curve"], arm["grid_seconds"]
    first, last = arm["warm_seconds"] / step, len(curve) - 1
    if last - first < 3:
        return
    size = feed.ready["sample_bytes"]
    halves = [rate(curve, step, a, b) * size for a, b in pairwise((first, (first + last) / 2, last))]
    yield feed.measurement("feed_fetch_bytes_per_second", sum(halves) / 2, (min(halves), max(halves)), **labels)


def _way(readers: int, block: int, buffered: bool) -> dict[str, str]:
    return {"readers": str(readers), "block_bytes": str(block), "cache": "through" if buffered else "past"}


def series(feed: Feed) -> Iterator[Series]:
    """Consumption, device reads, utilization and I/O pressure of each turn of the storage arm."""
    size = feed.ready["sample_bytes"]
    for arm in feed.of("storage"):
        labels = {**feed.labels, "stage": f"feed.storage.{arm['turn']}"}
        step = arm["grid_seconds"]
        rates = [((i + 1) * step, (b - a) / step) for i, (a, b) in enumerate(pairwise(arm["curve"]))]
        yield _series("feed_consumed_bytes_per_second", labels, [(at, value * size) for at, value in rates], 0)
        yield _series("feed_utilization_ratio", labels, [(at, value / feed.demand) for at, value in rates], 4)
        yield _series("feed_device_bytes_per_second", labels, arm["device_curve"], 0)
        if arm.get("pressure_curve"):
            yield _series("feed_pressure_ratio", labels, arm["pressure_curve"], 3)


def _series(metric: str, labels: dict[str, str], rows: Sequence[Sequence[float]], digits: int) -> Series:
    every = max(1, -(-len(rows) // _MOST_POINTS))
    kept = rows[::every]
    values = tuple(round(float(row[1]), digits) for row in kept)
    return Series(metric=metric, labels=labels, seconds=tuple(round(row[0], 2) for row in kept), values=values)


def warnings(feed: Feed) -> Iterator[str]:
    """Doubts that do not void the numbers: a burst before the sustained rate, data that was read through the cache."""
    megabytes = feed.ready["sample_bytes"] / 1e6
    for arm in feed.of("storage"):
        found = feed.steady(arm)
        if found and found.before:
            yield (
                f"{Code.BURST}: {feed.labels['path']} gave {found.before * megabytes:.0f} MB/s at first and "
                f"{found.rate * megabytes:.0f} MB/s from then on; the sustained rate counts"
            )
    if not feed.ready["direct"] and not feed.ready["bucket"]:
        yield f"{feed.labels['path']} has no O_DIRECT: it was read through the page cache, emptied behind each read"
