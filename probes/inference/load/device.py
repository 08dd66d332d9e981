"""Which device the load runs on, and how its time is taken. Every refusal says exactly what is missing.

Times on CUDA come from events on the stream, so that the GPU is timed and not the host that launches.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from bench.measure.probe import Failed, Unsupported
from bench.model import Code
from probes.common.nvml import Survey, energy_reader

TORCH_REMEDY = "pip install torch"
CUDA_REMEDY = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"
_EVENTS_IN_FLIGHT = 16
_GROUP_SECONDS = 0.05


def brief(error: BaseException, line: int = 0) -> str:
    """One line of an error: of torch's own the first, without the pages that follow."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[line][:300]}"


def import_torch() -> Any:
    """Raises Unsupported when torch is absent, Failed when it is broken, with the last line of its error."""
    try:
        import torch
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            raise Unsupported(Code.TORCH_MISSING, "torch is not installed", TORCH_REMEDY) from error
        reason = f"torch cannot be imported: {brief(error, line=-1)}"
        raise Failed(Code.TORCH_BROKEN, reason, f"{TORCH_REMEDY} --force-reinstall") from error
    return torch


@dataclass(frozen=True, slots=True)
class Device:
    """Where the load runs. ``kind`` is ``cuda`` or ``cpu``; ``facts`` go into the record as they are.

    ``index`` is the driver's number of the card, as the GPU watcher has it; ``cpus`` are those beside it.
    """

    kind: Literal["cuda", "cpu"]
    torch_name: str
    dtype: Any
    facts: dict[str, Any]
    energy: Callable[[], float | None] = lambda: None  # joules, cumulative
    index: int = 0
    cpus: frozenset[int] = frozenset()

    @property
    def element_bytes(self) -> int:
        return int(self.dtype.itemsize)


def choose(torch: Any, wanted: str, index: int, survey: Survey) -> Device:
    """``wanted``: auto, cuda or cpu. Raises Unsupported where a GPU is wanted and torch has none.

    With ``auto``, a node whose NVIDIA driver answers but whose torch has no CUDA is refused too: a CPU figure in the
    place of a GPU that is there would mislead.
    """
    if wanted != "cpu" and torch.cuda.is_available():
        return _cuda(torch, index, survey)
    if wanted == "cuda" or (wanted == "auto" and survey.driver is not None):
        raise _no_cuda(torch, survey.driver)
    return _cpu(torch, survey.driver)


def _no_cuda(torch: Any, driver: str | None) -> Unsupported:
    if driver is None:
        return Unsupported(Code.NO_GPU, "no NVIDIA driver answers on this node", "--accelerator cpu|emulated")
    here, version = f"NVIDIA driver {driver}", f"torch {torch.__version__}"
    if torch.version.cuda is None:
        reason = f"{here} is here, but {version} was built without CUDA"
        return Unsupported(Code.TORCH_WITHOUT_CUDA, reason, CUDA_REMEDY)
    reason = f"{here} and {version} do not work together"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason += ": " + str(error).strip().splitlines()[0][:300]
    return Unsupported(Code.CUDA_UNAVAILABLE, reason, "nvidia-smi")


def _cuda(torch: Any, index: int, survey: Survey) -> Device:
    if index >= torch.cuda.device_count():
        raise Failed(Code.GPU_MISSING, f"torch sees {torch.cuda.device_count()} GPUs, not number {index}")
    torch.cuda.set_device(index)
    if hasattr(torch.backends.cuda, "enable_cudnn_sdp"):
        # it plans anew for every prompt's length: 45 to 50 ms each on an H200, which a real server does not pay
        torch.backends.cuda.enable_cudnn_sdp(False)
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    uuid = str(getattr(properties, "uuid", ""))
    seen = survey.by_uuid(uuid)
    facts = {
        "name": properties.name,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "driver": survey.driver,
        "memory_free_bytes": free,
        "memory_bytes": total,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "uuid": uuid,
        "devices": torch.cuda.device_count(),
        "foreign_processes": seen.processes if seen else None,
    }
    where = (seen.index, seen.cpus) if seen else (index,)
    return Device("cuda", f"cuda:{index}", torch.bfloat16, facts, energy_reader(uuid), *where)


