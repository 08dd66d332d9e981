"""The quiet check against known load: a made-up /proc, and a process that really burns."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from bench.judge.gate import judge_gate
from bench.judge.profile import Gate
from bench.measure import quiet
from bench.measure.probe import Unsupported
from bench.model import Effort, Measurement, Node, Outcome, ProbeResult, Request, Run, Status


def _proc(
    folder: Path, *, seconds: float, busy: int, idle: int, sectors: int, received: int, stalled: int, burnt: int
) -> Path:
    """A small /proc with these counters."""
    (folder / "pressure").mkdir(parents=True, exist_ok=True)
    (folder / "net").mkdir(exist_ok=True)
    (folder / "4242").mkdir(exist_ok=True)
    (folder / "uptime").write_text(f"{seconds} 0.0\n")
    (folder / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n")
    (folder / "pressure" / "io").write_text(
        f"some avg10=0.00 avg60=0.00 avg300=0.00 total={stalled}\nfull avg10=0.00 avg60=0.00 total=0\n"
    )
    (folder / "diskstats").write_text(
        f" 259 0 nvme0n1 1 0 {sectors} 0 1 0 0 0 0 0 0\n 259 1 nvme0n1p1 1 0 {sectors} 0 1 0 0\n"
    )
    (folder / "net" / "dev").write_text(
        f"Inter-|   Receive\n face |bytes\n  eth0: {received} 0 0 0 0 0 0 0 0\n    lo: 9{received} 0 0 0 0 0 0 0 9\n"
    )
    (folder / "4242" / "stat").write_text(f"4242 (backup (v2)\x1b) S 1 1 1 0 -1 0 0 0 0 0 {burnt} 0 0 0 20 0 1 0 5\n")
    return folder


CALM = {"seconds": 100.0, "busy": 1000, "idle": 9000, "sectors": 0, "received": 0, "stalled": 0, "burnt": 0}


def _after(tmp_path: Path, **changed: float) -> tuple[str, ...]:
    before = quiet.snapshot(_proc(tmp_path / "a", **CALM))  # type: ignore[arg-type]
    counters = {**CALM, "seconds": 101.0, "busy": 1010, "idle": 9190, **changed}
    return quiet.busy_between(before, quiet.snapshot(_proc(tmp_path / "b", **counters)))  # type: ignore[arg-type]


def test_a_calm_node_is_quiet(tmp_path: Path) -> None:
    assert _after(tmp_path) == ()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"busy": 1150, "idle": 9050, "burnt": 150}, "processors 75 % busy (backup (v2)?)"),
        ({"stalled": 500_000}, "io pressure 50 % of the time"),
        ({"sectors": 400_000}, "disk nvme0n1 205 MB/s of others"),
        ({"received": 300_000_000}, "network eth0 300 MB/s of others"),
    ],
)
def test_each_kind_of_load_is_named_alone(tmp_path: Path, changed: dict[str, float], named: str) -> None:
    assert _after(tmp_path, **changed) == (named,)


def test_a_kernel_without_pressure_and_disks_is_looked_at_by_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "uptime").write_text("1.0 0\n")
    (tmp_path / "stat").write_text("cpu 1 0 0 9 0 0 0 0\n")
    found = quiet.snapshot(tmp_path)
    assert (found.stalls, found.disks, found.links) == ({}, {}, {})


def test_gpu_processes_are_named_and_no_driver_is_no_process() -> None:
    def absent() -> str:
        raise Unsupported.told("tool_missing: nvidia-smi is not installed")

    assert quiet.gpu_processes(lambda: "123, /opt/bin/train.py\n77, python3\n") == (
        "on the GPU: train.py (123)",
        "on the GPU: python3 (77)",
    )
    assert quiet.gpu_processes(lambda: "No running processes found\n") == ()
    assert quiet.gpu_processes(absent) == ()


def test_waiting_ends_when_it_is_quiet_or_patience_is_over() -> None:
    clock = iter(range(100))
    looks = iter([("a",), ("a",), ("b",), ()])
    told: list[str] = []
    assert quiet.wait_until_quiet(50.0, lambda: next(looks), lambda: float(next(clock)), told.append) == ()
    assert told == ["waiting for a quiet node: a", "waiting for a quiet node: b"]
    assert quiet.wait_until_quiet(3.0, lambda: ("a",), lambda: float(next(clock)), told.append) == ("a",)


def _burn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_real_hog_on_every_core_is_seen_and_named() -> None:
    context = multiprocessing.get_context("fork")
    hogs = [context.Process(target=_burn, args=(20.0,)) for _ in range(os.cpu_count() or 1)]
    for hog in hogs:
        hog.start()
    try:
        found = quiet.look(1.0)
    finally:
        for hog in hogs:
            hog.kill()
            hog.join()
    assert any(text.startswith("processors") and "(" in text for text in found)


def test_a_contended_run_is_inconclusive_and_never_fails() -> None:
    measured = Measurement(metric="storage_read_bytes_per_second", value=1.0, interval=(1.0, 1.0), samples=5)
    result = ProbeResult(probe="storage", outcome=Outcome.OK, measurements=(measured,))
    assert quiet.marked(result, ()) is result
    run = Run(
        id="a",
        started_at="2026-01-01T00:00:00Z",
        node=Node(hostname="n", fingerprint="f"),
        request=Request(effort=Effort.QUICK, probes=("storage",)),
        results=(quiet.marked(result, ("processors 75 % busy (backup)",)),),
    )
    gate = Gate(metric="storage_read_bytes_per_second", min=1e9, source="a test")
    found = judge_gate(run, gate, {})[0]
    assert found.status is not Status.PASS
    assert found.status is Status.UNDECIDED
    assert found.reason is not None and "contended: processors 75 % busy (backup)" in found.reason
