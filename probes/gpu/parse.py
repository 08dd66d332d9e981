"""The GPU watcher's samples to measurements of each stage: every unit conversion is made before or here. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.judge import statistics
from bench.model import Measurement
from probes.common.nvml import THROTTLE_FIELDS
from probes.common.windows import Sample, Stage, finite
from probes.gpu.drivers import VIOLATIONS

Labels = Mapping[str, str]


def card_of(index: str) -> Callable[[Sample], Mapping[str, Any]]:
    """A reader of one card's part of a sample; empty where the sample has none."""
    return lambda sample: sample.get("cards", {}).get(index, {})


def reader(index: str, key: str) -> Callable[[Sample], Any]:
    """A reader of one of a card's readings; None where the sample has none."""
    card = card_of(index)
    return lambda sample: card(sample).get(key)


def stage_figures(stage: Stage, index: str, source: str) -> Iterator[Measurement]:
    """Everything that is known of one card in one stage; what could not be read is simply not there.

    ``source`` is the interface that was read, nvml or amdsmi.
    """
    labels = {"device": index, "stage": stage.name}
    yield from _utilization(stage, index, {**labels, "source": source})
    yield from _gpm(stage, index, labels)
    yield from _levels(stage, index, labels)
    yield from _power(stage, index, labels)
    yield from _traffic(stage, index, {**labels, "source": "nvml"})
    yield from _clock_limits(stage, index, labels)


def figure(
    metric: str, value: float, labels: Labels, interval: tuple[float, float] | None = None, n: int = 1,
    invalid: str | None = None,
) -> Measurement:  # fmt: skip
    """A measurement whose interval is the range that was seen, or the value alone for a counter's difference."""
    low, high = interval or (value, value)
    return Measurement(
        metric=metric, value=value, interval=(min(low, value), max(high, value)), samples=max(1, n),
        labels=dict(labels), invalid=invalid,
    )  # fmt: skip


def _mean(metric: str, values: Sequence[float], labels: Labels) -> Measurement:
    """The mean of polled readings, with their range."""
    return figure(metric, sum(values) / len(values), labels, (min(values), max(values)), len(values))


def _utilization(stage: Stage, index: str, labels: Labels) -> Iterator[Measurement]:
    """The driver's "a kernel was running": from the driver's own buffer where it has one, else from polling it."""
    buffers = [b for w in stage.windows for s in w.samples[1:] if (b := card_of(index)(s).get("buffer"))]
    counts = [finite(b[0]) or 0.0 for b in buffers]
    polled = stage.values(reader(index, "utilization"))
    if sum(counts) > 0:
        value = sum(n * (finite(b[1]) or 0.0) for n, b in zip(counts, buffers, strict=True)) / sum(counts)
        yield figure("accelerator_utilization_ratio", value, {**labels, "method": "buffer"}, n=int(sum(counts)))
    elif polled:
        yield _mean("accelerator_utilization_ratio", polled, {**labels, "method": "polled"})


_GPM = {
    "sm": "accelerator_utilization_ratio",
    "tensor": "accelerator_tensor_utilization_ratio",
    "dram": "accelerator_memory_bandwidth_utilization_ratio",
    "occupancy": "accelerator_occupancy_ratio",
    "pcie_send": "accelerator_pcie_send_bytes_per_second",
    "pcie_receive": "accelerator_pcie_receive_bytes_per_second",
    "nvlink_send": "accelerator_nvlink_send_bytes_per_second",
    "nvlink_receive": "accelerator_nvlink_receive_bytes_per_second",
}


def _gpm(stage: Stage, index: str, labels: Labels) -> Iterator[Measurement]:
    """The means of the windows, weighted by their length. Ratios over one, as MIG shows them, are cut to one."""
    for name, metric in _GPM.items():
        pairs = [
            (value, window.seconds)
            for window in stage.windows
            if (value := finite((card_of(index)(window.end).get("gpm") or {}).get(name))) is not None
        ]
        seconds = sum(s for _, s in pairs)
        if seconds <= 0:
            continue
        mean = sum(value * s for value, s in pairs) / seconds
        if metric.endswith("_ratio"):
            mean = min(1.0, max(0.0, mean))
        yield figure(metric, mean, {**labels, "source": "gpm"}, n=len(pairs))


