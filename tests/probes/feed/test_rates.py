"""Rates from consumption curves whose truth is known."""

from __future__ import annotations

import math
import random

import pytest

from probes.feed.rates import difference_interval, pool, rate, steady

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


def test_the_interval_holds_both_turns_when_the_device_drifts() -> None:
    pooled = pool([(100.0, 100.1, 99.9), (80.0, 80.1, 79.9)])
    assert pooled.interval[0] <= 80.0 and pooled.interval[1] >= 100.0
    assert pooled.value == pytest.approx(90.0)


def test_the_interval_covers_the_truth_at_its_rate() -> None:
    rng = random.Random(3)
    held = 0
    for _ in range(400):
        pooled = pool([[rng.gauss(100.0, 3.0) for _ in range(3)] for _ in range(2)])
        held += pooled.interval[0] <= 100.0 <= pooled.interval[1]
    assert held / 400 >= 0.93


def test_interval_arithmetic_claims_less_never_more() -> None:
    low, high = difference_interval((99.0, 101.0), (49.0, 51.0), (99.0, 101.0))
    assert low < 0.5 < high
    assert low == pytest.approx(48.0 / 101.0) and high == pytest.approx(52.0 / 99.0)
