"""The worlds of the nightly gate's error rates: synthetic nights of a node and of its siblings, with known truth.

Every metric's repeats vary by 3 to 8 % (uniform, drawn once a metric). 40 % of that variance is the night's, which all
repeats of a night share; 30 % of the night's is the node's, which all its metrics share. A night's value is the median
of five repeats. A second and a third measurement in the same night keep ``stays`` of the night's part. On top of that:

- normal: nothing. autocorrelated: the night's part remembers the night before (0.5). heavy-tailed: Student's t with 4
  degrees of freedom in place of every normal. mixed: a quarter of the metrics is bimodal (15 % of repeats 10 % slower)
  and 2 % of all repeats are 10 to 50 % slower. slow night: mixed, and 2 % of metric-nights are 8 % slower all night; a
  second measurement finds it still so with probability ``stays``, and then the third does too.

Where a limit is straddled the session goes on, for more rounds of repeats: they share all of the night's part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.judge.pooling import LOOKS

WORLDS = ("normal", "autocorrelated", "heavy-tailed", "mixed", "slow night")
METRICS, REPEATS, SIBLINGS = 8, 5, 8
#: How much siblings' true scales differ (standard deviation of the logarithm).
UNLIKE = 0.25
_NIGHT, _NODE, _MEMORY = 0.4, 0.3, 0.5

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Logarithms. ``repeats``: gates x metrics x nights x repeats; ``first``: their medians; ``again``: each night's
    second and third measurement, the last axis; ``rounds``: gates x metrics x the repeats of the night after the
    baseline, as often as it is looked at; ``siblings``: gates x metrics x siblings x nights."""

    repeats: Array
    first: Array
    again: Array
    rounds: Array
    siblings: Array


def draw(rng: np.random.Generator, world: str, gates: int, nights: int, extra: int, stays: float) -> Batch:
    """``gates`` independent nodes with ``nights`` baseline nights and ``extra`` nights after them, nothing wrong."""
    spread = rng.uniform(0.03, 0.08, (gates, METRICS, 1))
    bimodal = rng.random((gates, METRICS, 1, 1)) < 0.25
    repeats, again, further = _node(rng, world, spread, bimodal, nights + extra, stays, nights)
    others = []
    for _ in range(SIBLINGS):
        like = spread * np.exp(UNLIKE * rng.standard_normal(spread.shape))
        others.append(np.median(_node(rng, world, like, bimodal, nights, stays)[0], -1))
    rounds = np.concatenate([repeats[:, :, nights], further], -1)
    return Batch(repeats, np.median(repeats, -1), again, rounds, np.stack(others, 2))


def _node(
    rng: np.random.Generator, world: str, spread: Array, bimodal: Flags, nights: int, stays: float, tonight: int = 0
) -> tuple[Array, Array, Array]:
    """The nights' repeats, their second and third measurement, and the further rounds of one of the nights."""
    gates = spread.shape[0]
    shape = (gates, METRICS, nights)
    night = np.sqrt(1 - _NODE) * _noise(rng, world, shape) + np.sqrt(_NODE) * _noise(rng, world, (gates, 1, nights))
    if world == "autocorrelated":
        for t in range(1, nights):
            night[..., t] = _MEMORY * night[..., t - 1] + np.sqrt(1 - _MEMORY**2) * night[..., t]
    slow = rng.random(shape) < (0.02 if world == "slow night" else 0.0)
    lasting = np.sqrt(_NIGHT * stays) * night
    passing = np.sqrt(_NIGHT * (1 - stays))
    first = lasting + passing * _noise(rng, world, shape)
    repeats = _repeats(rng, world, spread, first, bimodal, slow)
    own = lasting + passing * _noise(rng, world, shape)
    still = slow & (rng.random(shape) < stays)
    second = np.median(_repeats(rng, world, spread, own, bimodal, still), -1)
    (other,) = rng.spawn(1)  # draws of its own: the rest stay as they were when a night was measured twice at most
    own = lasting + passing * _noise(other, world, shape)
    third = np.median(_repeats(other, world, spread, own, bimodal, still), -1)
    one = np.s_[..., tonight : tonight + 1]
    rounds = [_repeats(other, world, spread, first[one], bimodal, slow[one]) for _ in range(LOOKS - 1)]
    return repeats, np.stack([second, third], -1), np.concatenate(rounds, -1).reshape(gates, METRICS, -1)


def _repeats(rng: np.random.Generator, world: str, spread: Array, night: Array, bimodal: Flags, slow: Flags) -> Array:
    shape = (*night.shape, REPEATS)
    found = (spread * night)[..., None] + (spread * np.sqrt(1 - _NIGHT))[..., None] * _noise(rng, world, shape)
    if world in ("mixed", "slow night"):
        found = found + np.where(bimodal & (rng.random(shape) < 0.15), np.log(0.9), 0.0)
        found = found + np.where(rng.random(shape) < 0.02, np.log(1 - rng.uniform(0.1, 0.5, shape)), 0.0)
    slower: Array = found + np.where(slow, np.log(0.92), 0.0)[..., None]
    return slower


def _noise(rng: np.random.Generator, world: str, shape: tuple[int, ...]) -> Array:
    """Standard deviation one."""
    if world == "heavy-tailed":
        heavy: Array = rng.standard_t(4, shape) / np.sqrt(2.0)
        return heavy
    return rng.standard_normal(shape)
