"""What a load saw, as lines on the run's one clock, beside what the watchers saw meanwhile. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from bench.model import Series

#: A piece at each end more, and the page draws as many without taking means of them.
_MOST_POINTS = 238

Point = tuple[float, float]  # seconds, value


def most_of(metric: str, points: Sequence[Point], **labels: str) -> list[Series]:
    """The largest value of each second, or of each piece of a long line; a piece without one is left out."""
    step, pieces = _pieces(points)
    return _line(metric, step, {at: max(values) for at, values in pieces.items()}, labels)


def sum_of(metric: str, points: Sequence[Point], **labels: str) -> list[Series]:
    """The sum of each second, or of each piece of a long line; a piece without a value has 0."""
    step, pieces = _pieces(points)
    whole = range(min(pieces, default=0), max(pieces, default=-1) + 1)
    return _line(metric, step, {at: math.fsum(pieces.get(at, ())) for at in whole}, labels)


def rate_of(metric: str, points: Sequence[Point], **labels: str) -> list[Series]:
    """`sum_of`, a second."""
    step, _ = _pieces(points)
    return [
        one.model_copy(update={"values": tuple(round(value / step, 6) for value in one.values)})
        for one in sum_of(metric, points, **labels)
    ]


def _pieces(points: Sequence[Point]) -> tuple[float, dict[int, list[float]]]:
    """Seconds of a piece, and the values of each by its number."""
    ordered = sorted(points)
    step = max(1.0, (ordered[-1][0] - ordered[0][0]) / _MOST_POINTS) if ordered else 1.0
    numbered = groupby(ordered, lambda point: math.floor(point[0] / step))
    return step, {number: [value for _, value in group] for number, group in numbered}


def _line(metric: str, step: float, values: Mapping[int, float], labels: dict[str, str]) -> list[Series]:
    if not values:
        return []
    seconds = tuple(round((at + 0.5) * step, 2) for at in values)
    kept = tuple(round(value, 6) for value in values.values())
    return [Series(metric=metric, labels=labels, seconds=seconds, values=kept)]
