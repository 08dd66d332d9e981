"""Intervals for medians, quantiles, shares and rates, and how many samples a claim needs.

Every function is exact for its stated model or says what it assumes. scipy is imported inside the functions, because
``bench --help`` and ``bench gate`` must start without it.

Sources: Hahn & Meeker, *Statistical Intervals* (2nd ed. with Escobar, 2017), section 5.2 (order statistics for a
quantile); Maricq et al., "Taming Performance Variability", OSDI 2018 (order statistics for the median of repeats);
Clopper & Pearson, Biometrika 26 (1934); Garwood, Biometrika 28 (1936) (Poisson).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

Interval = tuple[float, float]

#: The fewest values for which two order statistics hold the median with 95 %: 1 - 2 / 2**6 = 0.969, and 0.9375 at 5.
FEWEST_FOR_ORDER_STATISTICS = 6
_LARGEST = math.nextafter(math.inf, 0.0)


def median(values: Sequence[float]) -> float:
    """The median; the mean of the middle two of an even number of values. Raises ValueError for none."""
    ordered = _sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return min(max(low / 2 + high / 2, low), high)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, Interval]:
    """The median of repeats and an interval that holds the true median with ``confidence``.

    Six values or more: two order statistics, without any assumption on the distribution (Hahn & Meeker 5.2). Their
    coverage is never under ``confidence``. Fewer: Student's t on the logarithms when every value is positive, else on
    the values; this takes the (log) values as normal, and is widened where needed so that it holds the median. One
    value: no width, because nothing is known of its noise.

    Repeats made in one burst are not independent; the interval then says how well *this session* is known, no more.
    """
    ordered, middle = _sorted(values), median(values)
    if ordered[0] == ordered[-1]:
        return middle, (ordered[0], ordered[-1])
    if len(ordered) >= FEWEST_FOR_ORDER_STATISTICS:
        rank = _largest_rank_under((1.0 - confidence) / 2.0, len(ordered), 0.5)
        if rank >= 1:
            return middle, (ordered[rank - 1], ordered[len(ordered) - rank])
    low, high = _student_interval(ordered, confidence)
    return middle, (min(low, middle), max(high, middle))


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile by nearest rank: the ceil(q n)-th smallest value (Hyndman & Fan 1996, type 1).

    A value that was really measured, never one between two; q = 0 gives the smallest, q = 1 the largest.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"{q} is not between 0 and 1")
    ordered = _sorted(values)
    rank = math.ceil(round(q * len(ordered), 9))  # 0.07 * 100 is 7.000000000000001
    return ordered[max(rank, 1) - 1]


def quantile_interval(values: Sequence[float], q: float) -> Interval:
    """Two order statistics around the q-quantile (Hahn & Meeker 5.2), widened to hold `quantile`'s value.

    With too few values for them (`quantile_ranks`) the coverage is under 95 %.
    """
    ordered, value = _sorted(values), quantile(values, q)
    low, high = quantile_ranks(len(ordered), q)
    return min(ordered[low - 1], value), max(ordered[high - 1], value)


def quantile_ranks(n: int, q: float, confidence: float = 0.95) -> tuple[int, int]:
    """The ranks, from 1 to n, of the two order statistics around the q-quantile of n values.

    With too few values there is none on a side, and the smallest or the largest takes its place.
    """
    tail = (1.0 - confidence) / 2.0
    low, high = _largest_rank_under(tail, n, q), n + 1 - _largest_rank_under(tail, n, 1.0 - q)
    return max(low, 1), min(high, n)


def samples_needed_for_quantile(q: float, over: int = 0, confidence: float = 0.99) -> int:
    """How many samples show that the q-quantile keeps a limit when ``over`` of them broke it.

    The smallest n for which P(Binomial(n, 1 - q) <= over) <= 1 - confidence, exactly: MLPerf LoadGen's rule for early
    stopping. 459 for p99 and none over, 662 for one over, 64 for p90 and one over.
    """
    if not (0.0 < q < 1.0 and 0.0 < confidence < 1.0 and over >= 0):
        raise ValueError(f"no sample count for q={q}, over={over}, confidence={confidence}")
    high = over + 1
    while _binomial_cdf(over, high, 1.0 - q) > 1.0 - confidence:
        high *= 2
    return bisect_left(range(high), True, high // 2, key=lambda n: _binomial_cdf(over, n, 1.0 - q) <= 1.0 - confidence)


def binomial_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval for a share of ``successes`` in ``n`` independent trials."""
    from scipy.special import betaincinv

    if not (n >= 1 and 0 <= successes <= n):
        raise ValueError(f"{successes} successes in {n} trials")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1.0 - tail))
    return low, high


def poisson_upper_bound(events: int) -> float:
    """The largest mean count that is still plausible after ``events`` were counted (one-sided 95 %, exact, Garwood).

    2.996 for none (the rule of three), 4.744 for one. Divide by the time watched for a rate.
    """
    from scipy.special import gammaincinv

    if events < 0:
        raise ValueError(f"{events} events")
    return float(gammaincinv(events + 1, 0.95))


def _sorted(values: Sequence[float]) -> list[float]:
    if not values:
        raise ValueError("no values")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")
    return sorted(map(float, values))


def _student_interval(ordered: Sequence[float], confidence: float) -> Interval:
    """mean +- t s / sqrt(n), of the logarithms when all are positive, else of the values scaled to at most one."""
    from scipy.special import stdtrit

    n = len(ordered)
    scale = max(-ordered[0], ordered[-1])  # keeps squares of the largest floats finite
    values = [math.log(value) if ordered[0] > 0.0 else value / scale for value in ordered]
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, (1.0 + confidence) / 2.0)) * deviation / math.sqrt(n)
    ends = (mean - half, mean + half)
    if ordered[0] > 0.0:
        low, high = (math.exp(end) if end < 709.0 else _LARGEST for end in ends)
    else:
        low, high = (min(max(end * scale, -_LARGEST), _LARGEST) for end in ends)
    return low, high


def _binomial_cdf(k: int, n: int, p: float) -> float:
    """P(Binomial(n, p) <= k), also for k < 0 (0) and k >= n (1): I_x(n - k, k + 1) at x = 1 - p."""
    if k < 0:
        return 0.0
    return 1.0 if k >= n else _beta_share(1.0 - p, float(n - k), k + 1.0)


def _largest_rank_under(tail: float, n: int, q: float) -> int:
    """The largest j in 0..n with P(Binomial(n, q) <= j - 1) <= tail, by bisection (the left side grows with j)."""
    return bisect_right(range(n), tail, key=lambda k: _binomial_cdf(k, n, q))


_TINY = 1e-300
_STEPS, _MOST_TERMS = 300, 20_000
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
    """The continued fraction, by Lentz's method: some sqrt(max(a, b)) steps (Numerical Recipes, 6.4)."""
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or _TINY)
    found = d
    for m in range(1, _MOST_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0)),
        ):
            d = 1.0 / (1.0 + term * d or _TINY)
            c = 1.0 + term / c or _TINY
            found *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return found


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
