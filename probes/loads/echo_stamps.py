"""Kernel time stamps on a UDP socket, without privilege: when a datagram really left, and when it really came.

Source: Documentation/networking/timestamping.rst of Linux. Two stamps of a sent datagram are asked for, because each
hides something: SCHED is taken before the local queueing discipline, SND by the driver after it. Their difference is
the time spent in the local egress queue. All stamps are nanoseconds of CLOCK_REALTIME.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

SO_TIMESTAMPING = 37
_TX_SOFTWARE, _RX_SOFTWARE, _SOFTWARE = 1 << 1, 1 << 3, 1 << 4
_OPT_ID, _TX_SCHED, _OPT_TSONLY = 1 << 7, 1 << 8, 1 << 11
_FLAGS = _TX_SOFTWARE | _RX_SOFTWARE | _SOFTWARE | _OPT_ID | _TX_SCHED | _OPT_TSONLY
_TIMESPECS = struct.Struct("@qqqqqq")  # struct scm_timestamping: software, deprecated, hardware
_EXTENDED_ERROR = struct.Struct("@IBBBxII")  # struct sock_extended_err
_ORIGIN_TIMESTAMPING = 4
_ERROR_MESSAGES = {(socket.SOL_IP, 11), (41, 25)}  # IP_RECVERR, IPV6_RECVERR
_BUFFER_BYTES = 1 << 21
SND, SCHED = 0, 1


@dataclass(frozen=True, slots=True)
class Sent:
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
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, 0)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, _FLAGS)
    except OSError:
        return False
    return True


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
        stamp, error = received_at(ancillary), _error(ancillary)
        if stamp is not None and error is not None:
            found.append(Sent(error[1], error[0], stamp))


def _error(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int] | None:
    """(kind of stamp, number of the datagram)."""
    for level, kind, data in ancillary:
        if (level, kind) in _ERROR_MESSAGES and len(data) >= _EXTENDED_ERROR.size:
            fields = _EXTENDED_ERROR.unpack_from(data)
            if fields[1] == _ORIGIN_TIMESTAMPING:
                return fields[4], fields[5]
    return None
