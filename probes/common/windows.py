"""A watcher's samples cut into the stages they fell in. Pure; shared by the watchers.

A sample has ``t`` (seconds since the run began), ``stage``, ``event`` (``tick``, ``begin``, ``end``) and the watcher's
own fields. The runner samples both ends of each stage, so counters are differences over exactly that stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Sample = Mapping[str, Any]
IDLE = "idle"
_SHORTEST_SECONDS = 0.1  # counters and clocks are too coarse to be divided over less


@dataclass(frozen=True, slots=True)
class StageWindow:
    """One stretch of one stage: its two ends, and the samples from the first to the last."""

    begin: Sample
    end: Sample
    samples: tuple[Sample, ...]

    @property
    def seconds(self) -> float:
        return float(self.end["t"]) - float(self.begin["t"])


@dataclass(frozen=True, slots=True)
class Stage:
    """All windows of one stage of the run."""

    name: str
    windows: tuple[StageWindow, ...]

    @property
    def seconds(self) -> float:
        return sum(window.seconds for window in self.windows)

    @property
    def samples(self) -> list[Sample]:
        return [sample for window in self.windows for sample in window.samples]

    def growth(self, read: Callable[[Sample], Any]) -> tuple[float, float] | None:
        """How much a counter grew over the windows in which it was read at both ends, and their seconds together.

        A counter that went backwards (it was reset) voids its window. None where no window is left.
        """
        grown = [(change, w.seconds) for w in self.windows if (change := _change(w, read)) is not None]
        seconds = sum(s for _, s in grown)
        return (sum(change for change, _ in grown), seconds) if seconds > 0 else None

    def values(self, read: Callable[[Sample], Any]) -> list[float]:
        """A reading at every sample that has it."""
        return [value for sample in self.samples if (value := finite(read(sample))) is not None]


def finite(value: Any) -> float | None:
    """The value as a number, or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _change(window: StageWindow, read: Callable[[Sample], Any]) -> float | None:
    before, after = finite(read(window.begin)), finite(read(window.end))
    return after - before if before is not None and after is not None and after >= before else None


def stages(samples: Sequence[Sample]) -> list[Stage]:
    """The stages in the order in which they first began; those that lasted too briefly to be measured are left out."""
    windows: dict[str, list[StageWindow]] = {}
    for window in _windows(samples):
        windows.setdefault(str(window.begin["stage"]), []).append(window)
    made = [Stage(name, tuple(found)) for name, found in windows.items()]
    return [stage for stage in made if stage.seconds >= _SHORTEST_SECONDS]


def _windows(samples: Sequence[Sample]) -> Iterator[StageWindow]:
    """Begin and end are matched by name, the innermost first; a stage that never ended is left out."""
    open_at: list[int] = []
    found: list[tuple[int, int]] = []
    for index, sample in enumerate(samples):
        if sample.get("event") == "begin":
            open_at.append(index)
        elif sample.get("event") == "end":
            begun = next((i for i in reversed(open_at) if samples[i]["stage"] == sample["stage"]), None)
            if begun is not None:
                open_at.remove(begun)
                found.append((begun, index))
    for begun, ended in sorted(found):
        yield StageWindow(samples[begun], samples[ended], tuple(samples[begun : ended + 1]))
