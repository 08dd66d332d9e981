"""The synthetic inference load, as a child process: ``python -m probes.inference.load.main --accelerator cpu ...``.

Answers in JSON lines (`probes.inference.events`): ``device`` (what it runs on), ``begin`` and ``end`` of each stage,
``window`` (one repeat of one stage), ``request`` and ``serve``, and ``done`` or ``refused``. It judges nothing.
"""

from __future__ import annotations

import argparse
import sys
import time

from bench.measure.probe import ProbeError, Unsupported
from bench.model import Code
from probes.common.nvml import hide_hung, pin, survey
from probes.common.pipe import Done, Refused
from probes.inference.events import DeviceFacts, say
from probes.inference.load.device import Device, brief, choose, import_torch
from probes.inference.shapes import SHAPES, shape_for


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="probes.inference.load.main", description=__doc__)
    parser.add_argument("--accelerator", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--device", type=int, default=0, help="which GPU, in torch's order")
    parser.add_argument("--shape", choices=("auto", *SHAPES), default="auto")
    parser.add_argument("--seconds", type=float, default=14.0, help="the time to take, imports included")
    parser.add_argument(
        "--soak", type=float, default=1.0, help="on a card, further seconds of products whose values are compared"
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved repeats of each stage")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads on a CPU")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true", help="only say what it would run on")
    parser.add_argument("--first-token-limit", type=float, default=0.2)
    parser.add_argument("--inter-token-limit", type=float, default=0.05)
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0: half of what was measured")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    began = time.monotonic()
    options = arguments(words)
    try:
        torch = import_torch()
        torch.set_num_threads(options.threads)
        found = survey()
        hide_hung(found)
        device = choose(torch, options.accelerator, options.device, found)
        pin(device.cpus)
        run(device, options, began)
    except ProbeError as error:
        say(Refused("unsupported" if isinstance(error, Unsupported) else "failed", error.reason, error.remedy))
        return 0
    except (RuntimeError, MemoryError) as error:  # torch's own: out of memory, a lost card, a kernel that failed
        say(Refused("failed", f"{Code.LOAD_FAILED}: {brief(error)}", "nvidia-smi; free its memory"))
        return 0
    say(Done(time.monotonic() - began))
    return 0


def run(device: Device, options: argparse.Namespace, began: float) -> None:
    """Say what it runs on, then run every stage. ``began``: when the process did (monotonic seconds)."""
    from probes.inference.load.stages import Stages  # imports torch, whose absence has its own answer

    shape = SHAPES.get(options.shape) or shape_for(device.kind, device.facts["memory_free_bytes"], options.quick)
    say(DeviceFacts(device.kind, device.index, shape.name), parameters=shape.parameters,
        dtype=str(device.dtype).removeprefix("torch."), seed=options.seed, **device.facts)  # fmt: skip
    if not options.check:
        Stages(device, shape, options, began).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
