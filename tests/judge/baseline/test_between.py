"""How far sessions of a series lie apart: own nights, siblings, the metric's prior."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from bench.judge.baseline.between import spread_of
from bench.model import Metric
from tests.judge.make import measurement

RATE = Metric(name="a_bytes_per_second", help="h", better="higher", session_spread=0.03)
SHARE = Metric(name="starvation_ratio", help="h", better="lower", session_spread=0.015)
TONIGHT = measurement("a_bytes_per_second", 1e9)


def nights(many: int, spread: float, seed: int = 1) -> list[float]:
    noise = random.Random(seed)
    return [1e9 * math.exp(noise.gauss(0.0, spread)) for _ in range(many)]


def test_without_nights_the_metrics_prior_stands() -> None:
    found = spread_of(RATE, TONIGHT, looks=4)
    assert (found.deviation, found.df, found.logarithmic, found.whole, found.looks) == (0.03, 4.0, True, False, 4)
    points = spread_of(SHARE, measurement("starvation_ratio", 0.05))
    assert (points.deviation, points.logarithmic) == (0.015, False)


def test_a_metric_without_a_prior_is_a_fact_of_its_session() -> None:
    counted = Metric(name="accelerator_uncorrected_errors", help="h", better="lower")
    assert spread_of(counted, measurement(counted.name, 1.0), [0.0, 3.0] * 10).deviation == 0.0
    assert spread_of(None, TONIGHT).deviation == 0.0


def test_repeats_that_scatter_let_expect_sessions_that_do() -> None:
    """Steady ones made them 2.1 % apart where the metric says 3 %, and 1.3 % after four looks."""
    steady, wild = (
        measurement(RATE.name, 1e9, repeats=tuple(1e9 * math.exp(s * x) for x in (-2, -1, 0, 1, 2)))
        for s in (0.001, 0.2)
    )
    assert spread_of(RATE, steady).deviation == 0.03 < 0.1 < spread_of(RATE, wild).deviation
    longer = wild.model_copy(update={"repeats": 4 * wild.repeats})
    assert spread_of(RATE, longer).deviation == pytest.approx(spread_of(RATE, wild).deviation, rel=0.1)
    assert spread_of(RATE, longer).df == 8.0
    assert spread_of(RATE, steady).df == 8.0 and spread_of(RATE, measurement(RATE.name, 1e9, repeats=(1e9,))).df == 4.0


def test_a_figure_without_repeats_counts_as_one_of_five_with_its_interval() -> None:
    """A quantile of all rounds keeps no repeats: how well it is known says how they scattered."""
    narrow, wide = (measurement(RATE.name, 1e9, width) for width in (1e6, 3e8))
    assert spread_of(RATE, narrow).deviation == 0.03 < 0.15 < spread_of(RATE, wide).deviation < 0.3
    assert spread_of(RATE, measurement(RATE.name, 1e9)).df == 4.0 < spread_of(RATE, wide).df == 8.0


def test_seven_nights_of_its_own_take_the_priors_place() -> None:
    own = nights(20, 0.01)
    found = spread_of(RATE, TONIGHT, own)
    assert found.deviation == pytest.approx(statistics.stdev(map(math.log, own)))
    assert found.whole and found.df == 19.0


def test_a_few_nights_are_pooled_with_the_prior() -> None:
    own = nights(4, 0.01)
    found = spread_of(RATE, TONIGHT, own)
    assert statistics.stdev(map(math.log, own)) < found.deviation < 0.03
    assert found.df == 7.0 and not found.whole


def test_siblings_take_the_priors_place_while_there_are_no_nights() -> None:
    others = [nights(20, 0.08, seed) for seed in range(2, 7)]
    assert spread_of(RATE, TONIGHT, (), others).deviation == pytest.approx(0.08, rel=0.3)
    assert spread_of(RATE, TONIGHT, (), others[:2]).deviation == 0.03  # two say nothing of how alike nodes are


def test_a_night_that_broke_down_does_not_widen_the_gate_for_a_month() -> None:
    """Else a drive that fails once could not fail again: every gate on it would be undecided."""
    own = nights(20, 0.01)
    own[15] = 3e8
    assert spread_of(RATE, TONIGHT, own).deviation < 0.02


def test_a_night_of_nothing_at_all_says_nothing() -> None:
    assert spread_of(RATE, TONIGHT, [0.0] * 9).df == 4.0
