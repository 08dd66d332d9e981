"""Single readings, by a Python stand-in behind pynvml's own wrappers: no compiler, no process."""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pynvml
import pytest

from bench.judge.gate import status_of
from bench.measure.probe import Unsupported
from bench.measure.tools import python_environment
from bench.model import Limit, Measurement, Status
from probes.common import nvml
from probes.common.nvml import Card, Readable
from probes.common.threads import CallThread
from probes.common.windows import stages
from probes.gpu import sampler
from probes.gpu.drivers import Driver, Gpm
from probes.gpu.health import CardHealth
from probes.gpu.parse import FAULTS, card_samples, polled_faults, reasons, stage_figures
from probes.gpu.sampler import Polls


class FakeLibrary:
    """``answers``: by function, a return code or a callable on its arguments. An absent function is an old driver's."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {
            "nvmlDeviceGetHandleByIndex_v2": self._handle,
            "nvmlErrorString": lambda code: b"fake",
            **answers,
        }
        self.calls: list[str] = []

    def _handle(self, index: Any, ref: Any) -> int:
        ctypes.cast(ref, ctypes.POINTER(ctypes.c_void_p))[0] = 0x1000 + index.value
        return 0

    def __getattr__(self, name: str) -> Any:
        if name not in self.answers:
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            answer = self.answers[name]
            return answer(*arguments) if callable(answer) else answer

        return call


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def install(**answers: Any) -> FakeLibrary:
        made = FakeLibrary(**answers)
        monkeypatch.setattr(pynvml, "nvmlLib", made)
        pynvml._nvmlGetFunctionPointer_cache.clear()
        return made

    yield install
    pynvml._nvmlGetFunctionPointer_cache.clear()


def out(value: Any) -> Any:
    def answer(handle: Any, ref: Any) -> int:
        ref._obj.value = value
        return 0

    return answer


def test_what_can_never_be_answered_is_asked_once(library: Any) -> None:
    lib = library(nvmlDeviceGetPowerUsage=3, nvmlDeviceGetTotalEnergyConsumption=999)
    card = Card(pynvml, 0)
    for _ in range(3):
        card.fast()
    assert lib.calls.count("nvmlDeviceGetPowerUsage") == 1  # not supported: for ever
    assert lib.calls.count("nvmlDeviceGetTotalEnergyConsumption") == 3  # unknown error: it may come back
    assert card.errors["power"] == "NotSupported" and card.errors["energy"] == "Unknown"
    assert card.errors["memory_used"] == "FunctionNotFound"


def test_an_error_that_passes_is_forgotten(library: Any) -> None:
    codes = iter([999, 0])

    def sometimes(handle: Any, ref: Any) -> int:
        ref._obj.value = 412_000
        return next(codes)

    library(nvmlDeviceGetPowerUsage=sometimes)
    card = Card(pynvml, 0)
    assert "power" not in card.fast() and "power" in card.errors
    assert card.fast()["power"] == 412.0 and "power" not in card.errors


def test_a_lost_card_is_not_asked_again(library: Any) -> None:
    lib = library(nvmlDeviceGetPowerUsage=15, nvmlDeviceGetTotalEnergyConsumption=out(1))
    card = Card(pynvml, 2)
    card.fast()
    asked = len(lib.calls)
    assert card.lost == "GpuIsLost" and card.fast() == {} and len(lib.calls) == asked


def test_units_are_base_units(library: Any) -> None:
    library(
        nvmlDeviceGetPowerUsage=out(700_500),
        nvmlDeviceGetTotalEnergyConsumption=out(5_000),
        nvmlDeviceGetClockInfo=lambda h, kind, ref: out(1980)(h, ref),
    )
    found = Card(pynvml, 0).fast()
    assert (found["power"], found["energy"], found["sm_clock"]) == (700.5, 5.0, 1.98e9)


def gpm(values: dict[int, float], codes: dict[int, int] | None = None) -> dict[str, Any]:
    def metrics(ref: Any) -> int:
        asked = ref._obj
        for place in range(asked.numMetrics):
            metric = asked.metrics[place]
            metric.nvmlReturn = (codes or {}).get(metric.metricId, 0)
            metric.value = values.get(metric.metricId, math.nan)
        return 0

    def support(handle: Any, ref: Any) -> int:
        ref._obj.isSupportedDevice = 1
        return 0

    def alloc(ref: Any) -> int:
        ctypes.cast(ref, ctypes.POINTER(ctypes.c_void_p))[0] = 0x2000
        return 0

    return {
        "nvmlGpmQueryDeviceSupport": support,
        "nvmlGpmSampleAlloc": alloc,
        "nvmlGpmSampleGet": 0,
        "nvmlGpmSampleFree": 0,
        "nvmlGpmMetricsGet": metrics,
    }


def test_reading_a_cards_energy_touches_no_other_card(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker of the load initialised every card of the node for it."""

    def by_uuid(uuid: Any, ref: Any) -> int:
        assert uuid.value == b"GPU-aaaa-3"  # torch says aaaa-3
        return int(lib._handle(ctypes.c_uint(3), ref))

    lib = library(nvmlDeviceGetHandleByUUID=by_uuid, nvmlDeviceGetTotalEnergyConsumption=out(5_000))
    monkeypatch.setattr(nvml, "load", lambda: pynvml)
    assert nvml.energy_reader("aaaa-3")() == 5.0
    assert "nvmlDeviceGetHandleByIndex_v2" not in lib.calls


