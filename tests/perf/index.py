"""Thousands of stored runs: how long a gate against the baseline takes, the index takes to make, and its memory.

``python -m tests.perf.index [--runs 10000]`` prints a table with the growth from a tenth of it; ends with status 1 when
a claim fails: warm gate under 1 s, rebuild under 10 s, memory under 500 MB, at 10,000 runs of 30 metrics.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from tests.baseline.make import LATENCY, P99, PROFILE, READ, SEQUENTIAL, START, document, measurement, store

HOSTS, METRICS = 20, 30
_CHILD = (
    "import sys, resource, time\n"
    "from bench.__main__ import main\n"
    "sys.argv = ['bench', *sys.argv[1:]]\n"
    "try:\n    main()\nfinally:\n"
    "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
)


def fill(root: Path, runs: int) -> None:
    """``runs`` documents of ``METRICS`` metrics, spread over ``HOSTS`` nodes, a night each."""
    noise = random.Random(7)
    for number in range(runs):
        host, night = f"node{number % HOSTS:03d}", number // HOSTS
        found = [
            measurement(READ, 1e9 * math.exp(noise.gauss(0, 0.02)), SEQUENTIAL),
            measurement(LATENCY, 1e-3 * math.exp(noise.gauss(0, 0.02)), P99),
        ]
        for extra in range(METRICS - len(found)):
            labels = {**SEQUENTIAL, "path": f"/data{extra}"}
            found.append(measurement(READ, 1e9 * math.exp(noise.gauss(0, 0.02)), labels))
        store(root, document(night, found, host=host, at=START + timedelta(days=night)))


def gate(root: Path, cache: Path, night: int, *words: str) -> tuple[float, float]:
    """Seconds and megabytes of one ``bench gate --json`` in a process of its own."""
    run = f"node000-{night:05d}"
    command = ["gate", run, "--results", str(root), "--profile", str(root / "p.toml"), "--json", *words]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *command],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "BENCH_CACHE": str(cache)},
        check=False,
    )
    seconds = time.perf_counter() - started
    if '"regressions"' not in done.stdout or done.returncode not in (0, 1, 3):
        raise SystemExit(f"bench gate failed: {done.stderr[-500:]}")
    return seconds, int(done.stderr.split()[-1]) / 1024.0


def measure(runs: int) -> tuple[float, float, float, float]:
    """Seconds of the gate that finds no cache, of a warm one and of one without the baseline (medians of 5); MB."""
    root = Path(tempfile.mkdtemp(prefix="bench-perf-"))
    try:
        (root / "p.toml").write_text(PROFILE)
        fill(root, runs)
        night = runs // HOSTS - 1
        cold, most = gate(root, root / "cache", night, "--baseline")
        warm = [gate(root, root / "cache", night, "--baseline") for _ in range(5)]
        plain = [gate(root, root / "cache", night, "--max-age", "26h") for _ in range(5)]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return cold, _middle(warm), _middle(plain), max(most, *(megabytes for _, megabytes in warm))


def _middle(found: list[tuple[float, float]]) -> float:
    return sorted(seconds for seconds, _ in found)[len(found) // 2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    runs = parser.parse_args().runs
    print(f"{'stored runs':>12}{'index made, gate':>19}{'gate, warm':>13}{'--max-age':>12}{'memory':>11}", flush=True)
    for count in (runs // 10, runs):
        cold, warm, plain, megabytes = measure(count)
        print(f"{count:>12,}{cold:>17.2f} s{warm:>11.2f} s{plain:>10.2f} s{megabytes:>8.0f} MB", flush=True)
    good = cold < 10.0 and warm < 1.0 and plain < 1.0 and megabytes < 500.0
    print(f"{'ok  ' if good else 'FAIL'} index of {runs:,} runs: made in under 10 s, warm gate under 1 s, under 500 MB")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
