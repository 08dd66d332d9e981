"""`bench peer`: the far end of the network probes. One thread, one loop, no root, bounded in everything.

As a program, a peer on this node's own loopback, for a run without one: a stand-in, and named so everywhere. It prints
one line, ``{"loopback": PORT}``, when it is ready.

TCP PORT takes control connections, UDP PORT the paced echo, TCP PORT+1 to PORT+16 iperf3 servers, one a lease. What
belongs to a lease ends with its connection, so a client that dies, or a cable that is pulled, leaves nothing behind.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import secrets
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bench import __version__
from bench.measure import tools
from bench.measure.probe import Unsupported
from bench.measure.tools import Signals
from probes.peer.children import Refused, perftest_argv, rank_argv
from probes.peer.echo_server import Responder
from probes.peer.protocol import GREETING, LOOPBACK, MAX_LEASE_SECONDS, MAX_LINE_BYTES, number, udp_counters, verify

MOST_CONNECTIONS = 64
_PORTS = 16
_HELLO_SECONDS = 10.0
_TICK_SECONDS = 0.25
_FAILURES_ALLOWED, _SHORT_LIFE_SECONDS = 5, 0.3
_RANK_SECONDS = 900.0
#: A client whose cable was pulled is noticed after 20 s.
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
_LOOPBACK_ATTEMPTS, _LOOPBACK_IDLE_SECONDS = 50, 20.0
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Settings:
    """``max_bits_per_second`` and ``idle_seconds``: 0 for none. ``allow``: empty for whoever reaches the address."""

    address: str
    port: int
    allow: tuple[Network, ...] = ()
    key: bytes = b""
    max_bits_per_second: float = 0.0
    idle_seconds: float = 0.0


@dataclass(slots=True)
class Connection:
    """One node's control connection, and what it leased. ``until``: monotonic seconds."""

    socket: socket.socket
    who: str
    nonce: str
    until: float
    buffer: bytearray = field(default_factory=bytearray)
    token: int | None = None
    iperf3_port: int | None = None
    iperf3: Any = None  # the process of the server for the next test: what `tools.spawn` gives
    started: float = 0.0
    failures: int = 0
    pidfd: int | None = None
    other: Any = None  # the process of a rank or of a perftest server


