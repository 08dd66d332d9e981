"""Starvation by a read limit of known size: ``python -m tests.accuracy.feed_starvation [quick|standard|hogs|cpu ...]``.

Storage is limited by a cgroup to what leaves a ResNet-50 on an H100 short of 20, 50 and 80 %; the truth is
``1 - rate / demand``. Claims: within 1 point with standard effort and 3 with quick, under 1 when nothing is limited,
and the bottleneck right in every case; with a busy loop on every core within 2 points, or INCONCLUSIVE. The CPU as
a stand-in is held to its own demand of the same run; a run in which that drifted is INCONCLUSIVE and made again.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from tests.accuracy._feed import DEMAND, bench, hogs, read_limit, starvation

CASES = (0.8, 0.5, 0.2, 0.0)
CPU_ATTEMPTS = 3
POINTS = {"quick": 0.03, "standard": 0.01, "hogs": 0.02}


def measure(folder: Path, missing: float, kind: str) -> bool:
    """One line of the table; whether the claim held."""
    effort = "standard" if kind == "standard" else "quick"
    rate = (1.0 - missing) * DEMAND if missing else None
    with read_limit(folder, rate) as prefix, hogs() if kind == "hogs" else nullcontext():
        document = bench(
            folder, "--effort", effort, "--accelerator", "emulated:resnet50-h100", "--profile", "batch-inference",
            prefix=prefix,
        )  # fmt: skip
    value, doubt = starvation(document)
    found = document["attribution"]
    error = abs(value - missing) if value is not None else float("inf")
    limit = POINTS[kind] if missing else 0.01
    expected = "storage" if missing else "accelerator"
    decided = not doubt and found["valid"]
    right = decided and error <= limit and found["bottleneck"] == expected
    held = right or (kind == "hogs" and not decided)
    shown = "-" if value is None else f"{100 * value:8.2f}"
    print(
        f"{kind:9s} {100 * missing:6.0f} {shown} {100 * error:7.2f}  {found['bottleneck']:12s} "
        f"{'holds' if held else 'FAILS'} {doubt}",
        flush=True,
    )
    return held


def cpu(folder: Path, missing: float, effort: str, demand: float) -> bool:
    """The CPU as a stand-in: what it demands is measured in the same run, and with it the truth.

    A run in which its own rate drifted says so and decides nothing; then once more. A wrong figure is never allowed.
    """
    rate = (1.0 - missing) * demand
    for _ in range(CPU_ATTEMPTS):
        with read_limit(folder, rate) as prefix:
            document = bench(
                folder, "--effort", effort, "--accelerator", "cpu", "--profile", "batch-inference", prefix=prefix
            )
        value, doubt = starvation(document)
        found = document["attribution"]
        if value is None:
            print(f"cpu {effort}: nothing was measured: {doubt}", flush=True)
            return False
        truth = 1.0 - rate / found["demand_bytes_per_second"]
        right = abs(value - truth) <= POINTS[effort]
        held = right and (bool(doubt) or found["bottleneck"] == "storage")
        print(
            f"cpu {effort[:5]:5s} {100 * truth:6.2f} {100 * value:8.2f} {100 * abs(value - truth):7.2f}  "
            f"{found['bottleneck']:12s} {'FAILS' if not held else 'undecided' if doubt else 'holds'} {doubt}",
            flush=True,
        )
        if not held or not doubt:
            return held
    return False


def cpus(folder: Path, efforts: list[str]) -> list[bool]:
    """What this CPU wants, and then starved of a fifth, a half and four fifths of it."""
    if not efforts:
        return []
    document = bench(folder, "--effort", "quick", "--accelerator", "cpu")
    demand = document["attribution"]["demand_bytes_per_second"]
    print(f"this CPU consumes {demand / 1e6:.0f} MB/s")
    return [cpu(folder, missing, effort, demand) for effort in efforts for missing in CASES if missing]


def measured_again(folder: Path, missing: float, kind: str) -> bool:
    """Once more if it did not hold: a host that others kept busy for the length of one run is not the instrument."""
    return measure(folder, missing, kind) or measure(folder, missing, kind)


def main() -> int:
    kinds = [kind for kind in sys.argv[1:] if kind in POINTS] or list(POINTS)
    emulated = "cpu" not in sys.argv[1:]
    print("effort     truth  measured   error  bottleneck   (per cent, points)")
    with tempfile.TemporaryDirectory() as name:
        held = [measured_again(Path(name), missing, kind) for kind in kinds for missing in CASES if emulated]
        held += cpus(Path(name), [effort for effort in ("quick", "standard") if effort in kinds])
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
