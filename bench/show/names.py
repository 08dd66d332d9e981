"""What people call a gate, and how they read its figures. The screen and the page say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.model import Finding
from bench.show import wording
from bench.show.text import clean

#: What people call a gate: the metric, the labels that the name says already, the name. The first that fits counts.
_SEQUENTIAL = {"pattern": "sequential", "block_bytes": "1048576", "queue_depth": "deep"}
_NAMES: tuple[tuple[str, Mapping[str, str], str], ...] = (
    ("starvation_ratio", {"component": "storage"}, "waiting for storage"),
    ("starvation_ratio", {"component": "total"}, "waiting for data"),
    ("storage_headroom_ratio", {}, "accelerators fed"),
    ("data_decode_headroom_ratio", {}, "accelerators decoded for"),
    ("storage_read_bytes_per_second", _SEQUENTIAL, "storage read"),
    ("storage_write_bytes_per_second", _SEQUENTIAL, "storage write"),
    ("storage_read_latency_seconds", {"pattern": "random", "queue_depth": "1"}, "storage read latency"),
    ("network_round_trip_seconds", {}, "round trip"),
    ("network_throughput_bytes_per_second", {}, "TCP throughput"),
    ("fabric_active_rdma_ports", {}, "active RDMA ports"),
    ("rdma_write_bytes_per_second", {}, "RDMA write"),
    ("collective_bus_bytes_per_second", {}, "all-reduce"),
    ("collective_fast_transport_ratio", {"scope": "between"}, "all-reduce by RDMA"),
    ("inference_first_token_seconds", {}, "time to first token"),
    ("inference_inter_token_seconds", {}, "time between tokens"),
    ("inference_bandwidth_utilization_ratio", {"stage": "decode", "batch": "1"}, "memory speed for one user"),
    ("inference_bandwidth_utilization_ratio", {"stage": "decode"}, "memory speed in decode"),
    ("inference_flops_utilization_ratio", {"stage": "prefill"}, "arithmetic in prefill"),
    ("endpoint_success_ratio", {}, "requests answered"),
    ("accelerator_uncorrected_errors", {}, "uncorrected errors"),
    ("accelerator_mismatched_values", {}, "wrong matrix products"),
    ("accelerator_clock_sustained_ratio", {}, "clock kept under load"),
    ("accelerator_drain_reasons", {}, "reasons to drain"),
    ("accelerator_throttle_ratio", {}, "throttled"),
    ("response_over_budget_ratio", {"until": "first_token"}, "answers over 200 ms"),
    ("node_mismatches", {}, "parts not as expected"),
)
#: What is told in accelerators, and who provides for them.
HEADROOMS = {"storage_headroom_ratio": "storage feeds", "data_decode_headroom_ratio": "the cores decode for"}
#: A profile's column, where its name is too long for one.
_COLUMNS = {"distributed-training": "train", "batch-inference": "batch", "realtime-inference": "real-time"}
_LONGEST_COLUMN = 10


def gate_name(metric: str, labels: Mapping[str, str]) -> str:
    """What people call it: ``storage read latency p99``; for a metric without such a name its title and labels."""
    for named, said, name in _NAMES:
        if named == metric and said.items() <= labels.items():
            left = {key: value for key, value in labels.items() if key not in said}
            statistic = clean(left.pop("statistic", ""), 20)
            words = [wording.label_words(key, value) for key, value in left.items() if key != "stand_in"]
            whole = f"{name} {statistic}".rstrip()
            return f"{whole} ({', '.join(words)})" if words else whole
    return wording.series_name(metric, labels)


def figure(value: float, interval: tuple[float, float] | None, metric: str) -> tuple[str, str]:
    """``2.3`` and ``2.2 to 2.4``, empty where it is one point. Accelerators are counted; a share of mere noise is 0."""
    if metric in HEADROOMS:
        metric = "accelerators"
    if metric.endswith("_ratio") and -1e-3 < value < 1e-6 and (interval is None or interval[0] <= 0.0 <= interval[1]):
        value = 0.0
    shown, _, rest = wording.quantity(value, interval, metric).partition(" (")
    return shown, rest.removesuffix(")").replace("..", " to ")


def needed(finding: Finding) -> str:
    """``>= 8.88`` or ``<= 10 %``."""
    return wording.needed(finding.limit, "accelerators" if finding.metric in HEADROOMS else finding.metric)


def duration(seconds: float) -> str:
    """``40 s``, ``4 min 58 s``, ``2 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes / 60:.2g} h"


def columns(profiles: Sequence[str]) -> list[str]:
    """A short name for each profile, no two the same."""
    short = [_COLUMNS.get(name, clean(name, 200)[:_LONGEST_COLUMN]) for name in profiles]
    return [
        name if short.count(name) == 1 else f"{name[: _LONGEST_COLUMN - 2]} {at}" for at, name in enumerate(short, 1)
    ]
