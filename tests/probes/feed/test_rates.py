"""Rates from consumption curves whose truth is known."""

from __future__ import annotations

import math
import random

import pytest

from probes.feed.rates import difference, own, pool, rate, steady

STEP = 0.1


def curve(seconds: float, per_second: float, burst_seconds: float = 0.0, burst_rate: float = 0.0) -> list[float]:
    points = []
    for index in range(round(seconds / STEP) + 1):
        at = index * STEP
        fast = min(at, burst_seconds)
        points.append(fast * burst_rate + (at - fast) * per_second)
    return points


def test_a_constant_curve_is_steady_from_the_warm_up_on() -> None:
    found = steady(curve(6.0, 900.0), STEP, 1.0, 3.0, 1000.0)
    assert found is not None and found.flat and found.start == 10
    assert found.rate == pytest.approx(900.0)
    assert found.before is None


@pytest.mark.parametrize("burst_seconds", [1.5, 2.0, 3.0])
def test_a_burst_credit_is_left_out_and_told(burst_seconds: float) -> None:
    found = steady(curve(10.0, 500.0, burst_seconds, 1000.0), STEP, 1.0, 3.0, 1000.0)
    assert found is not None and found.flat
    assert found.rate == pytest.approx(500.0, rel=0.02)
    assert found.before is not None and found.before > 600.0


def test_a_falling_rate_is_never_flat() -> None:
    falling = [1000.0 * at * STEP - 35.0 * (at * STEP) ** 2 for at in range(101)]
    found = steady(falling, STEP, 1.0, 6.0, 1000.0)
    assert found is not None and not found.flat


def test_what_lies_over_the_demand_need_not_be_flat() -> None:
    rng = random.Random(1)
    points = [0.0]
    for _ in range(60):
        points.append(points[-1] + rng.uniform(300.0, 900.0))
    assert steady(points, STEP, 1.0, 3.0, 1000.0).flat  # type: ignore[union-attr]
    assert not steady(points, STEP, 1.0, 3.0, math.inf).flat  # type: ignore[union-attr]


def test_too_short_a_curve_gives_nothing() -> None:
    assert steady(curve(2.0, 1.0), STEP, 1.0, 3.0) is None
    assert steady([], STEP, 1.0, 3.0) is None


def test_a_rate_counts_fractions_of_steps() -> None:
    assert rate(curve(2.0, 10.0), STEP, 0.5, 12.25) == pytest.approx(10.0)


def test_the_interval_holds_all_turns_when_the_device_drifts() -> None:
    pooled = pool([(100.0, 100.1, 99.9), (90.0, 90.1, 89.9), (80.0, 80.1, 79.9)])
    assert pooled.interval[0] <= 80.0 and pooled.interval[1] >= 100.0
    assert pooled.value == pytest.approx(90.0) and pooled.repeats == pytest.approx((100.0, 90.0, 80.0))


def test_two_turns_are_no_bound_of_what_drifts() -> None:
    """Least and largest of two turns were the interval: it held the truth in half of all cases."""
    assert own([(99.0,) * 5, (101.0,) * 5]).interval == pytest.approx((97.0, 103.0))
    assert pool([(99.0,) * 3, (101.0,) * 3]).interval == pytest.approx((97.0, 103.0))


def test_one_turn_is_no_better_known_than_turns_agree_that_count_as_one() -> None:
    assert pool([(600.0,) * 3], 1000.0).interval == pytest.approx((580.0, 620.0))


def test_a_window_that_counts_as_flat_may_still_fall() -> None:
    falling = pool([(101.0, 100.0, 99.0)] * 3)
    assert falling.interval[0] <= 98.0


def test_interval_arithmetic_claims_less_never_more() -> None:
    low, high = difference((99.0, 101.0), (49.0, 51.0), (99.0, 101.0))
    assert low < 0.5 < high
    assert low == pytest.approx(48.0 / 101.0) and high == pytest.approx(52.0 / 99.0)


def test_a_negative_difference_is_largest_over_the_least_divisor() -> None:
    """[-0.273, -0.111] was given."""
    assert difference((90.0, 100.0), (110.0, 120.0), (90.0, 110.0)) == pytest.approx((-1 / 3, -1 / 11))
