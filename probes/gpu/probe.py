"""The GPU watcher: what the silicon did in each stage, and whether the card is healthy.

NVML's utilization says only that some kernel ran; one thread on one multiprocessor shows 100 %. So the hardware's own
counters (GPM) stand beside it where the card has them, with power, clocks, the reasons that held the clocks down, the
link as it was under load, and the error counters before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any

from bench.judge.gate import ENDPOINT
from bench.measure import budget
from bench.measure.probe import Check, Context, Failed, Probe, ProbeError, Tools, Watch
from bench.model import Code, Measurement, Request
from probes.common.metrics import Between, metrics, of_counts
from probes.common.windows import Sample, plotted, stages

METRICS = (
    *metrics(
        ("accelerator_utilization_ratio",
         "nvml: share of time in which any kernel ran, which is not how busy it was. gpm: share of SM cycles.",
         "stage source method*", "none"),
        ("accelerator_tensor_utilization_ratio", "Share of cycles of the tensor pipes.", "stage source", "none"),
        ("accelerator_memory_bandwidth_utilization_ratio", "Share of the memory's cycles in use.", "stage source",
         "none"),
        ("accelerator_occupancy_ratio", "Share of the multiprocessors' warp slots in use.", "stage source", "none"),
        ("accelerator_pcie_send_bytes_per_second", "Bytes sent over PCIe.", "stage source", "none"),
        ("accelerator_pcie_receive_bytes_per_second", "Bytes received over PCIe.", "stage source", "none"),
        ("accelerator_nvlink_send_bytes_per_second", "Bytes sent over NVLink.", "stage source", "none"),
        ("accelerator_nvlink_receive_bytes_per_second", "Bytes received over NVLink.", "stage source", "none"),
        ("accelerator_memory_used_bytes", "Most memory in use on the card.", "stage statistic", "none"),
        ("accelerator_temperature_celsius", "Highest temperature.", "stage place statistic", "lower"),
        ("accelerator_clock_hertz", "Clock of multiprocessors or memory.", "stage clock statistic", "none"),
        ("accelerator_power_watts", "Mean power.", "stage method*", "none"),
        ("accelerator_energy_joules", "Energy used in the stage.", "stage", "none"),
        ("accelerator_throttle_ratio",
         "Share of the stage in which heat or the power supply held the clocks down.", "stage reason method*", "lower"),
        ("accelerator_clock_limit_ratio",
         "Share of the stage in which the power limit or a setting held the clocks down, which is no fault.",
         "stage reason method*", "none"),
        ("accelerator_uncorrected_errors", "Uncorrected memory errors during the run.", "", "lower"),
        ("accelerator_corrected_errors", "Corrected memory errors during the run.", "", "lower"),
        ("accelerator_pcie_replays", "PCIe packets sent again during the run.", "", "lower"),
        ("accelerator_nvlink_recoveries", "NVLink recoveries during the run.", "", "lower"),
        ("accelerator_nvlink_errors", "NVLink replays, recoveries and CRC errors during the run.", "", "lower"),
        ("accelerator_nvlink_inactive_links", "NVLinks of the card that are not active.", "", "lower"),
        ("accelerator_lost_devices", "1 when the card stopped answering.", "", "lower"),
        ("accelerator_pending_row_remaps", "1 when a row remap waits for a reset.", "", "lower"),
        ("accelerator_failed_row_remaps", "1 when a row remap failed.", "", "lower"),
        ("accelerator_recovery_actions", "1 when the driver asks for the action named.", "action*", "lower"),
        ("accelerator_pcie_link_ratio",
         "PCIe generation or width under load over the most that card and slot can do.", "aspect", "higher"),
        ("accelerator_xid_errors", "Critical errors reported by the driver during the run.", "kind xid*", "lower"),
        ("accelerator_drain_reasons",
         "What forbids work on the card: lost, row remap pending or failed, recovery, Xid, a slow PCIe link.",
         "reasons* checked*", "lower"),
        ("accelerator_foreign_processes", "Programs on the card that are not ours; they void the run.", "", "lower"),
        ("accelerator_info", "Name, identity and modes of the card.", "name uuid bus driver mig ecc persistence",
         "none"),
        first="device",
    ),
    *metrics(
        ("accelerator_clock_sustained_ratio",
         "Clock late in the products of the soak over that early in them: what the card keeps under one steady load.",
         "stage", "higher"),
        first="device",
        between=Between("Our choice: no two sessions of a card were recorded; its clock moves in steps of 1 %.",
                        {"accelerator_clock_sustained_ratio": 0.02}),
    ),
    *metrics(("accelerator_telemetry_seconds", "What one sample of all these readings took.", "statistic", "lower")),
)  # fmt: skip
_LOOK = "nvidia-smi; dmesg | grep -i -e nvrm -e xid"
_PLOTTED = {
    "utilization": "accelerator_utilization_ratio",
    "power": "accelerator_power_watts",
    "memory_used": "accelerator_memory_used_bytes",
}


def watch(ctx: Context) -> Watch:
    """Raises Unsupported, Failed."""
    from probes.gpu.sampler import GpuWatch

    return GpuWatch()


def parse(samples: Sequence[Sample], ctx: Context) -> Sequence[Measurement]:
    """Every figure of every card and stage, and each card's health. Pure. Raises Failed where nothing was read."""
    from probes.gpu.health import DRAIN, CardHealth
    from probes.gpu.parse import card_samples, polled_faults, sagging, stage_figures, telemetry_cost

    facts = next((s["facts"] for s in samples if isinstance(s.get("facts"), Mapping)), None)
    if facts is None:
        hung = next((str(s["hung"]) for s in samples if s.get("hung")), "no sample was taken")
        raise Failed(Code.NVML_HANGS, hung, _LOOK)
    made: list[Measurement] = []
    bridged = any(1 in card.get("nvlinks", ()) for s in samples for card in s.get("cards", {}).values())
    for index, card in facts["cards"].items():
        own = card_samples(samples, index)
        shared = ENDPOINT in ctx.request.options
        found, health = stages(own), CardHealth(own, index, bridged, shared)
        figures = list(health.figures(found, {**card, "driver": facts.get("driver")}))
        for reasons in (m.labels["reasons"] for m in figures if m.metric == DRAIN):
            if reasons != "none":
                ctx.warn(f"GPU {index}: drain it for {reasons}")
        for doubt in chain(health.doubts(), *(sagging(stage, index) for stage in found)):
            ctx.warn(doubt)
        made += [m for stage in found for m in stage_figures(stage, index, str(facts.get("source", "nvml")))]
        made += [*polled_faults(found, index), *figures]
        for key, metric in _PLOTTED.items():
            ctx.series += plotted(metric, own, key, device=index)
    return [*made, *telemetry_cost(samples)]