class Peer:
    """Binds at once (raises OSError), serves until a signal or the idle time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address: Any
        family, _, _, _, self.address = socket.getaddrinfo(
            settings.address, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.family = int(family)
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.connections: list[Connection] = []
        self.last_used = time.monotonic()
        try:
            self.listener.bind(self.address)
            self.listener.listen(16)
            self.echo = Responder(self.family, self.address, settings.key)
        except OSError:
            self.listener.close()
            raise
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.selector.register(self.echo.socket, selectors.EVENT_READ, self.echo.serve)

    def serve(self, signals: Signals) -> int | None:
        """The number of the signal that ended it; None after the idle time."""
        try:
            while signals.caught is None and not self._idle():
                for key, _ in self.selector.select(_TICK_SECONDS):
                    key.data()
                for connection in [c for c in self.connections if time.monotonic() > c.until]:
                    self._close(connection, "its time is over")
            return signals.caught
        finally:
            for connection in list(self.connections):
                self._close(connection, "the peer ends")
            self.echo.socket.close()
            self.listener.close()
            self.selector.close()

    def _idle(self) -> bool:
        if self.connections:
            self.last_used = time.monotonic()
        return 0 < self.settings.idle_seconds <= time.monotonic() - self.last_used

    # --- control connections

    def _accept(self) -> None:
        try:
            sock, sender = self.listener.accept()
        except OSError:
            return
        who = str(sender[0])
        reason = None if self._allowed(who) else "not_allowed"
        if reason is None and len(self.connections) >= MOST_CONNECTIONS:
            reason = "peer_busy"
        if reason is not None:
            _send(sock, {"error": f"{reason}: this peer refuses {who}"}, GREETING)
            sock.close()
            _log(f"refused {who}: {reason}")
            return
        sock.setblocking(False)
        for option, value in _KEEP_ALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection = Connection(sock, who, secrets.token_hex(16), time.monotonic() + _HELLO_SECONDS)
        self.connections.append(connection)
        self.selector.register(sock, selectors.EVENT_READ, lambda: self._read(connection))
        _send(sock, {"nonce": connection.nonce, "key": bool(self.settings.key), "version": __version__}, GREETING)

    def _allowed(self, who: str) -> bool:
        address = ipaddress.ip_address(who.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return not self.settings.allow or any(address in network for network in self.settings.allow)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(MAX_LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.buffer += data
        if not data or len(connection.buffer) > MAX_LINE_BYTES:
            self._close(connection, "gone" if not data else "it sent garbage")
            return
        while connection in self.connections and b"\n" in connection.buffer:
            line, _, rest = bytes(connection.buffer).partition(b"\n")
            connection.buffer = bytearray(rest)
            self._request(connection, line)

    def _request(self, connection: Connection, line: bytes) -> None:
        if (request := verify(line, connection.nonce, self.settings.key)) is None:
            why = "key_refused: the key differs" if self.settings.key else "garbage: not a request of a bench node"
            _send(connection.socket, {"ok": False, "error": why})
            self._close(connection, why)
            return
        try:
            _send(connection.socket, {"ok": True, **self._answer(connection, request)})
        except Refused as error:
            _send(connection.socket, {"ok": False, "error": str(error)})

    def _answer(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        """What is given for a request. Raises Refused."""
        match request.get("op"):
            case "lease":
                return self._lease(connection, request)
            case "rank":
                own = str(connection.socket.getsockname()[0])
                self._start(connection, [*rank_argv(request), "--address", own], _RANK_SECONDS)
                _log(f"a rank of an all-reduce for {connection.who}")
                return {}
            case "rdma":
                tool, *words = perftest_argv(request)
                port = self._free_port()
                seconds = number(request.get("seconds"), 1, MAX_LEASE_SECONDS)
                self._start(connection, [tool, "-p", str(port), *words], seconds)
                return {"port": port}
            case "counters":
                return {"udp": udp_counters()}
        raise Refused(f"unknown_request: {str(request.get('op'))[:40]!r}; update this peer")

    def _start(self, connection: Connection, argv: list[str], seconds: float | None) -> None:
        if connection.other is not None or seconds is None:
            raise Refused("garbage: one rank or server a connection, for a time")
        connection.until = time.monotonic() + seconds
        connection.other = _silent(argv)

    def _lease(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        seconds = number(request.get("seconds"), 1, MAX_LEASE_SECONDS)
        if seconds is None or connection.token is not None:
            raise Refused("garbage: a lease needs seconds, and is given once a connection")
        connection.token = self.echo.open()
        connection.until = time.monotonic() + seconds
        problem = None
        try:
            tools.require("iperf3")  # the system's, or the one that a bundle carries
            connection.iperf3_port = self._free_port()
            self._start_iperf3(connection)
        except Unsupported:
            problem = "tool_missing: iperf3 is not installed on the peer"
        except Refused as error:
            problem = str(error)
        _log(f"lease for {connection.who}, at most {seconds:.0f} s")
        return {
            "token": connection.token,
            "echo_port": self.settings.port,
            "echo_stamped": self.echo.stamped,
            "iperf3_port": connection.iperf3_port,
            "iperf3_problem": problem,
            "max_bits_per_second": self.settings.max_bits_per_second,
        }

    def _free_port(self) -> int:
        """The first port above the control port that nobody listens on. Raises Refused."""
        taken = {connection.iperf3_port for connection in self.connections}
        host, control, *rest = self.address
        for port in range(control + 1, min(control + 1 + _PORTS, 65536)):
            with socket.socket(self.family, socket.SOCK_STREAM) as trial, suppress(OSError):
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((host, port, *rest))
                if port not in taken:
                    return port
        raise Refused(f"peer_busy: no port above {control} is free on the peer")

    # --- iperf3

    def _start_iperf3(self, connection: Connection) -> None:
        """``iperf3 -s -1`` serves one test and ends, so no test meets the remains of another.

        esnet/iperf issues 819, 1735, 1986: a server that stays busy for ever.
        """
        words = ["iperf3", "-s", "-1", "-p", str(connection.iperf3_port), "-B", str(self.address[0])]
        if self.settings.max_bits_per_second:
            words += ["--server-bitrate-limit", str(int(self.settings.max_bits_per_second))]
        connection.started = time.monotonic()
        connection.iperf3 = _silent(words)
        connection.pidfd = os.pidfd_open(connection.iperf3.pid)
        self.selector.register(connection.pidfd, selectors.EVENT_READ, lambda: self._iperf3_ended(connection))

    def _iperf3_ended(self, connection: Connection) -> None:
        """One test is over: the next may come at once. A server that fails at once, again and again, is given up."""
        self._forget_pidfd(connection)
        failed = connection.iperf3.wait() and time.monotonic() - connection.started < _SHORT_LIFE_SECONDS
        connection.failures = connection.failures + 1 if failed else 0
        if connection.failures < _FAILURES_ALLOWED:
            self._start_iperf3(connection)
        else:
            self._close(connection, "its iperf3 server ends at once")

    def _forget_pidfd(self, connection: Connection) -> None:
        if connection.pidfd is not None:
            self.selector.unregister(connection.pidfd)
            os.close(connection.pidfd)
            connection.pidfd = None

    def _close(self, connection: Connection, why: str) -> None:
        self.connections.remove(connection)
        self.selector.unregister(connection.socket)
        connection.socket.close()
        self._forget_pidfd(connection)
        for process in (connection.iperf3, connection.other):
            if process is not None:
                tools.end(process)
        self.echo.sessions.pop(connection.token or 0, None)
        self.last_used = time.monotonic()
        dropped = f"; {self.echo.dropped} datagrams dropped so far" if self.echo.dropped else ""
        _log(f"connection of {connection.who} ended: {why}{dropped}")


def networks(words: Sequence[str]) -> tuple[Network, ...]:
    """Addresses or CIDR networks. Raises ValueError."""
    return tuple(ipaddress.ip_network(word, strict=False) for word in words)


def _silent(argv: Sequence[str]) -> Any:
    """Start a program whose output nobody reads."""
    with open(os.devnull, "wb") as nowhere:
        return tools.spawn(argv, stdout=nowhere, stderr=nowhere, env=tools.python_environment())


def _send(sock: socket.socket, answer: dict[str, Any], first: str = "") -> None:
    """A reply is shorter than any socket buffer; a client that does not read loses it and nothing else."""
    try:
        sock.send(f"{first}{json.dumps(answer)}\n".encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError as error:
        _log(f"a reply could not be sent: {error}")


def _log(text: str) -> None:
    print(f"bench peer: {text}", file=sys.stderr, flush=True)


def main() -> None:
    with Signals() as signals:
        for _ in range(_LOOPBACK_ATTEMPTS):
            port = random.randrange(20000, 32000)
            try:
                peer = Peer(Settings(LOOPBACK, port, idle_seconds=_LOOPBACK_IDLE_SECONDS))
            except OSError:
                continue
            print(json.dumps({"loopback": port}), flush=True)
            peer.serve(signals)
            return
    sys.exit(f"no free port on {LOOPBACK}")


if __name__ == "__main__":
    main()
