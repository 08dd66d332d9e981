"""The near end of a lease: find out what answers at an address, and hold a `bench peer`'s servers while this lives.

Prints one JSON object on one line, ``{"hello": ..., "local": ...}``. Its ``kind`` is ``bench-peer`` (with its lease),
``iperf3`` (an iperf3 server, idle or busy), or a machine-readable word for why there is nothing to measure against:
peer_refused, peer_timed_out, peer_unreachable, peer_unknown, peer_garbage, peer_gone, key_refused.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import time
from typing import Any

from bench.measure.jsonl import decoded
from probes.peer.protocol import GREETING, MAX_LINE_BYTES, UnusableKey, interface_of, read_key, sign

CONNECT_SECONDS = 5.0
#: A `bench peer` speaks first and at once; who is silent for so long is an idle iperf3 server, or hangs.
GREETING_SECONDS = 3.0
_IPERF3_BUSY = b"\xff"  # ACCESS_DENIED, the one byte with which a busy iperf3 server answers (esnet/iperf, iperf_api.h)


class NoPeer(Exception):
    """``str`` is ``word: sentence``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--key-file")
    parser.add_argument("--tool", help="lease a perftest server of this kind instead")
    parser.add_argument("--words", default="[]", help="its options, as JSON")
    asked = parser.parse_args()
    try:
        sock = connect(asked.host, asked.port)
    except NoPeer as error:
        _print(_nothing(error))
        return
    local = interface_of(sock.getsockname()[0])
    try:
        hello = greet(sock, _request(asked), read_key(asked.key_file))
    except (NoPeer, UnusableKey) as error:
        _print(_nothing(error) | {"local": local})
        return
    except OSError as error:
        _print(_nothing(NoPeer(f"peer_gone: it closed the connection ({error.strerror})")) | {"local": local})
        return
    if hello["kind"] == "iperf3":
        sock.close()  # It serves one connection at a time, and this one is in the way.
    _print({"hello": hello, "local": local, "address": _peer_address(sock, asked.host)})
    _hold(sock, asked.seconds)


def _request(asked: argparse.Namespace) -> dict[str, Any]:
    if asked.tool:
        return {"op": "rdma", "seconds": asked.seconds, "tool": asked.tool, "words": json.loads(asked.words)}
    return {"op": "lease", "seconds": asked.seconds}


def _print(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _nothing(error: Exception) -> dict[str, Any]:
    word, _, text = str(error).partition(": ")
    return {"hello": {"kind": word, "error": text} if text else {"kind": "key_unusable", "error": word}}


def _peer_address(sock: socket.socket, host: str) -> str:
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return host


def connect(host: str, port: int) -> socket.socket:
    """A TCP connection. Raises NoPeer."""
    where = f"{host} port {port}"
    try:
        return socket.create_connection((host, port), CONNECT_SECONDS)
    except socket.gaierror as error:
        raise NoPeer(f"peer_unknown: the name {host} cannot be resolved ({error.strerror})") from error
    except ConnectionRefusedError as error:
        raise NoPeer(f"peer_refused: nothing listens at {where}") from error
    except TimeoutError as error:
        raise NoPeer(f"peer_timed_out: {where} did not answer within {CONNECT_SECONDS:.0f} s") from error
    except OSError as error:
        words = os.strerror(error.errno) if error.errno else str(error)
        word = "peer_timed_out" if error.errno == errno.ETIMEDOUT else "peer_unreachable"
        raise NoPeer(f"{word}: {where}: {words}") from error


def greet(sock: socket.socket, request: dict[str, Any], key: bytes) -> dict[str, Any]:
    """What is there: ``{"kind": "iperf3"}``, or ``{"kind": "bench-peer", **answer}``. Raises NoPeer."""
    first = _line(sock, GREETING_SECONDS)
    if first in (b"", _IPERF3_BUSY):
        return {"kind": "iperf3"}
    text = first.decode("utf-8", "replace")
    hello = decoded(text.removeprefix(GREETING)) if text.startswith(GREETING) else None
    if hello is None:
        raise NoPeer(f"peer_garbage: it is neither a bench peer nor an iperf3 server: it says {text[:60]!r}")
    if "error" in hello:
        raise NoPeer(_one_line(hello["error"]))
    if hello.get("key") and not key:
        raise NoPeer("key_needed: this peer asks for a key")
    sock.sendall(sign(request, str(hello.get("nonce")), key))
    answer = decoded(_line(sock, CONNECT_SECONDS))
    if answer is None:
        raise NoPeer("peer_garbage: it greeted like a bench peer, and then answered with something else")
    if not answer.get("ok"):
        raise NoPeer(_one_line(answer.get("error")))
    return {"kind": "bench-peer", "version": str(hello.get("version"))[:40], **answer}


def _one_line(error: Any) -> str:
    word, _, text = " ".join(str(error).split())[:300].partition(": ")
    return f"{word}: {text}" if text else f"peer_refused: {word}"


def _line(sock: socket.socket, seconds: float) -> bytes:
    """What it says within the time, up to a newline; the busy byte of iperf3 comes without one."""
    data, end = b"", time.monotonic() + seconds
    while b"\n" not in data and data != _IPERF3_BUSY and len(data) <= MAX_LINE_BYTES:
        left = end - time.monotonic()
        if left <= 0:
            break
        sock.settimeout(left)
        try:
            chunk = sock.recv(MAX_LINE_BYTES)
        except TimeoutError:
            break
        except OSError as error:
            raise NoPeer(f"peer_gone: it closed the connection ({error.strerror})") from error
        if not chunk:
            if not data:
                raise NoPeer("peer_gone: it closed the connection without a word")
            break
        data += chunk
    return data.partition(b"\n")[0]


def _hold(sock: socket.socket, seconds: float) -> None:
    """Keep the connection, and with it the lease, until we are ended or the peer ends it."""
    sock.settimeout(seconds)
    try:
        while sock.fileno() >= 0 and sock.recv(MAX_LINE_BYTES):
            pass
    except OSError:
        return


if __name__ == "__main__":
    main()