def best(request: Request) -> list[Measurement]:
    """A driver that counts no time for its reasons, polled while the probes that make the card work take theirs."""
    from probes.gpu.sampler import Polls

    rows = {"inference": budget.INFERENCE, "feed": budget.FEED}
    polls = sum(row[request.effort] for name, row in rows.items() if name in request.probes) / Polls.SLOT_SECONDS
    return [of_counts("accelerator_throttle_ratio", 0, int(polls), {"stage": "loaded"})] if polls else []


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Is there a card, and what can be read of it?"""
    from probes.gpu.sampler import GpuWatch

    try:
        with closing(GpuWatch()) as opened:
            sample = opened.sample("tick")
    except ProbeError as error:
        return [Check("gpu", False, error.reason, error.remedy)]
    cards = sample.get("facts", {}).get("cards", {})
    return [_checked(index, card, sample["cards"][index]) for index, card in cards.items()]


def _checked(index: str, card: Mapping[str, Any], state: Mapping[str, Any]) -> Check:
    from probes.gpu.health import unreadable

    if hung := state.get("hung"):
        return Check(f"gpu {index}", False, f"the driver does not answer: {hung}", _LOOK)
    if state.get("lost"):
        return Check(f"gpu {index}", False, f"lost: {state['lost']}", "nvidia-smi; reset the GPU or reboot the node")
    missing = unreadable(state["errors"])
    return Check(f"gpu {index}", True, f"{card.get('name')}{missing and f'; not readable: {missing}'}")


PROBE = Probe(
    name="gpu",
    help="What the GPUs did in each stage (NVML, GPM), and their health before and after.",
    metrics=METRICS,
    seconds=budget.NONE,
    watch=watch,
    parse=parse,
    doctor=doctor,
    best=best,
    order=91,
    facts=("accelerator", "gpus", "nvidia_driver", "versions.nvidia-ml-py"),
)
