"""How many runs of a healthy machine decide: ``python -m tests.accuracy.feed_validity [RUNS]``, 20 by default.

Claim: of 20 quick runs on a quiet machine without a GPU, whose CPU stands in for one, at least 19 are valid: the
accelerator's own drift widens intervals and voids nothing. On a machine that is not quiet it proves nothing; the load
is printed beside each run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.accuracy._feed import bench

SHARE = 0.95
_SHOWN = ("inference_samples_per_second", "starvation_ratio", "storage_headroom_ratio")


def line(document: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the run is valid, and what it says."""
    (result,) = [r for r in document["results"] if r["probe"] == "feed"]
    measured = [m for m in result["measurements"] if m["metric"] in _SHOWN]
    doubts = dict.fromkeys(m["invalid"] for m in measured if m["invalid"])
    found = {m["labels"].get("component") or m["labels"].get("stage") or "headroom": m for m in measured}
    said = [
        f"{name} {_interval(found[name]['interval'])}" for name in ("resident", "total", "headroom") if name in found
    ]
    valid = bool(measured) and not doubts and document["attribution"]["valid"]
    seconds, bottleneck = result["duration_seconds"], document["attribution"]["bottleneck"]
    return valid, f"{seconds:5.1f} s  {bottleneck:12s} {'; '.join(said)}  {'; '.join(doubts)}"


def _interval(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.3g}, {ends[1]:.3g}]"


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    good = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, runs + 1):
            valid, text = line(bench(Path(folder), "--effort", "quick", "--accelerator", "cpu"))
            good += valid
            print(
                f"{number:3d}  load {os.getloadavg()[0]:4.1f}  {'valid' if valid else 'VOID ':5s}  {text}", flush=True
            )
    print(f"{good} of {runs} valid; claimed: {SHARE:.0%} on a quiet machine")
    return 0 if good >= SHARE * runs else 1


if __name__ == "__main__":
    sys.exit(main())
