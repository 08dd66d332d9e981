"""The live view on a real terminal (a pty) of 80 and 120 columns, and the plain lines where there is none."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tarfile
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.measure.probe import Progress
from bench.model import Outcome, ProbeResult
from bench.show.matrix import Matrix
from bench.show.terminal.progress import _Measuring
from bench.show.text import cells
from tests.show.runs import ROOT, no_gpu

WORDS = [sys.executable, "-m", "tests.show.terminal.live_view"]
#: What the display itself may write: colours, cursor up, erase line, show and hide the cursor.
OURS = re.compile(r"\x1b\[(?:[0-9;]*m|1A|2K|\?25[lh])")
Process = subprocess.Popen[bytes]


#: What the view shows at each of its steps.
SEEN = ("red<script>", "sequential read", "figures in", "inference, 2 of 2: ", "failed: x")


def stepwise() -> Callable[[Process, str], None]:
    """Lets the driver go on when what it showed was seen."""
    left = list(SEEN)

    def seen(process: Process, written: str) -> None:
        while left and left[0] in written:
            left.pop(0)
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()

    return seen


def on_terminal(
    columns: int, words: list[str] = WORDS, *, until: Callable[[Process, str], None] | None = None, **extra: Any
) -> tuple[str, Process]:
    """All that a program writes to a terminal of that width; ``until`` is told of all that was written so far."""
    until = until or stepwise()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    env |= {"TERM": "xterm-256color", "PYTHONUTF8": "1", **extra.pop("env", {})}
    streams = {"stdin": subprocess.PIPE, "stdout": theirs, "stderr": theirs, **extra}
    process = subprocess.Popen(words, env=env, close_fds=True, cwd=ROOT, **streams)
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
        until(process, written.decode(errors="replace"))
    os.close(ours)
    process.wait(60)
    return written.decode(), process


def lines(written: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", OURS.sub("", written)) if line.strip()]


@pytest.mark.parametrize("columns", [80, 120])
def test_it_tells_probe_stage_and_time_left_and_the_matrix_fills(columns: int) -> None:
    written, process = on_terminal(columns)
    found = lines(written)
    assert process.returncode == 0, written
    assert max(map(cells, found)) <= columns
    assert any(re.fullmatch(r"storage, 1 of 2: \d+ s of 40 s; about .* left", line) for line in found)
    assert "  sequential read: 1.2 GB/s" in found
    measured = [at for at, line in enumerate(found) if re.match(r" +measured +needed +train", line)]
    assert measured and not any(line.startswith("  storage write") for line in found[: measured[0]])
    assert re.match(r"  storage write +2\.52 GB/s .*ok", found[measured[0] + 3 if columns == 120 else measured[0] + 5])
    assert any(line.startswith("  failed: x: red<script>") for line in found)
    assert written.endswith("\x1b[2K") or not lines(written.rpartition("\x1b[2K")[2]), "at the end it is gone"


def test_where_it_is_narrow_the_time_left_stands_on_a_line_of_its_own() -> None:
    """It was cut to three dots, and it is what people look for."""
    written, process = on_terminal(40)
    found = lines(written)
    assert process.returncode == 0 and max(map(cells, found)) <= 40
    begun = next(at for at, line in enumerate(found) if line.startswith("storage, 1 of 2: "))
    assert re.search(r"about [\dmins ]+ left$", " ".join(found[begun : begun + 2]))


def test_hostile_text_cannot_reach_the_terminal_as_control_codes() -> None:
    rest = OURS.sub("", on_terminal(100)[0])
    assert not [c for c in rest if ord(c) < 32 and c not in "\r\n"]
    assert not [c for c in rest if 127 <= ord(c) < 160 or c in "\u202e"]
    assert "title" not in rest, "what an escape sequence carried is gone with it"


def test_no_color_has_none() -> None:
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", on_terminal(80, env={"NO_COLOR": "1"})[0])


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGKILL"])
def test_no_signal_leaves_a_terminal_without_its_cursor(name: str) -> None:
    """Not even one that no program sees: the cursor is never hidden for longer than it takes to start."""
    sent: list[str] = []
    seen = stepwise()

    def end(process: Process, written: str) -> None:
        if "sequential read" not in written:
            seen(process, written)
        elif not sent:
            sent.append(name)
            process.send_signal(signal.Signals[name])

    written, process = on_terminal(80, until=end)
    assert sent and process.returncode != 0
    assert re.findall(r"\x1b\[\?25([lh])", written)[-1:] == ["h"]


def test_without_a_terminal_there_is_a_line_a_probe() -> None:
    done = subprocess.run(
        WORDS, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    first, second = done.stderr.splitlines()
    assert done.stdout == ""
    assert first.startswith("storage: ") and " figures in " in first
    assert second.startswith("inference: failed: x: red<script>")
    assert "\x1b" not in done.stderr


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words that measure a recorded run again, with no hardware."""
    folder = tmp_path_factory.mktemp("recorded") / "runs" / "node-17"
    folder.mkdir(parents=True)
    with tarfile.open(ROOT / "tests/recorded/runs/feed.raw.tar.xz") as archive:
        archive.extractall(folder, filter="data")
        raw = folder / archive.getnames()[0]
    document = ROOT / "tests/recorded/runs/feed.json"
    raw.with_suffix(".json").write_bytes(document.read_bytes())
    return [sys.executable, "-m", "bench", "run", "--replay", str(raw), "--results", str(folder.parents[1] / "new")]


def test_json_is_one_document_and_the_view_stays_off_standard_output(replayed: list[str], tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        written, process = on_terminal(100, [*replayed, "--json"], stdout=out)
    assert process.returncode == 1, written
    assert json.loads((tmp_path / "out").read_text())["request"]["effort"] == "quick"
    assert "?25h" in written, "the view was there"


def test_quiet_shows_no_view(replayed: list[str], tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        written, process = on_terminal(100, [*replayed, "--quiet"], stdout=out)
    assert (process.returncode, written) == (1, "")
    assert len((tmp_path / "out").read_text().splitlines()) == 3


def test_a_run_on_a_terminal_ends_with_its_screen(replayed: list[str]) -> None:
    written, process = on_terminal(100, replayed)
    assert process.returncode == 1
    assert lines(written)[-1].endswith(" more notes: --all-gates") and "Next" in lines(written)


def test_a_further_round_that_is_skipped_takes_nothing_out_of_the_matrix() -> None:
    shown: list[list[Outcome]] = []

    def so_far(results: Sequence[ProbeResult]) -> Matrix:
        shown.append([result.outcome for result in results])
        return Matrix(no_gpu())

    view = _Measuring({"storage": 1.0}, so_far)
    good = next(result for result in no_gpu().results if result.probe == "storage")
    busy = ProbeResult(probe="storage", outcome=Outcome.SKIPPED, reason="contended: others")
    for ended in (good, busy):
        view(Progress("storage", "", 1.0, ended))
        view.render(Console(file=io.StringIO(), width=80))
    assert shown == [[Outcome.OK], [Outcome.OK]]
