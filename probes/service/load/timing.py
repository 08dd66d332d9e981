"""Where the time of a request goes before it is sent: name, TCP, TLS. The event loop stamps what it is asked for.

aiohttp's own trace has one event for all of opening a connection. What it asks the loop for is the name
(``getaddrinfo``), TCP (``sock_connect``) and, on that socket, TLS (``create_connection``): three methods of any loop.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(slots=True)
class Timing:
    """Of one request, in seconds; None: not needed or not reached. ``ready``: when its connection was (loop's clock).

    ``certificate``: until that of the service expires. ``step``: of opening a connection, the last that was begun.
    ``taken``: how many connections it went out on.
    """

    resolve: float | None = None
    connect: float | None = None
    tls: float | None = None
    ready: float | None = None
    first_byte: float | None = None
    certificate: float | None = None
    step: Literal["", "resolve", "connect", "tls"] = ""
    taken: int = 0

    @property
    def broken(self) -> bool:
        """Did a connection break? aiohttp then asks once more by itself, on another one."""
        return self.taken > 1


#: That of the request which this task, or one that it started, works for.
CURRENT: ContextVar[Timing] = ContextVar("CURRENT")


class TimingLoop(asyncio.SelectorEventLoop):
    """Stamps the three steps into `CURRENT`."""

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        began = self.time()
        if timing := CURRENT.get(None):
            timing.step = "resolve"
        found = await super().getaddrinfo(*args, **kwargs)
        if timing:
            timing.resolve = self.time() - began
        return found

    async def sock_connect(self, sock: Any, address: Any) -> None:
        began = self.time()
        if timing := CURRENT.get(None):
            timing.step = "connect"
        await super().sock_connect(sock, address)
        if timing:
            timing.connect = self.time() - began

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        began = self.time()
        if (timing := CURRENT.get(None)) and kwargs.get("ssl"):
            timing.step = "tls"
        made = await super().create_connection(*args, **kwargs)
        if timing:
            timing.ready, timing.taken = self.time(), timing.taken + 1
            if (secured := made[0].get_extra_info("ssl_object")) is not None:
                timing.tls = timing.ready - began
                ends = (secured.getpeercert() or {}).get("notAfter")
                timing.certificate = ssl.cert_time_to_seconds(ends) - time.time() if ends else None
        return made
