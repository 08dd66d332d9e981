"""Quantiles and special functions of the nightly gate, without scipy, whose import alone takes longer than the gate.

scipy is the judge of them: the tests hold every one to scipy's within 1e-9 over the range that the gate uses.

Sources: Abramowitz & Stegun, *Handbook of Mathematical Functions*: 26.7.1 (Student's t by
the incomplete beta function), 26.5.8 (its continued fraction), 6.3.18 and 6.4.11 (asymptotic series of the
digamma and trigamma functions).
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_TINY = 1e-300
_STEPS = 300
_SERIES_FROM = 12.0


@lru_cache(maxsize=4096)
def z_quantile(share: float) -> float:
    """The ``share`` quantile of the normal distribution."""
    return NormalDist().inv_cdf(share)


@lru_cache(maxsize=8192)
def t_quantile(level: float, df: float) -> float:
    """The upper ``level`` quantile of Student's t, for ``0 < level <= 0.5`` and ``df >= 1``, by Newton's method.

    The tail is convex there, so that steps from below never overshoot.
    """
    if not (0.0 < level <= 0.5 and df >= 1.0):
        raise ValueError(f"no quantile for level {level} and {df} degrees of freedom")
    found = z_quantile(1.0 - level)
    norm = math.lgamma((df + 1.0) / 2.0) - math.lgamma(df / 2.0) - 0.5 * math.log(df * math.pi)
    for _ in range(_STEPS):
        density = math.exp(norm - (df + 1.0) / 2.0 * math.log1p(found * found / df))
        step = (t_tail(found, df) - level) / density
        found += step
        if abs(step) < 1e-13 * max(found, 1.0):
            break
    return found


def t_tail(t: float, df: float) -> float:
    """P(T > t) for t >= 0: half of the regularised incomplete beta function I_x(df/2, 1/2) at x = df / (df + t^2)."""
    return 0.5 * _beta_share(df / (df + t * t), df / 2.0, 0.5)


def _beta_share(x: float, a: float, b: float) -> float:
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1.0) / (a + b + 2.0):
        return math.exp(front) * _beta_fraction(x, a, b) / a
    return 1.0 - math.exp(front) * _beta_fraction(1.0 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction, by Lentz's method."""
    c, d = 1.0, 1.0 / _not_zero(1.0 - (a + b) * x / (a + 1.0))
    found = d
    for m in range(1, _STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0)),
        ):
            d = 1.0 / _not_zero(1.0 + term * d)
            c = _not_zero(1.0 + term / c)
            found *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return found


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


@lru_cache(maxsize=8192)
def digamma(x: float) -> float:
    """The derivative of log gamma, for x > 0: recurrence up to 12, then the asymptotic series."""
    found = 0.0
    while x < _SERIES_FROM:
        found -= 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132))))
    return found + math.log(x) - 0.5 / x - series


@lru_cache(maxsize=8192)
def trigamma(x: float) -> float:
    """The derivative of digamma, for x > 0, likewise."""
    found = 0.0
    while x < _SERIES_FROM:
        found += 1.0 / (x * x)
        x += 1.0
    y = 1.0 / (x * x)
    return found + 1.0 / x + y / 2.0 + y / x * (1 / 6 - y * (1 / 30 - y * (1 / 42 - y * (1 / 30 - y * 5 / 66))))
