"""Which share of a run's time a tool was measuring: 0.8 at least, and the run within its bound.

From the run's evidence: seconds in which a tool ran, over the whole; servers do not count, and from each program that
uses torch the time of its import is taken off, as measured here. The rest is start-up, settling and cleaning up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMITS = {"quick": 90.0, "standard": 300.0}
LEAST_SHARE = 0.8


def measure(effort: str, folder: Path) -> tuple[float, float]:
    """(wall seconds of ``bench run``, seconds in which a recorded tool ran)."""
    argv = [sys.executable, "-m", "bench", "run", "--effort", effort, "--exit-zero", "--quiet"]
    started = time.monotonic()
    subprocess.run([*argv, "--results", str(folder), "--storage", str(folder)], check=True)
    wall = time.monotonic() - started
    index = next(folder.glob("runs/*/*.raw/tools.jsonl"))
    calls = [json.loads(line) for line in index.read_text().splitlines()]
    torch = [call for call in calls if call["probe"] in ("inference", "feed") and call["seconds"] > 1]
    return wall, sum(call["seconds"] for call in calls if not call["server"]) - len(torch) * import_seconds()


def import_seconds() -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - started


def main() -> int:
    good = True
    for effort, limit in LIMITS.items():
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            wall, tool = measure(effort, Path(folder))
        fits = wall <= limit and tool / wall >= LEAST_SHARE
        good = good and fits
        print(f"--effort {effort}: {wall:.0f} s (at most {limit:.0f}), a tool measured in {tool / wall:.2f} of it")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
