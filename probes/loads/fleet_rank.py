"""One rank of an all-reduce over the nodes of a fleet: bandwidth, and who arrives last.

Every iteration is what a training step is to the network: some work of the rank's own, then a sum over all ranks. A
sum of one number comes first, which nobody leaves before the last has come: its time is what this rank waited. The
rank that arrives last waits least. One rank a node, on its first GPU (NCCL), else on the CPU (gloo, a stand-in).

Answers with one JSON object on standard output: rank, world, backend, message_bytes, iterations, seconds (mean of the
all-reduce, as nccl-tests has it: a stall now and then counts), wait_seconds (mean wait before it), stand_in.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import timedelta
from typing import Any

_BYTES = {"quick": 16 << 20, "standard": 256 << 20, "thorough": 1 << 30}
_ITERATIONS = {"quick": 20, "standard": 50, "thorough": 100}
_WARM_UP = 3
_STEP = 768  # a square matrix product of that size: some ten milliseconds of a CPU
_TIMEOUT_SECONDS = 60.0


def main() -> int:
    asked = _arguments()
    _bind(asked.address)
    import torch.distributed as dist

    device, backend = _device(asked.device)
    dist.init_process_group(
        backend, init_method=f"tcp://{asked.master}:{asked.port}", rank=asked.rank, world_size=asked.world,
        timeout=timedelta(seconds=_TIMEOUT_SECONDS),
    )  # fmt: skip
    try:
        result = _measure(device, asked.bytes or _BYTES[asked.effort], asked.iterations or _ITERATIONS[asked.effort])
    finally:
        dist.destroy_process_group()
    stand_in = {} if backend == "nccl" else {"stand_in": "cpu"}
    answer = {"rank": asked.rank, "world": asked.world, "backend": backend, **result, **stand_in}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, required=True)
    parser.add_argument("--address", required=True, help="this node's own address on the data network")
    parser.add_argument("--master", required=True, help="the address of rank 0")
    parser.add_argument("--port", type=int, default=5301)
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--effort", choices=list(_BYTES), default="quick")
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=0)
    return parser.parse_args()


def _bind(address: str) -> None:
    """Gloo and NCCL look for the host's name by themselves, and may find the wrong card: say which one it is."""
    import psutil

    cards = psutil.net_if_addrs().items()
    card = next((name for name, found in cards if any(one.address == address for one in found)), None)
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if card is not None:
            os.environ.setdefault(variable, card)


def _device(wanted: str) -> tuple[Any, str]:
    import torch

    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        torch.cuda.set_device(0)
        return torch.device("cuda", 0), "nccl"
    torch.set_num_threads(1)
    return torch.device("cpu"), "gloo"


def _measure(device: Any, size: int, iterations: int) -> dict[str, Any]:
    import torch

    message = torch.ones(size // 4, dtype=torch.float32, device=device)
    one = torch.ones(1, device=device)
    work = torch.rand(_STEP, _STEP, device=device)
    waits, seconds = [], []
    for number in range(_WARM_UP + iterations):
        work = (work @ work).clamp(-1.0, 1.0)
        _finished(device)
        waited, took = _timed(one, device), _timed(message, device)
        message.fill_(1.0)
        if number >= _WARM_UP:
            waits.append(waited)
            seconds.append(took)
    return {
        "message_bytes": message.numel() * 4, "iterations": iterations,
        "seconds": statistics.fmean(seconds), "wait_seconds": statistics.fmean(waits),
    }  # fmt: skip


def _timed(tensor: Any, device: Any) -> float:
    import torch.distributed as dist

    began = time.perf_counter()
    dist.all_reduce(tensor)
    _finished(device)
    return time.perf_counter() - began


def _finished(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
