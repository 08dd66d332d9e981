"""When bytes came, and how much later than that we can have seen them.

An event loop that is busy with one stream stamps the others late. The kernel says that bytes are there when ``select``
returns; what was handed to a coroutine came with the ``select`` before the last one, because a waiter is woken in the
loop's next turn. So that moment is the stamp, and the loop's own work before it the most by which the stamp is late. It
holds for the first event of a read; those behind it may have come while the read was waiting for its turn, and are
stamped with the last ``select``, never early.
"""

from __future__ import annotations

import selectors
import time


class StampingSelector(selectors.DefaultSelector):
    """Stamps for what coroutines see in this turn of the loop, in monotonic seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._arrived = self._returned = time.monotonic()
        self._late = self._worked = 0.0

    def stamp(self, first: bool = True) -> tuple[float, float]:
        """When it came, and by how much that can be late."""
        if first:
            return self._arrived, self._late
        return self._returned, self._returned - self._arrived + self._late

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        asked = time.monotonic()
        self._arrived, self._late = self._returned, self._worked
        self._worked = asked - self._returned
        found: list[tuple[selectors.SelectorKey, int]] = super().select(timeout)
        self._returned = time.monotonic()
        return found
