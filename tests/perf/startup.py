"""How long the command takes to say anything, over ``import typer``: `bench --help`, and `bench gate` on a stored run.

In turn, in one run, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.golden.recorded import lay_out

ROUNDS = 15
#: At most so many times what `python -c "import typer"` takes. typer, pydantic and rich alone are 2.6; then come the
#: model of a run, the probes' declarations, the judgement and the screen.
LIMITS = {"bench --help": 2.0, "bench gate": 4.0}

#: Compiled once and kept, as where it is installed, whatever the shell says.
ENV = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(argv: list[str], folder: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(argv, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, env=ENV)
    assert done.returncode in (0, 1, 3), argv
    return time.perf_counter() - started


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder)
        run = next((folder / "results").rglob("*.json"))
        floor = [sys.executable, "-c", "import typer"]
        ours = {
            "bench --help": [sys.executable, "-m", "bench", "--help"],
            "bench gate": [sys.executable, "-m", "bench", "gate", str(run), "--results", "results"],
        }
        for argv in (floor, *ours.values()):  # what is compiled once is not what is measured
            seconds(argv, folder)
        rounds = [
            (seconds(floor, folder), {what: seconds(argv, folder) for what, argv in ours.items()})
            for _ in range(ROUNDS)
        ]
    broken = 0
    for what, limit in LIMITS.items():
        middle = statistics.median(took[what] / least for least, took in rounds)
        print(f"{what} / import typer: {middle:.2f} (median of {ROUNDS} rounds; at most {limit})")
        broken += middle > limit
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
