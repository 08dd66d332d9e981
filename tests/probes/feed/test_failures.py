"""Directories that cannot be used, paths that stop answering, interrupts: the right word, in time, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from bench.measure.probe import Unsupported
from bench.measure.runner import RunPlan, execute
from bench.model import Effort, Node, Outcome, ProbeResult, Request
from probes.feed import probe as feed
from probes.feed.load import arms, dataset
from probes.feed.parse import Parsed
from probes.feed.plan import Row
from tests.cli.bench import bench
from tests.probes.feed.conftest import ROOT

pytestmark = pytest.mark.slow

EMULATED = "emulated:resnet50-h100"
BLKIO = Path("/sys/fs/cgroup/blkio")


def run(folder: Path | str, evidence: Path, accelerator: str = EMULATED, **options: str) -> ProbeResult:
    request = Request(
        effort=Effort.QUICK, probes=("feed",), storage=(str(folder),), accelerator=accelerator, options=dict(options)
    )
    node = Node(hostname="node", fingerprint="f")
    plan = RunPlan(id="test", request=request, probes=[feed.PROBE], node=node, evidence=evidence / "test.raw")
    (result,) = execute(plan).results
    return result


def test_an_unknown_accelerator_names_the_nearest(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path, "emulated:resnet50-h10")
    assert result.outcome is Outcome.UNSUPPORTED
    assert result.reason is not None and "resnet50-h100" in result.reason


@pytest.mark.parametrize(("option", "value"), [("pattern", "batsh"), ("loader", "troch"), ("workload", "resnet5")])
def test_an_unknown_option_names_what_there_is(tmp_path: Path, option: str, value: str) -> None:
    result = run(tmp_path, tmp_path, "cpu", **{option: value})
    assert result.outcome is Outcome.UNSUPPORTED
    assert result.reason is not None and f"unknown_{option}" in result.reason


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--accelerator", "emulated:resnet50-h10"], "emulated:resnet50-h100"),
        (["--loader", "troch"], "torch"),
        (["--pattern", "batsh"], "batch"),
        (["--workload", "resnet5"], "resnet50"),
        (["--workload", "/no/such.toml"], "/no/such.toml"),
    ],
)
def test_a_name_that_is_none_is_wrong_usage_and_measures_nothing(tmp_path: Path, words: list[str], said: str) -> None:
    done = bench("run", "--storage", tmp_path, "--results", tmp_path / "r", *words, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert said in line
    assert not list(tmp_path.glob("r/runs/*/*"))


def test_a_directory_in_memory_is_refused_and_left_empty(tmp_path: Path) -> None:
    if not os.path.ismount("/dev/shm"):
        pytest.fail("this machine has no /dev/shm to refuse")
    result = run("/dev/shm", tmp_path)
    assert result.outcome is Outcome.UNSUPPORTED
    assert result.reason is not None and result.reason.startswith("in_memory:")
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(".aiready")]


@pytest.mark.parametrize("folder", ["/no/such/folder", "/proc"])
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path, folder: str) -> None:
    assert run(folder, tmp_path).outcome is Outcome.UNSUPPORTED


def test_too_little_space_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(feed._DATA_BYTES, Effort.QUICK, 1 << 60)
    result = run(tmp_path, tmp_path)
    assert result.outcome is Outcome.UNSUPPORTED
    assert result.reason is not None and result.reason.startswith("no_space:")


def test_one_bad_directory_does_not_hide_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_measure_directory", _measured_but_not_in_memory)
    request = Request(effort=Effort.QUICK, probes=(), storage=("/dev/shm", str(tmp_path)), accelerator=EMULATED)
    node = Node(hostname="node", fingerprint="f")
    run_ = execute(RunPlan(id="t", request=request, probes=[feed.PROBE], node=node, evidence=tmp_path / "t.raw"))
    (result,) = run_.results
    assert result.outcome is Outcome.OK
    assert any("in_memory" in warning for warning in result.warnings)


def _measured_but_not_in_memory(_ctx: object, directory: str, _accelerator: object, _index: int) -> Parsed:
    from bench.model import Measurement

    if directory == "/dev/shm":
        raise Unsupported.told("in_memory: tmpfs")
    size = Measurement(metric="feed_sample_bytes", value=1.0, interval=(1.0, 1.0), samples=1)
    return Parsed((size,), (), ())


def test_without_o_direct_the_files_are_flushed_and_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "can_be_direct", lambda _folder: False)
    blocks = dataset.plan_blocks(131_072, 0, 1000, 16 << 20, 2, 1)
    data = dataset.write(str(tmp_path), blocks, 1, time.monotonic() + 30.0)
    assert not data.direct and data.bytes == 16 << 20
    from probes.common import io_counters

    assert (io_counters.resident_ratio(data.paths) or 0.0) < 0.01


def test_a_file_that_shrinks_in_the_middle_is_an_error_not_a_figure(tmp_path: Path) -> None:
    from probes.feed.load.accelerators import Drain
    from probes.feed.load.reader import FileSource, Reader, make_buffers

    blocks = dataset.plan_blocks(131_072, 0, 1000, 16 << 20, 1, 1)
    data = dataset.write(str(tmp_path), blocks, 1, time.monotonic() + 30.0)
    os.truncate(data.paths[0], 4 << 20)

    def make() -> Reader:
        return Reader(FileSource(data), data.blocks, workers=2, buffers=make_buffers(1 << 20, 4))

    with pytest.raises(OSError, match="bytes"):
        arms.run(Row("fetch", 1, 0.1, 1.0, 1.0), Drain(), make, None)


def test_a_source_that_stops_answering_is_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from probes.feed.load.accelerators import Drain
    from probes.feed.load.dataset import Block
    from probes.feed.load.reader import Buffer, Reader, Source, make_buffers

    monkeypatch.setattr(arms, "HANG_SECONDS", 0.5)
    wake, woken = threading.Event(), list[bool]()

    class Stuck(Source):
        def read(self, block: Block, buffer: Buffer) -> int:
            woken.append(wake.wait(100.0))
            return block.read_bytes

    blocks = [Block(0, 0, 4096, 1.0)]
    with pytest.raises(TimeoutError):
        arms.run(
            Row("storage", 1, 0.1, 1.0, 1.0),
            Drain(),
            lambda: Reader(Stuck(), blocks, workers=2, buffers=make_buffers(4096, 4)),
            None,
        )
    assert not woken, "it waited until the source woke"
    wake.set()


@pytest.fixture
def stuck_disk(tmp_path: Path) -> Iterator[Path]:
    """A cgroup whose reads from the disk below ``tmp_path`` can be held up, and are let go at the end."""
    if os.geteuid() != 0 or not (BLKIO / "blkio.throttle.read_bps_device").exists():
        pytest.skip("needs root and cgroup v1 with blkio to hold up reads")
    group = BLKIO / f"aiready-stuck-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        _limit(group, tmp_path, 0)
        until = time.monotonic() + 20.0
        while (group / "cgroup.procs").read_text().strip() and time.monotonic() < until:
            time.sleep(0.1)
        group.rmdir()


def _limit(group: Path, folder: Path, rate: int) -> None:
    device = os.stat(folder).st_dev
    (group / "blkio.throttle.read_bps_device").write_text(f"{os.major(device)}:{os.minor(device)} {rate}")


def _start(folder: Path, results: Path, group: Path | None = None) -> subprocess.Popen[str]:
    argv = [
        sys.executable, "-m", "bench", "run", "--probe", "feed", "--storage", str(folder), "--effort", "quick",
        "--accelerator", EMULATED, "--json", "--results", str(results),
    ]  # fmt: skip
    if group is not None:
        argv = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *argv]
    env = {**os.environ, "BENCH_LOCK": str(results / "lock")}
    return subprocess.Popen(
        argv, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def _wait_for_data(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the feed has made its place in the folder."""
    while not os.listdir(folder):
        assert process.poll() is None, "it ended before it measured"
        time.sleep(0.02)


