"""Peers that are absent, refuse, hang, talk garbage or vanish: one clear line, in time, and nothing left running."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.probes.network.conftest import needed
from tests.probes.network.testbed import Net, name_of, network

pytestmark = pytest.mark.slow

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


#: So many bytes have been sent when iperf3 is in the middle of a measurement.
MIDDLE = 1_000_000


def slow(net: Net, *hosts: str) -> None:
    """No figure matters here, and a cable without a limit takes all of the machine's time."""
    for host in hosts:
        net.shape(host, 50e6, 0.05)


@pytest.fixture
def cable(cable: Net) -> Net:
    slow(cable, "a", "b")
    return cable


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


def wait_for(host: str, word: str, wanted: bool, seconds: float = 45.0) -> None:
    end = time.monotonic() + seconds
    while any(word in line for line in running(host)) != wanted:
        assert time.monotonic() < end, running(host)
        time.sleep(0.05)


# --- peers that are of no use: each on a cable of its own, four at a time, because they mostly wait


@dataclass(frozen=True)
class Ended:
    """A run that came to its end; ``left``: what runs on its host after it."""

    status: int
    result: dict[str, Any]
    left: list[str]

    @property
    def outcome(self) -> str:
        return str(self.result["outcome"])

    @property
    def reason(self) -> str:
        return str(self.result["reason"])


Run = subprocess.Popen[str]
#: Given the network and its two hosts, starts the run and does to its peer what the case is about.
Act = Callable[[Net, str, str], Run]


def no_peer(peer: str) -> Act:
    return lambda net, a, b: start_run(net, a, peer)


def garbage(kind: str) -> Act:
    def act(net: Net, a: str, b: str) -> Run:
        net.start(net.command(b, sys.executable, "-c", GARBAGE_SERVER, "10.98.0.2", kind), "ready")
        return start_run(net, a)

    return act


def hangs(net: Net, a: str, b: str) -> Run:
    server = net.iperf3_server(b)
    run = start_run(net, a)
    net.wait_until_sent(a, MIDDLE)
    server.send_signal(signal.SIGSTOP)
    return run


def vanishes(net: Net, a: str, b: str) -> Run:
    peer = net.peer(b, "10.98.0.2")
    run = start_run(net, a)
    net.wait_until_sent(a, MIDDLE)
    peer.kill()
    wait_for(b, "iperf3", False)  # the peer's servers died with it
    return run


CASES: dict[str, Act] = {
    "silent": garbage("silent"), "hangs": hangs, "vanishes": vanishes, "turncoat": garbage("turncoat"),
    "liar": garbage("liar"), "absent": no_peer("10.98.0.77"), "page": garbage("page"), "closer": garbage("closer"),
    "no-name": no_peer("no-such-host.invalid"), "refuses": no_peer("10.98.0.2:5299"),
}  # fmt: skip


def end_of(folder: Path, case: str) -> Ended:
    a, b = f"{case}-a", f"{case}-b"
    with network(folder) as net:
        for host in (a, b):
            net.host(host)
        net.link(a, b)
        slow(net, a, b)
        run = CASES[case](net, a, b)
        out, err = run.communicate(timeout=180)
        assert out.strip(), err
        (result,) = (r for r in json.loads(out)["results"] if r["probe"] == "network")
        return Ended(run.returncode, result, running(a))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    needed()
    folders = [tmp_path_factory.mktemp(case) for case in CASES]
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(CASES, pool.map(end_of, folders, CASES), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_it_is_one_line_inconclusive_and_nothing_runs_on(ended: dict[str, Ended], case: str) -> None:
    got = ended[case]
    assert got.outcome in ("failed", "timed_out")
    assert "\n" not in got.reason and ": " in got.reason
    assert got.status == 3
    assert got.left == []


def test_absent(ended: dict[str, Ended]) -> None:
    got = ended["absent"]
    assert got.reason.startswith(("peer_unreachable: 10.98.0.77", "peer_timed_out: 10.98.0.77"))
    assert got.result["duration_seconds"] < 60


def test_no_such_name(ended: dict[str, Ended]) -> None:
    got = ended["no-name"]
    assert (got.outcome, got.reason.partition(":")[0]) == ("failed", "peer_unknown")


def test_refuses(ended: dict[str, Ended]) -> None:
    got = ended["refuses"]
    assert (got.outcome, got.reason) == ("failed", "peer_refused: nothing listens at 10.98.0.2 port 5299")
    assert "bench peer" in got.result["remedy"]


@pytest.mark.parametrize("kind", ["page", "turncoat", "closer"])
def test_talks_garbage(ended: dict[str, Ended], kind: str) -> None:
    got = ended[kind]
    assert got.outcome == "failed"
    assert got.reason.startswith(("peer_garbage: ", "peer_gone: "))


def test_lies_to_iperf3(ended: dict[str, Ended]) -> None:
    assert "10.98.0.2" in ended["liar"].reason


def test_never_says_a_word(ended: dict[str, Ended]) -> None:
    """It accepts, and that is all: like an idle iperf3 server, until iperf3 itself waits in vain."""
    got = ended["silent"]
    assert got.outcome == "timed_out"
    assert got.reason.startswith("peer_timed_out: 10.98.0.2")


def test_hangs_in_the_middle(ended: dict[str, Ended]) -> None:
    got = ended["hangs"]
    assert got.outcome == "timed_out" and "stopped answering in the middle" in got.reason


def test_vanishes_in_the_middle(ended: dict[str, Ended]) -> None:
    assert ended["vanishes"].reason.startswith("peer_")


# --- the other side of it


def test_a_client_that_dies_leaves_nothing_at_the_peer(cable: Net) -> None:
    peer = cable.peer("b", "10.98.0.2")
    run = start_run(cable)
    wait_for("a", "probes.network.echo_child ", True)
    run.kill()
    run.communicate()
    wait_for("a", "iperf3", False)
    wait_for("b", "iperf3", False)
    assert peer.poll() is None
    assert len(running("b")) == 1


def test_sigterm_ends_both_sides(cable: Net) -> None:
    peer = cable.peer("b", "10.98.0.2")
    run = start_run(cable)
    wait_for("a", "probes.network.echo_child ", True)
    os.kill(_bench_pid(run), signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode == 143
    assert running("a") == []
    wait_for("b", "iperf3", False)
    peer.terminate()
    assert peer.wait(20) == 0


def test_busy_server_is_waited_for(cable: Net) -> None:
    cable.iperf3_server("b")
    other = cable.start(cable.command("a", "iperf3", "-c", "10.98.0.2", "-t", "100"))
    cable.wait_until_sent("a", MIDDLE)
    run = start_run(cable)
    _wait_for_answer(cable, "the server is busy", "the server was busy, and nobody said so")
    other.terminate()
    other.wait(20)
    _wait_for_answer(cable, '"sum_received"', "the server was free, and nothing was measured")
    os.kill(_bench_pid(run), signal.SIGTERM)
    run.communicate(timeout=60)
    assert "the server is busy" in _answers(cable)[0]


def _wait_for_answer(net: Net, text: str, otherwise: str) -> None:
    end = time.monotonic() + 90
    while not any(text in answer for answer in _answers(net)):
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)


def _answers(net: Net) -> list[str]:
    return [file.read_text() for file in sorted(net.folder.rglob("*tcp-*.json"))]


def start_run(net: Net, host: str = "a", peer: str = "10.98.0.2") -> Run:
    words = ("--probe", "network", "--effort", "quick", "--peer", peer, "--json", "--results", str(net.folder))
    return net.start(net.python(host, "bench", "run", *words))


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
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and f"127.0.0.1 port {port}" in done.stderr
