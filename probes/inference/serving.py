"""What an open-loop window says: times from the scheduled arrival, who kept the limits, and how sure that is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.judge import statistics
from bench.model import Code, Measurement
from probes.inference.events import Event, contended, exact, late, number, numbers, quantiles, share
from probes.inference.limits import Kept, Limits, Request

_PARTS = 5  # of the window, as repeats for the interval of a rate


def request(event: Event) -> Request:
    """Raises Failed where the event has not the fields of a request."""
    lag = event.get("lag")
    return Request(
        scheduled=number(event, "scheduled"), output=int(number(event, "output")),
        tokens=tuple(numbers(event, "tokens")), lag=None if lag is None else number(event, "lag"),
        failed=bool(event.get("failed")),
    )  # fmt: skip


def parse(found: Sequence[Event], device: Mapping[str, str]) -> list[Measurement]:
    """All figures of the serve stage; none where it was not run."""
    serve = next((event for event in found if event["event"] == "serve"), None)
    if serve is None:
        return []
    requests = [request(event) for event in found if event["event"] == "request"]
    limits = Limits(number(serve, "first_token_limit"), number(serve, "inter_token_limit"))
    lags = [r.lag for r in requests if r.lag is not None]
    invalid = contended([serve]) or late(lags, limits.first_token)
    labels = {**device, "stage": "serve"}
    return [
        *_times(requests, labels, invalid),
        *_rates(requests, serve, labels, invalid),
        *_goodput(requests, limits, serve, labels, invalid),
        *quantiles("inference_schedule_lag_seconds", lags, labels),
        *_sustained(found, limits, labels, invalid),
        exact("accelerator_busy_ratio", _busy(serve), labels, invalid),
        *_delay(serve, labels),
    ]


def _times(requests: Sequence[Request], labels: Mapping[str, str], invalid: str | None) -> Iterator[Measurement]:
    first = [r.first_token for r in requests if r.first_token is not None]
    yield from quantiles("inference_first_token_seconds", first, labels, invalid)
    yield from quantiles("inference_inter_token_seconds", [g for r in requests for g in r.gaps], labels, invalid)
    longest = [max(r.gaps) for r in requests if r.gaps]
    yield from quantiles("inference_longest_gap_seconds", longest, labels, invalid)


def _rates(
    requests: Sequence[Request], serve: Event, labels: Mapping[str, str], invalid: str | None
) -> Iterator[Measurement]:
    """Below saturation these equal what was offered: they say that the load was carried, not what could be."""
    window = number(serve, "window")
    tokens = [t for r in requests for t in r.tokens]
    ends = [r.tokens[-1] for r in requests if r.finished]
    yield exact("inference_offered_requests_per_second", number(serve, "rate"), labels)
    yield _rate("inference_requests_per_second", ends, window, labels, invalid)
    yield _rate("inference_tokens_per_second", tokens, window, labels, invalid)


def _rate(
    metric: str, times: Sequence[float], window: float, labels: Mapping[str, str], invalid: str | None
) -> Measurement:
    """Events a second of the whole window; the interval comes from its five parts."""
    value = sum(t <= window for t in times) / window
    width = window / _PARTS
    parts = [sum(i * width < t <= (i + 1) * width for t in times) / width for i in range(_PARTS)]
    _, (low, high) = statistics.median_interval(parts)
    return Measurement(
        metric=metric, value=value, interval=(max(0.0, min(low, value)), max(high, value)), samples=max(1, len(times)),
        labels=dict(labels), invalid=invalid,
    )  # fmt: skip


def _goodput(
    requests: Sequence[Request], limits: Limits, serve: Event, labels: Mapping[str, str], invalid: str | None
) -> Iterator[Measurement]:
    outcomes = [r.kept(limits, number(serve, "window")) for r in requests]
    kept, censored = outcomes.count(Kept.KEPT), outcomes.count(Kept.CENSORED)
    named = _limited(labels, limits)
    if len(outcomes) > censored:
        yield share("inference_goodput_ratio", kept, len(outcomes) - censored, named, invalid)
    yield exact("inference_unfinished_requests", float(censored), labels)


def _limited(labels: Mapping[str, str], limits: Limits) -> dict[str, str]:
    """The labels, with the limits that a figure stands on."""
    return {
        **labels,
        "first_token_limit_seconds": f"{limits.first_token:g}",
        "inter_token_limit_seconds": f"{limits.inter_token:g}",
    }


def _sustained(
    found: Sequence[Event], limits: Limits, labels: Mapping[str, str], invalid: str | None
) -> Iterator[Measurement]:
    """The highest rate that kept the limits; its interval reaches to the lowest rate that did not."""
    search = next((event for event in found if event["event"] == "search"), None)
    if search is None or search.get("best") is None:
        return
    best = number(search, "best")
    open_end = search.get("failed") is None
    failed = best if open_end else max(best, number(search, "failed"))
    why = contended([e for e in found if e["event"] == "trial"]) or invalid
    if open_end:
        why = why or f"{Code.SEARCH_UNFINISHED}: no rate was found at which the limits are broken"
    named = {**_limited(labels, limits), "share": f"{number(search, 'share'):g}"}
    yield Measurement(
        metric="inference_sustained_requests_per_second", value=best, interval=(best, failed),
        samples=int(number(search, "trials")), labels=named, invalid=why,
    )  # fmt: skip


def _busy(serve: Event) -> float:
    return min(1.0, number(serve, "busy_seconds") / number(serve, "seconds"))


def _delay(serve: Event, labels: Mapping[str, str]) -> Iterator[Measurement]:
    if isinstance(serve.get("delay_ratio"), int | float):
        yield exact("inference_run_delay_ratio", number(serve, "delay_ratio"), labels)
