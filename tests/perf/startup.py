"""How long the command takes to say anything: ``bench --help`` against ``import typer``, in turn, in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

PAIRS = 15
LIMIT = 3.0  # times `python -c "import typer"`


def seconds(argv: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    ours = [sys.executable, "-m", "bench", "--help"]
    floor = [sys.executable, "-c", "import typer"]
    seconds(ours), seconds(floor)
    ratios = [seconds(ours) / seconds(floor) for _ in range(PAIRS)]
    middle = statistics.median(ratios)
    print(f"bench --help / import typer: {middle:.2f} (median of {PAIRS} pairs; at most {LIMIT})")
    return 0 if middle <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
