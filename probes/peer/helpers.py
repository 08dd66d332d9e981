"""What else the far end starts for a client, with arguments that were checked: a rank, a perftest server."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import shutil
from typing import Any

from bench.measure import tools
from bench.measure.probe import python_argv
from probes.peer.protocol import number

MOST_RANKS, MOST_BYTES, MOST_ITERATIONS = 4096, 1 << 34, 10_000


def checked(request: dict[str, Any]) -> list[str] | str:
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
    return [*words, "--master", str(master), "--sizes", ",".join(sizes), "--device", str(device)]


def start(words: list[str], address: str) -> Any:
    argv = python_argv("probes.collective.load.rank", *words, "--address", address)
    with open(os.devnull, "wb") as nowhere:
        return tools.spawn(argv, stdout=nowhere, stderr=nowhere, env=tools.python_environment())


# --- perftest

RDMA_TOOLS = ("ib_write_bw", "ib_write_lat")
_WORD = re.compile(r"-D|-n|--report_gbits|\d{1,6}")


def checked_rdma(request: dict[str, Any]) -> list[str] | str:
    """The server's command line without its port, or why the request is refused: ``word: sentence``."""
    tool, words = request.get("tool"), request.get("words")
    if tool not in RDMA_TOOLS or not isinstance(words, list) or len(words) > 8:
        return "garbage: a perftest server needs its tool and a few options"
    if not all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
        return "garbage: an option of perftest that a client may not choose"
    if shutil.which(str(tool)) is None:
        return f"tool_missing: {tool} is not installed on the peer"
    return [str(tool), *words]


def start_rdma(argv: list[str], port: int) -> Any:
    with open(os.devnull, "wb") as nowhere:
        return tools.spawn([argv[0], "-p", str(port), *argv[1:]], stdout=nowhere, stderr=nowhere)
