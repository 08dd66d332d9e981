"""Against published figures, against simulation, and for every list of finite numbers."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from bench.judge import statistics
from tests.judge.make import bounded

FINITE = st.floats(allow_nan=False, allow_infinity=False)
LISTS = st.lists(FINITE, min_size=1, max_size=40)


@bounded
@given(LISTS)
def test_the_interval_is_finite_and_holds_the_median(values: list[float]) -> None:
    middle, (low, high) = statistics.median_interval(values)
    assert math.isfinite(low) and math.isfinite(high)
    assert low <= middle <= high
    assert min(values) <= middle <= max(values)


@bounded
@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=12), st.floats(0.01, 100))
def test_the_interval_scales_with_its_unit(values: list[float], factor: float) -> None:
    """A change of unit must not change the verdict: for positive values, everything scales."""
    _, (low, high) = statistics.median_interval(values)
    _, scaled = statistics.median_interval([value * factor for value in values])
    assert scaled == pytest.approx((low * factor, high * factor), rel=1e-6)


def test_one_value_and_equal_values_have_no_width() -> None:
    assert statistics.median_interval([3.7]) == (3.7, (3.7, 3.7))
    assert statistics.median_interval([0.1] * 5) == (0.1, (0.1, 0.1))
    assert statistics.median_interval([0.1] * 9) == (0.1, (0.1, 0.1))


def test_five_repeats_use_students_t_on_the_logarithms() -> None:
    """By hand: logs 0, 1, 2, 3, 4 have mean 2 and s = sqrt(2.5); t(4, 0.975) = 2.776445 (any table)."""
    middle, (low, high) = statistics.median_interval([math.exp(k) for k in range(5)])
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert middle == pytest.approx(math.exp(2))
    assert (math.log(low), math.log(high)) == pytest.approx((2 - half, 2 + half), abs=1e-6)


def test_a_zero_among_five_uses_the_plain_values() -> None:
    _, (low, high) = statistics.median_interval([0.0, 1.0, 2.0, 3.0, 4.0])
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-6)


@pytest.mark.parametrize(
    ("n", "rank", "coverage"),
    [(6, 1, 0.96875), (8, 1, 0.9921875), (9, 2, 0.9609375), (10, 2, 0.978515625), (20, 6, 0.958610535)],
)
def test_six_and_more_use_the_tabulated_order_statistics(n: int, rank: int, coverage: float) -> None:
    """Ranks and coverages as in the tables of Conover, *Practical Nonparametric Statistics*, for p = 0.5."""
    _, (low, high) = statistics.median_interval([float(k) for k in range(1, n + 1)])
    assert (low, high) == (rank, n + 1 - rank)
    assert 1.0 - 2.0 * binom.cdf(rank - 1, n, 0.5) == pytest.approx(coverage)
    assert 1.0 - 2.0 * binom.cdf(rank, n, 0.5) < 0.95  # the next pair further in would cover too little


def test_under_six_there_is_no_order_statistic() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert 1.0 - 2.0 * binom.cdf(0, 5, 0.5) < 0.95
    assert not set(statistics.median_interval(values)[1]) & set(values)


@pytest.mark.parametrize("n", [5, 7, 15])
def test_the_interval_covers_the_true_median_as_often_as_it_says(n: int) -> None:
    """Log-normal noise of 8 %: 2,000 sessions; 95 % less four standard errors of the simulation."""
    rng = random.Random(n)
    hits = 0
    for _ in range(2000):
        _, (low, high) = statistics.median_interval([math.exp(rng.gauss(0, 0.08)) for _ in range(n)])
        hits += low <= 1.0 <= high
    assert hits / 2000 >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 2000)


@bounded
@given(LISTS, st.floats(0, 1))
def test_a_quantile_is_a_measured_value_with_enough_values_below(values: list[float], q: float) -> None:
    found = statistics.quantile(values, q)
    assert found in values
    assert sum(value <= found for value in values) >= round(q * len(values), 9)


def test_quantiles_by_nearest_rank() -> None:
    values = [float(k) for k in range(1, 101)]
    assert [statistics.quantile(values, q) for q in (0, 0.07, 0.5, 0.99, 0.999, 1)] == [1, 7, 50, 99, 100, 100]


@bounded
@given(LISTS, st.floats(0, 1))
def test_a_quantiles_interval_holds_it(values: list[float], q: float) -> None:
    low, high = statistics.quantile_interval(values, q)
    assert low <= statistics.quantile(values, q) <= high


def test_the_coverage_of_a_quantile_is_true_and_admits_too_few_values() -> None:
    low, high = statistics.quantile_interval([float(rank) for rank in range(1, 1001)], 0.99)
    assert 0.95 <= binom.cdf(high - 1, 1000, 0.99) - binom.cdf(low - 1, 1000, 0.99) < 1
    low, high = statistics.quantile_interval([1.0, 2.0, 3.0, 4.0, 5.0], 0.99)
    assert (low, high) == (4.0, 5.0)
    assert binom.cdf(high - 1, 5, 0.99) - binom.cdf(low - 1, 5, 0.99) == pytest.approx(5 * 0.99**4 * 0.01)
    rng = random.Random(3)
    hits = 0
    for _ in range(500):
        low, high = statistics.quantile_interval([rng.random() for _ in range(400)], 0.9)
        hits += low <= 0.9 <= high
    assert hits / 500 >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 500)


@pytest.mark.parametrize(("q", "over", "n"), [(0.99, 0, 459), (0.9, 1, 64), (0.99, 1, 662), (0.9, 0, 44)])
def test_samples_needed_are_mlperfs(q: float, over: int, n: int) -> None:
    assert statistics.samples_needed_for_quantile(q, over) == n


def test_samples_needed_is_the_smallest_exact_number() -> None:
    """An independent oracle: exact binomial sums in integers and fractions of ten."""
    for over in range(4):
        n = statistics.samples_needed_for_quantile(0.9, over, confidence=0.95)
        for samples, enough in ((n, True), (n - 1, False)):
            tail = sum(math.comb(samples, k) * 9 ** (samples - k) for k in range(over + 1)) / 10**samples
            assert (tail <= 0.05) is enough


def test_clopper_pearson() -> None:
    """0 of 10: 1 - 0.025**(1/10); 81 of 263 is the example of Agresti & Coull (1998) and of many texts."""
    assert statistics.binomial_interval(0, 10) == pytest.approx((0, 1 - 0.025**0.1))
    assert statistics.binomial_interval(10, 10) == pytest.approx((0.025**0.1, 1))
    assert statistics.binomial_interval(81, 263) == pytest.approx((0.2527, 0.3676), abs=1e-4)


@pytest.mark.parametrize(("events", "bound"), [(0, 2.996), (1, 4.744), (2, 6.296), (3, 7.754)])
def test_the_poisson_bound_is_the_tabulated_one(events: int, bound: float) -> None:
    assert statistics.poisson_upper_bound(events) == pytest.approx(bound, abs=5e-4)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_no_numbers_are_no_answer(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no values|not finite"):
        statistics.median_interval(values)


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        statistics.quantile([1.0], 1.5)
    with pytest.raises(ValueError, match="successes"):
        statistics.binomial_interval(3, 2)
    with pytest.raises(ValueError, match="events"):
        statistics.poisson_upper_bound(-1)
    with pytest.raises(ValueError, match="sample count"):
        statistics.samples_needed_for_quantile(1.0)


def test_judging_imports_nothing_heavy() -> None:
    code = (
        "import sys, bench.judge.gate, bench.judge.attribution, bench.judge.statistics\n"
        "print([m for m in ('scipy', 'numpy', 'pandas', 'torch', 'pynvml', 'psutil') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
