"""A run in the background whose processes can be told from all others: by a mark in their environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def descendants_marked(mark: str) -> list[str]:
    """Command lines of living processes that carry our mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def gone(mark: str, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while descendants_marked(mark):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def start(results: Path, mark: str, *arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "bench", "run", "--results", str(results), "--storage", str(results), *arguments]
    return subprocess.Popen(
        argv,
        env={**os.environ, "BENCH_LOCK": f"{results}.lock", "BENCH_MARK": mark, "BENCH_QUIET_CHECK": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_as_on_a_terminal,
    )


def _as_on_a_terminal() -> None:
    """A shell starts what it puts in the background with SIGINT ignored, and all below inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_child(mark: str, word: str, seconds: float = 90.0) -> None:
    """Until a child of that run whose command line holds ``word`` has been up for a moment."""
    end = time.monotonic() + seconds
    while not any(word in line and "--version" not in line for line in descendants_marked(mark)):
        assert time.monotonic() < end, f"no child with {word!r} came up"
        time.sleep(0.05)
    time.sleep(0.7)
