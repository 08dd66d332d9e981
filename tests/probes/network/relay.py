"""A cable with a will: carries packets between two TUN devices, and does to each echo packet what it was told.

usage: relay.py NAMESPACE ADDRESS NAMESPACE ADDRESS LOG JSON

Settings (seconds, shares): ``delay`` each way for every packet; and for the echo's packets, each way, ``jitter``
(uniform, plus and minus), ``loss`` (share), ``bursts`` ([first, length] of lost sequences, towards the peer),
``every`` and ``height`` (each so many requests one is held back, and all behind it wait: a spike), ``single`` (only
that one waits), ``seed``. The log has one JSON object for each echo packet: its direction, sequence, how long it was
really held, and why.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import heapq
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from typing import Any

_CLONE_NEWNET, _TUNSETIFF, _IFF_TUN_NO_PI = 0x40000000, 0x400454CA, 0x1001
_MAGIC, _UDP = b"ABE1", 17
_SEQUENCE_AT = 28 + 4 + 1 + 3 + 8 + 4  # IPv4, UDP, magic, kind, padding, token, run
_CLOSING = 1 << 31


def tun(namespace: str, address: str, name: str) -> int:
    """A TUN device inside of a namespace, held from outside of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    theirs = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(theirs, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
    subprocess.run(["ip", "addr", "add", f"{address}/24", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "txqueuelen", "2000", "up"], check=True)
    libc.setns(ours, _CLONE_NEWNET)
    os.close(ours)
    os.close(theirs)
    return device


def sequence_of(packet: bytes) -> int | None:
    """The echo packet's number, or None for any other packet and for the closing requests."""
    if len(packet) < _SEQUENCE_AT + 4 or packet[9] != _UDP or packet[28:32] != _MAGIC:
        return None
    number = int.from_bytes(packet[_SEQUENCE_AT : _SEQUENCE_AT + 4], "big")
    return number if number < _CLOSING else None


class Relay:
    def __init__(self, devices: list[int], settings: dict[str, Any]) -> None:
        self.devices = devices
        self.settings = settings
        self.random = random.Random(settings.get("seed", 1))
        self.queue: list[tuple[int, int, int, int, bytes, int | None, str]] = []
        self.last = [0, 0]
        self.order = 0
        self.rows: list[tuple[int, int, int, str]] = []

    def run(self) -> None:
        while True:
            self._deliver()
            wait = max(0, self.queue[0][0] - time.monotonic_ns()) / 1e9 if self.queue else 1.0
            for device in select.select(self.devices, [], [], wait)[0]:
                self._read(self.devices.index(device))

    def _deliver(self) -> None:
        while self.queue and self.queue[0][0] <= time.monotonic_ns():
            _, _, direction, came, packet, sequence, why = heapq.heappop(self.queue)
            if sequence is not None:
                self.rows.append((direction, sequence, time.monotonic_ns() - came, why))
            os.write(self.devices[1 - direction], packet)

    def _read(self, direction: int) -> None:
        while True:
            try:
                packet = os.read(self.devices[direction], 65536)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4:
                self._take(direction, packet)

    def _take(self, direction: int, packet: bytes) -> None:
        came = time.monotonic_ns()
        sequence = sequence_of(packet)
        delay, why = self.settings.get("delay", 0.0), ""
        if sequence is not None:
            delay, why = self._will(direction, sequence, delay)
        if why == "lost":
            self.rows.append((direction, sequence or 0, -1, why))
            return
        due = came + int(delay * 1e9)
        if not (why == "spike" and self.settings.get("single")):
            due = self.last[direction] = max(due, self.last[direction])
        self.order += 1
        heapq.heappush(self.queue, (due, self.order, direction, came, packet, sequence, why))

    def _will(self, direction: int, sequence: int, delay: float) -> tuple[float, str]:
        settings = self.settings
        if self.random.random() < settings.get("loss", 0.0):
            return delay, "lost"
        if direction == 0 and any(first <= sequence < first + n for first, n in settings.get("bursts", ())):
            return delay, "lost"
        delay += settings.get("jitter", 0.0) * (2 * self.random.random() - 1)
        every = settings.get("every", 0)
        if direction == 0 and every and sequence % every == every // 2:
            return delay + settings["height"], "spike"
        return max(0.0, delay), ""


def main() -> None:
    first, first_address, second, second_address, log, settings = sys.argv[1:7]
    relay = Relay([tun(first, first_address, "r0"), tun(second, second_address, "r0")], json.loads(settings))
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))  # else its own lateness is the largest of all
    gc.disable()

    def end(*_: object) -> None:
        with open(log, "w", encoding="ascii") as file:
            for direction, sequence, held, why in relay.rows:
                row = {"direction": direction, "sequence": sequence, "held": held / 1e9, "why": why}
                file.write(json.dumps(row) + "\n")
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    relay.run()


if __name__ == "__main__":
    main()
