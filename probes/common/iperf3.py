"""iperf3: the command line, and a pure reading of its JSON, versions 3.9 to 3.21.

What decides is the ``error`` key, because before 3.14 a failed run with ``-J`` ends with status 0 (esnet/iperf PR
1523). The receiver's figure is the truth: ``end.sum`` of a UDP test is the sender's (PR 1174). ``-O`` is never given
with ``-u``: before 3.14 the omitted packets were counted as lost (issue 1489).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.measure.probe import Failed, TimedOut
from bench.model import Code

#: Ethernet + IPv4 + UDP headers beside a datagram's payload, in bytes (RFC 768, RFC 791, IEEE 802.3 without FCS).
UDP_HEADERS = 14 + 20 + 8
_DIRECTIONS = {"send": (), "receive": ("-R",), "both": ("--bidir",)}
_MEGA = 1_000_000
_LARGEST = 1e18  # no counter or rate of a network reaches it


class Busy(Failed):
    """The server is running somebody else's test: worth waiting for."""


class Refused(Failed):
    """Nobody listens: an absent server, or one that is being started anew."""


class NoSocketBuffer(Failed):
    """The asked-for socket buffer is more than one of the two kernels gives."""


class NoCongestionControl(Failed):
    """The asked-for congestion control is not loaded on one of the two ends."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where an iperf3 server listens, and how much it may be sent (bits per second; 0: no ceiling)."""

    host: str
    port: int
    max_bits_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of one test, as its receiver saw it. Rates in bytes a second of payload; CPU in cores."""

    direction: str
    bytes_per_second: float
    seconds: float
    retransmits: int | None = None
    segments: float | None = None
    congestion: str | None = None
    cpu_local: float = 0.0
    cpu_remote: float = 0.0


@dataclass(frozen=True, slots=True)
class Datagrams:
    """One direction of a UDP test at its receiver. ``jitter_seconds`` is RFC 3550's, each value one interval's."""

    direction: str
    packets: int
    lost: int
    jitter_seconds: tuple[float, ...]
    bytes_per_second: float
    seconds: float


def tcp_arguments(server: Server, direction: str, seconds: int, omit: int, streams: int, congestion: str) -> list[str]:
    """``direction`` is ``send``, ``receive`` or ``both``; seconds are whole ones, which is all that 3.12 takes."""
    words = [*_client(server, seconds), *_DIRECTIONS[direction], "-P", str(streams)]
    if omit:
        words += ["-O", str(omit)]
    if congestion:
        words += ["-C", congestion]
    if server.max_bits_per_second:
        words += ["-b", str(int(server.max_bits_per_second * 0.95 / streams))]
    return words


def udp_arguments(
    server: Server, direction: str, seconds: int, bits_per_second: float, payload: int, socket_buffer: int
) -> list[str]:
    """A paced UDP test; ``payload`` bytes a datagram, ``socket_buffer`` bytes (0: the kernel's own)."""
    rate = min(bits_per_second, server.max_bits_per_second or math.inf)
    words = [*_client(server, seconds), "-u", *_DIRECTIONS[direction], "-b", str(int(rate)), "-l", str(payload)]
    return [*words, "-w", str(socket_buffer)] if socket_buffer else words


def _client(server: Server, seconds: int) -> list[str]:
    timeout = ["--connect-timeout", "3000"]  # milliseconds
    return ["iperf3", "-c", server.host, "-p", str(server.port), "-J", "-t", str(seconds), *timeout]


def document(text: str, server: Server, stderr: str = "") -> dict[str, Any]:
    """The JSON document in iperf3's output. Raises Failed (or one of its kinds above) with one line.

    Some builds write text after it (issue 1143) or write it twice (issue 1716): the first one with results counts.
    3.9 says what went wrong on standard error alone.
    """
    where = f"{server.host} port {server.port}"
    found = _documents(text)
    said = stderr.rpartition("error - ")[2].strip() if "error - " in stderr else ""
    if said and not any(d.get("end") or d.get("error") for d in found):
        raise _failure(said, where)
    if not found:
        raise Failed(Code.TOOL_OUTPUT, f"iperf3 against {where} printed no JSON: {text.strip()[:120]!r}")
    chosen = next((d for d in found if d.get("end")), found[0])
    error = chosen.get("error")
    if error:
        raise _failure(str(error), where)
    if not isinstance(chosen.get("end"), dict) or not chosen["end"]:
        raise Failed(Code.TOOL_OUTPUT, f"iperf3 against {where} ended without a result")
    return chosen


def _documents(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    decoder, at = json.JSONDecoder(object_pairs_hook=_without_doubles), text.find("{")
    while at >= 0 and len(found) < 4:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return found
        if isinstance(value, dict):
            found.append(value)
        at = text.find("{", end)
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Before 3.11 a test in both directions wrote the second one under the first one's names (issue 952)."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[f"{key}_bidir_reverse" if key in found and key.startswith("sum_") else key] = value
    return found


def _failure(error: str, where: str) -> Failed | TimedOut:
    low = error.lower()
    if "busy" in low or "control message: broken pipe" in low:  # it closed before we had read why
        return Busy(Code.PEER_BUSY, f"the iperf3 server at {where} is running another test")
    if "refused" in low or "bad file descriptor" in low:  # the latter is what 3.9 makes of it
        return Refused(Code.PEER_REFUSED, f"nothing listens at {where}", "start `bench peer --bind ADDRESS` there")
    if "socket buffer" in low:
        return NoSocketBuffer(Code.SOCKET_BUFFER, str(error))
    if "tcp_congestion" in low or "congestion control" in low:
        return NoCongestionControl(Code.CONGESTION_CONTROL, str(error))
    if "timed out" in low or "timeout" in low:
        return TimedOut(Code.PEER_TIMED_OUT, f"{where} did not answer iperf3 ({error[:200]})")
    return Failed(Code.PEER_FAILED, f"iperf3 against {where}: {error[:300]}")


def tcp_flows(doc: dict[str, Any], direction: str) -> list[Flow]:
    """What arrived, one Flow a direction (two for ``both``). Raises Failed when a figure is missing or impossible."""
    end = doc["end"]
    flows = [_flow(end, "", "send" if direction == "both" else direction)]
    if direction == "both":
        flows.append(_flow(end, "_bidir_reverse", "receive"))
    return flows


def _flow(end: dict[str, Any], suffix: str, direction: str) -> Flow:
    received, sent = _part(end, "sum_received" + suffix), _part(end, "sum_sent" + suffix)
    seconds, rate = _number(received, "seconds"), _number(received, "bits_per_second") / 8
    if seconds <= 0 or _number(received, "bytes") <= 0:
        raise Failed(Code.NOTHING_ARRIVED, f"iperf3 received nothing ({direction})", "check the firewall on both ends")
    retransmits = sent.get("retransmits")
    cpu = end.get("cpu_utilization_percent") or {}
    return Flow(
        direction=direction,
        bytes_per_second=rate,
        seconds=seconds,
        retransmits=int(retransmits) if isinstance(retransmits, int) and retransmits >= 0 else None,
        congestion=end.get("sender_tcp_congestion"),
        cpu_local=float(cpu.get("host_total") or 0.0) / 100,
        cpu_remote=float(cpu.get("remote_total") or 0.0) / 100,
    )


def udp_datagrams(doc: dict[str, Any], direction: str) -> Datagrams:
    """A UDP test at its receiver: packets expected, packets lost, jitter. Raises Failed when nothing was sent.

    3.12 prints ``sum_received`` with the receiver's rate but the sums of packets in ``sum``; both are the receiver's.
    """
    end = doc["end"]
    whole = _part(end, "sum")
    received = end.get("sum_received") or whole
    packets = int(_number(received if received.get("packets") else whole, "packets"))
    lost = int(_number(received if received.get("packets") else whole, "lost_packets"))
    if packets <= 0 or not 0 <= lost <= packets:
        raise Failed(
            Code.NOTHING_ARRIVED, f"{lost} of {packets} datagrams lost ({direction})", "check the firewall for UDP"
        )
    return Datagrams(
        direction=direction,
        packets=packets,
        lost=lost,
        jitter_seconds=_jitters(doc, direction, _number(whole, "jitter_ms") / 1e3),
        bytes_per_second=(packets - lost) * _payload(doc) / max(_number(whole, "seconds"), 1e-9),
        seconds=_number(whole, "seconds"),
    )


def _jitters(doc: dict[str, Any], direction: str, last: float) -> tuple[float, ...]:
    """Each interval's jitter when the client received, and always the last value, which is all a sender is told."""
    if direction != "receive":
        return (last,)
    values = [_part(i, "sum").get("jitter_ms") for i in doc.get("intervals", ()) if isinstance(i, dict)]
    return (*(float(v) / 1e3 for v in values if isinstance(v, int | float) and math.isfinite(v) and v > 0), last)


def _payload(doc: dict[str, Any]) -> float:
    return _number(_part(_part(doc, "start"), "test_start"), "blksize")


def _part(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    if not isinstance(found, dict):
        raise Failed(Code.TOOL_OUTPUT, f"iperf3's JSON has no {key}")
    return found


def _number(value: dict[str, Any], key: str) -> float:
    found = value.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= _LARGEST:
        raise Failed(Code.TOOL_OUTPUT, f"iperf3's JSON has no sound {key}: {str(found)[:40]}")
    return float(found)


def mean_segment(docs: Sequence[dict[str, Any]]) -> int | None:
    """The TCP segment size that both ends agreed on, in bytes of payload; None where iperf3 does not say."""
    sizes = [doc.get("start", {}).get("tcp_mss_default") for doc in docs]
    return next((int(size) for size in sizes if isinstance(size, int) and size > 0), None)


def bits(text: str) -> float:
    """``500M`` or ``1.5G`` as bits per second (decimal, as iperf3 counts rates). Raises ValueError."""
    factor = {"K": 1e3, "M": _MEGA, "G": 1e9, "T": 1e12}.get(text[-1:].upper(), 1.0)
    value = float(text if factor == 1.0 else text[:-1]) * factor
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{text!r} is not a rate above 0")
    return value
