"""The endpoint probe against a server of known service times: ``python -m tests.accuracy.endpoint_oracle``.

The server logs when each chunk left, by the one monotonic clock of the machine. Claims: counts are exact with chunks of
1, 3 and 7 tokens and usage at the end, continuous or absent; times to the first token and between chunks are within
2 ms of the log in the median and 5 ms at the 99th percentile, where the client does not call itself the limit; a stall
of a second is charged to every request that was scheduled into it; and chunks that are left out are found.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.judge.statistics import quantile
from probes.common.pipe import of
from probes.endpoint.parse import doubt
from probes.endpoint.records import SelfCheck
from tests.probes.endpoint.harness import Loaded, loaded, simulated, wrong

MEDIAN, P99, TRIES = 0.002, 0.005, 3


def errors(load: Loaded, truth: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Seconds by which each first token, and each time between chunks, differs from the log."""
    served = sorted(truth[-len(load.held) :], key=lambda entry: entry["chunks"][0])
    answers = sorted(load.held, key=lambda answer: answer.chunks[0])
    firsts, gaps = [], []
    for answer, entry in zip(answers, served, strict=True):
        firsts.append(abs(load.window.began + answer.chunks[0] - entry["chunks"][0]))
        theirs = [b - a for a, b in pairwise(entry["chunks"])]
        gaps += [abs(mine - its) for mine, its in zip(answer.gaps, theirs, strict=True)]
    return firsts, gaps


def case(folder: Path, size: int, usage: str) -> bool:
    strict = () if usage == "continuous" else ("continuous_usage_stats",)
    for _ in range(TRIES):
        with simulated(folder, size=size, usage=usage, strict=strict, first=0.05, gap=0.008) as server:
            load = loaded(server.url, output_tokens=42, enough=400, seconds=20.0, self_check=4.0)
            truth = server.truth()
        counts = wrong(load, truth)
        firsts, gaps = errors(load, truth)
        said = doubt(load.window, load.held, next(iter(of(load.records, SelfCheck)), None))
        figures = [quantile(values, q) for values in (firsts, gaps) for q in (0.5, 0.99)]
        good = all(value <= limit for value, limit in zip(figures, (MEDIAN, P99) * 2, strict=True))
        if counts or good or not said:
            break
    cells = [str(size), usage, str(len(load.held)), "exact" if not counts else counts[0]]
    cells += [f"{1e3 * value:.2f}" for value in figures]
    print("| " + " | ".join([*cells, said or "valid"]) + " |", flush=True)
    return not counts and (good or said is not None)


def stall(folder: Path) -> bool:
    with simulated(folder, stall_at=75, stall=1.0) as server:
        load = loaded(server.url, enough=100, seconds=5.0)
        entry = next(entry for entry in server.truth() if entry["n"] == 75)
    over = entry["arrived"] + 1.0 - load.window.began
    into = [answer for answer in load.held if over - 1.0 < answer.scheduled < over]
    charged = [a for a in into if a.first_token is not None and a.first_token >= over - a.scheduled - 1e-3]
    print(f"a stall of 1 s: {len(charged)} of {len(into)} requests that were scheduled into it are charged with it")
    return len(charged) == len(into) >= 20


def main() -> int:
    print(
        "| tokens a chunk | usage | requests | counts | first token, ms off: p50 | p99 | between chunks: p50 | p99 | |"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = [case(folder, size, usage) for usage in ("end", "continuous", "absent") for size in (1, 3, 7)]
        good.append(stall(folder))
        with simulated(folder, omit=1) as server:
            load = loaded(server.url)
            missed = len(wrong(load, server.truth()))
        print(f"a chunk left out of each answer: {missed} differences found in {len(load.held)} answers")
        good.append(missed >= len(load.held))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
