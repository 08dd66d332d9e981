"""`bench peer` on loopback: its line, its ends, whom it serves, and what it does with garbage."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from probes.peer.client import NoPeer, connect, greet
from probes.peer.datagram import REPLY, REQUEST, Packet, pack, unpack
from probes.peer.protocol import GREETING, PeerAnswer, is_loopback
from tests.probes.network.testbed import ROOT, environment

pytestmark = pytest.mark.slow

HOST = "127.0.0.1"


def free_port() -> int:
    """A port whose UDP side and whose next ports are likely free too."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1]) % 20000 + 10000


@contextmanager
def peer(*words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "peer", "--bind", HOST, "--port", str(port), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"bench peer: ready on {HOST} port {port}\n"
        yield process, port
    finally:
        process.kill()
        process.communicate()


def lease(port: int, key: bytes = b"") -> tuple[socket.socket, PeerAnswer]:
    sock = connect(HOST, port)
    try:
        return sock, greet(sock, {"op": "lease", "seconds": 30}, key)
    except NoPeer:
        sock.close()
        raise


def ask(port: int, data: bytes, seconds: float = 1.0) -> bytes | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(seconds)
        sock.sendto(data, (HOST, port))
        try:
            return sock.recv(65536)
        except TimeoutError:
            return None


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("sig", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it(sig: signal.Signals, status: int) -> None:
    with peer() as (process, _):
        process.send_signal(sig)
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (status, "")


def test_it_ends_after_idle_time_but_not_while_it_is_needed() -> None:
    with peer("--idle-timeout", "1") as (process, port):
        sock, _ = lease(port)
        time.sleep(1.8)
        assert process.poll() is None
        sock.close()
        assert process.wait(60) == 0


def test_it_binds_only_where_it_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "peer"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "--bind" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--bind", "127.0.0.1", "--allow", "everyone"),
        ("--bind", "127.0.0.1", "--key-file", "/nowhere/key"),
        ("--bind", "127.0.0.1", "--max-rate", "fast"),
        ("--bind", "192.0.2.7",),
        ("--bind", "no-such-host.invalid"),
    ],
)  # fmt: skip
def test_what_it_cannot_use_is_one_line(words: tuple[str, ...]) -> None:
    argv = [sys.executable, "-m", "bench", "peer", "--port", "31999", *words]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


def test_a_session_is_answered_and_nobody_else() -> None:
    with peer() as (_, port):
        sock, answer = lease(port)
        with closing(sock):
            request = pack(Packet(REQUEST, answer.token or 0, 1, 7), 172)
            reply = ask(port, request)
            assert reply is not None and len(reply) == len(request)
            got = unpack(reply, REPLY)
            assert got is not None
            assert (got.sequence, got.requests_seen) == (7, 1)
            assert 0 < got.received_at <= got.sent_at
            assert ask(port, pack(Packet(REQUEST, (answer.token or 0) ^ 2, 1, 8), 172), 0.3) is None
        time.sleep(0.5)
        assert ask(port, request, 0.3) is None, "the session ended with its connection"


