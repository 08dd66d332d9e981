"""Contract, section 8, for every finite number and limit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.judge.gate import ALMOST, gate_score, keeps, margin, profile_score, share
from bench.model import Finding, Limit, Status
from tests.judge.make import bounded

FINITE = st.floats(allow_nan=False, allow_infinity=False)
LIMITS = st.one_of(st.builds(lambda x: Limit(min=x), FINITE), st.builds(lambda x: Limit(max=x), FINITE))


@pytest.mark.parametrize(
    ("observed", "limit", "score"),
    [
        (50.0, Limit(min=100.0), 50.0),
        (100.0, Limit(min=100.0), 100.0),
        (500.0, Limit(min=100.0), 100.0),
        (0.0, Limit(min=100.0), 0.0),
        (-5.0, Limit(min=100.0), 0.0),
        (0.2, Limit(max=0.1), 50.0),
        (0.1, Limit(max=0.1), 100.0),
        (0.0, Limit(max=0.1), 100.0),
        (-0.3, Limit(max=0.1), 100.0),
        (0.0, Limit(max=0.0), 100.0),
        (3.0, Limit(max=0.0), 0.0),
        (0.0, Limit(min=0.0), 100.0),
        (-1.0, Limit(min=0.0), 0.0),
        (-3.0, Limit(min=-2.0), 0.0),
        (-1.0, Limit(min=-2.0), 100.0),
        (-1.0, Limit(max=-2.0), 0.0),
    ],
)
def test_the_share_of_the_requirement(observed: float, limit: Limit, score: float) -> None:
    assert share(observed, limit) == pytest.approx(score)


@bounded
@given(FINITE, LIMITS)
def test_a_share_is_between_0_and_100_and_full_only_when_kept(observed: float, limit: Limit) -> None:
    found = share(observed, limit)
    assert 0.0 <= found <= 100.0
    assert (found == 100.0) is keeps(observed, limit)


@bounded
@given(FINITE, FINITE, LIMITS)
def test_a_better_number_never_has_less(one: float, other: float, limit: Limit) -> None:
    worse, better = sorted((one, other), reverse=limit.max is not None)
    assert share(worse, limit) <= share(better, limit)


def test_a_hair_beside_the_limit_is_not_full() -> None:
    assert share(math.nextafter(1e9, 0.0), Limit(min=1e9)) < 100.0
    assert share(math.nextafter(0.1, 1.0), Limit(max=0.1)) < 100.0


@bounded
@given(st.sampled_from(Status), st.lists(st.floats(0, 100), max_size=4))
def test_only_a_pass_is_full(status: Status, shares: list[float]) -> None:
    assert (gate_score(status, shares) == 100.0) is (status is Status.PASS)


def test_a_gates_score() -> None:
    assert gate_score(Status.NO_DATA, [90.0]) == 0.0
    assert gate_score(Status.UNDECIDED, [100.0]) == ALMOST
    assert gate_score(Status.FAIL, [70.0, 40.0, 100.0]) == 40.0


def test_the_weakest_required_gate_decides() -> None:
    assert profile_score([(True, 80.0), (True, 60.0), (False, 0.0)]) == 60.0
    assert profile_score([(False, 100.0)]) == 0.0


def _finding(observed: float | None, limit: Limit) -> Finding:
    return Finding(metric="a_ratio", observed=observed, limit=limit, status=Status.PASS, required=True)


def test_the_margin_is_signed() -> None:
    assert margin(_finding(150.0, Limit(min=100.0))) == pytest.approx(0.5)
    assert margin(_finding(50.0, Limit(min=100.0))) == pytest.approx(-0.5)
    assert margin(_finding(0.05, Limit(max=0.1))) == pytest.approx(0.5)
    assert margin(_finding(0.2, Limit(max=0.1))) == pytest.approx(-1.0)
    assert margin(_finding(-1.0, Limit(min=-2.0))) == pytest.approx(0.5)
    assert margin(_finding(None, Limit(min=100.0))) is None
    assert margin(_finding(0.0, Limit(max=0.0))) is None


@bounded
@given(FINITE, LIMITS)
def test_the_margin_agrees_with_the_limit(observed: float, limit: Limit) -> None:
    found = margin(_finding(observed, limit))
    if found is not None and found != 0.0:
        assert (found > 0.0) is keeps(observed, limit)
