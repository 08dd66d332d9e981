"""How the load of a card divides its time, on a clock that only its stages move."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.measure import budget
from bench.model import Effort
from probes.common.open_loop import Held, Trial
from probes.inference.events import DeviceFacts, Serve, ServedRequest
from probes.inference.load import stages as loads
from probes.inference.load.decoder import Decoder
from probes.inference.load.device import Device
from probes.inference.load.open_loop import OpenLoop, poisson_arrivals
from probes.inference.load.stages import Stages, sizes
from probes.inference.parse import _SHORTEST_ENERGY_SECONDS, parse
from probes.inference.shapes import SHAPES
from tests.probes.inference.test_decoder import TINY
from tests.probes.inference.virtual import VirtualClock, VirtualServer

H200 = Device("cuda", "cuda:0", torch.bfloat16, {"memory_free_bytes": 140_000_000_000})
PREFILL_SECONDS, DECODE_SECONDS = 27e-6, 7.0e-3  # of a prompt's token, and of a step of 32: 8b on an H200
STAGES = ("matmul", "copy", "host_to_device", "device_to_host", "prefill", *4 * ("decode",))


class Virtual(Stages):
    """The load of one card, whose steps take what they took there."""

    def __init__(self, effort: Effort, cards: int = 1) -> None:
        seconds, quick = budget.INFERENCE[effort], effort is Effort.QUICK
        self.options = SimpleNamespace(quick=quick, rate=0.0, seed=7, rounds=6, soak=budget.SOAK[effort])  # type: ignore[assignment]
        self.device = dataclasses.replace(H200, facts={**H200.facts, "devices": cards})
        self.shape, self.sizes = SHAPES["8b"], sizes(H200, SHAPES["8b"], quick)
        self.slots = 32
        self.prompt = torch.zeros(8, 2047)
        self.clock, self.soaked, self.deadline = 0.0, 0.0, seconds + self.soak
        self.found: list[Any] = [DeviceFacts("cuda", 0, "8b", "NVIDIA H200")]
        self.windows: list[float] = []
        batches = {"prefill": iter((8,)), "decode": iter(self.sizes.batches)}
        self.planned: Any = [(name, (None, {"batch": next(batches.get(name, iter((None,))))})) for name in STAGES]

    def warm_up(self, most: float) -> None:
        self.clock += most

    def window(self, name: str, step: Any, work: Any, number: int, seconds: float) -> float:
        self.clock += seconds
        self.windows += [seconds] if name == "decode" else []
        return PREFILL_SECONDS * self.prompt.numel() if name == "prefill" else DECODE_SECONDS

    def check(self, seconds: float) -> None:
        self.clock += seconds
        self.soaked += seconds

    def serve(self, rate: float, seconds: float) -> Trial:
        clock = VirtualClock()
        server = VirtualServer(clock, round(PREFILL_SECONDS * 1e9), round(DECODE_SECONDS * 1e9 / 32), self.slots)
        arrivals = poisson_arrivals(rate, seconds, self.sizes.prompt, self.sizes.output, seed=7)
        served = OpenLoop(clock, server, arrivals, self.sizes.chunk).run(seconds)
        self.found += [ServedRequest(r.arrival.at, r.arrival.output, tuple(r.tokens), r.lag) for r in served]
        limits = {"first_token_limit": 0.2, "inter_token_limit": 0.05}
        self.found.append(Serve(seconds=seconds, busy_seconds=seconds, rate=rate, window=seconds, **limits))
        self.clock += seconds
        return Trial(rate, len(served), 0, Held.PASS)

    def search(self, first: Trial, deadline: float) -> None:
        self.clock = max(self.clock, deadline)


def ran(monkeypatch: pytest.MonkeyPatch, effort: Effort, cards: int = 1) -> Virtual:
    made = Virtual(effort, cards)
    monkeypatch.setattr("probes.inference.load.stages.time.monotonic", lambda: made.clock)
    made.run()
    return made


def test_at_standard_a_card_serves_the_requests_that_p99_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """realtime-inference is decided by it, whatever else is to be measured in the time."""
    found = parse(ran(monkeypatch, Effort.STANDARD).found)
    firsts = {m.labels["statistic"] for m in found if m.metric == "inference_first_token_seconds"}
    assert "p99" in firsts


def test_at_standard_the_windows_of_a_card_are_long_enough_for_its_energy_counter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were 0.38 s, so that joules a token were to be had at thorough only."""
    assert min(ran(monkeypatch, Effort.STANDARD).windows) >= _SHORTEST_ENERGY_SECONDS


@pytest.mark.parametrize("cards", [1, 8])
@pytest.mark.parametrize("effort", [Effort.QUICK, Effort.STANDARD])
def test_the_stages_of_a_card_keep_to_their_time(monkeypatch: pytest.MonkeyPatch, effort: Effort, cards: int) -> None:
    """Where there are several they are soaked together; the first one's share of that was taken twice."""
    made = ran(monkeypatch, effort, cards)
    assert made.soaked == (budget.SOAK[effort] if cards == 1 else 0.0)
    assert made.clock <= budget.INFERENCE[effort] + made.soaked + loads._SHORTEST_TRIAL


def test_what_is_set_up_is_ready_before_the_time_of_the_stages_is_shared_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The captures and the ceilings' buffers were made within the rounds, and serving lost what they took."""
    cpu = Device("cpu", "cpu", torch.float32, {"memory_free_bytes": 1 << 32})
    options = SimpleNamespace(quick=True, seconds=1.0, first_token_limit=0.2, inter_token_limit=0.05, seed=7)
    monkeypatch.setattr(loads, "say", lambda *_, **__: None)
    made = Stages(cpu, TINY, options, 0.0)  # type: ignore[arg-type]
    assert [name for name, _ in made.planned] == ["matmul", "copy", "prefill", "decode", "decode"]
    assert int(made.decoder.positions[0]) > made.sizes.context  # each was run once


def test_little_of_what_a_step_reads_of_the_cache_is_read_in_vain() -> None:
    """A captured step reads up to a multiple of 256: 1280 tokens, of which a sequence had 1024 to 1087."""
    made = Virtual(Effort.STANDARD)
    made.decoder = Decoder(TINY, "cpu", torch.float32, 1, made.sizes.length)
    made.decoder.device = torch.device("cuda")
    last = made.sizes.context + 62
    assert made.decoder.read_length(made.sizes.context) == made.decoder.read_length(last) == last + 2
    work = made.decode_work(256)
    assert work["bytes"] == made.shape.decode_bytes(256, last + 2, 2)
    assert work["context"] > 0.96 * (last + 2)
