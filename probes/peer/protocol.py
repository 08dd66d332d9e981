"""What a node and its `bench peer` say to each other over TCP: lines of JSON, the peer speaks first.

The peer's first line begins with `GREETING` and carries a nonce. Every request of the node is one JSON object; when
the peer has a key, its ``mac`` is HMAC-SHA256(key, nonce + the request without it), so that it cannot be replayed.
A lease (an iperf3 server and an echo session) lives exactly as long as its connection.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from bench.measure.jsonl import decoded
from bench.measure.procfs import read
from probes.common.windows import finite

GREETING = "aiready-bench-peer/1 "
DEFAULT_PORT = 5201
LOOPBACK = "127.0.0.1"
MAX_LINE_BYTES = 4096
MAX_LEASE_SECONDS = 4 * 3600.0
_Port = Annotated[int, Field(ge=1, le=65535)]


@dataclass(frozen=True, slots=True)
class Greeting:
    """The peer's first line behind `GREETING`: what to sign with, or why it refuses us (``word: sentence``)."""

    nonce: str = ""
    key: bool = False
    version: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Interface:
    """One of this node's; all unknown when none has the address. ``bits_per_second`` only where a real device says so.

    Virtual interfaces (veth, tun, bridge) report speeds that nobody keeps, so only a device on a bus counts.
    """

    name: str = ""
    mtu: int | None = None
    bits_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What answers at an address: a ``bench-peer`` with what it gives for the request, or an idle or busy ``iperf3``.

    Any other ``kind`` is a machine-readable word for why there is nothing to measure against; ``error`` explains it.
    """

    kind: str = "bench-peer"
    error: str = ""
    ok: bool = False
    version: str = ""
    token: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    echo_port: _Port | None = None
    iperf3_port: _Port | None = None
    iperf3_problem: str | None = None
    max_bits_per_second: Annotated[float, Field(ge=0)] = 0.0
    port: _Port | None = None  # a perftest server's
    udp: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PeerLine:
    """What the program of a lease prints: who answered, and over which interface of this node.

    ``here``: the peer is this very machine, so that nothing between them is a network.
    """

    hello: PeerAnswer
    local: Interface = Interface()
    here: bool = False


@dataclass(frozen=True, slots=True)
class LoopbackLine:
    """What a peer on this node's own loopback prints when it is ready: its port."""

    loopback: _Port


class UnusableKey(ValueError):
    """A key file that cannot be used; the message is one line with its path."""


def address(text: str) -> tuple[str, int]:
    """``HOST``, ``HOST:PORT``, ``[IPv6]:PORT`` or a bare IPv6 address. Raises ValueError with one line."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    number = int(port) if port.isascii() and port.isdigit() else (DEFAULT_PORT if not port else 0)
    if not host or not 1 <= number <= 65535:
        raise ValueError(f"{text!r} is not HOST[:PORT]; write an IPv6 address with a port as [ADDRESS]:PORT")
    return host, number


def read_key(path: str | None) -> bytes:
    """The key's bytes, white space at both ends removed; empty for no path. Raises UnusableKey."""
    if not path:
        return b""
    try:
        key = Path(path).read_bytes()[:65536].strip()
    except OSError as error:
        raise UnusableKey(f"{path}: {error.strerror}; give a file that holds the key") from error
    if len(key) < 16:
        raise UnusableKey(f"{path}: a key needs at least 16 bytes: make one with `openssl rand -hex 32`")
    return key


def sign(request: dict[str, Any], nonce: str, key: bytes) -> bytes:
    """One line to send."""
    signed = {**request, "mac": _mac(request, nonce, key)} if key else request
    return json.dumps(signed).encode() + b"\n"


def verify(line: bytes, nonce: str, key: bytes) -> dict[str, Any] | None:
    """The request, or None when it is no JSON object or was not signed with this key for this nonce."""
    if (request := decoded(line)) is None:
        return None
    mac = request.pop("mac", None)
    if key and not (isinstance(mac, str) and hmac.compare_digest(mac.encode(), _mac(request, nonce, key).encode())):
        return None
    return request


def number(value: Any, low: float, high: float) -> float | None:
    """``value`` as a number within bounds, or None."""
    found = finite(value)
    return found if found is not None and low <= found <= high else None


def _mac(request: dict[str, Any], nonce: str, key: bytes) -> str:
    body = nonce.encode() + json.dumps(request, sort_keys=True).encode()
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def udp_counters() -> dict[str, int]:
    """IPv4 and IPv6 UDP counters of this network namespace, ``RcvbufErrors`` among them; empty where there are none."""
    found = Counter(counters(read("/proc/net/snmp"), "Udp"))
    found.update(counters(read("/proc/net/snmp6"), "Udp6"))
    return dict(found)


def counters(text: str, prefix: str) -> dict[str, int]:
    """``/proc/net/snmp`` has a line of names and a line of values; ``/proc/net/snmp6`` a name and a value a line."""
    lines = [line.split() for line in text.splitlines()]
    rows = [words[1:] for words in lines if words and words[0] == f"{prefix}:"]
    if len(rows) == 2:
        return {name: int(value) for name, value in zip(*rows, strict=False) if value.lstrip("-").isdigit()}
    return {w[0].removeprefix(prefix): int(w[1]) for w in lines if len(w) == 2 and w[0].startswith(prefix)}


def is_loopback(address: str) -> bool:
    """Does it never leave this machine?"""
    return ip_address(address.partition("%")[0].removeprefix("::ffff:")).is_loopback


def interface_of(address: str) -> Interface:
    """Return the interface that has the address."""
    import psutil

    plain = address.partition("%")[0].removeprefix("::ffff:")
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == plain for entry in addresses):
            state, real = psutil.net_if_stats()[name], Path("/sys/class/net", name, "device").exists()
            return Interface(name, state.mtu, state.speed * 1_000_000 or None if real else None)
    return Interface()
