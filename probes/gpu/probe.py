"""The GPU watcher: what the silicon did in each stage, and whether the card is healthy.

NVML's utilization says only that some kernel ran; one thread on one multiprocessor shows 100 %. So the hardware's own
counters (GPM) stand beside it where the card has them, with power, clocks, the reasons that held the clocks down, the
link as it was under load, and the error counters before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.measure.probe import Check, Context, Failed, Probe, Tools, Unsupported
from bench.model import Code, Effort, Measurement, Metric, Request, Series
from probes.common import nvml as _nvml
from probes.common.windows import Sample, finite, stages
from probes.gpu import health
from probes.gpu.parse import reader, stage_figures, telemetry_cost
from probes.gpu.sampler import GpuWatch

_D, _DS = ("device",), ("device", "stage")
_RATE = ("device", "stage", "source")
METRICS = (
    Metric(
        name="accelerator_utilization_ratio", labels=(*_RATE, "method"),
        help="nvml: share of time in which any kernel ran, which is not how busy it was. gpm: share of SM cycles.",
    ),
    Metric(name="accelerator_tensor_utilization_ratio", help="Share of cycles of the tensor pipes.", labels=_RATE),
    Metric(
        name="accelerator_memory_bandwidth_utilization_ratio", help="Share of the memory's cycles in use.", labels=_RATE
    ),
    Metric(name="accelerator_occupancy_ratio", help="Share of the multiprocessors' warp slots in use.", labels=_RATE),
    Metric(name="accelerator_pcie_send_bytes_per_second", help="Bytes sent over PCIe.", labels=_RATE),
    Metric(name="accelerator_pcie_receive_bytes_per_second", help="Bytes received over PCIe.", labels=_RATE),
    Metric(name="accelerator_nvlink_send_bytes_per_second", help="Bytes sent over NVLink.", labels=_RATE),
    Metric(name="accelerator_nvlink_receive_bytes_per_second", help="Bytes received over NVLink.", labels=_RATE),
    Metric(name="accelerator_memory_used_bytes", help="Most memory in use on the card.", labels=(*_DS, "statistic")),
    Metric(
        name="accelerator_temperature_celsius", help="Highest temperature.", labels=(*_DS, "place", "statistic"),
        better="lower",
    ),
    Metric(
        name="accelerator_clock_hertz", help="Clock of multiprocessors or memory.", labels=(*_DS, "clock", "statistic")
    ),
    Metric(name="accelerator_power_watts", help="Mean power.", labels=(*_DS, "method")),
    Metric(name="accelerator_energy_joules", help="Energy used in the stage.", labels=_DS),
    Metric(
        name="accelerator_throttle_ratio", labels=(*_DS, "reason", "method"), better="lower",
        help="Share of the stage in which heat or the power supply held the clocks down.",
    ),
    Metric(
        name="accelerator_clock_limit_ratio", labels=(*_DS, "reason", "method"),
        help="Share of the stage in which the power limit or a setting held the clocks down, which is no fault.",
    ),
    Metric(
        name="accelerator_uncorrected_errors", help="Uncorrected memory errors during the run.", labels=_D,
        better="lower",
    ),
    Metric(
        name="accelerator_corrected_errors", help="Corrected memory errors during the run.", labels=_D, better="lower"
    ),
    Metric(name="accelerator_pcie_replays", help="PCIe packets sent again during the run.", labels=_D, better="lower"),
    Metric(name="accelerator_nvlink_recoveries", help="NVLink recoveries during the run.", labels=_D, better="lower"),
    Metric(
        name="accelerator_nvlink_errors", help="NVLink replays, recoveries and CRC errors during the run.", labels=_D,
        better="lower",
    ),
    Metric(
        name="accelerator_nvlink_inactive_links", help="NVLinks of the card that are not active.", labels=_D,
        better="lower",
    ),
    Metric(name="accelerator_lost_devices", help="1 when the card stopped answering.", labels=_D, better="lower"),
    Metric(
        name="accelerator_pending_row_remaps", help="1 when a row remap waits for a reset.", labels=_D, better="lower"
    ),
    Metric(name="accelerator_failed_row_remaps", help="1 when a row remap failed.", labels=_D, better="lower"),
    Metric(
        name="accelerator_recovery_actions", help="1 when the driver asks for the action named.",
        labels=("device", "action"), better="lower",
    ),
    Metric(
        name="accelerator_pcie_link_ratio", labels=("device", "aspect"), better="higher",
        help="PCIe generation or width under load over the most that card and slot can do.",
    ),
    Metric(
        name="accelerator_xid_errors", help="Critical errors reported by the driver during the run.",
        labels=("device", "kind", "xid"), better="lower",
    ),
    Metric(
        name="accelerator_drain_reasons", labels=("device", "reasons", "checked"), better="lower",
        help="What forbids work on the card: lost, row remap pending or failed, recovery, Xid, a slow PCIe link.",
    ),
    Metric(
        name="accelerator_foreign_processes", help="Programs on the card that are not ours; they void the run.",
        labels=_D, better="lower",
    ),
    Metric(
        name="accelerator_info", help="Name, identity and modes of the card.",
        labels=("device", "name", "uuid", "bus", "driver", "mig", "ecc", "persistence"),
    ),
    Metric(
        name="accelerator_telemetry_seconds", help="What one sample of all these readings took.",
        labels=("statistic",), better="lower",
    ),
)  # fmt: skip
_PLOTTED = {"power": "accelerator_power_watts", "memory_used": "accelerator_memory_used_bytes"}


def watch(ctx: Context) -> GpuWatch:
    """Start to watch. Raises Unsupported where there is no NVML or no card, Failed where NVML does not work."""
    try:
        return GpuWatch()
    except _nvml.NvmlBroken as error:
        raise Failed.told(error.reason, error.remedy) from error
    except _nvml.NvmlMissing as error:
        raise Unsupported.told(error.reason, error.remedy) from error


def parse(samples: Sequence[Sample], ctx: Context) -> Sequence[Measurement]:
    """Every figure of every card and stage, and each card's health. Pure. Raises Failed where nothing was read."""
    facts = next((s["facts"] for s in samples if isinstance(s.get("facts"), Mapping)), None)
    if facts is None:
        hung = next((str(s["hung"]) for s in samples if s.get("hung")), "no sample was taken")
        raise Failed(Code.NVML_HANGS, str(hung), "nvidia-smi; dmesg | grep -i -e nvrm -e xid")
    found = stages(samples)
    made: list[Measurement] = []
    for index, card in facts["cards"].items():
        known = {**card, "driver": facts.get("driver")}
        made += [m for stage in found for m in stage_figures(stage, index, str(facts.get("source", "nvml")))]
        made += health.card_figures(samples, found, index, known)
        for reasons in (m.labels["reasons"] for m in made if m.metric == health.DRAIN and m.labels["device"] == index):
            if reasons != "none":
                ctx.warn(f"GPU {index}: drain it for {reasons}")
        for doubt in health.doubts(samples, index):
            ctx.warn(doubt)
        _plot(samples, index, ctx)
    return [*made, *telemetry_cost(samples)]


