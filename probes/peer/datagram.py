"""The datagrams of the paced echo. A reply is exactly as long as its request, so it can amplify nothing.

A reply carries the peer's receive stamp, its own user-space send time, how many requests of this run have come, and
the kernel's transmit stamps of the last three replies, which are known only after each of them has left (the same
idea as the follow-up telemetry of RFC 8972). All times are nanoseconds of the peer's CLOCK_REALTIME; only differences
of one clock are ever used.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Packet:
    """``follow_ups``: (sequence, nanoseconds) of earlier replies; 0 nanoseconds means that there is none."""

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
    _HEAD.pack_into(
        data, 0, MAGIC, packet.kind, packet.token, packet.run, packet.sequence,
        packet.received_at, packet.sent_at, packet.requests_seen,
    )  # fmt: skip
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
    _, _, token, run, sequence, received_at, sent_at, seen = _HEAD.unpack_from(data)
    follows = tuple(_FOLLOW.unpack_from(data, _HEAD.size + i * _FOLLOW.size) for i in range(FOLLOW_UPS))
    return Packet(kind, token, run, sequence, received_at, sent_at, seen, tuple((s, t) for s, t in follows if t))


def _mac(data: bytes, key: bytes) -> bytes:
    body = data[:_MAC_AT] + bytes(_MAC_BYTES) + data[SMALLEST:]
    return hmac.new(key, body, hashlib.sha256).digest()[:_MAC_BYTES]
