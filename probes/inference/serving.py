"""Open-loop serving judged: who kept the limits, and do enough of them? Pure, shared by the load and its parser.

Times count from the *scheduled* arrival.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bench.judge import statistics
from probes.inference.events import ServedRequest


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

    def kept(self, request: ServedRequest, window: float) -> Kept:
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