def _plot(samples: Sequence[Sample], index: str, ctx: Context) -> None:
    for key, metric in _PLOTTED.items():
        read = reader(index, key)
        points = [(float(s["t"]), v) for s in samples if (v := finite(read(s))) is not None]
        if points:
            seconds, values = zip(*points, strict=True)
            ctx.series.append(Series(metric=metric, labels={"device": index}, seconds=seconds, values=values))


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Is there a card, and what can be read of it?"""
    try:
        opened = GpuWatch()
    except _nvml.NvmlMissing as error:
        return [Check("gpu", False, error.reason, error.remedy)]
    try:
        sample: Mapping[str, Any] = opened.sample("tick")
    finally:
        opened.close()
    return [_checked(index, card, sample) for index, card in sample.get("facts", {}).get("cards", {}).items()]


def _checked(index: str, card: Mapping[str, Any], sample: Mapping[str, Any]) -> Check:
    state = sample["cards"][index]
    if state.get("lost"):
        return Check(f"gpu {index}", False, f"lost: {state['lost']}", "nvidia-smi; reset the GPU or reboot the node")
    missing = ", ".join(f"{name} ({why})" for name, why in sorted(state["errors"].items()))
    return Check(f"gpu {index}", True, f"{card.get('name')}" + (f"; not readable: {missing}" if missing else ""))


PROBE = Probe(
    name="gpu",
    help="What the GPUs did in each stage (NVML, GPM), and their health before and after.",
    metrics=METRICS,
    seconds={Effort.QUICK: 0.0, Effort.STANDARD: 0.0, Effort.THOROUGH: 0.0},
    watch=watch,
    parse=parse,
    doctor=doctor,
    order=91,
)
