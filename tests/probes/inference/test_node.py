"""Several workers at once, as real processes on the CPU, and how one is pinned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from probes.common.nvml import parse_cpulist
from probes.inference.events import Done, Window, of, read
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
    assert len(windows) == len(set(windows)) == 3 * 3 * 2 * 2  # rounds, steps, phases, workers
    figures = parse_node(found)
    assert {m.labels["quantity"] for m in figures if m.metric == "accelerator_spread_ratio"} == {
        "matmul",
        "copy",
        "decode",
    }
    together = [m for m in figures if m.metric == "accelerator_together_ratio"]
    assert len(together) == 6 and all(0 < m.value < 3 for m in together)


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
