"""The storage probe on a node that cannot: no fio, an odd one, no space, no writing, no answer."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.measure import workspace
from bench.measure.probe import Progress
from bench.measure.recording import INDEX
from bench.model import Outcome
from tests.probes.storage import run as storage_run
from tests.probes.storage.run import left_in, only

RECORDED = Path(__file__).parents[2] / "recorded"
QUOTED = shlex.quote(str(RECORDED))
pytestmark = pytest.mark.usefixtures("brief")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: loop mounts")


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
    (folder / "fio").write_text(f"#!/bin/sh\nreal={shutil.which('fio')}\n" + script)
    (folder / "fio").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_an_old_fio_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_fio(tmp_path / "bin", monkeypatch, "echo fio-3.16\n")
    result = only(storage_run.run(data, evidence=tmp_path / "t.raw"))
    assert (result.outcome, result.reason) == (
        Outcome.UNSUPPORTED, "tool_too_old: fio 3.16 is older than 3.28",
    )  # fmt: skip


def test_an_fio_without_its_libraries_says_which(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card was lent for a quarter of an hour, and storage had no figure: `'' is not a version of fio`."""
    lacks = "fio: error while loading shared libraries: libboost_thread.so.1.74.0: cannot open shared object file"
    fake_fio(tmp_path / "bin", monkeypatch, f"echo '{lacks}' >&2\nexit 127\n")
    result = only(storage_run.run(data, evidence=tmp_path / "t.raw"))
    assert str(result.reason) == f"tool_failed: fio does not start: {lacks}" and "fio" in str(result.remedy)


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ("echo nonsense", 0, "fio_output: not the JSON of fio"),
        ("true", 0, "fio_output: not the JSON of fio"),
        (f"cat {QUOTED}/fio-3.33/terminated.txt", 128, "fio_failed: "),
        (f"cat {QUOTED}/fio-3.33/no_space.txt", 1, "no_space: "),
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
    answer = f"cat {QUOTED}/fio-3.33/refused.txt; exit 1"
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
def test_the_cache_below_a_loop_device_is_no_storage(tmp_path: Path) -> None:
    """O_DIRECT passes the file system's page cache, and is answered by that of the file that the loop device has."""
    with mounted(tmp_path, 512) as point:
        result = only(storage_run.run(point, evidence=tmp_path / "t.raw"))
    reads = [m for m in result.measurements if m.metric.startswith("storage_read_")]
    assert reads and all((m.invalid or "").startswith("not_cold: ") for m in reads)


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
        deadline = time.monotonic() + 30  # thawed, what was stuck ends
        while any("process" in entry for entry in left_in(point)) and time.monotonic() < deadline:
            time.sleep(0.1)
        # The folder could not be removed while nothing answered; it is the next run's to sweep, as after kill -9.
        assert [entry[:15] for entry in left_in(point)] in ([], [".aiready-bench-"])
