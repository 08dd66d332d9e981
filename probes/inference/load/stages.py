"""The stages of the load: warm-up, the two ceilings, prefill and decode in interleaved rounds, then open-loop serving.

Rounds are interleaved because a host drifts: two loads one after the other differ by several percent on a quiet
machine, step by step in turn by 0.4 percent. Each round is a repeat of every stage.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.judge.statistics import samples_needed_for_quantile
from probes.common.open_loop import LEAST_KEPT, Kept, Limits, Trial, held, highest_rate
from probes.common.sustained import SearchEnd
from probes.inference.events import (
    Checked,
    Compiled,
    SearchTrial,
    Serve,
    ServedRequest,
    Warmup,
    Window,
    measured,
    say,
    stage,
)
from probes.inference.load.decoder import Decoder
from probes.inference.load.device import Device, TimedWork, ceilings, copy_bytes, timer
from probes.inference.load.open_loop import OpenLoop, Served, poisson_arrivals
from probes.inference.load.soak import soak
from probes.inference.shapes import Shape

_SPARE_BYTES = 6_000_000_000  # activations of a prefill, captured graphs, the libraries' own
_STEADY_RATIO = 0.03  # three windows in a row within this are steady
_MOST_STEPS_KEPT = 2000
_QUICK = {"warm": 0.08, "rounds": 0.50, "serve": 0.40, "search": 0.0}  # of the time that is left after setting up
_SHARES = {"warm": 0.06, "rounds": 0.42, "serve": 0.25, "search": 0.25}
#: At standard a decode window is then longer than the 0.5 s that the energy counter needs.
_ON_CUDA = {"warm": 0.04, "rounds": 0.31, "serve": 0.44, "search": 0.21}
_CHECK = 0.02  # of the time, where no card is soaked
_LEAST_SECONDS = 5.0  # of measuring on a card, however long it took to start
_SERVED_FOR_P99 = 1.15 * samples_needed_for_quantile(0.99)  # arrivals are random, and the last ones do not finish
_MOST_ROUNDS = {"cuda": 3, "cpu": 100}  # a GPU does not drift with its host; long windows serve its energy counter
_WEIGHTS = {"prefill": 1.0, "decode": 1.0}  # of a round; what these are held against takes half as long
_SLEEP_AHEAD = 0.0005  # wake this much before an arrival and spin, because a sleep ends late
_ENOUGH_REQUESTS = 90  # of a trial: 64 decide with one violation, 81 with two (exact binomial, 99 %)
_SHORTEST_TRIAL = 2.0
_MOST_SERVED = 32  # at once


@dataclass(frozen=True, slots=True)
class Sizes:
    """Work a stage does. Tokens and sequences."""

    prompt: int  # of the prefill stage and of a request
    output: int  # of a request
    context: int  # cache length at which decode is measured; on a GPU its steps read up to the next multiple of 256
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
    room = free - shape.parameters * device.element_bytes - 2 * copy_bytes(device) - _SPARE_BYTES
    fits = max(1, room // (length * shape.kv_bytes(device.element_bytes)))
    largest = min(256, 1 << (fits.bit_length() - 1))
    batches = (*(b for b in (1, 8, 32) if b < largest), largest)
    return Sizes(256, 64, 960, length, largest, batches, min(8, largest), 512)


def serving_seconds(rate: float, share: float, left: float, on_cuda: bool) -> float:
    """How long to serve: its share of the time; on a card as long as a p99 needs at that rate, if there is time."""
    return max(0.5, min(left, max(share, _SERVED_FOR_P99 / rate if on_cuda else 0.0)))


class Stages:
    """One load on one device. Its time begins with the process (monotonic seconds), but on a card with the first
    stage, except in a quick run: starting CUDA, filling the card and compiling take 5 to 25 s.
    """

    def __init__(self, device: Device, shape: Shape, options: argparse.Namespace, began: float) -> None:
        self.device, self.shape, self.options = device, shape, options
        self.sizes = sizes(device, shape, options.quick)
        self.slots = min(self.sizes.slots, _MOST_SERVED)
        self.limits = Limits(options.first_token_limit, options.inter_token_limit)
        self.draw = torch.Generator(device="cpu").manual_seed(options.seed)
        longest = self.sizes.length if self.on_cuda else self.sizes.context
        self.prompt = self.words(self.sizes.prefill_batch, longest - 1)
        with stage("inference.setup"):
            slots, length = self.sizes.slots, self.sizes.length
            self.decoder = Decoder(shape, device.torch_name, device.dtype, slots, length, options.seed)
            self.decoder.synchronize()
            self.time_steps = timer(torch, device)
            if self.on_cuda and not options.quick:
                say(Compiled(**self.faster_parts()))
            self.planned = self.plan()
        self.deadline = began + options.seconds
        if self.on_cuda:
            least = time.monotonic() + (_LEAST_SECONDS if options.quick else options.seconds)
            self.deadline = max(self.deadline, least) + self.soak

    @property
    def on_cuda(self) -> bool:
        return self.device.kind == "cuda"

    @property
    def soak(self) -> float:
        """Seconds of products whose values are compared: of the only card. Several are soaked together, after this."""
        return self.options.soak if self.on_cuda and self.device.facts.get("devices", 1) == 1 else 0.0

    def faster_parts(self) -> dict[str, Any]:
        """Compile the small parts of a step where the node has a compiler, and keep them where they win."""
        from probes.inference.load import compiler

        self.start_decode()
        step = self.decode_step(1)

        def seconds() -> float:
            for batch in self.sizes.batches[1:]:  # what fails to compile for some batch is not used for any
                self.decode_step(batch)()
            step()
            return statistics.median(self.time_steps(step, 0.2).steps)

        return compiler.faster(self.decoder, seconds)

    def words(self, batch: int, count: int) -> Any:
        """Random tokens, [batch, count], on the device."""
        return torch.randint(0, self.shape.vocabulary, (batch, count), generator=self.draw).to(self.device.torch_name)

    def run(self) -> None:
        left = max(1.0, self.deadline - time.monotonic() - self.soak)
        shares = _QUICK if self.options.quick else _ON_CUDA if self.on_cuda else _SHARES
        self.warm_up(left * shares["warm"])
        took = self.rounds(left * shares["rounds"])
        self.planned.clear()  # and the memory of the ceilings
        if self.soak or not self.on_cuda:
            self.check(self.soak or left * _CHECK)
        rate, spare = self.modest_rate(took), self.deadline - time.monotonic() - 0.2
        if not self.on_cuda:
            spare -= left * shares["search"]
        first = self.serve(rate, serving_seconds(rate, left * shares["serve"], spare, self.on_cuda))
        if shares["search"] > 0:
            with stage("inference.search"):
                self.search(first, max(self.deadline, time.monotonic() + _SHORTEST_TRIAL))

    # --- warm-up

    def warm_up(self, most: float) -> None:
        """Until three windows agree within 3 %, or the time for it is used up; says which."""
        rates: list[float] = []
        step, steady = self.decode_step(1), False
        with stage("inference.warmup"):
            end = time.monotonic() + most
            while not steady and time.monotonic() < end:
                timed = self.time_steps(step, max(0.1, most / 10))
                rates.append(len(timed.steps) / timed.busy)
                last = rates[-3:]
                steady = len(last) == 3 and max(last) / min(last) - 1.0 <= _STEADY_RATIO
        say(Warmup(len(rates), steady))

    # --- interleaved rounds

    def rounds(self, seconds: float) -> dict[tuple[str, int | None], float]:
        """Every stage once a round. Returns the best guess of each stage's seconds a step, by stage and batch."""
        rounds = min(self.options.rounds, _MOST_ROUNDS[self.device.kind])
        weights = [_WEIGHTS.get(name, 0.5) for name, _ in self.planned]
        took: dict[tuple[str, int | None], float] = {}
        for number in range(rounds):
            for weight, (name, (step, work)) in zip(weights, self.planned, strict=True):
                spent = self.window(name, step, work, number, seconds / rounds * weight / sum(weights))
                took[name, work.get("batch")] = spent
        return took

    def plan(self) -> list[tuple[str, TimedWork]]:
        """Each stage's step and the step's work, made warm by one step."""
        made = ceilings(torch, self.device)
        batch, tokens = self.prompt.shape
        prefill = {"batch": batch, "tokens": batch * tokens, "flops": self.shape.prefill_flops(batch, tokens)}
        decode = [("decode", (self.decode_step(batch), self.decode_work(batch))) for batch in self.sizes.batches]
        plan = [*made.items(), ("prefill", (lambda: self.decoder.prefill(self.prompt), prefill)), *decode]
        for _, (step, _) in plan:
            step()
        self.decoder.synchronize()
        return plan

    def window(self, name: str, step: Callable[[], None], work: dict[str, Any], number: int, seconds: float) -> float:
        """One repeat of one stage, reported. Returns the seconds of its median step."""

        def timed() -> dict[str, Any]:
            found = self.time_steps(step, max(0.02, seconds))
            return {**found.fields, "step_seconds": tuple(round(s, 9) for s in found.steps[:_MOST_STEPS_KEPT])}

        with stage(f"inference.{name}"):
            self.start_decode()
            fields = measured(timed, self.device.energy)
        say(Window(stage=name, round=number, **work, **fields))
        return float(statistics.median_high(fields["step_seconds"]))

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
        read = self.shape.decode_bytes(batch, self.decoder.read_length(context), self.device.element_bytes)
        return {"batch": batch, "tokens": batch, "bytes": read, "context": context}

    def check(self, seconds: float) -> None:
        """Does the device compute right, and the same each time?"""
        with stage("inference.check"):
            found = Checked(**soak(torch, self.device, seconds, self.options.seed))
        say(found)

    # --- serving

    def modest_rate(self, took: dict[tuple[str, int | None], float]) -> float:
        """Requests a second: half of what the measured steps could carry, if no rate was asked for.

        A request takes the device for its prefill and for its share of each step of a full batch.
        """
        batch = max(b for b in self.sizes.batches if b <= _MOST_SERVED)
        prefill = took["prefill", self.prompt.shape[0]] / self.prompt.numel() * self.sizes.prompt
        rate: float = self.options.rate
        return rate or 0.5 / (prefill + self.sizes.output * took["decode", batch] / batch)

    def serve(self, rate: float, seconds: float) -> Trial:
        """One window with every request reported; also the first trial of the search."""
        sizes, limits = self.sizes, self.limits
        with stage("inference.serve"):
            served, fields = self.serve_window(rate, seconds, self.options.seed)
        for request in served:
            say(_record(request), index=request.index, prompt=request.arrival.prompt)
        allowed = {"first_token_limit": limits.first_token, "inter_token_limit": limits.inter_token}
        event = Serve(rate=rate, window=seconds, **allowed, **fields)
        say(event, slots=self.slots, chunk=sizes.chunk, prompt=sizes.prompt, output=sizes.output)
        return self.judged(rate, served, seconds)

    def search(self, first: Trial, deadline: float) -> None:
        """Find the highest rate that keeps the limits, until the deadline (monotonic seconds), and report it."""
        seeds = itertools.count(self.options.seed + 1)

        def trial(rate: float) -> Trial:
            seconds = min(deadline - time.monotonic(), max(_SHORTEST_TRIAL, _ENOUGH_REQUESTS / rate))
            served, fields = self.serve_window(rate, seconds, next(seeds))
            last = self.judged(rate, served, seconds)
            say(SearchTrial(rate=rate, **fields), window=seconds, kept=last.kept, violated=last.violated,
                outcome=last.outcome)  # fmt: skip
            return last

        found = highest_rate(first, trial, lambda: deadline - time.monotonic() > _SHORTEST_TRIAL)
        say(SearchEnd(best=found.best, failed=found.failed, share=LEAST_KEPT, trials=len(found.trials)))

    def serve_window(self, rate: float, seconds: float, seed: int) -> tuple[list[Served], dict[str, Any]]:
        arrivals = poisson_arrivals(rate, seconds, self.sizes.prompt, self.sizes.output, seed)
        longest = (self.sizes.prompt + self.sizes.output) * 5 // 4
        prompts = [self.words(1, arrival.prompt) for arrival in arrivals]
        server = DecoderServer(self.decoder, prompts, self.slots, longest)
        server.warm()
        served: list[Served] = []

        def work() -> dict[str, Any]:
            clock = WallClock()
            loop = OpenLoop(clock, server, arrivals, self.sizes.chunk)
            served.extend(loop.run(seconds))
            return {"seconds": clock.now(), "busy_seconds": loop.busy_seconds}

        return served, measured(work, self.device.energy)

    def judged(self, rate: float, served: Sequence[Served], seconds: float) -> Trial:
        outcomes = [self.limits.kept(_record(request), seconds) for request in served]
        kept, violated = outcomes.count(Kept.KEPT), outcomes.count(Kept.VIOLATED)
        return Trial(rate, kept, violated, held(kept, violated, LEAST_KEPT))


