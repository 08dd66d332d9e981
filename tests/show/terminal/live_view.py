"""Drives the display as the runner does, with hostile text. Started by a test, on a terminal or on none."""

from __future__ import annotations

import time

from bench.measure.probe import Progress
from bench.model import Outcome, ProbeResult
from bench.show.terminal.progress import listener
from tests.show.export.sample import HOSTILE


def main() -> None:
    failed = ProbeResult(probe="inference", outcome=Outcome.FAILED, reason=f"x: {HOSTILE} {'long ' * 40}")
    with listener({"storage": 2.0, "inference": 2.0}) as listen:
        listen(Progress("storage", f"{HOSTILE} {'long ' * 40}", 0.2))
        time.sleep(0.3)
        listen(Progress("storage", "sequential read: 1.2 GB/s", 0.5))
        time.sleep(0.4)
        listen(Progress("inference", "", 1.0, failed))


if __name__ == "__main__":
    main()
