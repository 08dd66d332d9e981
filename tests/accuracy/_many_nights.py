"""What the nightly gate says over hundreds of nights: a decline, what nobody mends, and a healthy node.

One series by itself in the first two, its night-to-night spread given; eight a gate, from the five worlds, in the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.judge.baseline.detector import Night, SeriesState, Track
from bench.judge.baseline.prediction import Policy
from bench.judge.baseline.scale import Scale, ScaleKind
from tests.accuracy._worlds import METRICS, WORLDS, Array, draw

SCALE = Scale(ScaleKind.RATIO, 1.0)
SPREADS = (0.01, 0.03, 0.05)
NIGHTS, BASELINE = 400, 30
A_NIGHT, TOO_MUCH, BROKEN = 0.003, 0.15, 0.30
_BAD = (SeriesState.SUSPECT, SeriesState.REGRESSED)


def as_measured(track: Track, first: float, again: Sequence[float]) -> Night:
    """Measured again when the first measurement asks for it, and a third time when two leave it open, as
    `bench run --baseline` does.
    """
    night, (second, third) = Night(first), again
    if track.judge(night).state not in _BAD:
        return night
    night = Night(first, second)
    return Night(first, second, third) if track.judge(night).state is SeriesState.SUSPECT else night


def states(first: Array, again: Array) -> Iterator[SeriesState]:
    """The state of every night of a series."""
    track = Track(Policy(), SCALE)
    for one, two in zip(first.tolist(), again.tolist(), strict=True):
        yield track.enter(as_measured(track, one, two)).state


def _alike(rng: np.random.Generator, spread: float, level: NDArray[np.floating[Any]]) -> tuple[Array, Array]:
    """Nights whose measurements are all separate draws: the first, and the second and third."""
    first, *again = level + spread * rng.standard_normal((3, len(level)))
    return first, np.stack(again, -1)


def decline(job: tuple[float, int, int]) -> list[float]:
    """The share that each of some series had lost when its decline was found; 1 for never."""
    spread, start, series = job
    rng = np.random.default_rng([1, round(1000 * spread), start])
    level = math.log1p(-A_NIGHT) * np.clip(np.arange(start + 110) - start, 0, None)
    costs = []
    for _ in range(series):
        found = states(*_alike(rng, spread, level))
        nights = (night for night, state in enumerate(found) if state is SeriesState.REGRESSED and night > start)
        first = next(nights, None)
        costs.append(1.0 if first is None else -math.expm1(float(level[first])))
    return costs


def unmended(job: tuple[float, int]) -> tuple[int, int]:
    """(series-nights that were not REGRESSED, of so many) after a drop that nobody mends, from its second night on."""
    spread, series = job
    rng = np.random.default_rng([2, round(1000 * spread)])
    level = np.where(np.arange(NIGHTS) < BASELINE, 0.0, math.log1p(-BROKEN))
    after = [state for _ in range(series) for state in list(states(*_alike(rng, spread, level)))[BASELINE + 1 :]]
    return sum(state is not SeriesState.REGRESSED for state in after), len(after)


def healthy(job: tuple[str, int, float]) -> tuple[str, int, int]:
    """(world, gate-nights with a REGRESSED series, all gate-nights) of one healthy node from its warm-up on."""
    world, number, stays = job
    nights = NIGHTS // 2
    batch = draw(np.random.default_rng([3, WORLDS.index(world), number]), world, 1, 0, nights, stays)
    series = [list(states(batch.first[0, metric], batch.again[0, metric])) for metric in range(METRICS)]
    gates = list(zip(*series, strict=True))[Policy().fewest :]
    return world, sum(SeriesState.REGRESSED in gate for gate in gates), len(gates)
