"""What the feed's arms say beside the rates: busy shares, waits, interference, what would mend it, time lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from bench.model import Measurement, Series
from probes.feed.rates import rate

if TYPE_CHECKING:
    from probes.feed.parse import Feed

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
                f"burst: {feed.labels['path']} gave {found.before * megabytes:.0f} MB/s at first and "
                f"{found.rate * megabytes:.0f} MB/s from then on; the sustained rate counts"
            )
    if not feed.ready["direct"] and not feed.ready["bucket"]:
        yield f"{feed.labels['path']} has no O_DIRECT: it was read through the page cache, emptied behind each read"
