"""What `tests.gpu.acceptance` runs, each in a process of its own: ``python -m tests.gpu.steps STEP cuda|cpu FOLDER``.

A step says its figures as it has them, one JSON line each; everything else that it prints is for the log.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.measure.watchers import Observers, Watching
from probes.collective import nccl as nccl_log
from probes.common import nvml
from probes.common.windows import stages
from probes.gpu import probe as gpu
from probes.gpu.health import unreadable
from probes.gpu.parse import card_samples, sustained
from probes.gpu.sampler import GpuWatch
from probes.inference import datasheet
from probes.inference.shapes import SHAPES, shape_for

CONTEXT, LENGTH = 1024, 2048


def say(**figures: Any) -> None:
    print(json.dumps({"figures": figures}, default=str), flush=True)


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def driver(accelerator: str, folder: Path) -> None:
    """Versions, and how long each part takes to start."""
    began = time.perf_counter()
    found = nvml.survey()
    say(driver=found.driver, cards=[card.name for card in found.cards], nvml_seconds=time.perf_counter() - began,
        cpus_beside=[len(card.cpus) for card in found.cards], cpus=os.cpu_count(), python=sys.version.split()[0],
        proc=sorted(path.name for path in Path("/proc/driver/nvidia").glob("*")))  # fmt: skip
    began = time.perf_counter()
    import torch

    say(torch=torch.__version__, torch_cuda=torch.version.cuda, import_seconds=time.perf_counter() - began)
    if accelerator == "cuda":
        say(init_seconds=seconds(torch.cuda.init), devices=torch.cuda.device_count(),
            first_tensor_seconds=seconds(lambda: torch.ones(1, device="cuda").item()),
            cudnn=torch.backends.cudnn.version(), nccl=torch.cuda.nccl.version())  # fmt: skip
        if shutil.which("nvidia-smi"):
            subprocess.run(["nvidia-smi", "-q"], check=False)


def watcher(accelerator: str, folder: Path) -> None:
    """How long NVML takes to open and to be sampled, what it cannot read, and what GPM says."""
    began = time.perf_counter()
    watch = GpuWatch()
    say(open_seconds=time.perf_counter() - began)
    samples = [watch.sample(event) for event in ("begin", "tick", "tick", "end")]
    print(json.dumps(samples, default=str))
    hung = {index: card["hung"] for sample in samples for index, card in sample["cards"].items() if "hung" in card}
    cards = [card for card in samples[-1]["cards"].values() if "hung" not in card]
    say(sample_seconds=max(sample["cost"] for sample in samples), cards=len(cards), hung=hung)
    link = ("max_generation", "card_generation", "max_width")  # a virtual machine's slot may say odd things of it
    facts: dict[str, Any] = next((sample["facts"]["cards"] for sample in samples if "facts" in sample), {})
    say(links=[{name: card.get(name) for name in link} for card in facts.values()],
        linked=[(card.get("generation"), card.get("width")) for card in cards])  # fmt: skip
    say(unreadable="; ".join(filter(None, (unreadable(card["errors"]) for card in cards))),
        gpm=sorted({name for card in cards for name in card["gpm"]}))  # fmt: skip
    say(close_seconds=seconds(watch.close))


def _device(accelerator: str) -> tuple[Any, Any]:
    import torch

    from probes.inference.load.device import choose

    return torch, choose(torch, accelerator, 0, nvml.survey())


def _decoder(accelerator: str, slots: int) -> tuple[Any, Any, Any, Any]:
    from probes.inference.load.decoder import Decoder

    torch, device = _device(accelerator)
    shape = (
        shape_for("cuda", device.facts["memory_free_bytes"], quick=True) if accelerator == "cuda" else SHAPES["nano"]
    )
    return torch, device, shape, Decoder(shape, device.torch_name, device.dtype, slots, LENGTH)


def decoder(accelerator: str, folder: Path) -> None:
    """Prompts of new lengths, with and without cuDNN's attention; a decode step against the copy ceiling, by kernel."""
    from probes.inference.load.device import ceilings, timer

    torch, device, shape, made = _decoder(accelerator, 8)
    say(shape=shape.name, device=device.facts["name"])

    def prefill(tokens: int) -> float:
        prompt = torch.randint(shape.vocabulary, (1, tokens), device=device.torch_name)
        made.synchronize()
        return seconds(lambda: (made.prefill(prompt), made.synchronize()))

    ours = torch.backends.cuda.cudnn_sdp_enabled()  # as the product has chosen it
    say(cudnn_attention=ours)
    for flag, suffix, lengths in ((ours, "", (200, 201, 202)), (not ours, "_otherwise", (211, 212, 213))):
        torch.backends.cuda.enable_cudnn_sdp(flag)
        prefill(192)
        first = [prefill(tokens) for tokens in lengths]
        second = [prefill(tokens) for tokens in lengths]
        say(
            **{
                f"first_prefill{suffix}_seconds": statistics.median(first),
                f"second_prefill{suffix}_seconds": statistics.median(second),
            }
        )
    torch.backends.cuda.enable_cudnn_sdp(ours)

    def step() -> None:
        made.positions.fill_(CONTEXT)
        made.decode(1, CONTEXT)

    def once() -> None:
        step()
        made.synchronize()

    say(capture_seconds=seconds(once))
    time_steps = timer(torch, device)
    decoded = statistics.median(time_steps(step, 1.0).steps)
    copy, work = ceilings(torch, device)["copy"]
    copy()
    copied = work["bytes"] / statistics.median(time_steps(copy, 1.0).steps)
    read = shape.decode_bytes(1, CONTEXT, device.element_bytes)
    say(decode_seconds=decoded, copy_bytes_per_second=copied, decode_share=read / decoded / copied)
    _profile(torch, accelerator, step, made)


