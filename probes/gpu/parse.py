"""One card's samples to measurements of each stage: every unit conversion is made before or here. Pure.

A card's sample is the watcher's with the card's own readings beside the node's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from bench.judge import statistics
from bench.model import Measurement
from probes.common.metrics import Labels, figure, of_counts
from probes.common.nvml import THROTTLE_FIELDS
from probes.common.windows import Sample, Stage, finite, read, seconds
from probes.gpu.drivers import VIOLATIONS


def card_samples(samples: Sequence[Sample], index: str) -> list[Sample]:
    """The samples of one card at the moments it was read, without its readings where the watcher had none of it."""
    own = [{**sample, **sample.get("cards", {}).get(index, {})} for sample in samples]
    return [{**sample, "t": sample["t"] + sample["late"]} if "late" in sample else sample for sample in own]


def stage_figures(stage: Stage, index: str, source: str) -> Iterator[Measurement]:
    """Everything that was read of one card in one stage, over ``source`` (nvml or amdsmi)."""
    labels = {"device": index, "stage": stage.name}
    yield from _utilization(stage, {**labels, "source": source})
    yield from chain(_gpm(stage, {**labels, "source": "gpm"}), _levels(stage, labels), _power(stage, labels))
    for key in ("pcie_send", "pcie_receive"):  # the card's own count wraps several times a second on a fast link
        if not _gpm_means(stage, key) and (moved := stage.growth(key)):
            yield figure(f"accelerator_{key}_bytes_per_second", moved[0] / moved[1], {**labels, "source": "nvml"})
    yield from _clock_limits(stage, labels)
    if pace := sustained(stage):
        yield figure(SUSTAINED, min(1.0, pace.ratio), labels, n=pace.samples)


def _mean(metric: str, values: Sequence[float], labels: Labels) -> Measurement:
    return figure(metric, sum(values) / len(values), labels, (min(values), max(values)), len(values))


def _utilization(stage: Stage, labels: Labels) -> Iterator[Measurement]:
    """The driver's "a kernel was running": from the driver's own buffer where it has one, else from polling it."""
    buffers = [b for window in stage.windows for sample in window[1:] if (b := sample.get("buffer"))]
    counts = [finite(b[0]) or 0.0 for b in buffers]
    if sum(counts) > 0:
        value = sum(n * (finite(b[1]) or 0.0) for n, b in zip(counts, buffers, strict=True)) / sum(counts)
        yield figure("accelerator_utilization_ratio", value, {**labels, "method": "buffer"}, n=int(sum(counts)))
    elif polled := stage.values("utilization"):
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


def _gpm(stage: Stage, labels: Labels) -> Iterator[Measurement]:
    """The means of the windows, weighted by their length. Ratios over one, as MIG shows them, are cut to one."""
    for name, metric in _GPM.items():
        pairs = _gpm_means(stage, name)
        if (lasted := sum(s for _, s in pairs)) > 0:
            mean = sum(value * s for value, s in pairs) / lasted
            yield figure(metric, min(1.0, max(0.0, mean)) if metric.endswith("_ratio") else mean, labels, n=len(pairs))


def _gpm_means(stage: Stage, name: str) -> list[tuple[float, float]]:
    """Of each window that has one, the mean and the seconds."""
    means = [finite((window[-1].get("gpm") or {}).get(name)) for window in stage.windows]
    return [(mean, seconds(w)) for mean, w in zip(means, stage.windows, strict=True) if mean is not None]


def _levels(stage: Stage, labels: Labels) -> Iterator[Measurement]:
    highest = {**labels, "statistic": "max"}
    if used := stage.values("memory_used"):
        yield figure("accelerator_memory_used_bytes", max(used), highest, n=len(used))
    for place, key in (("gpu", "temperature"), ("memory", "memory_temperature")):
        if hot := stage.values(key):
            yield figure("accelerator_temperature_celsius", max(hot), {**highest, "place": place}, n=len(hot))
    for clock in ("sm", "memory"):
        named = {**labels, "clock": clock}
        if hertz := stage.values(f"{clock}_clock"):
            yield _mean("accelerator_clock_hertz", hertz, {**named, "statistic": "mean"})
            yield figure("accelerator_clock_hertz", min(hertz), {**named, "statistic": "min"}, n=len(hertz))


def _power(stage: Stage, labels: Labels) -> Iterator[Measurement]:
    """Mean watts: from the energy counter where the card has one, else from polling the sensor."""
    if energy := stage.growth("energy"):
        yield figure("accelerator_energy_joules", energy[0], labels)
        yield figure("accelerator_power_watts", energy[0] / energy[1], {**labels, "method": "energy"})
    elif watts := stage.values("power"):
        yield _mean("accelerator_power_watts", watts, {**labels, "method": "polled"})


def telemetry_cost(samples: Sequence[Sample]) -> Iterator[Measurement]:
    """What reading all of this took: seconds a sample."""
    if costs := sorted(cost for s in samples if (cost := read(s, "cost")) is not None):
        middle = costs[len(costs) // 2]
        yield figure("accelerator_telemetry_seconds", middle, {"statistic": "p50"}, (costs[0], costs[-1]), len(costs))
        yield figure("accelerator_telemetry_seconds", costs[-1], {"statistic": "max"}, n=len(costs))


# --- does it keep its clock?

SUSTAINED = "accelerator_clock_sustained_ratio"
_SOAK = "inference.check"  # the one stage that asks the same of a card from its begin to its end
_LOADED = 0.9  # of a sample's time a kernel ran: the other cards of a node stand by meanwhile
_SAGS = 0.9  # of its clock, or less: as the gates of the shipped profiles ask


@dataclass(frozen=True, slots=True)
class Pace:
    """The clock (hertz) and the heat (Celsius, where it is read) early and late in a soak."""

    samples: int
    clocks: tuple[float, float]
    heat: tuple[float, float] | None

    @property
    def ratio(self) -> float:
        early, late = self.clocks
        return late / early


def sustained(stage: Stage) -> Pace | None:
    """Of the soak in which the card lost most of its clock; None where two samples of it under load are not to be had.

    The samples within count alone: those at its ends see the card before its load and after it.
    """
    paces = []
    for window in stage.windows if stage.name == _SOAK else ():
        loaded = [s for s in window if s.get("event") == "tick" and (read(s, "utilization") or 0.0) >= _LOADED]
        clocks, heat = (_ends([v for s in loaded if (v := read(s, key))]) for key in ("sm_clock", "temperature"))
        if clocks is not None:
            paces.append(Pace(len(loaded), clocks, heat))
    return min(paces, key=lambda pace: pace.ratio, default=None)


def sagging(stage: Stage, index: str) -> Iterator[str]:
    """A sentence for a card that did not keep its clock through the soak, with what held it down."""
    if (pace := sustained(stage)) is None or pace.ratio >= _SAGS:
        return
    held = {reason for bits in stage.values("reasons") for reason in reasons(int(bits))} - _NO_LIMIT
    early, late = (f"{clock / 1e6:.0f} MHz" for clock in pace.clocks)
    heat = f" ({pace.heat[0]:.0f} C) to {late} ({pace.heat[1]:.0f} C)" if pace.heat else f" to {late}"
    why = ", ".join(sorted(held)) or "nothing that the driver names"
    yield f"GPU {index}: its clock fell from {early}{heat} under one load; held down by {why}"


def _ends(values: Sequence[float]) -> tuple[float, float] | None:
    """Medians of the earlier and of the later half."""
    half = len(values) // 2
    return (statistics.median(values[:half]), statistics.median(values[-half:])) if half else None


# --- what held the clocks down

#: nvml.h, nvmlClocksEventReason*, from the lowest bit on.
REASONS = (
    "gpu_idle", "applications_clocks", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal_slowdown",
    "hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clock", "board_limit", "reliability",
)  # fmt: skip
FAULTS = {
    "hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown",
    "memory_thermal_slowdown", "voltage_regulator_thermal_slowdown",
}  # fmt: skip
_NO_LIMIT = {"gpu_idle", "display_clock"}


def reasons(bits: int) -> list[str]:
    """The reasons in a bit mask; those without a name are told by their bit."""
    named = dict(enumerate(REASONS))
    return [named.get(place, f"unknown_{1 << place:#x}") for place in range(bits.bit_length()) if bits >> place & 1]


#: A blip of some milliseconds at a change of power state is no share of a shorter stage: it counts over so long.
_LEAST_SECONDS = 5.0


def _clock_limits(stage: Stage, labels: Labels) -> Iterator[Measurement]:
    """By reason, the share of the stage: from cumulative counters where there are any, else from the bits polled.

    A share of few polled bits is known badly, and its interval says so; what is polled often is told of the whole run
    (`polled_faults`). Where the counters cover heat and power brake, the bit for any hardware slowdown is only told
    when it was seen.
    """
    counted = set()
    for reason in dict.fromkeys([*THROTTLE_FIELDS, *VIOLATIONS]):
        if held := stage.growth(reason):
            counted.add(reason)
            named = {**labels, "method": "counter", "reason": reason}
            lasted = max(held[1], _LEAST_SECONDS if reason in FAULTS else 0.0)
            yield figure(_metric(reason), min(1.0, held[0] / 1e9 / lasted), named)
    seen = [reasons(int(bits)) for bits in stage.values("reasons")]
    wanted = {reason for present in seen for reason in present} | (set() if counted & FAULTS else FAULTS)
    wanted -= FAULTS if any("polls" in sample for window in stage.windows for sample in window) else set()
    for reason in sorted(wanted - counted - _NO_LIMIT) if seen else ():
        times, named = sum(reason in present for present in seen), {**labels, "method": "polled", "reason": reason}
        interval = statistics.binomial_interval(times, len(seen))
        yield figure(_metric(reason), times / len(seen), named, interval, len(seen))


def polled_faults(found: Sequence[Stage], index: str) -> Iterator[Measurement]:
    """Where a driver counts no time: by reason, the share of the polls of all probes that made the card work.

    A stage alone is too short for a share of 1 %: none of 369 polls says so with 95 %.
    """
    probes = [stage for stage in found if "." not in stage.name]
    working = [stage for stage in probes if max(stage.values("utilization"), default=1.0) > 0.0]
    polls = _polls(working or probes)
    if n := sum(polls.values()):
        seen = {bits: set(reasons(bits)) for bits in polls}
        for reason in sorted(FAULTS):
            times = sum(often for bits, often in polls.items() if reason in seen[bits])
            labels = {"device": index, "stage": "loaded", "method": "polled", "reason": reason}
            yield of_counts(_metric(reason), times, n, labels)


def _polls(found: Sequence[Stage]) -> Counter[int]:
    """How often each combination of bits was seen within the stages; a sample has those since the one before."""
    polls: Counter[int] = Counter()
    for window in (window for stage in found for window in stage.windows):
        for sample in window[1:]:
            for bits, times in sample.get("polls", {}).items():
                polls[int(bits)] += times
    return polls


def _metric(reason: str) -> str:
    return "accelerator_throttle_ratio" if reason in FAULTS else "accelerator_clock_limit_ratio"
