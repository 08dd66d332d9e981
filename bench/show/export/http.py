"""`bench export --listen`: the newest run's metrics over HTTP, for those without node_exporter.

A reader of one path, nothing else: GET ``/metrics``. Each scrape reads the store anew, so a run that ends is there at
the next scrape. Whatever goes wrong is status 500 and one line, so that Prometheus shows the target as down.
"""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Callable

from bench.errors import UserError
from bench.show.text import clean

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: A client that sends nothing holds its thread no longer than this.
_TIMEOUT_SECONDS = 10.0
_MOST_CLIENTS = 16


class MetricsServer(http.server.ThreadingHTTPServer):
    """Serves what ``scrape`` returns at an address; port 0 takes a free one. Raises OSError where it cannot listen."""

    def __init__(self, host: str, port: int, scrape: Callable[[], bytes]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.scrape, self.slots = scrape, threading.Semaphore(_MOST_CLIENTS)
        super().__init__((host, port), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = _TIMEOUT_SECONDS
    server_version = "aiready-bench"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"there is /metrics only\n")
            return
        if not self.server.slots.acquire(blocking=False):
            self._answer(503, b"too many scrapes at once\n")
            return
        try:
            self._answer(200, self.server.scrape())
        except UserError as error:
            self._answer(500, clean(str(error)).encode() + b"\n")
        finally:
            self.server.slots.release()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's signature
        """A scrape every few seconds is not news."""
