"""Open-loop load: when requests arrive, who kept the limits, do enough of them, and the highest rate at which they do.

Pure. Times count from the *scheduled* arrival.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from bench.judge import statistics
from bench.measure.probe import Option, positive_number
from bench.model import Code

#: What every open-loop load lets a user set, in the same words.
OPEN_LOOP = (
    Option(
        "rate",
        "requests a second; default: half of what was measured, or of a server what it was found to keep",
        type=positive_number,
    ),
    Option("first_token_limit", "seconds to the first token that goodput allows", type=positive_number),
    Option("inter_token_limit", "seconds between tokens that goodput allows", type=positive_number),
)
#: kubernetes-sigs/inference-perf calls a schedule healthy below 10 ms; 5 % of the limit keeps it out of the verdict.
MOST_LAG_SECONDS = 0.010
MOST_LAG_SHARE_OF_LIMIT = 0.05
LEAST_KEPT = 0.9  # of the requests must keep the limits for a rate to be sustained


def poisson(rate: float, draw: random.Random) -> Iterator[float]:
    """Seconds after the start at which requests arrive, ``rate`` a second, without end."""
    at = 0.0
    while True:
        yield (at := at + draw.expovariate(rate))


def late(lags: Sequence[float], first_token_limit: float) -> str | None:
    """Why the schedule was not kept, or None. ``lags``: seconds that requests were released after they could be."""
    lag = statistics.quantile(lags, 0.99) if lags else 0.0
    most = min(MOST_LAG_SECONDS, MOST_LAG_SHARE_OF_LIMIT * first_token_limit)
    if lag <= most:
        return None
    return f"{Code.SCHEDULE_LAG}: requests were released {lag * 1e3:.1f} ms late (at most {most * 1e3:.0f} ms)"


class Timed(Protocol):
    """A request of an open loop. Seconds after the start; ``tokens``: when each came; ``output``: how many."""

    @property
    def scheduled(self) -> float: ...
    @property
    def output(self) -> int: ...
    @property
    def tokens(self) -> Sequence[float]: ...
    @property
    def failed(self) -> bool: ...
    @property
    def finished(self) -> bool: ...


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


class Limits(NamedTuple):
    """Seconds: to the first token, and between tokens in the mean of a request."""

    first_token: float
    inter_token: float

    def kept(self, request: Timed, window: float) -> Kept:
        """Failed, late to its first token or slower than the limit between tokens: violated, finished or not.

        What had not come when the window closed counts as coming at that moment, which is the best it could do.
        """
        first_token = request.tokens[0] if request.tokens else window
        last = request.tokens[-1] if request.finished else window
        late = first_token - request.scheduled > self.first_token
        gaps = request.output - 1
        slow = gaps > 0 and bool(request.tokens) and (last - first_token) / gaps > self.inter_token
        if request.failed or late or slow:
            return Kept.VIOLATED
        return Kept.KEPT if request.finished else Kept.CENSORED

    def labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels, with the limits that a figure stands on."""
        first, between = f"{self.first_token:g}", f"{self.inter_token:g}"
        return {**labels, "first_token_limit_seconds": first, "inter_token_limit_seconds": between}


def held(kept: int, violated: int, share: float, confidence: float = 0.99) -> Held:
    """Do at least ``share`` of all requests keep the limits? The exact binomial test of MLPerf's early stopping.

    Pass: were the true share of violations as large as ``1 - share``, so few would be seen with at most
    ``1 - confidence``. Fail: so many would.
    """
    if kept + violated >= statistics.samples_needed_for_quantile(share, violated, confidence):
        return Held.PASS
    if kept + violated >= statistics.samples_needed_for_quantile(1.0 - share, kept, confidence):
        return Held.FAIL
    return Held.UNDECIDED


_CLOSE_ENOUGH = 1.1  # a failing rate this much above the best passing one ends the search
_MOST_DOUBLINGS = 10


class Trial(NamedTuple):
    """One window at one rate (requests a second)."""

    rate: float
    kept: int
    violated: int
    outcome: Held


@dataclass(slots=True)
class Search:
    """What was tried so far, at least one rate; none over ``most`` is."""

    trials: list[Trial]
    most: float = math.inf

    @property
    def failed(self) -> float | None:
        """The lowest rate that did not pass; an undecided one did not, so the rates above it are not claimed."""
        return min((trial.rate for trial in self.trials if trial.outcome is not Held.PASS), default=None)

    @property
    def best(self) -> float | None:
        """The highest rate that passed below every one that did not."""
        passed = (trial.rate for trial in self.trials if trial.outcome is Held.PASS)
        return max((rate for rate in passed if self.failed is None or rate < self.failed), default=None)

    @property
    def next_rate(self) -> float | None:
        """What to try next; None when the answer is close enough, or out of reach."""
        if self.failed is None or self.best is None:
            far = len(self.trials) > _MOST_DOUBLINGS or self.best == self.most
            return None if far else min(2.0 * (self.best or 0.0) or 0.5 * (self.failed or 0.0), self.most)
        return None if self.failed <= self.best * _CLOSE_ENOUGH else (self.best * self.failed) ** 0.5


def highest_rate(first: Trial, trial: Callable[[float], Trial], more: Callable[[], bool]) -> Search:
    """Search on from a first trial for as long as ``more()`` says that there is time."""
    search = Search([first])
    while (rate := search.next_rate) is not None and more():
        search.trials.append(trial(rate))
    return search
