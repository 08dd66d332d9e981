"""The datagrams of the paced echo. A reply is exactly as long as its request, so it can amplify nothing.

A reply carries the peer's receive stamp, its own user-space send time, how many requests of this run have come, and
the kernel's transmit stamps of the last three replies, which are known only after each of them has left (the same
idea as the follow-up telemetry of RFC 8972). All times are nanoseconds of the peer's CLOCK_REALTIME; only differences
of one clock are ever used.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

MAGIC = b"ABE1"
REQUEST, REPLY = 0, 1
FOLLOW_UPS = 3
#: Requests from this sequence on only fetch the last follow-ups; they are no part of the measurement.
CLOSING = 1 << 31
_HEAD = struct.Struct("!4sBxxxQIIqqI")  # magic kind token run sequence received_at sent_at requests_seen
_FOLLOW = struct.Struct("!Iq")  # sequence, transmit stamp
_MAC_BYTES = 16
_MAC_AT = _HEAD.size + FOLLOW_UPS * _FOLLOW.size
SMALLEST = _MAC_AT + _MAC_BYTES
LARGEST = 1472
Follow = tuple[int, int]


class Packet(NamedTuple):
    """In the order on the wire. ``follow_ups``: (sequence, nanoseconds) of earlier replies; 0 means there is none."""

    kind: int
    token: int
    run: int
    sequence: int
    received_at: int = 0
    sent_at: int = 0
    requests_seen: int = 0
    follow_ups: tuple[Follow, ...] = ()


def pack(packet: Packet, size: int, key: bytes = b"") -> bytes:
    """``size`` bytes on the wire; with a key, 16 of them are an HMAC-SHA256 over all the others."""
    data = bytearray(size)
    _HEAD.pack_into(data, 0, MAGIC, *packet[:-1])
    for place, follow in enumerate(packet.follow_ups[:FOLLOW_UPS]):
        _FOLLOW.pack_into(data, _HEAD.size + place * _FOLLOW.size, *follow)
    if key:
        data[_MAC_AT:SMALLEST] = _mac(bytes(data), key)
    return bytes(data)


def unpack(data: bytes, kind: int, key: bytes = b"") -> Packet | None:
    """The packet, or None for anything that is not one of this kind with the right key. Never raises."""
    if not SMALLEST <= len(data) <= LARGEST or data[:4] != MAGIC or data[4] != kind:
        return None
    if key and not hmac.compare_digest(data[_MAC_AT:SMALLEST], _mac(data, key)):
        return None
    follows = tuple((s, t) for s, t in _FOLLOW.iter_unpack(data[_HEAD.size : _MAC_AT]) if t)
    return Packet._make((*_HEAD.unpack_from(data)[1:], follows))


def _mac(data: bytes, key: bytes) -> bytes:
    body = data[:_MAC_AT] + bytes(_MAC_BYTES) + data[SMALLEST:]
    return hmac.new(key, body, hashlib.sha256).digest()[:_MAC_BYTES]


SO_TIMESTAMPING = 37
_TX_SOFTWARE, _RX_SOFTWARE, _SOFTWARE = 1 << 1, 1 << 3, 1 << 4
_OPT_ID, _TX_SCHED, _OPT_TSONLY = 1 << 7, 1 << 8, 1 << 11
_FLAGS = _TX_SOFTWARE | _RX_SOFTWARE | _SOFTWARE | _OPT_ID | _TX_SCHED | _OPT_TSONLY
_TIMESPECS = struct.Struct("@qqqqqq")  # struct scm_timestamping: software, deprecated, hardware
_EXTENDED_ERROR = struct.Struct("@IBBBxII")  # struct sock_extended_err
_ORIGIN_TIMESTAMPING = 4
_ERROR_MESSAGES = {(socket.SOL_IP, 11), (41, 25)}  # IP_RECVERR, IPV6_RECVERR
_BUFFER_BYTES = 1 << 21
SCHED = 1  # of SCM_TSTAMP_SND (0), SCHED and ACK (2): when it entered the egress queue


class Sent(NamedTuple):
    """One stamp of a sent datagram: its number on this socket (from 0), which kind, nanoseconds."""

    number: int
    kind: int
    nanoseconds: int


def udp_socket(family: int) -> tuple[socket.socket, bool]:
    """A UDP socket with a large buffer; True when this kernel gives it stamps. It does not block."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    return sock, restart_numbers(sock)


def restart_numbers(sock: socket.socket) -> bool:
    """Let the numbers of sent datagrams begin at 0 again; False when the kernel gives no stamps."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, 0)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, _FLAGS)
        return True
    return False


def received_at(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The kernel's receive stamp among a message's ancillary data; None when there is none."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPING and len(data) >= _TIMESPECS.size:
            seconds, nanoseconds = _TIMESPECS.unpack_from(data)[:2]
            return seconds * 10**9 + nanoseconds or None
    return None


def drain(sock: socket.socket) -> list[Sent]:
    """The stamps of sent datagrams that wait in the error queue. They must be fetched, or the queue fills up."""
    found: list[Sent] = []
    while True:
        try:
            _, ancillary, _, _ = sock.recvmsg(0, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            return found
        if (stamp := received_at(ancillary)) is None:
            continue
        for level, message, data in ancillary:
            if (level, message) in _ERROR_MESSAGES and len(data) >= _EXTENDED_ERROR.size:
                _, origin, _, _, kind, number = _EXTENDED_ERROR.unpack_from(data)
                if origin == _ORIGIN_TIMESTAMPING:
                    found.append(Sent(number, kind, stamp))
