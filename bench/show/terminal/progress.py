"""What is going on, while it goes on: a live view on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from bench.show.text import clean

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

    from bench.model import ProbeResult, Request

_LINE_SECONDS = 10.0
#: Columns of a run's live view that are not the text: the probe, a bar, the time used, the time left, gaps.
_BESIDE = 10 + 20 + 7 + 7 + 4
_SHORTEST_TEXT = 12
_MOST_ROWS = 20


class ProbeStep(Protocol):
    """A run's note: the probe, what it does, how far it is (0 to 1, or None), its result when it has ended."""

    @property
    def probe(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def fraction(self) -> float | None: ...
    @property
    def ended(self) -> ProbeResult | None: ...


class HostStep(Protocol):
    """A fleet's note: the phase, the host, its state (None: started), and why."""

    @property
    def phase(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def state(self) -> str | None: ...
    @property
    def reason(self) -> str: ...


class Planned(Protocol):
    """What the display needs to know of a probe before it runs."""

    @property
    def name(self) -> str: ...
    @property
    def measure(self) -> object: ...
    def time(self, request: Request) -> float: ...


Step = TypeVar("Step")
Listener = Callable[[Step], None]


def listener(
    probes: Sequence[Planned], request: Request, *, shown: bool = True
) -> AbstractContextManager[Listener[ProbeStep]]:
    """Something to tell of a run's progress, for as long as the ``with`` lasts."""
    seconds = {probe.name: probe.time(request) for probe in probes if probe.measure is not None}
    return _listener(shown, lambda: _bars(seconds), _Lines())


def fleet_listener(hosts: int, *, shown: bool = True) -> AbstractContextManager[Listener[HostStep]]:
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

    def __call__(self, step: ProbeStep) -> None:
        now = time.monotonic()
        if step.ended is None and step.probe == self._probe and now - self._last < _LINE_SECONDS:
            return
        _write(f"{step.probe}: {clean(step.text) if step.ended is None else summary(step.ended)}")
        self._last, self._probe = now, step.probe


@contextmanager
def _bars(seconds: Mapping[str, float]) -> Iterator[Listener[ProbeStep]]:
    """A bar a probe; ``seconds``: what each should take, by name."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[probe]:<10}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        tasks = {name: progress.add_task("", total=total, start=False, probe=name) for name, total in seconds.items()}
        began: dict[str, float] = {}

        def listen(step: ProbeStep) -> None:
            task, now = tasks[step.probe], time.monotonic()
            if step.probe not in began:
                began[step.probe] = now
                progress.start_task(task)
            total = seconds[step.probe]
            done = now - began[step.probe] if step.fraction is None else step.fraction * total
            text = summary(step.ended) if step.ended is not None else clean(step.text)
            room = max(_SHORTEST_TEXT, console.width - _BESIDE)  # else the text would take the other columns' place
            progress.update(task, completed=min(total, done), description=clean(text, room))

        yield listen


# --- a fleet


def _host_line(step: HostStep) -> None:
    if step.state is not None:
        reason = f": {clean(step.reason, 160)}" if step.reason else ""
        _write(f"{clean(step.phase, 20)}: {clean(step.host, 60)} {step.state}{reason}")


@contextmanager
def _table(hosts: int) -> Iterator[Listener[HostStep]]:
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

    def __call__(self, step: HostStep) -> None:
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
