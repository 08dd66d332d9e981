"""One arm of the feed: run it, watch it, and make one record of what happened."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from bench.measure.procfs import stalled_seconds
from probes.common import io_counters
from probes.feed.load.accelerators import Consumer, Consumption
from probes.feed.load.reader import Feed, clock
from probes.feed.plan import Row
from probes.feed.rates import steady
from probes.feed.records import Arm

GRID_SECONDS = 0.1
#: After that long without a block the path hangs; a slow one still delivers.
HANG_SECONDS = 15.0
_CHECK_SECONDS = 0.5
_CLOSE_SECONDS = 20.0
_HUNG_CLOSE_SECONDS = 1.0


class Witness(threading.Thread):
    """Notes what the kernel says: ten times a second the bytes that came and what stalled, at both ends the CPUs."""

    def __init__(self, device: str | None) -> None:
        super().__init__(daemon=True)
        self.delivered = io_counters.Delivered(device)
        self._cpu = (clock(), *io_counters.cpu_seconds())
        self._stopping = threading.Event()
        self._rows = [self._note()]
        self.start()

    def run(self) -> None:
        while not self._stopping.wait(GRID_SECONDS):
            self._rows.append(self._note())

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        self._rows.append(self._note())

    def _note(self) -> tuple[float, float, float | None]:
        """Clock, bytes that came, and the seconds stalled for I/O."""
        return clock(), float(self.delivered.best()), stalled_seconds("io")

    def fields(self, feed: Feed, seconds: float) -> dict[str, Any]:
        """The fields of the record that the kernel answers for."""
        own_bytes, device_bytes, network_bytes = self.delivered.each(feed.device_bytes)
        cpu = (clock(), *io_counters.cpu_seconds())
        passed, node, ours = (now - began for now, began in zip(cpu, self._cpu, strict=True))
        whole = max(1e-9, passed * (os.cpu_count() or 1))
        waits = feed.wait_seconds
        clocks, came, stalled = zip(*self._rows, strict=True)
        return {
            "read_bytes": feed.read_bytes,
            "own_device_bytes": own_bytes,
            "device_bytes": device_bytes,
            "network_bytes": network_bytes,
            "run_queue_wait_ratio": round(sum(waits) / len(waits) / seconds, 5) if waits and seconds > 0 else None,
            "reader_cpu_seconds": round(feed.cpu_seconds, 4),
            "others_cpu_ratio": round(max(0.0, node - ours) / whole, 4),
            "device_curve": _rates(clocks, came),
            "pressure_curve": _rates(clocks, stalled),
        }


def run(
    row: Row,
    consumer: Consumer,
    make_feed: Callable[[], Feed],
    device: str | None,
    ceiling: float = float("inf"),
    **fields: Any,
) -> Arm:
    """Feed ``consumer`` from a new feed until its rate is flat or the time is used up; ``fields`` join the record.

    Raises TimeoutError when the path hangs, OSError when a read fails.
    """
    log, witness = Consumption(), Witness(device)
    consumer.begin()
    feed = make_feed()
    patience = _HUNG_CLOSE_SECONDS
    try:
        ended = _consume(row, consumer, feed, log, ceiling)
        consumer.finish(log)
        patience = _CLOSE_SECONDS
    finally:
        seconds = feed.close(patience)
        witness.stop()
    return _arm(row, log, feed.started, ended, seconds, **witness.fields(feed, seconds), **_waits(log), **fields)


def resident(row: Row, consumer: Consumer) -> Arm:
    """The accelerator on an input that it already has: what it consumes when nothing keeps it waiting."""
    log = Consumption()
    consumer.begin()
    begin = clock()
    while clock() < begin + row.warm + row.shortest:
        consumer.resident(log)
    consumer.finish(log)
    ended = clock()
    return _arm(row, log, begin, ended, ended - begin)


def _arm(row: Row, log: Consumption, begin: float, end: float, seconds: float, **fields: Any) -> Arm:
    return Arm(
        arm=row.arm, turn=row.turn, grid_seconds=GRID_SECONDS, warm_seconds=row.warm, shortest_seconds=row.shortest,
        curve=[round(value, 4) for value in curve(log, begin, end)], seconds=round(seconds, 4),
        **_busy(log, begin + row.warm, end), **fields,
    )  # fmt: skip


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


def _consume(row: Row, consumer: Consumer, feed: Feed, log: Consumption, ceiling: float) -> float:
    check = feed.started + row.warm + row.shortest
    last = feed.started + row.warm + row.longest
    while True:
        consumer.consume(feed.get(HANG_SECONDS), feed, log)
        now = clock()
        if now >= check:
            found = steady(curve(log, feed.started, now), GRID_SECONDS, row.warm, row.shortest, ceiling)
            if now >= last or (found and found.flat):
                return now
            check = now + _CHECK_SECONDS


def curve(log: Consumption, begin: float, end: float) -> list[float]:
    """Cumulative samples on the grid from ``begin`` to ``end``; work in progress counts by its finished share."""
    if not log.starts:
        return []
    done = np.concatenate([[0.0], np.cumsum(log.samples)])
    times = np.stack([log.starts, log.ends], axis=1).ravel()
    values = np.stack([done[:-1], done[1:]], axis=1).ravel()
    return [float(value) for value in np.interp(np.arange(begin, end, GRID_SECONDS), times, values)]


def _waits(log: Consumption) -> dict[str, Any]:
    if not log.waits:
        return {}
    ordered = sorted(log.waits)
    p50, p99 = (round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 6) for q in (0.50, 0.99))
    return {"waits": len(ordered), "wait_p50_seconds": p50, "wait_p99_seconds": p99}


def _rates(clocks: Sequence[float], counts: Sequence[float | None]) -> tuple[tuple[float, float], ...]:
    """(seconds since the arm began, units a second) between the notes that have a count."""
    rows = [(at - clocks[0], count) for at, count in zip(clocks, counts, strict=True) if count is not None]
    return tuple((round(b, 2), round((n - m) / (b - a), 3)) for (a, m), (b, n) in pairwise(rows) if b > a)
