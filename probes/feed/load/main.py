"""The feed's child program: lay out data, run the arms one after another, one JSON object a line on standard output.

``python -m probes.feed.load.main SPEC`` where SPEC is the JSON of a `probes.feed.plan.Spec`. The lines are the records
of `probes.feed.records`: ``ready``, then an ``arm`` each, then ``end``; after an ``error`` the program ends.
``--check DIR`` in place of SPEC says whether a directory lies on storage.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from probes.common import io_counters
from probes.feed.load import arms, dataset, patterns, reader
from probes.feed.load.accelerators import Consumer, Drain, Emulated
from probes.feed.load.loaders import Loader
from probes.feed.load.reader import Buffer, CannotFeed, Feed, Reader, Source
from probes.feed.plan import Row, Spec
from probes.feed.records import Arm, DirectoryCheck, End, LoadError, Ready, line

_MOST_AHEAD_BYTES = 256 << 20
_LEAST_AHEAD_BLOCKS = 16  # as many as there are readers: a consumer that wakes late holds none of them up
#: Read ahead two batches as loaders do, and at least for so long, so that a late wake-up of ours starves nobody.
_AHEAD_SECONDS = 0.25
_FED = 0.95  # of the demand: above it there is nothing to mend
#: Samples of one step of a CPU: about a block. With 32 a starved window of two seconds held 8 steps, give or take one.
_CPU_BATCH = 8


class Program:
    """One directory, one accelerator: all arms in the order of the schedule."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.started = time.monotonic()
        self.data = self._data()
        self.largest = max(block.read_bytes for block in self.data.blocks)
        self.device = io_counters.device_of(spec.folder) if spec.bucket is None else None
        self.order = list(self.data.blocks) if spec.sequential else reader.shuffled(self.data.blocks, spec.seed)
        self.consumer = self._accelerator()
        if self.consumer.kind == "emulated":
            reader.prefer_this_thread()  # it only keeps the books
        self.demand = spec.demand if spec.demand is not None else float("inf")
        self.buffers = self._buffers()
        self.rates: dict[str, float] = {}
        self.loader = Loader(spec, self.consumer.batch) if spec.loader else None

    def _data(self) -> dataset.DataSet:
        spec = self.spec
        blocks = dataset.plan_blocks(
            spec.sample_bytes, spec.sample_sd_bytes, spec.samples_per_file, spec.data_bytes, 4, spec.seed
        )
        if spec.bucket is not None:
            return dataset.DataSet((), tuple(blocks), not spec.buffered, 0, 0.0)
        if spec.files:
            data = dataset.existing(spec.files, blocks[0].read_bytes, blocks[0].samples)
        else:
            apart = dataset.is_apart(spec.sample_bytes, spec.samples_per_file)
            data = dataset.write(spec.folder, blocks, spec.seed, time.monotonic() + spec.layout_seconds, apart)
        return replace(data, direct=data.direct and not spec.buffered)

    def _accelerator(self) -> Consumer:
        spec = self.spec
        if spec.accelerator == "emulated":
            return Emulated(spec.demand or 1.0, spec.batch)
        from probes.feed.load.torch_accelerator import TorchCpu, TorchCuda, device_for

        if device_for(spec.accelerator) == "cpu":
            return TorchCpu(self._whole_blocks(min(spec.batch, _CPU_BATCH)), spec.sample_bytes)
        return TorchCuda(self._whole_blocks(min(spec.batch, 128)), spec.sample_bytes, spec.images)

    def _whole_blocks(self, batch: int) -> int:
        each = self.data.blocks[0].samples
        return max(1, round(max(1.0, -(-batch // each)) * each))

    def _buffers(self) -> Sequence[Buffer]:
        each = max(self.data.blocks[0].samples, 1e-9)
        per_batch = self.consumer.batch / each
        smooth = (self.spec.demand or 0.0) * _AHEAD_SECONDS / each
        wanted = max(_LEAST_AHEAD_BLOCKS, 2 * per_batch, smooth)
        ahead = int(min(wanted, max(_LEAST_AHEAD_BLOCKS, _MOST_AHEAD_BYTES // self.largest)))
        if self.consumer.kind != "emulated":
            ahead = max(ahead, int(per_batch) + 1)
        buffers = self.consumer.buffers(self.largest, self.spec.workers + ahead, self._fits)
        rest = os.urandom(min(self.largest, 1 << 20))
        for buffer in buffers:
            buffer[: len(rest)] = rest
        return buffers

    def _fits(self, buffer: Buffer) -> bool:
        """Whether a block can be read into it: O_DIRECT into a device driver's memory is not for every file system."""
        if self.spec.bucket is not None:
            return True
        source, block = reader.FileSource(self.data), self.data.blocks[0]
        try:
            return source.read(block, buffer) == block.read_bytes
        except OSError:
            return False
        finally:
            source.close()

    def describe(self) -> Ready:
        spec, data, consumer, loader = self.spec, self.data, self.consumer, self.loader
        return Ready(
            accelerator=consumer.kind, name=consumer.name, batch=consumer.batch, demand=spec.demand, count=spec.count,
            sample_bytes=spec.sample_bytes, data_bytes=data.bytes, data_seconds=round(data.seconds, 3),
            direct=data.direct, workers=spec.workers, unwritten_bytes=sum(map(dataset.unwritten_bytes, data.paths)),
            block_bytes=self.largest, device=self.device, files=len(data.paths), apart=data.apart, decode=spec.decode,
            memory=consumer.memory or None, bucket=spec.bucket is not None, cores=len(os.sched_getaffinity(0)),
            loader=loader.name if loader else None, loader_workers=loader.workers if loader else None,
        )  # fmt: skip

    def run(self) -> None:
        say(self.describe())
        ahead = sum(row.warm + row.shortest for row in self.spec.schedule if row.arm != "mend")
        for row in self.spec.schedule:
            if row.arm != "mend":
                ahead -= row.warm + row.shortest
                say(self._arm(row, self._left() - ahead))
            elif self._worth(row):
                say(self._mend(row))

    def _left(self) -> float:
        return self.spec.deadline_seconds - (time.monotonic() - self.started)

    # --- the arms

    def _arm(self, row: Row, seconds: float) -> Arm:
        """One turn, which goes on until it is flat for at most so many seconds: the other turns need theirs."""
        if row.arm == "resident":
            arm = arms.resident(row, self.consumer)
            self.demand = self._rate(arm) or self.demand
            return arm
        row = replace(row, longest=max(row.shortest, min(row.longest, seconds - row.warm)))
        cold = row.arm in ("fetch", "storage", "yardstick")
        resident = None
        if cold and self.data.paths and not self.data.direct:
            io_counters.evict(self.data.paths)
            resident = io_counters.resident_ratio(self.data.paths)
        consumer = Drain() if row.arm == "fetch" else self.consumer
        arm = arms.run(row, consumer, lambda: self._feed(row.arm), self.device, self.demand, resident_ratio=resident)
        self.rates[row.arm] = self._rate(arm)
        return arm

    def _rate(self, arm: Arm) -> float:
        found = arm.steady(self.demand)
        return found.rate if found else 0.0

    def _feed(self, arm: str) -> Feed:
        if arm == "storage" and self.loader is not None:
            return self.loader.open()
        if arm in ("transfer", "preprocess"):
            source = Source()
        elif self.spec.bucket is not None:
            source = reader.TokenBucket(*self.spec.bucket)
        else:
            source = reader.FileSource(self.data, sequential=self.spec.sequential)
        name = self.spec.decode if arm in ("preprocess", "storage", "yardstick") else "none"
        decode = reader.decoder(name, self.data.blocks[0].samples)
        return Reader(source, self.order, workers=self.spec.workers, buffers=self.buffers, decode=decode)

    # --- what would mend it

    def _worth(self, row: Row) -> bool:
        """Only when storage is what lacks, and while there is time for one more, with its reads in flight."""
        if self.spec.bucket is not None or self.rates.get("fetch", 0.0) >= _FED * self.demand:
            return False
        if self.data.apart and row.block_bytes:
            return False  # a small file is one read
        return self._left() > self._warm(row) + row.shortest + 1.0

    def _warm(self, row: Row) -> float:
        """Twice the time that the reads in flight take at the rate known so far (Little's law)."""
        rate = self.rates.get("fetch", 0.0) * self.spec.sample_bytes
        in_flight = (row.workers or self.spec.workers) * (row.block_bytes or self.largest)
        return max(row.warm, 2.0 * in_flight / rate) if rate > 0 else row.warm

    def _mend(self, row: Row) -> Arm:
        size, workers = row.block_bytes or self.largest, row.workers or self.spec.workers
        blocks = dataset.cut(self.data, size, self.spec.sample_bytes) if row.block_bytes else self.data.blocks
        data = replace(self.data, direct=self.data.direct and not row.buffered)

        def make() -> Reader:
            source = reader.FileSource(data, sequential=row.buffered)
            order = blocks if row.buffered else reader.shuffled(blocks, self.spec.seed)
            buffers = reader.make_buffers(size, workers + _LEAST_AHEAD_BLOCKS)
            return Reader(source, order, workers=workers, buffers=buffers)

        row = replace(row, warm=self._warm(row))
        return arms.run(row, Drain(), make, self.device, workers=workers, block_bytes=size, buffered=row.buffered)


def say(record: Any) -> None:
    print(line(record), flush=True)


def main(arguments: list[str]) -> int:
    sys.setswitchinterval(0.001)  # the interpreter's lock changes hands sooner than the default 5 ms
    if arguments[:1] == ["--check"]:
        try:
            say(DirectoryCheck(memory=io_counters.memory_file_system(arguments[1])))
        except OSError as error:
            say(DirectoryCheck(error=f"{arguments[1]}: {error.strerror}"))
        return 0
    started = time.monotonic()
    try:
        spec = Spec.model_validate_json(arguments[0])
        if spec.bucket is None and (memory := io_counters.memory_file_system(spec.folder)):
            raise CannotFeed("in_memory", f"{spec.folder} is on {memory}: there is no storage below it to measure")
        if spec.pattern in ("batch", "shards"):
            Program(spec).run()
        else:
            patterns.run(spec, say)
        say(End(seconds=round(time.monotonic() - started, 3)))
    except CannotFeed as error:
        say(LoadError(error.word, str(error)))
    except TimeoutError as error:
        say(LoadError("path_hangs", str(error)))
        os._exit(0)  # threads that sit in a dead file system cannot be joined
    except OSError as error:
        say(LoadError("read_failed", str(error)))
    except RuntimeError as error:  # what torch raises for everything that a card or its driver refuses
        if "torch" not in sys.modules:
            raise
        word = "accelerator_memory" if "out of memory" in str(error).lower() else "accelerator_failed"
        say(LoadError(word, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"))
        os._exit(0)  # a device that has failed may hold up the end of the process
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
