"""One gate at a time, then a verdict's decision."""

from __future__ import annotations

import pytest

from bench.judge.gate import decide, exit_status, judge, status_of
from bench.judge.hardware import accelerators
from bench.judge.profile import Gate
from bench.model import Decision, Finding, Limit, Measurement, Outcome, Status, Verdict
from tests.judge.make import gate, measurement, profile, result, run


def finding(one: Gate, *measurements: Measurement, **more: tuple[str, ...]) -> Finding:
    """The finding of one gate against these measurements."""
    results = (result("host", measurements),) if measurements else ()
    verdict = judge(run(*results, **more), profile(one), {"a_ratio": "host"})
    assert (verdict.score == 100.0) is (verdict.decision is Decision.GO)
    return verdict.findings[0]


@pytest.mark.parametrize(
    ("interval", "limit", "status"),
    [
        ((4.0, 6.0), Limit(min=4.0), Status.PASS),
        ((4.0, 6.0), Limit(max=6.0), Status.PASS),
        ((4.0, 6.0), Limit(min=6.1), Status.FAIL),
        ((4.0, 6.0), Limit(max=3.9), Status.FAIL),
        ((4.0, 6.0), Limit(min=5.0), Status.UNDECIDED),
        ((4.0, 6.0), Limit(max=5.0), Status.UNDECIDED),
        ((4.0, 6.0), Limit(min=6.0), Status.UNDECIDED),
        ((5.0, 5.0), Limit(min=5.0), Status.PASS),
        ((5.0, 5.0), Limit(max=5.0), Status.PASS),
        ((0.0, 0.0), Limit(max=0.0), Status.PASS),
    ],
)
def test_the_whole_interval_decides(interval: tuple[float, float], limit: Limit, status: Status) -> None:
    assert status_of(measurement("a_ratio", 5.0 if interval[1] else 0.0, interval=interval), limit) is status


def test_a_pass_shows_what_was_measured() -> None:
    found = finding(gate("a_ratio", max=0.1, remedy="mend it"), measurement("a_ratio", 0.05, 0.01))
    assert (found.status, found.observed, found.limit.max) == (Status.PASS, 0.05, 0.1)
    assert found.interval == pytest.approx((0.04, 0.06))
    assert (found.source, found.remedy, found.reason, found.required) == ("a source", "mend it", None, True)


def test_a_straddled_limit_is_undecided_and_says_so_in_human_units() -> None:
    found = finding(gate("a_ratio", max=0.1), measurement("a_ratio", 0.09, 0.02))
    assert found.status is Status.UNDECIDED
    assert found.reason == "straddles_limit: 7 % to 11 % lies on both sides of 10 %"
    assert "--effort thorough" in found.remedy


def test_a_straddled_limit_names_what_made_the_interval_wide() -> None:
    wide = measurement("a_ratio", 0.09, 0.02).model_copy(update={"wide": "accelerator_drifted: its rate was 6 % apart"})
    found = finding(gate("a_ratio", max=0.1), wide)
    assert (found.reason or "").startswith("straddles_limit: ")
    assert (found.reason or "").endswith("10 %, because accelerator_drifted: its rate was 6 % apart")


def test_a_gate_takes_only_what_has_its_labels() -> None:
    slow = measurement("a_ratio", 0.9, labels={"component": "total", "path": "/a"})
    good = measurement("a_ratio", 0.0, labels={"component": "storage", "path": "/a"})
    assert finding(gate("a_ratio", max=0.1, labels={"component": "storage"}), slow, good).status is Status.PASS
    assert finding(gate("a_ratio", max=0.1), slow, good).status is Status.FAIL
    assert finding(gate("a_ratio", max=0.1, labels={"component": "no"}), slow, good).status is Status.NO_DATA


