"""Pictures of a run as plain values: where each mark stands, in percent of its plot, and the words beside it.

`draw.html.j2` draws them as SVG without words; all words are the page's own text. So a picture is as wide as whatever
shows it, and its words wrap instead of shrinking, on a phone and on paper. The colours are the page's, by class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.units import human

#: Classes of the style sheet for one series after another.
SERIES = ("c1", "c2", "c3", "c4", "c5")
Tick = tuple[float, str]
Key = tuple[str, str]  # a class, and what it stands for
_FEWEST_DECADES = 1e-12


@dataclass(frozen=True, slots=True)
class Axis:
    """From ``low`` to ``high``, as a logarithm or not; ``ticks``: where in percent, and what stands there."""

    low: float
    high: float
    log: bool = False
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """Where a value stands, in percent of the plot; what lies beyond stands at its edge."""
        low, high, value = (_log(v) if self.log else v for v in (self.low, self.high, value))
        return round(100.0 * min(1.0, max(0.0, (value - low) / (high - low))), 2)


def axis(values: Iterable[float], metric: str, most: int = 4, *, log: bool = False) -> Axis:
    """An axis that holds the values, with at most that many ticks; not logarithmic, it holds 0 too."""
    known = [value for value in values if value > 0.0] if log else [0.0, *values]
    low, high = min(known, default=1.0), max(known, default=1.0)
    if log:
        low, high = 10.0 ** math.floor(_log(low) + 1e-9), 10.0 ** math.ceil(_log(high) - 1e-9)
    return spanned(low, high if high > low else (10.0 * low if log else low + 1.0), metric, most, log=log)


def spanned(low: float, high: float, metric: str, most: int, *, log: bool = False) -> Axis:
    """An axis from ``low`` to ``high``, with round ticks in the metric's unit."""
    bare = Axis(low, high, log)
    steps = _decades(low, high, most) if log else _round_steps(low, high, most)
    return Axis(low, high, log, tuple((bare.at(step), human(float(f"{step:.6g}"), metric)) for step in steps))


def _log(value: float) -> float:
    return math.log10(max(value, _FEWEST_DECADES))


def _decades(low: float, high: float, most: int) -> Iterator[float]:
    first, last = round(_log(low)), round(_log(high))
    return (10.0**power for power in range(first, last + 1, -(-(last - first + 1) // most)))


def _round_steps(low: float, high: float, most: int) -> Iterator[float]:
    """Multiples of 1, 2 or 5 times a power of ten: as fine as ``most`` allows."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(s for s in (power, 2 * power, 5 * power, 10 * power, 20 * power) if (high - low) / s <= most - 1 + 1e-9)
    return (step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1))


# --- a row for each thing, on one scale


@dataclass(frozen=True, slots=True)
class Mark:
    """``bar`` and ``span`` reach from ``at`` to ``to``, a ``p50``, ``p99`` and so on stands at ``at``; in percent."""

    shape: str
    css: str
    at: float
    to: float = 0.0
    title: str = ""

    @property
    def width(self) -> float:
        return round(max(0.0, self.to - self.at), 2)


@dataclass(frozen=True, slots=True)
class Row:
    """What it is, its marks, and its figure in words."""

    name: str
    text: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """``limit``: where a line across all rows stands."""

    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...] = ()
    limit: float | None = None
    keys: tuple[Key, ...] = ()


# --- values over something


@dataclass(frozen=True, slots=True)
class Line:
    """A path through a panel of 1000 by 100; ``dotted`` with a dot at each point, else drawn through."""

    css: str
    path: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Values over time, nights or load. ``band``: from, to (percent from the top) where a value is expected."""

    name: str
    lines: tuple[Line, ...]
    scale: tuple[Tick, ...]
    keys: tuple[Key, ...] = ()
    levels: tuple[tuple[str, float], ...] = ()
    band: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Panels:
    """Below each other on one axis, or side by side without one. ``turns``: from, to (percent), number, what it is."""

    panels: tuple[Panel, ...]
    ticks: tuple[Tick, ...] = ()
    beneath: str = ""
    turns: tuple[tuple[float, float, int, str], ...] = ()


def path(xs: Sequence[float], ys: Sequence[float], across: Axis, up: Axis, *, dots: bool = False) -> str:
    """The points as the ``d`` of an SVG path."""
    points = [f"{10 * across.at(x):.1f} {100 - up.at(y):.1f}" for x, y in zip(xs, ys, strict=True)]
    return "".join(f"M{point}h.01" for point in points) if dots else "M" + "L".join(points)


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn, and in one sentence what it means."""

    said: str
    body: Chart | Panels