def _profile(torch: Any, accelerator: str, step: Callable[[], None], made: Any) -> None:
    kind = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kind.CUDA if accelerator == "cuda" else kind.CPU]) as profiled:
        for _ in range(5):
            step()
        made.synchronize()
    key = "self_device_time_total" if accelerator == "cuda" else "self_cpu_time_total"
    timed = [event for event in profiled.key_averages() if getattr(event, key) > 0]
    events = sorted(timed, key=lambda event: -float(getattr(event, key)))
    print(profiled.key_averages().table(sort_by=key, row_limit=25))
    top = [f"{event.key[:60]} {getattr(event, key) / 5:.0f} us x{event.count // 5}" for event in events[:8]]
    say(
        kernels=sum(event.count for event in events) // 5,
        kernels_seconds=sum(getattr(e, key) for e in events) / 5e6,
        top=top,
    )


def direct(accelerator: str, folder: Path) -> None:
    """O_DIRECT from a file straight into memory that the card can read, and what it holds then."""
    import torch

    size = 64 << 20
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        wanted = os.urandom(1 << 20) * (size >> 20)
        file.write(wanted)
        file.flush()
        os.fsync(file.fileno())
        for way in ("pinned", "registered"):
            pinned = (
                torch.empty(size, dtype=torch.uint8, pin_memory=True) if way == "pinned" else _registered(torch, size)
            )
            try:
                descriptor = os.open(file.name, os.O_RDONLY | os.O_DIRECT)
                took = seconds(lambda p=pinned, d=descriptor: os.preadv(d, [memoryview(p.numpy())], 0))  # type: ignore[misc]
                os.close(descriptor)
            except OSError as error:
                say(**{f"{way}_error": error})
                continue
            right = bytes(pinned.to("cuda").cpu().numpy().data) == wanted
            say(**{f"{way}_bytes_per_second": size / took})
            say(way=way, right=right)
            return
    say(way="neither pinned nor registered memory", right=False)


def _registered(torch: Any, size: int) -> Any:
    held = torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)
    torch.cuda.check_error(torch.cuda.cudart().cudaHostRegister(held.data_ptr(), size, 0))
    return held


def copies(accelerator: str, folder: Path) -> None:
    """Between pinned memory and the card, as shares of what the link promises."""
    from probes.inference.load.device import ceilings, timer

    torch, device = _device(accelerator)
    made, time_steps, card = ceilings(torch, device), timer(torch, device), datasheet.find(device.facts["name"])
    for step, name in (("host_to_device", "to_card"), ("device_to_host", "from_card")):
        work, does = made[step]
        work()
        rate = does["bytes"] / statistics.median(time_steps(work, 1.0).steps)
        say(**{f"{name}_bytes_per_second": rate})
        if card is not None:
            say(**{name: rate / card.promises["pcie_bytes_per_second"]})


