"""What the load said to measurements, and what voids them: a client that was the limit is no slow server. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

from bench.judge.statistics import median, quantile
from bench.model import Code, Measurement, Series
from probes.common.metrics import Labels, figure, of_counts, quantiles, rate_of_parts
from probes.common.open_loop import Kept, Limits, late
from probes.common.pipe import Record, of
from probes.common.sustained import none_sustained, sustained
from probes.common.time_lines import most_of, rate_of, sum_of
from probes.endpoint.records import Answer, Opened, SelfCheck, Window

STAGE = "endpoint"
#: Beyond it the time between chunks says nothing of the slowest tokens.
MOST_TOKENS_A_CHUNK = 1.2
#: Of the client: of one core, of the time that it waited for one, and of the most chunks that it can read.
MOST_CPU_RATIO, MOST_DELAY_RATIO, MOST_SHARE_OF_HIGHEST = 0.8, 0.05, 0.5

Served = tuple[Window, Sequence[Answer]]


def windows(found: Sequence[Record]) -> list[Served]:
    """Each window with its answers, which are told before it."""
    made, answers = list[Served](), list[Answer]()
    for record in found:
        if isinstance(record, Answer):
            answers.append(record)
        elif isinstance(record, Window):
            made.append((record, answers))
            answers = []
    return made


def parse(found: Sequence[Record], endpoint: str) -> list[Measurement]:
    """All measurements of a load; none without a window that was held."""
    served, labels = windows(found), {"endpoint": endpoint}
    made = list[Measurement]()
    for how in of(found, Opened):
        made.append(figure("endpoint_open_seconds", how.seconds, labels))
        peer = {"peer": how.peer} if how.peer else {}
        made.append(figure("endpoint_info", 1.0, {**labels, "api": how.api, "place": how.place, **peer}))
    for window, answers in served:
        if window.stage != "warm-up":
            made += _at_load(window, answers, labels)
    check = next(iter(of(found, SelfCheck)), None)
    for window, answers in served:
        if window.stage == "held" and answers:
            invalid = doubt(window, answers, check)
            made += _held(window, answers, labels, invalid)
            unbroken = "it keeps the limits at the highest rate that it may be asked for"
            made += sustained(found, _limits(window), {**labels, "stage": STAGE}, invalid, unbroken)
    return [*made, *_client(check, labels)] if any(window.stage == "held" for window, _ in served) else []


def _at_load(window: Window, answers: Sequence[Answer], labels: Labels) -> Iterator[Measurement]:
    """One point of latency over offered load."""
    offered = {**labels, "offered": f"{window.rate:.3g}"}
    firsts = [a.first_token for a in answers if a.first_token is not None]
    for one in quantiles("endpoint_load_first_token_seconds", firsts, offered):
        if one.labels["statistic"] in ("p50", "p99", "max"):
            yield one
    if answers:
        kept = _outcomes(window, answers).count(Kept.KEPT)
        yield of_counts("endpoint_load_goodput_ratio", kept, len(answers), offered)


def _outcomes(window: Window, answers: Sequence[Answer]) -> list[Kept]:
    return [_limits(window).kept(answer, math.inf) for answer in answers]


def _limits(window: Window) -> Limits:
    return Limits(window.first_token_limit, window.inter_token_limit)


def _held(window: Window, answers: Sequence[Answer], base: Labels, invalid: str | None) -> Iterator[Measurement]:
    labels, good = {**base, "stage": STAGE}, [a for a in answers if not a.failed]
    yield of_counts("endpoint_success_ratio", len(good), len(answers), base, invalid)
    for code, count in sorted(Counter(a.code for a in answers if a.code).items()):
        yield figure("endpoint_failed_requests", float(count), {**base, "code": code}, n=len(answers), invalid=invalid)
    firsts = [a.first_token for a in answers if a.first_token is not None]
    yield from quantiles("inference_first_token_seconds", firsts, labels, invalid)
    connected = [a.connected_first_token for a in answers if a.connected_first_token is not None]
    yield from quantiles("endpoint_connected_first_token_seconds", connected, base, invalid)
    yield from _between_tokens(answers, labels, invalid)
    longest = [max(a.gaps) for a in answers if a.gaps]
    yield from quantiles("inference_longest_gap_seconds", longest, labels, invalid)
    kept = _outcomes(window, answers).count(Kept.KEPT)
    yield of_counts("inference_goodput_ratio", kept, len(answers), _limits(window).labels(labels), invalid)
    yield figure("inference_offered_requests_per_second", window.rate, labels)
    ends = [a.ended for a in good if a.ended is not None]
    yield rate_of_parts("endpoint_requests_per_second", ends, window.seconds, base, invalid)
    yield from _tokens(window, answers, labels, invalid)
    yield from quantiles("inference_schedule_lag_seconds", [a.lag for a in answers], labels)
    connects = [a.connect for a in answers if a.connect is not None]
    yield from quantiles("endpoint_connect_seconds", connects, base, invalid)
    delays = [d for a in answers for d in a.late]
    yield from quantiles("endpoint_client_delay_seconds", delays, {**base, "state": "held"})


def tokens_a_chunk(answers: Sequence[Answer]) -> float:
    """Tokens in the mean of a chunk; 1 where the server does not count them."""
    counted = [a for a in answers if a.counted == "usage" and a.chunks]
    chunks = sum(len(a.chunks) for a in counted)
    return sum(a.token_count for a in counted) / chunks if chunks else 1.0


def _between_tokens(answers: Sequence[Answer], labels: Labels, invalid: str | None) -> Iterator[Measurement]:
    """Every gap where a chunk is a token; else only the middle of the requests' own means, and no tail."""
    means = [a.token_seconds for a in answers if a.token_seconds is not None]
    own = {"endpoint": labels["endpoint"]}
    yield from quantiles("endpoint_output_token_seconds", means, own, invalid)
    metric = "inference_inter_token_seconds"
    if tokens_a_chunk(answers) <= MOST_TOKENS_A_CHUNK:
        yield from quantiles(metric, [gap for a in answers for gap in a.gaps], labels, invalid)
    else:
        found = quantiles(metric, means, labels, invalid)
        yield from (m for m in found if m.labels["statistic"] == "p50")


