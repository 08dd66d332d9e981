"""The code for a GPU as far as it can be run without one: which device, what fits, how steps are timed and captured."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.judge.statistics import samples_needed_for_quantile
from bench.measure.probe import Failed
from probes.common.nvml import Seen, Survey
from probes.inference.load import compiler, multi_gpu
from probes.inference.load import device as inference_device
from probes.inference.load import stages as inference_stages
from probes.inference.load.decoder import PLAIN, Decoder, Parts
from probes.inference.load.device import Device, ceilings, choose
from probes.inference.load.open_loop import poisson_arrivals
from probes.inference.shapes import SHAPES, shape_for
from tests.probes.gpu.conftest import Fake, fake, new_driver
from tests.probes.inference.test_decoder import TINY, prompt

__all__ = ["fake", "new_driver"]
ROOT = Path(__file__).parents[3]
H200_FREE = 140_000_000_000


def fake_torch(devices: int = 2, free: int = H200_FREE) -> Any:
    properties = SimpleNamespace(name="NVIDIA H200", multi_processor_count=132, major=9, minor=0, uuid="aaaa-1")
    cuda = SimpleNamespace(
        is_available=lambda: devices > 0, device_count=lambda: devices, set_device=lambda index: None,
        get_device_properties=lambda index: properties, mem_get_info=lambda index: (free, 141_000_000_000),
    )  # fmt: skip
    version = SimpleNamespace(cuda="12.8" if devices else None)
    chosen: list[bool] = []
    attention = SimpleNamespace(cuda=SimpleNamespace(enable_cudnn_sdp=chosen.append, cudnn=chosen))
    return SimpleNamespace(
        cuda=cuda, version=version, backends=attention, __version__="2.13.0", bfloat16=torch.bfloat16
    )


def test_cudnn_plans_no_attention() -> None:
    """Was: its first plan for each new prompt length took 45 to 50 ms on an H200, a false NO-GO of serving."""
    torch_of_a_gpu = fake_torch()
    choose(torch_of_a_gpu, "auto", 0, Survey("570.1"))
    assert torch_of_a_gpu.backends.cuda.cudnn == [False]


@pytest.mark.parametrize("rate", [10.0, 23.8, 60.0])
def test_serving_on_a_card_lasts_until_a_p99_has_its_requests(rate: float) -> None:
    """Was: 25 % of the time, some 200 requests at standard, so that the gate on the p99 could never have data."""
    seconds = inference_stages.serving_seconds(rate, share=10.0, left=60.0, on_cuda=True)
    arrived = len(poisson_arrivals(rate, seconds, 256, 64, seed=7))
    assert arrived >= samples_needed_for_quantile(0.99)
    assert inference_stages.serving_seconds(rate, share=10.0, left=12.0, on_cuda=True) <= 12.0
    assert inference_stages.serving_seconds(rate, share=10.0, left=60.0, on_cuda=False) == 10.0


class Recorded:
    """A decoder that notes what it was asked for."""

    def __init__(self) -> None:
        self.prompts: list[int] = []
        self.batches: list[int] = []
        self.positions = torch.zeros(8, dtype=torch.long)

    def prefill(self, prompt: Any) -> None:
        self.prompts.append(prompt.shape[1])

    def decode(self, batch: int, longest: int) -> None:
        self.batches.append(batch)

    def synchronize(self) -> None:
        return None


def test_what_serving_needs_is_warm_before_the_first_request() -> None:
    """Was: decode only, so that the first token of the first requests was that of a cold prefill."""
    made: Any = Recorded()
    prompts = [torch.zeros(1, count, dtype=torch.long) for count in (256, 192, 320, 201, 300)]
    inference_stages.DecoderServer(made, prompts, slots=8, longest=400).warm()
    assert min(made.prompts) == 192 and len(made.prompts) >= 3 and max(made.prompts) >= 300
    assert made.batches == [1, 2, 4, 8]


@pytest.mark.parametrize(("wins", "used"), [(0.9, True), (1.1, False)])
def test_a_compiled_step_is_kept_only_if_it_is_faster(monkeypatch: pytest.MonkeyPatch, wins: float, used: bool) -> None:
    monkeypatch.setattr(compiler, "_lacking", lambda: None)
    other = Parts()
    monkeypatch.setattr(compiler, "compiled", lambda: other)
    decoder = Decoder(TINY, "cpu", torch.float64, slots=2, length=64)
    said = compiler.faster(decoder, lambda: wins if decoder.parts is other else 1.0)
    assert said["used"] is used and said["plain_seconds"] == 1.0
    assert (decoder.parts is other) is used


def test_a_compiler_that_fails_costs_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("no ptxas here\nand a page of it")

    monkeypatch.setattr(compiler, "_lacking", lambda: None)
    monkeypatch.setattr(compiler, "compiled", broken)
    decoder = Decoder(TINY, "cpu", torch.float64, slots=2, length=64)
    said = compiler.faster(decoder, lambda: 1.0)
    assert said["used"] is False and said["why"] == "RuntimeError: no ptxas here" and decoder.parts is PLAIN


def test_a_gpu_is_described_with_who_else_is_on_it() -> None:
    seen = Seen(index=5, uuid="GPU-aaaa-1", name="NVIDIA H200", cpus=frozenset({1, 2}), processes=3)
    device = choose(fake_torch(), "auto", 0, Survey("570.1", (seen,)))
    assert (device.kind, device.torch_name, device.element_bytes) == ("cuda", "cuda:0", 2)
    assert device.facts["devices"] == 2 and device.facts["foreign_processes"] == 3
    assert "stand_in" not in device.facts
    assert device.index == 5 and device.cpus == {1, 2}, "the driver's number, not torch's among those it sees"


def test_a_gpu_that_torch_does_not_see_is_a_failure() -> None:
    with pytest.raises(Failed, match="gpu_missing: torch sees 2 GPUs, not number 5"):
        choose(fake_torch(), "cuda", 5, Survey("570.1"))


def cuda(free: int) -> Device:
    return Device("cuda", "cuda:0", torch.bfloat16, {"memory_free_bytes": free})


@pytest.mark.parametrize(
    ("free", "shape", "largest"), [(H200_FREE, "8b", 256), (79e9, "8b", 128), (45e9, "8b", 64), (15e9, "1b", 64)]
)
def test_shape_and_batches_fit_the_card(free: float, shape: str, largest: int) -> None:
    device = cuda(int(free))
    chosen = shape_for("cuda", int(free), quick=True)
    sizes = inference_stages.sizes(device, chosen, quick=True)
    assert chosen.name == shape
    assert sizes.batches[:2] == (1, 8) and sizes.batches[-1] == sizes.slots == largest
    assert sizes.batches == tuple(sorted(set(sizes.batches)))
    held = chosen.parameters * 2 + sizes.slots * sizes.length * chosen.kv_bytes(2)
    assert held < free


def test_a_small_card_still_gets_one_slot() -> None:
    sizes = inference_stages.sizes(cuda(8_000_000_000), SHAPES["1b"], quick=True)
    assert sizes.slots >= 1 and sizes.batches[-1] == sizes.slots


class Clock:
    """A device whose steps take what they take, and a host that only launches."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step
        self.waits = 0

    def events(self) -> Any:
        clock = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                self.at = 0.0

            def record(self) -> None:
                self.at = clock.now

            def synchronize(self) -> None:
                clock.waits += 1

            def elapsed_time(self, other: Event) -> float:
                return (other.at - self.at) * 1e3

        return SimpleNamespace(cuda=SimpleNamespace(Event=Event, synchronize=lambda: None))

    def work(self) -> None:
        self.now += self.step


