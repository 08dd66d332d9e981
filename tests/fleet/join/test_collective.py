"""Several ranks a node: one outcome a host, the straggler by host and GPU, all of them ended together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bench.fleet.join.folder import collective_in, trouble_of_line
from bench.judge.fleet.model import Collective, State
from bench.show.terminal.fleet_screen import collective_line

HOSTS = ["n1", "n2", "n3"]


def line(waits: list[float], world: int = 6, backend: str = "nccl", **changes: Any) -> dict[str, Any]:
    own = [{"local": i, "seconds": 0.1, "wait_seconds": wait} for i, wait in enumerate(waits)]
    return {"world": world, "backend": backend, "message_bytes": 1000, "seconds": 0.1, "wait_seconds": min(waits),
            "ranks": own, **changes}  # fmt: skip


def read(folder: Path, lines: dict[str, Any]) -> Collective:
    place = folder / "collective"
    place.mkdir(exist_ok=True)
    (place / "ranks.json").write_text(json.dumps({"hosts": HOSTS}))
    for host, entry in lines.items():
        (place / f"{host}.json").write_text(json.dumps(entry))
    found = collective_in(folder, HOSTS, {})
    assert found is not None
    return found


def test_bus_bandwidth_is_that_of_all_ranks_and_a_host_is_one_outcome(tmp_path: Path) -> None:
    found = read(tmp_path, {host: line([0.05, 0.05]) for host in HOSTS})
    assert (found.state, found.world, found.ranks) == (State.PASS, 6, tuple(HOSTS))
    assert found.bus_bytes_per_second == pytest.approx(1000 / 0.1 * 2 * 5 / 6)
    assert [row[0] for row in found.rows] == HOSTS and found.straggler is None
    assert "6 ranks of 3 nodes" in collective_line(found)


@pytest.mark.parametrize(
    ("waits", "backend", "straggler"),
    [
        ([0.05, 0.01], "nccl", "n2 GPU 1"),
        ([0.01, 0.05], "gloo", "n2 rank 0"),
        ([0.01, 0.02], "nccl", "n2"),
        ([0.045, 0.05], "nccl", None),
    ],
)
def test_the_straggler_is_a_gpu_or_the_node_when_all_of_it_is_late(
    waits: list[float], backend: str, straggler: str | None, tmp_path: Path
) -> None:
    lines = {host: line(waits if host == "n2" else [0.05, 0.05], backend=backend) for host in HOSTS}
    assert read(tmp_path, lines).straggler == straggler


def test_nodes_that_are_not_alike_and_nodes_of_one_rank(tmp_path: Path) -> None:
    lines = {"n1": line([0.05] * 4, 6), "n2": line([0.05], 6), "n3": line([0.001], 6)}
    assert read(tmp_path, lines).straggler == "n3"


def test_lines_that_are_not_of_one_collective_give_no_figure(tmp_path: Path) -> None:
    found = read(tmp_path, {host: line([0.05, 0.05], 8) for host in HOSTS})
    assert (found.state, found.bus_bytes_per_second) == (State.BAD_RESULT, None)
    other = {host: line([0.05, 0.05], message_bytes=9 if host == "n1" else 10) for host in HOSTS}
    assert read(tmp_path, other).state is State.BAD_RESULT


@pytest.mark.parametrize(
    "changes",
    [{"ranks": 3}, {"ranks": [1]}, {"ranks": [{"seconds": 0.1}]}, {"ranks": [{"seconds": 0, "wait_seconds": 1}]},
     {"ranks": [{}] * 2000}, {"world": "6"}, {"world": -1}, {"seconds": True}, {"message_bytes": None}],
)  # fmt: skip
def test_a_hostile_line_is_refused(changes: dict[str, Any]) -> None:
    assert (trouble_of_line(line([0.05], **changes) | changes) or "").startswith("bad_result: ")
    assert trouble_of_line(line([0.05, 0.06])) is None and trouble_of_line([]) is not None


# --- the ranks themselves, two on this machine's CPU


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def begin(port: int, folder: Path, *words: str) -> subprocess.Popen[str]:
    """``folder``: where torch leaves a file for each rank that is killed."""
    argv = [sys.executable, "-m", "probes.collective.load.rank", "--world", "1", "--rank", "0",
            "--address", "127.0.0.1",
            "--master", "127.0.0.1", "--port", str(port), "--device", "cpu", "--bytes", "4096", *words]  # fmt: skip
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "TMPDIR": str(folder)})  # fmt: skip


def ranks_of(parent: int) -> list[int]:
    """The ranks' processes, once they compute: torch's threads are there."""
    argv = ["pgrep", "-P", str(parent), "-f", "spawn_main"]
    found = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return [int(pid) for pid in found.stdout.split() if len(os.listdir(f"/proc/{pid}/task")) > 3]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the one that began them", "one of them"])
def test_no_rank_outlives_the_others(port: int, whom: str, tmp_path: Path) -> None:
    process = begin(port, tmp_path, "--ranks", "2", "--iterations", "10000000")
    try:
        end = time.monotonic() + 150
        while len(ranks := ranks_of(process.pid)) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        assert len(ranks) == 2
        os.kill(process.pid if whom == "the one that began them" else ranks[1], signal.SIGKILL)
        process.wait(60)
        assert process.returncode != 0
        while not all(map(gone, ranks)) and time.monotonic() < end + 10:
            time.sleep(0.1)
        assert all(map(gone, ranks))
    finally:
        process.kill()
        process.communicate(timeout=60)
        for pid in ranks_of(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_gpus_that_are_not_there_are_one_line(port: int, tmp_path: Path) -> None:
    process = begin(port, tmp_path, "--device", "cuda", "--ranks", "64")
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "64 ranks on GPUs" in errors and len(errors.strip().splitlines()) == 1