def test_the_worst_of_several_decides_and_is_named() -> None:
    passes = measurement("a_ratio", 0.01, labels={"path": "/a"})
    maybe = measurement("a_ratio", 0.5, 0.45, labels={"path": "/b"})
    fails = measurement("a_ratio", 0.2, labels={"path": "/c"})
    worse = measurement("a_ratio", 0.3, labels={"path": "/d"})
    one = gate("a_ratio", max=0.1)
    assert finding(one, passes, maybe).observed == 0.5
    found = finding(one, passes, maybe, fails, worse)
    assert (found.status, found.observed, found.reason) == (Status.FAIL, 0.3, "(the worst was at path=/d)")
    assert found.labels == {}


def test_for_a_minimum_the_smallest_is_the_worst() -> None:
    fails = [measurement("a_ratio", value, labels={"path": f"/{value}"}) for value in (0.3, 0.2, 0.9)]
    assert finding(gate("a_ratio", min=0.8), *fails).observed == 0.2


def test_an_invalid_measurement_never_passes_or_fails() -> None:
    one = gate("a_ratio", max=0.1)
    for value in (0.0, 5.0):
        found = finding(one, measurement("a_ratio", value, invalid="warm cache"))
        assert (found.status, found.reason, found.observed) == (Status.UNDECIDED, "invalid: warm cache", value)


def test_an_invalid_beside_a_valid_one() -> None:
    one = gate("a_ratio", max=0.1)
    invalid = measurement("a_ratio", 0.0, invalid="busy host")
    assert finding(one, invalid, measurement("a_ratio", 0.0)).status is Status.UNDECIDED
    assert finding(one, invalid, measurement("a_ratio", 0.5)).status is Status.FAIL


@pytest.mark.parametrize("what", ["cpu", "emulated", "loopback"])
def test_a_stand_in_is_shown_but_does_not_count(what: str) -> None:
    stand_in = measurement("a_ratio", 0.01, labels={"stand_in": what})
    found = finding(gate("a_ratio", max=0.1), stand_in)
    assert (found.status, found.observed, found.stand_in) == (Status.NO_DATA, 0.01, what)
    assert found.reason is not None and found.reason.startswith(f"stand_in: {what} ")
    assert found.remedy
    accepted = finding(gate("a_ratio", max=0.1, accept_stand_in=True), stand_in)
    assert (accepted.status, accepted.stand_in) == (Status.NO_DATA if what == "cpu" else Status.PASS, what)


def test_a_gate_that_accepts_a_stand_in_does_not_accept_the_cpu() -> None:
    """A CPU's starvation of 0 % was a GO for training."""
    cpu = measurement("starvation_ratio", 0.0, labels={"component": "storage", "stand_in": "cpu"})
    one = gate("starvation_ratio", max=0.1, labels={"component": "storage"}, accept_stand_in=True)
    assert finding(one, cpu).status is Status.NO_DATA
    emulated = cpu.model_copy(update={"labels": {**cpu.labels, "stand_in": "emulated"}})
    assert finding(one, emulated).status is Status.PASS


def test_a_bad_stand_in_does_not_count_either() -> None:
    bad = measurement("a_ratio", 0.9, labels={"stand_in": "emulated"})
    real = measurement("a_ratio", 0.01)
    assert finding(gate("a_ratio", max=0.1), bad).status is Status.NO_DATA
    assert finding(gate("a_ratio", max=0.1), bad, real).status is Status.PASS
    assert finding(gate("a_ratio", max=0.1, accept_stand_in=True), bad, real).status is Status.FAIL


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.OK])
def test_a_probe_that_did_not_deliver_is_quoted(outcome: Outcome) -> None:
    broken = result("host", outcome=outcome, reason="tool_missing: fio is not installed", remedy="apt install fio")
    verdict = judge(run(broken), profile(gate("a_ratio", min=1.0, remedy="buy disks")), {"a_ratio": "host"})
    found = verdict.findings[0]
    assert (found.status, found.observed, found.interval) == (Status.NO_DATA, None, None)
    assert found.reason == f"probe_{outcome.value}: tool_missing: fio is not installed"
    assert found.remedy == "apt install fio"
    assert (verdict.decision, verdict.score) == (Decision.INCONCLUSIVE, 0.0)


