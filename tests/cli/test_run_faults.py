"""``bench run`` when things go wrong: the status of the contract, one clear line, finished work stored, none left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.measure.workspace import PREFIX
from tests.cli.bench import bench
from tests.cli.marked import descendants_marked, gone, start, wait_for_child

pytestmark = pytest.mark.slow

MEASURING = ("storage", "network", "inference", "feed")


def the_run(results: Path) -> dict[str, Any]:
    (path,) = results.glob("runs/*/*.json")
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def outcome(document: dict[str, Any], probe: str) -> tuple[str, str]:
    result = next(r for r in document["results"] if r["probe"] == probe)
    return result["outcome"], result["reason"] or ""


CHILD = {"storage": "fio", "network": "iperf3", "inference": "probes.inference.load", "feed": "probes.feed.load"}


SIGNALS = (signal.SIGINT, signal.SIGTERM)


def folders(tmp_path: Path) -> dict[signal.Signals, Path]:
    """A results folder for each signal, so that both runs can be made at once."""
    found = {sig: tmp_path / sig.name for sig in SIGNALS}
    for folder in found.values():
        folder.mkdir()
    return found


@pytest.mark.parametrize("probe", MEASURING)
def test_a_signal_in_each_probe(tmp_path: Path, probe: str) -> None:
    marks = {sig: f"m{os.getpid()}-{sig.name}-{tmp_path.name}" for sig in SIGNALS}
    places = folders(tmp_path)
    words = ("--probe", probe, "--probe", "host", "--effort", "quick")
    runs = {sig: start(places[sig], marks[sig], *words) for sig in SIGNALS}
    for sig in SIGNALS:
        wait_for_child(marks[sig], CHILD[probe])
        runs[sig].send_signal(sig)
    for sig in SIGNALS:
        out, err = runs[sig].communicate(timeout=90)
        assert runs[sig].returncode == 128 + sig, err
        document = the_run(places[sig])
        assert document["interrupted_by"] == sig
        assert outcome(document, probe) == ("failed", f"interrupted: {sig.name}")
        assert outcome(document, "host")[0] == "ok"
        assert document["verdicts"]
        assert "Traceback" not in out + err
        assert gone(marks[sig])
        assert not list(places[sig].glob(f"{PREFIX}*"))


def test_sudden_death_leaves_no_process_and_no_lock(results: Path) -> None:
    mark = f"k{os.getpid()}-{results.parent.name}"
    run = start(results, mark, "--probe", "storage", "--effort", "quick")
    wait_for_child(mark, "fio")
    run.kill()
    run.communicate()
    assert gone(mark)
    assert list(results.glob(f"{PREFIX}*"))
    again = bench(
        "run", "--probe", "host", "--results", results, "--effort", "quick", "--exit-zero", cwd=results,
        env={"BENCH_LOCK": f"{results}.lock"},
    )  # fmt: skip
    assert "another run" not in again.stderr
    swept = start(results, mark, "--probe", "storage", "--effort", "quick")
    wait_for_child(mark, "fio")
    swept.send_signal(signal.SIGINT)
    swept.communicate(timeout=90)
    assert not list(results.glob(f"{PREFIX}*"))


def test_a_second_run_is_turned_away(results: Path) -> None:
    mark = f"s{os.getpid()}-{results.parent.name}"
    first = start(results, mark, "--probe", "storage", "--effort", "quick")
    try:
        wait_for_child(mark, "fio")
        lock = {"BENCH_LOCK": f"{results}.lock"}
        second = bench("run", "--probe", "storage", "--results", results, cwd=results, env=lock)
        assert second.returncode == 3
        assert f"process {first.pid}" in second.stderr
        assert second.stderr.count("\n") == 1
    finally:
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=90)
    assert len(list(results.glob("runs/*/*.json"))) == 1


@pytest.mark.parametrize(("probe", "tool"), [("storage", "fio"), ("network", "iperf3")])
def test_an_absent_tool(results: Path, tmp_path: Path, probe: str, tool: str) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("env", "sh", "apt-get"):
        (path / name).symlink_to(f"/usr/bin/{name}")
    done = bench(
        "run", "--probe", probe, "--effort", "quick", "--results", results, cwd=results, env={"PATH": str(path)}
    )
    assert done.returncode == 3, done.stderr
    what, why = outcome(the_run(results), probe)
    assert what == "unsupported"
    assert why.startswith("tool_missing: ")
    assert tool in why
    assert f"apt-get install -y {tool}" in done.stdout


def test_a_torch_that_cannot_be_imported(results: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: cannot open shared object file')\n")
    done = bench(
        "run", "--probe", "inference", "--effort", "quick", "--results", results, cwd=results,
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    what, why = outcome(the_run(results), "inference")
    assert what in ("unsupported", "failed")
    assert "torch" in why
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.root
@pytest.mark.parametrize("probe", ["storage", "feed"])
def test_a_read_only_directory(results: Path, tmp_path: Path, probe: str) -> None:
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    subprocess.run(["mount", "--bind", sealed, sealed], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", sealed], check=True)
        done = bench(
            "run", "--probe", probe, "--effort", "quick", "--accelerator", "emulated:resnet50-h100",
            "--results", results, "--storage", sealed, cwd=results,
        )  # fmt: skip
    finally:
        subprocess.run(["umount", sealed], check=True)
    assert done.returncode == 3
    what, why = outcome(the_run(results), probe)
    assert (what, why.partition(":")[0]) == ("unsupported", "read_only")
    assert str(sealed) in why


@pytest.mark.parametrize("place", ["/proc", "/sys"])
def test_results_that_cannot_be_stored_are_known_before_measuring(results: Path, place: str) -> None:
    done = bench("run", "--results", place, cwd=results)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, "what is measured is said, a line each"
    assert place in done.stderr


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """A TCP server that accepts and then says ``answer``, or nothing at all."""
    server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            held.append(connection)
            if answer is not None:
                connection.sendall(answer)
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()
        for connection in held:
            connection.close()


def against(results: Path, port: int, mark: str) -> subprocess.Popen[str]:
    return start(results, mark, "--probe", "network", "--effort", "quick", "--peer", f"127.0.0.1:{port}")


@pytest.fixture(scope="module", autouse=True)
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, subprocess.Popen[str]]]:
    """A run against a peer that accepts and says nothing: it mostly waits, so it does that beside the other tests."""
    results, mark = tmp_path_factory.mktemp("hanging"), f"h{os.getpid()}"
    with listener(None) as port:
        run = against(results, port, mark)
        try:
            yield results, mark, run
        finally:
            run.kill()
            run.communicate()


def ended_well(results: Path, mark: str, run: subprocess.Popen[str]) -> None:
    _, err = run.communicate(timeout=200)
    assert run.returncode == 3, err
    what, why = outcome(the_run(results), "network")
    assert what in ("failed", "timed_out")
    assert "127.0.0.1" in why
    assert gone(mark)


def test_a_peer_that_talks_garbage(results: Path) -> None:
    mark = f"p{os.getpid()}-{results.parent.name}"
    with listener(b"\x00\xffHTTP/1.1 400 Bad Request\r\n\r\n" * 20) as port:
        ended_well(results, mark, against(results, port, mark))


def test_a_peer_that_refuses(results: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    mark = f"r{os.getpid()}-{results.parent.name}"
    ended_well(results, mark, against(results, port, mark))
    assert outcome(the_run(results), "network")[0] == "failed"


@pytest.mark.parametrize("wait", [0.3, 0.6, 1.0])
def test_a_signal_before_anything_is_measured(tmp_path: Path, wait: float) -> None:
    marks = {sig: f"e{os.getpid()}-{sig.name}-{tmp_path.name}" for sig in SIGNALS}
    places = folders(tmp_path)
    runs = {sig: start(places[sig], marks[sig], "--probe", "storage", "--effort", "quick") for sig in SIGNALS}
    end = time.monotonic() + 90
    while not all(map(descendants_marked, marks.values())) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(wait)
    for sig in SIGNALS:
        runs[sig].send_signal(sig)
    for sig in SIGNALS:
        _, err = runs[sig].communicate(timeout=90)
        # Before Python itself has come so far, the kernel ends it: -2, which a shell shows as 130 too.
        assert runs[sig].returncode in (128 + sig, -sig), err
        assert gone(marks[sig])
        assert not list(places[sig].glob(f"{PREFIX}*"))


def test_a_peer_that_hangs(hanging: tuple[Path, str, subprocess.Popen[str]]) -> None:
    ended_well(*hanging)
    assert outcome(the_run(hanging[0]), "network")[0] == "timed_out"
