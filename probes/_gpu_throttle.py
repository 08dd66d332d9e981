"""Why the clocks were held down, and for how long. Pure.

Slowdowns by heat or by the power supply are faults and are `accelerator_throttle_ratio`. Reaching the power limit is
what a dense load does on a sound card (Azure NHC leaves it out as well), and clocks that somebody set are a setting:
both are `accelerator_clock_limit_ratio`, which no gate needs to look at. Bits without a name here are shown as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.judge import statistics
from bench.model import Measurement
from probes.common.nvml_card import THROTTLE_FIELDS
from probes.common.windows import Stage
from probes.gpu.amd import VIOLATIONS

#: nvml.h, nvmlClocksEventReason*.
BITS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock",
    0x200: "board_limit",
    0x400: "reliability",
}
FAULTS = (
    "hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown",
    "memory_thermal_slowdown", "voltage_regulator_thermal_slowdown",
)  # fmt: skip
_NO_LIMIT = ("gpu_idle", "display_clock")


def names(bits: int) -> list[str]:
    """The reasons in a bit mask; those without a name are told by their bit."""
    return [BITS.get(1 << place, f"unknown_{1 << place:#x}") for place in range(bits.bit_length()) if bits >> place & 1]


def figures(stage: Stage, index: str, labels: Mapping[str, str]) -> Iterator[Measurement]:
    """By reason, the share of the stage: from cumulative counters where there are any, else from the bits polled."""
    counted = set()
    for reason in dict.fromkeys([*THROTTLE_FIELDS, *VIOLATIONS]):
        held = stage.growth(lambda s, r=reason: s.get("cards", {}).get(index, {}).get(r))  # type: ignore[misc]
        if held is not None:
            counted.add(reason)
            ratio = min(1.0, held[0] / 1e9 / held[1])
            yield _figure(reason, ratio, (ratio, ratio), 1, {**labels, "method": "counter"})
    yield from _polled(stage, index, labels, counted)


def _polled(stage: Stage, index: str, labels: Mapping[str, str], counted: set[str]) -> Iterator[Measurement]:
    """Bits seen at the samples; a share of few samples is known badly, and its interval says so.

    One sample in a stage is left undecided by any limit of some percent, as it should be: a card may show the bit for
    a moment while it changes its power state. Where the counters cover heat and power brake, the bit for any hardware
    slowdown is only told when it was seen.
    """
    seen = [names(int(bits)) for bits in stage.values(lambda s: s.get("cards", {}).get(index, {}).get("reasons"))]
    if not seen:
        return
    present = {reason for reasons in seen for reason in reasons}
    wanted = present | (set(FAULTS) if not counted & set(FAULTS) else set())
    for reason in sorted(wanted - counted - set(_NO_LIMIT)):
        times = sum(reason in reasons for reasons in seen)
        interval = statistics.binomial_interval(times, len(seen))
        yield _figure(reason, times / len(seen), interval, len(seen), {**labels, "method": "polled"})


def _figure(reason: str, ratio: float, interval: tuple[float, float], n: int, labels: Mapping[str, str]) -> Measurement:
    metric = "accelerator_throttle_ratio" if reason in FAULTS else "accelerator_clock_limit_ratio"
    return Measurement(metric=metric, value=ratio, interval=interval, samples=n, labels={**labels, "reason": reason})
