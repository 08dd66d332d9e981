"""The transports' parts without hosts: which hosts, the frame of a script, what a hostile or dying program says."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.fleet.plan import HostVars, load
from bench.fleet.transport import connect
from bench.fleet.transport.base import Replies, Reply, ReplyKind
from bench.fleet.transport.child import END, RUN, Child, ended, limited
from bench.fleet.transport.ray import Ray
from bench.fleet.transport.slurm import Slurm, _Step
from tests.fleet.drive import plan_of

NAMES = ["gpu-1", "gpu-2", "gpu-10", "head"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("all", NAMES),
        ("gpu-2", ["gpu-2"]),
        ("head, gpu-1", ["gpu-1", "head"]),
        ("gpu-*,!gpu-1", ["gpu-2", "gpu-10"]),
        ("!head,gpu-1", ["gpu-1"]),
        ("!head", ["gpu-1", "gpu-2", "gpu-10"]),
        ("gpu-[12]", ["gpu-1", "gpu-2"]),
    ],
)
def test_limit_takes_names_and_patterns_and_leaves_out(pattern: str, expected: list[str]) -> None:
    assert limited(NAMES, pattern) == expected


@pytest.mark.parametrize("pattern", ["gpu-3", "gpu-1,!gpu-9", "x*"])
def test_a_word_of_limit_that_fits_no_host_is_refused(pattern: str) -> None:
    with pytest.raises(UserError, match="fits none of the 4 hosts"):
        limited(NAMES, pattern)


def test_a_plan_says_its_transport_and_one_of_before_is_ansibles(tmp_path: Path) -> None:
    plan_of(tmp_path, {"a": HostVars("a")}, {}, "ray", "10.0.0.1:6379").save(tmp_path)
    assert (load(tmp_path).transport, load(tmp_path).inventory) == ("ray", ("10.0.0.1:6379",))
    entries = json.loads((tmp_path / "plan.json").read_text())
    del entries["transport"]
    (tmp_path / "plan.json").write_text(json.dumps(entries))
    assert load(tmp_path).transport == "ansible"


@pytest.mark.parametrize(
    ("kind", "where", "words"),
    [
        ("pigeon", [], "this version has ansible, slurm and ray"),
        ("slurm", [], "salloc"),
        ("ray", [], "this version has"),
        ("ray", ["no address"], "--ray no address: ValueError"),
    ],
)
def test_what_cannot_be_connected_to_is_said_in_one_line(
    kind: str, where: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError) as caught:
        connect(kind, where).hosts()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_without_ray_one_line_says_what_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no module here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no module here; pip install 'aiready-bench\[ray\]'"):
        Ray("auto").hosts()


# --- the frame of a script


def framed(script: str, limit: float = 20, stdin: str = "") -> Reply:
    """What the controller makes of a script that runs in the frame."""
    env = {**os.environ, "script": script, "limit": f"{limit:g}"}
    done = subprocess.run(
        ["sh", "-c", RUN], env=env, input=stdin, capture_output=True, text=True, timeout=60, check=True
    )
    *lines, last = done.stdout.splitlines()
    assert last.startswith(END)
    replies = Replies(["h"], lambda _: None)
    ended(replies, "h", lines, last)
    return replies.given["h"]


def test_a_script_comes_back_with_its_status_its_output_and_its_last_complaint() -> None:
    found = framed("cat; echo out; echo first >&2; echo last >&2; exit 7", stdin="in ")
    assert (found.kind, found.rc, found.stdout, found.detail) == (ReplyKind.DONE, 7, "in out\n", "last")
    assert framed("printf 'no newline \\377'").stdout == "no newline \ufffd"


def test_a_flood_is_bounded_and_a_hang_ends_at_the_limit_with_its_group() -> None:
    assert len(framed("head -c 20000000 /dev/zero").stdout) == 8 << 20
    began = time.monotonic()
    assert framed("sleep 1234.5 & sleep 1234.5", limit=1).kind is ReplyKind.LATE
    assert time.monotonic() - began < 60
    assert subprocess.run(["pgrep", "-f", "sleep 1234.5"], check=False, stdout=subprocess.PIPE).returncode == 1


def test_a_server_that_is_left_holds_the_frame_open_until_it_ends() -> None:
    """Slurm ends all of a step with its tasks, so the task must last as long as the server."""
    env = {**os.environ, "script": "setsid sleep 2 >/dev/null 2>&1 </dev/null & echo up", "limit": "20"}
    process = subprocess.Popen(["sh", "-c", RUN], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert base64.b64decode(lines[0]) == b"up\n" and lines[1].startswith(f"{END} 0")
    assert process.poll() is None, "the frame ended before the server"
    assert process.wait(30) == 0


@pytest.mark.parametrize("last", [f"{END}", f"{END} x", f"{END} 99999 ====", f"{END} -1"])
def test_an_end_that_is_none_of_ours_is_no_success(last: str) -> None:
    replies = Replies(["h"], lambda _: None)
    ended(replies, "h", ["not base64!"], last)
    assert replies.given["h"].rc == 255 and replies.given["h"].stdout == ""


def test_the_first_reply_of_a_host_counts_and_a_stranger_has_none() -> None:
    heard: list[Reply] = []
    replies = Replies(["a", "b"], heard.append)
    replies.give("a", ReplyKind.UNREACHABLE, "first")
    replies.give("a", ReplyKind.DONE, "second", 0)
    replies.give("stranger", ReplyKind.DONE, "", 0)
    assert [reply.detail for reply in heard] == ["first"] and list(replies.waiting) == ["b"]


# --- a program that is followed


def test_a_program_takes_more_than_a_pipe_holds_and_one_that_ends_early_harms_nobody() -> None:
    child = Child(["sh", "-c", "wc -c"], {})
    child.send(b"x" * 5_000_000, last=True)
    end = time.monotonic() + 30
    while child.is_running() and time.monotonic() < end:
        time.sleep(0.02)
    assert child.out.lines() == ["5000000"]
    child.close()
    early = Child(["true"], {})
    while early.is_running():
        time.sleep(0.02)
    early.send(b"x" * 5_000_000, last=True)
    assert not early.is_running() and early.out.lines() == []
    early.close()


def step_that_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, err: str = "") -> tuple[_Step, Replies]:
    """A step of which ``srun`` is a script that prints this."""
    (tmp_path / "out").write_text(out)
    (tmp_path / "err").write_text(err)
    (tmp_path / "srun").write_text(f"#!/bin/sh\ncat {tmp_path}/out; cat {tmp_path}/err >&2; exit 1\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    step, replies = _Step("1", ["a", "b"]), Replies(["a", "b"], lambda _: None)
    while step.child.is_running():
        time.sleep(0.02)
    step.read(replies)
    return step, replies


def test_a_task_speaks_only_for_its_own_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = base64.b64encode(b"of a").decode()
    out = f"0: AIREADY-HERE\n 1: AIREADY-HERE\n7: AIREADY-HERE\nnoise\n1: 0: AIREADY-EXIT 0\n0: {text}\n0: {END} 0\n"
    step, replies = step_that_says(tmp_path, monkeypatch, out)
    assert step.here == {0, 1}
    assert list(replies.given) == ["a"] and replies.given["a"].stdout == "of a"


def test_what_srun_says_of_a_node_is_its_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    err = (
        "srun: error: Task launch for StepId=1.8 failed on node b: Communication connection failure\n"
        "srun: error: Node failure on a\nsrun: Job step aborted\n"
    )
    step, replies = step_that_says(tmp_path, monkeypatch, "", err)
    assert list(step.unlaunched) == ["b"] and "Communication connection failure" in step.unlaunched["b"]
    assert replies.given["a"].kind is ReplyKind.UNREACHABLE and "Node failure on a" in replies.given["a"].detail


@pytest.mark.parametrize(
    ("state", "err", "words"),
    [
        ("COMPLETING", "", "allocation 1 is COMPLETING"),
        (
            "RUNNING",
            "srun: error: Unable to create step for job 1: Job/step already completing",
            "Unable to create step",
        ),
    ],
)
def test_an_allocation_that_is_over_is_said_in_one_line(
    state: str, err: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scontrol").write_text(
        f'#!/bin/sh\ncase "$*" in *job*) echo JobId=1 JobState={state} NodeList=a ;; *names*) echo a ;;\n'
        "*) echo NodeName=a State=ALLOCATED ;; esac\n"
    )
    (tmp_path / "scontrol").chmod(0o755)
    step_that_says(tmp_path, monkeypatch, "", err + "\n")
    with pytest.raises(UserError, match=words) as caught:
        Slurm(job="1").each({"a": "true"}, 5)
    assert "\n" not in str(caught.value)


def test_rays_client_is_another_process() -> None:
    """Nothing of Ray is loaded where the fleet run is controlled."""
    code = "import sys, bench.fleet.transport.ray, bench.fleet.transport.slurm; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