def soak(accelerator: str, folder: Path) -> None:
    """Products with a known answer and repeated ones, twice from one seed, while the watcher reads clock and heat."""
    from probes.inference.load.soak import soak as multiply

    torch, device = _device(accelerator)
    watching = [Watching(gpu.PROBE, GpuWatch())] if accelerator == "cuda" else []
    observers = Observers(watching)
    observers.start()
    with observers.staged("inference.check"):
        began = time.perf_counter()
        found = multiply(torch, device, 8.0 if watching else 1.0, 7)
        say(**found, took=time.perf_counter() - began)
    began = time.perf_counter()
    again = multiply(torch, device, 0.0, 7)
    say(again=again["digest"], least_took=time.perf_counter() - began)
    observers.stop()
    if watching:
        samples = card_samples(watching[0].samples, str(device.index))
        print(json.dumps(samples, default=str))
        pace = next(filter(None, map(sustained, stages(samples))), None)
        say(pace=pace, kept=None if pace is None else pace.ratio)


def nccl(accelerator: str, folder: Path) -> None:
    """One rank: how long NCCL takes to start, to sum, and to end."""
    import torch
    import torch.distributed as dist

    from probes.collective.load.rank import listen, said

    log = listen()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    torch.cuda.set_device(0)
    one = torch.ones(1, device="cuda")

    def summed() -> None:
        dist.all_reduce(one)
        torch.cuda.synchronize()

    say(init=seconds(lambda: dist.init_process_group("nccl", store=store, rank=0, world_size=1)))
    say(first_sum=seconds(summed))
    say(second_sum=seconds(summed))
    print(text := said(log))  # every form of line that this NCCL has, to be held against what is parsed
    say(
        log_lines=text.count("NCCL INFO"),
        nvlinks=nccl_log.read([text]).nvlink,
        network=next((line.split("Using network ")[1] for line in text.splitlines() if "Using network " in line), None),
    )
    say(end=seconds(dist.destroy_process_group))


# --- telemetry on and off

_BLOCK, _EDGE, _BLOCKS = 1.0, 0.05, 17


def decoding(accelerator: str, folder: Path) -> None:
    """Decode until it is ended, and print when each step ended and how long it took."""
    _, _, _, made = _decoder(accelerator, 1)

    def step() -> None:
        made.positions.fill_(CONTEXT)
        made.decode(1, CONTEXT)
        made.synchronize()

    while True:
        took = seconds(step)
        print(json.dumps([time.monotonic(), took]), flush=True)


def telemetry(accelerator: str, folder: Path) -> None:
    """Tokens a second in every second block of a second, in which the watcher samples, over those beside it."""
    observers = Observers([Watching(gpu.PROBE, GpuWatch())])  # not started: the blocks do the sampling
    with tempfile.TemporaryFile("w+") as file:
        argv = [sys.executable, "-m", "tests.gpu.steps", "decoding", accelerator, str(folder)]
        process = subprocess.Popen(argv, stdout=file)
        try:
            while process.poll() is None and os.fstat(file.fileno()).st_size < 200:
                time.sleep(0.1)
            starts = []
            for block in range(_BLOCKS):
                starts.append(time.monotonic())
                if block % 2:
                    with observers.staged("inference.decode"):
                        time.sleep(_BLOCK / 2)
                        observers._sample("tick")
                        time.sleep(max(0.0, starts[-1] + _BLOCK - time.monotonic()))
                else:
                    time.sleep(_BLOCK)
            starts.append(time.monotonic())
        finally:
            process.kill()
            process.wait()
        file.seek(0)
        steps = [json.loads(line) for line in file.read().splitlines() if line.startswith("[") and line.endswith("]")]
    observers.stop()
    rates = [
        1 / statistics.fmean(took for at, took in steps if begin + _EDGE <= at < end - _EDGE)
        for begin, end in pairwise(starts)
    ]
    ratios = [2 * rates[i] / (rates[i - 1] + rates[i + 1]) for i in range(1, len(rates) - 1, 2)]
    say(
        ratio=statistics.median(ratios),
        error=1.96 * 1.2533 * statistics.stdev(ratios) / len(ratios) ** 0.5,
        steps=len(steps),
    )


if __name__ == "__main__":
    name, where, folder = sys.argv[1:]
    steps = (driver, watcher, decoder, direct, soak, copies, nccl, decoding, telemetry)
    {step.__name__: step for step in steps}[name](where, Path(folder))
