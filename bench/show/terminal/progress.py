"""What is going on, while it goes on: a live view on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from bench.measure.probe import Progress
from bench.model import ProbeResult
from bench.show.text import clean

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

_LINE_SECONDS = 10.0
#: Columns of a run's live view that are not the text: the probe, a bar, the time used, the time left, gaps.
_BESIDE = 10 + 20 + 7 + 7 + 4
_SHORTEST_TEXT = 12
_MOST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Note:
    """A step of a fleet run. ``state`` is None when the job has been started."""

    phase: str
    host: str
    state: str | None
    reason: str = ""


Step = TypeVar("Step")
Listener = Callable[[Step], None]


def listener(seconds: Mapping[str, float], *, shown: bool = True) -> AbstractContextManager[Listener[Progress]]:
    """Something to tell of a run's progress, for as long as the ``with`` lasts.

    ``seconds``: what each probe should take, by name.
    """
    return _listener(shown, lambda: _bars(seconds), _Lines())


def fleet_listener(hosts: int, *, shown: bool = True) -> AbstractContextManager[Listener[Note]]:
    """The same of a fleet run with that many hosts."""
    return _listener(shown, lambda: _table(hosts), _host_line)


@contextmanager
def _listener(
    shown: bool, live: Callable[[], AbstractContextManager[Listener[Step]]], lines: Listener[Step]
) -> Iterator[Listener[Step]]:
    if not shown:
        yield lambda _: None
    elif sys.stderr.isatty():
        with live() as listen:
            yield listen
    else:
        yield lines


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


# --- a run


def summary(result: ProbeResult) -> str:
    """How a probe ended, in a few words."""
    if result.reason:
        return clean(f"{result.outcome.value}: {result.reason}")
    return f"{len(result.measurements)} figures in {result.duration_seconds:.0f} s"


class _Lines:
    """Plain lines: starts, ends, and what a long probe is at, at most once in ten seconds."""

    def __init__(self) -> None:
        self._last = 0.0
        self._probe = ""

    def __call__(self, step: Progress) -> None:
        now = time.monotonic()
        if step.ended is None and step.probe == self._probe and now - self._last < _LINE_SECONDS:
            return
        _write(f"{step.probe}: {clean(step.text) if step.ended is None else summary(step.ended)}")
        self._last, self._probe = now, step.probe


@contextmanager
def _bars(seconds: Mapping[str, float]) -> Iterator[Listener[Progress]]:
    """A bar a probe."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.fields[probe]:<10}", markup=False),
        progress.BarColumn(bar_width=20),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.description}", markup=False),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, refresh_per_second=4) as bars:
        tasks = {name: bars.add_task("", total=total, start=False, probe=name) for name, total in seconds.items()}
        began: dict[str, float] = {}

        def listen(step: Progress) -> None:
            task, now = tasks[step.probe], time.monotonic()
            if step.probe not in began:
                began[step.probe] = now
                bars.start_task(task)
            total = seconds[step.probe]
            done = now - began[step.probe] if step.fraction is None else step.fraction * total
            text = summary(step.ended) if step.ended is not None else clean(step.text)
            room = max(_SHORTEST_TEXT, console.width - _BESIDE)  # else the text would take the other columns' place
            bars.update(task, completed=min(total, done), description=clean(text, room))

        yield listen


# --- a fleet


def _host_line(step: Note) -> None:
    if step.state is not None:
        reason = f": {clean(step.reason, 160)}" if step.reason else ""
        _write(f"{clean(step.phase, 20)}: {clean(step.host, 60)} {step.state}{reason}")


@contextmanager
def _table(hosts: int) -> Iterator[Listener[Note]]:
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

    def __call__(self, step: Note) -> None:
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
