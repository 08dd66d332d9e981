"""The host watcher: what the CPUs, the memory, the disks and the network cards did in each stage.

It answers the first question after a bad figure: was this node busy with something else? Pressure says for how much
of a stage some task waited for a CPU, for memory or for I/O; a stage under pressure is contended, not slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from bench.measure import budget, procfs
from bench.measure.probe import Check, Context, Failed, Probe, Tools
from bench.model import Code, Measurement, Request, Series
from probes.common.metrics import figure, metrics
from probes.common.windows import Sample, Stage, finite, flowed, plotted, stages

_RESOURCES = ("cpu", "io", "memory")

METRICS = metrics(
    ("host_cpu_busy_ratio", "Share of all CPUs' time that was not idle.", "", "none"),
    ("host_cpu_steal_ratio", "Share of all CPUs' time that the hypervisor gave to others.", "", "lower"),
    ("host_cpu_wait_ratio", "Share of all CPUs' time that was idle for want of I/O.", "", "none"),
    ("host_runnable_tasks", "Mean number of tasks running or waiting for a CPU.", "", "none"),
    ("host_memory_available_bytes", "Least memory that was available without swapping.", "", "higher"),
    ("host_disk_read_bytes_per_second", "Bytes read from all disks.", "", "none"),
    ("host_disk_write_bytes_per_second", "Bytes written to all disks.", "", "none"),
    ("host_network_receive_bytes_per_second", "Bytes received by all cards but the loopback.", "", "none"),
    ("host_network_send_bytes_per_second", "Bytes sent by all cards but the loopback.", "", "none"),
    ("host_pressure_ratio",
     "Share of the time in which some (or every, kind=full) task waited for the resource (PSI).",
     "resource kind", "lower"),
    first="stage",
)  # fmt: skip


class HostWatch:
    """Reads cumulative counters; everything else is arithmetic in `parse`."""

    def __init__(self, ctx: Context | None = None) -> None:
        import psutil

        self._psutil = psutil
        self.sample("tick")

    def sample(self, event: str) -> Mapping[str, Any]:
        """Bytes and seconds since boot; ``psi`` in microseconds."""
        cpu = self._psutil.cpu_times()
        disks, cards = self._psutil.disk_io_counters(), self._psutil.net_io_counters(pernic=True)
        real = [counters for name, counters in cards.items() if name != "lo"]
        return {
            "cpu": dict(cpu._asdict()),
            "running": _running(),
            "memory_available": self._psutil.virtual_memory().available,
            "disk_read": disks and disks.read_bytes,
            "disk_write": disks and disks.write_bytes,
            "net_receive": sum(c.bytes_recv for c in real) if real else None,
            "net_send": sum(c.bytes_sent for c in real) if real else None,
            "psi": _pressure(),
        }

    def close(self) -> None:
        return None


def _running() -> int | None:
    """Tasks that run or wait for a CPU: the fourth field of /proc/loadavg (proc(5)), without the reader itself."""
    words = procfs.read("/proc/loadavg").split()
    return int(words[3].partition("/")[0]) - 1 if len(words) > 3 else None


def _pressure() -> dict[str, dict[str, int]]:
    """Stall time by resource and kind; empty where the kernel has no PSI."""
    return {resource: found for resource in _RESOURCES if (found := procfs.pressure(resource))}


# --- samples to measurements


def parse(samples: Sequence[Sample], ctx: Context) -> Sequence[Measurement]:
    """Every figure of every stage; the series is for the report. Raises Failed where there is no stage to speak of."""
    found = stages(samples)
    if not found:
        raise Failed(Code.NO_STAGE, "nothing was measured while the host was watched")
    ctx.series += plotted("host_memory_available_bytes", samples, "memory_available")
    ctx.series += _flows(found)
    return [m for stage in found for m in _stage(stage)]


def _flows(found: Sequence[Stage]) -> Iterator[Series]:
    """Disks and cards over each probe's turns, on the clock of all watchers: what the report lays side by side."""
    turns = sorted((w for stage in found for w in stage.windows), key=lambda window: (window[0]["t"], -window[-1]["t"]))
    ended = 0.0
    for window in turns:
        if window[0]["t"] >= ended:  # else it is a stage within a turn
            ended = window[-1]["t"]
            for key, metric in _FLOWS.items():
                yield from flowed(metric, window, key, stage=str(window[0]["stage"]))


def _stage(stage: Stage) -> Iterator[Measurement]:
    labels = {"stage": stage.name}
    yield from _cpu(stage)
    if running := stage.values("running"):
        interval = (min(running), max(running))
        yield figure("host_runnable_tasks", sum(running) / len(running), labels, interval, len(running))
    if memory := stage.values("memory_available"):
        yield figure("host_memory_available_bytes", min(memory), labels, n=len(memory))
    for key, metric in _FLOWS.items():
        if rate := stage.growth(key):
            yield figure(metric, rate[0] / rate[1], labels)
    for resource, kind in product(_RESOURCES, ("some", "full")):
        if stall := stage.growth(lambda s, r=resource, k=kind: s.get("psi", {}).get(r, {}).get(k)):  # type: ignore[misc]
            named = {**labels, "resource": resource, "kind": kind}
            yield figure("host_pressure_ratio", min(1.0, stall[0] / 1e6 / stall[1]), named)


_FLOWS = {
    "disk_read": "host_disk_read_bytes_per_second",
    "disk_write": "host_disk_write_bytes_per_second",
    "net_receive": "host_network_receive_bytes_per_second",
    "net_send": "host_network_send_bytes_per_second",
}


def _cpu(stage: Stage) -> Iterator[Measurement]:
    """Shares of all CPU time. Guest time is within user time already (proc(5)), so it is not counted again."""
    whole = stage.growth(lambda s: _cpu_seconds(s, lambda name: not name.startswith("guest")))
    parts = {
        "host_cpu_busy_ratio": lambda name: not name.startswith("guest") and name not in ("idle", "iowait"),
        "host_cpu_steal_ratio": lambda name: name == "steal",
        "host_cpu_wait_ratio": lambda name: name == "iowait",
    }
    for metric, wanted in parts.items():
        part = stage.growth(lambda s, wanted=wanted: _cpu_seconds(s, wanted))  # type: ignore[misc]
        if whole and whole[0] > 0 and part:
            yield figure(metric, min(1.0, part[0] / whole[0]), {"stage": stage.name})


def _cpu_seconds(sample: Sample, wanted: Callable[[str], bool]) -> float | None:
    cpu = sample.get("cpu")
    found = [finite(value) for name, value in cpu.items() if wanted(name)] if isinstance(cpu, Mapping) else []
    return sum(value or 0.0 for value in found) if found else None


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Does the kernel say what waits?"""
    if _pressure():
        return [Check("pressure", True, "the kernel has pressure stall information")]
    return [Check("pressure", False, "this kernel has no /proc/pressure", "boot with psi=1")]


PROBE = Probe(
    name="host",
    help="CPU, memory, disks, network cards and pressure of the node, in each stage of the run.",
    metrics=METRICS,
    seconds=budget.NONE,
    watch=HostWatch,
    parse=parse,
    doctor=doctor,
    order=90,
    facts=("accelerator",),
)
