"""What the share says, by simulation: 98.5 % is told from 99.5 % in the number of requests that was printed."""

from __future__ import annotations

import random
import re
from functools import cache

import pytest

from bench.judge.gate import judge
from bench.judge.profile import Profile, load
from bench.model import Decision, Effort
from bench.workflows.catalog import declared, shipped_profiles
from probes.service.parse import longest_run, parse, told
from probes.service.plan import MOST, Service, announced
from probes.service.probe import _AROUND_SECONDS, PROBE
from probes.service.records import Answer
from tests.judge.make import result, run
from tests.probes.service.harness import LIMIT, Asked, server, service

TRIALS = 100
CRM = Service(name="crm", url="http://127.0.0.1:9")


@cache
def agent() -> Profile:
    file = shipped_profiles()["agent"]
    return load(file.read_text(encoding="utf-8"), str(file), declared().metrics)


def answered(n: int, good: bool, lag: float = 0.0, code: str = "server_error") -> Answer:
    return Answer("crm", n, n / 10, lag, 0.1, True, first_byte=0.09, code=None if good else code)


def decision(answers: list[Answer], effort: Effort) -> Decision:
    looks = CRM.looks(effort, PROBE.seconds[effort] - _AROUND_SECONDS)
    found = parse(answers, CRM, looks, LIMIT)
    return judge(run(result("service", found)), agent()).decision


def decisions(share: float, effort: Effort, seed: int, trials: int = TRIALS) -> list[Decision]:
    draw, most = random.Random(seed), MOST[effort]
    return [decision([answered(n, draw.random() < share) for n in range(most)], effort) for _ in range(trials)]


@pytest.mark.slow
def test_a_flaky_service_is_told_from_a_sound_one_in_the_requests_that_were_printed() -> None:
    assert int(re.search(r"at most (\d+) requests", printed(Effort.THOROUGH))[1]) == MOST[Effort.THOROUGH]  # type: ignore[index]
    flaky, sound = (decisions(share, Effort.THOROUGH, seed, 30) for seed, share in ((1, 0.985), (2, 0.995)))
    assert flaky.count(Decision.NO_GO) >= 27 and Decision.GO not in flaky
    assert sound.count(Decision.GO) >= 27 and sound.count(Decision.NO_GO) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("effort", [Effort.QUICK, Effort.STANDARD])
def test_at_the_limit_itself_at_most_one_verdict_in_twenty_is_wrong(effort: Effort) -> None:
    """Of 100 trials, 11 is what a rate of 5 % exceeds once in a hundred times."""
    found = decisions(LIMIT, effort, 3)
    assert found.count(Decision.NO_GO) <= 11 and found.count(Decision.GO) <= 11


@pytest.mark.parametrize("effort", list(Effort))
def test_what_was_printed_is_what_decides(effort: Effort) -> None:
    most = MOST[effort]
    shows = int(re.search(r"if at most (\d+) fail", printed(effort))[1])  # type: ignore[index]
    refutes = int(re.search(r"refute it if (\d+) do", printed(effort))[1])  # type: ignore[index]

    def last(failures: int) -> Decision:
        """Its failures are the last, so that no earlier look stops it: but a look may be clear without them."""
        looks = CRM.looks(effort, PROBE.seconds[effort] - _AROUND_SECONDS)
        low, high = looks.interval(most - failures, most)
        return Decision.GO if low >= LIMIT else Decision.NO_GO if high < LIMIT else Decision.INCONCLUSIVE

    assert [last(shows), last(shows + 1)] == [Decision.GO, Decision.INCONCLUSIVE]
    assert [last(refutes - 1), last(refutes)] == [Decision.INCONCLUSIVE, Decision.NO_GO]


def printed(effort: Effort) -> str:
    return announced(CRM, CRM.looks(effort, PROBE.seconds[effort] - _AROUND_SECONDS), LIMIT)


def test_a_rate_that_is_too_low_for_a_decision_is_said_before() -> None:
    slow = CRM.model_copy(update={"rate": 1.0})
    assert "are too few to show 99 %" in announced(slow, slow.looks(Effort.STANDARD, 90.0), LIMIT)


@pytest.mark.slow
def test_a_flaky_service_is_refused_by_the_real_load_too() -> None:
    """One in ten fails, so that some hundred of the 8000 requests are enough."""
    with server(fault="status 503", every=10) as port:
        asked = Asked(service(port), requests=MOST[Effort.THOROUGH])
    assert len(asked.answers) < 0.2 * MOST[Effort.THOROUGH], "it was left in peace when its share was clear"
    assert asked.ratio.invalid is None and asked.ratio.interval[1] < LIMIT
    assert judge(run(result("service", asked.measurements)), agent()).decision is Decision.NO_GO


# --- what counts


def test_a_request_that_we_sent_late_ourselves_is_not_the_service_s_failure() -> None:
    looks = CRM.looks(Effort.QUICK, 50.0)
    late = [answered(n, good=n not in (100, 101), lag=0.5 * (n in (100, 101)), code="too_slow") for n in range(500)]
    (ratio,) = (m for m in parse(late, CRM, looks, LIMIT) if m.metric == "service_success_ratio")
    assert (ratio.value, ratio.samples, ratio.invalid) == (1.0, 498, None)
    many = [answered(n, True, lag=0.5 if n % 10 == 0 else 0.0) for n in range(500)]
    (ratio,) = (m for m in parse(many, CRM, looks, LIMIT) if m.metric == "service_success_ratio")
    assert ratio.invalid is not None and ratio.invalid.startswith("schedule_lag: 50 of 500 requests")


def test_what_was_under_way_when_enough_was_seen_is_left_out() -> None:
    looks = CRM.looks(Effort.STANDARD, 90.0)
    answers = [answered(n, good=n >= 50) for n in range(60)]
    (ratio,) = (m for m in parse(answers, CRM, looks, LIMIT) if m.metric == "service_success_ratio")
    assert (ratio.value, ratio.samples) == (0.0, 50)


def test_each_kind_of_failure_has_one_line_with_its_mend_and_the_longest_run_is_told() -> None:
    answers = [answered(n, good=n not in (5, 6, 7, 30), code="throttled" if n == 30 else "too_slow") for n in range(40)]
    looks = CRM.looks(Effort.STANDARD, 90.0)
    lines = list(told(answers, CRM, looks, LIMIT))
    assert len(lines) == 3 and longest_run(answers) == 3
    assert "3 of 40 requests (7.5 %) failed with too_slow during these 4 s: it does not answer" in lines[0]
    assert "1 of 40 requests (2.5 %) failed with throttled" in lines[1] and "lower `rate`" in lines[1]
    assert lines[2] == "crm: the longest run of failures is 3 requests, 0.3 s"


def test_nobody_let_in_decides_nothing_but_one_who_is_makes_it_a_failure() -> None:
    shut = [answered(n, good=False, code="unauthorized") for n in range(12)]
    assert decision(shut, Effort.QUICK) is Decision.INCONCLUSIVE
    now_and_then = [answered(n, good=n % 2 == 0, code="unauthorized") for n in range(50)]
    assert decision(now_and_then, Effort.QUICK) is Decision.NO_GO
