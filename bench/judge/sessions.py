"""What an absolute gate decides by: a measurement's interval, widened from this session to the node. Pure.

A measurement's own interval says how well *this session* is known. A gate asks what the node does, and four things lie
between the two:

- **Sessions differ**: by how much is a `Spread` (`bench.judge.baseline.between` finds it).
- **Repeats remember each other**, so that their interval is too narrow; that is in the same spread.
- **Several looks.** What straddles its limit is measured again, `pooling.LOOKS` times in all, and each may decide: the
  session's own part of the interval is at Pocock's level, the same at each look, that keeps 5 % over all of them. The
  difference between sessions is met once, however often one looks, and is at 5 %.
- **The worst of several** fails a gate, so a fail is tested at Sidak's level for so many; a pass needs all of them
  anyway (intersection-union), and stays at its own.

The session's own part and that between sessions are put together by the squares of their half-widths (MOVER), which
needs nothing but intervals, of whatever kind. What the node's nights say holds their own noise already: there the wider
of the two decides.

Sources: Zou & Donner, Statistics in Medicine 27 (2008) 1693 (MOVER); Pocock, Biometrika 64 (1977) 191, and Jennison &
Turnbull, *Group Sequential Methods* (2000), table 2.1 and section 4.4 (his levels with Student's t); Sidak, JASA 62
(1967) 626; Berger, Technometrics 24 (1982) 295 (intersection-union). ``make error-rates`` prints what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from bench.judge.statistics import Interval, t_quantile
from bench.model import Measurement, unit_of

_TAIL = 0.025
#: One-sided, for so many looks: half of Pocock's levels for 5 %.
_POCOCK = (_TAIL, 0.0147, 0.01105, 0.0091, 0.0079)
_LARGEST, _LARGEST_LOG = math.nextafter(math.inf, 0.0), 709.0


class Spread(NamedTuple):
    """How far whole sessions of a series lie apart: a standard deviation, of logarithms or in the metric's own unit,
    that is worth ``df`` degrees of freedom. ``whole``: the sessions' own noise is in it. ``looks``: how often the
    series is looked at before a verdict.
    """

    deviation: float = 0.0
    df: float = 1.0
    logarithmic: bool = False
    whole: bool = False
    looks: int = 1


SpreadOf = Callable[[Measurement], Spread]


def alone(_: Measurement) -> Spread:
    """The measurement's own interval decides, as it is."""
    return Spread()


def interval_of(measurement: Measurement, spread: Spread, of: int = 1) -> Interval:
    """95 % for the node rather than for the session, over all looks; at Sidak's level for the worst of ``of``."""
    own, between = _sidak(_POCOCK[spread.looks - 1], of), 0.0
    if spread.deviation > 0.0 and (measurement.value > 0.0 or not spread.logarithmic):
        between = t_quantile(_sidak(_TAIL, of), spread.df) * spread.deviation
    elif own == _TAIL:
        return measurement.interval
    times, (low, high), value = _times_wider(own, measurement), measurement.interval, measurement.value
    both = max if spread.whole else math.hypot
    if spread.logarithmic and value > 0.0:
        middle = math.log(value)
        below = both(times * (middle - math.log(low)), between) if low > 0.0 else math.inf
        above = middle + both(times * (math.log(high) - middle), between)
        return min(value * math.exp(-below), low), max(math.exp(min(above, _LARGEST_LOG)), high)
    ends = value - both(times * (value - low), between), value + both(times * (high - value), between)
    least, most = (min(0.0, low), max(1.0, high)) if unit_of(measurement.metric) == "ratio" else (-_LARGEST, _LARGEST)
    return min(max(ends[0], least), low), max(min(ends[1], most), high)


def _sidak(tail: float, of: int) -> float:
    return tail if of <= 1 else -math.expm1(math.log1p(-tail) / of)


def _times_wider(tail: float, measurement: Measurement) -> float:
    """The half-width at that tail over the one at 2.5 %: Student's t where there are repeats. Else as for a count of no
    events, whose bound grows with the logarithm of the tail: no share, rate or quantile of many samples grows faster.
    """
    df = len(measurement.repeats) - 1.0
    if df >= 1.0:
        return t_quantile(tail, df) / t_quantile(_TAIL, df)
    return math.log(tail) / math.log(_TAIL)
