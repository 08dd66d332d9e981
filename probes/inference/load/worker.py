"""One process for one accelerator of a node: bound to the CPUs beside it, it runs what it is told and answers.

Started by `inference_node` with multiprocessing's spawn; no torch is imported before the process has chosen its card.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_NODES = Path("/sys/devices/system/node")
_CONTEXT, _LENGTH = 1024, 2048  # tokens in the cache while decoding


@dataclass(frozen=True, slots=True)
class Place:
    """Which accelerator a worker has. ``kind`` is cuda or cpu; ``uuids`` are those it may see, its own first."""

    kind: str
    index: int
    uuids: tuple[str, ...] = ()
    numa: int | None = None
    shape: str = "auto"
    seed: int = 7


def cpus_of(node: int | None, folder: Path = _NODES) -> set[int]:
    """The CPUs of a NUMA node; empty where the kernel does not say."""
    if node is None or node < 0:
        return set()
    try:
        return parse_cpulist((folder / f"node{node}" / "cpulist").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return set()


def parse_cpulist(text: str) -> set[int]:
    """``0-3,8`` to {0, 1, 2, 3, 8} (kernel Documentation/admin-guide/cputopology)."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if part:
            found |= set(range(int(first), int(last or first) + 1))
    return found


def main(pipe: Connection, place: Place) -> None:
    """Answer ``(name, seconds, start)`` with a window's fields, until None comes. Errors are answers too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    pinned = _pin(place)
    try:
        steps = _prepare(place)
    except Exception as error:  # noqa: BLE001 - whatever torch raises is told to the parent, which says it
        pipe.send({"error": f"{type(error).__name__}: {str(error).strip().splitlines()[-1:]}"})
        return
    pipe.send({"ready": list(steps), "cpus": pinned})
    with suppress(EOFError):
        while (order := pipe.recv()) is not None:
            pipe.send(_obey(steps, *order))


def _pin(place: Place) -> int | None:
    """Bind to the card's own NUMA node; returns how many CPUs that is, None when it is not known."""
    if place.kind == "cuda":
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(place.uuids)
    cpus = cpus_of(place.numa) & os.sched_getaffinity(0)
    if not cpus:
        return None
    os.sched_setaffinity(0, cpus)
    return len(cpus)


Step = Callable[[float], dict[str, Any]]


def _prepare(place: Place) -> dict[str, Step]:
    """Every step this worker can run, warm, by name."""
    import torch

    from probes.common.nvml import Survey
    from probes.inference.load import device as ceilings
    from probes.inference.load.device import choose, timer

    torch.set_num_threads(1)
    device = choose(torch, place.kind, 0, Survey(None))
    time_steps = timer(torch, device)
    work: dict[str, tuple[Callable[[], None], dict[str, Any]]] = {
        name: (made.step, made.work)
        for name, made in {
            "matmul": ceilings.matmul(torch, device),
            "copy": ceilings.copy(torch, device),
            **ceilings.transfers(torch, device),
        }.items()
    }
    if len(place.uuids) > 1:
        work = {f"peer_{i}": made for i, made in _peers(torch, len(place.uuids)).items()}
    else:
        work["decode"] = _decode(device, place)
    for step, _ in work.values():
        step()
    return {name: _window(time_steps, step, fields) for name, (step, fields) in work.items()}


def _window(time_steps: Any, step: Callable[[], None], fields: dict[str, Any]) -> Step:
    from probes.inference.load.events import measured

    def run(seconds: float) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            timed = time_steps(step, seconds)
            return {"seconds": timed.wall, "busy_seconds": timed.busy, "steps": len(timed.steps)}

        return {**fields, **measured(work)}

    return run


def _decode(device: Any, place: Place) -> tuple[Callable[[], None], dict[str, Any]]:
    """Batch 1 at a fixed length of the cache."""
    from probes.inference.load.decoder import SHAPES, Decoder, shape_for

    free = int(device.facts["memory_free_bytes"])
    shape = SHAPES.get(place.shape) or shape_for(device.kind, free, quick=True)
    context, length = (_CONTEXT, _LENGTH) if device.kind == "cuda" else (64, 128)
    decoder = Decoder(shape, device.torch_name, device.dtype, 1, length, place.seed)

    def step() -> None:
        decoder.positions.fill_(context)
        decoder.decode(1, context)

    read = shape.decode_bytes(1, context, device.element_bytes)
    return step, {"tokens": 1, "bytes": read, "batch": 1, "shape": shape.name}


def _peers(torch: Any, count: int) -> dict[int, tuple[Callable[[], None], dict[str, Any]]]:
    """Copies from card 0 to each of the others that this process sees."""
    size = 256 << 20
    source = torch.empty(size, dtype=torch.uint8, device="cuda:0").random_(0, 256)
    made: dict[int, tuple[Callable[[], None], dict[str, Any]]] = {}
    for index in range(1, count):
        target = torch.empty(size, dtype=torch.uint8, device=f"cuda:{index}")
        made[index] = (partial(target.copy_, source, non_blocking=True), {"bytes": size})
    return made


def _obey(steps: dict[str, Step], name: str, seconds: float, start: float) -> dict[str, Any]:
    """Wait for ``start`` (monotonic seconds, one clock for all processes), then run."""
    time.sleep(max(0.0, start - time.monotonic()))
    try:
        return steps[name](seconds)
    except Exception as error:  # noqa: BLE001 - as above
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}
