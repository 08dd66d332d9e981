"""Claims: open-loop counts equal the oracle's, times lie within a scheduler tick of it, and a planted coordinated
omission is caught.

The server spins for its service times on this machine's own clock, and notes what each step really took, so that a
preempted step is known to both sides. The oracle (tests/probes/inference/oracle.py) shares no code with the loop. A
tick is 4 ms (CONFIG_HZ=250). A contended window is void, as in the product, and made again. On a virtual clock, where
nothing preempts, times are equal to the nanosecond: tests/inference.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence

from probes.inference.events import measured
from probes.inference.load.open_loop import OpenLoop, Served, poisson_arrivals
from probes.inference.load.stages import WallClock
from probes.inference.parse import MOST_DELAY_RATIO
from tests.probes.inference import oracle
from tests.probes.inference.test_serving import ClockFromService

TICK = 0.004
PREFILL, DECODE = 100_000, 1_000_000  # nanoseconds a token
SLOTS, CHUNK, RATE, SECONDS = 4, 64, 40.0, 8.0


class Spinning:
    """Takes its service time by the clock and not by sleeping; ``spent`` holds what that came to."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.spent: list[int] = []

    def _spin(self, nanoseconds: int) -> None:
        began = time.perf_counter_ns()
        while time.perf_counter_ns() < began + nanoseconds:
            pass
        self.spent.append(time.perf_counter_ns() - began)

    def prefill(self, request: Served, count: int) -> None:
        self._spin(PREFILL * count)

    def decode(self, running: Sequence[Served]) -> None:
        self._spin(DECODE * len(running))


def window(loop: type[OpenLoop]) -> tuple[list[Served], list[oracle.Truth]]:
    arrivals = poisson_arrivals(RATE, SECONDS - 0.5, 64, 12, seed=11)
    known = [(round(a.at * 1e9), a.prompt, a.output) for a in arrivals]
    server = Spinning(SLOTS)
    served = loop(WallClock(), server, arrivals, CHUNK).run(SECONDS)
    return served, oracle.batched(known, PREFILL, DECODE, SLOTS, CHUNK, round(SECONDS * 1e9), iter(server.spent))


def errors(served: list[Served], truth: list[oracle.Truth]) -> list[float]:
    """Seconds by which each first token's distance from the *scheduled* arrival differs from the oracle's."""
    pairs = [(s, t) for s, t in zip(served, truth, strict=True) if s.tokens and t.tokens]
    return [abs((s.tokens[0] - s.arrival.at) - (t.tokens[0] - t.scheduled) / 1e9) for s, t in pairs]


def quiet_window() -> tuple[list[Served], list[oracle.Truth], float] | None:
    """A window in which the loop did not have to wait for a CPU; None when there was none in five."""
    for _ in range(5):
        found = measured(lambda: {"served and truth": window(OpenLoop)})
        served, truth = found["served and truth"]
        delay = found["delay_ratio"] or 0.0
        if delay <= MOST_DELAY_RATIO:
            return served, truth, delay
        print(f"a window was contended: own run-queue delay {delay:.0%}; made again")
    return None


def main() -> int:
    quiet = quiet_window()
    if quiet is None:
        print("NOT SHOWN: no window was quiet")
        return 1
    served, truth, delay = quiet
    counts = [len(s.tokens) for s in served] == [len(t.tokens) for t in truth]
    middle, worst = statistics.median(errors(served, truth)), max(errors(served, truth))
    print(f"counts: {sum(len(s.tokens) for s in served)} tokens of {len(served)} requests, "
          f"{'equal to' if counts else 'DIFFERENT FROM'} the oracle's")  # fmt: skip
    print(f"time to first token: median {middle * 1e3:.3f} ms, worst {worst * 1e3:.3f} ms from the oracle's "
          f"(the median within a tick of {TICK * 1e3:.0f} ms); own run-queue delay {delay:.2%}")  # fmt: skip
    truth_of_it = truth
    planted, truth = window(ClockFromService)
    shift = statistics.fmean(errors(planted, truth))
    # The same test that the true loop passes: within a tick; and far beyond what the true loop was off in its mean.
    caught = shift > max(TICK, 5 * statistics.fmean(errors(served, truth_of_it)))
    print(f"a planted coordinated omission: {shift * 1e3:.1f} ms off in the mean, {'caught' if caught else 'MISSED'}")
    return int(not (counts and middle <= TICK and caught))


if __name__ == "__main__":
    sys.exit(main())
