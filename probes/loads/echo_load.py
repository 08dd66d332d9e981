"""The load beside an echo: one iperf3 client, started through the door, that dies with this program."""

from __future__ import annotations

import tempfile
import time
from typing import Any

from bench.measure import tools

_START_SECONDS = 8.0
_END_SECONDS = 12.0
_POLL_SECONDS = 0.05


class Load:
    """``settle`` seconds pass before it counts as running: queues must fill before what they do can be measured."""

    def __init__(self, argv: list[str], settle: float) -> None:
        self.argv = argv
        self.settle = settle
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the load
        self.process: Any = None

    def start(self) -> bool:
        """True when it runs. A server that is just being started anew refuses for a moment, and is tried again."""
        end = time.monotonic() + _START_SECONDS
        while True:
            self._spawn()
            if self._runs_for(self.settle):
                return True
            if time.monotonic() > end or "refused" not in self._text():
                return False
            time.sleep(0.15)

    def _spawn(self) -> None:
        self.output.seek(0)
        self.output.truncate()
        self.process = tools.spawn(self.argv, stdout=self.output)

    def _runs_for(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def wait(self) -> None:
        """Until it has ended by itself, within its time."""
        end = time.monotonic() + _END_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        self.end()

    def _text(self) -> str:
        self.output.seek(0)
        return self.output.read(1 << 22).decode(errors="replace")

    def result(self) -> dict[str, Any]:
        return {"kind": "load", "argv": self.argv, "returncode": self.process.poll(), "output": self._text()}

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            tools.end(self.process)
