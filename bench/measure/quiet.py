"""Is the node quiet enough to be measured? What others do is looked at before the first probe, while we do nothing.

Looked at over a short window: processors, pressure stall, disk and network traffic of others, processes on the GPUs. A
node that is not quiet is waited for (`wait_until_quiet`), then measured all the same, and every figure is marked
invalid with what was busy: shown, never judged, never part of a baseline.

The limits are starting points: where a third of the processors or a fifth of the time is taken away by others, repeats
of the same job on one machine differ by more than the 5 % that a baseline must see.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import printable
from bench.measure import procfs, tools
from bench.measure.probe import ProbeError
from bench.model import Code, Effort, ProbeResult

#: Neither the loopback nor what only joins containers.
_NO_LINK = re.compile(r"lo$|veth|docker|br-|cni|flannel")
_GPU_QUERY = ["nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader"]
_GPU_SECONDS = 10.0
_NAMED = 3
#: What others may take: shares of all processors, and of the time that some task was stalled; of each disk and link.
_CPU_RATIO, _STALL_RATIO, _BYTES_PER_SECOND = 0.30, 0.20, 25e6

WINDOW_SECONDS = {Effort.QUICK: 1.0, Effort.STANDARD: 2.0, Effort.THOROUGH: 5.0}
#: How long a run waits of itself: what a run before it left to be written is gone by then.
PATIENCE_SECONDS = {Effort.QUICK: 4.0, Effort.STANDARD: 12.0, Effort.THOROUGH: 60.0}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters since boot, of one moment. ``stalls`` in seconds by resource, ``processes``: id -> (name, jiffies)."""

    seconds: float
    busy: int
    total: int
    stalls: Mapping[str, float]
    disks: Mapping[str, int]
    links: Mapping[str, int]
    processes: Mapping[int, tuple[str, int]] = field(default_factory=dict)


def snapshot(proc: Path = Path("/proc")) -> Snapshot:
    """The counters now. What a kernel does not have (pressure stall, in some) is left out."""
    busy, total, _ = procfs.cpu_ticks(proc)
    stalls = ((name, procfs.stalled_seconds(name, proc)) for name in ("cpu", "io", "memory"))
    return Snapshot(
        seconds=float(procfs.read(proc / "uptime").split()[0]),
        busy=busy,
        total=total,
        stalls={name: seconds for name, seconds in stalls if seconds is not None},
        disks=procfs.disk_bytes(proc),
        links={name: sum(both) for name, both in procfs.link_bytes(proc).items() if not _NO_LINK.match(name)},
        processes={
            pid: (printable(found.name)[:30], found.ticks)
            for pid in procfs.process_ids(proc)
            if (found := procfs.process(pid, proc))
        },
    )


def busy_between(before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    """What was busy between two moments, one phrase each with its figure; empty for a quiet node."""
    seconds = max(after.seconds - before.seconds, 0.01)
    ratio = (after.busy - before.busy) / max(after.total - before.total, 1)
    found = [f"processors {100 * ratio:.0f} % busy{_who(before, after)}"] if ratio > _CPU_RATIO else []
    for name, stalled in after.stalls.items():
        share = (stalled - before.stalls.get(name, stalled)) / seconds
        if share > _STALL_RATIO:
            found.append(f"{name} pressure {100 * min(share, 1.0):.0f} % of the time")
    found += _traffic("disk", before.disks, after.disks, seconds)
    return (*found, *_traffic("network", before.links, after.links, seconds))


def gpu_processes(run: Callable[[], str] | None = None) -> tuple[str, ...]:
    """Processes that compute on a GPU, as phrases; none where there is no NVIDIA driver or it does not answer."""
    try:
        text = run() if run else tools.run(_GPU_QUERY, timeout=_GPU_SECONDS).stdout
    except ProbeError:
        return ()
    rows = (map(str.strip, line.split(",", 1)) for line in text.splitlines() if "," in line)
    return tuple(f"on the GPU: {Path(name).name} ({pid})" for pid, name in rows if pid.isdigit())


def look(window_seconds: float, pause: Callable[[float], None] = tools.pause, cards: bool = True) -> tuple[str, ...]:
    """What is busy on this node now, over a window in which we do nothing; on its ``cards`` too, if they are ours."""
    before = snapshot()
    pause(window_seconds)
    return busy_between(before, snapshot()) + (gpu_processes() if cards else ())


def wait_until_quiet(
    patience_seconds: float, look: Callable[[], tuple[str, ...]], now: Callable[[], float], tell: Callable[[str], None]
) -> tuple[str, ...]:
    """Look until the node is quiet or patience ends; what was busy at the last look. ``tell`` hears of each change."""
    end = now() + patience_seconds
    told: tuple[str, ...] = ()
    while busy := look():
        if now() >= end:
            return busy
        if busy != told:
            told = busy
            tell(f"waiting for a quiet node: {', '.join(busy)}")
    return ()


def marked(result: ProbeResult, busy: tuple[str, ...]) -> ProbeResult:
    """The result with its figures invalid because of what was busy; the same result when nothing was.

    What a watcher saw (an uncorrected error, a lost card) is true on a busy node as well.
    """
    if not busy:
        return result
    reason = contended(busy)
    measurements = tuple(m.model_copy(update={"invalid": m.invalid or reason}) for m in result.measurements)
    return result.model_copy(update={"measurements": measurements})


def contended(busy: tuple[str, ...]) -> str:
    """The reason why what is measured beside others counts for nothing."""
    return f"{Code.CONTENDED}: {', '.join(busy)}"[:4000]


def _who(before: Snapshot, after: Snapshot) -> str:
    """The processes that took most, but for this one: `` (fio, python3)``."""
    others = ((pid, name, ticks) for pid, (name, ticks) in after.processes.items() if pid != os.getpid())
    used = [(ticks - before.processes.get(pid, ("", 0))[1], name) for pid, name, ticks in others]
    names = list(dict.fromkeys(name for ticks, name in sorted(used, reverse=True) if ticks > 0))[:_NAMED]
    return f" ({', '.join(names)})" if names else ""


def _traffic(what: str, before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> list[str]:
    rates = {name: (count - before[name]) / seconds for name, count in after.items() if name in before}
    return [
        f"{what} {name} {rate / 1e6:.0f} MB/s of others" for name, rate in rates.items() if rate > _BYTES_PER_SECOND
    ]
