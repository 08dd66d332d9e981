"""Claim: a bundle is small enough to copy, and once unpacked ``--help`` starts about as fast as the installed product.

Both start in turn, under the same Python, so that what else the machine does falls on both alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.test_bundle import built

ROUNDS = 11
MOST_MB, MOST_RATIO = 130.0, 1.5


def seconds(argv: list[str], env: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=env)
    return time.perf_counter() - started


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bundle-") as name:
        (Path(name) / "out").mkdir()
        bundle = built(Path(name) / "out")
        env = {**os.environ, "HOME": name, "SHIV_ROOT": name}
        packed = [os.path.realpath(sys.executable), "-s", str(bundle), "--help"]
        installed = [sys.executable, "-m", "bench", "--help"]
        first = seconds(packed, env)
        seconds(installed, env)
        rounds = [(seconds(packed, env), seconds(installed, env)) for _ in range(ROUNDS)]
        size = bundle.stat().st_size / 1e6
    ratio = statistics.median(one / other for one, other in rounds)
    packed_middle, installed_middle = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"{size:.0f} MB (at most {MOST_MB:.0f}); its first start unpacks: {first:.1f} s")
    print(f"--help of the bundle over the installed product's: {ratio:.2f} (at most {MOST_RATIO}; median of {ROUNDS} "
          f"rounds in turn: {packed_middle:.2f} and {installed_middle:.2f} s)")  # fmt: skip
    return int(size > MOST_MB or ratio > MOST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