def test_a_disk_that_stops_in_the_middle_ends_in_time(tmp_path: Path, stuck_disk: Path) -> None:
    folder, results = tmp_path / "data", tmp_path / "results"
    folder.mkdir()
    results.mkdir()
    process = _start(folder, results, stuck_disk)
    _wait_for_data(process, folder)
    time.sleep(6.0)
    _limit(stuck_disk, tmp_path, 1)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(25.0)  # it may come to its end before, or wait for what nobody can end
    finally:
        _limit(stuck_disk, tmp_path, 0)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "path_hangs" in output
    assert os.listdir(folder) == []


def _interrupted(place: Path, seconds: float) -> tuple[int, list[str], list[str]]:
    """(exit status, what is left in the folder, processes that still name it) of a run that gets SIGINT after that."""
    folder, results = place / "data", place / "results"
    folder.mkdir(parents=True)
    results.mkdir()
    process = _start(folder, results)
    _wait_for_data(process, folder)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=90)
    return process.returncode, os.listdir(folder), _processes_naming(str(folder))


def test_an_interrupt_in_any_arm_leaves_nothing(tmp_path: Path) -> None:
    moments = (0.3, 2.5, 5.0, 8.0, 12.0)
    with ThreadPoolExecutor(len(moments)) as at_once:
        found = list(at_once.map(lambda seconds: _interrupted(tmp_path / str(seconds), seconds), moments))
    assert dict(zip(moments, found, strict=True)) == dict.fromkeys(moments, (130, [], []))


def _processes_naming(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if word in command:
                found.append(command)
    return found
