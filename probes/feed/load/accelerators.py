"""What consumes the blocks: a virtual clock, nothing at all, or a real step (`torch_accelerator`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from probes.feed.load.reader import Buffer, Feed, ReadyBlock, clock, make_buffers

_SHORTEST_SLEEP = 0.0002


@dataclass(slots=True)
class Consumption:
    """What was consumed when: segments of time (perf_counter seconds) in which ``samples`` were computed."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def add(self, start: float, end: float, samples: float) -> None:
        self.starts.append(start)
        self.ends.append(end)
        self.samples.append(samples)


class Consumer:
    """What takes blocks. ``resident`` makes one step on an input that it already has."""

    kind = name = "none"
    batch = 1
    memory = ""

    def buffers(self, size: int, count: int, fits: Callable[[Buffer], bool]) -> Sequence[Buffer]:
        """Buffers that blocks are read into; ``fits`` says of one whether the path reads into it. Sets ``memory``."""
        return make_buffers(size, count)

    def begin(self) -> None:
        """Forget the arm before."""

    def resident(self, log: Consumption) -> None:
        raise NotImplementedError

    def consume(self, item: ReadyBlock, feed: Feed, log: Consumption) -> None:
        raise NotImplementedError

    def finish(self, log: Consumption) -> None:
        """Wait for the steps in flight."""


class Emulated(Consumer):
    """An accelerator as a virtual clock: ``start = max(block ready, previous end)``, ``end = start + work``.

    It never sleeps *after* arrival, so neither a late wake-up nor our own overhead is charged to the storage. Work is
    counted by the block and not by the batch: in the steady state the rate is the same, min(supply, demand), and the
    error at a window's edge is one block instead of one batch (46 MB for ResNet-50).
    """

    kind = "emulated"
    name = ""

    def __init__(self, samples_per_second: float, batch: int) -> None:
        self.batch = batch
        self._seconds_per_sample = 1.0 / samples_per_second
        self.begin()

    def begin(self) -> None:
        self._free: float | None = None
        self._waited = self._in_batch = 0.0

    def resident(self, log: Consumption) -> None:
        free = clock() if self._free is None else self._free
        self._free = free + self.batch * self._seconds_per_sample
        log.add(free, self._free, float(self.batch))

    def consume(self, item: ReadyBlock, feed: Feed, log: Consumption) -> None:
        """Compute one block; returns at about its virtual end, so that the reader feels the demand."""
        free = item.at if self._free is None else self._free
        start = max(item.at, free)
        self._free = start + item.samples * self._seconds_per_sample
        log.add(start, self._free, item.samples)
        self._waited += start - free
        self._in_batch += item.samples
        if self._in_batch >= self.batch:
            log.waits.append(self._waited)
            self._waited, self._in_batch = 0.0, self._in_batch - self.batch
        ahead = self._free - clock()
        if ahead > _SHORTEST_SLEEP:
            time.sleep(ahead)
        feed.give_back(item.buffer)


class Drain(Consumer):
    """No accelerator: what is ready is taken at once. The path's own rate."""

    _last: float | None = None

    def begin(self) -> None:
        self._last = None

    def consume(self, item: ReadyBlock, feed: Feed, log: Consumption) -> None:
        last = item.at if self._last is None else self._last
        self._last = max(item.at, last)
        log.add(last, self._last, item.samples)
        feed.give_back(item.buffer)
