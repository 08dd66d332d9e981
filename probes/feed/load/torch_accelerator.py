"""A real accelerator: a training step in torch on the samples' own bytes, on the CPU or on a CUDA device.

A CUDA device trains ResNet-50, the model that the default workload's published steps are of; a sample of another
workload is copied whole, and costs as many images as its published steps say. A CPU, which stands in,
trains two layers on patches of the sample, because its own ResNet-50 would want one megabyte a second and so could
never starve. Either step's cost is fixed in operations, not in seconds, so that nights can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from probes.common.nvml import hide_hung, survey
from probes.feed.load.accelerators import Consumer, Consumption
from probes.feed.load.reader import Buffer, CannotFeed, Feed, ReadyBlock, clock, first_that_fits, make_buffers

try:
    import torch
    from torch import nn
except (ImportError, OSError) as error:
    raise CannotFeed("torch_missing", f"torch cannot be imported: {error}") from error

_PATCH_BYTES = 1024
_PIXELS = 3 * 224 * 224
_WARM_STEPS = 3
_MOST_IMAGES = 256


def device_for(wanted: str) -> str:
    """``cpu`` or ``cuda``; for ``auto`` what there is. Raises CannotFeed without the device."""
    if wanted != "cpu":
        hide_hung(survey())
    if torch.cuda.is_available():
        return "cpu" if wanted == "cpu" else "cuda"
    if wanted == "cuda":
        raise CannotFeed("no_cuda", "this torch sees no CUDA device")
    return "cpu"


def copy_to_gpu(most: int) -> Callable[[Buffer], None]:
    """How at most so many bytes are copied to the GPU; each call returns when they are there."""
    target = torch.empty(most, dtype=torch.uint8, device="cuda")

    def copy(data: Buffer) -> None:
        target[: len(data)].copy_(torch.frombuffer(data, dtype=torch.uint8))
        torch.cuda.synchronize()

    return copy


def _pinned(size: int, count: int) -> list[Buffer]:
    """Memory that CUDA itself has locked."""
    return _cut(memoryview(torch.empty(size * count, dtype=torch.uint8, pin_memory=True).numpy()), size)


def _registered(size: int, count: int) -> list[Buffer]:
    """Page-aligned memory of our own, locked and told to CUDA. Raises RuntimeError where that is refused."""
    (whole,) = make_buffers(size * count, 1)
    at = np.frombuffer(whole, np.uint8).ctypes.data
    if refused := int(torch.cuda.cudart().cudaHostRegister(at, len(whole), 0)):
        raise RuntimeError(f"cudaHostRegister answers {refused}")
    return _cut(whole, size)


def _cut(whole: Buffer, size: int) -> list[Buffer]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]


class _TorchAccelerator(Consumer):
    """Blocks are collected until they make a batch, which is copied together and computed."""

    def begin(self) -> None:
        self._pending: list[ReadyBlock] = []
        self._held, self._last_end = 0.0, clock()

    def consume(self, item: ReadyBlock, feed: Feed, log: Consumption) -> None:
        self._pending.append(item)
        self._held += item.samples
        if self._held + 1e-6 < self.batch:
            return
        batch = self._gather()
        for ready in self._pending:
            feed.give_back(ready.buffer)
        self._pending, self._held = [], 0.0
        self._compute(batch, log)

    def _gather(self) -> Any:
        """The pending blocks as one batch; their buffers may be used again when it returns."""
        raise NotImplementedError

    def _compute(self, batch: Any, log: Consumption) -> None:
        raise NotImplementedError

    def _note(self, start: float, end: float, log: Consumption) -> None:
        log.waits.append(max(0.0, start - self._last_end))
        log.add(start, end, float(self.batch))
        self._last_end = end


class TorchCpu(_TorchAccelerator):
    """Copy and step one after another; a step ends when its call returns."""

    kind, name = "cpu", "CPU"

    def __init__(self, batch: int, sample_bytes: int) -> None:
        self.batch = batch
        self._wanted = max(1, min(sample_bytes, 1 << 20) // _PATCH_BYTES) * _PATCH_BYTES
        torch.manual_seed(7)
        torch.set_num_threads(max(1, (torch.get_num_threads() + 1) // 2))
        self._layers = nn.Sequential(nn.Linear(_PATCH_BYTES, 256), nn.GELU(), nn.Linear(256, 16))
        self._resident = torch.randint(0, 256, (batch, self._wanted), dtype=torch.uint8)
        self.begin()
        for _ in range(_WARM_STEPS):
            self.resident(Consumption())

    def resident(self, log: Consumption) -> None:
        self._compute(self._resident, log)

    def _gather(self) -> Any:
        parts = [torch.frombuffer(ready.buffer, dtype=torch.uint8)[: ready.read_bytes] for ready in self._pending]
        return torch.cat(parts)[: self.batch * self._wanted].view(self.batch, -1)

    def _compute(self, batch: Any, log: Consumption) -> None:
        started = clock()
        rows = batch.view(-1, _PATCH_BYTES).to(torch.float32).mul_(1 / 255)
        self._layers(rows).square().mean().backward()
        self._layers.zero_grad(set_to_none=True)
        self._note(started, clock(), log)


class TorchCuda(_TorchAccelerator):
    """Batches are copied from pinned memory on a stream of their own while the step before computes.

    Steps are timed by CUDA events, laid on the host's clock by one event whose time is known on both.
    """

    kind = "cuda"

    def __init__(self, batch: int, sample_bytes: int, images: int = 1) -> None:
        self.device = torch.device("cuda")
        self.name = str(torch.cuda.get_device_name(self.device))
        self.batch, self._sample_bytes, self._images = batch, sample_bytes, images
        torch.manual_seed(7)
        self._net = resnet50().to(self.device, torch.bfloat16, memory_format=torch.channels_last)
        self._copies = torch.cuda.Stream(self.device)
        self._at_once = self._fit(-(-batch * images // -(-batch * images // _MOST_IMAGES)))
        self._slots = [self._bytes(), self._bytes()]
        self._turn = 0
        self.begin()

    def _bytes(self) -> Any:
        size = self.batch * self._sample_bytes
        return torch.randint(0, 256, (size,), dtype=torch.uint8, device=self.device)

    def _fit(self, images: int) -> int:
        """How many images at once fit the device's memory, by halves."""
        while True:
            self._at_once = images
            try:
                data = self._bytes()
                for _ in range(_WARM_STEPS):
                    self._train(data)
                torch.cuda.synchronize(self.device)
                return images
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if images == 1:
                    raise
                images //= 2

    def buffers(self, size: int, count: int, fits: Callable[[Buffer], bool]) -> Sequence[Buffer]:
        """Memory that the device copies from by itself, as far as the file system reads into it."""
        ways = {"pinned": _pinned, "registered": _registered, "pageable": make_buffers}
        self.memory, buffers = first_that_fits(ways, size, count, fits)
        return buffers

    def begin(self) -> None:
        """Make an event whose time is known on both clocks; after a synchronize, so the error is some microseconds."""
        torch.cuda.synchronize(self.device)
        self._flying: list[tuple[Any, Any]] = []
        self._base = torch.cuda.Event(enable_timing=True)
        self._base.record()
        self._base.synchronize()
        self._base_at = clock()
        super().begin()

    def resident(self, log: Consumption) -> None:
        self._compute(self._slots[0], log)

    def finish(self, log: Consumption) -> None:
        while self._flying:
            self._land(log)

    def _gather(self) -> Any:
        """Into the slot that no step in flight uses."""
        slot, position = self._slots[self._turn], 0
        self._turn = 1 - self._turn
        with torch.cuda.stream(self._copies):
            for ready in self._pending:
                size = min(ready.read_bytes, slot.numel() - position)
                source = torch.frombuffer(ready.buffer, dtype=torch.uint8)[:size]
                slot[position : position + size].copy_(source, non_blocking=True)
                position += size
        self._copies.synchronize()
        return slot

    def _train(self, data: Any) -> None:
        """The images of all samples: bytes of each, and zeros where it has too few."""
        samples = data.view(self.batch, -1)[:, : self._images * _PIXELS]
        whole = nn.functional.pad(samples, (0, self._images * _PIXELS - samples.shape[1]))
        for part in whole.reshape(-1, 3, 224, 224).split(self._at_once):
            images = part.to(torch.bfloat16).mul_(1 / 255)
            self._net(images.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        self._net.zero_grad(set_to_none=True)

    def _compute(self, batch: Any, log: Consumption) -> None:
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        self._train(batch)
        ended.record()
        self._flying.append((begun, ended))
        if len(self._flying) > 1:
            self._land(log)

    def _land(self, log: Consumption) -> None:
        begun, ended = self._flying.pop(0)
        ended.synchronize()
        start, end = (self._base_at + self._base.elapsed_time(event) / 1e3 for event in (begun, ended))
        self._note(start, end, log)


_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first
_EXPANSION = 4


def _convolution(into: int, out: int, size: int, stride: int = 1) -> list[Any]:
    return [nn.Conv2d(into, out, size, stride=stride, padding=size // 2, bias=False), nn.BatchNorm2d(out)]


class _Bottleneck(nn.Module):  # type: ignore[misc]
    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * _EXPANSION
        self.body = nn.Sequential(
            *_convolution(into, width, 1), nn.ReLU(),
            *_convolution(width, width, 3, stride), nn.ReLU(),
            *_convolution(width, out, 1),
        )  # fmt: skip
        same = into == out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(into, out, 1, stride))

    def forward(self, images: Any) -> Any:
        return nn.functional.relu(self.body(images) + self.shortcut(images))


def resnet50() -> Any:
    """The network, with random weights, as a ``torch.nn.Module`` from images (n, 3, 224, 224) to logits."""
    layers = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    into = 64
    for width, blocks, stride in _STAGES:
        for index in range(blocks):
            layers.append(_Bottleneck(into, width, stride if index == 0 else 1))
            into = width * _EXPANSION
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, 1000))
