"""By how much whole sessions of a series differ: for absolute gates (`bench.judge.sessions`).

From the node's own nights, the bad ones left out as the nightly gate does; pooled with its siblings' spread where the
store knows any (Smyth 2004, eq. 4). While there are fewer than seven nights, the metric's own prior
(`Metric.session_spread`) takes the siblings' place. The session's own repeats may widen it, never narrow it: a series
whose repeats scatter has sessions that do, and repeats that remember each other look steadier than they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import variance

from bench.judge.baseline.detector import normal_of
from bench.judge.baseline.prediction import Policy, Prior, baseline_of, prior_of
from bench.judge.baseline.scale import Scale, ScaleKind, scale_of
from bench.judge.sessions import Spread
from bench.judge.statistics import t_quantile
from bench.model import Measurement, Metric

#: What the metric's prior is worth, in degrees of freedom: five nights of our own weigh as much.
_PRIOR_DF = 4.0
#: A session's part of the variance over the repeats' part: 4 to 5. In 22 recorded sessions of fio it was 9 to 47 % of
#: the variance, over eight series (tests/judge/baseline/data).
_SESSION_OVER_REPEATS = 0.8
_ROUNDS = 5.0


def spread_of(
    metric: Metric | None,
    measurement: Measurement,
    nights: Sequence[float] = (),
    siblings: Sequence[Sequence[float]] = (),
    looks: int = 1,
) -> Spread:
    """The spread of a measurement's series. ``nights``: its values in the node's own, oldest first; ``siblings``: those
    of each other node. None for a metric without a prior: it is a fact of its session.
    """
    if metric is None or metric.session_spread is None:
        return Spread(looks=looks)
    policy, scale = Policy(), scale_of(metric, (measurement.value, *nights))
    floor = scale.floor(policy.scale_floor)
    normal = normal_of(_scaled(nights, scale), policy, scale)
    prior = prior_of([_scaled(each, scale) for each in siblings], floor, policy.fewest)
    whole = prior is not None or len(normal) >= policy.fewest
    if not whole:
        prior = _declared(metric.session_spread, measurement, scale)
    logarithmic = scale.kind is ScaleKind.RATIO
    if prior is not None and not normal:
        return Spread(math.sqrt(prior.variance), prior.df, logarithmic, whole, looks)
    base = baseline_of(normal, floor, prior)
    return Spread(base.deviation, base.df, logarithmic, whole, looks)


def _scaled(values: Sequence[float], scale: Scale) -> list[float]:
    return [scale.of(value) for value in values if scale.fits(value)]


def _declared(spread: float, measurement: Measurement, scale: Scale) -> Prior:
    """The metric's prior, pooled with what the session's own repeats let expect where that is more.

    However many repeats there are, they count as `_ROUNDS`: more of one session say no more of how it differs from the
    next. A figure without repeats counts as one of `_ROUNDS` with its interval.
    """
    repeats, ends = _scaled(measurement.repeats, scale), _scaled(measurement.interval, scale)
    df, scatter = min(len(repeats), _ROUNDS) - 1.0, 0.0
    if df >= 1.0:
        scatter = variance(repeats)
    elif len(ends) == 2 and ends[0] != ends[1]:
        df = _ROUNDS - 1.0
        scatter = _ROUNDS * ((ends[1] - ends[0]) / 2.0 / t_quantile(0.025, df)) ** 2
    df = df if scatter else 0.0
    pooled = (_PRIOR_DF * spread**2 + df * _SESSION_OVER_REPEATS * scatter) / (_PRIOR_DF + df)
    return Prior(max(spread**2, pooled), _PRIOR_DF + df)
