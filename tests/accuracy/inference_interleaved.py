"""Claim: two identical loads, alternated step by step, give a ratio that varies by at most 2 % over ten trials.

The host drifts: a 10 s window of the same load varies by some 7 % even on a quiet machine. Beside the ratio stand the
rates themselves, the ratio of windows one after the other, and how long the load waited for a CPU meanwhile; a trial in
which it waited more than the product allows is contended, and made again.
``python -m tests.accuracy.inference_interleaved [TRIALS] [SECONDS]``
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from probes.inference.events import measured
from probes.inference.load.decoder import Decoder
from probes.inference.parse import MOST_DELAY_RATIO
from probes.inference.shapes import SHAPES

MOST = 0.02
CONTEXT = 64


def variation(values: list[float]) -> float:
    """The coefficient of variation."""
    return statistics.stdev(values) / statistics.fmean(values)


def step_seconds(decoder: Decoder) -> float:
    decoder.positions.fill_(CONTEXT)
    started = time.perf_counter()
    decoder.decode(1, CONTEXT)
    return time.perf_counter() - started


def alternated(first: Decoder, second: Decoder, seconds: float) -> tuple[float, float]:
    """(ratio of the two loads' speeds, rate of the first). Steps in the order A B B A; the median of the fours."""
    end, ratios, times = time.perf_counter() + seconds, [], []
    while time.perf_counter() < end:
        a, b = step_seconds(first), step_seconds(second)
        c, d = step_seconds(second), step_seconds(first)
        ratios.append((b + c) / (a + d))
        times += [a, d]
    return statistics.median(ratios), len(times) / sum(times)


def in_turn(decoder: Decoder, seconds: float) -> float:
    end, count, started = time.perf_counter() + seconds, 0, time.perf_counter()
    while time.perf_counter() < end:
        step_seconds(decoder)
        count += 1
    return count / (time.perf_counter() - started)


def main(trials: int, seconds: float) -> int:
    torch.set_num_threads(1)
    first, second = (Decoder(SHAPES["nano"], "cpu", torch.float32, 1, 128, seed) for seed in (1, 2))
    in_turn(first, 1.0)
    ratios: list[float] = []
    rates, serial, delays, thrown = [], [], [], 0
    while len(ratios) < trials and thrown < 2 * trials:
        found = measured(lambda: {"ratio and rate": alternated(first, second, seconds)})
        ratio, rate = found["ratio and rate"]
        delay = found["delay_ratio"] or 0.0
        if delay > MOST_DELAY_RATIO:
            thrown += 1
            continue
        ratios.append(ratio)
        rates.append(rate)
        delays.append(delay)
        serial.append(in_turn(first, seconds / 4) / in_turn(second, seconds / 4))
    print(f"own run-queue delay: {max(delays, default=0.0):.2%} at most; {thrown} trials thrown away as contended")
    if len(ratios) < trials:
        print(f"NOT SHOWN: only {len(ratios)} of {trials} trials were quiet (delay of at most {MOST_DELAY_RATIO:.0%})")
        return 1
    print(f"interleaved ratio: CV {variation(ratios):.2%} over {trials} trials of {seconds:g} s (at most {MOST:.0%}),"
          f" {min(ratios):.4f} to {max(ratios):.4f}")  # fmt: skip
    print(f"for comparison: one after the other CV {variation(serial):.2%}, the rate itself CV {variation(rates):.2%}")
    return int(variation(ratios) > MOST)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, float(sys.argv[2]) if len(sys.argv) > 2 else 4.0))