@pytest.mark.parametrize(
    ("words", "indices"),
    [
        (None, [0, 1, 2, 3]),
        ("2,0", [0, 2]),
        ("1,7,2", [1]),  # the first that is no card ends the list
        ("GPU-aa3,GPU-aa1", [1, 3]),
        ("GPU-aa", []),  # not one card
        ("MIG-GPU-aa2/1/0", [2]),
        ("MIG-GPU-aa2/1/0,MIG-GPU-aa2/2/0", [2]),
        ("MIG-0815", [0, 1, 2, 3]),
        ("1gpu, +3", [1, 3]),
        ("0,GPU-aa1", [0]),  # the first one says which kind the list is of
        ("GPU-aa1,2", [1]),
        ("2,0,2", []),  # twice is none
        ("GPU-aa1,GPU-aa1", []),
        ("", []),
        ("-1", []),
    ],
)
def test_only_the_cards_that_cuda_has_are_ours(
    library: Any, monkeypatch: pytest.MonkeyPatch, words: str | None, indices: list[int]
) -> None:
    """With two of eight visible the load ran on six cards of others, whose programs voided the run too."""

    def uuid(handle: Any, text: Any, _: Any) -> int:
        text.value = f"GPU-aa{(ctypes.cast(handle, ctypes.c_void_p).value or 0) - 0x1000}-b".encode()
        return 0

    library(nvmlDeviceGetUUID=uuid)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if words is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", words)
    if not indices:
        with pytest.raises(Unsupported, match=r"no_gpu: CUDA_VISIBLE_DEVICES='.*' hides all 4 GPUs"):
            nvml.our_cards(pynvml, 4)
    else:
        assert nvml.our_cards(pynvml, 4) == indices


