"""A server of known service times on a clock that only it moves. Times are whole nanoseconds, so equality is exact."""

from __future__ import annotations

from collections.abc import Sequence

from probes.inference.load.open_loop import Arrival, Served

TICK = 1e-9


class VirtualClock:
    """Nanoseconds inside, seconds outside."""

    def __init__(self) -> None:
        self.nanoseconds = 0

    def now(self) -> float:
        return self.nanoseconds * TICK

    def wait(self, until: float) -> None:
        self.nanoseconds = max(self.nanoseconds, round(until / TICK))
        while self.now() < until:
            self.nanoseconds += 1


class VirtualServer:
    """``prefill`` ns for each prompt token of a chunk, ``decode`` ns for each request in a step."""

    def __init__(self, clock: VirtualClock, prefill: int, decode: int, slots: int) -> None:
        self.clock, self.prefill_ns, self.decode_ns, self.slots = clock, prefill, decode, slots
        self.used: list[list[int]] = []

    def prefill(self, request: Served, count: int) -> None:
        self.clock.nanoseconds += self.prefill_ns * count

    def decode(self, running: Sequence[Served]) -> None:
        self.clock.nanoseconds += self.decode_ns * len(running)
        self.used.append([request.slot if request.slot is not None else -1 for request in running])


def arrivals(requests: list[tuple[int, int, int]]) -> list[Arrival]:
    return [Arrival(at * TICK, prompt, output) for at, prompt, output in requests]
