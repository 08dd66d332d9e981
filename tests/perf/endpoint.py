"""The client of the endpoint probe on one core: 500 streams at once, 2,000 chunks a second, how late it stamps them.

Against an echo of its own, which is on the other core and says when each chunk left. Where this machine cannot, the
client has to say so itself: the figures of a run would be invalid, not slow.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

from bench.judge.statistics import quantile
from bench.measure.tools import python_environment
from probes.endpoint.parse import MOST_SHARE_OF_HIGHEST
from tests.forks import serving

STREAMS, RATE, LIMIT, SECONDS, TRIES = 500, 2000.0, 0.005, 6.0, 3


def client(port: int) -> int:
    """In a process of its own, bound to one core."""
    from probes.endpoint.load.clock import StampingSelector
    from probes.endpoint.load.self_check import checked

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    stamps = StampingSelector()
    worked = time.process_time()
    found = asyncio.SelectorEventLoop(stamps).run_until_complete(checked(stamps, port, STREAMS, RATE, SECONDS))
    middle, late = (quantile(found.delays, q) * 1e3 for q in (0.5, 0.99))
    carried = len(found.delays) >= 0.9 * RATE * min(1.5, SECONDS / 3)
    valid = late < LIMIT * 1e3 and carried
    print(f"{STREAMS} streams, {len(found.delays)} chunks at {RATE:.0f}/s: late by {middle:.2f} ms in the median, "
          f"{late:.2f} ms at the p99 (under {LIMIT * 1e3:g}); {time.process_time() - worked:.1f} s of CPU")  # fmt: skip
    more = "at least " if not found.reached else ""
    print(f"highest rate read on time: {more}{found.highest:.0f} chunks/s; a run may ask {MOST_SHARE_OF_HIGHEST:.0%}")
    print("holds" if valid else "INVALID: this machine cannot, or is busy; a run says client_limited here")
    return 0 if valid else 1


def main() -> int:
    """Up to three times: what else the machine does is not the client's."""
    status = 1
    for _ in range(TRIES):
        with serving("probes.endpoint.load.echo") as port:
            argv = [sys.executable, "-m", "tests.perf.endpoint", str(port)]
            status = subprocess.run(argv, env={**os.environ, **python_environment()}, check=False).returncode
        if status == 0:
            break
    return status


if __name__ == "__main__":
    sys.exit(client(int(sys.argv[1])) if sys.argv[1:] else main())
