"""Peers that are absent, refuse, hang, talk garbage or vanish: one clear line, in time, and nothing left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.network.testbed import Net, bench_run, name_of

GARBAGE_SERVER = """
import socket, sys
s = socket.create_server((sys.argv[1], 5201))
print("ready", flush=True)
kept = []
while True:
    c, _ = s.accept()
    kept.append(c)
    if sys.argv[2] == "page": c.sendall(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n<html>" + b"x" * 9000)
    if sys.argv[2] == "turncoat": c.sendall(b'aiready-bench-peer/1 {"nonce": "1"}\\n[[[[[\\n')
    if sys.argv[2] == "liar": c.recv(37); c.sendall(b"\\x09\\x00\\xff\\xff{garbage" * 50)
    if sys.argv[2] == "closer": c.close()
"""


def running(host: str) -> list[str]:
    """The command lines of what runs in a host."""
    listed = subprocess.run(["ip", "netns", "pids", name_of(host)], capture_output=True, text=True, check=True)
    found = []
    for pid in listed.stdout.split():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if words.strip():
            found.append(words)
    return found


def wait_for(host: str, word: str, wanted: bool, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while any(word in line for line in running(host)) != wanted:
        assert time.monotonic() < end, running(host)
        time.sleep(0.05)


def result(document: dict[str, Any]) -> tuple[str, str]:
    (one,) = (r for r in document["results"] if r["probe"] == "network")
    assert "\n" not in one["reason"]
    assert document["status"] == 3, document["stderr"]
    assert running("a") == []
    return one["outcome"], one["reason"]


def test_absent(cable: Net) -> None:
    started = time.monotonic()
    outcome, reason = result(bench_run(cable, "a", "--effort", "quick", "--peer", "10.98.0.77"))
    assert outcome in ("failed", "timed_out")
    assert reason.startswith(("peer_unreachable: 10.98.0.77", "peer_timed_out: 10.98.0.77"))
    assert time.monotonic() - started < 20


def test_no_such_name(cable: Net) -> None:
    outcome, reason = result(bench_run(cable, "a", "--effort", "quick", "--peer", "no-such-host.invalid"))
    assert (outcome, reason.partition(":")[0]) == ("failed", "peer_unknown")


def test_refuses(cable: Net) -> None:
    document = bench_run(cable, "a", "--effort", "quick", "--peer", "10.98.0.2:5299")
    outcome, reason = result(document)
    assert outcome == "failed"
    assert reason == "peer_refused: nothing listens at 10.98.0.2 port 5299"
    (remedy,) = (r["remedy"] for r in document["results"] if r["probe"] == "network")
    assert "bench peer" in remedy


@pytest.mark.parametrize("kind", ["page", "turncoat", "closer"])
def test_talks_garbage(cable: Net, kind: str) -> None:
    cable.start(cable.command("b", sys.executable, "-c", GARBAGE_SERVER, "10.98.0.2", kind), "ready")
    outcome, reason = result(bench_run(cable, "a", "--effort", "quick", "--peer", "10.98.0.2"))
    assert outcome == "failed"
    assert reason.startswith(("peer_garbage: ", "peer_gone: "))


def test_lies_to_iperf3(cable: Net) -> None:
    cable.start(cable.command("b", sys.executable, "-c", GARBAGE_SERVER, "10.98.0.2", "liar"), "ready")
    outcome, reason = result(bench_run(cable, "a", "--effort", "quick", "--peer", "10.98.0.2"))
    assert outcome in ("failed", "timed_out")
    assert "10.98.0.2" in reason


def test_never_says_a_word(cable: Net) -> None:
    """It accepts, and that is all: like an idle iperf3 server, until iperf3 itself waits in vain."""
    cable.start(cable.command("b", sys.executable, "-c", GARBAGE_SERVER, "10.98.0.2", "silent"), "ready")
    outcome, reason = result(bench_run(cable, "a", "--effort", "quick", "--peer", "10.98.0.2"))
    assert outcome == "timed_out"
    assert reason.startswith("peer_timed_out: 10.98.0.2")


def test_hangs_in_the_middle(cable: Net) -> None:
    server = cable.start(cable.command("b", "iperf3", "-s"))
    run = _start_run(cable)
    wait_for("a", "iperf3 -c", True)
    time.sleep(0.7)
    server.send_signal(signal.SIGSTOP)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 3
    assert '"timed_out"' in out and "stopped answering in the middle" in out
    assert running("a") == []


def test_vanishes_in_the_middle(cable: Net) -> None:
    peer = cable.peer("b", "10.98.0.2")
    run = _start_run(cable)
    wait_for("a", "iperf3 -c", True)
    time.sleep(0.7)
    peer.kill()
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 3
    assert '"outcome":"ok","reason":null,"remedy":null,"duration' not in out
    assert "peer_" in out
    assert running("a") == []
    wait_for("b", "iperf3", False, 5)  # the peer's servers died with it


def test_a_client_that_dies_leaves_nothing_at_the_peer(cable: Net) -> None:
    peer = cable.peer("b", "10.98.0.2")
    run = _start_run(cable)
    wait_for("a", "probes.loads.echo ", True)
    run.kill()
    run.communicate()
    wait_for("a", "iperf3", False, 5)
    wait_for("b", "iperf3", False, 5)
    assert peer.poll() is None
    assert len(running("b")) == 1


def test_sigterm_ends_both_sides(cable: Net) -> None:
    peer = cable.peer("b", "10.98.0.2")
    run = _start_run(cable)
    wait_for("a", "probes.loads.echo ", True)
    os.kill(_bench_pid(run), signal.SIGTERM)
    run.communicate(timeout=20)
    assert run.returncode == 143
    assert running("a") == []
    wait_for("b", "iperf3", False, 5)
    peer.terminate()
    assert peer.wait(5) == 0


def test_busy_server_is_waited_for(cable: Net) -> None:
    cable.start(cable.command("b", "iperf3", "-s"))
    time.sleep(0.3)
    other = cable.start(cable.command("a", "iperf3", "-c", "10.98.0.2", "-t", "6"))
    time.sleep(0.3)
    run = _start_run(cable)
    wait_for("a", "iperf3 -c 10.98.0.2 -p", True)
    assert other.wait(20) == 0
    time.sleep(4)
    os.kill(_bench_pid(run), signal.SIGTERM)
    run.communicate(timeout=20)
    answers = [file.read_text() for file in sorted(cable.folder.rglob("*tcp-*.json"))]
    assert "the server is busy" in answers[0]
    assert '"sum_received"' in answers[-1] or '"sum_received"' in answers[-2]


def _start_run(net: Net) -> subprocess.Popen[str]:
    return net.start(
        net.python("a", "bench", "run", "--probe", "network", "--effort", "quick", "--peer", "10.98.0.2", "--json",
                   "--results", str(net.folder))
    )  # fmt: skip


def _bench_pid(run: subprocess.Popen[str]) -> int:
    """`ip netns exec` becomes the program, so it is the same process."""
    return run.pid


def test_the_port_range_is_said_when_it_is_taken(cable: Net) -> None:
    """Control port taken: status 2, one line, the address in it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "bench", "peer", "--bind", "127.0.0.1", "--port", str(port)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and f"127.0.0.1 port {port}" in done.stderr
