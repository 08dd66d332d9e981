"""iperf3: the command line, and a pure reading of its JSON, versions 3.9 to 3.22.

What decides is the ``error`` key, because before 3.14 a failed run with ``-J`` ends with status 0 (esnet/iperf PR
1523). The receiver's figure is the truth: ``end.sum`` of a UDP test is the sender's (PR 1174). ``-O`` is never given
with ``-u``: before 3.14 the omitted packets were counted as lost (issue 1489).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import AliasPath, BaseModel, Field, FiniteFloat, ValidationError

from bench.errors import first_mistake
from bench.measure.probe import Failed, TimedOut
from bench.model import Code

T = TypeVar("T")
_DIRECTIONS = {"send": (), "receive": ("-R",), "both": ("--bidir",)}
_LARGEST = 10**18  # no counter or rate of a network reaches it
_MOST_DOCUMENTS = 4
#: The minor version of 3 from which each stream has a thread of its own.
_FIRST_THREADED = 16


class Iperf3Server(NamedTuple):
    """Where an iperf3 server listens, and how much it may be sent (bits per second; 0: no ceiling)."""

    host: str
    port: int
    max_bits_per_second: float = 0.0


class Flow(NamedTuple):
    """One direction of one test, as its receiver saw it. Rates in bytes a second of payload; CPU in cores.

    ``threaded``: this end's iperf3 has a thread a stream (3.16 or newer); what the other end runs it does not say.
    """

    direction: str
    bytes_per_second: float
    seconds: float
    retransmits: int | None = None
    congestion: str | None = None
    cpu_local: float = 0.0
    cpu_remote: float = 0.0
    threaded: bool = False


class Datagrams(NamedTuple):
    """One direction of a UDP test at its receiver. ``jitter_seconds`` is RFC 3550's, each value one interval's."""

    direction: str
    packets: int
    lost: int
    jitter_seconds: tuple[float, ...]
    bytes_per_second: float


def tcp_arguments(
    server: Iperf3Server, direction: str, seconds: int, omit: int, streams: int, congestion: str
) -> list[str]:
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
    server: Iperf3Server, direction: str, seconds: int, bits_per_second: float, payload: int, socket_buffer: int
) -> list[str]:
    """A paced UDP test; ``payload`` bytes a datagram, ``socket_buffer`` bytes (0: the kernel's own)."""
    rate = min(bits_per_second, server.max_bits_per_second or math.inf)
    words = [*_client(server, seconds), "-u", *_DIRECTIONS[direction], "-b", str(int(rate)), "-l", str(payload)]
    return [*words, "-w", str(socket_buffer)] if socket_buffer else words


def _client(server: Iperf3Server, seconds: int) -> list[str]:
    timeout = ["--connect-timeout", "3000"]  # milliseconds
    return ["iperf3", "-c", server.host, "-p", str(server.port), "-J", "-t", str(seconds), *timeout]


# --- its document

_Amount = Annotated[FiniteFloat, Field(ge=0, le=_LARGEST)]
_Count = Annotated[int, Field(ge=-1, le=_LARGEST)]  # -1: this end cannot tell
#: It becomes a label; Linux has no longer names (TCP_CA_NAME_MAX).
_Congestion = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,16}$")]
_CPU = ("end", "cpu_utilization_percent")


class _Sum(BaseModel, strict=True, frozen=True, defer_build=True):
    """All streams of one direction together, over the whole test or one interval. TCP has some, UDP the others."""

    seconds: _Amount | None = None
    bytes: _Amount | None = None
    bits_per_second: _Amount | None = None
    retransmits: _Count | None = None
    packets: _Amount | None = None
    lost_packets: _Amount | None = None
    jitter_ms: _Amount | None = None

    def figure(self, name: str) -> float:
        """Return the figure of that name. Raises Failed where iperf3 left it out."""
        return float(_there(getattr(self, name), name))


class _Interval(BaseModel, strict=True, frozen=True, defer_build=True):
    sum: _Sum | None = None


class Document(BaseModel, strict=True, frozen=True, defer_build=True):
    """What one test said: of iperf3's JSON what is read here, None where it is left out."""

    version: str | None = Field(None, validation_alias=AliasPath("start", "version"))
    segment: _Count | None = Field(None, validation_alias=AliasPath("start", "tcp_mss_default"))
    payload: _Amount | None = Field(None, validation_alias=AliasPath("start", "test_start", "blksize"))
    intervals: list[_Interval] = []
    sum: _Sum | None = Field(None, validation_alias=AliasPath("end", "sum"))
    sent: _Sum | None = Field(None, validation_alias=AliasPath("end", "sum_sent"))
    received: _Sum | None = Field(None, validation_alias=AliasPath("end", "sum_received"))
    sent_back: _Sum | None = Field(None, validation_alias=AliasPath("end", "sum_sent_bidir_reverse"))
    received_back: _Sum | None = Field(None, validation_alias=AliasPath("end", "sum_received_bidir_reverse"))
    congestion: _Congestion | None = Field(None, validation_alias=AliasPath("end", "sender_tcp_congestion"))
    cpu_local: _Amount | None = Field(None, validation_alias=AliasPath(*_CPU, "host_total"))
    cpu_remote: _Amount | None = Field(None, validation_alias=AliasPath(*_CPU, "remote_total"))


def _there(value: T | None, name: str) -> T:
    if value is None:
        raise Failed(Code.TOOL_OUTPUT, f"iperf3's JSON has no {name}")
    return value


