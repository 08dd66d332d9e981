"""One-sided prediction intervals for the coming nights of a series.

Sources: Hahn & Meeker, *Statistical Intervals* (2nd ed. 2017), sections 4.7 and 4.8: for one future value and for the
mean of m future values, centre - t s sqrt(1/m + 1/n). The variance of a mean of values that remember each other is that
of a first-order autoregression. The constants of `Policy` were chosen by simulation: ``make error-rates`` prints what
they cost and what they find.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from bench.judge.statistics import digamma, t_quantile, trigamma


class Policy(NamedTuple):
    """The constants of the decision. Levels are one-sided and for one series.

    The levels are for one of ``most_series`` that gate a profile: fewer only alarm less, more share them (`shared`). A
    series is ``suspect_level`` likely to be measured again on a healthy night; each further measurement must be bad
    (``confirm_level``), and so must their mean: ``at_once_level`` for two of one night, ``confirmed_level`` for three,
    or for two nights in a row. ``lasting_level`` is for each of the windows ``shifts``, in nights, ``own_pins_level``
    for the longest against the first ``own_pins`` good nights, ``decline_level`` for the line through
    ``decline_nights`` at most, ``fewest_of_decline`` at least. ``effect`` is the least drop that matters; for one night
    it is ``effect_of_one``, because slow nights come and go by themselves, unless it is ``certain`` deviations, for a
    slow decline ``effect_of_decline``. ``asked`` is the drop that must be seen with 80 % power; ``seen`` is a little
    more, because each further measurement must be bad too. ``hidden_level``: how likely tonight lies so far above the
    node's level that this one would hide. ``scale_floor`` keeps a series that did not vary at all from alarming on its
    last digit; ``entry_level`` is how far out a night may lie and still be taken in as it is.
    """

    window: int = 30
    fewest: int = 7
    own_pins: int = 14
    own_pins_level: float = 0.0002
    most_series: int = 8
    suspect_level: float = 0.015
    confirm_level: float = 0.04
    at_once_level: float = 0.0005
    confirmed_level: float = 0.0055
    lasting_level: float = 0.0007
    shifts: tuple[int, ...] = (6, 7)
    entry_level: float = 0.001
    effect: float = 0.05
    effect_of_one: float = 0.06
    certain: float = 5.0
    seen: float = 0.80
    decline_nights: int = 60
    fewest_of_decline: int = 45
    decline_level: float = 0.0006
    effect_of_decline: float = 0.09
    asked: float = 0.20
    hidden_level: float = 0.025
    scale_floor: float = 0.005

    def shared(self, series: int) -> Policy:
        """With the levels that each of so many series has, so that together they alarm no more than `most_series`."""
        part = min(1.0, self.most_series / series)
        levels = (
            "suspect_level",
            "at_once_level",
            "confirmed_level",
            "lasting_level",
            "own_pins_level",
            "decline_level",
        )
        return self._replace(**{level: part * getattr(self, level) for level in levels})


class Prior(NamedTuple):
    """What sibling nodes say of this series' night-to-night variance, worth ``df`` degrees of freedom."""

    variance: float
    df: float


class Baseline(NamedTuple):
    """What is normal, on the scale: centre and standard deviation of single nights, from ``n`` nights."""

    centre: float
    deviation: float
    df: float
    n: int

    @property
    def spread(self) -> float:
        """The standard deviation of a night's distance from the centre, whose own error is in it."""
        return self.deviation * math.sqrt(1.0 + 1.0 / self.n)

    def edge(self, level: float) -> float:
        """How far below the centre a night may lie: one-sided Student prediction interval."""
        return t_quantile(level, self.df) * self.spread

    def edge_lasting(self, level: float, nights: int, memory: float) -> float:
        """The same for the mean of the last ``nights``, which remember each other."""
        own, others = _inflation(nights, memory) / nights, _inflation(self.n, memory) / self.n
        return t_quantile(level, self.df) * self.deviation * math.sqrt(own + others)


