"""Open-loop serving judged: who kept the limits, do enough of them, and what a window says. Pure, shared by both sides.

Times count from the *scheduled* arrival.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.judge import statistics
from bench.model import Code, Measurement
from probes.inference.events import Event, SearchEnd, SearchTrial, Serve, ServedRequest, first, of
from probes.inference.figures import Labels, contended, figure, late, quantiles

_PARTS = 5  # of the window, as repeats for the interval of a rate


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

    def labels(self, labels: Labels) -> dict[str, str]:
        """The labels, with the limits that a figure stands on."""
        return {
            **labels,
            "first_token_limit_seconds": f"{self.first_token:g}",
            "inter_token_limit_seconds": f"{self.inter_token:g}",
        }


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


def parse(found: Sequence[Event], device: Labels) -> list[Measurement]:
    """All figures of the serve stage; none where it was not run."""
    serve = first(found, Serve)
    if serve is None:
        return []
    requests = of(found, ServedRequest)
    limits = Limits(serve.first_token_limit, serve.inter_token_limit)
    lags = [r.lag for r in requests if r.lag is not None]
    invalid = contended([serve]) or late(lags, limits.first_token)
    labels = {**device, "stage": "serve"}
    return [
        *_times(requests, labels, invalid),
        *_rates(requests, serve, labels, invalid),
        *_goodput([limits.kept(r, serve.window) for r in requests], limits, labels, invalid),
        *quantiles("inference_schedule_lag_seconds", lags, labels),
        *_sustained(found, limits, labels, invalid),
        figure("accelerator_busy_ratio", serve.busy_ratio, labels, invalid),
        *([] if serve.delay_ratio is None else [figure("inference_run_delay_ratio", serve.delay_ratio, labels)]),
    ]


def _times(requests: Sequence[ServedRequest], labels: Labels, invalid: str | None) -> Iterator[Measurement]:
    firsts = [r.first_token for r in requests if r.first_token is not None]
    yield from quantiles("inference_first_token_seconds", firsts, labels, invalid)
    yield from quantiles("inference_inter_token_seconds", [g for r in requests for g in r.gaps], labels, invalid)
    longest = [max(r.gaps) for r in requests if r.gaps]
    yield from quantiles("inference_longest_gap_seconds", longest, labels, invalid)


def _rates(
    requests: Sequence[ServedRequest], serve: Serve, labels: Labels, invalid: str | None
) -> Iterator[Measurement]:
    """Below saturation these equal what was offered: they say that the load was carried, not what could be."""
    tokens = [t for r in requests for t in r.tokens]
    ends = [r.tokens[-1] for r in requests if r.finished]
    yield figure("inference_offered_requests_per_second", serve.rate, labels)
    yield _rate("inference_requests_per_second", ends, serve.window, labels, invalid)
    yield _rate("inference_tokens_per_second", tokens, serve.window, labels, invalid)


def _rate(metric: str, times: Sequence[float], window: float, labels: Labels, invalid: str | None) -> Measurement:
    """Events a second of the whole window; the interval comes from its five parts."""
    value = sum(t <= window for t in times) / window
    width = window / _PARTS
    parts = [sum(i * width < t <= (i + 1) * width for t in times) / width for i in range(_PARTS)]
    _, (low, high) = statistics.median_interval(parts)
    return figure(metric, value, labels, invalid, (max(0.0, min(low, value)), max(high, value)), max(1, len(times)))


def _goodput(outcomes: Sequence[Kept], limits: Limits, labels: Labels, invalid: str | None) -> Iterator[Measurement]:
    """The share of the requests, with Clopper and Pearson's exact interval."""
    kept, censored = outcomes.count(Kept.KEPT), outcomes.count(Kept.CENSORED)
    decided = len(outcomes) - censored
    if decided:
        interval = statistics.binomial_interval(kept, decided)
        yield figure("inference_goodput_ratio", kept / decided, limits.labels(labels), invalid, interval, decided)
    yield figure("inference_unfinished_requests", float(censored), labels)


def _sustained(found: Sequence[Event], limits: Limits, labels: Labels, invalid: str | None) -> Iterator[Measurement]:
    """The highest rate that kept the limits; its interval reaches to the lowest rate that did not."""
    search = first(found, SearchEnd)
    if search is None or search.best is None:
        return
    why = contended(of(found, SearchTrial)) or invalid
    if search.failed is None:
        why = why or f"{Code.SEARCH_UNFINISHED}: no rate was found at which the limits are broken"
    named = {**limits.labels(labels), "share": f"{search.share:g}"}
    interval = (search.best, max(search.best, search.failed or 0.0))
    yield figure("inference_sustained_requests_per_second", search.best, named, why, interval, search.trials)
