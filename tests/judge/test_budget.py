"""The composed budget against distributions whose answer is known, by arithmetic or by many draws."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.judge import latency_budget as budget
from bench.judge.latency_budget import Part, compose
from bench.model import Measurement, Node, Outcome, ProbeResult, Request, Run, Series

SHARES = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)


def of(name: str, values: Sequence[float]) -> Part:
    """The part that knows these values' quantiles exactly."""
    ordered = sorted(values)
    known = [(s, v, v, v) for s in SHARES for v in (ordered[min(len(ordered) - 1, math.ceil(s * len(ordered)) - 1)],)]
    return Part(name, tuple(known), len(ordered))


def fixed(name: str, seconds: float) -> Part:
    return Part(name, ((0.5, seconds, seconds, seconds), (1.0, seconds, seconds, seconds)), 100)


def test_certain_parts_add_up() -> None:
    assert compose([fixed("network", 0.05), fixed("model", 0.14)]).over == 0.0
    late = compose([fixed("network", 0.07), fixed("model", 0.14)])
    assert late.over == pytest.approx(1.0)
    assert late.p99 == pytest.approx(0.21) and late.left == pytest.approx(-0.01)
    assert late.shares == pytest.approx({"network": 1 / 3, "model": 2 / 3})


def test_a_rare_spike_is_a_rare_late_answer() -> None:
    """One packet in a hundred waits 150 ms; the model alone is never late."""
    network = budget.part_of_samples("network", [0.01] * 990 + [0.15] * 10)
    got = compose([network, fixed("model", 0.11)])
    assert got.bounds[0] <= 0.01 <= got.bounds[1]
    assert got.over == pytest.approx(0.01, abs=0.004)
    coarse = compose([of("network", [0.01] * 990 + [0.15] * 10), fixed("model", 0.11)])
    assert coarse.bounds[0] <= 0.01 <= coarse.bounds[1], "a few quantiles know less, and say so"


@pytest.mark.slow
def test_against_draws() -> None:
    """Research D9: a log-normal model of 110 ms and a network of 20 ms and jitter."""
    draw = random.Random(5)
    model = [math.exp(NormalDist(math.log(0.110), 0.12).inv_cdf(draw.random())) for _ in range(100_000)]
    network = [0.02 + draw.expovariate(100) for _ in range(100_000)]
    truth = sum(a + b > 0.2 for a, b in ((draw.choice(model), draw.choice(network)) for _ in range(1_000_000))) / 1e6
    got = compose([of("network", network), of("model", model)])
    assert got.bounds[0] <= truth <= got.bounds[1]
    assert got.over == pytest.approx(truth, rel=0.35, abs=0.0005)
    assert got.p99 == pytest.approx(sorted(a + b for a, b in zip(model, network, strict=True))[99_000], rel=0.03)


times = st.lists(st.floats(0.0, 0.3), min_size=1, max_size=200)


@settings(deadline=None, max_examples=25)
@given(times, times)
def test_the_truth_lies_within_the_bounds(first: list[float], second: list[float]) -> None:
    got = compose([of("a", first), of("b", second)])
    truth = sum(a + b > 0.2 + 1e-12 for a in first for b in second) / (len(first) * len(second))
    assert got.bounds[0] - 1e-6 <= truth <= got.bounds[1] + 1e-6
    assert 0.0 <= got.bounds[0] <= got.over <= got.bounds[1] <= 1.0


@settings(deadline=None, max_examples=25)
@given(times, times, st.floats(0.0, 0.2))
def test_more_delay_is_never_fewer_late_answers(first: list[float], second: list[float], more: float) -> None:
    before = compose([of("a", first), of("b", second)])
    after = compose([of("a", [value + more for value in first]), of("b", second)])
    assert after.over >= before.over - 1e-9
    assert after.bounds[1] >= before.bounds[1] - 1e-9


# --- from a run


