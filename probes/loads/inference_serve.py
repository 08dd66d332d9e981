"""The decoder behind the open loop's two calls, on the machine's own clock, and what is reported of a window."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probes.loads.decoder import Decoder
from probes.loads.inference_events import measured, say
from probes.loads.serving import OpenLoop, Served, poisson_arrivals

if TYPE_CHECKING:
    from probes.loads.inference_stages import Sizes

_SLEEP_AHEAD = 0.0005  # wake this much before an arrival and spin, because a sleep ends late


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

    def __init__(self, decoder: Decoder, prompts: Sequence[Any], slots: int) -> None:
        self.decoder, self.prompts, self.slots = decoder, prompts, slots

    def prefill(self, request: Served, count: int) -> None:
        assert request.slot is not None
        chunk = self.prompts[request.index][:, request.prefilled : request.prefilled + count]
        self.decoder.prefill(chunk, request.slot, request.prefilled)
        self.decoder.tokens[request.slot].item()

    def decode(self, running: Sequence[Served]) -> None:
        highest = max(request.slot or 0 for request in running)
        batch = min(self.slots, 1 << highest.bit_length())
        self.decoder.decode(batch, max(request.held for request in running))
        self.decoder.tokens[:batch].tolist()

    def warm(self, longest: int) -> None:
        """Every batch size once, so that nothing is captured while requests wait."""
        batch = 1
        while batch <= self.slots:
            self.decoder.positions.fill_(longest - 1)
            self.decoder.decode(batch, longest - 1)
            batch *= 2
        self.decoder.synchronize()


def serve_at(
    decoder: Decoder, draw: Any, sizes: Sizes, options: argparse.Namespace, rate: float, seconds: float
) -> None:
    """One open-loop window at ``rate`` requests a second, each request reported."""
    arrivals = poisson_arrivals(rate, seconds, sizes.prompt, sizes.output, options.seed)
    import torch

    prompts = [
        torch.randint(0, decoder.shape.vocabulary, (1, a.prompt), generator=draw).to(decoder.device) for a in arrivals
    ]
    slots = min(sizes.slots, 32)
    server = DecoderServer(decoder, prompts, slots)
    server.warm(sizes.prompt * 5 // 4 + sizes.output * 5 // 4)
    loop: list[OpenLoop] = []

    def work() -> dict[str, Any]:
        clock = WallClock()
        loop.append(OpenLoop(clock, server, arrivals, sizes.chunk))
        loop[0].run(seconds)
        return {"seconds": clock.now(), "busy_seconds": loop[0].busy_seconds}

    fields = measured(work)
    for request in loop[0].requests:
        report(request)
    say(
        "serve", rate=rate, window=seconds, slots=slots, chunk=sizes.chunk, prompt=sizes.prompt, output=sizes.output,
        first_token_limit=options.first_token_limit, inter_token_limit=options.inter_token_limit, **fields,
    )  # fmt: skip


def report(request: Served) -> None:
    """Microsecond digits: a token takes a thousand of them."""
    say(
        "request", index=request.index, scheduled=round(request.arrival.at, 6), prompt=request.arrival.prompt,
        output=request.arrival.output, lag=None if request.released is None else round(request.lag, 6),
        tokens=[round(t, 6) for t in request.tokens], failed=request.failed,
    )  # fmt: skip
