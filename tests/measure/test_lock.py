"""One run at a time, and a dead one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measure import tools
from bench.measure.lock import NodeBusy, lock_path, one_run

HOLD = "import sys,time; from pathlib import Path; from bench.measure.lock import one_run\n"


def holder(path: Path) -> subprocess.Popen[bytes]:
    code = HOLD + f"with one_run(Path({str(path)!r})): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, **tools.python_environment()}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_the_second_run_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = holder(path)
    try:
        with pytest.raises(NodeBusy, match=f"process {first.pid}"), one_run(path):
            pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    with one_run(path):
        assert path.read_text() == str(os.getpid())


def test_it_can_be_held_again_after_its_end(tmp_path: Path) -> None:
    for _ in range(3):
        with one_run(tmp_path / "lock"):
            pass


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(OSError), one_run(tmp_path / "lock"):
        pass
    assert target.read_text() == "precious"


def test_the_place_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_LOCK", str(tmp_path / "mine"))
    assert lock_path() == tmp_path / "mine"
