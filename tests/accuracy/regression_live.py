"""The nightly gate on this machine's real disk: eight nights, a read limit lowered by 30 %, and lifted again.

Every night is a real ``bench run`` of fio. A cgroup limits reads and writes from the start, so that the truth is known;
lowering that of reads must be REGRESSED, with reads named and writes not, and lifting it must be well again. Needs root
and a disk that a cgroup can limit; takes about six minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.accuracy._feed import BLKIO, ROOT, UNIFIED, device_of

LIMIT, LOWERED = 60e6, 0.70
WRITES = 150e6
NIGHTS = 8
PROFILE = """
name = "live"
[[gate]]
metric = "storage_read_bytes_per_second"
labels = { pattern = "sequential" }
min = 1.0
source = "a demonstration"
[[gate]]
metric = "storage_write_bytes_per_second"
labels = { pattern = "sequential" }
min = 1.0
source = "a demonstration"
"""


@contextmanager
def limited(folder: Path, reads: float | None) -> Iterator[Sequence[str]]:
    """A command's prefix under which reads from the folder's disk are limited so, and writes to it to `WRITES`."""
    if reads is None:
        yield []
        return
    group = (BLKIO if BLKIO.is_dir() else UNIFIED) / f"aiready-bench-live-{os.getpid()}"
    group.mkdir()
    try:
        _limit(group, device_of(folder), int(reads))
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    finally:
        group.rmdir()


def _limit(group: Path, device: str, reads: int) -> None:
    if (group / "blkio.throttle.read_bps_device").exists():
        (group / "blkio.throttle.read_bps_device").write_text(f"{device} {reads}")
        (group / "blkio.throttle.write_bps_device").write_text(f"{device} {int(WRITES)}")
    else:
        (group.parent / "cgroup.subtree_control").write_text("+io")
        (group / "io.max").write_text(f"{device} rbps={reads} wbps={int(WRITES)}")


def bench(home: Path, rate: float | None, *words: str) -> subprocess.CompletedProcess[str]:
    """One command with reads from the disk below ``home`` limited."""
    env = {**os.environ, "BENCH_LOCK": f"{home}/lock", "BENCH_CACHE": f"{home}/cache", "BENCH_QUIET_CHECK": "0"}
    with limited(home, rate) as prefix:
        argv = [
            *prefix,
            sys.executable,
            "-m",
            "bench",
            *words,
            "--results",
            f"{home}/results",
            "--profile",
            f"{home}/p.toml",
        ]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400, check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"bench {words[0]} ended with {done.returncode}: {done.stderr[-1500:]}")
    return done


def night(home: Path, rate: float, *more: str) -> int:
    """One stored run; its exit status."""
    words = ("run", "--probe", "storage", "--effort", "quick", "--storage", str(home), "--quiet", *more)
    return bench(home, rate, *words).returncode


def measured(home: Path) -> int:
    """How many stored nights have figures: on a machine that is busy with other things fio may not end in time."""
    runs = [json.loads(path.read_text()) for path in (home / "results/runs").glob("*/*.json")]
    return sum(any(result["measurements"] for result in run["results"]) for run in runs)


def judged(home: Path) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """``bench gate --baseline`` on the newest night: its status, and its gating series by their state."""
    done = bench(home, None, "gate", "--baseline", "--json", *_newest(home), "--detect", "60%")
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in json.loads(done.stdout)["regressions"]:
        found.setdefault(entry["status"], []).append(entry)
    return done.returncode, found


def _newest(home: Path) -> list[str]:
    """The newest night that confirms no other: the last run but for second and third measurements."""
    runs = sorted((home / "results/runs").glob("*/*.json"))
    own = [path for path in runs if "confirms" not in json.loads(path.read_text())["request"]["options"]]
    return [str(own[-1])]


def main() -> int:
    if os.geteuid() != 0:
        print("not shown: limiting a disk takes root")
        return 0
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench-live-") as folder:
        home = Path(folder)
        (home / "p.toml").write_text(PROFILE)
        for _ in range(2 * NIGHTS):
            night(home, LIMIT, "--exit-zero")
            print(f"night {measured(home)} of {NIGHTS} at {LIMIT / 1e6:.0f} MB/s", flush=True)
            if measured(home) == NIGHTS:
                break
        healthy, _ = judged(home)
        lowered = night(home, LIMIT * LOWERED, "--baseline")
        _, bad = judged(home)
        lifted = night(home, LIMIT, "--baseline")
        status, after = judged(home)
    for entry in [entry for state, entries in after.items() for entry in entries if state != "ok"]:
        print(f"lifted: {entry['metric']}: {entry['reason']}")
    named = {entry["metric"] for entry in bad.get("regressed", [])}
    for entry in bad.get("regressed", []):
        print(
            f"REGRESSED {entry['metric']} {entry['labels'].get('block_bytes')}: {100 * entry['drop_ratio']:.1f} % worse"
        )
    claims = {
        "a healthy night is not NO-GO": healthy in (0, 3),
        "30 % less is NO-GO in the run itself, measured twice": lowered == 1,
        "reads are named, writes are not": named == {"storage_read_bytes_per_second"},
        "lifted, nothing is regressed": "regressed" not in after and lifted in (0, 3) and status in (0, 3),
    }
    for claim, good in claims.items():
        print(f"{'ok  ' if good else 'FAIL'} {claim}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
