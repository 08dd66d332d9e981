"""One node's ranks of an all-reduce over the nodes of a fleet: bandwidth, and who arrives last.

Every iteration is what a training step is to the network: some work of the rank's own, then a sum over all ranks. A
sum of one number comes first, which nobody leaves before the last has come: its time is what this rank waited. The
rank that arrives last waits least. One rank a GPU (NCCL); without GPUs one rank on the CPU (gloo, a stand-in), or as
many as ``--ranks`` says. The nodes tell each other how many ranks they have, so they need not be alike. All ranks of
a node end together: when one fails the others are ended, and none outlives the process that began them.

Answers with one JSON object on standard output: node, world (all ranks), backend, message_bytes, iterations, seconds
(mean of the slowest rank's all-reduce, as nccl-tests has it: a stall now and then counts), wait_seconds (the least mean
wait before it), ranks (a list of local, seconds, wait_seconds), stand_in.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

_BYTES = {"quick": 16 << 20, "standard": 256 << 20, "thorough": 1 << 30}
_ITERATIONS = {"quick": 20, "standard": 50, "thorough": 100}
_WARM_UP = 3
_STEP = 768  # a square matrix product of that size: some ten milliseconds of a CPU
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Part:
    """What one process of the collective is told. ``rank`` counts over all nodes, ``local`` on its own."""

    asked: argparse.Namespace
    backend: str
    world: int
    rank: int
    local: int


def main() -> int:
    asked = _arguments()
    _bind(asked.address)
    backend, ranks = _ranks(asked)
    store = _store(asked, asked.rank == 0)
    world, first = _counted(store, asked, backend, ranks)
    parts = [Part(asked, backend, world, first + local, local) for local in range(ranks)]
    found = [_measure(parts[0], store)] if ranks == 1 else _together(parts)
    sys.stdout.write(json.dumps(_answer(asked, backend, world, found)) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, required=True, help="the node's number")
    parser.add_argument("--world", type=int, required=True, help="how many nodes")
    parser.add_argument("--ranks", type=int, default=0, help="ranks on this node; 0: one a GPU, one without")
    parser.add_argument("--address", required=True, help="this node's own address on the data network")
    parser.add_argument("--master", required=True, help="the address of node 0")
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


def _ranks(asked: argparse.Namespace) -> tuple[str, int]:
    """The backend, and how many ranks this node has."""
    import torch

    cards = torch.cuda.device_count() if asked.device != "cpu" and torch.cuda.is_available() else 0
    if asked.device == "cuda" and cards < max(1, asked.ranks):
        sys.exit(f"{asked.ranks or 1} ranks on GPUs were asked for, and there are {cards} GPUs here")
    if cards and asked.ranks <= cards:
        return "nccl", asked.ranks or cards
    return "gloo", max(1, asked.ranks)  # NCCL does not put two ranks on one GPU


def _store(asked: argparse.Namespace, master: bool) -> Any:
    from torch.distributed import TCPStore

    patience = timedelta(seconds=_TIMEOUT_SECONDS)
    return TCPStore(asked.master, asked.port, is_master=master, timeout=patience, wait_for_workers=False)


def _counted(store: Any, asked: argparse.Namespace, backend: str, ranks: int) -> tuple[int, int]:
    """All ranks, and the number of this node's first one: every node says what it has, and waits for the others."""
    store.set(f"node/{asked.rank}", f"{ranks} {backend}")
    told = [store.get(f"node/{node}").decode().split() for node in range(asked.world)]
    backends = [word for _, word in told]
    if len(set(backends)) > 1:
        sys.exit(f"node {backends.index('gloo')} has no GPU, node {backends.index('nccl')} has: name one --accelerator")
    counts = [int(number) for number, _ in told]
    return sum(counts), sum(counts[: asked.rank])


def _together(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """One process a rank. torch ends the others when one fails, and says what that one said."""
    from torch import multiprocessing

    answers = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(_one_of_many, args=(parts, answers), nprocs=len(parts), join=True)
    return sorted((answers.get() for _ in parts), key=lambda found: int(found["local"]))


def _one_of_many(local: int, parts: Sequence[Part], answers: Any) -> None:
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: none outlives the one that began it
    part = parts[local]
    answers.put(_measure(part, _store(part.asked, False)))


def _measure(part: Part, store: Any) -> dict[str, Any]:
    """This rank's figures."""
    import torch.distributed as dist

    device = _device(part)
    dist.init_process_group(
        part.backend, store=dist.PrefixStore("ranks", store), rank=part.rank, world_size=part.world,
        timeout=timedelta(seconds=_TIMEOUT_SECONDS),
    )  # fmt: skip
    asked = part.asked
    try:
        size, iterations = asked.bytes or _BYTES[asked.effort], asked.iterations or _ITERATIONS[asked.effort]
        return {"local": part.local, **_iterate(device, size, iterations)}
    finally:
        dist.destroy_process_group()


def _device(part: Part) -> Any:
    import torch

    if part.backend == "nccl":
        torch.cuda.set_device(part.local)
        return torch.device("cuda", part.local)
    torch.set_num_threads(1)
    return torch.device("cpu")


def _iterate(device: Any, size: int, iterations: int) -> dict[str, Any]:
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


def _answer(asked: argparse.Namespace, backend: str, world: int, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    own = [{key: one[key] for key in ("local", "seconds", "wait_seconds")} for one in found]
    stand_in = {} if backend == "nccl" else {"stand_in": "cpu"}
    return {
        "node": asked.rank, "world": world, "backend": backend, "message_bytes": found[0]["message_bytes"],
        "iterations": found[0]["iterations"], "seconds": max(one["seconds"] for one in found),
        "wait_seconds": min(one["wait_seconds"] for one in found), "ranks": own, **stand_in,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
