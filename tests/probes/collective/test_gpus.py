"""What of an all-reduce between GPUs can be shown without one: who is counted, what is timed, who was late."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.judge.collective import Ranks, bus_bandwidths, late_rank, waits
from probes.common.nvml import Seen, Survey
from tests.probes.gpu.conftest import PYTHONPATH, Fake, fake, new_driver

__all__ = ["fake", "new_driver"]
ROOT = Path(__file__).parents[3]
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


@pytest.mark.slow
@needs_torch
def test_more_ranks_than_torch_has_gpus_are_refused(fake: Fake, tmp_path: Path) -> None:
    """Cards without a folder under /proc were no ranks, and with one these ranks ran on the CPU, side by side."""
    fake.tell({"count": 4})
    environment = {**os.environ, **fake.env(), "PYTHONPATH": PYTHONPATH, "CUDA_VISIBLE_DEVICES": "1,2,3"}
    words = ["-m", "bench", "run", "--probe", "collective", "--effort", "quick", "--json", "--results", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )
    (result,) = (r for r in json.loads(done.stdout)["results"] if r["probe"] == "collective")
    assert result["outcome"] == "failed"
    assert "3 ranks on GPUs were asked for, and torch sees 0 GPUs here" in result["reason"]


@needs_torch
def test_a_card_that_hangs_is_hidden_from_cuda_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA starts every card that it may see: the all-reduce and the feed hung with the one to their bounds."""
    import torch

    from probes.collective.load import rank
    from probes.feed.load import torch_accelerator

    answering = tuple(Seen(index, f"GPU-{index}", "Fake H200", 0) for index in (0, 2))
    for module in (rank, torch_accelerator):
        monkeypatch.setattr(module, "survey", lambda: Survey("580.1", answering, {1: "no answer"}))
    seen: list[str] = []

    def is_available() -> bool:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    asked: Any = SimpleNamespace(device="auto", ranks=0, links=False)
    for start in (partial(rank._own_ranks, asked), partial(torch_accelerator.device_for, "auto")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
        start()
    assert seen == ["GPU-0,GPU-2"] * 2


@needs_torch
def test_sums_on_gpus_are_timed_back_to_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each was launched and waited for by itself, which is what was measured of small ones."""
    import torch

    from probes.collective.load import rank

    sums: list[Any] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.after = -1

        def record(self) -> None:
            self.after = len(sums)

        def synchronize(self) -> None:
            assert len(sums) == self.after

        def elapsed_time(self, other: Event) -> float:
            return 2.0 * (other.after - self.after)

    def all_reduce(tensor: Any) -> None:
        sums.append(tensor.numel())
        tensor.mul_(2)

    def on_the_cpu(make: Any) -> Any:
        return lambda *sizes, device, **more: make(*sizes, **more)

    for name in ("empty", "ones", "rand"):
        monkeypatch.setattr(torch, name, on_the_cpu(getattr(torch, name)))
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(Event=Event, synchronize=lambda _: None))
    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    asked: Any = SimpleNamespace(links=True, iterations=4)
    task, waits = rank.RankTask(asked, "nccl", 2, 0, 0, 2), list[float]()
    seconds = rank._all_reduce(task, SimpleNamespace(type="cuda"), 1 << 20, waits)
    assert seconds == pytest.approx([0.002] * 4) and len(waits) == 4
    one_round = [1, *[1 << 18] * 20, 1 << 18]  # who is waited for, the sums that are timed, and one for its result
    assert sums == one_round * (4 + rank._WARM_UP)


def test_the_last_to_arrive_is_told_by_the_waits_where_the_sums_begin_together() -> None:
    """A twentieth of the wait was left in each of twenty sums, and nobody was late."""
    seconds = {1 << 30: [[0.010, 0.010]] * 3}
    arrivals = [[0.009, 0.009], [0.0001, 0.0001], [0.009, 0.009]]
    found = Ranks(("a", "b", "c"), "nccl", seconds, {}, arrivals)
    assert late_rank(found, 1 << 30) == 1
    assert waits(found, 1 << 30) == pytest.approx([0.0089, 0.0, 0.0089])
    assert bus_bandwidths(found, 1 << 30) == pytest.approx([(1 << 30) / 0.010 * 4 / 3] * 2)
