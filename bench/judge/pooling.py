"""What sibling nodes say of a series' night-to-night variance, so that a node with few nights need not guess it.

Only the *scale* is shared, never the level: each node keeps its own normal. The weight is learnt from how much the
siblings differ, so that unlike siblings count for little.

Source: Smyth, "Linear models and empirical Bayes methods for assessing differential expression", Statistical
Applications in Genetics and Molecular Biology 3 (2004), section 6.2: the variances of like things follow a scaled
F distribution, whose prior variance and degrees of freedom are fitted by the moments of their logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.judge.baseline.prediction import Prior
from bench.judge.quantiles import digamma, trigamma

#: So many siblings at least: the spread of two variances says nothing of how alike nodes are.
FEWEST_SIBLINGS = 3
#: However alike they seem: 20 nights of our own always count for half.
MOST_DF = 20.0


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
    df = math.floor(2.0 * _df(spread - sampling)) / 2.0  # halves: few enough that their quantiles are made once
    if df <= 0.0:
        return None
    return Prior(math.exp(mean + digamma(df / 2.0) - math.log(df / 2.0)), df)


def _log_variance(nights: Sequence[float], floor: float) -> float:
    """The logarithm of the sample variance, corrected for its bias (Smyth: e_g = z_g - psi(d/2) + log(d/2))."""
    n = len(nights)
    mean = sum(nights) / n
    variance = max(sum((night - mean) ** 2 for night in nights) / (n - 1), floor**2)
    return math.log(variance) - digamma((n - 1) / 2.0) + math.log((n - 1) / 2.0)


def _df(excess: float) -> float:
    """The degrees of freedom d0 with trigamma(d0 / 2) = excess, at most `MOST_DF`, by bisection."""
    if excess <= trigamma(MOST_DF / 2.0):
        return MOST_DF
    low, high = 0.0, MOST_DF
    for _ in range(40):
        middle = (low + high) / 2.0
        low, high = (middle, high) if trigamma(middle / 2.0) > excess else (low, middle)
    return low
