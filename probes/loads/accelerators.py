"""What consumes the blocks: a virtual clock that computes nothing, or a real torch step on the CPU or a GPU."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from probes.loads.reader import Reader, Ready, clock

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


class Emulated:
    """An accelerator as a virtual clock: ``start = max(block ready, previous end)``, ``end = start + work``.

    It never sleeps *after* arrival, so neither a late wake-up nor our own overhead is charged to the storage. Work is
    counted by the block and not by the batch: in the steady state the rate is the same, min(supply, demand), and the
    error at a window's edge is one block instead of one batch (46 MB for ResNet-50).
    """

    def __init__(self, samples_per_second: float, batch_samples: float) -> None:
        self._seconds_per_sample = 1.0 / samples_per_second
        self._batch = batch_samples
        self._free: float | None = None
        self._waited = self._in_batch = 0.0

    def begin(self) -> None:
        self._free, self._waited, self._in_batch = None, 0.0, 0.0

    def consume(self, item: Ready, reader: Reader, log: Consumption) -> None:
        """Compute one block; returns at about its virtual end, so that the reader feels the demand."""
        free = item.at if self._free is None else self._free
        start = max(item.at, free)
        self._free = start + item.samples * self._seconds_per_sample
        log.add(start, self._free, item.samples)
        self._count_wait(start - free, item.samples, log)
        ahead = self._free - clock()
        if ahead > _SHORTEST_SLEEP:
            time.sleep(ahead)
        reader.give_back(item.buffer)

    def _count_wait(self, wait: float, samples: float, log: Consumption) -> None:
        self._waited += wait
        self._in_batch += samples
        if self._in_batch >= self._batch:
            log.waits.append(self._waited)
            self._waited, self._in_batch = 0.0, self._in_batch - self._batch


class Torch:
    """A real training step on the CPU or a CUDA device, on the samples' own bytes: patches, two layers, a gradient.

    The step's cost is fixed in floating-point operations for each sample, not in seconds, so that nights can be
    compared. Inputs are copied from pinned memory on a stream of their own while the step before computes.
    """

    def __init__(self, device: str, batch: int, sample_bytes: int) -> None:
        import torch

        self._torch = torch
        self.device = torch.device(device)
        self.batch = batch
        self._width = 256 if device == "cpu" else 4096
        self._patch = 1024
        self._rows = sample_bytes // self._patch
        torch.manual_seed(7)
        if device == "cpu":
            torch.set_num_threads(max(1, (torch.get_num_threads() + 1) // 2))
        kind = torch.float32 if device == "cpu" else torch.bfloat16
        self._first = torch.nn.Linear(self._patch, self._width, device=self.device, dtype=kind)
        self._second = torch.nn.Linear(self._width, 16, device=self.device, dtype=kind)
        self._kind = kind
        self._pending: list[Ready] = []
        self._held = 0.0
        self._last_end = 0.0
        self.resident = self._random_batch()

    @property
    def name(self) -> str:
        cuda = self.device.type == "cuda"
        return str(self._torch.cuda.get_device_name(self.device)) if cuda else "CPU"

    def _random_batch(self) -> Any:
        shape = (self.batch, self._rows * self._patch)
        return self._torch.randint(0, 256, shape, dtype=self._torch.uint8, device=self.device)

    def begin(self) -> None:
        self._pending, self._held, self._last_end = [], 0.0, clock()

    def step(self, batch: Any) -> tuple[float, float]:
        """One step on a batch (samples x bytes, uint8, on the device); when it started and ended."""
        torch = self._torch
        started = clock()
        rows = batch.view(-1, self._patch).to(self._kind).mul_(1 / 255)
        loss = self._second(torch.nn.functional.gelu(self._first(rows))).square().mean()
        loss.backward()
        for layer in (self._first, self._second):
            layer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return started, clock()

    def consume(self, item: Ready, reader: Reader, log: Consumption) -> None:
        """Collect blocks until they make a batch, copy it to the device, compute it."""
        self._pending.append(item)
        self._held += item.samples
        if self._held + 1e-9 < self.batch:
            return
        batch = self._gather()
        for ready in self._pending:
            reader.give_back(ready.buffer)
        self._pending, self._held = [], 0.0
        start, end = self.step(batch)
        log.waits.append(max(0.0, start - self._last_end))
        log.add(start, end, float(self.batch))
        self._last_end = end

    def _gather(self) -> Any:
        torch = self._torch
        wanted = self.batch * self._rows * self._patch
        parts = [torch.frombuffer(ready.buffer, dtype=torch.uint8)[: ready.read_bytes] for ready in self._pending]
        return torch.cat(parts)[:wanted].to(self.device, non_blocking=True).view(self.batch, -1)
