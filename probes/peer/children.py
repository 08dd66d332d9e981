"""What a client may have started beside iperf3: a rank of an all-reduce, a perftest server; and with which words."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
import shutil
from collections.abc import Mapping
from typing import Any

from bench.measure.probe import python_argv
from probes.peer.protocol import number

MOST_RANKS, MOST_BYTES, MOST_ITERATIONS = 4096, 1 << 34, 10_000
RDMA_TOOLS = ("ib_write_bw", "ib_write_lat")
_PERFTEST_WORD = re.compile(r"-D|-n|--report_gbits|\d{1,6}")


class Refused(Exception):
    """A request that is not granted; ``str`` is ``word: sentence``."""


def rank_argv(request: Mapping[str, Any]) -> list[str]:
    """The rank program's command line but for its own address. Raises Refused."""
    most = {"rank": MOST_RANKS, "world": MOST_RANKS, "port": 65535, "iterations": MOST_ITERATIONS}
    numbers = {name: number(request.get(name), 2 if name == "world" else 1, limit) for name, limit in most.items()}
    device, sizes = request.get("device"), str(request.get("sizes"))[:400].split(",")
    if None in numbers.values() or device not in ("cpu", "cuda"):
        raise Refused("garbage: a rank needs its number, the world, a port, iterations and a device")
    if not all(size.isascii() and size.isdigit() and 4 <= int(size) <= MOST_BYTES for size in sizes):
        raise Refused("garbage: sizes are bytes, separated by commas")
    try:
        master = ipaddress.ip_address(str(request.get("master")).partition("%")[0])
    except ValueError as error:
        raise Refused("garbage: the master is not an address") from error
    if importlib.util.find_spec("torch") is None:
        raise Refused("tool_missing: torch is not installed on the peer")
    words = [word for name, value in numbers.items() for word in (f"--{name}", str(int(value or 0)))]
    words += ["--master", str(master), "--sizes", ",".join(sizes), "--device", str(device), "--links", "--ranks", "1"]
    return python_argv("probes.collective.load.rank", *words)


def perftest_argv(request: Mapping[str, Any]) -> list[str]:
    """The server's command line without its port. Raises Refused."""
    tool, words = request.get("tool"), request.get("words")
    if tool not in RDMA_TOOLS or not isinstance(words, list) or len(words) > 8:
        raise Refused("garbage: a perftest server needs its tool and a few options")
    if not all(isinstance(word, str) and _PERFTEST_WORD.fullmatch(word) for word in words):
        raise Refused("garbage: an option of perftest that a client may not choose")
    if shutil.which(str(tool)) is None:
        raise Refused(f"tool_missing: {tool} is not installed on the peer")
    return [str(tool), *words]
