"""How much of what a workload needs is there: 0 to 100, of the weakest required gate (contract, section 8).

The score is 100 if and only if every required gate passes, and improving any one number never lowers it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from bench.model import Finding, Limit, Status

FULL = 100.0
#: The most that a gate has which did not pass: what is not shown is never full.
ALMOST = math.nextafter(FULL, 0.0)


def share(observed: float, limit: Limit) -> float:
    """The share of its requirement that a number reached: 0..100, and 100 if and only if it keeps the limit.

    ``100 * observed / min`` or ``100 * max / observed``. Where no ratio has a meaning (a limit of zero or less, a
    number of zero or less against a ``min``), what breaks the limit has 0. Never falls when the number gets better.
    """
    if keeps(observed, limit):
        return FULL
    if limit.min is not None:
        part = observed / limit.min if limit.min > 0.0 and observed > 0.0 else 0.0
    else:
        part = limit.max / observed if limit.max is not None and limit.max > 0.0 else 0.0
    return min(FULL * part, ALMOST)


def keeps(observed: float, limit: Limit) -> bool:
    """Limits are inclusive: the limit itself is kept."""
    if limit.min is not None and observed < limit.min:
        return False
    return limit.max is None or observed <= limit.max


def gate_score(status: Status, shares: Iterable[float]) -> float:
    """One gate's score from the shares of the measurements that count for it.

    A pass is full, nothing measured is nothing shown, and all else has its smallest share, under 100.
    """
    if status is Status.PASS:
        return FULL
    if status is Status.NO_DATA:
        return 0.0
    return min(min(shares, default=0.0), ALMOST)


def profile_score(gates: Iterable[tuple[bool, float]]) -> float:
    """The weakest required gate's score, from (required, score) of each; 0 without a required gate."""
    return min((score for required, score in gates if required), default=0.0)


def margin(finding: Finding) -> float | None:
    """By how much of the limit it is kept (positive) or broken (negative); None without a number or a limit but 0."""
    limit = finding.limit.min if finding.limit.min is not None else finding.limit.max
    if finding.observed is None or not limit:
        return None
    distance = finding.observed - limit if finding.limit.min is not None else limit - finding.observed
    ratio = distance / abs(limit)
    return ratio if math.isfinite(ratio) else None
