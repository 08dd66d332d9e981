"""Claims: open-loop counts equal the oracle's, times lie within a scheduler tick of it, and a planted coordinated
omission is caught.

The server's service times are known: it spins for them on this machine's own clock. The oracle (tests/inference/
oracle.py) shares no code with the loop. A tick is 4 ms (CONFIG_HZ=250, the slowest in use on servers).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence

from probes.loads.inference_host import waited
from probes.loads.inference_serve import WallClock
from probes.loads.serving import OpenLoop, Served, poisson_arrivals
from tests.inference import oracle
from tests.inference.test_serving import ClockFromService

TICK = 0.004
PREFILL, DECODE = 100_000, 1_000_000  # nanoseconds a token
SLOTS, CHUNK, RATE, SECONDS = 4, 64, 40.0, 8.0


class Spinning:
    """Takes exactly its service time, by the clock and not by sleeping."""

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def _spin(self, nanoseconds: int) -> None:
        end = time.perf_counter_ns() + nanoseconds
        while time.perf_counter_ns() < end:
            pass

    def prefill(self, request: Served, count: int) -> None:
        self._spin(PREFILL * count)

    def decode(self, running: Sequence[Served]) -> None:
        self._spin(DECODE * len(running))


def window(loop: type[OpenLoop]) -> tuple[list[Served], list[oracle.Truth]]:
    arrivals = poisson_arrivals(RATE, SECONDS - 0.5, 64, 12, seed=11)
    known = [(round(a.at * 1e9), a.prompt, a.output) for a in arrivals]
    truth = oracle.batched(known, PREFILL, DECODE, SLOTS, CHUNK, round(SECONDS * 1e9))
    return loop(WallClock(), Spinning(SLOTS), arrivals, CHUNK).run(SECONDS), truth


def errors(served: list[Served], truth: list[oracle.Truth]) -> list[float]:
    """Seconds by which each first token's distance from the *scheduled* arrival differs from the oracle's."""
    pairs = [(s, t) for s, t in zip(served, truth, strict=True) if s.tokens and t.tokens]
    return [abs((s.tokens[0] - s.arrival.at) - (t.tokens[0] - t.scheduled) / 1e9) for s, t in pairs]


def main() -> int:
    before = waited()
    served, truth = window(OpenLoop)
    delay = waited().since(before)["delay_ratio"]
    counts = [len(s.tokens) for s in served] == [len(t.tokens) for t in truth]
    middle, worst = statistics.median(errors(served, truth)), max(errors(served, truth))
    print(f"counts: {sum(len(s.tokens) for s in served)} tokens of {len(served)} requests, "
          f"{'equal to' if counts else 'DIFFERENT FROM'} the oracle's")  # fmt: skip
    print(f"time to first token: median {middle * 1e3:.3f} ms, worst {worst * 1e3:.3f} ms from the oracle's "
          f"(the median within a tick of {TICK * 1e3:.0f} ms); own run-queue delay {delay or 0.0:.2%}")  # fmt: skip
    planted, truth = window(ClockFromService)
    shift = statistics.fmean(errors(planted, truth))
    caught = shift > 5 * middle
    print(f"a planted coordinated omission: {shift * 1e3:.1f} ms off in the mean, {'caught' if caught else 'MISSED'}")
    return int(not (counts and middle <= TICK and caught))


if __name__ == "__main__":
    sys.exit(main())
