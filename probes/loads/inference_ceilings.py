"""What the device can do at best, measured in the same run: a matrix product and a memory copy.

Operands are normal random numbers: a bf16 product of zeros ran 12 % faster on an H200 than of random numbers, because
constant data draw less power. Sizes exceed every cache by far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from probes.inference.load.device import Device

_MATRIX = {"cuda": 8192, "cpu": 768}
_TRANSFER_BYTES = 256 << 20
_COPY_BYTES = {"cuda": 4 << 30, "cpu": 128 << 20}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A step, and the work that it does: ``flops``, or ``bytes`` read plus written."""

    step: Callable[[], None]
    work: dict[str, Any]


def matmul(torch: Any, device: Device) -> Ceiling:
    """C = A B of square matrices in the load's own dtype; 2 n^3 operations."""
    n = _MATRIX[device.kind]
    a, b = (torch.randn(n, n, device=device.torch_name, dtype=device.dtype) for _ in range(2))
    c = torch.empty_like(a)
    return Ceiling(lambda: torch.matmul(a, b, out=c), {"flops": 2 * n**3})


def copy_bytes(device: Device) -> int:
    """Bytes of one of the copy's two buffers: far beyond any cache, and little of what is free."""
    return min(_COPY_BYTES[device.kind], int(device.facts["memory_free_bytes"]) // 16)


def copy(torch: Any, device: Device) -> Ceiling:
    """Device to device; the bytes read and the bytes written both count, as STREAM's copy counts them."""
    count = copy_bytes(device) // device.element_bytes
    source = torch.randn(count, device=device.torch_name, dtype=device.dtype)
    target = torch.empty_like(source)
    return Ceiling(lambda: target.copy_(source), {"bytes": 2 * count * device.element_bytes})


def transfers(torch: Any, device: Device) -> dict[str, Ceiling]:
    """Between pinned host memory and the card, by direction; nothing on a CPU, which has no such path."""
    if device.kind != "cuda":
        return {}
    host = torch.empty(_TRANSFER_BYTES, dtype=torch.uint8, pin_memory=True).random_(0, 256)
    card = torch.empty(_TRANSFER_BYTES, dtype=torch.uint8, device=device.torch_name)
    work = {"bytes": _TRANSFER_BYTES}
    return {
        "host_to_device": Ceiling(lambda: card.copy_(host, non_blocking=True), work),
        "device_to_host": Ceiling(lambda: host.copy_(card, non_blocking=True), work),
    }
