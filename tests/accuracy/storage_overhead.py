"""The storage probe's figure over the same fio job run by hand: ``python -m tests.accuracy.storage_overhead [DIR]``.

The two alternate in one run, ABBA, so that a drift of the device hits both alike. As root on cgroup v1 the disk is
held at a limit, which takes the disk's own noise out of the ratio. Prints the median of the pairs' ratios with its
95 % interval; status 1 when the median is more than 1 % from one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.judge.statistics import median_interval
from probes.storage.fio import FioJob
from tests.probes import throttle
from tests.probes.storage import run as storage_run

PAIRS, LIMIT_RATIO = 20, 0.01
LIMIT_BYTES_PER_SECOND = 40_000_000
SECONDS, RAMP = 1.0, 0.4


def by_probe(folder: Path) -> float:
    """Bytes per second as the probe says."""
    with tempfile.TemporaryDirectory() as evidence:
        run = storage_run.run(folder, evidence=Path(evidence, "t.raw"))
    (result,) = run.results
    assert result.measurements, result.reason
    return next(m.value for m in result.measurements if m.metric == "storage_read_bytes_per_second")


def by_hand(folder: Path) -> float:
    """Bytes per second as fio says when somebody types the same job; its file is laid out before the clock runs."""
    command = (
        f"fio --name=x --filename={folder}/hand --size=64m --rw=randread --bs=4k --iodepth=64 --ioengine=io_uring "
        f"--direct=1 --time_based --runtime={SECONDS * 1000:.0f}ms --ramp_time={RAMP * 1000:.0f}ms --norandommap "
        "--randrepeat=0 --fallocate=none --thread --output-format=json"
    )
    done = subprocess.run(command.split(), check=True, capture_output=True, text=True, timeout=60)
    (job,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    return float(job["read"]["bw_bytes"])


def ratios(folder: Path) -> list[float]:
    found = []
    for pair in range(PAIRS):
        if pair % 2:
            hand, probe = by_hand(folder), by_probe(folder)
        else:
            probe, hand = by_probe(folder), by_hand(folder)
        found.append(probe / hand)
    return found


def main() -> int:
    storage_run.shorten([FioJob("randread", 4096, 64)], repeats=1, seconds=SECONDS, ramp=RAMP)
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as name, ExitStack() as stack:
        folder = Path(name)
        by_hand(folder)
        unlimited = throttle.why_not(folder)
        if unlimited is None:
            stack.enter_context(throttle.throttled(folder, LIMIT_BYTES_PER_SECOND))
        median, (low, high) = median_interval(ratios(folder))
    held = f"disk not held ({unlimited})" if unlimited else f"disk held at {LIMIT_BYTES_PER_SECOND / 1e6:.0f} MB/s"
    good = abs(median - 1.0) <= LIMIT_RATIO
    print(
        f"storage probe / fio by hand: {median:.4f} [{low:.4f}, {high:.4f}] over {PAIRS} ABBA pairs, {held}: "
        f"{'within' if good else 'NOT within'} {LIMIT_RATIO:.0%}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
