"""From the child's records to measurements: rates, starvation and its parts by the contract's formulas. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.judge.statistics import quantile, quantile_interval
from bench.measure import jsonl
from bench.measure.probe import Failed, ProbeError, TimedOut, Unsupported
from bench.model import Code, Measurement, Series
from probes.common.metrics import figure, of_repeats
from probes.feed.rates import Rate, each_step, own, pool, rate
from probes.feed.records import Arm, Checkpoint, End, KvRead, LoadError, ModelLoad, Moved, PatternReady, Ready
from probes.feed.validity import COLD_RATIO, reasons, widened
from probes.feed.waterfall import ARMS, Rates

WHO = "the feed's load program"
#: Any other is Failed.
_ERRORS: Mapping[str, type[ProbeError]] = {
    "in_memory": Unsupported, "torch_missing": Unsupported, "no_cuda": Unsupported,
    "package_missing": Unsupported, "unknown_loader": Unsupported, "path_hangs": TimedOut,
}  # fmt: skip
_REMEDIES = {
    "in_memory": "give a directory on a disk or a file server: --storage DIR",
    "torch_missing": "install the extra `torch`, or use --accelerator emulated:resnet50-h100",
    "no_cuda": "install the NVIDIA driver and a CUDA build of torch, or use --accelerator cpu",
    "package_missing": "install the package into the environment of bench, or leave --loader out",
    "unknown_loader": "leave --loader out, or give one of those",
    "path_hangs": "look at the mount and its server (dmesg, `mount`, `nfsstat`), then measure again",
    "read_failed": "look at `dmesg` for errors of the device below this directory",
    "accelerator_failed": "look at `nvidia-smi` and at `dmesg` for errors of the card (Xid)",
    "accelerator_memory": "end what else uses the card (`nvidia-smi`), or choose a workload with smaller samples",
}
_MEMORY = {
    "registered": "page-aligned memory that was registered with CUDA took its place",
    "pageable": "plain memory took its place, from which the copy to the GPU is slower",
}
#: Points of a time line that a document keeps for one arm.
_MOST_POINTS = 150

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parsed:
    measurements: tuple[Measurement, ...]
    series: tuple[Series, ...]
    warnings: tuple[str, ...]


def answer(text: str, ready: type[R], wanted: type[T], **kinds: type[T]) -> tuple[R, list[T]]:
    """The child's ``ready`` record, and the ``wanted`` ones, which are of these ``kinds``.

    Raises Unsupported, Failed or TimedOut: what it said went wrong, or that it made no sense.
    """
    known: dict[str, type[object] | None] = {"ready": ready, **kinds, "error": LoadError, "end": End}
    said = jsonl.records(text, WHO, known)
    for record in said:
        if isinstance(record, LoadError):
            raise jsonl.refusal(record.word, record.text, _ERRORS, _REMEDIES)
    begun = [record for record in said if isinstance(record, ready)]
    if not begun or not any(isinstance(record, End) for record in said):
        raise Failed(Code.TOOL_OUTPUT, f"{WHO} ended before it had measured", "run it with --effort quick")
    return begun[0], [record for record in said if isinstance(record, wanted)]


def parse(text: str, path: str, label: str) -> Parsed:
    """Everything that one directory's arms say. ``label`` names an emulated accelerator (``resnet50-h100*8``)."""
    ready, arms = answer(text, Ready, Arm, arm=Arm)
    with jsonl.understood(WHO):
        rates = _PathRates(ready, arms, path, label)
        return Parsed(tuple(rates.measurements()), tuple(rates.series()), tuple(rates.warnings()))