def baseline_of(values: Sequence[float], floor: float, prior: Prior | None = None) -> Baseline:
    """Centre and scale of at least two nights, shrunk towards the siblings' where there are any (Smyth 2004, eq. 4)."""
    n = len(values)
    centre = sum(values) / n
    squares = sum((value - centre) ** 2 for value in values)
    df = n - 1.0
    if prior is not None:
        squares, df = squares + prior.df * prior.variance, df + prior.df
    return Baseline(centre, max(math.sqrt(squares / df), floor), df, n)


class Line(NamedTuple):
    """The line through ``n`` nights: where it starts, how far it has fallen at the end, and that fall's own error."""

    start: float
    drop: float
    error: float
    df: float
    n: int

    def edge(self, level: float) -> float:
        """How far it may fall by chance: one-sided Student interval."""
        return t_quantile(level, self.df) * self.error


def line_of(nights: Sequence[float], floor: float, prior: Prior | None = None) -> Line:
    """Least squares through the nights, oldest first; what lies about the line tells their spread and their memory."""
    n = len(nights)
    centre, middle = sum(nights) / n, (n - 1.0) / 2.0
    across = n * (n * n - 1.0) / 12.0
    slope = sum((at - middle) * night for at, night in enumerate(nights)) / across
    left = [night - slope * (at - middle) for at, night in enumerate(nights)]
    base = baseline_of(left, floor, prior)
    error = base.deviation * math.sqrt(_inflation(n, memory(left, centre)) / across) * (n - 1.0)
    return Line(centre - slope * middle, -slope * (n - 1.0), error, base.df - 1.0, n)


def memory(nights: Sequence[float], centre: float) -> float:
    """The lag-1 autocorrelation of nights (newest first or last), corrected for its bias, 0 to 0.6."""
    n = len(nights)
    squares = sum((night - centre) ** 2 for night in nights)
    if squares <= 0.0:
        return 0.0
    products = sum((one - centre) * (other - centre) for one, other in pairwise(nights))
    return min(max(products / squares + 2.0 / n, 0.0), 0.6)


def _inflation(n: int, memory: float) -> float:
    """The variance of a mean of n values with this lag-1 autocorrelation, over that of n independent ones."""
    return 1.0 + 2.0 * sum((1.0 - lag / n) * memory**lag for lag in range(1, n))


#: So many siblings at least: the spread of two variances says nothing of how alike nodes are.
FEWEST_SIBLINGS = 3
#: Halves of degrees of freedom, however alike they seem: 20 nights of our own always count for half.
MOST_HALF_DF = 40


def prior_of(siblings: Sequence[Sequence[float]], floor: float, fewest: int = 7) -> Prior | None:
    """The prior from the normal nights of each sibling, on the scale; None when there are too few to learn from.

    A sibling with fewer than ``fewest`` nights is left out. ``floor`` is the least standard deviation to be believed.
    """
    counted = [nights for nights in siblings if len(nights) >= fewest]
    if len(counted) < FEWEST_SIBLINGS:
        return None
    logs = [_log_variance(nights, floor) for nights in counted]
    mean = sum(logs) / len(logs)
    spread = sum((log - mean) ** 2 for log in logs) / (len(logs) - 1)
    sampling = sum(trigamma((len(nights) - 1) / 2.0) for nights in counted) / len(counted)
    # The largest d0 with trigamma(d0 / 2) above the excess; in halves, few enough that their quantiles are made once.
    df = bisect_left(range(1, MOST_HALF_DF + 1), sampling - spread, key=lambda halves: -trigamma(halves / 4.0)) / 2.0
    if df <= 0.0:
        return None
    return Prior(math.exp(mean + digamma(df / 2.0) - math.log(df / 2.0)), df)


def _log_variance(nights: Sequence[float], floor: float) -> float:
    """The logarithm of the sample variance, corrected for its bias (Smyth: e_g = z_g - psi(d/2) + log(d/2))."""
    base = baseline_of(nights, floor)
    return 2.0 * math.log(base.deviation) - digamma(base.df / 2.0) + math.log(base.df / 2.0)
