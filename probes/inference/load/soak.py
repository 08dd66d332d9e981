"""Does the device compute right? Products of matrices for some seconds, each value of each of them compared.

Every second product has an answer that is known without the device: its matrices are circulant and hold -1, 0 and 1, so
that each value is a circular correlation of the two rows they are made of, summed in whole numbers on the host, and
small enough (below 256; their deviation is 20) to be exact in bfloat16 whatever the order and width of the sums. The
others are of random values. On one stream cuBLAS gives the same bits each time and on each card of the same kind
("Results Reproducibility" in its documentation), so they are compared with the first one, and by a digest between
cards: silent corruption by sick cores is why fleets look (Hochschild et al., "Cores that don't count", HotOS 2021).
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

from probes.inference.load.device import MATRIX, Device

_AT_ONCE = {"cuda": 8, "cpu": 1}  # products of each kind before the host waits
_ROWS = 512  # of a correlation, at once


def soak(torch: Any, device: Device, seconds: float, seed: int) -> dict[str, Any]:
    """The fields of `events.Checked`. The same seed gives the same matrices wherever it runs."""
    n, draw = MATRIX[device.kind], torch.Generator(device="cpu").manual_seed(seed)

    def circulant(row: Any) -> Any:
        return _circulant(torch, row.to(device.torch_name, device.dtype)).contiguous()

    a, b = (torch.randint(-4, 5, (n,), generator=draw).div(4, rounding_mode="trunc") for _ in range(2))
    known, right = (circulant(a), circulant(b).flip(1)), circulant(correlation(torch, a, b).roll(-1))
    drawn = tuple(circulant(torch.randn(n, generator=draw)) for _ in range(2))
    first = torch.matmul(*drawn)
    made = torch.empty_like(first)
    wrong, different = torch.zeros(2, dtype=torch.long, device=device.torch_name).unbind()
    products, end = 0, time.monotonic() + seconds
    while not products or time.monotonic() < end:
        for _ in range(_AT_ONCE[device.kind]):
            wrong += (torch.matmul(*known, out=made) != right).sum()
            different += (torch.matmul(*drawn, out=made) != first).sum()
            products += 1
        found = {"wrong": int(wrong), "mismatches": int(different)}  # waits for the device
    digest = hashlib.sha256(first.cpu().view(torch.uint8).numpy()).hexdigest()[:16]
    return {"products": products, **found, "digest": digest}


def correlation(torch: Any, a: Any, b: Any) -> Any:
    """By shift, the sum of the products of ``b`` and the shifted ``a``: whole numbers, on the host."""
    return torch.cat([(rows * b).sum(1) for rows in _circulant(torch, a).split(_ROWS)])


def _circulant(torch: Any, row: Any) -> Any:
    """Its value at [i, k] is that of the row at i + k, counted on from the beginning after the end."""
    return torch.cat([row, row[:-1]]).unfold(0, len(row), 1)
