"""The storage probe with the real fio: what it writes, what it survives, and what it leaves behind (nothing)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.measure.probe import Progress, Unsupported
from bench.measure.recording import INDEX, LiveTools, Recording
from bench.model import Effort, Outcome, Request, Run
from probes.storage import probe as storage
from probes.storage.fio import FioJob
from tests.probes import throttle
from tests.probes.storage import run as storage_run
from tests.probes.storage.run import left_in, only

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("brief")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: cgroups")


def test_it_measures_every_job_leaves_nothing_and_replays_to_the_same_numbers(data: Path, tmp_path: Path) -> None:
    run = storage_run.run(data, evidence=tmp_path / "t.raw")
    result = only(run)
    assert result.outcome is Outcome.OK, result.reason
    assert {m.metric for m in result.measurements} == {metric.name for metric in storage.PROBE.metrics}
    assert {m.labels["path"] for m in result.measurements} == {str(data)}
    assert all(m.value > 0 and 2 in (len(m.repeats), len(m.distributions)) for m in result.measurements)
    assert left_in(data) == []
    again = storage_run.run(data, evidence=tmp_path / "again.raw", replay=Recording(tmp_path / "t.raw"))
    assert only(again).measurements == result.measurements


def test_paths_that_fio_would_cut_are_measured_and_nothing_is_written_beside_them(data: Path, tmp_path: Path) -> None:
    odd = data / "a:b; #c $ncpus %d 'q' \"r\" \\ {é"
    odd.mkdir()
    result = only(storage_run.run(odd, evidence=tmp_path / "t.raw"))
    assert result.outcome is Outcome.OK, result.reason
    assert result.measurements[0].labels["path"] == str(odd)
    assert left_in(odd) == [] and left_in(data) == [odd.name]


def test_two_directories_are_measured_apart_and_a_repeated_one_once(data: Path, tmp_path: Path) -> None:
    first, second = data / "1", data / "2"
    first.mkdir()
    second.mkdir()
    result = only(storage_run.run(first, second, f"{first}/", evidence=tmp_path / "t.raw"))
    paths = [m.labels["path"] for m in result.measurements if m.metric == "storage_write_bytes_per_second"]
    assert paths == [str(first), str(second)]


def test_one_directory_that_cannot_be_measured_ends_the_probe_before_any_work(data: Path, tmp_path: Path) -> None:
    result = only(storage_run.run(data, data / "absent", evidence=tmp_path / "t.raw"))
    assert result.outcome is Outcome.UNSUPPORTED
    assert str(result.reason).startswith("missing: ") and "--storage" in str(result.remedy)
    assert "layout" not in (tmp_path / "t.raw" / INDEX).read_text()


def test_the_files_hold_data_and_no_holes(data: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, bool]] = []

    def look(step: Progress) -> None:
        if "round 1" in step.text:
            (file,) = data.glob(".aiready-bench-*/read.dat")
            blocks = [file.read_bytes()[at : at + 4096] for at in range(0, file.stat().st_size, 1 << 20)]
            seen.append((file.stat().st_blocks * 512, file.stat().st_size, len(set(blocks)) == len(blocks)))

    storage_run.run(data, evidence=tmp_path / "t.raw", listen=look)
    ((allocated, size, distinct),) = seen
    assert allocated >= size == 64 << 20 and distinct


# --- signals


@contextmanager
def in_the_first_round(data: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the probe on ``data`` and has come to its first round, in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.probes.storage.run", str(data)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert any("round 1" in line for line in process.stdout), "never came to its first round"
        time.sleep(0.7)
        assert any("process" in entry for entry in left_in(data)), "fio does not run: nothing is shown by this test"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_fio_and_removes_the_folder(data: Path, sig: signal.Signals) -> None:
    with in_the_first_round(data) as process:
        process.send_signal(sig)
        output, _ = process.communicate(timeout=60)
    run = Run.model_validate_json(output.splitlines()[-1])
    assert run.interrupted_by == sig and only(run).reason == f"interrupted: {sig.name}"
    assert left_in(data) == []


def test_kill_9_takes_fio_along_and_the_next_run_sweeps_the_folder(data: Path, tmp_path: Path) -> None:
    with in_the_first_round(data) as process:
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while any("process" in entry for entry in left_in(data)) and time.monotonic() < deadline:
            time.sleep(0.05)
        (folder,) = left_in(data)
    assert folder.startswith(".aiready-bench-")
    assert only(storage_run.run(data, evidence=tmp_path / "t.raw")).outcome is Outcome.OK
    assert left_in(data) == []


# --- the truth, injected


@needs_root
def test_the_figures_follow_a_limit_that_is_put_on_the_disk(data: Path, tmp_path: Path) -> None:
    if reason := throttle.why_not(data):
        pytest.skip(reason)
    limit = 100_000_000
    storage_run.shorten([FioJob("read", 1 << 20, 1), FioJob("randread", 1 << 17, 32)], 3, 1.4, 0.5)
    with throttle.throttled(data, limit):
        result = only(storage_run.run(data, evidence=tmp_path / "t.raw"))
    ratios = [m.value / limit for m in result.measurements if m.metric == "storage_read_bytes_per_second"]
    assert len(ratios) == 2 and all(0.8 < ratio < 1.05 for ratio in ratios), f"{ratios}: a busy machine may reach less"
    operations = [m.value for m in result.measurements if m.metric == "storage_read_operations_per_second"]
    assert operations == pytest.approx([ratios[0] * limit / (1 << 20), ratios[1] * limit / (1 << 17)])


def test_doctor_says_what_can_be_measured_and_what_mends_the_rest(data: Path) -> None:
    request = Request(effort=Effort.QUICK, probes=(), storage=(str(data), "/dev/shm", str(data / "absent")))
    fio, good, memory, absent = storage.doctor(LiveTools("storage", None), request)
    assert fio.ok and fio.detail.startswith("fio 3.")
    assert good.ok and "O_DIRECT" in good.detail and "GB free" in good.detail
    assert not memory.ok and "tmpfs" in memory.detail and memory.remedy
    assert not absent.ok and "No such file" in absent.detail


def test_doctor_says_how_to_install_a_missing_fio(data: Path) -> None:
    class NoFio(LiveTools):
        def require(self, tool: str) -> str:
            raise Unsupported.told(f"tool_missing: {tool} is not installed", "apt-get install -y fio")

    first = storage.doctor(NoFio("storage", None), Request(effort=Effort.QUICK, probes=(), storage=(str(data),)))[0]
    assert not first.ok and first.remedy == "apt-get install -y fio"
