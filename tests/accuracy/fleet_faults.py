"""Three faults in a fleet of four: a port at a fifth, a disk at a half, a CPU that something else burdens.

``python -m tests.accuracy.fleet_faults [TRIALS]``: each trial lays the three on hosts that its seed chooses, runs the
fleet, and prints whom it accuses of what. The claim: each fault is named as what it is, on its host, and nobody else
is accused, in every trial. A trial in which others of this machine took the disk away, so that a host read less than
its throttle let it, is made once more: there the truth was not what was laid. Known truth: token buckets on both ends
of a port, the kernel's block throttle, a busy loop inside of the host's own CPU quota.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.judge.fleet.model import Fleet
from tests.fleet.test_run import drive
from tests.fleet.testbed import Testbed, reason_for_none

TRIALS = 10
_PORT_MBIT, _PORT_SHARE = 100.0, 0.2
_DISK_BYTES, _DISK_SHARE = 24_000_000, 0.5  # far below what the disk does, whoever else uses it
_PERIOD, _QUOTA = 10_000, 3_000  # microseconds: three tenths of a core for each host,
_SHARES = 20_480  # which it gets whatever else this machine does: the truth must hold
_MOST_ATTEMPTS = 3
_PROFILE = """
name = "any"
[[gate]]
metric = "storage_read_bytes_per_second"
min = 1e6
source = "only siblings are compared here"
"""


def lay_faults(hosts: Testbed, seed: int) -> dict[str, int]:
    """Kind -> the number of the host that has it; everything else is alike on all hosts."""
    port, disk, cpu = random.Random(seed).sample(list(hosts.numbers), 3)
    device = f"{os.major(_device(hosts.folder))}:{os.minor(_device(hosts.folder)) & ~15}"
    for i in hosts.numbers:
        hosts.shape(i, _PORT_MBIT * (_PORT_SHARE if i == port else 1.0))
        rate = int(_DISK_BYTES * (_DISK_SHARE if i == disk else 1.0))
        hosts.limit(i, "blkio", "blkio.throttle.read_bps_device", f"{device} {rate}")
        hosts.limit(i, "cpu", "cpu.shares", str(_SHARES))
        hosts.limit(i, "cpu", "cpu.cfs_period_us", str(_PERIOD))
        hosts.limit(i, "cpu", "cpu.cfs_quota_us", str(_QUOTA))
    return {"port": port, "disk": disk, "cpu": cpu}


def _device(folder: Path) -> int:
    return folder.stat().st_dev


def trial(hosts: Testbed, seed: int, folder: Path) -> tuple[set[tuple[str, str]], set[tuple[str, str]], Fleet]:
    """(what was laid, what was accused and confirmed, the fleet)."""
    faults = lay_faults(hosts, seed)
    parts = {"port": "port", "disk": "disk /data", "cpu": "CPU"}
    laid = {(hosts.name(i), parts[kind]) for kind, i in faults.items()}
    with burden(hosts, faults["cpu"]):
        fleet, _, _ = drive(
            hosts, folder, node=["--data", str(hosts.folder), "--cpu"], budget=40.0, confirm=True, profile=_PROFILE,
            pair_bytes=1 << 20, wait=200, echo=False,
        )  # fmt: skip
    return laid, {(o.host, o.part) for o in fleet.outliers if o.level == "act" and o.confirmed}, fleet


def disturbed(hosts: Testbed, disk: int, folder: Path) -> str | None:
    """Who else used the disk so much that what was laid was not so: a host that read less than its throttle let it."""
    for i, name in zip(hosts.numbers, hosts.names, strict=True):
        laid = _DISK_BYTES * (_DISK_SHARE if i == disk else 1.0)
        run = json.loads((folder / "nodes" / f"{name}.json").read_text())
        read = run["results"][0]["measurements"][0]["value"]
        if read < 0.9 * laid:
            return f"{name} read {read / 1e6:.1f} of the {laid / 1e6:.0f} MB/s that were laid"
    return None


class burden:  # noqa: N801 - a context manager, used as a word
    """Something else that computes on the host, within the host's own share of the CPU."""

    def __init__(self, hosts: Testbed, i: int) -> None:
        self._argv = hosts.entering(hosts.name(i), [sys.executable, "-c", "while True: pass"])

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._argv)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)


def files(hosts: Testbed) -> None:
    """A file of its own for each host's disk, on the real file system."""
    for name in hosts.names:
        with (hosts.folder / f"{name}.bin").open("wb") as file:
            file.write(os.urandom(8 << 20))
            file.flush()
            os.fsync(file.fileno())


def main() -> int:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    reason = reason_for_none()
    folder = Path(tempfile.mkdtemp(prefix="fa", dir="/tmp"))
    hosts = Testbed(folder, 4)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is removed
    if reason or not hosts.has_cgroups:
        print(f"not run: {reason or 'no cgroup v1 here'}")
        return 2
    right = 0
    try:
        hosts.up()
        files(hosts)
        for seed in range(trials):
            began = time.monotonic()
            for attempt in range(_MOST_ATTEMPTS):
                run = folder / f"run{seed}-{attempt}"
                laid, accused, fleet = trial(hosts, seed, run)
                why = disturbed(hosts, random.Random(seed).sample(list(hosts.numbers), 3)[1], run)
                if why is None:
                    break
                print(f"trial {seed}: others of this machine disturbed it, once more: {why}", flush=True)
            right += laid == accused
            alone = {(o.host, o.part) for o in fleet.outliers if o.level == "act"} - accused
            print(f"trial {seed}: laid {_text(laid)}; accused {_text(accused)}; once only {_text(alone)}; "
                  f"{fleet.decision.value}; {'right' if laid == accused else 'WRONG'}; "
                  f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
    finally:
        hosts.down()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"fleet faults: {right} of {trials} trials named all three faults and nobody else")
    return 0 if right == trials else 1


def _text(found: set[tuple[str, str]]) -> str:
    return ", ".join(f"{host} {part}" for host, part in sorted(found)) or "nobody"


if __name__ == "__main__":
    sys.exit(main())
