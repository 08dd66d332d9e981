"""A server of known service times, in a process of its own: ``python -m tests.probes.endpoint.simulated '{...}'``.

It writes down when each request arrived and when each chunk left, by the monotonic clock, which is one for the machine:
that log is the truth that a client's figures are held against. It shares no code with the client.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any


@dataclass
class Config:
    """``first``: seconds from the arrival to the first content; ``gap``: between chunks; ``size``: tokens of a chunk.

    ``stall_at``: the request at whose arrival everything stands still for ``stall`` seconds. ``omit``: this many chunks
    of each answer are logged, and not sent. ``fault``: one of those below, for each ``every``-th request
    after ``after``.
    """

    log: str = ""
    first: float = 0.02
    gap: float = 0.004
    size: int = 1
    usage: str = "end"  # or continuous, absent
    style: str = "plain"  # or crlf, tight, pings, split, together
    strict: tuple[str, ...] = ()  # fields that are refused with 400
    models: tuple[str, ...] | None = ("sim",)
    apis: tuple[str, ...] = ("chat",)
    prompt_ratio: float = 1.5  # tokens a word
    stall_at: int = 0
    stall: float = 0.0
    omit: int = 0
    slots: int = 0  # requests served at once; 0: any number
    fault: str = ""
    every: int = 1
    after: int = 0
    key: str = ""
    loading: int = 0  # answers of 503 before the model is there
    host: str = "127.0.0.1"
    certificate: str = ""


class Server:
    def __init__(self, config: Config) -> None:
        self.config, self.count, self.stalled_until = config, 0, 0.0
        self.slots = asyncio.Semaphore(config.slots) if config.slots else None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.config.fault == "not http":
                writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
                return
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.readexactly(1)
        if first == b"\x16":  # TLS, which is not spoken here
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            return False
        head = first + await reader.readuntil(b"\r\n\r\n")
        arrived = time.monotonic()
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if b"transfer-encoding: chunked" in head.lower():
            body = await _chunked(reader)
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        if self.config.key and f"Bearer {self.config.key}".encode() not in head:
            return self._plain(writer, 401, {"error": {"message": f"wrong key in {head!r}"}})
        if method not in ("GET", "POST"):
            return self._plain(writer, 405, {"detail": "Method Not Allowed"})
        if method == "GET":
            names = self.config.models
            listed = {"data": [{"id": name} for name in names or ()]}
            return self._plain(writer, 404 if names is None else 200, listed)
        asked = json.loads(body)
        return await self._completion(writer, path, asked, arrived)

    async def _completion(self, writer: asyncio.StreamWriter, path: str, asked: dict[str, Any], arrived: float) -> bool:
        config = self.config
        api = "chat" if path.endswith("/chat/completions") else "completions"
        if api not in config.apis:
            return self._plain(writer, 404, {"detail": "Not Found"})
        refused = [name for name in config.strict if name in asked or name in asked.get("stream_options", {})]
        if refused:
            return self._plain(writer, 400, {"error": {"message": f"unknown field {refused[0]}"}})
        if config.models and asked["model"] not in config.models:
            return self._plain(writer, 404, {"error": {"message": f"the model {asked['model']} does not exist"}})
        if config.loading > 0:
            config.loading -= 1
            return self._plain(writer, 503, {"error": {"message": "Loading model"}})
        self.count += 1
        number = self.count
        if number == config.stall_at:
            self.stalled_until = arrived + config.stall
        if config.fault and number > config.after and number % config.every == 0:
            return await self._fault(writer, asked, config.fault, number, arrived)
        if self.slots is None:
            return await self._serve(writer, asked, api, number, arrived)
        async with self.slots:
            return await self._serve(writer, asked, api, number, arrived)

    async def _serve(
        self, writer: asyncio.StreamWriter, asked: dict[str, Any], api: str, number: int, arrived: float,
        most: int | None = None, version: str = "1.1",
    ) -> bool:  # fmt: skip
        config, tokens = self.config, int(asked.get("max_tokens", asked.get("max_completion_tokens", 1)))
        words = len((asked.get("prompt") or asked["messages"][0]["content"]).split())
        prompt = round(words * config.prompt_ratio)
        kind = b"Transfer-Encoding: chunked\r\nConnection: keep-alive" if version == "1.1" else b"Connection: close"
        head = b"HTTP/%b 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n%b\r\n\r\n"
        writer.write(head % (version.encode(), kind))
        send = Sender(writer, config.style, chunked=version == "1.1")
        began = time.monotonic()
        if api == "chat":
            send.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]})
        sent: list[float] = []
        left, done = tokens, 0
        due = began + config.first
        while left > 0 and (most is None or len(sent) < most):
            await _until(max(due, self.stalled_until))
            now, size = time.monotonic(), min(config.size, left)
            done, left = done + size, left - size
            chunk: dict[str, Any] = {"choices": [_choice(api, "naïve 模型 " * size)]}
            if config.usage == "continuous":
                chunk["usage"] = {"prompt_tokens": prompt, "completion_tokens": done}
            if len(sent) >= config.omit:
                send.event(chunk)
            sent.append(now)
            due = now + config.gap * size if self.stalled_until <= now else due + config.gap * size
        if most is not None:
            return False
        send.event({"choices": [{**_choice(api, ""), "finish_reason": "length"}]})
        if config.usage != "absent" and "include_usage" in asked.get("stream_options", {}):
            send.event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": tokens}})
        send.end()
        with open(config.log, "a") as log:
            log.write(
                json.dumps({"n": number, "arrived": arrived, "chunks": sent, "tokens": tokens, "prompt": prompt}) + "\n"
            )
        await writer.drain()
        return version == "1.1"

    def _plain(self, writer: asyncio.StreamWriter, status: int, value: Any, more: str = "") -> bool:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        writer.write(head.encode() + body)
        return True

    async def _fault(
        self, writer: asyncio.StreamWriter, asked: dict[str, Any], fault: str, number: int, arrived: float
    ) -> bool:
        if (status := re.fullmatch(r"status (\d+)", fault)) is not None:
            more = "Retry-After: 3\r\n" if status[1] == "429" else ""
            more += "Location: http://127.0.0.1:9/elsewhere?token=1\r\n" if status[1].startswith("3") else ""
            return self._plain(writer, int(status[1]), {"error": {"message": "it is so"}}, more)
        if fault == "tells the key":
            said = f"wrong key {self.config.key}, {self.config.key[:9]}***"
            writer.write(STREAM + EVENT + b'data: {"error": {"message": "%b"}}\n\n' % said.encode())
            await writer.drain()
        elif fault in SAID_AT_ONCE:
            writer.write(SAID_AT_ONCE[fault])
            await writer.drain()
        elif fault in HANGS:
            begin, again = HANGS[fault]
            writer.write(begin)
            for _ in range(600):
                await asyncio.sleep(0.1)
                writer.write(again)
                await writer.drain()
        elif fault == "endless":
            writer.write(STREAM)
            for _ in range(100_000):
                writer.write(EVENT)
                await writer.drain()
        elif fault == "http/1.0":
            return await self._serve(writer, asked, "chat", number, arrived, version="1.0")
        elif fault == "torn":
            await self._serve(writer, asked, "chat", number, arrived, most=3)
        else:
            await self._reset(writer, asked, fault, number, arrived)
        return False

    async def _reset(
        self, writer: asyncio.StreamWriter, asked: dict[str, Any], fault: str, number: int, arrived: float
    ) -> None:
        if fault == "reset in the stream":
            await self._serve(writer, asked, "chat", number, arrived, most=3)
        if fault == "reset in the headers":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Ty")
        await writer.drain()
        await asyncio.sleep(0.02)
        _reset(writer)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
EVENT = b'data: {"choices": [{"delta": {"content": "word"}}]}\n\n'
SAID_AT_ONCE = {
    "html": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "garbage events": STREAM + b"data: {not json}\n\n",
    "no object": STREAM + b"data: [1, 2]\n\n",
    "long line": STREAM + b"data: " + b"x" * (10 << 20),
    "gzip bomb": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
    b"Connection: close\r\n\r\n" + gzip.compress(bytes(32 << 20)),
    "error in the stream": STREAM + EVENT + b'data: {"error": {"message": "out of memory"}}\n\n',
    "no content": STREAM + b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\ndata: [DONE]\n\n',
    "broken http": b"NONSENSE\r\n\r\n",
    "long header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
}
#: What is written first, and again and again.
HANGS = {
    "hangs": (b"", b""),
    "hangs in the stream": (STREAM + EVENT, b""),
    "slow headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
}


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def _choice(api: str, text: str) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}} if api == "chat" else {"index": 0, "text": text}


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Sender:
    """Events as servers write them."""

    def __init__(self, writer: asyncio.StreamWriter, style: str, chunked: bool) -> None:
        self.writer, self.style, self.chunked = writer, style, chunked
        self.end_of_line = b"\r\n" if style == "crlf" else b"\n"

    def event(self, value: dict[str, Any]) -> None:
        named = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "sim", **value}
        self._data(json.dumps(named, ensure_ascii=False).encode())

    def end(self) -> None:
        self._data(b"[DONE]")
        if self.chunked:
            self.writer.write(b"0\r\n\r\n")

    def _data(self, data: bytes) -> None:
        name = b"data:" if self.style == "tight" else b"data: "
        text = name + data + 2 * self.end_of_line
        if self.style == "pings":
            text = b": ping" + 2 * self.end_of_line + text
        cut = data.find("ï".encode()) + len(name) + 1 if self.style == "split" else 0
        for part in (text[:cut], text[cut:]) if cut > len(name) else (text,):
            self.writer.write(b"%x\r\n%b\r\n" % (len(part), part) if self.chunked else part)


async def _until(moment: float) -> None:
    while (left := moment - time.monotonic()) > 0:
        await asyncio.sleep(left)


async def main(config: Config) -> None:
    context = None
    if config.certificate:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config.certificate)
    server = await asyncio.start_server(Server(config).connected, config.host, 0, ssl=context, backlog=1024)
    print(f"simulated on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Config(**json.loads(sys.argv[1]))))
