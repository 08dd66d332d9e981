"""Open-loop serving: arrivals fixed before the start, continuous batching, chunked prefill.

The loop knows neither torch nor a clock of its own: both are given, so that a test drives it with a server of known
service times on a virtual clock and compares it with an oracle. A request's clock starts when it was *scheduled* to
arrive, whatever the loop was doing then, so a stall is charged to every request that it held up (no coordinated
omission: Tene, "How NOT to Measure Latency"; MLPerf Inference rules: "from when LoadGen was scheduled to pass a
query").
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

from probes.common.open_loop import poisson


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to come: seconds after the start, and its lengths in tokens."""

    at: float
    prompt: int
    output: int


@dataclass(slots=True)
class Served:
    """What became of a request. Times are seconds after the start; ``tokens`` holds when each token was there."""

    index: int
    arrival: Arrival
    released: float | None = None
    lag: float = 0.0
    slot: int | None = None
    prefilled: int = 0
    tokens: list[float] = field(default_factory=list)
    failed: bool = False

    @property
    def finished(self) -> bool:
        return len(self.tokens) >= self.arrival.output

    @property
    def held(self) -> int:
        """Tokens of it in the KV cache."""
        return self.prefilled + max(0, len(self.tokens) - 1)


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the start."""
        ...

    def wait(self, until: float) -> None: ...


class Server(Protocol):
    """The thing under load. Each call returns when its tokens are there."""

    slots: int

    def prefill(self, request: Served, count: int) -> None:
        """Run the next ``count`` tokens of its prompt; the last chunk gives its first token."""
        ...

    def decode(self, running: Sequence[Served]) -> None:
        """One more token for each."""
        ...


def poisson_arrivals(rate: float, seconds: float, prompt: int, output: int, seed: int) -> list[Arrival]:
    """A Poisson process of ``rate`` requests a second, lengths uniform within a quarter of the mean.

    All is drawn before the start and depends on the seed alone.
    """
    draw = random.Random(seed)
    arrivals: list[Arrival] = []
    for at in takewhile(lambda at: at < seconds, poisson(rate, draw)):
        around = [max(1, draw.randint(mean - mean // 4, mean + mean // 4)) for mean in (prompt, output)]
        arrivals.append(Arrival(at, *around))
    return arrivals


class OpenLoop:
    """One window of serving. Each turn: release what is due, one chunk of one prompt, one token for all that run."""

    def __init__(self, clock: Clock, server: Server, arrivals: Iterable[Arrival], chunk: int) -> None:
        self.clock, self.server, self.chunk = clock, server, chunk
        self.requests = [Served(index, arrival) for index, arrival in enumerate(arrivals)]
        self._coming = deque(self.requests)
        self._waiting: deque[Served] = deque()
        self._filling: Served | None = None
        self._running: list[Served] = []
        self._free = set(range(server.slots))
        self._stepped = 0.0  # when the last step ended
        self.busy_seconds = 0.0

    def run(self, window: float) -> list[Served]:
        """Serve until ``window`` seconds after the start; what is then unfinished stays unfinished."""
        while (now := self.clock.now()) < window:
            self._release(now)
            self._admit()
            if not self._advance():
                self.clock.wait(min(window, self._coming[0].arrival.at if self._coming else window))
        return self.requests

    def _release(self, now: float) -> None:
        while self._coming and self._coming[0].arrival.at <= now:
            request = self._coming.popleft()
            request.released = now
            request.lag = now - max(request.arrival.at, self._stepped)
            self._waiting.append(request)

    def _admit(self) -> None:
        """The oldest one that waits takes the lowest free slot, so that the batch stays dense."""
        if self._filling is None and self._waiting and self._free:
            self._filling = self._waiting.popleft()
            self._filling.slot = min(self._free)
            self._free.remove(self._filling.slot)

    def _advance(self) -> bool:
        """One turn of work; False if there was none."""
        running, filling = list(self._running), self._filling
        if filling is None and not running:
            return False
        started = self.clock.now()
        if filling is not None:
            count = min(self.chunk, filling.arrival.prompt - filling.prefilled)
            self.server.prefill(filling, count)
            filling.prefilled += count
            self._stepped = self.clock.now()
            if filling.prefilled == filling.arrival.prompt:
                self._filling = None
                self._running.append(filling)
                self._token(filling)
        if running:
            self.server.decode(running)
            self._stepped = self.clock.now()
            for request in running:
                self._token(request)
        self.busy_seconds += self._stepped - started
        return True

    def _token(self, request: Served) -> None:
        request.tokens.append(self._stepped)
        if request.finished:
            assert request.slot is not None
            self._running.remove(request)
            self._free.add(request.slot)
