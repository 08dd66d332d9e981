"""One rank of an all-reduce over torch.distributed: NCCL when every rank has a GPU, gloo otherwise.

Every rank times its own part of every iteration and leaves the times in the store; rank 0 collects them. Beside the
all-reduce, each ordered pair of ranks sends to each other alone, in rounds of disjoint pairs (the circle method), so
that a slow port can be told from a slow rank.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from probes.peer.protocol import interface_of

TIMEOUT = timedelta(seconds=60)
_WARM_UP = 2
_MESSAGE_BYTES, _MESSAGES = 2 << 20, 6


def rounds(world: int) -> Iterator[list[tuple[int, int]]]:
    """All pairs in as few rounds of disjoint pairs as there can be: the circle method of tournaments."""
    places: list[int | None] = [*range(world), *([None] if world % 2 else [])]
    for _ in range(len(places) - 1):
        half = len(places) // 2
        pairs = zip(places[:half], reversed(places[half:]), strict=True)
        yield [(a, b) for a, b in pairs if a is not None and b is not None]
        places.insert(1, places.pop())


def take_part(rank: int, world: int, store: Any, address: str, sizes: list[int], iterations: int, device: str) -> None:
    """Join, measure, leave the times in the store under ``times-RANK``. Raises RuntimeError when a rank is missing."""
    import torch
    import torch.distributed as dist

    name = interface_of(address).get("name")
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)  # else gloo takes what the host name resolves to
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
    kind = _agree(store, rank, world, torch.cuda.device_count() if device == "cuda" else 0)
    backend = "nccl" if kind == "cuda" else "gloo"
    if kind == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())
    group = dist.PrefixStore("group", store)
    dist.init_process_group(backend, store=group, rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        answer = {
            "backend": backend,
            "sizes": {str(size): _all_reduce(size, iterations, kind, rank, world) for size in sizes},
            "links": _links(kind, rank, world),
        }
        store.set(f"times-{rank}", json.dumps(answer))
        store.wait([f"times-{other}" for other in range(world)], TIMEOUT)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _agree(store: Any, rank: int, world: int, devices: int) -> str:
    """``cuda`` only when every rank has a device."""
    store.set(f"devices-{rank}", str(devices))
    counts = [int(store.get(f"devices-{other}")) for other in range(world)]
    return "cuda" if min(counts) > 0 else "cpu"


def _all_reduce(size: int, iterations: int, kind: str, rank: int, world: int) -> list[float]:
    """Seconds of each iteration as this rank saw it: from its arrival to the result."""
    import torch
    import torch.distributed as dist

    tensor = torch.empty(size // 4, dtype=torch.float32, device=kind)
    seconds = []
    for number in range(_WARM_UP + iterations):
        tensor.fill_(rank + 1)
        _finish(kind)
        started = time.perf_counter()
        dist.all_reduce(tensor)
        _finish(kind)
        if number >= _WARM_UP:
            seconds.append(time.perf_counter() - started)
        if float(tensor[0]) != world * (world + 1) / 2 or float(tensor[-1]) != world * (world + 1) / 2:
            raise RuntimeError(f"wrong_sum: the all-reduce of {size} bytes gave {float(tensor[0])}")
    return seconds


def _links(kind: str, rank: int, world: int) -> dict[str, float]:
    """What this rank received from each other alone, bytes per second; the first message only starts the clock."""
    import torch
    import torch.distributed as dist

    tensor = torch.zeros(_MESSAGE_BYTES // 4, dtype=torch.float32, device=kind)
    found = {}
    for pairs in rounds(world):
        for first, second in ((a, b) for swap in (False, True) for a, b in (p[::-1] if swap else p for p in pairs)):
            if rank == first:
                for _ in range(_MESSAGES):
                    dist.send(tensor, second)
                _finish(kind)
            elif rank == second:
                found[str(first)] = _receive(tensor, first, kind)
        dist.barrier()
    return found


def _receive(tensor: Any, source: int, kind: str) -> float:
    import torch.distributed as dist

    started = 0.0
    for number in range(_MESSAGES):
        dist.recv(tensor, source)
        if number == 0:
            _finish(kind)
            started = time.perf_counter()
    _finish(kind)
    return _MESSAGE_BYTES * (_MESSAGES - 1) / (time.perf_counter() - started)


def _finish(kind: str) -> None:
    if kind == "cuda":
        import torch

        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("rank", "world", "port", "iterations"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("master", "address", "sizes", "device"):
        parser.add_argument(f"--{name}", required=True)
    asked = parser.parse_args()
    import torch.distributed as dist

    store = dist.TCPStore(asked.master, asked.port, asked.world, is_master=False, timeout=TIMEOUT)
    sizes = [int(size) for size in asked.sizes.split(",")]
    take_part(asked.rank, asked.world, store, asked.address, sizes, asked.iterations, asked.device)


if __name__ == "__main__":
    main()
