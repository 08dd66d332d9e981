"""The stages of the load: warm-up, the two ceilings, prefill and decode in interleaved rounds, then open-loop serving.

Rounds are interleaved because a host drifts: two loads one after the other differ by several percent on a quiet
machine, step by step in turn by 0.4 percent. Each round is a repeat of every stage.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from probes.inference.events import SearchEnd, SearchTrial, Serve, ServedRequest, Warmup, Window, measured, say, stage
from probes.inference.load.decoder import Decoder
from probes.inference.load.device import Device, TimedWork, ceilings, copy_bytes, timer
from probes.inference.load.open_loop import OpenLoop, Served, Trial, highest_rate, poisson_arrivals
from probes.inference.serving import Kept, Limits, held
from probes.inference.shapes import Shape

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
    room = free - shape.weight_bytes(device.element_bytes) - 2 * copy_bytes(device) - _SPARE_BYTES
    fits = max(1, room // (length * shape.kv_bytes(device.element_bytes)))
    largest = min(256, 1 << (fits.bit_length() - 1))
    batches = (*(b for b in (1, 8, 32) if b < largest), largest)
    return Sizes(256, 64, 1024, length, largest, batches, min(8, largest), 512)


class Stages:
    """One load on one device, until the deadline (monotonic seconds)."""

    def __init__(self, device: Device, shape: Shape, options: argparse.Namespace, deadline: float) -> None:
        self.device, self.shape, self.options, self.deadline = device, shape, options, deadline
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
        say(Warmup(len(rates), steady))

    # --- interleaved rounds

    def rounds(self, seconds: float) -> dict[str, float]:
        """Every stage once a round. Returns the best guess of each stage's seconds a step, by stage name."""
        plan = self.plan()
        rounds = min(self.options.rounds, _MOST_ROUNDS[self.device.kind])
        share = seconds / rounds / sum(_weight(name) for name, _ in plan)
        took: dict[str, float] = {}
        for number in range(rounds):
            for name, (step, work) in plan:
                spent = self.window(name, step, work, number, share * _weight(name))
                took[f"{name}{work.get('batch', '')}"] = spent
        return took

    def plan(self) -> list[tuple[str, TimedWork]]:
        """Each stage's step and the step's work, made warm by one step."""
        made = ceilings(torch, self.device)
        for step, _ in made.values():
            step()
        decode = [("decode", (self.decode_step(batch), self.decode_work(batch))) for batch in self.sizes.batches]
        return [*made.items(), ("prefill", (self.prefill_step, self.prefill_work())), *decode]

    def window(self, name: str, step: Callable[[], None], work: dict[str, Any], number: int, seconds: float) -> float:
        """One repeat of one stage, reported. Returns the seconds of its median step."""
        with stage(f"inference.{name}"):
            self.start_decode()
            fields = measured(lambda: self._timed(step, seconds), self.device.energy)
        say(Window(stage=name, round=number, **work, **fields))
        steps = sorted(fields["step_seconds"])
        return float(steps[len(steps) // 2])

    def _timed(self, step: Callable[[], None], seconds: float) -> dict[str, Any]:
        timed = self.time_steps(step, max(0.02, seconds))
        return {**timed.fields, "step_seconds": tuple(round(s, 9) for s in timed.steps[:_MOST_STEPS_KEPT])}

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
        first = serving.serve(rate, seconds)
        if searching > 0:
            with stage("inference.search"):
                serving.search(first, time.monotonic() + searching)


def _weight(name: str) -> float:
    """A stage's share of a round: what is measured takes twice as long as what it is held against."""
    return 1.0 if name in ("prefill", "decode") else 0.5


_SLEEP_AHEAD = 0.0005  # wake this much before an arrival and spin, because a sleep ends late
SHARE = 0.9  # of the requests must keep the limits for a rate to be sustained
_ENOUGH_REQUESTS = 90  # of a trial: 64 decide with one violation, 81 with two (exact binomial, 99 %)
_SHORTEST_TRIAL = 2.0


def service_seconds(prefill: float, decode: float, batch: int, output: int) -> float:
    """The device's seconds for one request when ``batch`` run at once: its prefill and its share of each step."""
    return prefill + output * decode / batch


class WallClock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._began

    def wait(self, until: float) -> None:
        left = until - self.now() - _SLEEP_AHEAD
        if left > 0:
            time.sleep(left)
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
        highest = max(request.slot or 0 for request in running)
        batch = min(self.slots, 1 << highest.bit_length())
        self.decoder.decode(batch, self._length(running))
        self.decoder.tokens[:batch].tolist()

    def _length(self, running: Sequence[Served]) -> int:
        """How much of the cache a step looks at: on a GPU always the same, because its step is captured for that."""
        if self.decoder.device.type == "cuda":
            return self.longest
        return max(request.held for request in running)

    def warm(self) -> None:
        """Every batch size once, so that nothing is captured while requests wait."""
        batch = 1
        while batch <= self.slots:
            self.decoder.positions.fill_(self.longest - 1)
            self.decoder.decode(batch, self.longest)
            batch *= 2
        self.decoder.synchronize()


@dataclass(slots=True)
class Serving:
    """Open-loop windows of one decoder."""

    decoder: Decoder
    draw: Any
    sizes: Sizes
    options: argparse.Namespace
    energy: Callable[[], float | None]

    @property
    def slots(self) -> int:
        return min(self.sizes.slots, 32)

    @property
    def limits(self) -> Limits:
        return Limits(self.options.first_token_limit, self.options.inter_token_limit)

    def serve(self, rate: float, seconds: float) -> Trial:
        """One window with every request reported; also the first trial of the search."""
        sizes, limits = self.sizes, self.limits
        with stage("inference.serve"):
            served, fields = self._window(rate, seconds, self.options.seed)
        for request in served:
            say(_record(request), index=request.index, prompt=request.arrival.prompt)
        event = Serve(
            rate=rate, window=seconds, first_token_limit=limits.first_token, inter_token_limit=limits.inter_token,
            **fields,
        )  # fmt: skip
        say(event, slots=self.slots, chunk=sizes.chunk, prompt=sizes.prompt, output=sizes.output)
        return self._judged(rate, served, seconds)

    def search(self, first: Trial, deadline: float) -> None:
        """Find the highest rate that keeps the limits, until the deadline (monotonic seconds), and report it."""
        seeds = itertools.count(self.options.seed + 1)

        def trial(rate: float) -> Trial:
            seconds = min(deadline - time.monotonic(), max(_SHORTEST_TRIAL, _ENOUGH_REQUESTS / rate))
            served, fields = self._window(rate, seconds, next(seeds))
            last = self._judged(rate, served, seconds)
            say(SearchTrial(rate=rate, **fields), window=seconds, kept=last.kept, violated=last.violated,
                outcome=last.outcome)  # fmt: skip
            return last

        found = highest_rate(first, trial, lambda: deadline - time.monotonic() > _SHORTEST_TRIAL)
        say(SearchEnd(best=found.best, failed=found.failed, share=SHARE, trials=len(found.trials)))

    def _window(self, rate: float, seconds: float, seed: int) -> tuple[list[Served], dict[str, Any]]:
        arrivals = poisson_arrivals(rate, seconds, self.sizes.prompt, self.sizes.output, seed)
        vocabulary = self.decoder.shape.vocabulary
        drawn = [torch.randint(0, vocabulary, (1, a.prompt), generator=self.draw) for a in arrivals]
        longest = (self.sizes.prompt + self.sizes.output) * 5 // 4
        server = DecoderServer(self.decoder, [words.to(self.decoder.device) for words in drawn], self.slots, longest)
        server.warm()
        served: list[Served] = []

        def work() -> dict[str, Any]:
            clock = WallClock()
            loop = OpenLoop(clock, server, arrivals, self.sizes.chunk)
            served.extend(loop.run(seconds))
            return {"seconds": clock.now(), "busy_seconds": loop.busy_seconds}

        fields = measured(work, self.energy)
        return served, fields

    def _judged(self, rate: float, served: Sequence[Served], seconds: float) -> Trial:
        outcomes = [self.limits.kept(_record(request), seconds) for request in served]
        kept, violated = outcomes.count(Kept.KEPT), outcomes.count(Kept.VIOLATED)
        return Trial(rate, kept, violated, held(kept, violated, SHARE))


def _record(served: Served) -> ServedRequest:
    """Microsecond digits: a token takes a thousand of them."""
    return ServedRequest(
        scheduled=round(served.arrival.at, 6), output=served.arrival.output,
        tokens=tuple(round(token, 6) for token in served.tokens),
        lag=None if served.released is None else round(served.lag, 6), failed=served.failed,
    )  # fmt: skip
