"""What the kernel tells through /proc: counters since boot, of the node and of its processes.

Standard library only, so that child programs can import it cheaply. What a kernel does not have, or what may not be
read, is None, zero or an empty table, never an error. ``proc`` is another folder in tests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
#: Of /proc/diskstats, whatever the device's own sectors are (kernel: Documentation/admin-guide/iostats.rst).
_SECTOR_BYTES = 512
_WHOLE_DISK = re.compile(r"(sd[a-z]+|vd[a-z]+|xvd[a-z]+|nvme\d+n\d+|mmcblk\d+)")


class CpuTicks(NamedTuple):
    """Clock ticks of all CPUs together: not idle, all, and taken by the hypervisor (proc(5))."""

    busy: int
    total: int
    steal: int


class Process(NamedTuple):
    """``/proc/PID/stat``: the name, and the fields behind it; ``fields[0]`` is the state, field 3 of proc(5)."""

    name: str
    fields: list[str]

    @property
    def state(self) -> str:
        return self.fields[0]

    @property
    def parent(self) -> int:
        return int(self.fields[1])

    @property
    def session(self) -> int:
        return int(self.fields[3])

    @property
    def ticks(self) -> int:
        """CPU time spent by itself, in user and kernel mode."""
        return int(self.fields[11]) + int(self.fields[12])

    @property
    def start(self) -> str:
        """When it began: with the process id and the boot id, this names one process for ever."""
        return self.fields[19]


def read(path: str | Path) -> str:
    """The file's text; empty where it cannot be read."""
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
    return ""


def boot_id() -> str:
    return read(PROC / "sys/kernel/random/boot_id").strip()


def cpu_ticks(proc: Path = PROC) -> CpuTicks:
    """Waiting for I/O counts as idle; guests are within user time already."""
    fields = [int(word) for word in read(proc / "stat").partition("\n")[0].split()[1:9]]
    if len(fields) < 8:
        return CpuTicks(0, 0, 0)
    return CpuTicks(sum(fields) - fields[3] - fields[4], sum(fields), fields[7])


def pressure(resource: str, proc: Path = PROC) -> dict[str, int]:
    """Microseconds in which ``some`` task, or every one (``full``), stalled for ``cpu``, ``io`` or ``memory`` (PSI)."""
    return stall_totals(read(proc / "pressure" / resource))


def stall_totals(text: str) -> dict[str, int]:
    """``some avg10=... total=8076252`` to ``{"some": 8076252}`` (kernel: Documentation/accounting/psi.rst)."""
    return {kind: int(total) for kind, total in re.findall(r"^(some|full) .*total=(\d+)", text, re.M)}


def stalled_seconds(resource: str, proc: Path = PROC) -> float | None:
    """Seconds in which some task of the node stalled for the resource; None without PSI."""
    total = pressure(resource, proc).get("some")
    return None if total is None else total / 1e6


def run_queue_seconds(files: Iterable[Path]) -> float | None:
    """Seconds that threads were runnable and had no CPU, from their ``schedstat``; None where the kernel keeps none."""
    waited = [int(words[1]) for file in files if len(words := read(file).split()) > 1]
    return sum(waited) / 1e9 if waited else None


def own_run_queue_seconds() -> float | None:
    """Of all threads of this process; one that has ended takes its share with it."""
    return run_queue_seconds(PROC.glob("self/task/*/schedstat"))


def thread_run_queue_seconds() -> float | None:
    """Of the calling thread."""
    return run_queue_seconds([PROC / "thread-self/schedstat"])


def usable_cores(proc: Path = PROC, cgroups: Path = CGROUPS) -> float:
    """Cores that this process may use: its affinity, and no more than the quotas of its control groups, v1 and v2."""
    shares = [float(len(os.sched_getaffinity(0)))]
    for line in read(proc / "self/cgroup").splitlines():
        _, controllers, own = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        for at in (Path(own.lstrip("/")), *Path(own.lstrip("/")).parents):
            if controllers:
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                words = [read(cgroups / controllers / at / name).strip() for name in names]
            else:
                words = read(cgroups / at / "cpu.max").split()
            if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
                shares.append(int(words[0]) / int(words[1]))
    return min(shares)


def read_bytes(pid: int | str = "self") -> int:
    """Bytes that a process made a device (or a file server) deliver; what the page cache held does not count."""
    found = re.search(r"^read_bytes: (\d+)", read(PROC / str(pid) / "io"), re.M)
    return int(found[1]) if found else 0


def disk_bytes(proc: Path = PROC) -> dict[str, int]:
    """Bytes read and written by each whole disk."""
    rows = (line.split() for line in read(proc / "diskstats").splitlines())
    whole = (row for row in rows if len(row) >= 10 and _WHOLE_DISK.fullmatch(row[2]))
    return {row[2]: (int(row[5]) + int(row[9])) * _SECTOR_BYTES for row in whole}


def link_bytes(proc: Path = PROC) -> dict[str, tuple[int, int]]:
    """Bytes received and sent by each network device."""
    lines = (line.partition(":") for line in read(proc / "net/dev").splitlines()[2:])
    rows = ((name.strip(), rest.split()) for name, _, rest in lines)
    return {name: (int(row[0]), int(row[8])) for name, row in rows if len(row) >= 9}


def process_ids(proc: Path = PROC) -> list[int]:
    with suppress(OSError):
        return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]
    return []


def process(pid: int, proc: Path = PROC) -> Process | None:
    """None where there is no such process. The name may hold spaces and parentheses itself; the last one ends it."""
    head, _, tail = read(proc / str(pid) / "stat").rpartition(")")
    fields = tail.split()
    return Process(head.partition("(")[2], fields) if len(fields) > 19 else None