def test_a_probe_that_did_not_run_or_measured_something_else() -> None:
    one = profile(gate("a_ratio", max=1.0, labels={"path": "/a"}, remedy="mend it"))
    nothing = judge(run(), one, {"a_ratio": "host"}).findings[0]
    assert nothing.reason == "not_measured: the probe host did not run"
    other = judge(run(result("host", [measurement("b_ratio", 0.0)])), one, {"a_ratio": "host"}).findings[0]
    assert other.reason == "not_measured: the probe host ran, and measured no a_ratio with path=/a"
    assert (nothing.remedy, other.remedy) == ("add --probe host", "mend it")
    unknown = judge(run(), one).findings[0]
    assert unknown.reason == "not_measured: this run has no a_ratio with path=/a"


def test_a_path_that_was_asked_for_and_not_measured_is_no_pass() -> None:
    one, here = gate("a_ratio", max=0.1), measurement("a_ratio", 0.0, labels={"path": "/a"})
    there = measurement("a_ratio", 0.0, labels={"path": "/b"})
    hole = finding(one, here, storage=("/a", "/b"))
    assert hole.status is Status.NO_DATA
    assert hole.reason == "not_measured: only /a of 2 storage paths that were asked for"
    assert finding(one, here, there, storage=("/a", "/b")).status is Status.PASS
    assert finding(one, here, storage=(".",)).status is Status.PASS
    assert finding(one, measurement("a_ratio", 0.0), storage=("/a", "/b")).status is Status.PASS
    bad = measurement("a_ratio", 0.9, labels={"path": "/a"})
    assert finding(one, bad, storage=("/a", "/b")).status is Status.FAIL


def test_a_peer_that_was_asked_for_and_not_measured_is_no_pass() -> None:
    here = measurement("a_ratio", 0.0, labels={"peer": "n1"})
    assert finding(gate("a_ratio", max=0.1), here, peers=("n1", "n2")).status is Status.NO_DATA


def test_decisions_and_what_is_not_required() -> None:
    good, bad, none = gate("a_ratio", max=1.0), gate("b_ratio", max=1.0), gate("c_ratio", max=1.0)
    measured = run(result("host", [measurement("a_ratio", 0.0), measurement("b_ratio", 2.0)]))
    optional = [one.model_copy(update={"required": False}) for one in (bad, none)]

    def decision(*gates: Gate) -> tuple[Decision, float]:
        verdict = judge(measured, profile(*gates))
        return verdict.decision, verdict.score

    assert decision(good) == (Decision.GO, 100.0)
    assert decision(good, *optional) == (Decision.GO, 100.0)
    assert decision(good, none) == (Decision.INCONCLUSIVE, 0.0)
    assert decision(good, bad) == (Decision.NO_GO, 50.0)
    assert decision(none, bad) == (Decision.NO_GO, 0.0)


def test_what_a_score_stands_on_is_beside_it() -> None:
    """A node without a peer read 0, like one whose storage delivers nothing."""
    gates = [gate(f"{name}_ratio", max=1.0) for name in "abcd"]
    found = [measurement("a_ratio", 0.5), measurement("b_ratio", 1.2), measurement("c_ratio", 9.0, invalid="busy: x")]
    verdict = judge(run(result("host", found)), profile(*gates, gate("b_ratio", max=0.1, required=False)))
    assert (verdict.score, verdict.required, verdict.measured) == (0.0, 4, 2)
    assert verdict.weakest_measured_score == pytest.approx(100 / 1.2)
    nothing = judge(run(), profile(*gates))
    assert (nothing.required, nothing.measured, nothing.weakest_measured_score) == (4, 0, None)


def test_what_was_expected_of_the_node_is_judged_behind_the_profiles_own_gates() -> None:
    """In front of them it moved every gate by one, and a regression was laid at the gate before its own."""
    one = run(result("host", [measurement("a_ratio", 0.5), measurement("node_mismatches", 1.0)]))
    expecting = one.request.model_copy(update={"options": {"expectation": {}}})
    verdict = judge(one.model_copy(update={"request": expecting}), profile(gate("a_ratio", max=1.0)))
    assert [found.metric for found in verdict.findings] == ["a_ratio", "node_mismatches"]
    assert verdict.decision is Decision.NO_GO