def _tokens(window: Window, answers: Sequence[Answer], labels: Labels, invalid: str | None) -> Iterator[Measurement]:
    """A chunk's tokens come with it: said by the server, else an even share of the answer's."""
    times = list(chain.from_iterable(map(_token_times, answers)))
    counted = "usage" if any(a.counted == "usage" for a in answers) else "chunks"
    if times:
        named = {**labels, "counted": counted}
        yield rate_of_parts("inference_tokens_per_second", times, window.seconds, named, invalid)


def _token_times(answer: Answer) -> Iterator[float]:
    chunks = len(answer.chunks)
    for number, at in enumerate(answer.chunks):
        if answer.counts:
            new = answer.counts[number] - (answer.counts[number - 1] if number else 0)
        else:
            new = answer.token_count * (number + 1) // chunks - answer.token_count * number // chunks
        yield from [at] * new


def _client(check: SelfCheck | None, labels: Labels) -> Iterator[Measurement]:
    if check is not None:
        yield from quantiles("endpoint_client_delay_seconds", check.delays, {**labels, "state": "echo"})
        yield figure("endpoint_client_chunks_per_second", check.highest, labels)


# --- what voids a figure


def doubt(window: Window, answers: Sequence[Answer], check: SelfCheck | None) -> str | None:
    """Why these figures may be the client's own, or None."""
    if check is None:
        return f"{Code.CLIENT_LIMITED}: the client was not held against its own echo"
    late_by = quantile([d for a in answers for d in a.late] or [0.0], 0.99)
    floor = quantile(check.delays, 0.99) if check.delays else math.inf
    rate = busiest_second(answers)
    if window.delay_ratio is not None and window.delay_ratio > MOST_DELAY_RATIO:
        return f"{Code.CONTENDED}: the client waited {window.delay_ratio:.0%} of its time for a CPU (at most 5%)"
    if window.cpu_ratio > MOST_CPU_RATIO:
        return f"{Code.CLIENT_LIMITED}: the client took {window.cpu_ratio:.0%} of a core (at most {MOST_CPU_RATIO:.0%})"
    for what, seconds in (("may have seen chunks", late_by), ("saw its own echo's chunks", floor)):
        if seconds > check.limit:
            most = check.limit * 1e3
            return f"{Code.CLIENT_LIMITED}: the client {what} {seconds * 1e3:.1f} ms late (p99; at most {most:g} ms)"
    if check.reached and rate > MOST_SHARE_OF_HIGHEST * check.highest:
        return (
            f"{Code.CLIENT_LIMITED}: {rate:.0f} chunks in a second, and this client reads {check.highest:.0f} on time "
            f"(at most {MOST_SHARE_OF_HIGHEST:.0%} of them)"
        )
    return late([a.lag for a in answers], window.first_token_limit)


def busiest_second(answers: Sequence[Answer]) -> float:
    """The most chunks that came in one second."""
    return float(max(Counter(int(at) for a in answers for at in a.chunks).values(), default=0))


# --- for the page


def lines(found: Sequence[Record], endpoint: str, clock: float | None) -> list[Series]:
    """Of the whole load, trials and all: failures and first tokens by when they were asked for, tokens a second, on
    the run's clock, which began at ``clock``.
    """
    if clock is None:
        return []
    placed = [(window.began - clock, answer) for window, answers in windows(found) for answer in answers]
    failed = [(began + a.scheduled, float(a.failed)) for began, a in placed]
    firsts = [(began + a.scheduled, a.first_token) for began, a in placed if a.first_token is not None]
    tokens = [(began + at, 1.0) for began, a in placed for at in _token_times(a)]
    labels = {"endpoint": endpoint, "stage": STAGE}
    return [
        *sum_of("endpoint_failed_requests", failed, **labels),
        *most_of("inference_first_token_seconds", firsts, **labels),
        *rate_of("inference_tokens_per_second", tokens, **labels),
    ]


def told(found: Sequence[Record]) -> Iterator[str]:
    """Doubts that void nothing, a sentence each."""
    held = next((served for served in windows(found) if served[0].stage == "held"), None)
    if held is None:
        return
    window, answers = held
    if window.stopped and window.sent < window.planned:
        yield f"{window.stopped}; {window.planned - window.sent} of {window.planned} requests were not sent"
    good = [a for a in answers if not a.failed]
    if good and (short := median([float(a.token_count) for a in good])) < 0.9 * window.output:
        yield f"answers had {short:g} of {window.output} tokens: the server stops where it likes (no ignore_eos)"
    if (size := tokens_a_chunk(answers)) > MOST_TOKENS_A_CHUNK:
        yield f"a chunk holds {size:.1f} tokens, so the slowest time between two tokens is not known"
    first = next((a for a in answers if a.failed), None)
    if first is not None:
        said = f", it said: {first.detail}" if first.detail else ""
        yield f"{len(answers) - len(good)} of {len(answers)} requests failed, the first with {first.code}{said}"
    yield from none_sustained(found)
