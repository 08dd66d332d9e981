"""One arm of the feed: run it, watch it, and say in one JSON object what happened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from probes._feed_rates import steady
from probes.loads import witness
from probes.loads.accelerators import Consumption, Torch
from probes.loads.reader import Reader, Ready, clock

GRID_SECONDS = 0.1
#: After that long without a block the path hangs; a slow one still delivers.
HANG_SECONDS = 15.0
_CHECK_SECONDS = 0.5


class Consumer(Protocol):
    def begin(self) -> None: ...
    def consume(self, item: Ready, reader: Reader, log: Consumption) -> None: ...


class Drain:
    """No accelerator: what is ready is taken at once. The path's own rate."""

    def __init__(self) -> None:
        self._last: float | None = None

    def begin(self) -> None:
        self._last = None

    def consume(self, item: Ready, reader: Reader, log: Consumption) -> None:
        at = item.at if self._last is None else max(item.at, self._last)
        log.add(item.at if self._last is None else self._last, at, item.samples)
        self._last = at
        reader.give_back(item.buffer)


@dataclass(frozen=True, slots=True)
class Length:
    """Seconds of an arm: left out at its begin, needed at least after that, and allowed when it is not flat yet."""

    warm: float
    shortest: float
    longest: float


@dataclass(slots=True)
class Witness:
    """A thread that notes, ten times a second, what the kernel says (see `witness`)."""

    device: str | None
    rows: list[tuple[float, int, int | None, float | None, float | None]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._note()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(GRID_SECONDS):
            self._note()

    def _note(self) -> None:
        device = witness.device_read_bytes(self.device)
        row = (clock(), witness.own_read_bytes(), device, witness.pressure("cpu"), witness.pressure("io"))
        self.rows.append(row)

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._note()


def run(
    name: str,
    turn: int,
    consumer: Consumer,
    make_reader: Callable[[], Reader],
    length: Length,
    device: str | None,
    ceiling: float = float("inf"),
) -> dict[str, Any]:
    """Feed ``consumer`` from a new reader until its rate is flat or ``length`` is used up; the arm's record.

    Raises TimeoutError when the path hangs, OSError when a read fails.
    """
    watch, log = Witness(device), Consumption()
    watch.start()
    consumer.begin()
    reader = make_reader()
    try:
        ended = _consume(consumer, reader, log, length, ceiling)
    finally:
        seconds = reader.close()
        watch.stop()
    return {
        "kind": "arm", "arm": name, "turn": turn, "grid_seconds": GRID_SECONDS,
        "warm_seconds": length.warm, "shortest_seconds": length.shortest,
        "curve": [round(value, 4) for value in curve(log, reader.started, ended)],
        "read_bytes": reader.read_bytes, "seconds": round(seconds, 4),
        **_waits(log), **_kernel(watch, reader, seconds),
    }  # fmt: skip


def resident(device: Torch, turn: int, length: Length) -> dict[str, Any]:
    """The accelerator on an input that it already has: what it consumes when nothing keeps it waiting."""
    log = Consumption()
    begin = clock()
    while clock() < begin + length.warm + length.shortest:
        log.add(*device.step(device.resident), float(device.batch))
    values = curve(log, begin, clock())
    found = steady(values, GRID_SECONDS, length.warm, length.shortest)
    return {
        "kind": "arm", "arm": "resident", "turn": turn, "grid_seconds": GRID_SECONDS, "warm_seconds": length.warm,
        "shortest_seconds": length.shortest, "curve": [round(value, 4) for value in values],
        "rate": found.rate if found else 0.0, "seconds": round(clock() - begin, 4), "steps": len(log.starts),
    }  # fmt: skip


def _consume(consumer: Consumer, reader: Reader, log: Consumption, length: Length, ceiling: float) -> float:
    begin = reader.started
    check = begin + length.warm + length.shortest
    last = begin + length.warm + length.longest
    while True:
        consumer.consume(reader.get(HANG_SECONDS), reader, log)
        now = clock()
        if now >= check:
            if now >= last or _is_flat(log, begin, now, length, ceiling):
                return now
            check = now + _CHECK_SECONDS


def _is_flat(log: Consumption, begin: float, now: float, length: Length, ceiling: float) -> bool:
    found = steady(curve(log, begin, now), GRID_SECONDS, length.warm, length.shortest, ceiling)
    return found is not None and found.flat


def curve(log: Consumption, begin: float, end: float) -> list[float]:
    """Cumulative samples on the grid from ``begin`` to ``end``; work in progress counts by its finished share."""
    if not log.starts:
        return []
    done = np.concatenate([[0.0], np.cumsum(log.samples)])
    times = np.empty(2 * len(log.starts))
    times[0::2], times[1::2] = log.starts, log.ends
    values = np.empty_like(times)
    values[0::2], values[1::2] = done[:-1], done[1:]
    grid = np.arange(begin, end, GRID_SECONDS)
    return [float(value) for value in np.interp(grid, times, values)]


def _waits(log: Consumption) -> dict[str, Any]:
    if not log.waits:
        return {"waits": 0}
    ordered = sorted(log.waits)
    pick = [ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.50, 0.99)]
    return {"waits": len(ordered), "wait_p50_seconds": round(pick[0], 6), "wait_p99_seconds": round(pick[1], 6)}


def _kernel(watch: Witness, reader: Reader, seconds: float) -> dict[str, Any]:
    first, last = watch.rows[0], watch.rows[-1]
    waits = reader.wait_seconds
    return {
        "own_device_bytes": last[1] - first[1],
        "device_bytes": None if last[2] is None or first[2] is None else last[2] - first[2],
        "run_queue_wait_ratio": round(sum(waits) / len(waits) / seconds, 5) if waits and seconds > 0 else None,
        "cpu_pressure_ratio": _share(first[3], last[3], last[0] - first[0]),
        "io_pressure_ratio": _share(first[4], last[4], last[0] - first[0]),
        "device_curve": _rates([(row[0], row[1]) for row in watch.rows]),
    }


def _share(first: float | None, last: float | None, seconds: float) -> float | None:
    return None if first is None or last is None or seconds <= 0 else round((last - first) / seconds, 4)


def _rates(rows: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
    """(seconds since the arm began, bytes a second) between the notes."""
    begin = rows[0][0]
    return [(round(b[0] - begin, 2), round((b[1] - a[1]) / (b[0] - a[0]), 0)) for a, b in pairwise(rows) if b[0] > a[0]]
