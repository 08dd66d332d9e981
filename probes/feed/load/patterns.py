"""Other ways in which storage keeps accelerators waiting: loading a model, key-value blocks, checkpoints.

Each is timed whole, cold, with the bytes that came from the device beside it, and said as one record a repeat.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from probes.common import io_counters
from probes.feed.load import dataset
from probes.feed.load.dataset import Block, DataSet
from probes.feed.load.reader import FileSource, Reader, clock, make_buffers, shuffled
from probes.feed.plan import Spec
from probes.feed.records import Checkpoint, KvRead, ModelLoad, PatternReady

Say = Callable[[Any], None]

_PIECE_BYTES = 4 << 20
_HANG_SECONDS = 15.0
_FILES = 4
#: Bytes of one key-value block of 16 tokens (vLLM's default): 2 (key and value) * layers * heads * head size * 2 B.
KV_BLOCKS = {"llama3-8b": 2 * 32 * 8 * 128 * 2 * 16, "llama3-70b": 2 * 80 * 8 * 128 * 2 * 16}
_KV_READERS = 4  # requests whose blocks come back at once


def run(spec: Spec, say: Say) -> None:
    """One pattern, repeat after repeat, until the schedule's turns or the deadline are used up."""
    patterns = {"model-load": _model_load, "kv-cache": _kv_cache, "checkpoint": _checkpoint}
    until = time.monotonic() + spec.deadline_seconds
    say(PatternReady(accelerator=spec.accelerator, pattern=spec.pattern, cores=os.cpu_count() or 1))
    patterns[spec.pattern](spec, say, until)


def _lay_out(spec: Spec, piece: int, total: int, seed: int = 0, seconds: float | None = None) -> DataSet:
    each = max(1, total // _FILES // piece)
    blocks = [Block(file, i * piece, piece, 1.0) for file in range(_FILES) for i in range(each)]
    deadline = time.monotonic() + (spec.layout_seconds if seconds is None else seconds)
    return dataset.write(spec.folder, blocks, spec.seed + seed, deadline)


def _read_all(
    data: DataSet, order: Sequence[Block], workers: int, consume: Callable[[Any], None]
) -> tuple[dict[str, Any], list[float]]:
    """Every block once; the time from the first request to the last byte consumed, and each block's latency."""
    delivered = io_counters.Delivered(io_counters.device_of(data.paths[0]))
    buffers = make_buffers(order[0].read_bytes, workers * 2)
    reader = Reader(FileSource(data), order, workers=workers, buffers=buffers, once=True)
    latencies = []
    for _ in order:
        item = reader.get(_HANG_SECONDS)
        consume(item.buffer[: item.read_bytes])
        latencies.append(item.latency)
        reader.give_back(item.buffer)
    seconds = clock() - reader.started
    reader.close()
    size = sum(block.read_bytes for block in order)
    return {"seconds": seconds, "bytes": size, "device_bytes": delivered.best()}, latencies


def _model_load(spec: Spec, say: Say, until: float) -> None:
    """Weights from cold files to the accelerator: what a scale-up waits for. The whole of it is read and copied."""
    data = _lay_out(spec, _PIECE_BYTES, spec.data_bytes)
    consume, kind = _to_device(spec.accelerator)
    rows = [row for row in spec.schedule if time.monotonic() < until or row.turn <= 2]
    for turn, row in enumerate(rows, 1):
        moved, _ = _read_all(data, data.blocks, row.workers or spec.workers, consume)
        say(ModelLoad(turn=turn, reader="yardstick", to=kind, **moved))
    for turn in range(1, 3):
        if time.monotonic() < until - 2.0 and (lazy := _safetensors(spec, consume)) is not None:
            say(ModelLoad(turn=turn, reader="safetensors", to=kind, **lazy))


def _to_device(accelerator: str) -> tuple[Callable[[Any], None], str]:
    """How loaded bytes reach the accelerator: copied to a GPU; into host memory when it is emulated or the CPU."""
    if accelerator in ("auto", "cuda"):
        from probes.feed.load.torch_accelerator import copy_to_gpu, device_for

        if device_for(accelerator) == "cuda":
            return copy_to_gpu(_PIECE_BYTES), "cuda"
    memory = np.empty(_PIECE_BYTES, np.uint8)
    return (lambda view: np.copyto(memory[: len(view)], np.frombuffer(view, np.uint8))), "host"


def _safetensors(spec: Spec, consume: Callable[[Any], None]) -> dict[str, Any] | None:
    """The usual way: a lazy memory map, every page of it touched, because a map alone has loaded nothing."""
    try:
        from safetensors import safe_open
        from safetensors.numpy import save_file
    except ImportError:
        return None
    path = os.path.join(spec.folder, "model.safetensors")
    if not os.path.exists(path):
        rng = np.random.default_rng(spec.seed)
        count = max(1, min(spec.data_bytes, 512 << 20) // _PIECE_BYTES)
        save_file({f"w{i}": rng.integers(0, 256, _PIECE_BYTES, np.uint8) for i in range(count)}, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    io_counters.evict([path])
    delivered, started, size = io_counters.Delivered(io_counters.device_of(path)), clock(), 0
    with safe_open(path, framework="numpy") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a dict
            weights = tensors.get_tensor(name)
            consume(memoryview(weights))
            size += weights.nbytes
    return {"seconds": clock() - started, "bytes": size, "device_bytes": delivered.best()}


def _kv_cache(spec: Spec, say: Say, until: float) -> None:
    """Evicted key-value blocks read back at random, alone and while the host decodes beside it."""
    for model, size in KV_BLOCKS.items():
        data = _lay_out(spec, size, spec.data_bytes // 2)
        for turn in range(1, 4):
            order = shuffled(data.blocks, spec.seed + turn)
            for state in ("idle", "decode"):
                with _decoding() if state == "decode" else nullcontext():
                    moved, latencies = _read_all(data, order, _KV_READERS, lambda _: None)
                say(KvRead(turn=turn, model=model, state=state, block_bytes=size, latencies=latencies, **moved))
            if time.monotonic() > until:
                break
        for path in data.paths:
            os.unlink(path)


@contextmanager
def _decoding() -> Iterator[None]:
    """What decoding does to the host meanwhile: matrix products on one core, step after step."""
    stop = threading.Event()

    def work() -> None:
        left = np.ones((512, 512), np.float32)
        while not stop.is_set():
            left @ left

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _checkpoint(spec: Spec, say: Say, until: float) -> None:
    """State written with fsync, then restored cold. Training stands still for the first, a restart for the second."""
    for turn in range(1, 6):
        data = _lay_out(spec, _PIECE_BYTES, spec.data_bytes, seed=turn, seconds=1e9)
        say(Checkpoint(turn=turn, direction="write", bytes=data.bytes, seconds=data.seconds))
        moved, _ = _read_all(data, data.blocks, spec.workers, lambda _: None)
        say(Checkpoint(turn=turn, direction="restore", **moved))
        for path in data.paths:
            os.unlink(path)
        if time.monotonic() > until and turn >= 2:
            return
