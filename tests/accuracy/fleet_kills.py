"""The controller killed at random moments, and resumed: nothing runs twice, nothing finished is lost, nothing is left.

``python -m tests.accuracy.fleet_kills [KILLS [TRANSPORT...]]``: each time a fleet run over four hosts (sweep and
pairs), by ansible, Slurm or Ray, is killed with SIGKILL at a moment that a seed chooses between its start and its usual
end; with everything below it or, over Slurm and Ray, every other time alone. Then it is resumed. The claim: every host
has its one result, every host measured once, every pair has a figure, and at the end of the jobs' own bound no process
of them is left on any host.
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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bench.measure.processes import descendants
from tests.fleet.test_run import starts
from tests.fleet.testbed import Testbed, reason_for_none
from tests.fleet.ways import NAMES, Way, way_over

KILLS = 10
_BUDGET = 20.0


@dataclass(frozen=True)
class Moment:
    """When a controller is killed: so many seconds after its start, and when its log has so many lines. ``alone``: what
    it has started is not killed with it.
    """

    name: str
    seconds: float = 0.0
    lines: int = 0
    alone: bool = False


def log_of(folder: Path) -> list[str]:
    path = folder / "log.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def killed(way: Way, folder: Path, options: Mapping[str, Any], moment: Moment) -> str:
    """Start a run, kill it at that moment; which phase it was in."""
    argv = [sys.executable, "-m", "tests.fleet.drive", str(folder), json.dumps({**way.options, **options})]
    process = subprocess.Popen(
        way.hosts.controller_argv(argv), cwd=way.hosts.folder, env=way.hosts.environment(**way.env),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(moment.seconds)
    end = time.monotonic() + 60
    while len(log_of(folder)) < moment.lines and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    below = [] if moment.alone else descendants(process.pid)
    for pid in (process.pid, *below):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(10)
    entries = log_of(folder)
    return f"{json.loads(entries[-1])['phase']}, {len(entries)} lines" if entries else "before contact"


def left_over(hosts: Testbed) -> list[str]:
    """Processes of jobs that are still there when every bound is over."""
    end = time.monotonic() + _BUDGET + 10
    while time.monotonic() < end:
        found = [name for i, name in zip(hosts.numbers, hosts.names, strict=True) if _busy(hosts, i)]
        if not found:
            return []
        time.sleep(0.5)
    return found


def _busy(hosts: Testbed, i: int) -> bool:
    return hosts.on(i, ["pgrep", "-f", "[n]ode.py"]).returncode == 0


def kills(way: Way, moments: Sequence[Moment]) -> list[bool]:
    """Runs at once, one a moment, each killed and resumed; whether each was completed once and left nothing."""
    with ThreadPoolExecutor(len(moments)) as pool:
        found = list(pool.map(lambda moment, port: one(way, moment, port), moments, count(5300)))
    left = left_over(way.hosts)
    for line, held in found:
        print(f"{line}, left {left or 'none'}: {'holds' if held and not left else 'WRONG'}", flush=True)
    return [held and not left for _, held in found]


def one(way: Way, moment: Moment, port: int) -> tuple[str, bool]:
    """(what became of it, whether it was completed once). ``port``: of the pairs, none the other runs'."""
    hosts, name = way.hosts, f"{way.name}-{moment.name}"
    place = Path(tempfile.mkdtemp(dir=hosts.folder))
    folder, log = place / f"kill-{name}", place / "starts"
    options = {"node": ["--starts", str(log), "--seconds", "2"], "budget": _BUDGET, "port": port}
    phase = killed(way, folder, options, moment)
    kept = {path.name: path.read_bytes() for path in (folder / "nodes").glob("*.json")} if folder.exists() else {}
    fleet, _, _ = way.drive(folder, echo=False, wait=150, **({} if (folder / "plan.json").exists() else options))
    lost = [name for name, data in kept.items() if (folder / "nodes" / name).read_bytes() != data]
    twice = {host: number for host, number in starts(log).items() if number != 1}
    missing = [f"{node.host} {node.state.value} {node.reason}" for node in fleet.nodes if node.state.value != "pass"]
    pairs = sum(pair.state.value == "pass" for pair in fleet.pairs)
    held = not (lost or twice or missing) and pairs == 6 and set(starts(log)) == set(hosts.names)
    line = (
        f"kill {name} after {moment.seconds:4.1f} s ({phase}): {len(kept)} kept, without a result {missing or 'none'}, "
        f"{pairs} of 6 pairs, twice {twice or 'none'}, lost {lost or 'none'}"
    )
    return line, held


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    reason = reason_for_none()
    if reason:
        print(f"not run: {reason}")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="fk", dir="/tmp"))
    hosts = Testbed(folder, 4)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is removed
    held = []
    try:
        hosts.up()
        for name in sys.argv[2:] or NAMES:
            with way_over(name, hosts) as way:
                _, _, span = way.drive(folder / f"whole-{name}", echo=False, wait=150, node=["--seconds", "2"])
                print(f"{name}: a run that nobody kills takes {span:.1f} s here", flush=True)
                moments = [random.Random(seed).uniform(0.3, span) for seed in range(number)]
                for seed, seconds in enumerate(moments):
                    held += kills(way, [Moment(str(seed), seconds, alone=name != "ansible" and seed % 2 == 1)])
    finally:
        hosts.down()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"fleet kills: {sum(held)} of {len(held)} completed once")
    return 0 if held and all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
