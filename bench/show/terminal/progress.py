"""What is going on, while it goes on: a live view on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from bench.errors import note
from bench.measure.probe import Progress
from bench.model import Outcome, ProbeResult
from bench.show.matrix import Matrix
from bench.show.names import duration
from bench.show.steps import about
from bench.show.terminal.console import is_colourful
from bench.show.terminal.screen import Screen, drawn, knows_only_ascii
from bench.show.text import clean, fold

if TYPE_CHECKING:
    from rich.console import Console, ConsoleRenderable
    from rich.text import Text

_LINE_SECONDS = 60.0
_MOST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Note:
    """A step of a fleet run. ``state`` is None when the job has been started."""

    phase: str
    host: str
    state: str | None
    reason: str = ""


Step = TypeVar("Step")
Told = TypeVar("Told", contravariant=True)
Listener = Callable[[Step], None]
SoFar = Callable[[Sequence[ProbeResult]], Matrix]


def listener(
    seconds: Mapping[str, float], *, shown: bool = True, so_far: SoFar | None = None
) -> AbstractContextManager[Listener[Progress]]:
    """Something to tell of a run's progress, for as long as the ``with`` lasts.

    ``seconds``: what each probe should take, by name. ``so_far``: the matrix of what has ended.
    """
    return _listener(shown, lambda: _Measuring(seconds, so_far), _Lines())


def fleet_listener(hosts: int, *, shown: bool = True) -> AbstractContextManager[Listener[Note]]:
    """The same of a fleet run with that many hosts."""
    return _listener(shown, lambda: _Table(hosts), _host_line)


class _View(Protocol[Told]):
    """What a live view shows. It is told in the thread that measures, and draws in the one that refreshes."""

    def __call__(self, step: Told) -> None: ...

    def render(self, console: Console) -> ConsoleRenderable: ...


@contextmanager
def _listener(shown: bool, view: Callable[[], _View[Step]], lines: Listener[Step]) -> Iterator[Listener[Step]]:
    """On a terminal the view, drawn twice a second by a thread of its own, and gone at the end; elsewhere the lines.

    The cursor stays as it is: nobody is left to show it again after a `kill -9`. Standard output is not touched.
    """
    if not shown:
        yield lambda _: None
        return
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield lines
        return
    from rich.console import Console
    from rich.live import Live

    live, console = view(), Console(stderr=True)
    draw = partial(live.render, console)
    with Live(console=console, refresh_per_second=2, get_renderable=draw, transient=True, redirect_stdout=False):
        console.show_cursor()
        yield live


# --- a run


def summary(result: ProbeResult) -> str:
    """How a probe ended, in a few words."""
    if result.reason:
        return clean(f"{result.outcome.value}: {result.reason}")
    return f"{len(result.measurements)} figures in {result.duration_seconds:.0f} s"


class _Lines:
    """A line a probe when it has ended, and one a minute of what a long one is at."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._probe = ""

    def __call__(self, step: Progress) -> None:
        now = time.monotonic()
        if step.ended is None and step.probe == self._probe and now - self._last < _LINE_SECONDS:
            return
        if step.ended is not None or step.probe == self._probe:
            note(f"{step.probe}: {clean(step.text) if step.ended is None else summary(step.ended)}")
        self._last, self._probe = now, step.probe


class _Measuring:
    """What is being measured, for how long still, and the matrix of what has ended, which fills."""

    def __init__(self, seconds: Mapping[str, float], so_far: SoFar | None) -> None:
        self._seconds, self._so_far = seconds, so_far
        self._colours, self._plain = is_colourful(sys.stderr), knows_only_ascii(sys.stderr)
        self._began: dict[str, float] = {}
        self._results: dict[str, ProbeResult] = {}
        self._step: Progress | None = None
        self._ends = 0
        self._drawn: tuple[int, int, Text] | None = None

    def __call__(self, step: Progress) -> None:
        if step.ended is not None:
            if step.ended.outcome is Outcome.OK or step.probe not in self._results:  # a further round may be skipped
                self._results[step.probe] = step.ended
            self._ends += 1
        elif self._step is None or self._step.ended is not None or self._step.probe != step.probe:
            self._began[step.probe] = time.monotonic()
        self._step = step

    def render(self, console: Console) -> ConsoleRenderable:
        from rich.console import Group
        from rich.text import Text

        head, text = self._told()
        lines = [*fold(clean(head), console.width), f"  {clean(text, console.width - 2)}"]
        return Group(Text("\n".join(lines), style="bold"), self._matrix(console))

    def _told(self) -> tuple[str, str]:
        """Where the run is, and what it is at."""
        step = self._step
        if step is None:
            return "starting", ""
        at = f"{len(self._began)} of {len(self._seconds)}"
        left = sum(seconds for probe, seconds in self._seconds.items() if probe not in self._began)
        if step.ended is None:
            spent, whole = time.monotonic() - self._began[step.probe], self._seconds.get(step.probe, 0.0)
            left += max(0.0, whole - spent if step.fraction is None else whole * (1.0 - step.fraction))
            again = " again" if step.probe in self._results else ""
            used = f"{duration(spent)} of {duration(whole)}"
            return f"{step.probe}{again}, {at}: {used}; about {duration(about(left))} left", step.text
        rest = f"; about {duration(about(left))} left" if left else ""
        return f"{step.probe}, {at}: ended{rest}", summary(step.ended)

    def _matrix(self, console: Console) -> Text:
        """Drawn anew only where a probe has ended or the terminal has another width."""
        from rich.text import Text

        state = (self._ends, console.width)
        if self._so_far is not None and self._results and (self._drawn is None or self._drawn[:2] != state):
            try:
                gates = Screen(self._so_far(list(self._results.values())), console.width).gates()
                text = Text.from_ansi(drawn(gates, console.width, self._colours, self._plain))
            except Exception:  # noqa: BLE001 - a view of what has ended must not end what is measured
                text = Text()
            self._drawn = (*state, text)
        return self._drawn[2] if self._drawn else Text()


# --- a fleet


def _host_line(step: Note) -> None:
    if step.state is not None:
        reason = f": {clean(step.reason, 160)}" if step.reason else ""
        note(f"{clean(step.phase, 20)}: {clean(step.host, 60)} {step.state}{reason}")


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

    def render(self, _: Console | None = None) -> ConsoleRenderable:
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
