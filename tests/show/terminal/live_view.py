"""Drives the display as the runner does, with hostile text. Started by a test, on a terminal or on none.

Between two steps it waits for a line on standard input, so that the test has seen the one before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.measure.probe import Progress
from bench.model import Outcome, ProbeResult, Run
from bench.show.matrix import Matrix
from bench.show.terminal.progress import listener
from bench.workflows.judging import concluded
from tests.show.export.sample import HOSTILE
from tests.show.runs import CATALOG, no_gpu


def main() -> None:
    run = no_gpu()
    storage = next(result for result in run.results if result.probe == "storage")
    failed = ProbeResult(probe="inference", outcome=Outcome.FAILED, reason=f"x: {HOSTILE} {'long ' * 40}")

    def so_far(results: Sequence[ProbeResult]) -> Matrix:
        ended = Run(id=run.id, started_at=run.started_at, node=run.node, request=run.request, results=tuple(results))
        return Matrix(concluded(ended, CATALOG), CATALOG.probes)

    steps = (
        Progress("storage", f"{HOSTILE} {'long ' * 40}", 0.2),
        Progress("storage", "sequential read: 1.2 GB/s", 0.5),
        Progress("storage", "ok", 1.0, storage),
        Progress("inference", "decode", None),
        Progress("inference", "", 1.0, failed),
    )
    with listener({"storage": 40.0, "inference": 40.0}, so_far=so_far) as listen:
        for step in steps:
            listen(step)
            sys.stdin.readline()


if __name__ == "__main__":
    main()
