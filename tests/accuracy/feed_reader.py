"""Our reader against fio on the same files: ``python -m tests.accuracy.feed_reader [DIR]``.

Same files, same block size, same number of requests in flight, past the page cache, alternating ABBA so that a drift
of the device hits both alike. Claim: the median of the pairs' ratios (ours / fio) is at least 0.97.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.judge.statistics import median_interval
from probes.feed.rates import rate
from tests.accuracy._feed import child

BLOCK, DEPTH, PAIRS, SECONDS = 1 << 20, 16, 8, 3.0
LIMIT = 0.97


def lay_out(folder: Path) -> list[str]:
    files = [str(folder / f"data.{index}") for index in range(4)]
    for file in files:
        argv = [
            "fio", "--name=lay", f"--filename={file}", "--size=256m", "--rw=write", "--bs=1m", "--direct=1",
            "--refill_buffers", "--randrepeat=0", "--fallocate=none", "--end_fsync=1", "--output=/dev/null",
        ]  # fmt: skip
        subprocess.run(argv, check=True, timeout=120)
    return files


def by_reader(folder: Path, files: list[str]) -> float:
    """Bytes a second of the fetch arm."""
    row = {"arm": "fetch", "turn": 1, "warm": 1.0, "shortest": SECONDS, "longest": SECONDS}
    text = child(
        {
            "folder": str(folder), "accelerator": "emulated", "sample_bytes": BLOCK, "sample_sd_bytes": 0,
            "samples_per_file": 1, "batch": 1, "count": 1, "demand": 1.0, "data_bytes": 1 << 30, "layout_seconds": 1.0,
            "deadline_seconds": 60.0, "workers": DEPTH, "files": files, "schedule": [row],
        }
    )  # fmt: skip
    (arm,) = [r for r in map(json.loads, text.splitlines()) if r.get("kind") == "arm"]
    assert arm["own_device_bytes"] >= 0.98 * arm["read_bytes"]
    curve, step = arm["curve"], arm["grid_seconds"]
    return rate(curve, step, 1.0 / step, len(curve) - 1) * BLOCK


def by_fio(files: list[str]) -> float:
    """Bytes a second of threads that read synchronously, as ours do."""
    argv = [
        "fio", "--name=x", f"--filename={':'.join(files)}", "--rw=randread", f"--bs={BLOCK}", "--ioengine=psync",
        f"--numjobs={DEPTH}", "--thread", "--direct=1", "--time_based", f"--runtime={SECONDS}", "--ramp_time=1",
        "--norandommap", "--randrepeat=0", "--group_reporting", "--output-format=json",
    ]  # fmt: skip
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120)
    (job,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    return float(job["read"]["bw_bytes"])


def main() -> int:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as name:
        folder = Path(name)
        files = lay_out(folder)
        ratios = []
        for pair in range(PAIRS):
            if pair % 2:
                fio, ours = by_fio(files), by_reader(folder, files)
            else:
                ours, fio = by_reader(folder, files), by_fio(files)
            ratios.append(ours / fio)
            print(f"ours {ours / 1e6:7.0f} MB/s   fio {fio / 1e6:7.0f} MB/s   ratio {ours / fio:.3f}", flush=True)
    value, (low, high) = median_interval(ratios)
    held = value >= LIMIT
    print(f"median ratio {value:.3f} [{low:.3f}, {high:.3f}], needed {LIMIT}: {'holds' if held else 'FAILS'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
