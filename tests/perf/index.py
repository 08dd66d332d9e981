"""Thousands of stored runs: how long a gate against the baseline takes, the index takes to make, and its memory.

``python -m tests.perf.index [--runs 10000]`` prints a table with the growth from a tenth of it; ends with status 1 when
a claim fails: warm gate under 1 s, rebuild under 10 s, memory under 500 MB, at 10,000 runs of 30 metrics. Each time is
the best of some, as it was by the clock and by the processor; the claims are of the processor's time, because a machine
that is busy with other things stretches the clock's.
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
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.judge.baseline.make import LATENCY, P99, PROFILE, READ, SEQUENTIAL, START, document, measurement, store

HOSTS, METRICS = 20, 30
_CHILD = (
    "import sys, resource, time\n"
    "from bench.__main__ import main\n"
    "sys.argv = ['bench', *sys.argv[1:]]\n"
    "try:\n    main()\nfinally:\n"
    "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
    "    print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)\n"
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


@dataclass(frozen=True)
class Cost:
    """What one command took: seconds by the clock and of the processor, megabytes at most."""

    clock: float
    processor: float
    megabytes: float


def gate(root: Path, cache: Path, night: int, *words: str) -> Cost:
    """One ``bench gate --json`` in a process of its own."""
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
    clock = time.perf_counter() - started
    if '"regressions"' not in done.stdout or done.returncode not in (0, 1, 3):
        raise SystemExit(f"bench gate failed: {done.stderr[-500:]}")
    processor, kilobytes = done.stderr.splitlines()[-1].split()
    return Cost(clock, float(processor), int(kilobytes) / 1024.0)


def best(found: list[Cost]) -> Cost:
    """The least of each, but the most memory."""
    clock, processor = min(cost.clock for cost in found), min(cost.processor for cost in found)
    return Cost(clock, processor, max(cost.megabytes for cost in found))


def measure(runs: int) -> tuple[Cost, Cost, Cost]:
    """The gate that finds no cache (best of 2), a warm one, and one without the baseline (best of 5)."""
    root = Path(tempfile.mkdtemp(prefix="bench-perf-"))
    try:
        (root / "p.toml").write_text(PROFILE)
        fill(root, runs)
        night = runs // HOSTS - 1
        cold = best([gate(root, root / f"cache{number}", night, "--baseline") for number in range(2)])
        warm = best([gate(root, root / "cache0", night, "--baseline") for _ in range(5)])
        plain = best([gate(root, root / "cache0", night, "--max-age", "26h") for _ in range(5)])
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return cold, warm, plain


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    runs = parser.parse_args().runs
    print("seconds by the clock (of the processor)")
    print(
        f"{'stored runs':>12}{'index made, gate':>20}{'gate, warm':>16}{'gate --max-age':>16}{'memory':>11}", flush=True
    )
    for count in (runs // 10, runs):
        found = cold, warm, plain = measure(count)
        times = "".join(
            f"{cost.clock:>{width}.2f} ({cost.processor:.2f})" for cost, width in zip(found, (13, 9, 9), strict=True)
        )
        print(f"{count:>12,}{times}{max(cost.megabytes for cost in found):>8.0f} MB", flush=True)
    good = cold.processor < 10.0 and warm.processor < 1.0 and plain.processor < 1.0
    good = good and max(cold.megabytes, warm.megabytes) < 500.0
    print(f"{'ok  ' if good else 'FAIL'} index of {runs:,} runs: made in under 10 s, warm gate under 1 s, under 500 MB")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
