"""Which probes are measured again, and which are not."""

from __future__ import annotations

import pytest

from bench.measure.probe import Probe
from bench.model import Measurement, Metric, Outcome, ProbeResult
from bench.workflows.catalog import Catalog
from bench.workflows.judging import to_repeat
from tests.judge.make import gate, measurement, profile, result, run


def probe(name: str) -> Probe:
    declared = (Metric(name=f"{name}_ratio", help="h", better="lower"),)
    return Probe(name=name, help="h", metrics=declared, seconds={}, measure=lambda _: [])


def again(*results: ProbeResult, required: bool = True) -> list[str]:
    judged = profile(gate("a_ratio", max=0.1, required=required), gate("b_ratio", max=0.1))
    return to_repeat(run(*results), Catalog((probe("a"), probe("b")), (judged,)))


GOOD = result("b", [measurement("b_ratio", 0.0)])


def test_what_straddles_its_limit_is_measured_again() -> None:
    wide = result("a", [measurement("a_ratio", 0.09, 0.02)])
    assert again(wide, GOOD) == ["a"]
    assert again(wide, GOOD, required=False) == []


@pytest.mark.parametrize("value", [0.05, 0.2])
def test_what_is_decided_is_not(value: float) -> None:
    assert again(result("a", [measurement("a_ratio", value)]), GOOD) == []


@pytest.mark.parametrize(
    ("doubt", "wanted"),
    [
        ("contended: make", ["a"]),
        ("host_contended: 1 % late", ["a"]),
        ("accelerator_drifted: by 9 %", ["a"]),
        ("not_steady: it was not flat", ["a"]),
        ("in_memory: tmpfs", []),
        ("not_cold: a cache", []),
        ("buffered: no O_DIRECT", []),
    ],
)
def test_what_was_invalid_for_a_passing_reason_is_tried_again(doubt: str, wanted: list[str]) -> None:
    """An invalid figure never was, although contention and drift are what passes."""
    found: list[Measurement] = [measurement("a_ratio", 0.05, invalid=doubt)]
    assert again(result("a", found), GOOD) == wanted


@pytest.mark.parametrize(
    ("reason", "wanted"), [("peer_busy: another test runs there", ["a"]), ("fio_error: EIO", []), ("internal: x", [])]
)
def test_a_probe_that_failed_for_a_passing_reason_is_tried_again(reason: str, wanted: list[str]) -> None:
    assert again(result("a", outcome=Outcome.FAILED, reason=reason), GOOD) == wanted
