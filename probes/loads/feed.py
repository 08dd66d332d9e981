"""The feed's child program: lay out data, run the arms one after another, one JSON object a line on standard output.

``python -m probes.loads.feed SPEC`` where SPEC is one JSON object (see `Spec`). Lines are of kind ``ready`` (the
accelerator and the data), ``arm`` (see `arms.run`), ``error`` (word and text; the program then ends) and ``end``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from probes.loads import arms, decoding, layout, witness
from probes.loads.accelerators import Emulated, Torch
from probes.loads.arms import Consumer, Drain, Length
from probes.loads.reader import Buffer, FileSource, MemorySource, Reader, Source, TokenBucket, make_buffers, shuffled

_MOST_AHEAD_BYTES = 256 << 20
_LEAST_AHEAD_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class Spec:
    """What to measure. Bytes and seconds; ``schedule`` rows are (arm, turn, warm, shortest, longest seconds).

    ``bucket`` (bytes a second, burst bytes) reads from an exact software rate in place of the files: calibration.
    ``files`` are existing files to read in place of our own.
    """

    folder: str
    accelerator: str  # emulated, cpu, cuda, auto
    sample_bytes: int
    sample_sd_bytes: int
    samples_per_file: int
    batch: int
    demand: float | None
    count: int
    data_bytes: int
    layout_seconds: float
    schedule: tuple[tuple[str, int, float, float, float], ...]
    deadline_seconds: float
    workers: int = 16
    decode: str = "none"
    sequential: bool = False
    seed: int = 7
    bucket: tuple[float, float] | None = None
    files: tuple[str, ...] = ()

    @staticmethod
    def parse(text: str) -> Spec:
        """Raises ValueError for anything that is not such an object."""
        values = json.loads(text)
        known = {field.name for field in fields(Spec)}
        if not isinstance(values, dict) or set(values) - known:
            raise ValueError(f"not a feed specification: {text[:200]}")
        converted: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return Spec(**converted)


class Program:
    """One directory, one accelerator: all arms in the order of the schedule."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.started = time.monotonic()
        self.data = self._lay_out()
        self.device = witness.device_of(spec.folder) if spec.bucket is None else None
        self.order = shuffled(self.data.blocks, spec.seed)
        if spec.sequential:
            self.order = list(self.data.blocks)
        self.consumer, self.demand, self.kind, self.name = self._accelerator()
        self.buffers = self._buffers()

    def _lay_out(self) -> layout.DataSet:
        spec = self.spec
        if spec.bucket is None and (memory := witness.memory_file_system(spec.folder)):
            raise _Refused("in_memory", f"{spec.folder} is on {memory}: there is no storage below it to measure")
        blocks = layout.plan_blocks(
            spec.sample_bytes, spec.sample_sd_bytes, spec.samples_per_file, spec.data_bytes, 4, spec.seed
        )
        if spec.bucket is not None:
            return layout.DataSet((), tuple(blocks), True, 0, 0.0)
        return layout.write(spec.folder, blocks, spec.seed, time.monotonic() + spec.layout_seconds)

    def _accelerator(self) -> tuple[Any, float, str, str]:
        """The consumer, its demand in samples a second, its kind (emulated, cpu, cuda) and its name."""
        spec = self.spec
        if spec.accelerator == "emulated":
            assert spec.demand is not None
            return Emulated(spec.demand, spec.batch), spec.demand, "emulated", ""
        kind = _torch_device(spec.accelerator)
        real = Torch(kind, self._whole_blocks(spec.batch if kind == "cuda" else min(spec.batch, 32)), spec.sample_bytes)
        return real, float("inf"), kind, real.name

    def _whole_blocks(self, batch: int) -> int:
        each = self.data.blocks[0].samples
        return max(1, round(max(1.0, -(-batch // each)) * each))

    def _buffers(self) -> list[Buffer]:
        size = max(block.read_bytes for block in self.data.blocks)
        per_batch = self._batch() / max(self.data.blocks[0].samples, 1e-9)
        wanted = max(_LEAST_AHEAD_BLOCKS, 2 * per_batch)
        ahead = int(min(wanted, max(_LEAST_AHEAD_BLOCKS, _MOST_AHEAD_BYTES // size)))
        if self.kind != "emulated":
            ahead = max(ahead, int(per_batch) + 1)
        buffers = make_buffers(size, self.spec.workers + ahead)
        rest = os.urandom(min(size, 1 << 20))
        for buffer in buffers:
            buffer[: len(rest)] = rest
        return buffers

    def _batch(self) -> int:
        return self.consumer.batch if isinstance(self.consumer, Torch) else self.spec.batch

    def describe(self) -> dict[str, Any]:
        spec, data = self.spec, self.data
        empty = sum(layout.unwritten_bytes(path) for path in data.paths)
        return {
            "kind": "ready", "accelerator": self.kind, "name": self.name, "count": spec.count, "batch": self._batch(),
            "demand": self.demand if self.kind == "emulated" else None, "sample_bytes": spec.sample_bytes,
            "data_bytes": data.bytes, "data_seconds": round(data.seconds, 3), "direct": data.direct,
            "unwritten_bytes": empty, "workers": spec.workers, "block_bytes": max(b.read_bytes for b in data.blocks),
            "device": self.device, "decode": spec.decode, "bucket": spec.bucket is not None,
        }  # fmt: skip

    def run(self) -> None:
        _say(self.describe())
        for name, turn, warm, shortest, longest in self.spec.schedule:
            left = self.spec.deadline_seconds - (time.monotonic() - self.started) - warm
            _say(self._arm(name, turn, Length(warm, shortest, max(shortest, min(longest, left)))))
        _say({"kind": "end", "seconds": round(time.monotonic() - self.started, 3)})

    def _arm(self, name: str, turn: int, length: Length) -> dict[str, Any]:
        if name == "resident":
            record = arms.resident(self.consumer, turn, length)
            self.demand = record["rate"] if self.kind != "emulated" else self.demand
            return record
        cold = name in ("fetch", "storage")
        consumer: Consumer = Drain() if name == "fetch" else self.consumer
        decode = self.spec.decode if name in ("preprocess", "storage") else "none"
        resident = (
            witness.resident_ratio(self.data.paths) if cold and self.data.paths and not self.data.direct else None
        )
        record = arms.run(name, turn, consumer, lambda: self._reader(cold, decode), length, self.device, self.demand)
        return {**record, "resident_ratio": resident}

    def _reader(self, cold: bool, decode: str) -> Reader:
        source: Source = MemorySource()
        if cold and self.spec.bucket is not None:
            source = TokenBucket(*self.spec.bucket)
        elif cold:
            source = FileSource(self.data, self.spec.sequential)
        return Reader(
            source, self.order, workers=self.spec.workers, ahead=0, buffers=self.buffers,
            decode=decoding.by_name(decode, self.data.blocks[0].samples),
        )  # fmt: skip


class _Refused(Exception):
    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word


def _torch_device(wanted: str) -> str:
    try:
        import torch
    except (ImportError, OSError) as error:
        raise _Refused("torch_missing", f"torch cannot be imported: {error}") from error
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise _Refused("no_cuda", "this torch sees no CUDA device")
    return "cuda"


def _say(record: Mapping[str, Any]) -> None:
    print(json.dumps(record, allow_nan=False), flush=True)


def main(arguments: list[str]) -> int:
    sys.setswitchinterval(0.001)  # the interpreter's lock changes hands sooner than the default 5 ms
    try:
        Program(Spec.parse(arguments[0])).run()
    except _Refused as error:
        _say({"kind": "error", "word": error.word, "text": str(error)})
    except TimeoutError as error:
        _say({"kind": "error", "word": "path_hangs", "text": str(error)})
        sys.stdout.flush()
        os._exit(0)  # threads that sit in a dead file system cannot be joined
    except OSError as error:
        _say({"kind": "error", "word": "read_failed", "text": str(error)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
