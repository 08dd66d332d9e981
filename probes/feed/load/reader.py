"""The yardstick reader: threads that ``preadv`` blocks in a shuffled order past the page cache, and nothing else.

It measures what the path can do, so it must never be the limit itself: the kernel call releases the interpreter's
lock, the buffers are made once, and the hand-over is two C queues. Each block carries the time at which it was ready,
so that whatever delays the consumer is not laid at the storage's door.
"""

from __future__ import annotations

import itertools
import mmap
import os
import queue
import random
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from bench.measure.procfs import thread_run_queue_seconds
from probes.common import io_counters
from probes.feed.load.dataset import Block, DataSet

Buffer = memoryview
Decode = Callable[[Buffer], object]
clock = time.perf_counter


class CannotFeed(Exception):
    """This cannot be measured here; ``word`` is machine-readable."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word


@dataclass(slots=True)
class ReadyBlock:
    """A block in memory: when it was ready (perf_counter seconds), its samples, and the buffer to give back."""

    at: float
    samples: float
    read_bytes: int
    buffer: Buffer
    latency: float = 0.0


class Source:
    """Where the bytes of a block come from, asked by many threads at once.

    By itself it is memory: the block is already in the buffer, and what is left is the loader's own work.
    """

    def read(self, block: Block, buffer: Buffer) -> int:
        """Fill the buffer; the number of bytes read. Raises OSError."""
        return block.read_bytes

    def close(self) -> None:
        """Close the files."""


class FileSource(Source):
    """The files of a data set, past the page cache (O_DIRECT), else dropped from it behind each read.

    A file that is one sample is opened for its read and closed after it, as a loader does.
    """

    def __init__(self, data: DataSet, sequential: bool = False) -> None:
        self._data = data
        self._flags = os.O_RDONLY | (os.O_DIRECT if data.direct else 0)
        self._advice = os.POSIX_FADV_SEQUENTIAL if sequential else os.POSIX_FADV_RANDOM
        if not data.direct:
            io_counters.evict(data.paths)
        self._files = [] if data.apart else [self._open(path) for path in data.paths]

    def _open(self, path: str) -> int:
        fd = os.open(path, self._flags)
        if not self._data.direct:
            os.posix_fadvise(fd, 0, 0, self._advice)
        return fd

    def read(self, block: Block, buffer: Buffer) -> int:
        if not self._data.apart:
            return self._read(self._files[block.file], block, buffer)
        fd = self._open(self._data.paths[block.file])
        try:
            return self._read(fd, block, buffer)
        finally:
            os.close(fd)

    def _read(self, fd: int, block: Block, buffer: Buffer) -> int:
        """A read may come back in parts; it ends short only at the file's end."""
        done, wanted = 0, buffer[: block.read_bytes]
        while done < len(wanted) and (more := os.preadv(fd, [wanted[done:]], block.offset + done)):
            done += more
        if not self._data.direct:
            os.posix_fadvise(fd, block.offset, block.read_bytes, os.POSIX_FADV_DONTNEED)
        return done

    def close(self) -> None:
        for fd in self._files:
            os.close(fd)


class TokenBucket(Source):
    """An exact rate in software, with a credit of ``burst`` bytes: the known truth that calibrates the instrument."""

    def __init__(self, rate: float, burst: float = 0.0) -> None:
        self._rate, self._burst = rate, burst
        self._at, self._tokens = clock(), burst
        self._lock = threading.Lock()

    def read(self, block: Block, buffer: Buffer) -> int:
        with self._lock:
            now = clock()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
            self._tokens -= block.read_bytes
            wait = -self._tokens / self._rate
        if wait > 0:
            time.sleep(wait)
        return block.read_bytes


def shuffled(blocks: Sequence[Block], seed: int) -> list[Block]:
    order = list(blocks)
    random.Random(seed).shuffle(order)
    return order


class Feed:
    """Ready blocks, or why there are no more, from threads or processes that work ahead of the consumer."""

    nothing = "no data"

    def __init__(self, ready: queue.SimpleQueue[ReadyBlock | OSError] | queue.Queue[ReadyBlock | OSError]) -> None:
        self._ready = ready
        self._stopping = False
        self.read_bytes = 0
        self.wait_seconds: list[float] = []
        self.cpu_seconds = 0.0
        self.device_bytes: int | None = None  # what its worker processes made the device deliver, where it has some
        self.started = clock()

    def get(self, timeout: float) -> ReadyBlock:
        """The next block. Raises TimeoutError when none became ready in time, OSError when a read failed."""
        try:
            item = self._ready.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"{self.nothing} for {timeout:.0f} s") from None
        if isinstance(item, OSError):
            raise item
        return item

    def give_back(self, buffer: Buffer) -> None:
        """The consumer needs the buffer no more."""

    def close(self, timeout: float) -> float:
        """Stop; the seconds that it ran. Raises TimeoutError if a read hangs."""
        raise NotImplementedError