def test_a_verdict_of_before_says_nothing_of_what_it_stands_on() -> None:
    old = Verdict.model_validate({"profile": "p", "digest": "d", "decision": "GO", "score": 100, "findings": []})
    assert (old.required, old.measured, old.weakest_measured_score) == (None, None, None)


@pytest.mark.parametrize(
    ("accelerator", "gpus", "cards", "number"),
    [
        ("auto", ["H100"] * 8, 0, 8),
        ("auto", [], 2, 2),
        ("auto", ["H100"] * 8, 2, 2),
        ("auto", [], 0, None),
        ("cuda", None, 0, None),
        ("cpu", [], 0, None),
        ("emulated", [], 0, 1),
        ("emulated:unet3d-h100*8", [], 0, 8),
        ("emulated:unet3d-h100*4", ["H100"] * 8, 0, 4),
        ("emulated:unet3d-h100", ["H100"] * 8, 0, 8),
    ],
)
def test_how_many_accelerators_a_node_feeds(accelerator: str, gpus: object, cards: int, number: int | None) -> None:
    """A node of eight cards of which the run used one was asked for one card's appetite."""
    names = [measurement("accelerator_info", 1.0, labels={"device": str(index)}) for index in range(cards)]
    found = result("gpu", names) if names else result("gpu", outcome=Outcome.FAILED, reason="x: y")
    one = run(found)
    request = one.request.model_copy(update={"accelerator": accelerator})
    node = one.node.model_copy(update={"facts": {} if gpus is None else {"gpus": gpus}})
    assert accelerators(one.model_copy(update={"request": request, "node": node})) == number


def test_without_the_number_of_accelerators_nothing_passes_for_all_of_them() -> None:
    one = gate("storage_headroom_ratio", min=1.11, per="accelerator")
    assert finding(one, measurement("storage_headroom_ratio", 0.9)).status is Status.FAIL
    found = finding(one, measurement("storage_headroom_ratio", 100.0))
    assert (found.status, (found.reason or "").split(":")[0]) == (Status.UNDECIDED, "not_measured")


def test_what_a_cpu_held_back_is_undecided_and_says_so() -> None:
    why = "a CPU held it back, and the link may carry more"
    interval, label = (29e9 / 8, 100e9 / 8), {"limited_by": "cpu"}
    held = measurement("a_bytes_per_second", 30e9 / 8, interval=interval, labels=label, wide=why)
    found = finding(gate("a_bytes_per_second", min=50e9 / 8), held)
    assert found.status is Status.UNDECIDED
    assert found.reason == f"straddles_limit: 3.625 GB/s to 12.5 GB/s lies on both sides of 6.25 GB/s, because {why}"
    assert "3.16" in found.remedy
    assert finding(gate("a_bytes_per_second", min=20e9 / 8), held).status is Status.PASS


def test_the_verdict_names_its_profile_and_digest() -> None:
    one = profile(gate("a_ratio", max=1.0))
    verdict = judge(run(), one)
    assert (verdict.profile, verdict.digest) == ("a-profile", one.digest)


def _verdict(decision: Decision) -> Verdict:
    return Verdict(profile="p", digest="d", decision=decision, score=0.0, findings=())


def test_several_profiles_and_the_exit_status() -> None:
    go, no_go, unsure = (_verdict(d) for d in (Decision.GO, Decision.NO_GO, Decision.INCONCLUSIVE))
    assert decide([go, go]) is Decision.GO
    assert decide([go, unsure]) is Decision.INCONCLUSIVE
    assert decide([go, unsure, no_go]) is Decision.NO_GO
    assert decide([]) is Decision.INCONCLUSIVE
    assert [exit_status(d) for d in (Decision.GO, Decision.NO_GO, Decision.INCONCLUSIVE)] == [0, 1, 3]
