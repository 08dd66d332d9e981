"""The one that is slower than its siblings, and which part of it is.

A figure is an outlier when it is worse than what its siblings make one expect, by three rules at once: it deviates by
more than a share (3.5 % warns, 7 % acts: the thresholds of Azure's node health work, SuperBench, USENIX ATC 2024), its
modified z is beyond 3.5 (Iglewicz & Hoaglin, *How to Detect and Handle Outliers*, 1993: 0.6745 (x - median) / MAD),
and its own 95 % interval does not reach back into what is normal. The MAD of few values is too small on average and is
corrected by Croux & Rousseeuw's factors ("Time-efficient algorithms for two highly robust estimators of scale",
COMPSTAT 1992). Pure: numbers in, outliers out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from bench.judge.fleet.model import Level, Outlier, Shift
from bench.judge.statistics import median, median_interval
from bench.model import Measurement, Metric, unit_of

WARN_RATIO, ACT_RATIO = 0.035, 0.07
Z_LIMIT = 3.5
#: Two against one is the smallest fleet in which somebody can be said to deviate.
FEWEST_SIBLINGS = 3
_MAD_TO_SIGMA = 1.4826
#: Croux & Rousseeuw 1992, for n = 2..9; from 10 on n / (n - 0.8).
_SMALL = (0.0, 0.0, 1.196, 1.495, 1.363, 1.206, 1.200, 1.140, 1.129, 1.107)
_LARGEST_Z = 1e6
#: Tails are judged by the profiles; between siblings they say nothing at a handful of runs.
_TAILS = frozenset({"p90", "p95", "p99", "p99.9", "p99.99", "max"})
_OWN = ("peer", "device")  # a sibling has other peers, and its GPUs are siblings too


class Sample(NamedTuple):
    """One sibling's figure with its 95 % interval; ``part`` says which of the host's like parts (``GPU 3``)."""

    host: str
    value: float
    low: float
    high: float
    part: str = ""


class Key(NamedTuple):
    """What makes figures comparable: the node class, the metric and its labels."""

    node_class: str
    metric: str
    labels: tuple[tuple[str, str], ...]


_unit = lru_cache(maxsize=1000)(unit_of)  # asked a million times for a large fleet

Table = dict[Key, list[Sample]]
Keys = dict[Key, Key]
Figure = tuple[Key, Sample]


def scale(values: Sequence[float]) -> float:
    """The standard deviation of the undisturbed, by the median absolute deviation; 0 when most are equal."""
    n, middle = len(values), median(values)
    factor = _SMALL[n] if n < len(_SMALL) else n / (n - 0.8)
    return factor * _MAD_TO_SIGMA * median([abs(value - middle) for value in values])


def z_of(by: float, sigma: float) -> float:
    """The modified z of a deviation, finite."""
    if by == 0.0:
        return 0.0
    return by / sigma if sigma > abs(by) / _LARGEST_Z else _LARGEST_Z


def level_of(
    sample: Sample, expected: float, ratio: float, z: float, better: str, of_one: bool = False
) -> Level | None:
    """``act``, ``warn`` or nothing, by the three rules of this module."""
    near = sample.high if better == "higher" else sample.low
    base = 1.0 if of_one else expected
    surely = abs(near - expected) / base if (near < expected) == (better == "higher") else 0.0
    if z <= Z_LIMIT:
        return None
    if ratio >= ACT_RATIO and surely >= WARN_RATIO:
        return "act"
    return "warn" if ratio >= WARN_RATIO and surely > 0.0 else None


def outliers(table: Table, metrics: Mapping[str, Metric]) -> list[Outlier]:
    """All outliers, the worst first. ``metrics`` are those declared; others are not compared."""
    directed = ((key, samples, _better(key, metrics)) for key, samples in table.items())
    found = (one for key, samples, better in directed if better != "none" for one in deviating(key, samples, better))
    return sorted(found, key=lambda outlier: (outlier.level, -outlier.deviation_ratio))


def _better(key: Key, metrics: Mapping[str, Metric]) -> Literal["higher", "lower", "none"]:
    return metrics[key.metric].better if key.metric in metrics else "none"


def deviating(key: Key, samples: Sequence[Sample], better: Literal["higher", "lower"]) -> Iterator[Outlier]:
    """The outliers among the siblings of one key; none when it cannot be said.

    Of shares the difference itself counts: a starvation of 3 % is not three times worse than one of 1 %. The scale is
    never taken below what the siblings' own intervals say of a single figure, on the side on which the figure lies.
    """
    values, of_one = [sample.value for sample in samples], _unit(key.metric) == "ratio"
    if len(values) < FEWEST_SIBLINGS:
        return
    expected = median(values)
    base = 1.0 if of_one else expected
    if base <= 0.0:
        return
    arms = [s.value - s.low if better == "higher" else s.high - s.value for s in samples]
    sigma = max(scale(values), median(arms) / 1.96)
    for sample in samples:
        worse = expected - sample.value if better == "higher" else sample.value - expected
        ratio, z = worse / base, z_of(worse, sigma)
        if level := level_of(sample, expected, ratio, z, better, of_one):
            yield Outlier(
                host=sample.host, part=sample.part or part_of(key.metric, dict(key.labels)), metric=key.metric,
                labels=dict(key.labels), observed=sample.value, expected=expected, deviation_ratio=ratio,
                modified_z=z, siblings=len(samples), level=level,
            )  # fmt: skip


def comparable(measurement: Measurement) -> bool:
    """Valid, with a base unit (counts have no share to deviate by), and no tail."""
    if measurement.invalid is not None or not _unit(measurement.metric):
        return False
    return measurement.labels.get("statistic") not in _TAILS


def figures(
    host: str, node_class: str, measurements: Iterable[Measurement], keys: Keys, metrics: Mapping[str, Metric]
) -> list[Figure]:
    """One host's figures. Those that differ only in the peer, or in what was found (``limited_by``), are one: their
    median. ``keys`` holds each key once.
    """
    groups: dict[tuple[Key, str], list[Measurement]] = defaultdict(list)
    for m in measurements:
        if comparable(m):
            metric = metrics.get(m.metric)
            identity = metric.identity(m.labels) if metric else m.labels
            labels = tuple(sorted((k, v) for k, v in identity.items() if k not in _OWN))
            part = f"GPU {m.labels['device']}" if "device" in m.labels else ""
            key = Key(node_class, m.metric, labels)
            groups[keys.setdefault(key, key), part].append(m)
    return [(key, _pooled(host, part, same)) for (key, part), same in groups.items()]


def _pooled(host: str, part: str, same: Sequence[Measurement]) -> Sample:
    if len(same) == 1:
        return Sample(host, same[0].value, *same[0].interval, part)
    value, low, high = map(median, zip(*((m.value, *m.interval) for m in same), strict=True))
    return Sample(host, value, low, high, part)


def part_of(metric: str, labels: Mapping[str, str]) -> str:
    """What of the node a metric speaks of, in the words of the person who goes there."""
    if metric.startswith(("storage_", "starvation_")):
        return f"disk {labels['path']}" if "path" in labels else "disk"
    if metric.startswith("network_"):
        return "port"
    if metric.startswith("accelerator_") or labels.get("stage") in ("resident", "transfer"):
        return f"GPU {labels['device']}" if "device" in labels else "GPU"
    if "resource" in labels:
        return {"cpu": "CPU", "io": "disk", "memory": "memory"}.get(labels["resource"], "node")
    if metric.startswith("host_memory_"):
        return "memory"
    if metric.startswith("host_cpu_") or labels.get("stage") == "preprocess":
        return "CPU"
    return "disk" if labels.get("stage") in ("fetch", "storage") else "node"


# --- the whole fleet


def shifts(now: Table, before: Table, metrics: Mapping[str, Metric], again: Table | None = None) -> list[Shift]:
    """What moved on all siblings together since an earlier measurement of the same hosts: the fleet's doing, or that of
    what it shares, and no single node's. One node's own drop does not move the median of many.

    Named from 3.5 % on when the 95 % interval of the hosts' median ratio does not hold 1 (`median_interval`); it acts,
    like one node's deviation, from 7 % towards worse on with an interval beyond 3.5 %. ``shift_ratio`` is towards
    worse; shares move by points. ``again``: a second, separate measurement of the hosts; what acts there too is
    confirmed.
    """
    found = []
    for key, samples in now.items():
        shift = _shift(key, samples, before.get(key, ()), metrics)
        if shift is not None and shift.level == "act" and again is not None:
            second = _shift(key, again.get(key, ()), before.get(key, ()), metrics)
            shift = shift.model_copy(update={"confirmed": second is not None and second.level == "act"})
        found.append(shift)
    return sorted(filter(None, found), key=lambda shift: -shift.shift_ratio)


def _shift(key: Key, now: Sequence[Sample], before: Sequence[Sample], metrics: Mapping[str, Metric]) -> Shift | None:
    """How far the siblings of one key moved; None when they did not, or when it cannot be said."""
    better = _better(key, metrics)
    of_one = _unit(key.metric) == "ratio"
    earlier = {(sample.host, sample.part): sample.value for sample in before}
    both = [(s.value, earlier[s.host, s.part]) for s in now if (s.host, s.part) in earlier]
    both = [(value, old) for value, old in both if of_one or old > 0.0]
    if better == "none" or len(both) < FEWEST_SIBLINGS:
        return None
    sign = -1.0 if better == "higher" else 1.0
    middle, (low, high) = median_interval([sign * (value - old) / (1.0 if of_one else old) for value, old in both])
    if abs(middle) < WARN_RATIO or low <= 0.0 <= high:
        return None
    acts = middle >= ACT_RATIO and low >= WARN_RATIO
    return Shift(
        node_class=key.node_class, metric=key.metric, labels=dict(key.labels), shift_ratio=middle, nodes=len(both),
        level="act" if acts else "warn",
    )  # fmt: skip