def test_a_card_that_hangs_is_named_and_the_others_are_seen(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looked at all cards waited for it for ever: the load, the all-reduce, the node's parts."""
    let_go = threading.Event()

    def count(ref: Any) -> int:
        ref._obj.value = 4
        return 0

    def uuid(handle: Any, text: Any, _: Any) -> int:
        index = (ctypes.cast(handle, ctypes.c_void_p).value or 0) - 0x1000
        if index == 2:
            let_go.wait()
        text.value = f"GPU-{index}".encode()
        return 0

    lib = library(nvmlInitWithFlags=0, nvmlDeviceGetCount_v2=count, nvmlDeviceGetUUID=uuid, nvmlShutdown=0)
    monkeypatch.setattr(nvml, "load", lambda: pynvml)
    monkeypatch.setattr(nvml, "CARD_SECONDS", 0.5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    try:
        found = nvml.survey()
        assert [card.uuid for card in found.cards] == ["GPU-0", "GPU-1", "GPU-3"]
        assert list(found.hung) == [2] and "no answer" in found.hung[2]
        assert "nvmlShutdown" not in lib.calls, "it would wait for the call that hangs"
        nvml.hide_hung(found)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1,GPU-3"
    finally:
        let_go.set()


@pytest.mark.parametrize(("answer", "cpus"), [(3, {4, 5, 6, 7}), (0, {1, 65})])
def test_the_cpus_beside_a_card_are_the_drivers_word_else_the_kernels(
    library: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: int, cpus: set[int]
) -> None:
    """They were those of the card's own NUMA node, which only Grace Hopper has."""

    def affinity(handle: Any, words: Any, masks: Any) -> int:
        masks._obj[0] = masks._obj[1] = 2
        return answer

    def pci(handle: Any, ref: Any) -> int:
        ref._obj.busId = b"00000000:AB:00.0"
        return 0

    (tmp_path / "0000:ab:00.0").mkdir()
    (tmp_path / "0000:ab:00.0" / "local_cpulist").write_text("4-7\n")
    monkeypatch.setattr(nvml, "_PCI", tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 100)
    library(nvmlDeviceGetCpuAffinity=affinity, nvmlDeviceGetPciInfo_v3=pci)
    assert Card(pynvml, 0).cpus() == cpus


def test_a_number_means_one_card_to_cuda_and_to_nvml() -> None:
    """CUDA put the fastest card first: in a mixed node a figure and the health beside it were of two cards."""
    assert python_environment()["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_gpm_gives_shares_and_bytes_and_leaves_out_what_is_nan_or_failed(library: Any) -> None:
    library(**gpm({2: 40.0, 5: 30.0, 10: math.nan, 21: 2.0}, {5: 3}))
    pair = Gpm(Card(pynvml, 0))
    pair.begin()
    assert pair.end() == {"sm": 0.4, "pcie_receive": 2.0 * 2**20}


def test_gpm_pairs_nest_and_none_is_left_open(library: Any) -> None:
    lib = library(**gpm({2: 40.0}))
    pair = Gpm(Card(pynvml, 0))
    pair.begin()
    pair.begin()
    assert pair.end()["sm"] == 0.4
    pair.begin()
    pair.close()
    assert pair.end() == {}
    assert lib.calls.count("nvmlGpmSampleAlloc") == lib.calls.count("nvmlGpmSampleFree")


def test_the_counters_of_all_cards_are_read_next_to_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """On eight cards the last one's counters ran on for a tenth of a second after the stage, and more."""
    order: list[str] = []

    class Recorded(Readable):
        def facts(self) -> dict[str, Any]:
            return {}

        def fast(self) -> dict[str, Any]:
            order.append("read")
            return {}

        health = facts

    class FakeDriver(Driver):
        source, version = "nvml", None

        def indices(self) -> range:
            return range(2)

        def card(self, index: int) -> Readable:
            return Recorded(index, None)

        def begin(self, index: int) -> None:
            order.append("begin")

        def end(self, index: int) -> dict[str, float]:
            order.append("end")
            return {"sm": 0.5}

        def close(self, hung: Mapping[int, str]) -> None:
            order.append("close")

    monkeypatch.setattr(sampler, "open_driver", FakeDriver)
    watch = sampler.GpuWatch()
    samples = [watch.sample(event) for event in ("begin", "end")]
    watch.close()
    assert order == ["read", "read", "begin", "begin", "end", "end", "read", "read", "close"]
    assert samples[1]["cards"]["1"]["gpm"] == {"sm": 0.5}


def test_the_watts_of_a_card_are_by_the_moments_at_which_it_was_read() -> None:
    """The last of eight cards is read a tenth of a second after the first, and not alike at a stage's two ends."""

    def sample(t: float, event: str, energy: float, late: float) -> dict[str, Any]:
        return {"t": t, "stage": "inference.decode", "event": event, "cards": {"7": {"energy": energy, "late": late}}}

    own = card_samples([sample(5.0, "begin", 0.0, 0.0), sample(6.0, "end", 550.0, 0.1)], "7")
    (stage,) = stages(own)
    assert [m.value for m in stage_figures(stage, "7", "nvml") if m.metric == "accelerator_power_watts"] == [
        pytest.approx(500.0)
    ]


@pytest.mark.parametrize(
    ("lasted", "held", "share"), [(0.4, 0.005, 0.001), (0.4, 0.4, 0.08), (20.0, 0.005, 0.00025), (20.0, 20.0, 1.0)]
)
def test_a_blip_in_a_short_stage_is_no_throttled_card(lasted: float, held: float, share: float) -> None:
    """5 ms of a stage of 0.4 s were 1.25 %: over the limit of 1 %, on one of many stages, reasons and cards."""
    samples = [
        {"t": t, "stage": "inference.decode", "event": event, "hw_thermal_slowdown": nanoseconds, "sw_power_cap": 0}
        for t, event, nanoseconds in ((5.0, "begin", 0), (5.0 + lasted, "end", held * 1e9))
    ]
    (stage,) = stages(samples)
    by_reason = {m.labels["reason"]: m for m in stage_figures(stage, "0", "nvml") if "throttle" in m.metric}
    assert by_reason["hw_thermal_slowdown"].value == pytest.approx(share)


def polled(*bits: int) -> dict[str, int]:
    return {str(reason): times for reason, times in Counter(bits).items()}


def working(polls: list[dict[str, int]], utilization: float = 0.9) -> list[dict[str, Any]]:
    """A probe of some seconds with a stage in it, and the load's end."""
    events = [("inference", "begin"), ("inference.decode", "begin"), *[("inference.decode", "tick")] * len(polls)]
    events += [("inference.decode", "end"), ("inference", "end")]
    found = [{"t": float(t), "stage": stage, "event": event} for t, (stage, event) in enumerate(events)]
    for sample, seen in zip(found[2:], polls, strict=False):
        sample |= {"polls": seen, "utilization": utilization, "reasons": 0}
    return found


def throttled(samples: list[dict[str, Any]]) -> dict[str, Measurement]:
    found = stages(samples)
    made = [*(m for stage in found for m in stage_figures(stage, "0", "nvml")), *polled_faults(found, "0")]
    faults = [m for m in made if m.metric == "accelerator_throttle_ratio"]
    assert {m.labels["stage"] for m in faults} <= {"loaded"}, "a stage alone is too short"
    return {m.labels["reason"]: m for m in faults}


def test_polls_of_the_whole_run_decide_a_throttle_of_one_percent() -> None:
    """A healthy card was undecided for ever: each stage had a poll a second, and 1 % needs 369 of them."""
    limit = Limit(max=0.01)
    healthy = throttled(working([polled(*[0] * 20)] * 20))
    assert {status_of(m, limit) for m in healthy.values()} == {Status.PASS} and len(healthy) == len(FAULTS)
    hot = throttled(working([polled(*[0] * 19, 0x20)] * 20))["sw_thermal_slowdown"]
    assert (hot.value, hot.samples, status_of(hot, limit)) == (0.05, 400, Status.FAIL)
    few = throttled(working([polled(*[0] * 20)] * 10))["hw_slowdown"]
    assert status_of(few, limit) is Status.UNDECIDED


def test_polls_of_a_probe_that_leaves_the_card_idle_say_nothing_of_load() -> None:
    idle = [{**s, "stage": s["stage"].replace("inference", "storage")} for s in working([polled(0, 0)] * 20, 0.0)]
    assert throttled(idle + working([polled(0x20, 0x20)] * 20))["sw_thermal_slowdown"].value == 1.0


def test_polls_find_the_share_of_time_that_a_reason_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bursts that recur at the slots' own pace are seen by their share of the time, not always or never."""
    now = [0.0]
    monkeypatch.setattr("probes.gpu.sampler.time", SimpleNamespace(monotonic=lambda: now[0]))
    held = SimpleNamespace(reasons=lambda: 0x20 if now[0] % Polls.SLOT_SECONDS < 0.3 * Polls.SLOT_SECONDS else 0)
    polls = Polls(cast(Readable, held))
    for _ in range(4000):
        now[0] += polls()
    seen = polls.taken()
    assert sum(seen.values()) == 4000 and 0.26 < seen["32"] / 4000 < 0.34
    assert now[0] == pytest.approx(4000 * Polls.SLOT_SECONDS, rel=0.01) and not polls.taken()


def test_what_a_thread_does_meanwhile_keeps_nobody_waiting() -> None:
    worker, times = CallThread("test"), list[float]()
    worker.meanwhile = lambda: times.append(0.0) or 0.001  # type: ignore[func-returns-value]
    assert worker.call(lambda: 1, 5.0) == 1
    while len(times) < 20:
        time.sleep(0.005)
    assert worker.call(lambda: 2, 5.0) == 2
    worker.close()


def test_reasons_by_name() -> None:
    assert reasons(0) == []
    assert reasons(0x8 | 0x40) == ["hw_slowdown", "hw_thermal_slowdown"]
    assert reasons(0x1 | 0x10000) == ["gpu_idle", "unknown_0x10000"]


def test_a_call_that_hangs_is_given_up_and_every_later_one_at_once_until_it_comes_back() -> None:
    """A driver that was slow once was given up for the rest of the run."""
    let_go, done = threading.Event(), []
    worker = CallThread("driver")
    assert worker.call(lambda: 5, 5.0) == 5
    with pytest.raises(TimeoutError):
        worker.call(let_go.wait, 0.05)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="still hangs"):
        worker.call(lambda: done.append(6), 60.0)
    assert time.monotonic() - started < 30.0, "it waited once more"
    let_go.set()
    while not done:
        time.sleep(0.01)
    assert worker.call(lambda: 7, 5.0) == 7


@pytest.mark.parametrize(("readings", "grown"), [([3], []), ([3, 3], [0.0]), ([3, 5], [2.0])])
def test_a_counter_that_was_read_once_has_not_been_seen_to_stay(readings: list[int], grown: list[float]) -> None:
    """One reading was no growth: a card that was asked once had no errors."""
    samples = [{"ecc_uncorrected": value} for value in readings]
    made = [m for m in CardHealth(samples, "0").figures([], {}) if m.metric == "accelerator_uncorrected_errors"]
    assert [m.value for m in made] == grown


def test_a_card_is_lost_only_if_the_driver_does_not_answer_at_the_end() -> None:
    """One late sample called every card lost, and the verdict was NO-GO."""
    late, fine = {"hung": "no answer within 15 s"}, {"lost": None, "power": 400.0}
    cards = {"came back": CardHealth([fine, late, fine], "0"), "did not": CardHealth([fine, late], "0")}
    lost = {name: next(iter(card.figures([], {}))).value for name, card in cards.items()}
    assert lost == {"came back": 0.0, "did not": 1.0}
    (doubt,) = cards["came back"].doubts()
    assert "did not answer in time for 1 of 3 samples" in doubt


@pytest.mark.parametrize(
    "error", [IndexError("list"), pynvml.NVMLLibraryMismatchError("versions"), TypeError("ctypes")]
)
def test_whatever_the_binding_raises_costs_one_figure(library: Any, error: Exception) -> None:
    """Errors that are no NVMLError ended the run without a document."""

    def broken(*_: Any) -> int:
        raise error

    library(nvmlDeviceGetPowerUsage=broken, nvmlDeviceGetTotalEnergyConsumption=out(5_000))
    card = Card(pynvml, 0)
    found = card.fast()
    assert "power" not in found and found["energy"] == 5.0 and card.lost is None


def test_an_error_of_a_call_is_raised_where_it_was_asked() -> None:
    def fail() -> None:
        raise KeyError("x")

    worker = CallThread("driver")
    with pytest.raises(KeyError):
        worker.call(fail, 5.0)
    assert worker.call(lambda: 1, 5.0) == 1
    worker.close()
