"""Where a command's answer goes: a full disk, a pipe by its name, a stream that is closed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench.store.atomic import write_atomically

BENCH = shlex.join([sys.executable, "-m", "bench"])


def sh(line: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
def test_a_full_disk_behind_standard_output_is_one_line(tmp_path: Path) -> None:
    done = sh(f"{BENCH} profiles >/dev/full", tmp_path)
    assert done.stderr == "bench: standard output cannot be written: No space left on device\n"
    assert done.returncode == 2


@pytest.mark.slow
def test_with_closed_streams_the_status_is_all_that_is_said(tmp_path: Path) -> None:
    done = sh(f"{BENCH} profiles <&- >&- 2>&-; echo $?", tmp_path)
    assert done.stdout == "0\n"
    done = sh(f"{BENCH} gate none --results . <&- >&- 2>&-; echo $?", tmp_path)
    assert done.stdout == "2\n"


def test_a_pipe_by_its_name_is_written_to(tmp_path: Path) -> None:
    words = "import sys; from pathlib import Path; from bench.store.atomic import write_atomically as write; "
    program = shlex.join([sys.executable, "-c", words + "write(Path('/dev/stdout'), b'whole')"])
    assert sh(f"{program} | cat", tmp_path).stdout == "whole"
    (tmp_path / "link").symlink_to("file")
    write_atomically(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"1"
