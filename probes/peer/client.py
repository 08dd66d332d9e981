"""The near end of `bench peer`, a program of its own: hold what it gives while this lives, or ask for its counters.

Prints one JSON object on one line. ``counters``: the UDP counters of the peer's kernel, ``{"udp": {...}}``, or
``{"error": ...}``. ``lease`` and ``rdma`` (a perftest server): ``{"hello": ..., "local": ...}`` (`PeerLine`); its kind
may be peer_refused, peer_timed_out, peer_unreachable, peer_unknown, peer_garbage, peer_gone, key_needed, key_refused,
key_unusable, or what the peer itself says.
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from typing import Any

from bench.measure.jsonl import record
from probes.peer import protocol
from probes.peer.protocol import GREETING, MAX_LINE_BYTES, Greeting, Interface, PeerAnswer, PeerLine, UnusableKey

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
    parser.add_argument("--words", type=json.loads, help="its options, as JSON")
    asked = parser.parse_args()
    local, here = Interface(), False
    request = {name: getattr(asked, name) for name in ("op", "seconds", "tool", "words")}
    with ExitStack() as connection:
        try:
            sock = connection.enter_context(connect(asked.host, asked.port))
            own, other = sock.getsockname()[0], sock.getpeername()[0]
            local, here = protocol.interface_of(own), own == other or protocol.is_loopback(own)
            hello = greet(sock, request, protocol.read_key(asked.key_file))
        except UnusableKey as error:
            hello = PeerAnswer("key_unusable", str(error))
        except OSError as error:
            hello = PeerAnswer("peer_gone", f"it closed the connection ({error.strerror})")
        except NoPeer as error:
            word, _, text = str(error).partition(": ")
            hello = PeerAnswer(word, text)
        if asked.op == "counters":
            print(json.dumps({"udp": hello.udp} if hello.ok else {"error": f"{hello.kind}: {hello.error}"[:300]}))
            return
        print(json.dumps(asdict(PeerLine(hello, local, here))), flush=True)
        # The connection is the lease: it is kept until we are ended or the peer ends it. An iperf3 server serves one
        # connection at a time, and this one would be in the way.
        if hello.kind == "bench-peer":
            sock.settimeout(asked.seconds)
            with suppress(OSError):
                while sock.recv(MAX_LINE_BYTES):
                    pass


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
        raise NoPeer(f"peer_unreachable: {where}: {error.strerror or error}") from error


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
    if (answer := record(_line(sock, CONNECT_SECONDS).decode("utf-8", "replace"), PeerAnswer)) is None:
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
        sock.settimeout(max(end - time.monotonic(), 0.001))
        try:
            chunk = sock.recv(MAX_LINE_BYTES)
        except TimeoutError:
            break
        except OSError as error:
            raise NoPeer(f"peer_gone: it closed the connection ({error.strerror})") from error
        if not chunk and not data:
            raise NoPeer("peer_gone: it closed the connection without a word")
        if not chunk:
            break
        data += chunk
    return data.partition(b"\n")[0]


if __name__ == "__main__":
    main()
