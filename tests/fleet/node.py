"""A node's stand-in for `bench run`, `bench peer` and a pair, that needs nothing but Python: it starts in 30 ms.

Faults are told by files ``FAULTS/<hostname>`` that hold one word, so that a test can mend a host between two runs.
Everything that it says it has measured: reads from a file, loops in a second of CPU, bytes through a socket.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

_CHUNK = 1 << 16


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["sweep", "serve", "pair"])
    parser.add_argument("address", nargs="?", default="")
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--bytes", type=int, default=1 << 20)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--starts", type=Path)
    parser.add_argument("--port", type=int, default=5201)
    asked = parser.parse_args()
    if asked.mode == "serve":
        return serve(asked.address, asked.port)
    if asked.mode == "pair":
        return pair(asked.address, asked.port, asked.bytes)
    return sweep(asked)


def sweep(asked: argparse.Namespace) -> int:
    host = socket.gethostname()
    fault = ""
    if asked.starts:  # who was started, how often: one line a start
        with asked.starts.open("a") as file:
            file.write(f"{host} {time.time():.3f}\n")
    if asked.faults and (asked.faults / host).exists():
        fault = (asked.faults / host).read_text().strip()
    if fault == "hang":
        time.sleep(10_000)
    if fault == "garbage":
        print("Warning: libfoo not found\n{not json")
        return 0
    if fault == "wrong-host":
        host = "somebody-else"
    time.sleep(asked.seconds)
    figures = [_figure("storage_read_bytes_per_second", _disk(asked.data), path="/data", pattern="sequential")]
    if asked.cpu:
        figures.append(_figure("inference_samples_per_second", _cpu(), stage="preprocess"))
    document = json.dumps(_run(host, "storage", figures))
    print(document)
    if fault == "twice":
        print(document.replace("samples", "samples"))
    return 1 if fault == "fail" else 0


def _disk(data: Path | None) -> list[float]:
    """Bytes per second of five reads past the cache; a fixed figure with 1 % of scatter where no file is given."""
    if data is None:
        return [1e9 * random.gauss(1, 0.01) for _ in range(5)]
    import mmap

    path = data / f"{socket.gethostname()}.bin"
    buffer = mmap.mmap(-1, 1 << 20)
    rates = []
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        for _ in range(5):
            began = time.monotonic()
            read = sum(os.preadv(fd, [buffer], offset << 20) for offset in range(8))
            rates.append(read / (time.monotonic() - began))
    finally:
        os.close(fd)
    return rates


def _cpu() -> list[float]:
    """Samples per second of wall time: what this host's share of the CPU decodes."""
    rates = []
    block = os.urandom(1 << 16)
    for _ in range(3):
        began, count = time.monotonic(), 0
        while time.monotonic() - began < 1.0:
            hashlib.sha256(block).digest()
            count += 1
        rates.append(count / (time.monotonic() - began))
    return rates


def serve(address: str, port: int) -> int:
    with socket.create_server((address, port), backlog=8) as server:
        print("peer: ready", flush=True)
        while True:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                client.settimeout(30)
                _echo(client)


def _echo(client: socket.socket) -> None:
    size = int.from_bytes(client.recv(8, socket.MSG_WAITALL), "big")
    _receive(client, size)
    client.sendall(b"k")
    client.sendall(bytes(size))


def _receive(peer: socket.socket, size: int) -> None:
    left = size
    while left:
        got = len(peer.recv(min(left, _CHUNK)))
        if not got:
            raise OSError("closed")
        left -= got


def pair(address: str, port: int, size: int) -> int:
    rates: dict[str, list[float]] = {"send": [], "receive": []}
    for _ in range(3):
        with socket.create_connection((address, port), timeout=10) as peer:
            peer.settimeout(30)
            began = time.monotonic()
            peer.sendall(size.to_bytes(8, "big") + bytes(size))
            peer.recv(1)
            between = time.monotonic()
            _receive(peer, size)
            rates["send"].append(size / (between - began))
            rates["receive"].append(size / (time.monotonic() - between))
    figures = [
        _figure("network_throughput_bytes_per_second", found, peer=address, direction=way)
        for way, found in rates.items()
    ]
    print(json.dumps(_run(socket.gethostname(), "network", figures)))
    return 0


def _figure(metric: str, values: list[float], **labels: str) -> dict[str, Any]:
    return {
        "metric": metric, "value": statistics.median(values), "interval": [min(values), max(values)],
        "samples": len(values), "labels": labels,
    }  # fmt: skip


def _run(host: str, probe: str, figures: list[dict[str, Any]]) -> dict[str, Any]:
    machine = Path("/etc/machine-id").read_text().strip()
    facts = {
        "machine_id": hashlib.sha256(machine.encode()).hexdigest()[:16],
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "cpu": {"model": "stand-in", "logical": 2},
        "memory_bytes": 1 << 30,
        "gpus": [],
    }
    return {
        "schema": "aiready-bench/run", "schema_version": 1, "id": os.urandom(6).hex(),
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
        "node": {"hostname": host, "fingerprint": "f", "facts": facts},
        "request": {"effort": "quick", "probes": [probe]},
        "results": [{"probe": probe, "outcome": "ok", "measurements": figures}],
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
