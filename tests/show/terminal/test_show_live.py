"""The live view on a real terminal (a pty) of 80 and 120 columns, and the plain lines where there is none."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from bench.show.text import cells

WORDS = [sys.executable, "-m", "tests.show.terminal.live_view"]
#: What the display itself may write: colours, cursor up, erase line, show and hide the cursor.
OURS = re.compile(r"\x1b\[(?:[0-9;]*m|1A|2K|\?25[lh])")


def on_terminal(columns: int, **extra: str) -> str:
    """Everything that the display writes to a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")} | {
        "TERM": "xterm-256color"
    }
    process = subprocess.Popen(WORDS, stdin=theirs, stdout=theirs, stderr=theirs, env=env | extra, close_fds=True)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end of a pty went away
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait(30) == 0, written.decode()
    return written.decode()


def lines(written: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", OURS.sub("", written)) if line.strip()]


@pytest.mark.parametrize("columns", [80, 120])
def test_each_probe_has_its_line_with_time_left_and_the_figure(columns: int) -> None:
    found = lines(on_terminal(columns))
    assert max(map(cells, found)) <= columns
    assert any(re.match(r"storage\s+\S+ \d:\d\d:\d\d \S+ sequential read: 1\.2 GB/s", line) for line in found)
    assert any(line.startswith("inference ") and "failed: x: red<script>" in line for line in found)


def test_hostile_text_cannot_reach_the_terminal_as_control_codes() -> None:
    rest = OURS.sub("", on_terminal(100))
    assert not [c for c in rest if ord(c) < 32 and c not in "\r\n"]
    assert not [c for c in rest if 127 <= ord(c) < 160 or c in "\u202e"]
    assert "title" not in rest, "what an escape sequence carried is gone with it"


def test_no_color_has_none() -> None:
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", on_terminal(80, NO_COLOR="1"))


def test_without_a_terminal_there_are_plain_lines() -> None:
    done = subprocess.run(WORDS, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
    first, last = done.stderr.splitlines()[0], done.stderr.splitlines()[-1]
    assert first.startswith("storage: red<script>")
    assert last.startswith("inference: failed: x: red<script>")
    assert "\x1b" not in done.stderr
