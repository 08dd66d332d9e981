"""Several rounds as one. Today's wrong answers are named: what kept its first round, whatever was measured after it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.judge import statistics
from bench.judge.baseline.series import Key, key_of
from bench.judge.pooling import estimate, merge, pooled, quantile_of
from bench.model import Distribution, Measurement
from tests.judge.make import measurement

FINE, SLOW = 0.0002, 0.1


def _key(measurement: Measurement) -> Key:
    return key_of(measurement, None)


def distribution(*values: float) -> Distribution:
    return tuple(sorted(Counter(values).items()))


def quantile(metric: str, values: Sequence[float], statistic: str = "p99", **labels: str) -> Measurement:
    rounds = (distribution(*values),)
    value, interval = quantile_of(rounds, {"p50": 0.5, "p99": 0.99, "max": 1.0}[statistic])
    return Measurement(
        metric=metric, value=value, interval=interval, samples=len(values), distributions=rounds,
        labels={"statistic": statistic, **labels},
    )  # fmt: skip


def test_repeats_are_pooled() -> None:
    first = measurement("a_ratio", 2.0, 1.0, labels={"path": "/a"}, repeats=(1.0, 2.0, 3.0))
    second = measurement("a_ratio", 5.0, 1.0, labels={"path": "/a"}, repeats=(4.0, 5.0, 6.0))
    both = merge(first, second)
    assert both.repeats == (1, 2, 3, 4, 5, 6)
    assert (both.value, both.interval, both.samples) == (3.5, (1.0, 6.0), 10)
    assert merge(second, first).interval == both.interval


def test_a_second_round_of_a_quantile_counts_where_the_first_one_stood_alone() -> None:
    """p99 stayed [45, 55] ms after a second round of 30 ms."""
    draw = random.Random(1)
    first = quantile("network_round_trip_seconds", [draw.uniform(0.040, 0.056) for _ in range(400)])
    second = quantile("network_round_trip_seconds", [draw.uniform(0.028, 0.030) for _ in range(40000)])
    (both,) = pooled([[first], [second]], _key)
    assert both.samples == 40400
    assert both.value < first.value
    assert len(both.distributions) == 2


def test_a_share_is_pooled_from_its_counts() -> None:
    """One lost packet of 5,357 straddled 0.1 %, however many more arrived."""
    value, interval = 1 / 5357, statistics.binomial_interval(1, 5357)
    first = Measurement(metric="loss_ratio", value=value, interval=interval, samples=5357, counts=(1, 5357))
    more = Measurement(metric="loss_ratio", value=0.0, interval=(0.0, 0.0007), samples=5357, counts=(0, 5357))
    (both,) = pooled([[first], [more], [more]], _key)
    assert first.interval[1] > 0.001 > both.interval[1]
    assert both.counts == (1, 3 * 5357)
    assert both.interval == statistics.binomial_interval(1, 3 * 5357)


def test_what_has_no_raw_data_is_around_all_rounds() -> None:
    first, second = measurement("a_ratio", 2.0, 1.0), measurement("a_ratio", 5.0, 1.0)
    (both,) = pooled([[first], [second]], _key)
    assert (both.value, both.interval) == (3.5, (1.0, 6.0))


def test_an_invalid_round_gives_way_to_a_valid_one() -> None:
    """A contended second round made the good first one invalid, and an invalid one stayed so for good."""
    good = measurement("a_ratio", 1.0, repeats=(1.0,))
    bad = measurement("a_ratio", 9.0, repeats=(9.0,), invalid="contended: fio")
    worse = measurement("a_ratio", 8.0, repeats=(8.0,), invalid="contended: make")
    assert pooled([[good], [bad]], _key) == pooled([[bad], [good]], _key) == (good,)
    assert pooled([[bad], [good], [bad], [good]], _key)[0].repeats == (1.0, 1.0)
    assert pooled([[bad], [worse]], _key) == (worse,)


def test_a_label_of_one_round_does_not_make_a_second_measurement_of_it() -> None:
    """``limited_by`` in one of two rounds gave two measurements, and the worst decided."""
    free = measurement("speed_bytes_per_second", 9.0, repeats=(9.0,), labels={"direction": "send"})
    held = measurement("speed_bytes_per_second", 5.0, repeats=(5.0,), labels={"direction": "send", "limited_by": "cpu"})
    (both,) = pooled([[held], [free]], lambda m: (m.metric, m.labels["direction"]))
    assert both.repeats == (5.0, 9.0)
    assert both.labels["limited_by"] == "cpu"


def test_a_lower_bound_stays_one_when_it_is_measured_again() -> None:
    """Pooled, its interval ended at its own repeats, and it failed a limit that the link may well keep."""
    label = {"limited_by": "cpu"}
    held = measurement("speed_bytes_per_second", 5.0, interval=(5.0, 100.0), repeats=(5.0,), labels=label, wide="it")
    assert merge(held, held).interval == (5.0, 100.0)
    free = measurement("speed_bytes_per_second", 5.0, repeats=(5.0,))
    assert merge(free, held).interval == (5.0, 100.0) and merge(free, held).wide == "it"


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_one_round_of_raw_values_has_the_nearest_rank_and_its_order_statistics(values: list[float], q: float) -> None:
    value, interval = quantile_of([distribution(*values)], q)
    assert value == statistics.quantile(values, q)
    assert interval == statistics.quantile_interval(values, q)


@given(st.lists(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30), min_size=1, max_size=6))
def test_a_quantile_of_rounds_lies_within_its_interval_whatever_their_order(rounds: list[list[float]]) -> None:
    made = [distribution(*one) for one in rounds]
    value, (low, high) = quantile_of(made, 0.99)
    assert low <= value <= high
    assert quantile_of(made[::-1], 0.99) == (value, (low, high))


def test_slow_reads_in_one_round_of_five_are_not_outvoted() -> None:
    """Six of a hundred reads at 100 ms in one round of five: the median of the five p99s kept a limit of 10 ms."""
    good, bad = distribution(*[FINE] * 5000), distribution(*[FINE] * 4700, *[SLOW] * 300)
    value, (low, high) = quantile_of([good, good, bad, good, good], 0.99)
    assert value == high == SLOW
    assert low == FINE


def test_a_round_that_completed_little_counts_like_the_others() -> None:
    """A round in which every read takes 100 ms completes few: 60 of 25,060 are under 1 %, and were no p99."""
    rounds = [distribution(*[FINE] * 6250)] * 4 + [distribution(*[SLOW] * 60)]
    assert quantile_of(rounds, 0.99)[0] == SLOW


def test_the_interval_covers_the_quantile_of_rounds_that_differ() -> None:
    """Taking all values of five such rounds as independent covers 58 %, not 95 %."""
    draw = random.Random(7)
    worlds, covered = 300, 0
    truth = 0.01  # every round has its own share of slow reads, 1 % in the mean (beta 2, 198)
    for _ in range(worlds):
        rounds = []
        for _ in range(5):
            share = draw.betavariate(2, 198)
            slow = sum(draw.random() < share for _ in range(1000))
            rounds.append(((FINE, 1000 - slow), (SLOW, slow)) if slow else ((FINE, 1000),))
        _, (low, high) = quantile_of(rounds, 1.0 - truth)
        covered += low <= FINE and high >= SLOW  # the quantile lies at the step, so that both sides must be held
    assert covered / worlds > 0.9


@pytest.mark.parametrize("rounds", [[], [()]])
def test_no_rounds_have_no_quantile(rounds: list[Distribution]) -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile_of(rounds, 0.5)


def test_another_confidence_is_had_from_the_raw_data() -> None:
    share = Measurement(metric="loss_ratio", value=0.0, interval=(0.0, 1.0), samples=5000, counts=(0, 5000))
    usual, surer = estimate(share), estimate(share, 0.9875)
    assert usual and surer and surer[1][1] > usual[1][1]
    assert estimate(measurement("a_ratio", 1.0)) is None
