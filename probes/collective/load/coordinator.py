"""Rank 0 of an all-reduce, and the one who gathers the others: on every peer by its `bench peer`, or on this node.

Prints JSON lines: ``{"kind": "ranks", ...}`` when all have joined, ``{"kind": "times", ...}`` for each rank, or
``{"kind": "error", "error": "word: sentence"}``.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
from typing import Any

from bench.measure import tools
from bench.measure.probe import python_argv
from probes.collective.load.rank import TIMEOUT, take_part
from probes.peer.client import NoPeer, connect, greet
from probes.peer.protocol import address, read_key

LOOPBACK = "127.0.0.1"


def main() -> None:
    asked = _arguments()
    connections: list[socket.socket] = []
    children: list[Any] = []
    try:
        _measure(asked, connections, children)
    except (NoPeer, ValueError, RuntimeError, OSError) as error:
        word, _, text = " ".join(str(error).split())[:400].partition(": ")
        line = f"{word}: {text}" if text and " " not in word else f"collective_failed: {word} {text}"
        print(json.dumps({"kind": "error", "error": line}), flush=True)
    finally:
        for sock in connections:
            sock.close()
        for child in children:
            tools.end(child)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default="[]", help="JSON list of HOST[:PORT]")
    parser.add_argument("--local", type=int, default=0, help="ranks on this node besides rank 0")
    parser.add_argument("--sizes", required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--key-file")
    return parser.parse_args()


def _measure(asked: argparse.Namespace, connections: list[socket.socket], children: list[Any]) -> None:
    peers: list[str] = json.loads(asked.peers)
    for peer in peers:
        connections.append(connect(*address(peer)))
    import torch.distributed as dist  # seconds long: not before the peers are known to be there

    ours = connections[0].getsockname()[0] if connections else LOOPBACK
    world = 1 + len(peers) + asked.local
    store = dist.TCPStore(ours, 0, world, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
    job = {"world": world, "master": ours, "port": store.port, "sizes": asked.sizes,
           "iterations": asked.iterations, "device": asked.device}  # fmt: skip
    key = read_key(asked.key_file)
    for rank, (peer, sock) in enumerate(zip(peers, connections, strict=True), 1):
        _ask(peer, sock, {"op": "rank", "rank": rank, **job}, key)
    for rank in range(1 + len(peers), world):
        children.append(_start({"rank": rank, "address": ours, **job}))
    print(json.dumps({"kind": "ranks", "names": ["this node", *peers, *["this node"] * asked.local]}), flush=True)
    sizes = [int(size) for size in asked.sizes.split(",")]
    take_part(0, world, store, ours, sizes, asked.iterations, asked.device)
    for rank in range(world):
        print(json.dumps({"kind": "times", "rank": rank, **json.loads(store.get(f"times-{rank}"))}), flush=True)


def _ask(peer: str, sock: socket.socket, request: dict[str, Any], key: bytes) -> None:
    answer = greet(sock, request, key)
    if answer["kind"] != "bench-peer":
        raise NoPeer(f"peer_without_ranks: {peer} is a plain iperf3 server; start `bench peer` there")


def _start(job: dict[str, Any]) -> Any:
    words = [word for name, value in job.items() for word in (f"--{name}", str(value))]
    argv = python_argv("probes.collective.load.rank", *words)
    with open(os.devnull, "wb") as nowhere:
        return tools.spawn(argv, stdout=nowhere, stderr=nowhere, env=tools.python_environment())


if __name__ == "__main__":
    main()
