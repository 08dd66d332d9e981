"""Other ways in which storage keeps accelerators waiting: loading a model, key-value blocks, checkpoints.

Each is timed whole, cold, with the bytes that came from the device beside it, and said as one JSON object a repeat.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from probes.common import io_counters as witness
from probes.feed.load import dataset as layout
from probes.feed.load.dataset import Block, DataSet
from probes.feed.load.reader import FileSource, Reader, clock, make_buffers
from probes.feed.load.spec import Refused, Row, Spec

Say = Callable[[Mapping[str, Any]], None]

_PIECE_BYTES = 4 << 20
_HANG_SECONDS = 15.0
_FILES = 4
#: Bytes of one key-value block of 16 tokens (vLLM's default): 2 (key and value) * layers * heads * head size * 2 B.
KV_BLOCKS = {"llama3-8b": 2 * 32 * 8 * 128 * 2 * 16, "llama3-70b": 2 * 80 * 8 * 128 * 2 * 16}
_KV_READERS = 4  # requests whose blocks come back at once


def run(spec: Spec, say: Say) -> None:
    """One pattern, repeat after repeat, until the schedule's turns or the deadline are used up."""
    if memory := witness.memory_file_system(spec.folder):
        raise Refused("in_memory", f"{spec.folder} is on {memory}: there is no storage below it to measure")
    patterns = {"model-load": _model_load, "kv-cache": _kv_cache, "checkpoint": _checkpoint}
    until = time.monotonic() + spec.deadline_seconds
    say({"kind": "ready", "accelerator": spec.accelerator, "pattern": spec.pattern, "cores": os.cpu_count()})
    patterns[spec.pattern](spec, say, until)
    say({"kind": "end"})


def _lay_out(spec: Spec, piece: int) -> DataSet:
    each = max(1, spec.data_bytes // _FILES // piece)
    blocks = [Block(file, i * piece, piece, 1.0) for file in range(_FILES) for i in range(each)]
    return layout.write(spec.folder, blocks, spec.seed, time.monotonic() + spec.layout_seconds)


def _read_all(data: DataSet, order: Sequence[Block], workers: int, consume: Callable[[Any], None]) -> dict[str, Any]:
    """Every block once; seconds from the first request to the last byte consumed."""
    delivered = witness.Delivered(witness.device_of(data.paths[0]))
    buffers = make_buffers(order[0].read_bytes, workers * 2)
    reader = Reader(FileSource(data), [*order], workers=workers, buffers=buffers, once=True)
    latencies = []
    for _ in order:
        item = reader.get(_HANG_SECONDS)
        consume(item.buffer[: item.read_bytes])
        latencies.append(item.latency)
        reader.give_back(item.buffer)
    seconds = clock() - reader.started
    reader.close()
    came = delivered.best()
    size = sum(block.read_bytes for block in order)
    return {"seconds": seconds, "bytes": size, "device_bytes": came, "latencies": latencies}


def _model_load(spec: Spec, say: Say, until: float) -> None:
    """Weights from cold files to the accelerator: what a scale-up waits for. The whole of it is read and copied."""
    data = _lay_out(spec, _PIECE_BYTES)
    consume, kind = _to_device(spec.accelerator)
    for turn, row in enumerate(_turns(spec, until), 1):
        done = _read_all(data, data.blocks, row.workers or spec.workers, consume)
        say({"kind": "load", "turn": turn, "reader": "yardstick", "to": kind, **_without_latencies(done)})
    for turn in range(1, 3):
        if time.monotonic() < until - 2.0:
            lazy = _safetensors(spec, consume)
            if lazy is not None:
                say({"kind": "load", "turn": turn, "reader": "safetensors", "to": kind, **lazy})


def _without_latencies(done: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in done.items() if name != "latencies"}


def _turns(spec: Spec, until: float) -> Sequence[Row]:
    rows = spec.rows()
    return [row for row in rows if time.monotonic() < until or row.turn <= 2]


def _to_device(accelerator: str) -> tuple[Callable[[Any], None], str]:
    """How loaded bytes reach the accelerator: copied to a GPU; into host memory when it is emulated or the CPU."""
    if accelerator in ("auto", "cuda"):
        try:
            import torch
        except (ImportError, OSError) as error:
            raise Refused("torch_missing", f"torch cannot be imported: {error}") from error
        if torch.cuda.is_available():
            target = torch.empty(_PIECE_BYTES, dtype=torch.uint8, device="cuda")
            return (lambda view: _copy_to_gpu(torch, target, view)), "cuda"
        if accelerator == "cuda":
            raise Refused("no_cuda", "this torch sees no CUDA device")
    memory = np.empty(_PIECE_BYTES, np.uint8)
    return (lambda view: np.copyto(memory[: len(view)], np.frombuffer(view, np.uint8))), "host"


def _copy_to_gpu(torch: Any, target: Any, view: Any) -> None:
    target[: len(view)].copy_(torch.frombuffer(view, dtype=torch.uint8))
    torch.cuda.synchronize()


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
    witness.evict([path])
    delivered, started, size = witness.Delivered(witness.device_of(path)), clock(), 0
    with safe_open(path, framework="numpy") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a dict
            weights = tensors.get_tensor(name)
            consume(memoryview(weights))
            size += weights.nbytes
    return {"seconds": clock() - started, "bytes": size, "device_bytes": delivered.best()}


def _kv_cache(spec: Spec, say: Say, until: float) -> None:
    """Evicted key-value blocks read back at random, alone and while the host decodes beside it."""
    for model, size in KV_BLOCKS.items():
        data = _lay_out(replace(spec, data_bytes=spec.data_bytes // 2), size)
        for turn in range(1, 4):
            order = list(data.blocks)
            random.Random(spec.seed + turn).shuffle(order)
            for state in ("idle", "decode"):
                with _decoding() if state == "decode" else nullcontext():
                    done = _read_all(data, order, _KV_READERS, lambda _: None)
                say({"kind": "kv", "model": model, "block_bytes": size, "state": state, "turn": turn, **done})
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
        data = _lay_out(replace(spec, seed=spec.seed + turn, layout_seconds=1e9), _PIECE_BYTES)
        say({"kind": "checkpoint", "turn": turn, "direction": "write", "bytes": data.bytes, "seconds": data.seconds})
        done = _read_all(data, data.blocks, spec.workers, lambda _: None)
        say({"kind": "checkpoint", "turn": turn, "direction": "restore", **_without_latencies(done)})
        for path in data.paths:
            os.unlink(path)
        if time.monotonic() > until and turn >= 2:
            return
