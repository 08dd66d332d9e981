"""What is going on, while it goes on: a live view on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from bench.show.text import clean

if TYPE_CHECKING:
    from bench.model import ProbeResult, Request

_LINE_SECONDS = 10.0
#: Columns of the live view that are not the text: the probe, a bar, the time used, the time left, gaps.
_BESIDE = 10 + 20 + 7 + 7 + 4
_SHORTEST_TEXT = 12


class Step(Protocol):
    """One note of progress: the probe, what it does, how far it is (0 to 1, or None), its result when it has ended."""

    @property
    def probe(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def fraction(self) -> float | None: ...
    @property
    def ended(self) -> ProbeResult | None: ...


class Planned(Protocol):
    """What the display needs to know of a probe before it runs."""

    @property
    def name(self) -> str: ...
    @property
    def measure(self) -> object: ...
    def time(self, request: Request) -> float: ...


Listener = Callable[[Step], None]


@contextmanager
def listener(probes: Sequence[Planned], request: Request, *, shown: bool = True) -> Iterator[Listener]:
    """Something to tell of progress, for as long as the ``with`` lasts."""
    measuring = [probe for probe in probes if probe.measure is not None]
    if not shown:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _live({probe.name: probe.time(request) for probe in measuring}) as listen:
            yield listen
    else:
        yield _Lines()


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

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if step.ended is not None:
            self._write(f"{step.probe}: {summary(step.ended)}", now)
        elif step.probe != self._probe or now - self._last >= _LINE_SECONDS:
            self._probe = step.probe
            self._write(f"{step.probe}: {clean(step.text)}", now)

    def _write(self, line: str, now: float) -> None:
        self._last = now
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


@contextmanager
def _live(seconds: Mapping[str, float]) -> Iterator[Listener]:
    """``seconds``: what each probe should take, by name."""
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

        def listen(step: Step) -> None:
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
