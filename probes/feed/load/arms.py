"""One arm of the feed: run it, watch it, and say in one JSON object what happened."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from bench.measure.procfs import stalled_seconds
from probes.common import io_counters as witness
from probes.feed.load.accelerators import Consumer, Consumption, Feed
from probes.feed.load.reader import clock
from probes.feed.rates import steady

GRID_SECONDS = 0.1
#: After that long without a block the path hangs; a slow one still delivers.
HANG_SECONDS = 15.0
_CHECK_SECONDS = 0.5
_CLOSE_SECONDS = 20.0
_HUNG_CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Length:
    """Seconds of an arm: left out at its begin, needed at least after that, and allowed when it is not flat yet."""

    warm: float
    shortest: float
    longest: float


@dataclass(slots=True)
class Witness:
    """A thread that notes, ten times a second, what the kernel says (see `witness`).

    Rows: clock, bytes that came, and the seconds stalled for CPUs and for I/O.
    """

    delivered: witness.Delivered
    rows: list[tuple[float, int, float | None, float | None]] = field(default_factory=list)
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
        self.rows.append((clock(), self.delivered.best(), stalled_seconds("cpu"), stalled_seconds("io")))

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._note()


def run(
    name: str,
    turn: int,
    consumer: Consumer,
    make_feed: Callable[[], Feed],
    length: Length,
    device: str | None,
    ceiling: float = float("inf"),
) -> dict[str, Any]:
    """Feed ``consumer`` from a new feed until its rate is flat or ``length`` is used up; the arm's record.

    Raises TimeoutError when the path hangs, OSError when a read fails.
    """
    delivered, log = witness.Delivered(device), Consumption()
    watch = Witness(delivered)
    cpu = _Cpu()
    watch.start()
    consumer.begin()
    feed = make_feed()
    patience = _HUNG_CLOSE_SECONDS
    try:
        ended = _consume(consumer, feed, log, length, ceiling)
        consumer.finish(log)
        patience = _CLOSE_SECONDS
    finally:
        seconds = feed.close(patience)
        watch.stop()
    return {
        **_record(name, turn, length, log, feed.started, ended),
        "read_bytes": feed.read_bytes, "seconds": round(seconds, 4), **_waits(log), **_kernel(watch, feed, seconds),
        **_delivered(delivered, feed), **cpu.shares(),
    }  # fmt: skip


class _Cpu:
    """How much of the node's CPUs this program and everybody else used since it was made."""

    def __init__(self) -> None:
        self._begin = (clock(), witness.cpu_seconds_of_node(), witness.own_cpu_seconds())

    def shares(self) -> dict[str, Any]:
        began, node, own = self._begin
        ours = witness.own_cpu_seconds() - own
        others = max(0.0, witness.cpu_seconds_of_node() - node - ours)
        whole = max(1e-9, (clock() - began) * (os.cpu_count() or 1))
        return {"own_cpu_ratio": round(ours / whole, 4), "others_cpu_ratio": round(others / whole, 4)}


def resident(consumer: Consumer, turn: int, length: Length) -> dict[str, Any]:
    """The accelerator on an input that it already has: what it consumes when nothing keeps it waiting."""
    log = Consumption()
    consumer.begin()
    begin = clock()
    while clock() < begin + length.warm + length.shortest:
        consumer.resident(log)
    consumer.finish(log)
    ended = clock()
    return {**_record("resident", turn, length, log, begin, ended), "seconds": round(ended - begin, 4)}


def _record(name: str, turn: int, length: Length, log: Consumption, begin: float, end: float) -> dict[str, Any]:
    return {
        "kind": "arm", "arm": name, "turn": turn, "grid_seconds": GRID_SECONDS,
        "warm_seconds": length.warm, "shortest_seconds": length.shortest, "steps": len(log.starts),
        "curve": [round(value, 4) for value in curve(log, begin, end)], **_busy(log, begin + length.warm, end),
    }  # fmt: skip


def _busy(log: Consumption, begin: float, end: float) -> dict[str, Any]:
    """The share of the window in which the accelerator computed, clipped to it, and what one sample then took.

    A step at an edge is cut there; were it taken whole or not at all, the error would be the longest step / window.
    """
    if not log.starts or end <= begin:
        return {}
    starts, ends = np.array(log.starts), np.array(log.ends)
    clipped = np.clip(np.minimum(ends, end) - np.maximum(starts, begin), 0.0, None)
    computed = float(np.sum(np.array(log.samples) * clipped / np.maximum(ends - starts, 1e-12)))
    return {
        "busy_ratio": round(float(clipped.sum()) / (end - begin), 6),
        "busy_error_ratio": round(float((ends - starts).max()) / (end - begin), 6),
        "sample_seconds": round(float(clipped.sum()) / computed, 9) if computed > 0 else None,
    }


def _consume(consumer: Consumer, feed: Feed, log: Consumption, length: Length, ceiling: float) -> float:
    begin = feed.started
    check = begin + length.warm + length.shortest
    last = begin + length.warm + length.longest
    while True:
        consumer.consume(feed.get(HANG_SECONDS), feed, log)
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


def _delivered(delivered: witness.Delivered, feed: Feed) -> dict[str, Any]:
    own, device, network = delivered.each(feed.device_bytes)
    return {"own_device_bytes": own, "device_bytes": device, "network_bytes": network}


def _kernel(watch: Witness, feed: Feed, seconds: float) -> dict[str, Any]:
    first, last = watch.rows[0], watch.rows[-1]
    waits = feed.wait_seconds
    return {
        "run_queue_wait_ratio": round(sum(waits) / len(waits) / seconds, 5) if waits and seconds > 0 else None,
        "reader_cpu_seconds": round(feed.cpu_seconds, 4),
        "cpu_pressure_ratio": _share(first[2], last[2], last[0] - first[0]),
        "io_pressure_ratio": _share(first[3], last[3], last[0] - first[0]),
        "device_curve": _rates([(row[0], float(row[1])) for row in watch.rows]),
        "pressure_curve": _rates([(row[0], row[3]) for row in watch.rows if row[3] is not None]),
    }


def _share(first: float | None, last: float | None, seconds: float) -> float | None:
    return None if first is None or last is None or seconds <= 0 else round((last - first) / seconds, 4)


def _rates(rows: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(seconds since the arm began, units a second) between the notes."""
    begin = rows[0][0] if rows else 0.0
    return [(round(b[0] - begin, 2), round((b[1] - a[1]) / (b[0] - a[0]), 3)) for a, b in pairwise(rows) if b[0] > a[0]]
