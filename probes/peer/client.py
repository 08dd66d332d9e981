"""The near end of `bench peer`, a program of its own: hold what it gives while this lives, or ask for its counters.

Prints one JSON object on one line. ``counters``: the UDP counters of the peer's kernel, ``{"udp": {...}}``, or
``{"error": ...}``. ``lease`` and ``rdma`` (a perftest server): ``{"hello": ..., "local": ...}`` (`PeerLine`); its kind
may be peer_refused, peer_timed_out, peer_unreachable, peer_unknown, peer_garbage, peer_gone, key_needed, key_refused,
key_unusable, or what the peer itself says.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from bench.measure.jsonl import record
from probes.peer import protocol
from probes.peer.protocol import GREETING, MAX_LINE_BYTES, Greeting, PeerAnswer, PeerLine, UnusableKey, read_key

CONNECT_SECONDS = 5.0
#: A `bench peer` speaks first and at once; who is silent for so long is an idle iperf3 server, or hangs.
GREETING_SECONDS = 3.0
_IPERF3_BUSY = b"\xff"  # ACCESS_DENIED, the one byte with which a busy iperf3 server answers (esnet/iperf, iperf_api.h)


class NoPeer(Exception):
    """``str`` is ``word: sentence``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("op", choices=["lease", "rdma", "counters"])
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key-file")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--tool", help="the perftest server to lease")
    parser.add_argument("--words", help="its options, as JSON")
    asked = parser.parse_args()
    if asked.op == "counters":
        _counters(asked)
    else:
        _lease(asked)


def _counters(asked: argparse.Namespace) -> None:
    try:
        with connect(asked.host, asked.port) as sock:
            answer = greet(sock, {"op": "counters"}, read_key(asked.key_file))
        print(json.dumps({"udp": answer.udp}))
    except (NoPeer, UnusableKey, OSError) as error:
        print(json.dumps({"error": str(error)[:300]}))


def _lease(asked: argparse.Namespace) -> None:
    request = {"op": asked.op, "seconds": asked.seconds}
    if asked.op == "rdma":
        request |= {"tool": asked.tool, "words": json.loads(asked.words)}
    try:
        sock = connect(asked.host, asked.port)
    except NoPeer as error:
        _print(PeerLine(_nothing(error)))
        return
    local = protocol.interface_of(sock.getsockname()[0])
    try:
        hello = greet(sock, request, read_key(asked.key_file))
    except (NoPeer, UnusableKey, OSError) as error:
        _print(PeerLine(_nothing(error), local))
        return
    if hello.kind == "iperf3":
        sock.close()  # It serves one connection at a time, and this one is in the way.
    _print(PeerLine(hello, local))
    # The connection is the lease: it is kept until we are ended or the peer ends it.
    sock.settimeout(asked.seconds)
    with suppress(OSError):
        while sock.fileno() >= 0 and sock.recv(MAX_LINE_BYTES):
            pass


def _print(line: PeerLine) -> None:
    print(json.dumps(asdict(line)), flush=True)


def _nothing(error: NoPeer | UnusableKey | OSError) -> PeerAnswer:
    if isinstance(error, UnusableKey):
        return PeerAnswer("key_unusable", str(error))
    if isinstance(error, OSError):
        return PeerAnswer("peer_gone", f"it closed the connection ({error.strerror})")
    word, _, text = str(error).partition(": ")
    return PeerAnswer(word, text)


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


def greet(sock: socket.socket, request: dict[str, Any], key: bytes) -> PeerAnswer:
    """What is there, and what it answers. Raises NoPeer, or OSError when the connection breaks."""
    first = _line(sock, GREETING_SECONDS)
    if first in (b"", _IPERF3_BUSY):
        return PeerAnswer("iperf3")
    text = first.decode("utf-8", "replace")
    hello = record(text.removeprefix(GREETING), Greeting) if text.startswith(GREETING) else None
    if hello is None:
        raise NoPeer(f"peer_garbage: it is neither a bench peer nor an iperf3 server: it says {text[:60]!r}")
    if hello.error is not None:
        raise NoPeer(_word_first(hello.error))
    if hello.key and not key:
        raise NoPeer("key_needed: this peer asks for a key")
    sock.sendall(protocol.sign(request, hello.nonce, key))
    answer = record(_line(sock, CONNECT_SECONDS).decode("utf-8", "replace"), PeerAnswer)
    if answer is None:
        raise NoPeer("peer_garbage: it greeted like a bench peer, and then answered with something else")
    if not answer.ok:
        raise NoPeer(_word_first(answer.error))
    return replace(answer, kind="bench-peer", version=hello.version[:40])


def _word_first(error: str) -> str:
    word, _, text = " ".join(error.split())[:300].partition(": ")
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


if __name__ == "__main__":
    main()
