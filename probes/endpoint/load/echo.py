"""The client's own echo: a server on loopback that answers any request with a stream whose chunks say when they left.

Each chunk's usage holds the microseconds of the monotonic clock at which it was written, which is one clock for all
processes of a machine. The request's ``max_tokens`` is the number of chunks, its ``user`` the seconds between two of
them. It is in a process of its own, so that it takes nothing of the client's time; it is no HTTP server beyond that.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
READY = "echo on port"


class Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self._read = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return
        self._read = b""
        asked = json.loads(body)
        assert self._transport is not None
        self._transport.write(_HEAD)
        self._send(int(asked["max_tokens"]), float(asked["user"]), asyncio.get_running_loop().time())

    def _send(self, left: int, gap: float, due: float) -> None:
        if self._transport is None:
            return
        said = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"completion_tokens":%d}}\n\n'
        self._transport.write(_chunk(said % (time.monotonic_ns() // 1000)))
        if left > 1:
            asyncio.get_running_loop().call_at(due + gap, self._send, left - 1, gap, due + gap)
        else:
            self._transport.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=1024)
    print(f"{READY} {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(serve()))
