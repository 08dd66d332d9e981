"""The search for the highest rate, on a simulated server whose capacity is known, and the test that decides a trial."""

from __future__ import annotations

import math
import random

import pytest

from bench.judge import statistics
from probes.common.open_loop import Held, Kept, Limits, Search, Trial, held, highest_rate
from probes.inference.events import ServedRequest
from probes.inference.load.open_loop import OpenLoop, poisson_arrivals
from tests.probes.inference.virtual import VirtualClock, VirtualServer


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("violated", [0, 1, 5])
def test_a_trial_passes_with_exactly_as_many_requests_as_mlperf_asks_for(share: float, violated: int) -> None:
    needed = statistics.samples_needed_for_quantile(share, violated)
    assert held(needed - violated, violated, share) is Held.PASS
    assert held(needed - violated - 1, violated, share) is Held.UNDECIDED


def test_a_trial_fails_only_on_evidence() -> None:
    assert held(0, 0, 0.9) is Held.UNDECIDED
    assert held(80, 20, 0.9) is Held.FAIL
    assert held(8, 2, 0.9) is Held.UNDECIDED
    assert held(0, 2, 0.9) is Held.FAIL  # 0.1 squared is one in a hundred


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(Binomial(n, p) <= k), summed term by term in logarithms."""
    log_p, log_q, whole = math.log(p), math.log1p(-p), math.lgamma(n + 1)
    choose = (whole - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1))
    return math.fsum(math.exp(c + i * log_p + (n - i) * log_q) for i, c in enumerate(choose))


def test_the_binomial_sum_is_the_exact_one() -> None:
    draw = random.Random(1)
    for _ in range(200):
        n, p = draw.randint(1, 3000), draw.uniform(0.001, 0.6)
        k = draw.randint(0, n)
        assert binomial_cdf(k, n, p) == pytest.approx(statistics._binomial_cdf(k, n, p), abs=1e-9)


def test_a_trial_is_decided_by_the_exact_sum() -> None:
    draw = random.Random(2)
    for _ in range(300):
        kept, violated, share = draw.randint(0, 400), draw.randint(0, 60), draw.uniform(0.5, 0.99)
        n = kept + violated
        passes = n > 0 and binomial_cdf(violated, n, 1.0 - share) <= 0.01
        fails = violated > 0 and 1.0 - binomial_cdf(violated - 1, n, 1.0 - share) <= 0.01
        expected = Held.PASS if passes else Held.FAIL if fails else Held.UNDECIDED
        assert held(kept, violated, share) is expected, (kept, violated, share)


def outcomes(truth: float) -> tuple[list[float], Search]:
    """The rates that are tried when everything up to ``truth`` passes."""
    tried: list[float] = []

    def trial(rate: float) -> Trial:
        tried.append(rate)
        return Trial(rate, 100, 0, Held.PASS) if rate <= truth else Trial(rate, 0, 100, Held.FAIL)

    first = trial(4.0)
    return tried, highest_rate(first, trial, lambda: len(tried) < 40)


@pytest.mark.parametrize("truth", [0.7, 3.9, 4.0, 4.1, 23.0, 1000.0])
def test_it_doubles_then_bisects_until_the_bracket_is_narrow(truth: float) -> None:
    tried, found = outcomes(truth)
    assert found.best is not None and found.failed is not None
    assert found.best <= truth < found.failed <= 1.1 * found.best
    assert tried[1] in (8.0, 2.0) and len(tried) < 16


def test_it_stops_when_there_is_no_end_and_when_time_is_over() -> None:
    assert outcomes(float("inf"))[1].failed is None
    assert outcomes(0.0)[1].best is None
    found = highest_rate(Trial(4.0, 100, 0, Held.PASS), lambda rate: Trial(rate, 0, 1, Held.FAIL), lambda: False)
    assert (found.best, found.failed, len(found.trials)) == (4.0, None, 1)


def test_an_undecided_rate_is_not_claimed() -> None:
    found = highest_rate(Trial(4.0, 100, 0, Held.PASS), lambda rate: Trial(rate, 5, 0, Held.UNDECIDED), lambda: True)
    assert found.best == 4.0 and found.failed is not None and found.failed <= 4.4


def test_a_failure_below_an_earlier_pass_takes_the_pass_back() -> None:
    rates = ((4.0, Held.PASS), (8.0, Held.PASS), (16.0, Held.FAIL), (11.0, Held.FAIL), (9.0, Held.PASS))
    search = Search([Trial(rate, 1, 1, outcome) for rate, outcome in rates])
    search.trials.append(Trial(8.5, 1, 1, Held.FAIL))
    assert (search.best, search.failed, search.next_rate) == (8.0, 8.5, None)


def test_the_found_rate_is_the_capacity_of_the_simulated_server() -> None:
    """One slot, 10 ms a request (prefill 6 ms, 4 more tokens of 1 ms): beyond 100 requests/s no queue can last."""
    limits = Limits(first_token=0.1, inter_token=0.002)

    def trial(rate: float) -> Trial:
        window = max(20.0, 600 / rate)
        clock = VirtualClock()
        server = VirtualServer(clock, prefill=100_000, decode=1_000_000, slots=1)
        arrivals = [type(a)(a.at, 60, 5) for a in poisson_arrivals(rate, window, 60, 5, seed=5)]
        loop = OpenLoop(clock, server, arrivals, chunk=1000)
        served = [ServedRequest(r.arrival.at, 5, tuple(r.tokens), r.lag, False) for r in loop.run(window)]
        kept = [limits.kept(request, window) for request in served]
        good, bad = kept.count(Kept.KEPT), kept.count(Kept.VIOLATED)
        return Trial(rate, good, bad, held(good, bad, 0.9))

    found = highest_rate(trial(10.0), trial, lambda: True)
    assert found.best is not None and found.failed is not None
    # M/D/1 in the heavy-traffic limit: waiting over 94 ms has a chance of exp(-2 (1 - rho) / rho * 9.4), 0.1 at 0.891
    assert found.best < 100.0 and found.best <= 89.1 * 1.1 and found.failed >= 89.1 / 1.15
