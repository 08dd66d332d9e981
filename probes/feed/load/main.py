"""The feed's child program: lay out data, run the arms one after another, one JSON object a line on standard output.

``python -m probes.feed.load.main SPEC`` where SPEC is one JSON object (see `feed_spec.Spec`). Lines are of kind
``ready`` (the accelerator and the data), ``arm`` (see `arms.run`), ``error`` (word and text; the program then ends) and
``end``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from probes.common import io_counters as witness
from probes.feed.load import arms
from probes.feed.load import dataset as layout
from probes.feed.load import decode as decoding
from probes.feed.load.accelerators import Consumer, Drain, Emulated, Feed
from probes.feed.load.arms import Length
from probes.feed.load.dataset import unwritten_bytes
from probes.feed.load.reader import (
    Buffer,
    FileSource,
    MemorySource,
    Reader,
    Source,
    TokenBucket,
    make_buffers,
    prefer_this_thread,
    shuffled,
)
from probes.feed.load.spec import Refused, Row, Spec
from probes.feed.rates import steady

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
        self.data = self._past_cache()
        self.device = witness.device_of(spec.folder) if spec.bucket is None else None
        self.order = list(self.data.blocks) if spec.sequential else shuffled(self.data.blocks, spec.seed)
        self.consumer = self._accelerator()
        if self.consumer.kind == "emulated":
            prefer_this_thread()  # it only keeps the books
        self.demand = spec.demand if spec.demand is not None else float("inf")
        self.buffers = self._buffers()
        self.rates: dict[str, float] = {}
        self.loader: Any = None
        if spec.loader:
            from probes.feed.load.loaders import Loader

            self.loader = Loader(spec, self.consumer.batch)

    def _data(self) -> layout.DataSet:
        spec = self.spec
        if spec.bucket is None and (memory := witness.memory_file_system(spec.folder)):
            raise Refused("in_memory", f"{spec.folder} is on {memory}: there is no storage below it to measure")
        blocks = layout.plan_blocks(
            spec.sample_bytes, spec.sample_sd_bytes, spec.samples_per_file, spec.data_bytes, 4, spec.seed
        )
        if spec.bucket is not None:
            return layout.DataSet((), tuple(blocks), True, 0, 0.0)
        if spec.files:
            return layout.existing(spec.files, blocks[0].read_bytes, blocks[0].samples)
        apart = layout.is_apart(spec.sample_bytes, spec.samples_per_file)
        return layout.write(spec.folder, blocks, spec.seed, time.monotonic() + spec.layout_seconds, apart)

    def _past_cache(self) -> layout.DataSet:
        data = self._data()
        return layout.through_cache(data) if self.spec.buffered else data

    def _accelerator(self) -> Consumer:
        spec = self.spec
        if spec.accelerator == "emulated":
            return Emulated(spec.demand or 1.0, spec.batch)
        from probes.feed.load.torch_accelerator import TorchCpu, TorchCuda

        if _torch_device(spec.accelerator) == "cpu":
            return TorchCpu(self._whole_blocks(min(spec.batch, _CPU_BATCH)), spec.sample_bytes)
        return TorchCuda(self._whole_blocks(min(spec.batch, 128)), spec.sample_bytes)

    def _whole_blocks(self, batch: int) -> int:
        each = self.data.blocks[0].samples
        return max(1, round(max(1.0, -(-batch // each)) * each))

    def _buffers(self) -> Sequence[Buffer]:
        size = self._largest()
        per_batch = self.consumer.batch / max(self.data.blocks[0].samples, 1e-9)
        smooth = (self.spec.demand or 0.0) * _AHEAD_SECONDS / max(self.data.blocks[0].samples, 1e-9)
        wanted = max(_LEAST_AHEAD_BLOCKS, 2 * per_batch, smooth)
        ahead = int(min(wanted, max(_LEAST_AHEAD_BLOCKS, _MOST_AHEAD_BYTES // size)))
        if self.consumer.kind != "emulated":
            ahead = max(ahead, int(per_batch) + 1)
        buffers = self.consumer.buffers(size, self.spec.workers + ahead)
        rest = os.urandom(min(size, 1 << 20))
        for buffer in buffers:
            buffer[: len(rest)] = rest
        return buffers

    def describe(self) -> dict[str, Any]:
        spec, data, consumer = self.spec, self.data, self.consumer
        return {
            "kind": "ready", "accelerator": consumer.kind, "name": consumer.name, "batch": consumer.batch,
            "demand": spec.demand, "count": spec.count, "sample_bytes": spec.sample_bytes, "data_bytes": data.bytes,
            "data_seconds": round(data.seconds, 3), "direct": data.direct, "workers": spec.workers,
            "unwritten_bytes": sum(unwritten_bytes(path) for path in data.paths),
            "block_bytes": self._largest(), "device": self.device, "files": len(data.paths), "apart": data.apart,
            "decode": spec.decode, "bucket": spec.bucket is not None, "loader": self.loader and self.loader.name,
            "loader_workers": self.loader and self.loader.workers, "cores": len(os.sched_getaffinity(0)),
        }  # fmt: skip

    def run(self) -> None:
        say(self.describe())
        for row in self.spec.rows():
            if not row.mend:
                say(self._arm(row))
            elif self._worth(row):
                say(self._mend(row))
        say({"kind": "end", "seconds": round(time.monotonic() - self.started, 3)})

    def _left(self) -> float:
        return self.spec.deadline_seconds - (time.monotonic() - self.started)

    # --- the arms

    def _arm(self, row: Row) -> dict[str, Any]:
        length = Length(row.warm, row.shortest, max(row.shortest, min(row.longest, self._left() - row.warm)))
        if row.arm == "resident":
            record = arms.resident(self.consumer, row.turn, length)
            self.demand = self._rate(record) or self.demand
            return record
        cold = row.arm in ("fetch", "storage", "yardstick")
        resident = self._resident_ratio() if cold and not self.data.direct else None
        consumer: Consumer = Drain() if row.arm == "fetch" else self.consumer
        record = arms.run(row.arm, row.turn, consumer, lambda: self._feed(row.arm), length, self.device, self.demand)
        self.rates[row.arm] = self._rate(record)
        return {**record, "resident_ratio": resident}

    def _rate(self, record: Mapping[str, Any]) -> float:
        found = steady(
            record["curve"], record["grid_seconds"], record["warm_seconds"], record["shortest_seconds"], self.demand
        )
        return found.rate if found else 0.0

    def _resident_ratio(self) -> float | None:
        if not self.data.paths:
            return None
        witness.evict(self.data.paths)
        return witness.resident_ratio(self.data.paths)

    def _feed(self, arm: str) -> Feed:
        if arm == "storage" and self.loader is not None:
            feed: Feed = self.loader.open()
            return feed
        decode = self.spec.decode if arm in ("preprocess", "storage", "yardstick") else "none"
        return Reader(
            self._source(arm), self.order, workers=self.spec.workers, buffers=self.buffers,
            decode=decoding.by_name(decode, self.data.blocks[0].samples),
        )  # fmt: skip

    def _source(self, arm: str) -> Source:
        if arm in ("transfer", "preprocess"):
            return MemorySource()
        if self.spec.bucket is not None:
            return TokenBucket(*self.spec.bucket)
        return FileSource(self.data, sequential=self.spec.sequential)

    def _largest(self) -> int:
        return max(block.read_bytes for block in self.data.blocks)

    # --- what would mend it

    def _worth(self, row: Row) -> bool:
        """Only when storage is what lacks, and while there is time for one more, with its reads in flight."""
        if self.spec.bucket is not None or self.rates.get("fetch", 0.0) >= _FED * self.demand:
            return False
        if self.data.apart and row.block_bytes:
            return False  # a small file is one read
        return self._left() > self._mend_length(row).warm + row.shortest + 1.0

    def _mend_length(self, row: Row) -> Length:
        """Warm for twice the time that the reads in flight take at the rate known so far (Little's law)."""
        rate = self.rates.get("fetch", 0.0) * self.spec.sample_bytes
        in_flight = (row.workers or self.spec.workers) * (row.block_bytes or self._largest())
        return Length(max(row.warm, 2.0 * in_flight / rate) if rate > 0 else row.warm, row.shortest, row.shortest)

    def _mend(self, row: Row) -> dict[str, Any]:
        size = row.block_bytes or self._largest()
        blocks = layout.cut(self.data, size, self.spec.sample_bytes) if row.block_bytes else self.data.blocks
        workers = row.workers or self.spec.workers
        data = self.data if not row.buffered else layout.through_cache(self.data)

        def make() -> Reader:
            source = FileSource(data, sequential=row.buffered)
            order = list(blocks) if row.buffered else shuffled(blocks, self.spec.seed)
            return Reader(source, order, workers=workers, buffers=make_buffers(size, workers + _LEAST_AHEAD_BLOCKS))

        record = arms.run("mend", row.turn, Drain(), make, self._mend_length(row), self.device)
        return {**record, "workers": workers, "block_bytes": size, "buffered": row.buffered}


def _torch_device(wanted: str) -> str:
    try:
        import torch
    except (ImportError, OSError) as error:
        raise Refused("torch_missing", f"torch cannot be imported: {error}") from error
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise Refused("no_cuda", "this torch sees no CUDA device")
    return "cuda"


def say(record: Mapping[str, Any]) -> None:
    print(json.dumps(record, allow_nan=False), flush=True)


def _check(folder: str) -> int:
    try:
        say({"kind": "check", "memory": witness.memory_file_system(folder)})
    except OSError as error:
        say({"kind": "check", "error": f"{folder}: {error.strerror}"})
    return 0


def main(arguments: list[str]) -> int:
    sys.setswitchinterval(0.001)  # the interpreter's lock changes hands sooner than the default 5 ms
    if arguments[:1] == ["--check"]:
        return _check(arguments[1])
    try:
        spec = Spec.parse(arguments[0])
        if spec.pattern in ("batch", "shards"):
            Program(spec).run()
        else:
            from probes.feed.load import patterns

            patterns.run(spec, say)
    except Refused as error:
        say({"kind": "error", "word": error.word, "text": str(error)})
    except TimeoutError as error:
        say({"kind": "error", "word": "path_hangs", "text": str(error)})
        sys.stdout.flush()
        os._exit(0)  # threads that sit in a dead file system cannot be joined
    except OSError as error:
        say({"kind": "error", "word": "read_failed", "text": str(error)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
