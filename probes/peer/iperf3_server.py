"""The far end's iperf3 servers: one test each, on a port of its own, ended by a watchdog."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import Any

from bench.measure import tools

PORTS = 16
_FAILURES_ALLOWED = 5
_SHORT_LIFE_SECONDS = 0.3


@dataclass(slots=True)
class Bandwidth:
    """An iperf3 server that is started anew after each test, for as long as its lease lives.

    ``iperf3 -s -1`` serves one test and ends, so no test meets the remains of another (esnet/iperf issues 819, 1735,
    1986: a server that stays busy for ever).
    """

    address: str
    port: int
    max_bits_per_second: float
    process: Any = None  # what the door's `spawn` gives
    started: float = 0.0
    failures: int = 0

    def start(self) -> int | None:
        """Start one; its pidfd, readable when it ends. None when it cannot be kept alive."""
        if self.failures >= _FAILURES_ALLOWED:
            return None
        words = ["iperf3", "-s", "-1", "-p", str(self.port), "-B", self.address]
        if self.max_bits_per_second:
            words += ["--server-bitrate-limit", str(int(self.max_bits_per_second))]
        self.started = time.monotonic()
        with open(os.devnull, "wb") as nowhere:
            self.process = tools.spawn(words, stdout=nowhere, stderr=nowhere)
        return os.pidfd_open(self.process.pid)

    def ended(self) -> None:
        """Reap it. A server that fails at once, again and again, is given up."""
        if self.process is None:
            return
        self.process.wait()
        short = time.monotonic() - self.started < _SHORT_LIFE_SECONDS
        self.failures = self.failures + 1 if self.process.returncode and short else 0
        self.process = None

    def end(self) -> None:
        if self.process is not None:
            tools.end(self.process)
            self.process = None


def free_port(family: int, address: Any, taken: set[int]) -> int | None:
    """The first port above the control port that nobody listens on."""
    for port in range(address[1] + 1, min(address[1] + 1 + PORTS, 65536)):
        if port not in taken and _is_free(family, (address[0], port, *address[2:])):
            return port
    return None


def _is_free(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return False
    return True
