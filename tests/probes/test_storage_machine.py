"""The storage probe with the real fio: what it writes, what it survives, and what it leaves behind (nothing)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bench.measure import workspace
from bench.measure.probe import Unsupported
from bench.measure.recording import INDEX, LiveTools, Recording
from bench.measure.runner import Progress
from bench.model import Effort, Outcome, ProbeResult, Request, Run
from probes import storage
from probes._fio import Job
from tests.probes import storage_run, throttle

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "recorded"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: cgroups and loop mounts")


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JOBS", "REPEATS", "job_seconds", "_READ_BYTES"):
        monkeypatch.setattr(storage, name, getattr(storage, name))  # put back at the end
    storage_run.shorten()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory on a disk; pytest's own may be in memory."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def only(run: Run) -> ProbeResult:
    (result,) = run.results
    return result


def left_in(folder: Path) -> list[str]:
    """What is left there, and the processes that work there."""
    found = [entry.name for entry in folder.iterdir() if entry.name != "lost+found"]
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and os.readlink(process / "cwd").startswith(str(folder)):
                found.append(f"process {process.name}")
    return found


def test_it_measures_every_job_leaves_nothing_and_replays_to_the_same_numbers(data: Path, tmp_path: Path) -> None:
    run = storage_run.run(data, evidence=tmp_path / "t.raw")
    result = only(run)
    assert result.outcome is Outcome.OK, result.reason
    assert {m.metric for m in result.measurements} == {metric.name for metric in storage.PROBE.metrics}
    assert {m.labels["path"] for m in result.measurements} == {str(data)}
    assert all(m.value > 0 and m.samples == 2 for m in result.measurements)
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


# --- a node that cannot


def test_without_fio_the_remedy_is_the_command_that_installs_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apt-get").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    result = only(storage_run.run(data, evidence=tmp_path / "t.raw"))
    assert (result.outcome, result.reason) == (Outcome.UNSUPPORTED, "tool_missing: fio is not installed")
    assert str(result.remedy).endswith("apt-get install -y fio")


def fake_fio(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program called fio, first on the PATH; ``real`` in it is the real one."""
    folder.mkdir()
    (folder / "fio").write_text("#!/bin/sh\nreal=" + str(shutil.which("fio")) + "\n" + script)
    (folder / "fio").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_an_old_fio_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_fio(tmp_path / "bin", monkeypatch, "echo fio-3.16\n")
    result = only(storage_run.run(data, evidence=tmp_path / "t.raw"))
    assert (result.outcome, result.reason) == (
        Outcome.UNSUPPORTED, "tool_too_old: fio 3.16 is older than 3.28",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ("echo nonsense", 0, "fio_output: not the JSON of fio"),
        ("true", 0, "fio_output: not the JSON of fio"),
        (f"cat {RECORDED}/fio-3.33/terminated.txt", 128, "fio_failed: "),
        (f"cat {RECORDED}/fio-3.33/no_space.txt", 1, "no_space: "),
        ("kill -SEGV $$", 0, "fio_failed: "),
    ],
)
def test_an_fio_that_talks_garbage_is_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, reason: str
) -> None:
    fake_fio(tmp_path / "bin", monkeypatch, f'[ "$1" = --version ] && exec $real --version\n{answer}\nexit {status}\n')
    result = only(storage_run.run(data, evidence=tmp_path / "t.raw"))
    assert result.outcome in (Outcome.FAILED, Outcome.UNSUPPORTED)
    assert str(result.reason).startswith(reason) and "\n" not in str(result.reason)
    assert left_in(data) == []


@pytest.mark.parametrize(("refused", "engine"), [("io_uring", "libaio"), ("io_uring libaio", "psync")])
def test_a_forbidden_engine_gives_way_to_the_next(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, engine: str
) -> None:
    answer = f"cat {RECORDED}/fio-3.33/refused.txt; exit 1"
    cases = "".join(f'case "$*" in *ioengine={name}*) {answer};; esac\n' for name in refused.split())
    fake_fio(tmp_path / "bin", monkeypatch, cases + 'exec $real "$@"\n')
    result = only(storage_run.run(data, evidence=tmp_path / "t.raw"))
    assert result.outcome is Outcome.OK, result.reason
    calls = [json.loads(line) for line in (tmp_path / "t.raw" / INDEX).read_text().splitlines()]
    rounds = [call["argv"] for call in calls if call["name"] == "round"]
    assert len(rounds) == 2 and all(f"--ioengine={engine}" in argv and "--direct=1" in argv for argv in rounds)