def _levels(stage: Stage, index: str, labels: Labels) -> Iterator[Measurement]:
    used = stage.values(reader(index, "memory_used"))
    if used:
        yield figure("accelerator_memory_used_bytes", max(used), {**labels, "statistic": "max"}, n=len(used))
    for place, key in (("gpu", "temperature"), ("memory", "memory_temperature")):
        hot, named = stage.values(reader(index, key)), {**labels, "place": place, "statistic": "max"}
        if hot:
            yield figure("accelerator_temperature_celsius", max(hot), named, n=len(hot))
    for clock in ("sm", "memory"):
        hertz, named = stage.values(reader(index, f"{clock}_clock")), {**labels, "clock": clock}
        if hertz:
            yield _mean("accelerator_clock_hertz", hertz, {**named, "statistic": "mean"})
            yield figure("accelerator_clock_hertz", min(hertz), {**named, "statistic": "min"}, n=len(hertz))


def _power(stage: Stage, index: str, labels: Labels) -> Iterator[Measurement]:
    """Mean watts: from the energy counter where the card has one, else from polling the sensor."""
    energy, watts = stage.growth(reader(index, "energy")), stage.values(reader(index, "power"))
    if energy is not None:
        yield figure("accelerator_energy_joules", energy[0], labels)
        yield figure("accelerator_power_watts", energy[0] / energy[1], {**labels, "method": "energy"})
    elif watts:
        yield _mean("accelerator_power_watts", watts, {**labels, "method": "polled"})


def _traffic(stage: Stage, index: str, labels: Labels) -> Iterator[Measurement]:
    """Bytes over PCIe as the card counts them, where GPM does not say so already."""
    for key in ("pcie_send", "pcie_receive"):
        moved = stage.growth(reader(index, key))
        if moved is not None:
            yield figure(f"accelerator_{key}_bytes_per_second", moved[0] / moved[1], labels)


def telemetry_cost(samples: Sequence[Sample]) -> Iterator[Measurement]:
    """What reading all of this took: seconds a sample."""
    costs = sorted(c for s in samples if (c := finite(s.get("cost"))) is not None)
    if costs:
        middle = costs[len(costs) // 2]
        yield figure("accelerator_telemetry_seconds", middle, {"statistic": "p50"}, (costs[0], costs[-1]), len(costs))
        yield figure("accelerator_telemetry_seconds", costs[-1], {"statistic": "max"}, n=len(costs))


# --- what held the clocks down

#: nvml.h, nvmlClocksEventReason*, from the lowest bit on.
REASONS = (
    "gpu_idle", "applications_clocks", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal_slowdown",
    "hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clock", "board_limit", "reliability",
)  # fmt: skip
FAULTS = (
    "hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown",
    "memory_thermal_slowdown", "voltage_regulator_thermal_slowdown",
)  # fmt: skip
_NO_LIMIT = {"gpu_idle", "display_clock"}


def reasons(bits: int) -> list[str]:
    """The reasons in a bit mask; those without a name are told by their bit."""
    named = dict(enumerate(REASONS))
    return [named.get(place, f"unknown_{1 << place:#x}") for place in range(bits.bit_length()) if bits >> place & 1]


def _clock_limits(stage: Stage, index: str, labels: Labels) -> Iterator[Measurement]:
    """By reason, the share of the stage: from cumulative counters where there are any, else from the bits polled."""
    counted = set()
    for reason in dict.fromkeys([*THROTTLE_FIELDS, *VIOLATIONS]):
        held = stage.growth(reader(index, reason))
        if held is not None:
            counted.add(reason)
            ratio = min(1.0, held[0] / 1e9 / held[1])
            yield figure(_metric(reason), ratio, {**labels, "method": "counter", "reason": reason})
    yield from _polled_limits(stage, index, labels, counted)


def _polled_limits(stage: Stage, index: str, labels: Labels, counted: set[str]) -> Iterator[Measurement]:
    """Bits seen at the samples; a share of few samples is known badly, and its interval says so.

    One sample in a stage is left undecided by any limit of some percent, as it should be: a card may show the bit for
    a moment while it changes its power state. Where the counters cover heat and power brake, the bit for any hardware
    slowdown is only told when it was seen.
    """
    seen = [reasons(int(bits)) for bits in stage.values(reader(index, "reasons"))]
    if not seen:
        return
    wanted = {reason for present in seen for reason in present} | (set() if counted & set(FAULTS) else set(FAULTS))
    for reason in sorted(wanted - counted - _NO_LIMIT):
        times = sum(reason in present for present in seen)
        interval, named = statistics.binomial_interval(times, len(seen)), {**labels, "method": "polled"}
        yield figure(_metric(reason), times / len(seen), {**named, "reason": reason}, interval, len(seen))


def _metric(reason: str) -> str:
    return "accelerator_throttle_ratio" if reason in FAULTS else "accelerator_clock_limit_ratio"
