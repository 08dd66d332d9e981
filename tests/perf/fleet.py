"""A large fleet: what the sweep costs beyond the probe's own time, how it grows, and ten thousand documents joined.

``python -m tests.perf.fleet [join|sweep]``. Claims: from 8 to 64 nodes the wall time beyond the probe's own, and the
controller's CPU time, grow at most linearly; 10,000 node documents are joined and judged under 30 s and 2 GB. All 64
hosts, their sshd and the controller share this machine, so the wall time is an upper bound.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fleet.make import judgement, lay, run_of
from tests.fleet.test_run import STORAGE_ONLY, drive
from tests.fleet.testbed import Testbed, reason_for_none

NODES, OWN_SECONDS = (8, 64), 5.0
DOCUMENTS, MOST_SECONDS, MOST_BYTES = 10_000, 30.0, 2e9
_SLACK = 1.2  # of noise on a machine that others use


def sweep(count: int) -> tuple[float, float, int]:
    """(seconds beyond the probe's own, the controller's CPU seconds, nodes that answered)."""
    folder = Path(tempfile.mkdtemp(prefix="fp", dir="/tmp"))
    hosts = Testbed(folder, count)
    try:
        hosts.up()
        before = hosts.cpu_seconds("ctl") if hosts.has_cgroups else 0.0
        began = time.monotonic()
        fleet, _, _ = drive(
            hosts, folder / "run", node=["--seconds", str(OWN_SECONDS)], pairs="none", profile=STORAGE_ONLY,
            budget=60.0, wait=400, echo=False,
        )  # fmt: skip
        wall = time.monotonic() - began - OWN_SECONDS
        cpu = hosts.cpu_seconds("ctl") - before if hosts.has_cgroups else 0.0
        return wall, cpu, sum(node.state.value == "pass" for node in fleet.nodes)
    finally:
        hosts.down()
        shutil.rmtree(folder, ignore_errors=True)


def sweeps() -> bool:
    print("nodes  answered  wall beyond the probe's own  a node  controller CPU  a node")
    found = {}
    for count in NODES:
        wall, cpu, answered = found[count] = sweep(count)
        print(f"{count:5}  {answered:8}  {wall:25.1f} s  {wall / count:4.2f} s  {cpu:12.1f} s  {cpu / count:4.2f} s")
    few, many = (found[count] for count in NODES)
    growth = [many[i] / few[i] if few[i] else 0.0 for i in (0, 1)]
    linear = NODES[1] / NODES[0]
    print(
        f"growth from {NODES[0]} to {NODES[1]}: wall x {growth[0]:.1f}, CPU x {growth[1]:.1f} (linear: x {linear:.0f})"
    )
    return all(one <= linear * _SLACK for one in growth) and all(found[count][2] == count for count in NODES)


def join() -> bool:
    """Joined in a process of its own, so that its memory is its own."""
    folder = Path(tempfile.mkdtemp(prefix="fj", dir="/tmp"))
    try:
        names = [f"node{i:05d}" for i in range(DOCUMENTS)]
        for name in names:
            lay(folder / "nodes", run_of(name, more=60))
        (folder / "hosts.txt").write_text("\n".join(names))
        done = subprocess.run(
            [sys.executable, "-m", "tests.perf.fleet", "child", str(folder)], capture_output=True, text=True, check=True
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = json.loads(done.stdout)
    print(
        f"{found['nodes']:,} documents joined and judged in {found['seconds']:.1f} s ({found['cpu']:.1f} s of CPU), "
        f"{found['bytes'] / 1e9:.2f} GB; at most {MOST_SECONDS:.0f} s and {MOST_BYTES / 1e9:.0f} GB"
    )
    return bool(found["seconds"] < MOST_SECONDS and found["bytes"] < MOST_BYTES and found["passed"] == DOCUMENTS)


def child(folder: Path) -> int:
    from bench.fleet.join.folder import join_folder

    began = time.monotonic()
    fleet = join_folder(folder, None, judgement())
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - began,
                "cpu": time.process_time(),
                "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "nodes": len(fleet.nodes),
                "passed": sum(node.state.value == "pass" for node in fleet.nodes),
            }
        )
    )
    return 0


def main() -> int:
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    if what == "child":
        return child(Path(sys.argv[2]))
    reason = reason_for_none()
    if reason:
        print(f"sweep not run: {reason}")
    held = [what == "sweep" or join()]
    held += [sweeps()] if what != "join" and not reason else []
    return 0 if all(held) and not reason else 1


if __name__ == "__main__":
    sys.exit(main())