class Reader(Feed):
    """``workers`` threads that keep reading (and decoding) ahead of the consumer, by at most ``ahead`` blocks.

    `get` hands out ready blocks, `give_back` returns their buffers: without a free buffer the workers wait, which is
    the back-pressure of every real loader.
    """

    def __init__(
        self,
        source: Source,
        order: Sequence[Block],
        *,
        workers: int,
        buffers: Sequence[Buffer],
        decode: Decode | None = None,
        once: bool = False,
    ) -> None:
        super().__init__(queue.SimpleQueue())
        self._source, self._order, self._decode, self._once = source, order, decode, once
        self._next = itertools.count()
        self._free: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        for buffer in buffers:
            self._free.put(buffer)
        self.started = clock()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        waited = thread_run_queue_seconds()
        count = 0
        prefer_this_thread()
        while (buffer := self._free.get()) is not None and not self._stopping:
            number = next(self._next)
            if self._once and number >= len(self._order):
                break
            block = self._order[number % len(self._order)]
            try:
                count += self._one(block, buffer)
            except OSError as error:
                self._ready.put(error)
                break
        now = thread_run_queue_seconds()
        with self._lock:
            self.read_bytes += count
            self.cpu_seconds += time.thread_time()
            if waited is not None and now is not None:
                self.wait_seconds.append(now - waited)

    def _one(self, block: Block, buffer: Buffer) -> int:
        asked = clock()
        done = self._source.read(block, buffer)
        latency = clock() - asked
        if done != block.read_bytes:
            raise OSError(5, f"only {done} of {block.read_bytes} bytes at {block.offset} could be read")
        if self._decode is not None:
            self._decode(buffer[: block.read_bytes])
        self._ready.put(ReadyBlock(clock(), block.samples, block.read_bytes, buffer, latency))
        return done

    def give_back(self, buffer: Buffer) -> None:
        self._free.put(buffer)

    def close(self, timeout: float = 30.0) -> float:
        """Stop, wait for the reads in flight; the seconds that the reader ran. Raises TimeoutError if one hangs."""
        self._stopping = True
        ran = clock() - self.started
        for _ in self._threads:
            self._free.put(None)
        until = clock() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - clock()))
            if thread.is_alive():
                raise TimeoutError(f"a read did not end within {timeout:.0f} s")
        self._source.close()
        return ran


def make_buffers(size: int, count: int) -> list[Buffer]:
    """Page-aligned memory that O_DIRECT can fill, touched once so that no arm pays for page faults."""
    buffers = []
    for _ in range(count):
        memory = mmap.mmap(-1, size)
        memory[::4096] = bytes(-(-size // 4096))
        buffers.append(memoryview(memory))
    return buffers


def first_that_fits(
    ways: Mapping[str, Callable[[int, int], Sequence[Buffer]]], size: int, count: int, fits: Callable[[Buffer], bool]
) -> tuple[str, Sequence[Buffer]]:
    """The first way to make buffers that succeeds and that the path can read into, by name; else the last.

    Raises RuntimeError when no way succeeds.
    """
    made: tuple[str, Sequence[Buffer]] | None = None
    problem = RuntimeError("no memory to read into")
    for name, make in ways.items():
        try:
            made = name, make(size, count)
        except RuntimeError as error:
            problem = error
            continue
        if fits(made[1][0]):
            return made
    if made is None:
        raise problem
    return made


def prefer_this_thread() -> None:
    """Run before other people's work where that is allowed: the yardstick is for the path, not for the scheduler."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)


DECODES = ("none", "crc32", "normalize", "spin:SECONDS", "sleep:SECONDS")


def decoder(name: str, samples: float) -> Decode | None:
    """What is done to a block of ``samples`` samples before the accelerator takes it; None for ``none``.

    ``crc32``: the checksum that record readers verify. ``normalize``: bytes to floats from 0 to 1. ``spin``: a known
    CPU time for each sample. ``sleep``: a known time without a CPU. Raises ValueError for other names.
    """
    kind, _, seconds = name.partition(":")
    if kind == "none":
        return None
    if kind in ("spin", "sleep"):
        cost = float(seconds) * samples
        return (lambda _: _spin(cost)) if kind == "spin" else (lambda _: time.sleep(cost))
    plain: dict[str, Callable[[Buffer], object]] = {"crc32": zlib.crc32, "normalize": _normalize}
    if kind not in plain:
        raise ValueError(f"unknown decode {name!r}; known are {', '.join(DECODES)}")
    return plain[kind]


def _normalize(buffer: Buffer) -> None:
    np.multiply(np.frombuffer(buffer, np.uint8), np.float32(1 / 255), dtype=np.float32)


def _spin(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        zlib.crc32(_SPIN)


_SPIN = bytes(16 << 10)
