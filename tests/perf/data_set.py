"""A data set of 10,000,000 samples in 10,000 files: seconds and memory to a verdict, over one of a tenth of the files.

A survey costs by the samples that it draws, not by the set: ten times the files may take at most five times as long.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from bench.model import Effort
from probes.data import plan
from probes.data.events import Drawn, Ended, Found, read
from tests.probes.data.sets import describe

FILES, ROWS = 10_000, 1_000
MOST_SECONDS, MOST_BYTES, MOST_RATIO = 60.0, 500e6, 5.0


def make(root: Path, first: int, last: int) -> None:
    for number in range(first, last):
        ids = range(number * ROWS, (number + 1) * ROWS)
        parquet.write_table(pa.table({"id": ids}), root / f"{number:05d}.parquet", compression="none")


def survey(root: Path) -> tuple[float, float]:
    """Seconds, and samples in the set by its own count."""
    effort = Effort.STANDARD
    words = {"seconds": 40, "limit": 0.95, "most": plan.MOST[effort], "seed": 7}
    words |= {"whole-samples": plan.WHOLE_SAMPLES[effort], "whole-bytes": plan.WHOLE_BYTES[effort]}
    words |= {"checksum-bytes": plan.CHECKSUM_BYTES[effort]}
    argv = [sys.executable, "-m", "probes.data.load.survey", str(root), *(f"--{n}={v}" for n, v in words.items())]
    began = time.monotonic()
    events = read(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    took = time.monotonic() - began
    (found,) = (event for event in events if isinstance(event, Found))
    (ended,) = (event for event in events if isinstance(event, Ended))
    drawn = sum(isinstance(event, Drawn) for event in events)
    print(f"{found.files} files, {found.samples:.0f} samples: {drawn} drawn, ended {ended.why}, {took:.1f} s")
    return took, found.samples


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        describe(root, "*.parquet", {"id": "integer"})
        make(root, 0, FILES // 10)
        smaller, _ = survey(root)
        make(root, FILES // 10, FILES)
        larger, samples = survey(root)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"{larger / smaller:.2f} times as long (at most {MOST_RATIO}), {larger:.0f} s (at most {MOST_SECONDS:.0f}), "
          f"{memory / 1e6:.0f} MB in the largest process (at most {MOST_BYTES / 1e6:.0f})")  # fmt: skip
    right = abs(samples / (FILES * ROWS) - 1) < 0.02
    return 0 if right and larger < MOST_SECONDS and memory < MOST_BYTES and larger < MOST_RATIO * smaller else 1


if __name__ == "__main__":
    sys.exit(main())