def measured(metric: str, values: dict[str, float], **labels: str) -> list[Measurement]:
    return [
        Measurement(metric=metric, value=v, interval=(v, v), samples=1000, labels={**labels, "statistic": statistic})
        for statistic, v in values.items()
    ]


def run_of(measurements: Sequence[Measurement]) -> Run:
    return Run(
        id="r", started_at="2026-01-01T00:00:00Z", node=Node(hostname="n", fingerprint="f"),
        request=Request(effort="quick", probes=("network",)),  # type: ignore[arg-type]
        results=(ProbeResult(probe="network", outcome=Outcome.OK, measurements=tuple(measurements)),),
    )  # fmt: skip


NETWORK = measured("network_round_trip_seconds", {"p50": 0.01, "p99": 0.04, "max": 0.05}, state="idle", peer="p")
MODEL = measured("inference_first_token_seconds", {"p50": 0.1, "p99": 0.13, "max": 0.14}, stage="serve")
GAPS = measured("inference_inter_token_seconds", {"p50": 0.01, "p99": 0.02, "max": 0.03}, stage="serve")


def over(found: Sequence[Measurement], until: str) -> Measurement:
    (one,) = (m for m in found if m.metric == "response_over_budget_ratio" and m.labels["until"] == until)
    return one


def test_a_run_answers_for_the_first_token_and_the_first_words() -> None:
    found = budget.response(run_of([*NETWORK, *MODEL, *GAPS]))
    assert over(found, "first_token").value == 0.0
    late = over(found, "first_words")
    assert late.interval[0] < late.value < late.interval[1]
    assert 0.0 < late.value < 0.2
    shares = [m.value for m in found if m.metric == "response_part_ratio" and m.labels["until"] == "first_words"]
    assert len(shares) == 3 and sum(shares) == pytest.approx(1.0)


def test_a_real_server_s_times_stand_for_the_model() -> None:
    slow = measured(
        "inference_first_token_seconds", {"p50": 0.3, "p99": 0.4, "max": 0.5}, stage="endpoint", endpoint="u"
    )
    assert over(budget.response(run_of([*NETWORK, *MODEL, *slow])), "first_token").value > 0.9


def test_the_loaded_network_counts_and_the_worst_peer() -> None:
    loaded = [
        *measured("network_round_trip_seconds", {"p50": 0.01, "max": 0.02}, state="loaded", peer="near"),
        *measured("network_round_trip_seconds", {"p50": 0.15, "max": 0.18}, state="loaded", peer="far"),
    ]
    assert over(budget.response(run_of([*NETWORK, *loaded, *MODEL])), "first_token").value > 0.9


def test_the_stored_time_line_is_used_when_it_is_complete() -> None:
    trips = tuple([0.01] * 990 + [0.15] * 10)
    line = Series(
        metric="network_round_trip_seconds", labels={"peer": "p", "state": "idle"},
        seconds=tuple(n * 0.02 for n in range(1000)), values=trips,
    )  # fmt: skip
    run = run_of([*NETWORK, *MODEL])
    (result,) = run.results
    with_line = run.model_copy(update={"results": (result.model_copy(update={"series": (line,)}),)})
    assert over(budget.response(run), "first_token").value == 0.0
    assert over(budget.response(with_line), "first_token").value == pytest.approx(0.01, abs=0.004)


def test_what_was_not_measured_is_no_answer() -> None:
    assert budget.response(run_of(NETWORK)) == []
    assert budget.response(run_of(MODEL)) == []


def test_a_doubt_and_a_stand_in_are_handed_on() -> None:
    doubtful = [m.model_copy(update={"invalid": "host_contended: x"}) for m in NETWORK]
    stand_in = [m.model_copy(update={"labels": {**m.labels, "stand_in": "cpu"}}) for m in MODEL]
    found = budget.response(run_of([*doubtful, *stand_in]))
    assert all(m.invalid == "host_contended: x" and m.stand_in == "cpu" for m in found)
