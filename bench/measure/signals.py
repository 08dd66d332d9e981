"""SIGINT, SIGTERM and SIGHUP as a flag that is looked at where it is safe to stop.

An exception out of a signal handler can strike between starting a process and knowing its id. Here the handler only
notes the signal; every wait of the product is short or looks at the note, and the exception is raised there.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from bench.measure.probe import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """A context manager that notes the first signal; ``check`` raises Interrupted once one was noted.

    It can be entered again while it is held: the outermost ``with`` decides how long signals are noted.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._depth = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for sig in _SIGNALS:
                self._previous[sig] = signal.signal(sig, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            for sig, handler in self._previous.items():
                signal.signal(sig, handler)
            self._previous.clear()

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self.caught = self.caught or signum

    def check(self) -> None:
        if self.caught is not None:
            raise Interrupted(self.caught)
