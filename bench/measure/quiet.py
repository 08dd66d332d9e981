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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import tools
from bench.measure.probe import ProbeError
from bench.model import Code, Effort, ProbeResult

_SECTOR_BYTES = 512
_WHOLE_DISK = re.compile(r"(sd[a-z]+|vd[a-z]+|xvd[a-z]+|nvme\d+n\d+|mmcblk\d+)")
_GPU_QUERY = ["nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader"]
_GPU_SECONDS = 10.0
_NAMED = 3

WINDOW_SECONDS = {Effort.QUICK: 1.0, Effort.STANDARD: 2.0, Effort.THOROUGH: 5.0}
#: How long a run waits of itself: what a run before it left to be written is gone by then.
PATIENCE_SECONDS = {Effort.QUICK: 4.0, Effort.STANDARD: 12.0, Effort.THOROUGH: 60.0}


@dataclass(frozen=True, slots=True)
class Limits:
    """What others may take. Ratios are shares of all processors, and of the time that some task was stalled."""

    cpu_ratio: float = 0.30
    stall_ratio: float = 0.20
    disk_bytes_per_second: float = 25e6
    network_bytes_per_second: float = 25e6


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
    busy, total = _processors(proc)
    return Snapshot(
        seconds=float(_read(proc / "uptime").split()[0]),
        busy=busy,
        total=total,
        stalls={name: _stall(proc, name) for name in ("cpu", "io", "memory") if _read(proc / "pressure" / name)},
        disks=_disks(proc),
        links=_links(proc),
        processes=_processes(proc),
    )


def busy_between(before: Snapshot, after: Snapshot, limits: Limits | None = None) -> tuple[str, ...]:
    """What was busy between two moments, one phrase each with its figure; empty for a quiet node."""
    limits = limits or Limits()
    seconds = max(after.seconds - before.seconds, 0.01)
    found = []
    ratio = (after.busy - before.busy) / max(after.total - before.total, 1)
    if ratio > limits.cpu_ratio:
        found.append(f"processors {100 * ratio:.0f} % busy{_who(before, after)}")
    for name, stalled in after.stalls.items():
        share = (stalled - before.stalls.get(name, stalled)) / seconds
        if share > limits.stall_ratio:
            found.append(f"{name} pressure {100 * min(share, 1.0):.0f} % of the time")
    found += _traffic("disk", before.disks, after.disks, seconds, limits.disk_bytes_per_second)
    return (*found, *_traffic("network", before.links, after.links, seconds, limits.network_bytes_per_second))


def gpu_processes(run: Callable[[], str] | None = None) -> tuple[str, ...]:
    """Processes that compute on a GPU, as phrases; none where there is no NVIDIA driver or it does not answer."""
    try:
        text = (run or _nvidia_smi)()
    except ProbeError:
        return ()
    lines = [line.partition(",") for line in text.splitlines() if "," in line]
    return tuple(
        f"on the GPU: {Path(name.strip()).name} ({pid.strip()})" for pid, _, name in lines if pid.strip().isdigit()
    )


def look(window_seconds: float, pause: Callable[[float], None] = tools.pause) -> tuple[str, ...]:
    """What is busy on this node now, over a window in which we do nothing."""
    before = snapshot()
    pause(window_seconds)
    return busy_between(before, snapshot()) + gpu_processes()


def wait_until_quiet(
    patience_seconds: float, look: Callable[[], tuple[str, ...]], now: Callable[[], float], tell: Callable[[str], None]
) -> tuple[str, ...]:
    """Look until the node is quiet or patience ends; what was busy at the last look. ``tell`` hears of each change."""
    end = now() + patience_seconds
    told = ""
    while busy := look():
        if now() >= end:
            return busy
        text = f"waiting for a quiet node: {', '.join(busy)}"
        if text.partition(":")[2] != told:
            told = text.partition(":")[2]
            tell(text)
    return ()


def marked(result: ProbeResult, busy: tuple[str, ...]) -> ProbeResult:
    """The result with its figures invalid because of what was busy; the same result when nothing was.

    What a watcher saw (an uncorrected error, a lost card) is true on a busy node as well.
    """
    if not busy:
        return result
    why = f"{Code.CONTENDED}: {', '.join(busy)}"[:4000]
    measurements = tuple(m.model_copy(update={"invalid": m.invalid or why}) for m in result.measurements)
    return result.model_copy(update={"measurements": measurements})


def _nvidia_smi() -> str:
    return tools.run(_GPU_QUERY, timeout=_GPU_SECONDS).stdout


def _who(before: Snapshot, after: Snapshot) -> str:
    """The processes that took most, but for this one: `` (fio, python3)``."""
    used = {
        pid: (jiffies - before.processes[pid][1] if pid in before.processes else jiffies, name)
        for pid, (name, jiffies) in after.processes.items()
        if pid != os.getpid()
    }
    most = sorted((pair for pair in used.values() if pair[0] > 0), reverse=True)
    names = list(dict.fromkeys(name for _, name in most))[:_NAMED]
    return f" ({', '.join(names)})" if names else ""


def _traffic(what: str, before: Mapping[str, int], after: Mapping[str, int], seconds: float, limit: float) -> list[str]:
    rates = {name: (count - before[name]) / seconds for name, count in after.items() if name in before}
    return [f"{what} {name} {rate / 1e6:.0f} MB/s of others" for name, rate in rates.items() if rate > limit]


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _processors(proc: Path) -> tuple[int, int]:
    fields = [int(word) for word in _read(proc / "stat").split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4], sum(fields)) if len(fields) >= 5 else (0, 0)


def _stall(proc: Path, name: str) -> float:
    """Seconds since boot in which some task waited for the resource (``some ... total=`` in microseconds)."""
    found = re.search(r"^some .*total=(\d+)", _read(proc / "pressure" / name), re.M)
    return int(found[1]) / 1e6 if found else 0.0


def _disks(proc: Path) -> dict[str, int]:
    """Bytes read and written by each whole disk since boot."""
    found = {}
    for line in _read(proc / "diskstats").splitlines():
        words = line.split()
        if len(words) >= 10 and _WHOLE_DISK.fullmatch(words[2]):
            found[words[2]] = (int(words[5]) + int(words[9])) * _SECTOR_BYTES
    return found


def _links(proc: Path) -> dict[str, int]:
    """Bytes received and sent by each network link since boot; not the loopback, nor what only joins containers."""
    found = {}
    for line in _read(proc / "net" / "dev").splitlines()[2:]:
        name, _, rest = line.partition(":")
        words, name = rest.split(), name.strip()
        if len(words) >= 9 and not re.match(r"lo$|veth|docker|br-|cni|flannel", name):
            found[name] = int(words[0]) + int(words[8])
    return found


def _processes(proc: Path) -> dict[int, tuple[str, int]]:
    found = {}
    for entry in proc.iterdir() if proc.is_dir() else ():
        if entry.name.isdigit():
            head, _, tail = _read(entry / "stat").rpartition(")")
            words = tail.split()
            if len(words) > 12:
                name = "".join(c if c.isprintable() else "?" for c in head.partition("(")[2])
                found[int(entry.name)] = (name[:30], int(words[11]) + int(words[12]))
    return found
