"""The folder of our own making: what it refuses, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.measure import tools
from bench.measure.probe import TimedOut, Unsupported
from bench.measure.workspace import MARKER, PREFIX, workspace


def ours(directory: Path) -> list[Path]:
    return list(directory.glob(PREFIX + "*"))


def test_it_is_there_and_then_gone(tmp_path: Path) -> None:
    with workspace(tmp_path, 1000, "run") as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "data").write_bytes(b"x" * 100)
    assert not ours(tmp_path)


def test_it_is_gone_after_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), workspace(tmp_path, 1000, "run"):
        _ = 1 / 0
    assert not ours(tmp_path)


def test_strange_names_are_only_names(tmp_path: Path) -> None:
    directory = tmp_path / "a:b c\n$(touch pwned)"
    directory.mkdir()
    with workspace(directory, 10, "run") as folder:
        assert folder.parent == directory
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda p: p / "absent", "missing"),
        (lambda p: _file(p / "file"), "not_a_directory"),
        (lambda p: Path("/proc"), "refused"),
        (lambda p: Path("/sys/kernel"), "refused"),
    ],
)
def test_what_is_no_place_for_data_is_refused(tmp_path: Path, make: object, word: str) -> None:
    where = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(Unsupported, match=word), workspace(where, 10, "run"):
        pass


def _file(path: Path) -> Path:
    path.write_text("x")
    return path


def test_more_than_there_is_room_for_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"no_space: needs .* MB") as caught, workspace(tmp_path, 1 << 60, "run"):
        pass
    assert "--storage" in (caught.value.remedy or "")
    assert not ours(tmp_path)


def test_a_path_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise TimedOut.told("tool_timed_out")

    monkeypatch.setattr(tools, "run", hang)
    with pytest.raises(TimedOut, match="path_hangs"), workspace(tmp_path, 10, "run"):
        pass


def _killed_owner(directory: Path) -> None:
    code = (
        "import sys,time; from pathlib import Path; from bench.measure.workspace import workspace\n"
        f"with workspace(Path({str(directory)!r}), 10, 'dead'): print('in', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, **tools.python_environment()}
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"in\n"
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()


def test_the_next_run_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    _killed_owner(tmp_path)
    assert len(ours(tmp_path)) == 1
    with workspace(tmp_path, 10, "next"):
        assert len(ours(tmp_path)) == 1
    assert not ours(tmp_path)


def test_the_sweep_spares_the_living_the_foreign_and_the_unmarked(tmp_path: Path) -> None:
    unmarked = tmp_path / f"{PREFIX}mine-by-name-only"
    unmarked.mkdir()
    (unmarked / "thesis.txt").write_text("years of work")
    foreign = tmp_path / f"{PREFIX}other-node"
    foreign.mkdir()
    (foreign / MARKER).write_text(json.dumps({"pid": 1, "start": "0", "boot": "x", "host": "other"}))
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(outside)
    with workspace(tmp_path, 10, "one") as first, workspace(tmp_path, 10, "two"):
        assert first.exists()
    assert (unmarked / "thesis.txt").exists()
    assert (foreign / MARKER).exists()
    assert outside.exists()


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with workspace(tmp_path, 10, "same") as first:
        time.sleep(0.001)
        with workspace(tmp_path, 10, "same") as second:
            assert first != second
