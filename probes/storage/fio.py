"""fio as the storage probe uses it: which jobs, with which arguments (3.28 and later). `parse` reads what it says.

Why the arguments are as they are (each trap was seen with fio 3.33):

- ``--thread``: fio's forked workers leave its session and outlive it; threads die with it.
- The folder is given by ``env --chdir`` and files by bare names: in ``--filename`` fio cuts a path at ``:``, ``#`` and
  ``;`` and then writes somewhere else. Arguments only, never a job file, whose ``exec_prerun`` would run commands.
- ``direct=1`` and ``fallocate=none``, and files written in full with data that does not compress: unwritten extents
  and holes read as zeros at the speed of memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bench.model import Distribution

MIB = 1 << 20
ANOTHER = "give another directory: --storage DIR"
#: fio starts a job 0.1 s after it was made, looks for its end every 0.1 s, and makes the next one 0.1 s later: a job's
#: turn is its seconds, rounded up to tenths, and 0.2 s.
TURN_SECONDS, START_SECONDS = 0.2, 0.1


class FioJob(NamedTuple):
    """One job: ``rw`` as fio calls it; ``depth`` requests of ``block_bytes`` are kept in flight."""

    rw: Literal["read", "write", "randread"]
    block_bytes: int
    depth: int

    @property
    def name(self) -> str:
        return f"{self.rw}-{self.block_bytes // 1024}k-{self.depth}"

    @property
    def side(self) -> Literal["read", "write"]:
        return "write" if self.rw == "write" else "read"

    @property
    def labels(self) -> dict[str, str]:
        return {
            "pattern": "random" if self.rw.startswith("rand") else "sequential",
            "block_bytes": str(self.block_bytes),
            "queue_depth": "1" if self.depth == 1 else "deep",
        }


@dataclass(frozen=True, slots=True)
class IoEngine:
    """How fio asks the kernel. ``psync`` keeps one request in flight a thread, so there depth is made of threads."""

    name: Literal["io_uring", "libaio", "psync"]
    direct: bool

    def workers(self, job: FioJob, cpus: int) -> int:
        """How many threads share the job's depth: one on a small node, up to four where there are CPUs to feed."""
        if self.name == "psync":
            return job.depth
        return max(1, min(4, cpus // 4, job.depth))

    @property
    def arguments(self) -> list[str]:
        return [f"--ioengine={self.name}", f"--direct={int(self.direct)}"]


@dataclass(frozen=True, slots=True)
class StoragePlan:
    """What every round on one directory does: bytes of a file and seconds of a job by side (read, write)."""

    engine: IoEngine
    sizes: Mapping[str, int]
    seconds: Mapping[str, float]
    ramp: float
    cpus: int

    def round_seconds(self, jobs: Sequence[FioJob]) -> float:
        return START_SECONDS + sum(self.seconds[job.side] + self.ramp + TURN_SECONDS for job in jobs)


class Reading(NamedTuple):
    """One job's figures, base units; of the latency the largest, the mean, and all of them in fio's buckets."""

    job: str
    transferred_bytes: int
    bytes_per_second: float
    operations_per_second: float
    longest_seconds: float
    mean_seconds: float
    latency_seconds: Distribution


def command(fio: str, folder: str) -> list[str]:
    """The words that every call begins with."""
    fixed = "--thread --output-format=json+ --eta=never --fallocate=none --randrepeat=0 --group_reporting --disk_util=0"
    return ["env", f"--chdir={folder}", fio, *fixed.split()]


def layout_arguments(engine: IoEngine, files: Mapping[str, int], seconds: float) -> list[str]:
    """Write each file from its start, at most ``seconds`` in all, shared by size. What was written is in the answer."""
    words = [*engine.arguments, "--rw=write", "--bs=1m", "--refill_buffers=1", "--end_fsync=1"]
    words.append("--iodepth=1" if engine.name == "psync" else "--iodepth=16")
    for name, size in files.items():
        limit = _milliseconds(max(0.2, seconds * size / sum(files.values())))
        words += [f"--name={name}", "--stonewall", f"--filename={name}", f"--size={size}", f"--runtime={limit}"]
    return words


def round_arguments(plan: StoragePlan, jobs: Sequence[FioJob]) -> list[str]:
    """Every job once, one after the other."""
    words = [*plan.engine.arguments, "--time_based=1", f"--ramp_time={_milliseconds(plan.ramp)}", "--norandommap=1"]
    words += ["--invalidate=1", "--allow_file_create=0", "--lat_percentiles=1", "--clat_percentiles=0"]
    for job in jobs:
        workers, seconds = plan.engine.workers(job, plan.cpus), plan.seconds[job.side]
        share = plan.sizes[job.side] // workers
        share = share // MIB * MIB or share // job.block_bytes * job.block_bytes
        words += [f"--name={job.name}", "--stonewall", f"--filename={job.side}.dat", f"--rw={job.rw}"]
        words += [f"--bs={job.block_bytes}", f"--iodepth={job.depth // workers}", f"--numjobs={workers}"]
        words += [f"--size={share}", f"--offset_increment={share}", f"--runtime={_milliseconds(seconds)}"]
        words += ["--end_fsync=1"] if job.side == "write" else []
    return words


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