class WallClock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._began

    def wait(self, until: float) -> None:
        time.sleep(max(0.0, until - self.now() - _SLEEP_AHEAD))
        while self.now() < until:
            pass


class DecoderServer:
    """Prompts are drawn before the start. Each call returns when the tokens have come back to the host."""

    def __init__(self, decoder: Decoder, prompts: Sequence[Any], slots: int, longest: int) -> None:
        self.decoder, self.prompts, self.slots, self.longest = decoder, prompts, slots, longest

    def prefill(self, request: Served, count: int) -> None:
        assert request.slot is not None
        chunk = self.prompts[request.index][:, request.prefilled : request.prefilled + count]
        self.decoder.prefill(chunk, request.slot, request.prefilled)
        self.decoder.tokens[request.slot].item()

    def decode(self, running: Sequence[Served]) -> None:
        """On a GPU a step always looks at the same length of the cache, because it is captured for that."""
        highest = max(request.slot or 0 for request in running)
        batch = min(self.slots, 1 << highest.bit_length())
        on_gpu = self.decoder.device.type == "cuda"
        self.decoder.decode(batch, self.longest if on_gpu else max(request.held for request in running))
        self.decoder.tokens[:batch].tolist()

    def warm(self) -> None:
        """Prompts from the shortest to the longest, and every batch size, once: nothing is planned or captured while
        requests wait.
        """
        by_length = sorted(self.prompts, key=lambda prompt: prompt.shape[1])
        for prompt in by_length[:: max(1, len(by_length) // 3)]:
            self.decoder.prefill(prompt)
        for power in range(self.slots.bit_length()):
            self.decoder.positions.fill_(self.longest - 1)
            self.decoder.decode(1 << power, self.longest)
        self.decoder.synchronize()


def _record(served: Served) -> ServedRequest:
    """Microsecond digits: a token takes a thousand of them."""
    return ServedRequest(
        scheduled=round(served.arrival.at, 6), output=served.arrival.output,
        tokens=tuple(round(token, 6) for token in served.tokens),
        lag=None if served.released is None else round(served.lag, 6), failed=served.failed,
    )  # fmt: skip
