"""Did a request keep the limits, and do enough of them? Shared by the load, which searches, and the parser. Pure.

No torch and nothing of ours is imported here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise


class Kept(StrEnum):
    """Did a request keep the limits? ``CENSORED``: the window closed before that could be said."""

    KEPT = "kept"
    VIOLATED = "violated"
    CENSORED = "censored"


class Held(StrEnum):
    """Is the share of requests that keep the limits large enough? Undecided where too few were served to say."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: to the first token, and between tokens in the mean of a request."""

    first_token: float
    inter_token: float


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a window. Seconds after its start; ``tokens`` when each token was there."""

    scheduled: float
    output: int
    tokens: tuple[float, ...]
    lag: float | None
    failed: bool

    @property
    def finished(self) -> bool:
        return len(self.tokens) >= self.output

    @property
    def first_token(self) -> float | None:
        """Seconds from the *scheduled* arrival to the first token."""
        return self.tokens[0] - self.scheduled if self.tokens else None

    @property
    def gaps(self) -> list[float]:
        """Seconds between its tokens."""
        return [b - a for a, b in pairwise(self.tokens)]

    def kept(self, limits: Limits, window: float) -> Kept:
        """Failed, late to its first token or slower than the limit between tokens: violated, finished or not.

        What had not come when the window closed counts as coming at that moment, which is the best it could do.
        """
        first = self.tokens[0] if self.tokens else window
        last = self.tokens[-1] if self.finished else window
        late = first - self.scheduled > limits.first_token
        slow = self.output > 1 and bool(self.tokens) and (last - first) / (self.output - 1) > limits.inter_token
        if self.failed or late or slow:
            return Kept.VIOLATED
        return Kept.KEPT if self.finished else Kept.CENSORED


def held(kept: int, violated: int, share: float, confidence: float = 0.99) -> Held:
    """Do at least ``share`` of all requests keep the limits? The exact binomial test of MLPerf's early stopping.

    Pass: were the true share of violations as large as ``1 - share``, so few would be seen with at most
    ``1 - confidence``. Fail: so many would. The same numbers as `bench.judge.statistics.samples_needed_for_quantile`.
    """
    n, most = kept + violated, 1.0 - share
    if n and binomial_cdf(violated, n, most) <= 1.0 - confidence:
        return Held.PASS
    if violated and 1.0 - binomial_cdf(violated - 1, n, most) <= 1.0 - confidence:
        return Held.FAIL
    return Held.UNDECIDED


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(Binomial(n, p) <= k), summed term by term in logarithms."""
    if k >= n:
        return 1.0
    log_p, log_q = math.log(p), math.log1p(-p)
    terms = (_log_choose(n, i) + i * log_p + (n - i) * log_q for i in range(k + 1))
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
