"""What carried NCCL's traffic, by its own log (``NCCL_DEBUG=INFO``, subsystems INIT, NET, GRAPH). Pure.

Read after NCCL's source of 2.18.5 and 2.28.9: a line for each connection of a channel (``src/transport/p2p.cc``,
``shm.cc``, ``net.cc``: ``Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read``), the topology (``src/graph/topo.cc``:
``+ NVL[480.0] - NVS/0``) and the kinds of path that its rings and trees take within a node (``src/graph/search.cc``:
``type NVL/PIX``). A line of another form says nothing, and a transport of another name is unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.judge.collective import Carried

UNKNOWN = "unknown"
#: What carries at the speed of the hardware that is made for it.
FAST = frozenset({"nvlink", "rdma", "rdma_gpu_direct"})

_CHANNEL = re.compile(
    r"NCCL INFO Channel \d+(?:/\d+)? : (\d+)\[[^\]]*\] -> (\d+)\[[^\]]*\](?: \[(?:send|receive)\])? via (\S.*)"
)
_LINK = re.compile(r"NCCL INFO .*\+ NVL\[")
_GRAPH = re.compile(r"NCCL INFO Pattern .*nChannels (\d+),.* type (\w+)/\w+")
#: Path types of topo.h: what is no farther than these is NVLink (NVB: by another card; C2C: by the CPU of a Grace).
_NVLINK, _PCIE = {"LOC", "NVL", "NVB", "C2C"}, {"PIX", "PXB", "P2C", "PHB", "SYS"}


@dataclass(frozen=True, slots=True)
class Connection:
    """One rank's to another, over one channel."""

    source: int
    destination: int
    transport: str


@dataclass(frozen=True, slots=True)
class Log:
    """``nvlink``: NCCL sees NVLinks on this node."""

    connections: tuple[Connection, ...]
    nvlink: bool


def read(texts: Iterable[str]) -> Log:
    """The logs of the ranks of one node."""
    lines = [line for text in texts for line in text.splitlines()]
    paths = {found[2] for line in lines if (found := _GRAPH.search(line)) and int(found[1])}
    peer = "nvlink" if paths and paths <= _NVLINK else "pcie" if paths and paths <= _PCIE else UNKNOWN
    channels = (found for line in lines if (found := _CHANNEL.search(line)))
    made = tuple(Connection(int(one[1]), int(one[2]), _transport(one[3].strip(), peer)) for one in channels)
    return Log(made, any(_LINK.search(line) for line in lines))


def carried(log: Log, within: Callable[[int, int], bool]) -> list[Carried]:
    """The connections by transport. ``within`` says of two ranks whether they are on one node: there NVLink is what is
    made for it, where NCCL sees any, and RDMA between nodes, whose absence its gate asks of nodes that have it.
    """
    scopes = {True: "within", False: "between"}
    counts = Counter((scopes[within(one.source, one.destination)], one.transport) for one in log.connections)
    return [
        Carried.model_validate({
            "scope": scope, "transport": transport, "connections": number,
            "fast": None if transport == UNKNOWN or (scope == "within" and not log.nvlink) else transport in FAST,
        })
        for (scope, transport), number in counts.items()
    ]  # fmt: skip


def _transport(via: str, peer: str) -> str:
    """Of what stands behind ``via``; ``peer`` is what card to card is here."""
    kind, _, rest = via.partition("/")
    if kind == "P2P":
        return "nvlink" if rest.startswith("MNNVL") else peer
    if kind == "SHM":
        return "shm"
    network = rest.partition("/")[0]
    if kind != "NET" or not network:
        return UNKNOWN
    if network == "Socket":
        return "sockets"
    if "/GDRDMA" in rest:
        return "rdma_gpu_direct"
    return "rdma" if network.startswith(("IB", "gIB")) else UNKNOWN  # NVIDIA's and Google's plug-ins beside NCCL's own
