"""The page as a real browser sees it: its tree, what its console says, and every request that leaves it."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: What the browser asks for on its own account, whatever page is open.
_OWN = re.compile(r"google|gstatic|gvt1|chromium|chrome\.", re.I)


@dataclass(frozen=True, slots=True)
class Seen:
    dom: str
    console: list[str]
    requests: list[str]


def look(page: Path, screenshot: Path | None = None, size: str = "1100,2600", dark: bool = False) -> Seen:
    """Open the file and let its scripts, if it had any, run for two seconds of its own time."""
    chromium = shutil.which("chromium")
    assert chromium, "the test packages have chromium"
    with _proxy() as (port, requests), tempfile.TemporaryDirectory() as profile:
        words = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", f"--proxy-server=http://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>",
            "--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=2000", f"--window-size={size}",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            *([f"--screenshot={screenshot}", "--hide-scrollbars"] if screenshot else ["--dump-dom"]),
            page.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    console = re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)
    return Seen(done.stdout, console, [line for line in requests if not _OWN.search(line)])


@contextmanager
def _proxy() -> Iterator[tuple[int, list[str]]]:
    """Everything that the browser wants from any network comes here, is written down and refused."""
    seen: list[str] = []

    class Refuse(http.server.BaseHTTPRequestHandler):
        def refuse(self) -> None:
            seen.append(self.requestline)
            self.send_error(403)

        do_GET = do_POST = do_CONNECT = do_HEAD = refuse  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's signature
            """Kept in ``seen``."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
