"""The open loop against an oracle that shares no code with it, and mutants of it that the oracle must catch."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from probes.common.open_loop import Kept, Limits
from probes.inference.events import ServedRequest
from probes.inference.load.open_loop import Arrival, OpenLoop, Served, poisson_arrivals
from tests.probes.inference import oracle
from tests.probes.inference.virtual import TICK, VirtualClock, VirtualServer, arrivals

MS = 1_000_000  # nanoseconds
Requests = list[tuple[int, int, int]]


def drawn(seed: int, count: int, mean_gap: int) -> Requests:
    draw, at, found = random.Random(seed), 0, []
    for _ in range(count):
        at += round(draw.expovariate(1 / mean_gap))
        found.append((at, draw.randint(1, 90), draw.randint(1, 12)))
    return found


def served(
    requests: Requests, slots: int, chunk: int, window: int, loop: type[OpenLoop] = OpenLoop
) -> tuple[list[Served], VirtualServer]:
    clock = VirtualClock()
    server = VirtualServer(clock, prefill=MS // 10, decode=MS, slots=slots)
    return loop(clock, server, arrivals(requests), chunk).run(window * TICK), server


def first_tokens(found: list[Served]) -> list[int]:
    """Nanoseconds from the scheduled arrival, as the probe reports them."""
    made = [ServedRequest(r.arrival.at, r.arrival.output, tuple(r.tokens), r.lag, r.failed).first_token for r in found]
    return [round(first / TICK) for first in made if first is not None]


def token_times(found: list[Served]) -> list[list[int]]:
    return [[round(t / TICK) for t in request.tokens] for request in found]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mean_gap", [3 * MS, 12 * MS, 60 * MS])
def test_one_at_a_time_is_lindleys_recursion(seed: int, mean_gap: int) -> None:
    requests = drawn(seed, 120, mean_gap)
    truth = oracle.one_at_a_time(requests, prefill=MS // 10, decode=MS)
    window = truth[-1].tokens[-1] + 1
    found, _ = served(requests, slots=1, chunk=1000, window=window)
    assert token_times(found) == [t.tokens for t in truth]
    assert first_tokens(found) == [t.tokens[0] - t.scheduled for t in truth]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("slots", "chunk"), [(1, 16), (4, 16), (4, 1000), (16, 7)])
def test_batches_and_chunks_equal_the_event_walk(seed: int, slots: int, chunk: int) -> None:
    requests = drawn(seed, 150, 8 * MS)
    window = requests[-1][0] * 3 // 4  # closes in the middle of the work
    found, server = served(requests, slots, chunk, window)
    truth = oracle.batched(requests, MS // 10, MS, slots, chunk, window)
    assert token_times(found) == [t.tokens for t in truth]
    assert all(len(set(step)) == len(step) <= slots for step in server.used)


class ClockFromService(OpenLoop):
    """The mistake: a request's clock starts when there was a place for it (vllm-project/vllm#54101)."""

    def _admit(self) -> None:
        before = self._filling
        super()._admit()
        if self._filling is not None and self._filling is not before:
            request = self._filling
            request.arrival = Arrival(self.clock.now(), request.arrival.prompt, request.arrival.output)


class ClockFromRelease(OpenLoop):
    """The smaller mistake: it starts when the loop got round to looking."""

    def _release(self, now: float) -> None:
        super()._release(now)
        for request in self._waiting:
            if request.released == now:
                request.arrival = Arrival(now, request.arrival.prompt, request.arrival.output)


@pytest.mark.parametrize(("mutant", "flattery"), [(ClockFromService, 0.5), (ClockFromRelease, 1.0)])
def test_the_oracle_catches_coordinated_omission(mutant: type[OpenLoop], flattery: float) -> None:
    requests = drawn(1, 120, 3 * MS)
    truth = oracle.one_at_a_time(requests, prefill=MS // 10, decode=MS)
    found, _ = served(requests, 1, 1000, truth[-1].tokens[-1] + 1, mutant)
    expected = [t.tokens[0] - t.scheduled for t in truth]
    assert first_tokens(found) != expected
    assert sum(first_tokens(found)) < flattery * sum(expected)


def test_a_stall_of_the_server_is_charged_to_all_that_it_held_up() -> None:
    requests = [(0, 10, 2)] + [(i * MS, 10, 1) for i in range(1, 50)]
    clock = VirtualClock()

    class Stalls(VirtualServer):
        def prefill(self, request: Served, count: int) -> None:
            super().prefill(request, count)
            if request.index == 0:
                clock.nanoseconds += 500 * MS

    loop = OpenLoop(clock, Stalls(clock, MS // 10, MS, 4), arrivals(requests), 64)
    late = [first for first in first_tokens(loop.run(2.0)) if first > 400 * MS]
    assert len(late) >= 49


def test_arrivals_are_poisson_and_depend_on_the_seed_alone() -> None:
    made = poisson_arrivals(50.0, 200.0, 64, 16, seed=3)
    assert made == poisson_arrivals(50.0, 200.0, 64, 16, seed=3)
    assert made != poisson_arrivals(50.0, 200.0, 64, 16, seed=4)
    assert abs(len(made) - 10_000) < 5 * 100  # five standard deviations of a Poisson count
    gaps = [b.at - a.at for a, b in pairwise(made)]
    mean = sum(gaps) / len(gaps)
    variance = sum((g - mean) ** 2 for g in gaps) / len(gaps)
    assert 0.9 < variance / mean**2 < 1.1  # an exponential's is one; even spacing would give zero
    assert all(48 <= a.prompt <= 80 and 12 <= a.output <= 20 for a in made)


LIMITS = Limits(first_token=0.2, inter_token=0.05)


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (ServedRequest(1.0, 3, (1.1, 1.14, 1.18), 0.0, False), Kept.KEPT),
        (ServedRequest(1.0, 3, (1.3, 1.34, 1.38), 0.0, False), Kept.VIOLATED),  # the first token was late
        (ServedRequest(1.0, 3, (1.1, 1.2, 1.3), 0.0, False), Kept.VIOLATED),  # slow between tokens
        (ServedRequest(1.0, 3, (1.1, 1.14, 1.18), 0.0, True), Kept.VIOLATED),  # it failed
        (ServedRequest(9.7, 3, (), None, False), Kept.VIOLATED),  # over its limit when the window closed
        (ServedRequest(9.9, 3, (), None, False), Kept.CENSORED),  # not yet over it
        (ServedRequest(9.5, 20, (9.6, 9.63), 0.0, False), Kept.CENSORED),
        (ServedRequest(8.0, 5, (8.1, 8.14), 0.0, False), Kept.VIOLATED),  # stuck: 1.9 s for 4 tokens at best
    ],
)
def test_who_kept_the_limits(request_: ServedRequest, kept: Kept) -> None:
    assert LIMITS.kept(request_, window=10.0) is kept
