"""A watcher's samples cut into the stages they fell in. Pure; shared by the watchers.

A sample has ``t`` (seconds since the run began), ``stage``, ``event`` (``tick``, ``begin``, ``end``) and the watcher's
own fields. The runner samples both ends of each stage, so counters are differences over exactly that stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from bench.model import Series

Sample = Mapping[str, Any]
Window = Sequence[Sample]  # one stretch of one stage, from the sample at its begin to the one at its end
Reading = str | Callable[[Sample], Any]  # a field's name, or what makes the value of a sample
_TICK_SECONDS = 0.9  # samples come once a second and, in between, at each stage's ends
_MOST_POINTS = 300
_SHORTEST_SECONDS = 0.1  # counters and clocks are too coarse to be divided over less


def finite(value: Any) -> float | None:
    """The value as a number, or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def read(sample: Sample, reading: Reading) -> float | None:
    return finite(sample.get(reading) if isinstance(reading, str) else reading(sample))


def seconds(window: Window) -> float:
    return float(window[-1]["t"]) - float(window[0]["t"])


class Stage(NamedTuple):
    """All windows of one stage of the run."""

    name: str
    windows: Sequence[Window]

    def growth(self, reading: Reading) -> tuple[float, float] | None:
        """How much a counter grew over the windows in which it was read at both ends, and their seconds together.

        A counter that went backwards (it was reset) voids its window. None where no window is left.
        """
        grown, lasted = 0.0, 0.0
        for window in self.windows:
            before, after = read(window[0], reading), read(window[-1], reading)
            if before is not None and after is not None and after >= before:
                grown, lasted = grown + (after - before), lasted + seconds(window)
        return (grown, lasted) if lasted > 0 else None

    def values(self, reading: Reading) -> list[float]:
        """A reading at every sample that has it."""
        return [value for w in self.windows for sample in w if (value := read(sample, reading)) is not None]


def stages(samples: Sequence[Sample]) -> list[Stage]:
    """The stages in the order in which they first began; those that lasted too briefly to be measured are left out.

    Begin and end are matched by name, the innermost first; a stage that never ended is left out.
    """
    open_at: list[int] = []
    ends: dict[int, int] = {}
    for index, sample in enumerate(samples):
        if sample.get("event") == "begin":
            open_at.append(index)
        elif sample.get("event") == "end":
            begun = next((i for i in reversed(open_at) if samples[i]["stage"] == sample["stage"]), None)
            if begun is not None:
                open_at.remove(begun)
                ends[begun] = index
    windows: dict[str, list[Window]] = {}
    for begun, ended in sorted(ends.items()):
        windows.setdefault(str(samples[begun]["stage"]), []).append(samples[begun : ended + 1])
    return [Stage(name, found) for name, found in windows.items() if sum(map(seconds, found)) >= _SHORTEST_SECONDS]


def plotted(metric: str, samples: Sequence[Sample], reading: Reading, **labels: str) -> list[Series]:
    """A reading over the whole run, for the report; nothing where no sample has it."""
    points = [(float(s["t"]), value) for s in samples if (value := read(s, reading)) is not None]
    if not points:
        return []
    times, values = zip(*points, strict=True)
    return [Series(metric=metric, labels=labels, seconds=times, values=values)]


def flowed(metric: str, window: Window, reading: Reading, **labels: str) -> list[Series]:
    """A counter's rate over one window, a point a second or, of a long one, at most 300; nothing where it has none."""
    step = max(_TICK_SECONDS, seconds(window) / _MOST_POINTS)
    known = [(float(s["t"]), value) for s in window if (value := read(s, reading)) is not None]
    kept = known[:1]
    for at, value in known[1:]:
        if at - kept[-1][0] >= step:
            kept.append((at, value))
    kept[max(1, len(kept) - 1) :] = known[-1:]  # what is left of a piece belongs to the one before
    rates = [(b, (after - before) / (b - a)) for (a, before), (b, after) in pairwise(kept) if b > a and after >= before]
    if not rates:
        return []
    points = [(kept[0][0], rates[0][1]), *rates]
    times, values = tuple(round(at, 2) for at, _ in points), tuple(round(value) for _, value in points)
    return [Series(metric=metric, labels=labels, seconds=times, values=values)]
