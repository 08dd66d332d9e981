"""A fleet run while it goes on, on standard error: a live table of nodes and phases on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from bench.show.text import clean

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

_MOST_ROWS = 20


class Step(Protocol):
    """One note: the phase, the host, its state (None: started), and why."""

    @property
    def phase(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def state(self) -> str | None: ...
    @property
    def reason(self) -> str: ...


Listener = Callable[[Step], None]


@contextmanager
def listener(hosts: int, *, shown: bool = True) -> Iterator[Listener]:
    """Something to tell of progress, for as long as the ``with`` lasts."""
    if not shown:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _live(hosts) as listen:
            yield listen
    else:
        yield _line


def _line(step: Step) -> None:
    if step.state is None:
        return
    reason = f": {clean(step.reason, 160)}" if step.reason else ""
    sys.stderr.write(f"{clean(step.phase, 20)}: {clean(step.host, 60)} {step.state}{reason}\n")
    sys.stderr.flush()


@contextmanager
def _live(hosts: int) -> Iterator[Listener]:
    from rich.console import Console
    from rich.live import Live

    table = _Table(hosts)
    with Live(console=Console(stderr=True), refresh_per_second=4, get_renderable=table.render):
        yield table


class _Table:
    """What each host is at. Of a large fleet: those that are not well first, then the latest."""

    def __init__(self, hosts: int) -> None:
        self._hosts = hosts
        self._rows: dict[str, tuple[str, str, str]] = {}
        self._began = time.monotonic()
        self._phase = ""

    def __call__(self, step: Step) -> None:
        self._phase = step.phase
        self._rows.pop(step.host, None)
        self._rows[step.host] = (step.phase, step.state or "running", step.reason)

    def render(self) -> ConsoleRenderable:
        from rich.table import Table
        from rich.text import Text

        counts = Counter(state for phase, state, _ in self._rows.values() if phase == self._phase)
        words = ", ".join(f"{number} {state}" for state, number in counts.items())
        seconds = time.monotonic() - self._began
        table = Table("node", "phase", "state", "why", title=f"{self._phase}: {words} ({seconds:.0f} s)", box=None)
        well = ("here", "answered", "running")
        rows = sorted(self._rows.items(), key=lambda row: row[1][1] in well)
        for host, (phase, state, reason) in rows[:_MOST_ROWS]:
            table.add_row(*(Text(clean(text, 100)) for text in (host, phase, state, reason)))
        if len(rows) > _MOST_ROWS:
            table.add_row(Text(f"and {len(rows) - _MOST_ROWS} more of {self._hosts}"))
        return table