@pytest.mark.parametrize(("step", "most_in_group"), [(0.001, 16), (0.02, 2), (0.5, 1)])
def test_steps_are_timed_by_the_device_in_groups_that_stay_short(
    monkeypatch: pytest.MonkeyPatch, step: float, most_in_group: int
) -> None:
    clock = Clock(step)
    monkeypatch.setattr("probes.inference.load.device.time.perf_counter", lambda: clock.now)
    timed = inference_device._time_on_cuda(clock.events(), clock.work, 1.0)
    assert timed.steps == pytest.approx([step] * len(timed.steps))
    assert timed.busy == pytest.approx(timed.wall)
    assert 1.0 <= timed.wall <= 1.0 + step * most_in_group + 1e-9
    assert len(timed.steps) / clock.waits <= most_in_group


def test_capturing_a_step_leaves_the_sequences_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, made = SimpleNamespace(wait_stream=lambda other: None), list[Any]()

    def new_stream(device: Any) -> Any:
        made.append(device)
        return stream

    for name, stand_in in {
        "Stream": new_stream, "current_stream": lambda device: stream, "stream": lambda s: nullcontext(),
        "CUDAGraph": lambda: "a graph", "graph": lambda g: nullcontext(),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    decoder = Decoder(TINY, "cpu", torch.float64, slots=2, length=64)
    decoder.prefill(prompt(2, 10))
    tokens, positions = decoder.tokens.clone(), decoder.positions.clone()
    with torch.inference_mode():
        assert decoder._capture(2, 32) == decoder._capture(1, 32) == "a graph"
    assert len(made) == 1, "each stream has a workspace of cuBLAS for itself"
    assert torch.equal(decoder.tokens, tokens) and torch.equal(decoder.positions, positions)
    plain = Decoder(TINY, "cpu", torch.float64, slots=2, length=64)
    plain.prefill(prompt(2, 10))
    for step in range(3):
        decoder.decode(2, 10 + step)
        plain.decode(2, 10 + step)
    assert torch.equal(decoder.tokens, plain.tokens)


def test_the_survey_lists_cards_by_identity(fake: Fake) -> None:
    fake.tell({"count": 2, "1.processes": 2, "0.cpus": 1})
    code = (
        "import os; from probes.common.nvml import pin, survey; s = survey(); print(s.by_uuid('fake-1001')); print(s)\n"
        "print(pin(s.cards[1].cpus), pin(s.cards[0].cpus), os.sched_getaffinity(0))"
    )
    env = {**os.environ, **fake.env(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert "index=1" in done.stdout.splitlines()[0] and "processes=2" in done.stdout.splitlines()[0]
    assert "driver='570.00.fake'" in done.stdout
    assert done.stdout.splitlines()[2] == "None 1 {0}", "a worker was pinned beside no card on x86"


@pytest.mark.parametrize(
    ("answers", "joined"),
    [
        ({"nvlinks": 18}, "nvlink"),
        ({"nvlinks": 0}, "pcie"),
        ({"nvlinks": 18, "1.nvlinks_down": 18}, "pcie"),
        ({"error.nvmlDeviceGetP2PStatus": 3}, "None"),
    ],
)
def test_what_joins_two_cards_is_the_drivers_to_say(fake: Fake, answers: dict[str, float], joined: str) -> None:
    fake.tell({"count": 2, **answers})
    code = "from probes.common.nvml import joined_by; print(joined_by('GPU-fake-1000', 'GPU-fake-1001'))"
    env = {**os.environ, **fake.env(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == joined


def test_copies_between_cards_say_what_they_go_over(monkeypatch: pytest.MonkeyPatch) -> None:
    reach = {1: True, 2: False}
    made = SimpleNamespace(
        uint8=torch.uint8, empty=lambda count, **_: torch.empty(8, dtype=torch.uint8),
        cuda=SimpleNamespace(can_device_access_peer=lambda first, other: reach[other]),
    )  # fmt: skip
    monkeypatch.setattr(multi_gpu, "joined_by", lambda first, other: f"{first} to {other}")
    steps = multi_gpu._peers(made, ("a", "b", "c"))
    assert {name: work["transport"] for name, (_, work) in steps.items()} == {"1": "a to b", "2": "host"}
    for step, _ in steps.values():
        step()


def test_random_bytes_are_made_on_the_card_and_copied_to_the_host() -> None:
    """One thread of the host drew 256 MiB of them, in quick's 14 s."""
    drawn: list[Any] = []

    class Made:
        def __init__(self, *_: Any, device: str = "the host", **__: Any) -> None:
            self.device = device

        def random_(self, *_: int) -> Made:
            drawn.append(self.device)
            return self

        def copy_(self, other: Made, **_: Any) -> Made:
            drawn.append(f"{self.device} of {other.device}")
            return self

    stub = SimpleNamespace(randn=Made, empty=Made, empty_like=lambda other: other, uint8=torch.uint8)
    steps = ceilings(stub, Device("cuda", "cuda:0", torch.bfloat16, {"memory_free_bytes": H200_FREE}))
    assert drawn == ["cuda:0", "the host of cuda:0"] and {"host_to_device", "device_to_host"} <= set(steps)


def test_the_load_of_one_card_is_bound_to_the_cpus_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the workers of several cards were bound."""
    from probes.inference.load import main as inference

    before, ran_on = os.sched_getaffinity(0), set()
    beside = Device("cuda", "cuda:0", torch.bfloat16, {}, cpus=frozenset({min(before)}))
    monkeypatch.setattr(inference, "choose", lambda *_: beside)
    monkeypatch.setattr(inference, "run", lambda *_: ran_on.update(os.sched_getaffinity(0)))
    try:
        assert inference.main(["--accelerator", "cuda"]) == 0
    finally:
        os.sched_setaffinity(0, before)
    assert ran_on == {min(before)}


def test_an_error_of_torch_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from probes.inference.load import main as inference

    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation")

    monkeypatch.setattr(inference, "run", fails)
    assert inference.main(["--accelerator", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB." in printed
    assert "documentation" not in printed
