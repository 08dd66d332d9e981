"""What a node and its `bench peer` say to each other over TCP: lines of JSON, the peer speaks first.

The peer's first line begins with `GREETING` and carries a nonce. Every request of the node is one JSON object; when
the peer has a key, its ``mac`` is HMAC-SHA256(key, nonce + the request without it), so that it cannot be replayed.
A lease (an iperf3 server and an echo session) lives exactly as long as its connection.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from pathlib import Path
from typing import Any

from bench.measure.jsonl import decoded

GREETING = "aiready-bench-peer/1 "
DEFAULT_PORT = 5201
MAX_LINE_BYTES = 4096
MAX_LEASE_SECONDS = 4 * 3600.0


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
    request = decoded(line)
    if request is None:
        return None
    mac = request.pop("mac", None)
    if key and not (isinstance(mac, str) and hmac.compare_digest(mac.encode(), _mac(request, nonce, key).encode())):
        return None
    return request


def number(value: Any, low: float, high: float) -> float | None:
    """``value`` as a number within bounds, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if low <= value <= high else None


def _mac(request: dict[str, Any], nonce: str, key: bytes) -> str:
    body = nonce.encode() + json.dumps(request, sort_keys=True).encode()
    return hmac.new(key, body, hashlib.sha256).hexdigest()
