"""The decoder behind the open loop's two calls, on the machine's own clock, and what is reported of a window."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from probes.inference.limits import Held, Kept, Limits, Request, held
from probes.inference.load.decoder import Decoder
from probes.inference.load.events import measured, say
from probes.inference.load.open_loop import OpenLoop, Served, poisson_arrivals
from probes.loads.serving_search import Trial, highest_rate

if TYPE_CHECKING:
    from probes.inference.load.stages import Sizes

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
        loop, fields = self._window(rate, seconds, self.options.seed)
        for request in loop.requests:
            _report(request)
        say(
            "serve", rate=rate, window=seconds, slots=self.slots, chunk=sizes.chunk, prompt=sizes.prompt,
            output=sizes.output, first_token_limit=limits.first_token, inter_token_limit=limits.inter_token, **fields,
        )  # fmt: skip
        return self._judged(rate, loop, seconds)

    def search(self, first: Trial, deadline: float) -> None:
        """Find the highest rate that keeps the limits, until the deadline (monotonic seconds), and report it."""

        def trial(rate: float) -> Trial:
            left = deadline - time.monotonic()
            seconds = min(left, max(_SHORTEST_TRIAL, _ENOUGH_REQUESTS / rate))
            loop, fields = self._window(rate, seconds, self.options.seed + len(tried))
            tried.append(self._judged(rate, loop, seconds))
            last = tried[-1]
            say(
                "trial",
                rate=rate,
                window=seconds,
                kept=last.kept,
                violated=last.violated,
                outcome=last.outcome,
                **fields,
            )
            return last

        tried = [first]
        found = highest_rate(first, trial, lambda: deadline - time.monotonic() > _SHORTEST_TRIAL)
        say("search", best=found.best, failed=found.failed, share=SHARE, trials=len(found.trials))

    def _window(self, rate: float, seconds: float, seed: int) -> tuple[OpenLoop, dict[str, Any]]:
        arrivals = poisson_arrivals(rate, seconds, self.sizes.prompt, self.sizes.output, seed)
        vocabulary = self.decoder.shape.vocabulary
        drawn = [torch.randint(0, vocabulary, (1, a.prompt), generator=self.draw) for a in arrivals]
        longest = (self.sizes.prompt + self.sizes.output) * 5 // 4
        server = DecoderServer(self.decoder, [words.to(self.decoder.device) for words in drawn], self.slots, longest)
        server.warm()
        loops: list[OpenLoop] = []

        def work() -> dict[str, Any]:
            clock = WallClock()
            loops.append(OpenLoop(clock, server, arrivals, self.sizes.chunk))
            loops[0].run(seconds)
            return {"seconds": clock.now(), "busy_seconds": loops[0].busy_seconds}

        fields = measured(work, self.energy)
        return loops[0], fields

    def _judged(self, rate: float, loop: OpenLoop, seconds: float) -> Trial:
        requests = [_request(served) for served in loop.requests]
        outcomes = [request.kept(self.limits, seconds) for request in requests]
        kept, violated = outcomes.count(Kept.KEPT), outcomes.count(Kept.VIOLATED)
        return Trial(rate, kept, violated, held(kept, violated, SHARE) if outcomes else Held.UNDECIDED)


def _request(served: Served) -> Request:
    lag = None if served.released is None else served.lag
    return Request(served.arrival.at, served.arrival.output, tuple(served.tokens), lag, served.failed)


def _report(request: Served) -> None:
    """Microsecond digits: a token takes a thousand of them."""
    say(
        "request", index=request.index, scheduled=round(request.arrival.at, 6), prompt=request.arrival.prompt,
        output=request.arrival.output, lag=None if request.released is None else round(request.lag, 6),
        tokens=[round(t, 6) for t in request.tokens], failed=request.failed,
    )  # fmt: skip