def test_the_servers_of_a_lease_end_with_it() -> None:
    with peer() as (process, port):
        sock, answer = lease(port)
        assert answer.iperf3_port in range(port + 1, port + 17)
        end = time.monotonic() + 30
        while not _children(process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert len(_children(process.pid)) == 1
        sock.close()
        while _children(process.pid) and time.monotonic() < end + 30:
            time.sleep(0.05)
        assert _children(process.pid) == []


def _children(pid: int) -> list[int]:
    from bench.measure.processes import descendants

    return descendants(pid)


def test_a_key_is_asked_for_and_checked(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef\n")
    with peer("--key-file", str(key)) as (_, port):
        for wrong, word in ((b"", "key_needed"), (b"another key of some length", "key_refused")):
            with pytest.raises(NoPeer, match=word):
                lease(port, wrong)
        right = key.read_bytes().strip()
        sock, answer = lease(port, right)
        with closing(sock):
            packet = Packet(REQUEST, answer.token or 0, 1, 1)
            assert ask(port, pack(packet, 172), 0.3) is None
            reply = ask(port, pack(packet, 172, right))
            assert reply is not None and unpack(reply, REPLY, right) and not unpack(reply, REPLY, b"x" * 20)


def test_only_the_allowed_are_served() -> None:
    with peer("--allow", "10.0.0.0/8") as (_, port), pytest.raises(NoPeer, match="not_allowed"):
        lease(port)
    with peer("--allow", "10.0.0.0/8", "--allow", "127.0.0.0/8") as (_, port):
        sock, _ = lease(port)
        sock.close()


def test_a_ceiling_is_told_to_the_client() -> None:
    with peer("--max-rate", "250M") as (_, port):
        sock, answer = lease(port)
        sock.close()
        assert answer.max_bits_per_second == 250e6


@pytest.fixture(scope="module")
def lasting() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """One peer for many garbled connections, each of which must leave it as it was."""
    with peer() as running:
        yield running


@pytest.mark.parametrize(
    "line",
    [b"\xff" * 100 + b"\n", b"[]\n", b"{}\n", b'{"op": "lease"}\n', b'{"op": "lease", "seconds": 1e99}\n', b"{" * 20000,
     b'{"op": "lease", "seconds": 1' + b"0" * 400 + b"}\n", b'{"op": "lease", "seconds": NaN}\n',
     b'{"op": "rank", "rank": "1; rm -rf /"}\n', b'{"op": "format-disk"}\n', b"GET / HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_garbage_on_the_control_connection_starts_nothing(
    lasting: tuple[subprocess.Popen[str], int], line: bytes
) -> None:
    process, port = lasting
    with socket.create_connection((HOST, port), 5) as sock:
        assert sock.recv(4096).startswith(GREETING.encode())
        sock.sendall(line)
        try:
            answer = sock.recv(4096)
        except ConnectionResetError:
            answer = b""
        assert not answer or json.loads(answer)["ok"] is False
    assert _children(process.pid) == []
    assert process.poll() is None


def test_more_connections_than_it_holds_are_turned_away() -> None:
    with peer() as (process, port):
        socks = [socket.create_connection((HOST, port), 5) for _ in range(70)]
        answers = []
        for sock in socks:
            sock.settimeout(5)
            answers.append(sock.recv(4096))
        for sock in socks:
            sock.close()
        assert sum(b"peer_busy" in answer for answer in answers) == 6
        assert process.poll() is None


def garbage(count: int, port: int, seed: int = 1) -> int:
    """Random datagrams, some of them almost right; returns how many bytes came back."""
    draw = random.Random(seed)
    blocks = [draw.randbytes(draw.randrange(1, 1400)) for _ in range(200)]
    blocks += [b"ABE1" + bytes([kind]) + draw.randbytes(167) for kind in (0, 1, 2) for _ in range(20)]
    blocks += [pack(Packet(REQUEST, draw.randrange(1 << 63), 1, n), 172) for n in range(40)]
    came = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((HOST, port))
        for number in range(count):
            try:
                sock.send(blocks[number % len(blocks)])
                came += len(sock.recv(65536))
            except BlockingIOError:
                continue
    return came


def test_random_datagrams_are_dropped_without_growth() -> None:
    with peer() as (process, port):
        sock, answer = lease(port)
        with closing(sock):
            assert garbage(20_000, port) == 0
            before = memory(process.pid)
            assert garbage(100_000, port, seed=2) == 0
            assert memory(process.pid) - before < 1 << 20
            asked = (ask(port, pack(Packet(REQUEST, answer.token or 0, 1, n), 172)) for n in range(1, 6))
            assert any(reply is not None for reply in asked), "and it still serves"


@pytest.mark.parametrize("size", [96, 172, 1472])
def test_no_reply_is_longer_than_its_request(size: int) -> None:
    with peer() as (_, port):
        sock, answer = lease(port)
        with closing(sock):
            reply = ask(port, pack(Packet(REQUEST, answer.token or 0, 1, 1), size))
            assert reply is not None and len(reply) == size


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_the_loopback_is_known_in_each_form(address: str) -> None:
    assert is_loopback(address)
    assert not is_loopback("10.0.0.1") and not is_loopback("fe80::1%eth0")