def test_memory_is_refused(tmp_path: Path) -> None:
    result = only(storage_run.run("/dev/shm", evidence=tmp_path / "t.raw"))
    assert (result.outcome, str(result.reason)[:6]) == (Outcome.UNSUPPORTED, "tmpfs:")


@contextmanager
def mounted(folder: Path, mebibytes: int, *options: str) -> Iterator[Path]:
    """A small ext4 in a file. Root only."""
    image, point = folder / "image", folder / "point"
    point.mkdir()
    with image.open("xb") as file:
        file.truncate(mebibytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", ",".join(["loop", *options]), str(image), str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


@needs_root
def test_a_small_file_system_has_no_space_and_keeps_what_it_holds(tmp_path: Path) -> None:
    with mounted(tmp_path, 64) as point:
        (point / "full").write_bytes(b"x" * (50 << 20))
        result = only(storage_run.run(point, evidence=tmp_path / "t.raw"))
        assert (result.outcome, str(result.reason)[:9]) == (Outcome.UNSUPPORTED, "no_space:")
        assert "\n" not in str(result.reason) and left_in(point) == ["full"]


@needs_root
def test_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    with mounted(tmp_path, 64, "ro") as point:
        result = only(storage_run.run(point, evidence=tmp_path / "t.raw"))
    assert (result.outcome, str(result.reason)[:10]) == (Outcome.UNSUPPORTED, "read_only:")


@needs_root
def test_a_path_that_stops_answering_in_the_middle_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_CHILD_TIMEOUT", 3.0)  # not the 30 s, which only take time
    with mounted(tmp_path, 256) as point:

        def freeze(step: Progress) -> None:
            if "round 2" in step.text:  # from now on every write waits in the kernel, and cannot be killed
                subprocess.run(["fsfreeze", "--freeze", str(point)], check=True)

        limit = 10 * 2 + 30  # what the runner gives a probe of 10 s
        thaw = threading.Timer(limit + 5, subprocess.run, [["fsfreeze", "--unfreeze", str(point)]])
        started = time.monotonic()
        thaw.start()  # a run that waits for ever fails this test; it must not hold it
        try:
            run = storage_run.run(point, evidence=tmp_path / "t.raw", listen=freeze, seconds=10)
            seconds = time.monotonic() - started
        finally:
            thaw.cancel()
            subprocess.run(["fsfreeze", "--unfreeze", str(point)], check=False)
        assert only(run).outcome is Outcome.TIMED_OUT, only(run).reason
        assert seconds < limit, "the run waited for a process that nobody can end"
        deadline = time.monotonic() + 10  # thawed, what was stuck ends
        while any("process" in entry for entry in left_in(point)) and time.monotonic() < deadline:
            time.sleep(0.1)
        # The folder could not be removed while nothing answered; it is the next run's to sweep, as after kill -9.
        assert [entry[:15] for entry in left_in(point)] in ([], [".aiready-bench-"])


# --- signals


@contextmanager
def in_the_first_round(data: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the probe on ``data`` and has come to its first round, in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.probes.storage_run", str(data)],
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
        output, _ = process.communicate(timeout=20)
    run = Run.model_validate_json(output.splitlines()[-1])
    assert run.interrupted_by == sig and only(run).reason == f"interrupted: {sig.name}"
    assert left_in(data) == []


def test_kill_9_takes_fio_along_and_the_next_run_sweeps_the_folder(data: Path, tmp_path: Path) -> None:
    with in_the_first_round(data) as process:
        process.kill()
        process.wait()
        deadline = time.monotonic() + 5
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
    storage_run.shorten([Job("read", 1 << 20, 1), Job("randread", 1 << 17, 32)], 5, 1.4, 0.5)
    with throttle.throttled(data, limit):
        result = only(storage_run.run(data, evidence=tmp_path / "t.raw"))
    ratios = [m.value / limit for m in result.measurements if m.metric == "storage_read_bytes_per_second"]
    assert len(ratios) == 2 and all(abs(ratio - 1) < 0.05 for ratio in ratios), ratios
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
            raise Unsupported(f"tool_missing: {tool} is not installed", "apt-get install -y fio")

    first = storage.doctor(NoFio("storage", None), Request(effort=Effort.QUICK, probes=(), storage=(str(data),)))[0]
    assert not first.ok and first.remedy == "apt-get install -y fio"
