"""The most that any rule could find in the slow nights' world: a Neyman-Pearson bound.

The rule knows the world to the letter and each series' spread, always sees both measurements of the night, and has
learnt the level from thirty nights, or knows that too. Of all rules that look at one series at a time, that on the
ratio of the two densities has the most power for its false alarms (Neyman and Pearson, 1933). The densities of a
night's two medians are computed on a grid.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.stats import norm

from tests.accuracy._worlds import METRICS, Array

_STEP = 0.003
_GRID: Array = np.arange(-0.9, 0.45, _STEP)
_NIGHT, _SLOW, _STAYS = 0.4, 0.02, 0.5
#: The variance of a night's value over that of a repeat: 0.287 is that of the median of five normal ones.
_VALUE = _NIGHT + (1 - _NIGHT) * 0.287


def best(drop: float, false: float, nights: int | None = None) -> float:
    """The share of nights worse by ``drop`` that is found when ``false`` of healthy gate-nights alarm.

    ``nights``: so many taught the level; None where it is known.
    """
    ratios, healthy, worse = [], [], []
    shift = round(-np.log1p(-drop) / _STEP)
    for spread in np.linspace(0.03, 0.08, 11):
        for bimodal, share in ((False, 0.75), (True, 0.25)):
            both = _both(float(spread), bimodal, 0.0 if nights is None else _VALUE / nights)
            moved = np.zeros_like(both)
            moved[:-shift, :-shift] = both[shift:, shift:]
            ratios.append(((moved + 1e-18) / (both + 1e-18)).ravel())
            healthy.append(both.ravel() * share / 11)
            worse.append(moved.ravel() * share / 11)
    order = np.argsort(-np.concatenate(ratios))
    alarms = np.cumsum(np.concatenate(healthy)[order])
    return float(np.cumsum(np.concatenate(worse)[order])[np.searchsorted(alarms, 1 - (1 - false) ** (1 / METRICS))])


def _both(spread: float, bimodal: bool, unknown: float) -> Array:
    """The density of a night's two medians: they share ``_STAYS`` of the night's part, and the error of the level."""
    median = _median_of_five(_repeat(spread, bimodal))
    passing = norm.pdf((_GRID - _GRID[len(_GRID) // 2]) / (spread * np.sqrt(_NIGHT * (1 - _STAYS))))
    one = np.convolve(median, passing, "same")
    nodes, weights = hermegauss(31)
    lasting = spread * np.sqrt(_NIGHT * _STAYS + unknown) * nodes
    well, slow = (np.array([_moved(one, by + extra) for by in lasting]) for extra in (0.0, np.log(0.92)))
    found = np.einsum("n,ni,nj->ij", weights, (1 - _SLOW) * well, well)
    found += np.einsum("n,ni,nj->ij", weights, _SLOW * slow, _STAYS * slow + (1 - _STAYS) * well)
    shares: Array = found / found.sum()
    return shares


def _repeat(spread: float, bimodal: bool) -> Array:
    density: Array = norm.pdf(_GRID / (spread * np.sqrt(1 - _NIGHT)))
    if bimodal:
        density = 0.85 * density + 0.15 * _moved(density, np.log(0.9))
    slower = [_moved(density, np.log(1 - share)) for share in np.linspace(0.1, 0.5, 41)]
    mixed = 0.98 * density + 0.02 * np.mean(slower, 0)
    found: Array = mixed / (mixed.sum() * _STEP)
    return found


def _median_of_five(density: Array) -> Array:
    below = np.cumsum(density) * _STEP
    found: Array = 30 * below**2 * (1 - below) ** 2 * density
    return found


def _moved(density: Array, by: float) -> Array:
    found: Array = np.interp(_GRID - by, _GRID, density, 0.0, 0.0)
    return found
