"""The paced echo's near end: a small datagram every few milliseconds, and seven times of each of them.

No slot is ever skipped: a datagram that could not be sent in time is sent late, and how late is one of its figures
(leaving it out is coordinated omission, and hides exactly the stalls that are looked for).

Prints JSON lines: ``echo`` (one object), ``packets`` (rows of `COLUMNS`, in the order of sending), and ``load`` when a
load ran beside it. Nanoseconds throughout; null for what was not to be had; a row with one number is a lost packet.

- ``late``: how long after its slot it was handed to the kernel
- ``app``: round trip as the application saw it
- ``send``: from the application into the local egress queue
- ``egress``: in the local egress queue
- ``trip``: from the entry of that queue to the kernel's receipt of the reply
- ``peer``: from the peer kernel's receipt to its reply's entry into the peer's egress queue
- ``receive``: from the kernel's receipt of the reply to the application
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import socket
import tempfile
import time
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from bench.measure import tools
from bench.measure.procfs import stalled_seconds
from probes.peer import datagram
from probes.peer.datagram import CLOSING, LARGEST, REPLY, REQUEST, SCHED, Packet
from probes.peer.protocol import read_key

COLUMNS = ("late", "app", "send", "egress", "trip", "peer", "receive")
WAIT_SECONDS = 2.0
_CLOSING_REQUESTS = 3
_ROWS_A_LINE = 250
_LEAD_SECONDS = 0.05


@dataclass(slots=True)
class Times:
    """One datagram's times: seven in nanoseconds, 0 where there is none. ``peer_*`` are of the peer's clock."""

    late: int = 0
    sent_user: int = 0
    sent_queue: int = 0
    sent_driver: int = 0
    peer_received: int = 0
    peer_sent: int = 0
    peer_queue: int = 0
    received: int = 0
    received_user: int = 0

    def row(self) -> list[int | None]:
        """In the order of `COLUMNS`; the lateness alone for a lost packet."""
        if not self.received_user:
            return [self.late]
        spans = (
            (self.sent_user, self.sent_queue),
            (self.sent_queue, self.sent_driver),
            (self.sent_queue, self.received),
            (self.peer_received, self.peer_queue or self.peer_sent),
            (self.received, self.received_user),
        )
        known = (later - earlier if later and earlier else None for earlier, later in spans)
        return [self.late, self.received_user - self.sent_user, *known]


class EchoClient:
    """One measurement: sends on time, and puts what comes back to the datagram that it belongs to."""

    def __init__(self, sock: socket.socket, asked: argparse.Namespace) -> None:
        self.socket = sock
        self.token, self.run, self.count, self.interval = asked.token, asked.run, asked.count, asked.interval
        self.size, self.key = asked.size, read_key(asked.key_file)
        self.times = [Times() for _ in range(self.count)]
        self.base, self.highest = 0, -1
        self.counted = dict.fromkeys(("answered", "peer_seen", "reordered", "duplicates", "strange", "send_errors"), 0)

    def measure(self) -> None:
        """Until all came back or the time is up; then the closing requests, for the last follow-ups."""
        start = time.monotonic_ns() + int(_LEAD_SECONDS * 1e9)
        for sequence in range(self.count):
            self._listen_until(start + sequence * self.interval)
            self._send(sequence, start + sequence * self.interval)
        end = time.monotonic_ns() + int(WAIT_SECONDS * 1e9)
        while self.counted["answered"] < self.count and time.monotonic_ns() < end:
            self._listen_until(min(end, time.monotonic_ns() + 10_000_000))
        for number in range(_CLOSING_REQUESTS):
            self._transmit(CLOSING + number)
            self._listen_until(time.monotonic_ns() + self.interval + 10_000_000)

    def _send(self, sequence: int, due: int) -> None:
        one = self.times[sequence]
        one.late = max(0, time.monotonic_ns() - due)
        one.sent_user = time.time_ns()
        if not self._transmit(sequence):
            self.counted["send_errors"] += 1
            datagram.restart_numbers(self.socket)
            self.base = sequence + 1

    def _transmit(self, sequence: int) -> bool:
        with suppress(OSError):
            self.socket.send(datagram.pack(Packet(REQUEST, self.token, self.run, sequence), self.size, self.key))
            return True
        return False

    def _listen_until(self, due: int) -> None:
        while (left := due - time.monotonic_ns()) > 0:
            # The error queue wakes `select` too, so stamps are fetched as they come.
            if select.select([self.socket], [], [], left / 1e9)[0]:
                self._receive()

    def _receive(self) -> None:
        self._fetch_stamps()
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(LARGEST + 1, 256)
            except BlockingIOError:
                return
            except OSError:  # an ICMP refusal; the next datagrams show whether the peer is really gone
                continue
            now = time.time_ns()
            packet = datagram.unpack(data, REPLY, self.key)
            if packet is None or packet.token != self.token or packet.run != self.run:
                self.counted["strange"] += 1
            else:
                self._take(packet, datagram.received_at(ancillary), now)

    def _take(self, packet: Packet, received: int | None, now: int) -> None:
        for sequence, stamp in packet.follow_ups:
            if sequence < self.count:
                self.times[sequence].peer_queue = stamp
        self.counted["peer_seen"] = max(self.counted["peer_seen"], packet.requests_seen)
        if packet.sequence >= self.count:
            return
        one = self.times[packet.sequence]
        if one.received_user:
            self.counted["duplicates"] += 1
            return
        one.received, one.received_user = received or 0, now
        one.peer_received, one.peer_sent = packet.received_at, packet.sent_at
        self.counted["answered"] += 1
        self.counted["reordered"] += packet.sequence < self.highest
        self.highest = max(self.highest, packet.sequence)

    def _fetch_stamps(self) -> None:
        for sent in datagram.drain(self.socket):
            sequence = self.base + sent.number
            if sequence < self.count:
                setattr(self.times[sequence], "sent_queue" if sent.kind == SCHED else "sent_driver", sent.nanoseconds)


def _host_state() -> tuple[float | None, int, int]:
    """What may spoil the measurement here: seconds of CPU pressure; nanoseconds, and the clock's offset from them."""
    now = time.monotonic_ns()
    return stalled_seconds("cpu"), now, time.time_ns() - now


