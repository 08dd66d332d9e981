"""Drives the display as the runner does, with hostile text. Started by a test, on a terminal or on none."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from bench.model import Effort, Outcome, ProbeResult
from bench.show.progress import listener
from tests.export.sample import HOSTILE


@dataclass
class Planned:
    name: str
    seconds: dict[Effort, float] = field(default_factory=lambda: dict.fromkeys(Effort, 1.0))
    measure: object = True


@dataclass
class Step:
    probe: str
    text: str
    fraction: float | None = None
    ended: ProbeResult | None = None


def main() -> None:
    failed = ProbeResult(probe="inference", outcome=Outcome.FAILED, reason=f"x: {HOSTILE} {'long ' * 40}")
    with listener([Planned("storage"), Planned("inference")], Effort.QUICK) as listen:
        listen(Step("storage", f"{HOSTILE} {'long ' * 40}", 0.2))
        time.sleep(0.3)
        listen(Step("storage", "sequential read: 1.2 GB/s", 0.5))
        time.sleep(0.4)
        listen(Step("inference", "", 1.0, failed))


if __name__ == "__main__":
    main()
