"""A service that does as it is told: `python -m tests.probes.service.server JSON`. Prints its port, logs requests.

``fault``: what it does with each ``every``-th request (of all, from ``after`` on); ``delay``: seconds before an answer.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import sys
from itertools import count
from typing import Any

BODY = json.dumps({"records": [{"id": 7, "a/b": "kept to itself: s3cr3t-answer"}]}).encode()


class Server:
    def __init__(self, told: dict[str, Any]) -> None:
        self.told, self.numbers, self.log = told, count(1), open(told["log"], "a") if "log" in told else None  # noqa: SIM115

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = next(self.connections)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length")), 0
                )
                body = await reader.readexactly(length)
                n = next(self.numbers)
                if self.log:
                    self.log.write(
                        json.dumps({"n": n, "connection": peer, "head": head.decode(), "body": body.decode()}) + "\n"
                    )
                    self.log.flush()
                await asyncio.sleep(self.told.get("delay", 0.0))
                every = self.told.get("every", 1)
                fault = self.told.get("fault", "") if n > self.told.get("after", 0) and n % every == 0 else ""
                if not await self.answer(fault, head, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    connections = count(1)

    async def answer(self, fault: str, head: bytes, writer: asyncio.StreamWriter) -> bool:  # noqa: C901
        """False: the connection ends."""
        status, headers, body = 200, b"", BODY
        if fault.startswith("status "):
            status = int(fault.split()[1])
            headers = (
                f"Location: {self.told['location']}\r\n".encode() if "location" in self.told and status < 400 else b""
            )
        elif fault == "to itself" and b" /there " not in head:
            status, headers = 302, b"Location: /there\r\n"
        elif fault == "no pointer":
            body = b'{"records": []}'
        elif fault == "no json":
            body = b"<html>s3cr3t-answer</html>"
        elif fault == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        elif fault == "slow headers":
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        elif fault == "hangs":
            await asyncio.sleep(3600)
        elif fault == "torn":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nhalf")
            await writer.drain()
            return False
        elif fault == "large":
            body = b'"' + b"x" * (2 << 20) + b'"'
        writer.write(b"HTTP/1.1 %d OK\r\n%sContent-Length: %d\r\n\r\n" % (status, headers, len(body)))
        await asyncio.sleep(self.told.get("body_delay", 0.0))
        writer.write(b"" if head.startswith(b"HEAD") else body)
        await writer.drain()
        return True


async def main(told: dict[str, Any]) -> None:
    secured = None
    if "certificate" in told:
        secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secured.load_cert_chain(told["certificate"])
    server = await asyncio.start_server(Server(told).serve, "127.0.0.1", 0, ssl=secured)
    print(f"serves on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