_START_SECONDS = 8.0
_END_SECONDS = 12.0
_POLL_SECONDS = 0.05


class Load:
    """``settle`` seconds pass before it counts as running: queues must fill before what they do can be measured."""

    def __init__(self, argv: list[str], settle: float) -> None:
        self.argv, self.settle = argv, settle
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the load
        self.process: Any = None

    def start(self) -> bool:
        """True when it runs. A server that is just being started anew refuses for a moment, and is tried again."""
        end = time.monotonic() + _START_SECONDS
        while True:
            self.output.seek(0)
            self.output.truncate()
            self.process = tools.spawn(self.argv, stdout=self.output)
            if self._runs_for(self.settle):
                return True
            if time.monotonic() > end or "refused" not in self._text():
                return False
            time.sleep(0.15)

    def _runs_for(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        return self.process.poll() is None

    def report(self) -> None:
        """Print what it said, once it has ended by itself, within its time."""
        self._runs_for(_END_SECONDS)
        self.close()
        said = {"argv": self.argv, "returncode": self.process.poll(), "output": self._text()}
        print(json.dumps({"kind": "load", **said}), flush=True)

    def _text(self) -> str:
        self.output.seek(0)
        return self.output.read(1 << 22).decode(errors="replace")

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            tools.end(self.process)


def main() -> None:
    asked = _arguments()
    family, _, _, _, address = socket.getaddrinfo(asked.host, asked.port, type=socket.SOCK_DGRAM)[0]
    sock, stamped = datagram.udp_socket(int(family))
    load = Load(json.loads(asked.load), asked.settle) if asked.load else None
    with sock, closing(load) if load is not None else nullcontext():
        sock.connect(address)
        echo = EchoClient(sock, asked)
        if load is not None and not load.start():
            load.report()
            return
        before = _host_state()
        gc.disable()  # a collection in the middle would be a host spike of our own making
        echo.measure()
        _print(echo, stamped, before)
        if load is not None:
            load.report()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    for name in ("port", "token", "run", "interval", "count"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--size", type=int, default=172)
    parser.add_argument("--key-file")
    parser.add_argument("--load", help="argument list of the load to run beside it, as JSON")
    parser.add_argument("--settle", type=float, default=1.5, help="seconds that the load runs before the echo starts")
    return parser.parse_args()


def _print(echo: EchoClient, stamped: bool, before: tuple[float | None, int, int]) -> None:
    after = _host_state()
    seconds = (after[1] - before[1]) / 1e9
    pressure = None if before[0] is None or after[0] is None else (after[0] - before[0]) / seconds
    summary = {
        "kind": "echo", "count": echo.count, "interval": echo.interval, "size": echo.size, **echo.counted,
        "started_at": echo.times[0].sent_user, "columns": COLUMNS, "seconds": seconds, "pressure_ratio": pressure,
        "clock_step": after[2] - before[2], "cores": os.cpu_count(), "stamped": stamped,
    }  # fmt: skip
    print(json.dumps(summary))
    rows = [one.row() for one in echo.times]
    for at in range(0, len(rows), _ROWS_A_LINE):
        print(json.dumps({"kind": "packets", "first": at, "rows": rows[at : at + _ROWS_A_LINE]}, separators=(",", ":")))


if __name__ == "__main__":
    main()
