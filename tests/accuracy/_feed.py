"""Faults of known size for the feed: a read limit by cgroup, a busy loop on every core, an exact software rate."""

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

ROOT = Path(__file__).resolve().parents[2]
BLKIO = Path("/sys/fs/cgroup/blkio")
UNIFIED = Path("/sys/fs/cgroup")
#: ResNet-50 on an H100 as MLPerf Storage publishes it: 400 samples of 114,660 bytes every 0.224 s.
DEMAND = 400 * 114_660 / 0.224


def device_of(folder: Path) -> str:
    """major:minor of the whole disk below a folder, because that is what is limited."""
    number = os.stat(folder).st_dev
    part = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    whole = part.parent if (part / "partition").exists() else part
    return (whole / "dev").read_text().strip()


@contextmanager
def read_limit(folder: Path, rate: float | None) -> Iterator[Sequence[str]]:
    """A command's prefix under which reads from the folder's disk are limited to ``rate`` bytes a second."""
    if rate is None:
        yield []
        return
    first = BLKIO if BLKIO.is_dir() else UNIFIED
    group = first / f"aiready-bench-accuracy-{os.getpid()}"
    group.mkdir()
    try:
        _limit(group, device_of(folder), int(rate))
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    finally:
        group.rmdir()


def _limit(group: Path, device: str, rate: int) -> None:
    if (group / "blkio.throttle.read_bps_device").exists():
        (group / "blkio.throttle.read_bps_device").write_text(f"{device} {rate}")
    else:
        (group.parent / "cgroup.subtree_control").write_text("+io")
        (group / "io.max").write_text(f"{device} rbps={rate}")


@contextmanager
def hogs() -> Iterator[None]:
    """A busy loop for every core."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def bench(folder: Path, *options: str, prefix: Sequence[str] = (), timeout: float = 240.0) -> dict[str, Any]:
    """The run document of ``bench run --probe feed`` on that folder."""
    with tempfile.TemporaryDirectory() as home:
        argv = [
            *prefix, sys.executable, "-m", "bench", "run", "--probe", "feed", "--storage", str(folder), "--json",
            "--results", home, "--exit-zero", *options,
        ]  # fmt: skip
        env = {**os.environ, "BENCH_LOCK": f"{home}/lock"}
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench run ended with {done.returncode}: {done.stderr[-2000:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def starvation(document: dict[str, Any], component: str = "total") -> tuple[float | None, str]:
    """The measured share, and why it is invalid or missing, if it is."""
    (result,) = [r for r in document["results"] if r["probe"] == "feed"]
    for m in result["measurements"]:
        if m["metric"] == "starvation_ratio" and m["labels"]["component"] == component:
            return float(m["value"]), m.get("invalid") or ""
    return None, result.get("reason") or "not measured"


def child(specification: dict[str, Any], prefix: Sequence[str] = (), timeout: float = 120.0) -> str:
    """What the load program says to a specification."""
    argv = [*prefix, sys.executable, "-m", "probes.feed.load.main", json.dumps(specification)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the load program ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
