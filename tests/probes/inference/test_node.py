"""Several workers at once, as real processes on the CPU, and how one is pinned."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.measure import budget
from bench.model import Effort
from probes.common.nvml import parse_cpulist
from probes.common.pipe import Done, of
from probes.inference.events import Lost, Window, read
from probes.inference.load.multi_gpu import alone_and_together, ready
from probes.inference.parse import parse_node

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def load(*words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-u", "-m", "probes.inference.load.multi_gpu", "--accelerator", "cpu", *words]
    return subprocess.Popen(
        argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_workers_alone_and_together() -> None:
    process = load("--workers", "2", "--seconds", "4")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    found = read(out)
    assert isinstance(found[-1], Done)
    windows = [(w.stage, w.phase, w.device, w.round) for w in of(found, Window)]
    rounds = 1 + max(number for *_, number in windows)  # as many as a busy host has the time for
    assert len(windows) == len(set(windows)) == rounds * 3 * 2 * 2  # steps, phases, workers
    figures = parse_node(found)
    assert {m.labels["quantity"] for m in figures if m.metric == "accelerator_spread_ratio"} == {
        "matmul",
        "copy",
        "decode",
    }
    together = [m for m in figures if m.metric == "accelerator_together_ratio"]
    assert len(together) == 6 and all(0 < m.value < 3 for m in together)


class Card:
    """A worker on a clock that only the orders move."""

    steps = ("matmul", "copy", "host_to_device", "device_to_host", "decode")
    now = 0.0

    def __init__(self, name: str) -> None:
        self.name = name

    def order(self, name: str, seconds: float, start: float) -> None:
        Card.now = max(Card.now, start + seconds)  # all at once, where they start together

    def answer(self, timeout: float) -> dict[str, float]:
        return {"seconds": 1.0, "busy_seconds": 1.0, "steps": 1}


@pytest.mark.parametrize("cards", [2, 8, 16])
@pytest.mark.parametrize("effort", [Effort.QUICK, Effort.STANDARD])
def test_the_cards_of_a_node_fit_their_time(monkeypatch: pytest.MonkeyPatch, cards: int, effort: Effort) -> None:
    """Eight took 20 s of the 10 that quick has for them, beside two starts of CUDA on all of them."""
    said: list[Any] = []
    monkeypatch.setattr(Card, "now", 0.0)
    monkeypatch.setattr("probes.inference.load.multi_gpu.time.monotonic", lambda: Card.now)
    monkeypatch.setattr("probes.inference.events.time.sleep", lambda seconds: setattr(Card, "now", Card.now + seconds))
    monkeypatch.setattr("probes.inference.events.say", lambda event: None)
    monkeypatch.setattr("probes.inference.load.multi_gpu.say", said.append)
    workers: list[Any] = [Card(str(number)) for number in range(cards)]
    alone_and_together(workers, budget.CARDS[effort])
    assert Card.now <= 1.1 * budget.CARDS[effort]
    rounds = {window.round for window in said}
    assert len(said) == len(rounds) * len(Card.steps) * 2 * cards
    assert len(rounds) == 3 or cards == 16


class Starting:
    """A worker that is ready when its other end is written to."""

    def __init__(self, name: str) -> None:
        self.name, self.steps, self.lost = name, (), None
        self.pipe, self.theirs = multiprocessing.Pipe()

    def answer(self, timeout: float) -> Any:
        assert self.pipe.poll(timeout)
        return self.pipe.recv()


def test_a_card_that_does_not_start_costs_its_own_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """It used up 90 s, the load was ended at its bound, and no card of the node had a figure."""
    said: list[Any] = []
    monkeypatch.setattr("probes.inference.load.multi_gpu.say", said.append)
    monkeypatch.setattr("probes.inference.load.multi_gpu._OTHERS_READY_SECONDS", 0.2)
    workers: list[Any] = [Starting(str(number)) for number in range(8)]
    for worker in workers[:3] + workers[4:]:
        worker.theirs.send({"error": "no memory"} if worker.name == "5" else {"ready": ("copy",), "cpus": 4})
    assert [worker.name for worker in ready(workers)] == ["0", "1", "2", "4", "6", "7"]
    assert [(lost.device, lost.reason) for lost in said if isinstance(lost, Lost)] == [
        ("5", "no memory"), ("3", "it does not start"),
    ]  # fmt: skip


def children(pid: int) -> set[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(word) for word in text.split()}


def test_workers_die_with_the_program_that_started_them() -> None:
    process = load("--workers", "2", "--seconds", "60")
    assert process.stdout is not None
    workers: set[int] = set()
    try:
        for line in process.stdout:
            if json.loads(line)["event"] == "window":
                break
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        end = time.monotonic() + 30
        while any(_alive(pid) for pid in workers) and time.monotonic() < end:
            time.sleep(0.05)
        assert len(workers) >= 2 and not [pid for pid in workers if _alive(pid)]
    finally:
        process.kill()
        process.communicate()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("text", "cpus"), [("0-3,8\n", {0, 1, 2, 3, 8}), ("5", {5}), ("", set()), ("\n", set())])
def test_a_cpu_list_as_the_kernel_prints_it(text: str, cpus: set[int]) -> None:
    assert parse_cpulist(text) == cpus
