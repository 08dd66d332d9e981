"""The stages of the load: warm-up, the two ceilings, prefill and decode in interleaved rounds, then open-loop serving.

Rounds are interleaved because a host drifts: two loads one after the other differ by several percent on a quiet
machine, step by step in turn by 0.4 percent. Each round is a repeat of every stage.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from probes.inference.load.decoder import Decoder
from probes.inference.load.device import Device, timer
from probes.inference.load.events import measured, say, stage
from probes.loads import inference_ceilings as ceilings
from probes.loads.inference_serve import Serving, service_seconds
from probes.loads.inference_shapes import Shape

_SPARE_BYTES = 6_000_000_000  # activations of a prefill, captured graphs, the libraries' own
_STEADY_RATIO = 0.03  # three windows in a row within this are steady
_MOST_STEPS_KEPT = 2000
_QUICK = {"warm": 0.08, "rounds": 0.50, "serve": 0.40, "search": 0.0}  # of the time that is left after setting up
_SHARES = {"warm": 0.06, "rounds": 0.42, "serve": 0.25, "search": 0.25}
_MOST_ROUNDS = {"cuda": 3, "cpu": 100}  # a GPU does not drift with its host; long windows serve its energy counter


@dataclass(frozen=True, slots=True)
class Sizes:
    """Work a stage does. Tokens and sequences."""

    prompt: int  # of the prefill stage and of a request
    output: int  # of a request
    context: int  # cache length at which decode is measured
    length: int  # the cache's room for one sequence
    slots: int
    batches: tuple[int, ...]
    prefill_batch: int
    chunk: int


def sizes(device: Device, shape: Shape, quick: bool) -> Sizes:
    """What fits the device: short prompts on a CPU; on a GPU 256 in, 64 out, and the largest batch that fits."""
    if device.kind == "cpu":
        return Sizes(64, 16, 64, 256, 16, (1, 8) if quick else (1, 8, 16), 1, 64)
    length = 2048
    free = int(device.facts["memory_free_bytes"])
    room = free - shape.weight_bytes(device.element_bytes) - 2 * ceilings.copy_bytes(device) - _SPARE_BYTES
    fits = max(1, room // (length * shape.kv_bytes(device.element_bytes)))
    largest = min(256, 1 << (fits.bit_length() - 1))
    batches = (*(b for b in (1, 8, 32) if b < largest), largest)
    return Sizes(256, 64, 1024, length, largest, batches, min(8, largest), 512)


class Stages:
    """One load on one device, until the deadline (monotonic seconds)."""

    def __init__(self, torch: Any, device: Device, shape: Shape, options: argparse.Namespace, deadline: float) -> None:
        self.torch, self.device, self.shape, self.options, self.deadline = torch, device, shape, options, deadline
        self.sizes = sizes(device, shape, options.quick)
        with stage("inference.setup"):
            self.decoder = Decoder(
                shape, device.torch_name, device.dtype, self.sizes.slots, self.sizes.length, options.seed
            )
            self.decoder.synchronize()
        self.time_steps = timer(torch, device)
        draw = torch.Generator(device="cpu").manual_seed(options.seed)
        size = (self.sizes.prefill_batch, self.sizes.context * (2 if device.kind == "cuda" else 1) - 1)
        self.prompt = torch.randint(0, shape.vocabulary, size, generator=draw).to(device.torch_name)
        self.draw = draw

    def run(self) -> None:
        left = max(1.0, self.deadline - time.monotonic())
        shares = _QUICK if self.options.quick else _SHARES
        self.warm_up(left * shares["warm"])
        took = self.rounds(left * shares["rounds"])
        spare = self.deadline - time.monotonic() - left * shares["search"] - 0.2
        self.serve(took, max(0.5, min(left * shares["serve"], spare)), left * shares["search"])

    # --- warm-up

    def warm_up(self, most: float) -> None:
        """Until three windows agree within 3 %, or the time for it is used up; says which."""
        rates: list[float] = []
        step, steady = self.decode_step(1), False
        with stage("inference.warmup"):
            for batch in self.sizes.batches[1:]:
                self.decode_step(batch)()
            self.prefill_step()
            end = time.monotonic() + most
            while not steady and time.monotonic() < end:
                timed = self.time_steps(step, max(0.1, most / 10))
                rates.append(len(timed.steps) / timed.busy)
                last = rates[-3:]
                steady = len(last) == 3 and max(last) / min(last) - 1.0 <= _STEADY_RATIO
        say("warmup", windows=len(rates), steady=steady)

    # --- interleaved rounds

    def rounds(self, seconds: float) -> dict[str, float]:
        """Every stage once a round. Returns the best guess of each stage's seconds a step, by stage name."""
        plan = self.plan()
        rounds = min(self.options.rounds, _MOST_ROUNDS[self.device.kind])
        share = seconds / rounds / sum(weight for *_, weight in plan)
        took: dict[str, float] = {}
        for number in range(rounds):
            for name, step, work, weight in plan:
                spent = self.window(name, step, work, number, share * weight)
                took[f"{name}{work.get('batch', '')}"] = spent
        return took

    def plan(self) -> list[tuple[str, Callable[[], None], dict[str, Any], float]]:
        """(stage, step, the step's work, its share of the time), each made warm by one step."""
        made = {
            "matmul": ceilings.matmul(self.torch, self.device),
            "copy": ceilings.copy(self.torch, self.device),
            **ceilings.transfers(self.torch, self.device),
        }
        for ceiling in made.values():
            ceiling.step()
        plan = [(name, ceiling.step, ceiling.work, 0.5) for name, ceiling in made.items()]
        plan.append(("prefill", self.prefill_step, self.prefill_work(), 1.0))
        return plan + [("decode", self.decode_step(b), self.decode_work(b), 1.0) for b in self.sizes.batches]

    def window(self, name: str, step: Callable[[], None], work: dict[str, Any], number: int, seconds: float) -> float:
        """One repeat of one stage, reported. Returns the seconds of its median step."""
        with stage(f"inference.{name}"):
            self.start_decode()
            fields = measured(lambda: self._timed(step, seconds), self.device.energy)
        say("window", stage=name, round=number, **work, **fields)
        steps = sorted(fields["step_seconds"])
        return float(steps[len(steps) // 2])

    def _timed(self, step: Callable[[], None], seconds: float) -> dict[str, Any]:
        timed = self.time_steps(step, max(0.02, seconds))
        kept = [round(s, 9) for s in timed.steps[:_MOST_STEPS_KEPT]]
        return {"seconds": timed.wall, "busy_seconds": timed.busy, "steps": len(timed.steps), "step_seconds": kept}

    def prefill_step(self) -> None:
        self.decoder.prefill(self.prompt)

    def prefill_work(self) -> dict[str, Any]:
        batch, tokens = self.prompt.shape
        flops = self.shape.prefill_flops(batch, tokens)
        return {"batch": batch, "tokens": batch * tokens, "flops": flops}

    def start_decode(self) -> None:
        self._context = self.sizes.context
        self.decoder.positions.fill_(self._context)

    def decode_step(self, batch: int) -> Callable[[], None]:
        """A step that starts again at the measured context whenever the cache would be full."""
        self.start_decode()

        def step() -> None:
            if self._context >= min(self.sizes.length, self.sizes.context + 64) - 1:
                self.start_decode()
            self.decoder.decode(batch, self._context)
            self._context += 1

        return step

    def decode_work(self, batch: int) -> dict[str, Any]:
        context = self.sizes.context + 32  # the mean over the 64 positions that are stepped through
        read = self.shape.decode_bytes(batch, context, self.device.element_bytes)
        return {"batch": batch, "tokens": batch, "bytes": read, "context": context}

    # --- serving

    def serve(self, took: dict[str, float], seconds: float, searching: float) -> None:
        """At half of what the measured steps could carry; then, if there is time for it, the highest rate there is."""
        sizes, batch = self.sizes, max(b for b in self.sizes.batches if b <= 32)
        prefill = took[f"prefill{self.prompt.shape[0]}"] / self.prompt.numel() * sizes.prompt
        rate = self.options.rate or 0.5 / service_seconds(prefill, took[f"decode{batch}"], batch, sizes.output)
        serving = Serving(self.decoder, self.draw, sizes, self.options, self.device.energy)
        with stage("inference.serve"):
            first = serving.serve(rate, seconds)
        if searching > 0:
            with stage("inference.search"):
                serving.search(first, time.monotonic() + searching)
