"""Drives the display as the runner does, with hostile text. Started by a test, on a terminal or on none."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.model import Effort, Outcome, ProbeResult, Request
from bench.show.terminal.progress import listener
from tests.show.export.sample import HOSTILE


@dataclass
class Planned:
    name: str
    measure: object = True

    def time(self, request: Request) -> float:
        return 1.0 * len(request.peers)


@dataclass
class Step:
    probe: str
    text: str
    fraction: float | None = None
    ended: ProbeResult | None = None


def main() -> None:
    failed = ProbeResult(probe="inference", outcome=Outcome.FAILED, reason=f"x: {HOSTILE} {'long ' * 40}")
    request = Request(effort=Effort.QUICK, probes=(), peers=("a", "b"))
    with listener([Planned("storage"), Planned("inference")], request) as listen:
        listen(Step("storage", f"{HOSTILE} {'long ' * 40}", 0.2))
        time.sleep(0.3)
        listen(Step("storage", "sequential read: 1.2 GB/s", 0.5))
        time.sleep(0.4)
        listen(Step("inference", "", 1.0, failed))


if __name__ == "__main__":
    main()