def document(text: str, server: Iperf3Server, stderr: str = "") -> Document:
    """The document in iperf3's output. Raises Failed or TimedOut with one line, whose code tells what can be waited for
    (PEER_BUSY, PEER_REFUSED) or done without (SOCKET_BUFFER, CONGESTION_CONTROL).

    Some builds write text after it (issue 1143) or write it twice (issue 1716): the first one with results counts.
    3.9 says what went wrong on standard error alone.
    """
    where = f"{server.host} port {server.port}"
    found = _documents(text)
    chosen = next((one for one in found if one.get("end")), found[0] if found else {})
    told = stderr.rpartition("error - ")[2].strip() if "error - " in stderr and not chosen.get("end") else ""
    if error := chosen.get("error") or told:
        raise _failure(str(error), where)
    if not found:
        raise Failed(Code.TOOL_OUTPUT, f"iperf3 against {where} printed no JSON: {text.strip()[:120]!r}")
    if not chosen.get("end"):
        raise Failed(Code.TOOL_OUTPUT, f"iperf3 against {where} ended without a result")
    try:
        return Document.model_validate(chosen)
    except ValidationError as trouble:
        raise Failed(Code.TOOL_OUTPUT, f"iperf3 against {where}: {': '.join(first_mistake(trouble))}") from trouble


def _documents(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    decoder, at = json.JSONDecoder(object_pairs_hook=_without_doubles), text.find("{")
    with suppress(ValueError, RecursionError):
        while at >= 0 and len(found) < _MOST_DOCUMENTS:
            value, end = decoder.raw_decode(text, at)
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
        return Failed(Code.PEER_BUSY, f"the iperf3 server at {where} is running another test")
    if "refused" in low or "bad file descriptor" in low:  # the latter is what 3.9 makes of it
        return Failed(Code.PEER_REFUSED, f"nothing listens at {where}", "start `bench peer --bind ADDRESS` there")
    if "socket buffer" in low:
        return Failed(Code.SOCKET_BUFFER, error[:300])
    if "tcp_congestion" in low or "congestion control" in low:
        return Failed(Code.CONGESTION_CONTROL, error[:300])
    if "timed out" in low or "timeout" in low:
        return TimedOut(Code.PEER_TIMED_OUT, f"{where} did not answer iperf3 ({error[:200]})")
    return Failed(Code.PEER_FAILED, f"iperf3 against {where}: {error[:300]}")


def tcp_flows(doc: Document, direction: str) -> list[Flow]:
    """What arrived, one Flow a direction (two for ``both``). Raises Failed when a figure is missing or impossible."""
    if direction != "both":
        return [_flow(doc, direction, doc.sent, doc.received)]
    return [_flow(doc, "send", doc.sent, doc.received), _flow(doc, "receive", doc.sent_back, doc.received_back)]


def _flow(doc: Document, direction: str, sent: _Sum | None, received: _Sum | None) -> Flow:
    came, left = _there(received, "sum_received"), _there(sent, "sum_sent")
    seconds = came.figure("seconds")
    if seconds <= 0 or came.figure("bytes") <= 0:
        raise Failed(Code.NOTHING_ARRIVED, f"iperf3 received nothing ({direction})", "check the firewall on both ends")
    return Flow(
        direction=direction,
        bytes_per_second=came.figure("bits_per_second") / 8,
        seconds=seconds,
        retransmits=None if left.retransmits == -1 else left.retransmits,
        congestion=doc.congestion,
        cpu_local=(doc.cpu_local or 0.0) / 100,
        cpu_remote=(doc.cpu_remote or 0.0) / 100,
        threaded=_threaded(doc.version or ""),
    )


def _threaded(version: str) -> bool:
    """``iperf 3.18`` is, ``iperf 3.9`` is not."""
    found = re.match(r"iperf 3\.(\d{1,4})", version, re.ASCII)
    return found is not None and int(found[1]) >= _FIRST_THREADED


def udp_datagrams(doc: Document, direction: str) -> Datagrams:
    """A UDP test at its receiver: packets expected, packets lost, jitter. Raises Failed when nothing was sent.

    3.12 prints ``sum_received`` with the receiver's rate but the sums of packets in ``sum``; both are the receiver's.
    """
    whole = _there(doc.sum, "sum")
    counted = doc.received if doc.received is not None and doc.received.packets else whole
    packets, lost = int(counted.figure("packets")), int(counted.figure("lost_packets"))
    if packets <= 0 or lost > packets:
        text = f"{lost} of {packets} datagrams lost ({direction})"
        raise Failed(Code.NOTHING_ARRIVED, text, "check the firewall for UDP")
    jitters = [whole.figure("jitter_ms")]  # the last value, which is all that a sender is told
    if direction == "receive":
        jitters = [*(i.sum.jitter_ms for i in doc.intervals if i.sum and i.sum.jitter_ms), *jitters]
    return Datagrams(
        direction=direction,
        packets=packets,
        lost=lost,
        jitter_seconds=tuple(milliseconds / 1e3 for milliseconds in jitters),
        bytes_per_second=(packets - lost) * _there(doc.payload, "blksize") / max(whole.figure("seconds"), 1e-9),
    )


def mean_segment(docs: Sequence[Document]) -> int | None:
    """The TCP segment size that both ends agreed on, in bytes of payload; None where iperf3 does not say."""
    return next((doc.segment for doc in docs if doc.segment is not None and doc.segment > 0), None)