def _cpu(torch: Any, driver: str | None) -> Device:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    facts = {
        "name": platform.machine(), "torch": torch.__version__, "torch_cuda": torch.version.cuda, "driver": driver,
        "memory_free_bytes": free, "threads": torch.get_num_threads(), "stand_in": "cpu",
    }  # fmt: skip
    return Device("cpu", "cpu", torch.float32, facts)


@dataclass(frozen=True, slots=True)
class Timed:
    """Steps of one window: wall seconds, and in how many of them the device computed each step."""

    wall: float
    steps: list[float]

    @property
    def busy(self) -> float:
        return sum(self.steps)

    @property
    def fields(self) -> dict[str, Any]:
        """Those of a window in the load's events."""
        return {"seconds": self.wall, "busy_seconds": self.busy, "steps": len(self.steps)}


def timer(torch: Any, device: Device) -> Callable[[Callable[[], None], float], Timed]:
    """``time_steps(step, seconds)``: repeat the step for that long, at least once."""
    return partial(_time_on_cuda, torch) if device.kind == "cuda" else _time_on_host


def _time_on_host(step: Callable[[], None], seconds: float) -> Timed:
    steps: list[float] = []
    began = now = time.perf_counter()
    while not steps or now - began < seconds:
        before = time.perf_counter()
        step()
        now = time.perf_counter()
        steps.append(now - before)
    return Timed(now - began, steps)


def _time_on_cuda(torch: Any, step: Callable[[], None], seconds: float) -> Timed:
    """Short steps are launched ahead in groups; the host waits once a group, so it never runs far in front."""
    steps: list[float] = []
    group = 1
    torch.cuda.synchronize()
    began = time.perf_counter()
    while not steps or time.perf_counter() - began < seconds:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(group + 1)]
        marks[0].record()
        for mark in marks[1:]:
            step()
            mark.record()
        marks[-1].synchronize()
        steps += [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]
        group = max(1, min(_EVENTS_IN_FLIGHT, int(_GROUP_SECONDS / max(steps[-1], 1e-6))))
    return Timed(time.perf_counter() - began, steps)


# --- ceilings

MATRIX = {"cuda": 8192, "cpu": 768}
_TRANSFER_BYTES = 256 << 20
_COPY_BYTES = {"cuda": 4 << 30, "cpu": 128 << 20}
#: A step, and the work it does: ``flops``, or ``bytes`` read plus written.
TimedWork = tuple[Callable[[], Any], dict[str, Any]]


def copy_bytes(device: Device) -> int:
    """Bytes of one of the copy's two buffers: far beyond any cache, and little of what is free."""
    return min(_COPY_BYTES[device.kind], int(device.facts["memory_free_bytes"]) // 16)


def ceilings(torch: Any, device: Device) -> dict[str, TimedWork]:
    """By name: product of square matrices, copy within the device, and between pinned host memory and a card.

    In the load's own dtype. A copy's bytes read and bytes written both count, as STREAM's do. A CPU has no path between
    host and card.
    """
    n, count = MATRIX[device.kind], copy_bytes(device) // device.element_bytes
    a, b = (torch.randn(n, n, device=device.torch_name, dtype=device.dtype) for _ in range(2))
    c = torch.empty_like(a)
    source = torch.randn(count, device=device.torch_name, dtype=device.dtype)
    target = torch.empty_like(source)
    made: dict[str, TimedWork] = {
        "matmul": (lambda: torch.matmul(a, b, out=c), {"flops": 2 * n**3}),
        "copy": (lambda: target.copy_(source), {"bytes": 2 * count * device.element_bytes}),
    }
    if device.kind != "cuda":
        return made
    card = torch.empty(_TRANSFER_BYTES, dtype=torch.uint8, device=device.torch_name).random_(0, 256)
    host = torch.empty(_TRANSFER_BYTES, dtype=torch.uint8, pin_memory=True).copy_(card)
    work = {"bytes": _TRANSFER_BYTES}
    return {
        **made,
        "host_to_device": (lambda: card.copy_(host, non_blocking=True), work),
        "device_to_host": (lambda: host.copy_(card, non_blocking=True), work),
    }