class _PathRates:
    """The rates of one directory and what follows from them."""

    def __init__(self, ready: Ready, arms: Sequence[Arm], path: str, label: str) -> None:
        self.ready, self.arms = ready, arms
        self.labels = {"path": path}
        if ready.accelerator in ("cpu", "emulated"):
            self.labels["stand_in"] = ready.accelerator
        if label:
            self.labels["accelerator"] = label
        self.demand = ready.demand or math.inf
        turns: dict[str, list[Sequence[float]]] = {}
        rates: dict[str, Rate] = {}
        for name in (*ARMS, "yardstick"):
            turns[name] = [turn for turn in map(self._windows, self.of(name)) if turn]
            if turns[name] or name == "resident":
                rates[name] = self._rate(name, turns[name])
            self.demand = rates["resident"].value
        doubts = reasons(ready, arms, turns, self.demand)
        wide = {arm: why for arm, why in widened(turns, self.demand).items() if arm not in doubts}
        self.rates = Rates(self.labels, rates, doubts, wide)
        self.figure = self.rates.figure

    def of(self, name: str) -> list[Arm]:
        return [arm for arm in self.arms if arm.arm == name]

    def _windows(self, arm: Arm) -> Sequence[float]:
        """The rates of the thirds of the arm's steady window; of an accelerator left alone, of its short ones."""
        if arm.arm == "resident":
            return each_step(arm.curve, arm.grid_seconds, arm.warm_seconds)
        found = arm.steady(self.demand)
        return found.thirds if found else ()

    def _rate(self, name: str, turns: Sequence[Sequence[float]]) -> Rate:
        if name == "resident" and (exact := self.ready.demand):
            return Rate(exact, (exact, exact), (exact,))
        if not turns:
            raise ValueError(f"no {name} arm is long enough")
        return own(turns) if name == "resident" else pool(turns, self.demand)

    def spread(self, metric: str, values: Sequence[float], arms: Sequence[str], /, **labels: str) -> Measurement:
        """The mean of the turns' values, from the smallest to the largest."""
        ordered = sorted(values)
        return self.figure(metric, Rate(sum(ordered) / len(ordered), (ordered[0], ordered[-1])), arms, **labels)

    def measurements(self) -> Iterator[Measurement]:
        loader = {"loader": self.ready.loader, "workers": str(self.ready.loader_workers)} if self.ready.loader else {}
        yield from self.rates.measurements(loader)
        yield figure("feed_sample_bytes", self.ready.sample_bytes, self.labels)
        for part in (self._busy, self._interference, self._waits, self._cores, self._mlperf):
            yield from part()
        yield from self._ways_to_read()

    def _busy(self) -> Iterator[Measurement]:
        """The share of each arm's window in which the accelerator computed; steps at the window's edges are cut."""
        device = self.ready.name or self.ready.accelerator
        for name in ("transfer", "preprocess", "storage"):
            arms = self.of(name)
            shares = [min(1.0, arm.busy_ratio) for arm in arms if arm.busy_ratio is not None]
            if shares:
                error = max(arm.busy_error_ratio for arm in arms)
                interval = max(0.0, min(shares) - error), min(1.0, max(shares) + error)
                busy = Rate(sum(shares) / len(shares), interval)
                yield self.figure("accelerator_busy_ratio", busy, [name], stage=f"feed.{name}", device=device)

    def _interference(self) -> Iterator[Measurement]:
        """How much slower a sample is computed while it is also loaded: not idleness, and no storage mends it."""
        alone = [arm.sample_seconds for arm in self.of("resident") if arm.sample_seconds]
        loading = [arm.sample_seconds for arm in self.of("storage") if arm.sample_seconds]
        if alone and loading:
            mean = sum(alone) / len(alone)
            slower = [1.0 - mean / seconds for seconds in loading]
            yield self.spread("feed_interference_ratio", slower, ("resident", "storage"))

    def _waits(self) -> Iterator[Measurement]:
        """How long a step waited for its batch, over the storage arm's turns: the median of the turns' quantiles."""
        arms = [arm for arm in self.of("storage") if arm.waits]
        quantiles = {"p50": [arm.wait_p50_seconds for arm in arms], "p99": [arm.wait_p99_seconds for arm in arms]}
        for statistic, values in quantiles.items():
            if values:
                values.sort()
                wait = Rate(values[len(values) // 2], (values[0], values[-1]))
                yield self.figure("feed_wait_seconds", wait, ["storage"], stage="storage", statistic=statistic)

    def _cores(self) -> Iterator[Measurement]:
        """CPU cores that preparing samples would keep busy at the accelerator's full rate, by the CPU time it took."""
        arm = next((arm for arm in self.of("preprocess") if arm.read_bytes > 0), None)
        if self.ready.decode != "none" and arm:
            cores = self.demand * arm.reader_cpu_seconds * self.ready.sample_bytes / arm.read_bytes
            yield self.spread("feed_preprocess_cores", [cores], ("resident", "preprocess"))
            yield figure("feed_available_cores", float(self.ready.cores), self.labels)

    def _mlperf(self) -> Iterator[Measurement]:
        """MLPerf Storage's accelerator utilization: computing time over running time, the first batch left out."""
        arms = self.of("storage") if self.ready.accelerator == "emulated" else []
        if found := [value for arm in arms if (value := self._utilization(arm)) is not None]:
            yield self.spread("feed_mlperf_utilization_ratio", found, ["storage"])

    def _utilization(self, arm: Arm) -> float | None:
        last = len(arm.curve) - 1
        first = next((index for index, done in enumerate(arm.curve) if done >= self.ready.batch), last)
        return min(1.0, rate(arm.curve, arm.grid_seconds, first, last) / self.demand) if first < last else None

    def _ways_to_read(self) -> Iterator[Measurement]:
        """Reading alone, in the way of the fetch arm and in those that the search tried."""
        size, metric = self.ready.sample_bytes, "feed_fetch_bytes_per_second"
        way = (self.ready.workers, self.ready.block_bytes, not self.ready.direct)
        if usual := self.rates.rates.get("fetch"):
            low, high = usual.interval
            yield self.figure(metric, Rate(usual.value * size, (low * size, high * size)), ["fetch"], **_way(*way))
        seen = {way}
        for arm in self.of("mend"):
            way = (arm.workers, arm.block_bytes, arm.buffered)
            first, last = arm.warm_seconds / arm.grid_seconds, len(arm.curve) - 1
            if way not in seen and last - first >= 3:
                middle = (first + last) / 2
                halves = [rate(arm.curve, arm.grid_seconds, a, b) for a, b in ((first, middle), (middle, last))]
                yield self.spread(metric, [half * size for half in halves], ["mend"], **_way(*way))
            seen.add(way)

    def series(self) -> Iterator[Series]:
        """Consumption, device reads, utilization and I/O pressure of each turn of the storage arm."""
        size = self.ready.sample_bytes
        for arm in self.of("storage"):
            labels = {**self.labels, "stage": f"feed.storage.{arm.turn}"}
            step = arm.grid_seconds
            rates = [(number * step, rate) for number, rate in enumerate(each_step(arm.curve, step), 1)]
            yield _series("feed_consumed_bytes_per_second", labels, [(at, value * size) for at, value in rates], 0)
            yield _series("feed_utilization_ratio", labels, [(at, value / self.demand) for at, value in rates], 4)
            yield _series("feed_device_bytes_per_second", labels, arm.device_curve, 0)
            if arm.pressure_curve:
                yield _series("feed_pressure_ratio", labels, arm.pressure_curve, 3)

    def warnings(self) -> Iterator[str]:
        """Doubts that do not void the numbers: a wide interval, a burst before the sustained rate, the page cache."""
        yield from dict.fromkeys(self.rates.wide.values())
        path, megabytes = self.labels["path"], self.ready.sample_bytes / 1e6
        for arm in self.of("storage"):
            found = arm.steady(self.demand)
            if found and found.before:
                yield (
                    f"{Code.BURST}: {path} gave {found.before * megabytes:.0f} MB/s at first and "
                    f"{found.rate * megabytes:.0f} MB/s from then on; the sustained rate counts"
                )
        if self.ready.memory in ("registered", "pageable"):
            yield f"{path} was not read into memory that CUDA itself had pinned: {_MEMORY[self.ready.memory]}"
        if not self.ready.direct and not self.ready.bucket:
            yield f"{path} has no O_DIRECT: it was read through the page cache, emptied behind each read"


def _way(readers: int, block: int, buffered: bool) -> dict[str, str]:
    return {"readers": str(readers), "block_bytes": str(block), "cache": "through" if buffered else "past"}


def _series(metric: str, labels: dict[str, str], rows: Sequence[tuple[float, float]], digits: int) -> Series:
    kept = rows[:: max(1, -(-len(rows) // _MOST_POINTS))]
    values = tuple(round(value, digits) for _, value in kept)
    return Series(metric=metric, labels=labels, seconds=tuple(round(at, 2) for at, _ in kept), values=values)


# --- other patterns than the feed: what a model load, a key-value block, a checkpoint takes


def parse_pattern(text: str, path: str, label: str) -> Parsed:
    """The measurements of one pattern. Raises Unsupported, Failed or TimedOut like `parse`."""
    ready, moved = answer(text, PatternReady, Moved, load=ModelLoad, kv=KvRead, checkpoint=Checkpoint)
    labels = {"path": path}
    if ready.accelerator == "emulated":
        labels |= {"stand_in": "emulated", "accelerator": label}
    with jsonl.understood(WHO):
        return Parsed(tuple(_measurements(moved, labels)), (), ())


def _measurements(moved: Sequence[Moved], path: dict[str, str]) -> Iterator[Measurement]:
    for reader in ("yardstick", "safetensors"):
        if loads := [record for record in moved if isinstance(record, ModelLoad) and record.reader == reader]:
            yield _rate("feed_model_load_bytes_per_second", loads, {**path, "reader": reader, "to": loads[0].to})
    reads = [record for record in moved if isinstance(record, KvRead)]
    for model, state in dict.fromkeys((read.model, read.state) for read in reads):
        yield from _kv([read for read in reads if (read.model, read.state) == (model, state)], path)
    for direction in ("write", "restore"):
        if done := [record for record in moved if isinstance(record, Checkpoint) and record.direction == direction]:
            yield _rate("feed_checkpoint_bytes_per_second", done, {**path, "direction": direction})


def _kv(reads: Sequence[KvRead], path: dict[str, str]) -> Iterator[Measurement]:
    first = reads[0]
    labels = {**path, "model": first.model, "state": first.state, "block_bytes": str(first.block_bytes)}
    yield _rate("feed_kv_read_bytes_per_second", reads, labels)
    latencies = [seconds for read in reads for seconds in read.latencies]
    for statistic, q in (("p50", 0.50), ("p99", 0.99)):
        yield Measurement(
            metric="feed_kv_read_seconds", value=quantile(latencies, q), interval=quantile_interval(latencies, q),
            samples=len(latencies), labels={**labels, "statistic": statistic}, invalid=_cold(reads),
        )  # fmt: skip


def _cold(moved: Sequence[Moved]) -> str | None:
    for record in moved:
        if record.device_bytes is not None and record.device_bytes < COLD_RATIO * record.bytes:
            return f"{Code.NOT_COLD}: only {record.device_bytes / record.bytes:.0%} of the bytes came from the device"
    return None


def _rate(metric: str, moved: Sequence[Moved], labels: dict[str, str]) -> Measurement:
    return of_repeats(metric, [record.bytes / record.seconds for record in moved], labels, _cold(moved))
