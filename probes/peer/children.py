"""What the far end starts for a client: iperf3 servers, one test each; a rank of an all-reduce; a perftest server."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.measure import tools
from bench.measure.probe import python_argv
from probes.peer.protocol import number

PORTS = 16
_FAILURES_ALLOWED = 5
_SHORT_LIFE_SECONDS = 0.3
MOST_RANKS, MOST_BYTES, MOST_ITERATIONS = 4096, 1 << 34, 10_000
RDMA_TOOLS = ("ib_write_bw", "ib_write_lat")
_PERFTEST_WORD = re.compile(r"-D|-n|--report_gbits|\d{1,6}")


def silent(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Any:
    """Start a program whose output nobody reads."""
    with open(os.devnull, "wb") as nowhere:
        return tools.spawn(argv, stdout=nowhere, stderr=nowhere, env=env)


@dataclass(slots=True)
class LeasedServer:
    """An iperf3 server that is started anew after each test, for as long as its lease lives.

    ``iperf3 -s -1`` serves one test and ends, so no test meets the remains of another (esnet/iperf issues 819, 1735,
    1986: a server that stays busy for ever).
    """

    address: str
    port: int
    max_bits_per_second: float
    process: Any = None  # what `tools.spawn` gives
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
        self.process = silent(words)
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


# --- requests, whose arguments are checked


def rank_words(request: Mapping[str, Any]) -> list[str] | str:
    """The rank program's arguments, or why the request is refused: ``word: sentence``."""
    world = number(request.get("world"), 2, MOST_RANKS)
    rank = number(request.get("rank"), 1, MOST_RANKS)
    port = number(request.get("port"), 1, 65535)
    iterations = number(request.get("iterations"), 1, MOST_ITERATIONS)
    device, sizes = request.get("device"), str(request.get("sizes"))[:400].split(",")
    if None in (world, rank, port, iterations) or device not in ("cpu", "cuda"):
        return "garbage: a rank needs its number, the world, a port, iterations and a device"
    if not all(size.isascii() and size.isdigit() and 4 <= int(size) <= MOST_BYTES for size in sizes):
        return "garbage: sizes are bytes, separated by commas"
    try:
        master = ipaddress.ip_address(str(request.get("master")).partition("%")[0])
    except ValueError:
        return "garbage: the master is not an address"
    if importlib.util.find_spec("torch") is None:
        return "tool_missing: torch is not installed on the peer"
    numbers = {"rank": rank, "world": world, "port": port, "iterations": iterations}
    words = [word for name, value in numbers.items() for word in (f"--{name}", str(int(value or 0)))]
    words += ["--master", str(master), "--sizes", ",".join(sizes), "--device", str(device)]
    return [*words, "--links", "--ranks", "1"]


def start_rank(words: Sequence[str], address: str) -> Any:
    argv = python_argv("probes.collective.load.rank", *words, "--address", address)
    return silent(argv, tools.python_environment())


def perftest_words(request: Mapping[str, Any]) -> list[str] | str:
    """The server's command line without its port, or why the request is refused: ``word: sentence``."""
    tool, words = request.get("tool"), request.get("words")
    if tool not in RDMA_TOOLS or not isinstance(words, list) or len(words) > 8:
        return "garbage: a perftest server needs its tool and a few options"
    if not all(isinstance(word, str) and _PERFTEST_WORD.fullmatch(word) for word in words):
        return "garbage: an option of perftest that a client may not choose"
    if shutil.which(str(tool)) is None:
        return f"tool_missing: {tool} is not installed on the peer"
    return [str(tool), *words]
