"""The load's side of its pipe: one JSON object a line, stages marked so that the parent samples its watchers there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.measure import procfs

_MARK_SECONDS = 0.03  # between the line that opens a stage and its first step: the parent samples its watchers then


def say(event: str, **fields: Any) -> None:
    """One JSON line. Floats keep their digits; a number that is not finite is an error of ours."""
    print(json.dumps({"event": event, **fields}, allow_nan=False), flush=True)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Lines at both ends of a stage, named as the watchers' figures will be: ``inference.decode``."""
    say("begin", stage=name)
    time.sleep(_MARK_SECONDS)
    try:
        yield
    finally:
        say("end", stage=name)


def measured(work: Callable[[], dict[str, Any]], energy: Callable[[], float | None] = lambda: None) -> dict[str, Any]:
    """``work``'s fields, with what the load itself waited for a CPU meanwhile, and the joules that it took."""
    before, joules = waited(), energy()
    fields = work()
    after = energy()
    used = {} if joules is None or after is None else {"joules": after - joules}
    return {**fields, **waited().since(before), **used}


@dataclass(frozen=True, slots=True)
class Waited:
    """Cumulative readings, in seconds; None where the kernel does not say.

    ``delay``: run-queue delay of all threads of this process (/proc/self/task/*/schedstat, field 2, nanoseconds).
    ``pressure``: time in which some task of the node waited for a CPU (/proc/pressure/cpu, microseconds).
    ``steal``: time that the hypervisor gave to others, mean of the CPUs (/proc/stat, field 8, ticks; proc(5)).
    """

    at: float
    delay: float | None
    pressure: float | None
    steal: float | None

    def since(self, before: Waited) -> dict[str, float | None]:
        """Each reading's growth as a ratio of the wall time between the two."""
        wall = max(self.at - before.at, 1e-9)
        return {
            "delay_ratio": _ratio(self.delay, before.delay, wall),
            "pressure_ratio": _ratio(self.pressure, before.pressure, wall),
            "steal_ratio": _ratio(self.steal, before.steal, wall),
        }


def _ratio(after: float | None, before: float | None, wall: float) -> float | None:
    return None if after is None or before is None else max(0.0, after - before) / wall


def waited() -> Waited:
    """A reading now."""
    steal = procfs.cpu_ticks().steal / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)
    return Waited(time.perf_counter(), procfs.own_run_queue_seconds(), procfs.stalled_seconds("cpu"), steal)
