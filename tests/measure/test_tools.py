"""The door to processes, with real processes that misbehave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.measure import tools
from bench.measure.probe import Failed, Interrupted, TimedOut, Unsupported
from bench.measure.processes import end_all
from bench.measure.tools import Signals


def alive(marker: str) -> list[int]:
    """Processes whose command line holds ``marker``, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if marker.encode() in words and state != "Z":
            found.append(int(entry.name))
    return found


def eventually_gone(marker: str, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while alive(marker):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_tool_that_ends_is_returned_whole() -> None:
    done = tools.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_standard_input_reaches_the_tool() -> None:
    assert tools.run(["cat"], timeout=60, stdin="one\ntwo\n").stdout == "one\ntwo\n"


def test_without_input_the_tool_sees_its_end() -> None:
    assert tools.run(["cat"], timeout=60).stdout == ""


def test_lines_are_passed_on_before_the_end() -> None:
    seen: list[float] = []
    tools.run(
        ["sh", "-c", "echo one; sleep 0.5; echo two"], timeout=60, on_line=lambda _: seen.append(time.monotonic())
    )
    assert len(seen) == 2
    assert seen[1] - seen[0] > 0.25


def test_an_absent_tool_says_how_to_get_it() -> None:
    with pytest.raises(Unsupported, match="tool_missing: no-such-tool") as caught:
        tools.run(["no-such-tool"], timeout=1)
    assert "no-such-tool" in (caught.value.remedy or "")


def test_a_file_that_is_no_program_is_a_failure_of_its_own(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    done = tools.run([str(broken)], timeout=60)  # started by setpriv, which then cannot execute it
    assert done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("script", ["sleep 600", "trap '' TERM; while :; do sleep 1; done", "sleep 600 & sleep 600"])
def test_a_tool_that_hangs_is_ended_with_its_tree(script: str, tmp_path: Path) -> None:
    marker = f"hang-{tmp_path.name}"
    started = time.monotonic()
    with pytest.raises(TimedOut, match="did not end within"):
        tools.run(["sh", "-c", f": {marker}; {script}"], timeout=0.5)
    assert time.monotonic() - started < 60, "it waited for what hangs"
    assert eventually_gone(marker)


def test_a_grandchild_in_a_session_of_its_own_is_ended_too(tmp_path: Path) -> None:
    marker = f"escape-{tmp_path.name}"
    with pytest.raises(TimedOut):
        tools.run(["sh", "-c", f"setsid sh -c ': {marker}; sleep 600; :' & sleep 600"], timeout=0.5)
    assert eventually_gone(marker)


def test_a_grandchild_that_holds_the_pipe_does_not_hold_us() -> None:
    started = time.monotonic()
    done = tools.run(["sh", "-c", "sleep 20.125 & echo done"], timeout=15)
    assert done.stdout == "done\n"
    assert time.monotonic() - started < 20, "it waited for the grandchild"
    assert not alive("20.125")


def test_endless_output_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "MAX_OUTPUT_BYTES", 1 << 20)
    with pytest.raises(Failed, match="tool_output"):
        tools.run(["yes"], timeout=20)


def test_what_was_printed_before_a_time_out_is_kept() -> None:
    with pytest.raises(TimedOut) as caught:
        tools.run(["sh", "-c", "echo so far; sleep 600"], timeout=3)
    assert caught.value.completed is not None
    assert caught.value.completed.stdout == "so far\n"


def test_a_signal_ends_the_tool_and_is_told() -> None:
    with Signals() as signals:
        code = f"import os,signal,time; time.sleep(.3); os.kill({os.getpid()}, signal.SIGTERM)"
        killer = subprocess.Popen([sys.executable, "-c", code])
        with pytest.raises(Interrupted) as caught:
            tools.run(["sleep", "600"], timeout=30, signals=signals)
        killer.wait()
    assert caught.value.signum == signal.SIGTERM


def test_the_environment_carries_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    monkeypatch.setenv("BENCH_MARK", "passed")
    printed = tools.run(["env"], timeout=60).stdout
    assert "do-not-tell" not in printed
    assert "BENCH_MARK=passed" in printed


def test_our_own_sudden_death_ends_the_tool() -> None:
    marker_sleep = f"600.{os.getpid()}"
    code = f"from bench.measure import tools; tools.run(['sleep', '{marker_sleep}'], timeout=600)"
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **tools.python_environment()})
    end = time.monotonic() + 10
    while not [pid for pid in alive(marker_sleep) if pid != parent.pid] and time.monotonic() < end:
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert eventually_gone(marker_sleep)


def test_a_server_lives_as_long_as_it_is_needed(tmp_path: Path) -> None:
    marker, seconds = f"server-{tmp_path.name}", f"700.{os.getpid()}"  # told from every other sleep by its length
    with tools.serve(["sh", "-c", f"echo ready {marker}; exec sleep {seconds}"], ready="ready", timeout=60) as line:
        assert line == f"ready {marker}"
        assert alive(f"sleep\x00{seconds}")
    assert not alive(f"sleep\x00{seconds}")


def test_a_server_that_dies_or_stays_silent_is_told_apart() -> None:
    with (
        pytest.raises(Failed, match="cannot bind"),
        tools.serve(["sh", "-c", "echo cannot bind; exit 1"], ready="ready", timeout=60),
    ):
        pass
    with pytest.raises(TimedOut), tools.serve(["sleep", "60"], ready="ready", timeout=0.5):
        pass


def test_ending_a_dead_process_is_quiet() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert end_all([gone.pid]) == []
