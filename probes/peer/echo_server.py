"""The echo responder: answers known sessions, datagram for datagram, and forgets everything else.

A session is a random token that was handed out over the control connection; without one nothing is answered, so a
forged source address gains nothing. State is bounded: `MOST_SESSIONS`, three stamps each.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from probes.peer import datagram
from probes.peer.datagram import CLOSING, FOLLOW_UPS, LARGEST, REPLY, REQUEST, SCHED, Follow, Packet

MOST_SESSIONS = 64
MOST_PACKETS_PER_SECOND = 2000
_BATCH = 64


@dataclass(slots=True)
class EchoSession:
    """One client's echo; ``run`` changes with each of its measurements."""

    run: int = -1
    seen: int = 0
    follow_ups: deque[Follow] = field(default_factory=lambda: deque(maxlen=FOLLOW_UPS))
    second: int = 0
    this_second: int = 0

    def over_rate(self) -> bool:
        now = int(time.monotonic())
        if now != self.second:
            self.second, self.this_second = now, 0
        self.this_second += 1
        return self.this_second > MOST_PACKETS_PER_SECOND


class Responder:
    """One UDP socket for all sessions. ``dropped`` counts what was not answered."""

    def __init__(self, family: int, address: Any, key: bytes) -> None:
        self.socket, self.stamped = datagram.udp_socket(family)
        try:
            self.socket.bind(address)
        except OSError:
            self.socket.close()
            raise
        self.key = key
        self.sessions: dict[int, EchoSession] = {}
        self.dropped = 0

    def open(self) -> int | None:
        """A new session's token; None when there are too many."""
        if len(self.sessions) >= MOST_SESSIONS:
            return None
        token = secrets.randbits(63) | 1
        self.sessions[token] = EchoSession()
        return token

    def serve(self) -> None:
        """Answer what has come, at most a batch of it, so that the control connections get their turn."""
        datagram.drain(self.socket)
        for _ in range(_BATCH):
            try:
                data, ancillary, _, sender = self.socket.recvmsg(LARGEST + 1, 256)
            except BlockingIOError:
                return
            except OSError:
                continue
            self._answer(data, datagram.received_at(ancillary), sender)

    def _answer(self, data: bytes, arrived: int | None, sender: Any) -> None:
        packet = datagram.unpack(data, REQUEST, self.key)
        session = self.sessions.get(packet.token) if packet else None
        if packet is None or session is None or session.over_rate():
            self.dropped += 1
            return
        if packet.run != session.run:
            session.run, session.seen = packet.run, 0
            session.follow_ups.clear()
        session.seen += packet.sequence < CLOSING
        reply = Packet(
            REPLY, packet.token, packet.run, packet.sequence, arrived or 0, time.time_ns(), session.seen,
            tuple(session.follow_ups),
        )  # fmt: skip
        # SCHED is stamped before ``sendto`` returns, so what is drained right after it belongs to this reply.
        datagram.drain(self.socket)
        try:
            self.socket.sendto(datagram.pack(reply, len(data), self.key), socket.MSG_DONTWAIT, sender)
        except OSError:
            self.dropped += 1
            return
        if stamps := [sent.nanoseconds for sent in datagram.drain(self.socket) if sent.kind == SCHED]:
            session.follow_ups.appendleft((packet.sequence, stamps[-1]))
