"""What the load on services saw, as measurements: the share answered correctly in time, times by phase. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from bench.model import Code, Measurement, Series
from bench.units import human
from probes.common.http import REMEDIES
from probes.common.looks import Looks
from probes.common.metrics import figure, quantiles
from probes.common.time_lines import most_of, sum_of
from probes.service.plan import Service
from probes.service.records import Answer, not_let_in

PHASES = ("resolve", "connect", "tls", "first_byte", "whole")
#: Of the requests may be sent too late by ourselves to count; where there are more, the rest decides nothing either.
MOST_LATE = 0.05
#: Where the words of a server under load do not fit a service.
_REMEDIES: Mapping[Code, str] = {
    Code.UNAUTHORIZED: "give a token that is valid there, by headers_file or headers_env",
    Code.THROTTLED: "lower `rate`, or have the limit for this token raised",
    Code.BAD_REQUEST: "the service does not take such a request: see `query`, the headers and body_file, and its log",
    Code.NOT_FOUND: "name the address under which it answers with `url`, and its method",
    Code.WRONG_CONTENT: "what answers is no such service: a proxy's page, or another one on that port",
    Code.REDIRECTED: "name the address that it points to with `url`, if you trust it: none to another host is followed",
    Code.TOO_SLOW: "it does not answer within budget_seconds: see its queue and its log, or give it a larger share",
    Code.NOT_AS_DECLARED: "see what it answers (curl), then mend the service, or its status, pointer or schema_file",
}


def parse(answers: Sequence[Answer], service: Service, looks: Looks, limit: float) -> list[Measurement]:
    """The measurements of one service, of its answers in their order, up to the look that settled it."""
    seen = _seen(answers, service, looks, limit)
    if not seen:
        return []
    labels, invalid = {"service": service.name}, _invalid(answers, seen, service)
    good = sum(answer.good for answer in seen)
    judged = {**labels, "budget_seconds": f"{service.budget_seconds:g}"}
    interval = looks.interval(good, len(seen))
    found = [figure("service_success_ratio", good / len(seen), judged, interval, len(seen), invalid)]
    for code, times in sorted(Counter(answer.code for answer in seen if answer.code).items()):
        found.append(figure("service_failed_requests", times, {**labels, "code": code}, n=len(seen)))
    found.append(figure("service_consecutive_failures", longest_run(seen), labels, n=len(seen)))
    for connection in ("kept", "cold"):
        those = [answer for answer in seen if answer.kept is (connection == "kept")]
        for phase in PHASES:
            found += _times(those, phase, {**labels, "connection": connection, "phase": phase}, invalid)
    left = [answer.certificate for answer in seen if answer.certificate is not None]
    return found + [figure("service_certificate_left_seconds", min(left), labels, n=len(left)) for _ in left[:1]]


def _seen(answers: Sequence[Answer], service: Service, looks: Looks, limit: float) -> Sequence[Answer]:
    """Those that count, without what was still under way when enough was seen."""
    row = [answer for n, answer in enumerate(answers) if answer.n == n and service.counts(answer.lag)]
    return row[: looks.settled([answer.good for answer in row], limit)]


def _invalid(answers: Sequence[Answer], seen: Sequence[Answer], service: Service) -> str | None:
    """Why the share decides nothing."""
    if not_let_in(seen):
        if not service.secret_from:
            return f"{Code.UNAUTHORIZED}: {service.name} lets nobody in without a token, and none is declared"
        return f"{Code.UNAUTHORIZED}: token in {service.secret_from} rejected by {service.name}"
    late = sum(not service.counts(answer.lag) for answer in answers)
    if late > MOST_LATE * len(answers):
        return f"{Code.SCHEDULE_LAG}: {late} of {len(answers)} requests were sent too late by a busy client"
    return None


def _times(
    answers: Sequence[Answer], phase: str, labels: Mapping[str, str], invalid: str | None
) -> Iterator[Measurement]:
    """Quantiles that have values enough. ``whole`` holds those that were given up, by when they were."""
    counted = [one for one in answers if one.good or (phase == "whole" and one.code == Code.TOO_SLOW)]
    values = [value for one in counted if (value := getattr(one, phase)) is not None]
    return quantiles("service_response_seconds", values, labels, invalid)


def lines(answers: Sequence[Answer], name: str, began: float) -> list[Series]:
    """Failures and the slowest answers by when they were due, on a clock by which the schedule began at ``began``."""
    failed = [(began + one.scheduled, float(not one.good)) for one in answers]
    slowest = [(began + one.scheduled, one.whole) for one in answers]
    return [
        *sum_of("service_failed_requests", failed, service=name),
        *most_of("service_response_seconds", slowest, service=name),
    ]


def longest_run(seen: Sequence[Answer]) -> int:
    """The most failures one after the other."""
    return max((len(list(those)) for good, those in groupby(seen, lambda one: one.good) if not good), default=0)


def told(answers: Sequence[Answer], service: Service, looks: Looks, limit: float) -> Iterator[str]:
    """One line for each way in which it failed, with what mends it."""
    seen = _seen(answers, service, looks, limit)
    if not_let_in(seen):
        yield f"{(_invalid(answers, seen, service) or '').partition(': ')[2]}: {_remedy(Code.UNAUTHORIZED)}"
        return
    failed = [answer for answer in seen if answer.code is not None]
    seconds = seen[-1].scheduled + seen[-1].whole if seen else 0.0
    for code, times in Counter(answer.code for answer in failed).most_common():
        first = next(answer for answer in failed if answer.code == code)
        why = f"{code} ({first.detail})" if first.detail else f"{code}"
        share = human(times / len(seen), "service_success_ratio")
        yield (
            f"{service.name}: {times} of {len(seen)} requests ({share}) failed with {why} during these "
            f"{seconds:.0f} s: {_remedy(Code(code or ''))}"
        )
    if (run := longest_run(seen)) > 1:
        yield f"{service.name}: the longest run of failures is {run} requests, {run / service.rate:.1f} s"


def _remedy(code: Code) -> str:
    return _REMEDIES.get(code) or REMEDIES.get(code, "look into the service's log")
