"""One node's ranks of an all-reduce over torch.distributed: one a GPU (NCCL), or on the CPU (gloo, a stand-in).

A fleet's controller starts it on every node, a `bench peer` starts it for a node that measures; with ``--peers`` it is
that node, which has its peers start the others. The nodes tell each other how many ranks they have, so they need not be
alike. All ranks of a node end together: when one fails the others are ended, and none outlives the process that began
them.

A fleet measures training steps: some work of the rank's own, then a sum over all ranks. A sum of one number comes
before it, which nobody leaves before the last has come: its time is what this rank waited. The rank that arrives last
waits least. Each node prints one JSON object of means, `bench.judge.collective.NodeTimes`: a stall now and then counts.

With ``--links`` each iteration is a sum alone, timed from this rank's arrival. On GPUs it is the mean of many sums,
back to back between two events as nccl-tests has it, so that it is not their launch that is measured; the wait comes
before. Then each ordered pair of ranks sends alone, in rounds of disjoint pairs (the circle method), so that a slow
port can be told from a slow rank. The times go to node 0, which prints JSON lines: ``ranks`` when all were started and
``times`` for each rank, or ``error`` (`probes.collective.parse`). NCCL's own log of this node's ranks is among them
(``nccl``): it says what carried the traffic.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from statistics import fmean
from typing import Any, NamedTuple

from bench.judge.collective import NodeTimes, RankTimes, SumTimes
from probes.collective import nccl
from probes.common.nvml import hide_hung, survey
from probes.peer.client import NoPeer, connect, greet
from probes.peer.protocol import LOOPBACK, address, interface_of, read_key

_TIMEOUT = timedelta(seconds=60)
_WARM_UP = 3
_STEP = 768  # a square matrix product of that size: some ten milliseconds of a CPU
_BYTES = {"quick": 16 << 20, "standard": 256 << 20, "thorough": 1 << 30}
_GATED_BYTES = 16 << 20  # what profiles ask of a node's all-reduce, and so of a fleet's
_ITERATIONS = {"quick": 20, "standard": 50, "thorough": 100}
_MESSAGE_BYTES, _MESSAGES = {"cpu": 2 << 20, "cuda": 64 << 20}, 6
_MOST_LOG_BYTES = 1 << 20
_BACK_TO_BACK, _BACK_TO_BACK_BYTES = 20, 1 << 30  # sums on GPUs: so many, and fewer of the large ones


class RankTask(NamedTuple):
    """What one process is told: ``rank`` counts over all nodes' ``world``, ``local`` over its own node's ``beside``."""

    asked: argparse.Namespace
    backend: str
    world: int
    rank: int
    local: int
    beside: int


def main() -> None:
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as NVML numbers the cards
    asked = _arguments()
    if asked.peers is None:
        answer = _measure(asked, _store(asked.master, asked.port, asked.rank == 0))
        if not asked.links:
            print(answer.model_dump_json(exclude_none=True))
        return
    try:
        with ExitStack() as connections:
            _be_first(asked, connections)
    except (NoPeer, ValueError, RuntimeError, OSError, SystemExit) as error:
        word, _, text = " ".join(str(error).split())[:400].partition(": ")
        line = f"{word}: {text}" if text and " " not in word else f"collective_failed: {word} {text}"
        print(json.dumps({"kind": "error", "error": line}), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=json.loads, help="be node 0 of these: a JSON list of HOST[:PORT]")
    parser.add_argument("--key-file", help="the peers' key")
    parser.add_argument("--rank", type=int, default=0, help="the node's number")
    parser.add_argument("--world", type=int, default=1, help="how many nodes")
    parser.add_argument("--ranks", type=int, default=0, help="ranks on this node; 0: one a GPU, one without")
    parser.add_argument("--address", default=LOOPBACK, help="this node's own address on the data network")
    parser.add_argument("--master", default=LOOPBACK, help="the address of node 0")
    parser.add_argument("--port", type=int, default=5301)
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--effort", choices=list(_BYTES), default="quick")
    parser.add_argument("--sizes", "--bytes", type=_sizes, help="bytes, separated by commas; else by the effort")
    parser.add_argument("--iterations", type=int, help="else by the effort")
    parser.add_argument("--links", action="store_true", help="sums alone, and each pair, in place of training steps")
    asked = parser.parse_args()
    asked.sizes = asked.sizes or list(dict.fromkeys((_BYTES[asked.effort], _GATED_BYTES)))
    asked.iterations = asked.iterations or _ITERATIONS[asked.effort]
    return asked


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


def _be_first(asked: argparse.Namespace, connections: ExitStack) -> None:
    """Node 0, which has its peers start the others: print the lines of all ranks."""
    peers = asked.peers
    socks = [connections.enter_context(connect(*address(peer))) for peer in peers]
    own = socks[0].getsockname()[0] if socks else LOOPBACK
    store = _store(own, 0, True)  # torch takes seconds to import: not before the peers are known to be there
    job = {"world": 1 + len(peers), "master": own, "port": store.port, "iterations": asked.iterations,
           "device": asked.device}  # fmt: skip
    request, key = {"op": "rank", "sizes": ",".join(map(str, asked.sizes)), **job}, read_key(asked.key_file)
    for node, (peer, sock) in enumerate(zip(peers, socks, strict=True), 1):
        if greet(sock, {**request, "rank": node}, key).kind != "bench-peer":
            raise NoPeer(f"peer_without_ranks: {peer} is a plain iperf3 server; start `bench peer` there")
    ranks = max(1, asked.ranks)
    print(json.dumps({"kind": "ranks", "names": [*["this node"] * ranks, *peers]}), flush=True)
    own_part = {**vars(asked), **job, "rank": 0, "ranks": ranks, "address": own, "links": True}
    answer = _measure(argparse.Namespace(**own_part), store)
    for rank in range(ranks if answer.backend == "nccl" else 0):
        print(json.dumps({"kind": "nccl", "rank": rank, "log": store.get(f"nccl/{rank}").decode()}), flush=True)
    for rank in range(answer.world or 0):
        print(json.dumps({"kind": "times", "rank": rank, **json.loads(store.get(f"times/{rank}"))}), flush=True)


# --- the ranks of one node


def _store(master: str, port: int, is_master: bool) -> Any:
    from torch.distributed import TCPStore

    return TCPStore(master, port, is_master=is_master, timeout=_TIMEOUT, wait_for_workers=False)


def _measure(asked: argparse.Namespace, store: Any) -> NodeTimes:
    """The means of this node's ranks, as one: the slowest all-reduce (as nccl-tests has it), and the least wait.

    Raises RuntimeError when a rank is missing or fails.
    """
    name = interface_of(asked.address).name
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if name else ():
        os.environ.setdefault(variable, name)  # else they take what the host's name resolves to
    backend, ranks = _own_ranks(asked)
    backend, world, first = _agreed(store, asked, backend, ranks)
    tasks = [RankTask(asked, backend, world, first + local, local, ranks) for local in range(ranks)]
    found = [_take_part(tasks[0], store)] if ranks == 1 else _together(tasks)
    return NodeTimes(
        node=asked.rank, world=world, backend=backend, message_bytes=asked.sizes[0] // 4 * 4,
        iterations=asked.iterations, ranks=found, seconds=max(one.seconds for one in found),
        wait_seconds=min(one.wait_seconds for one in found), stand_in=None if backend == "nccl" else "cpu",
    )  # fmt: skip


def _own_ranks(asked: argparse.Namespace) -> tuple[str, int]:
    """The backend that this node could have, and how many ranks it has."""
    import torch

    if asked.device != "cpu":
        hide_hung(survey())
    gpus = torch.cuda.device_count() if asked.device != "cpu" and torch.cuda.is_available() else 0
    if asked.device == "cuda" and gpus < max(1, asked.ranks) and (asked.ranks > 1 or not asked.links):
        sys.exit(f"{asked.ranks or 1} ranks on GPUs were asked for, and torch sees {gpus} GPUs here")
    if gpus and asked.ranks <= gpus:
        return "nccl", asked.ranks or gpus
    return "gloo", max(1, asked.ranks)  # NCCL does not put two ranks on one GPU


def _agreed(store: Any, asked: argparse.Namespace, backend: str, ranks: int) -> tuple[str, int, int]:
    """The backend, all ranks, and the number of this node's first one: each node says what it has, and waits for all.

    With ``links`` a rank without a GPU takes all of them to the CPU; a fleet's training does not run like that.
    """
    store.set(f"node/{asked.rank}", f"{ranks} {backend}")
    told = [store.get(f"node/{node}").decode().split() for node in range(asked.world)]
    backends = [word for _, word in told]
    if len(set(backends)) > 1 and not asked.links:
        sys.exit(f"node {backends.index('gloo')} has no GPU, node {backends.index('nccl')} has: name one --accelerator")
    counts = [int(number) for number, _ in told]
    return "gloo" if "gloo" in backends else "nccl", sum(counts), sum(counts[: asked.rank])


def _together(tasks: Sequence[RankTask]) -> list[RankTimes]:
    """One process a rank. torch ends the others when one fails, and says what that one said."""
    from torch import multiprocessing

    answers = multiprocessing.get_context("spawn").SimpleQueue()
    try:
        multiprocessing.spawn(_one_of_many, args=(tasks, answers), nprocs=len(tasks), join=True)
    except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException) as error:
        raise RuntimeError(str(error).strip().splitlines()[-1]) from error
    return sorted((answers.get() for _ in tasks), key=lambda one: one.local)


def _one_of_many(local: int, tasks: Sequence[RankTask], answers: Any) -> None:
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: none outlives the one that began it
    asked = tasks[local].asked
    answers.put(_take_part(tasks[local], _store(asked.master, asked.port, False)))


def _take_part(task: RankTask, store: Any) -> RankTimes:
    """Join and measure; with ``links`` leave every time in the store too, under ``times/RANK``."""
    import torch
    import torch.distributed as dist

    if task.backend == "nccl":
        torch.cuda.set_device(task.local)
        device = torch.device("cuda", task.local)
    else:
        torch.set_num_threads(1)
        device = torch.device("cpu")
    log = listen() if task.backend == "nccl" else None
    group = dist.PrefixStore("ranks", store)
    dist.init_process_group(task.backend, store=group, rank=task.rank, world_size=task.world, timeout=_TIMEOUT)
    try:
        waits: list[float] = []
        first = task.asked.sizes[0]
        sizes = {
            size: _all_reduce(task, device, size, waits if task.asked.links or size == first else [])
            for size in task.asked.sizes
        }
        if task.asked.links:
            times = {"backend": task.backend, "sizes": sizes, "links": _links(task, device),
                     "waits": waits if device.type == "cuda" else []}  # fmt: skip
            if task.asked.rank == 0:
                store.set(f"nccl/{task.rank}", said(log))
            store.set(f"times/{task.rank}", json.dumps(times))
            store.wait([f"times/{rank}" for rank in range(task.world)], _TIMEOUT)
            dist.barrier()
        sums = [SumTimes(message_bytes=size // 4 * 4, seconds=fmean(own)) for size, own in sizes.items()]
        own = range(task.rank - task.local, task.rank - task.local + task.beside)
        carried = nccl.carried(nccl.read([said(log)]), lambda one, other: one in own and other in own)
        return RankTimes(
            local=task.local, seconds=fmean(sizes[first]), wait_seconds=fmean(waits), sums=sums, carried=carried
        )
    finally:
        dist.destroy_process_group()


def listen() -> int | None:
    """Have NCCL log into memory of this process, which leaves nothing behind; None where that cannot be opened."""
    log = os.memfd_create("nccl")
    path = f"/proc/self/fd/{log}"
    try:
        with open(path, "w", encoding="ascii"):  # as NCCL will; where it cannot it would print among our lines
            pass
    except OSError:
        return None
    os.environ |= {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET,GRAPH", "NCCL_DEBUG_FILE": path}
    return log


def said(log: int | None) -> str:
    """What NCCL has logged by now, which is as far as this process has connected."""
    return "" if log is None else os.pread(log, _MOST_LOG_BYTES, 0).decode(errors="replace")


def _all_reduce(task: RankTask, device: Any, size: int, waits: list[float]) -> list[float]:
    """Seconds of each iteration as this rank saw it, from its arrival to the result."""
    import torch

    message = torch.empty(size // 4, dtype=torch.float32, device=device)
    one = torch.ones(1, device=device)
    work = torch.rand(_STEP, _STEP, device=device)
    seconds = []
    for number in range(_WARM_UP + task.asked.iterations):
        message.fill_(1.0)
        if not task.asked.links:
            work = (work @ work).clamp(-1.0, 1.0)
        _finish(device)
        together = task.asked.links and device.type == "cuda"
        waited = 0.0 if task.asked.links and not together else _sum(one, device)
        if together:
            took = _sums(message, max(2, min(_BACK_TO_BACK, _BACK_TO_BACK_BYTES // max(1, size))))
            message.fill_(1.0)
            _sum(message, device)  # one by itself, for its result
        else:
            took = _sum(message, device)
        if number >= _WARM_UP:
            waits.append(waited)
            seconds.append(took)
        if float(message[0]) != task.world or float(message[-1]) != task.world:
            raise RuntimeError(f"wrong_sum: the all-reduce of {size} bytes gave {float(message[0])}")
    return seconds


def _sum(tensor: Any, device: Any) -> float:
    import torch.distributed as dist

    began = time.perf_counter()
    dist.all_reduce(tensor)
    _finish(device)
    return time.perf_counter() - began


def _sums(tensor: Any, count: int) -> float:
    """Seconds of one of so many sums, back to back."""
    import torch
    import torch.distributed as dist

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(count):
        dist.all_reduce(tensor)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / count


def rounds(world: int) -> Iterator[list[tuple[int, int]]]:
    """All pairs in as few rounds of disjoint pairs as there can be: the circle method of tournaments."""
    places: list[int | None] = [*range(world), *([None] if world % 2 else [])]
    for _ in range(len(places) - 1):
        half = len(places) // 2
        pairs = zip(places[:half], reversed(places[half:]), strict=True)
        yield [(a, b) for a, b in pairs if a is not None and b is not None]
        places.insert(1, places.pop())


def _links(task: RankTask, device: Any) -> dict[int, float]:
    """What this rank received from each other alone, bytes per second; the first message only starts the clock."""
    import torch
    import torch.distributed as dist

    size = _MESSAGE_BYTES[device.type]
    tensor = torch.zeros(size // 4, dtype=torch.float32, device=device)
    found = {}
    for pairs in rounds(task.world):
        for first, second in (*pairs, *(pair[::-1] for pair in pairs)):
            if task.rank == first:
                for _ in range(_MESSAGES):
                    dist.send(tensor, second)
                _finish(device)
            elif task.rank == second:
                dist.recv(tensor, first)
                _finish(device)
                started = time.perf_counter()
                for _ in range(_MESSAGES - 1):
                    dist.recv(tensor, first)
                _finish(device)
                found[first] = size * (_MESSAGES - 1) / (time.perf_counter() - started)
        dist.barrier()
    return found


def _finish(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
