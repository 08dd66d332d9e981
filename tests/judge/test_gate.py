"""One gate at a time, then the rules that hold for every run and profile."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.judge.gate import REASONS, decide, exit_status, judge, status_of
from bench.judge.profile import Gate, Profile
from bench.model import Decision, Finding, Limit, Measurement, Outcome, ProbeResult, Run, Status, Verdict
from tests.judge.make import bounded, gate, measurement, profile, result, run

RANK = {Decision.NO_GO: 0, Decision.INCONCLUSIVE: 1, Decision.GO: 2}


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
    assert (accepted.status, accepted.stand_in) == (Status.PASS, what)


def test_a_bad_stand_in_does_not_count_either() -> None:
    bad = measurement("a_ratio", 0.9, labels={"stand_in": "cpu"})
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


# Rules for every run and profile. Few names and numbers, so that gates and measurements meet often.

NUMBERS = st.one_of(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), st.floats(-3, 3), st.floats(-1e300, 1e300))
METRICS = st.sampled_from(["a_ratio", "b_ratio"])
LABELS = st.dictionaries(st.sampled_from(["path", "peer"]), st.sampled_from(["/a", "/b"]), max_size=2)
OWNERS = {"a_ratio": "first", "b_ratio": "second"}


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    low, value, high = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
    labels = draw(LABELS) | draw(st.sampled_from([{}, {}, {"stand_in": "cpu"}]))
    invalid = draw(st.sampled_from([None, None, "busy"]))
    return measurement(draw(METRICS), value, interval=(low, high), labels=labels, invalid=invalid)


@st.composite
def gates(draw: st.DrawFn, required: bool | None = None) -> Gate:
    return gate(
        draw(METRICS),
        labels=draw(LABELS),
        required=draw(st.booleans()) if required is None else required,
        accept_stand_in=draw(st.booleans()),
        **{draw(st.sampled_from(["min", "max"])): draw(NUMBERS)},
    )


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    return profile(draw(gates(required=True)), *draw(st.lists(gates(), max_size=3)))


@st.composite
def runs(draw: st.DrawFn) -> Run:
    results: list[ProbeResult] = []
    for probe in ("first", "second"):
        found = draw(st.lists(measurements(), max_size=4))
        broken = result(probe, outcome=Outcome.FAILED, reason="x: y")
        results += [result(probe, found)] if found else draw(st.sampled_from([[], [broken]]))
    return run(*results, storage=draw(st.sampled_from([(), ("/a",), ("/a", "/b")])))


def with_measurements(one: Run, found: list[Measurement]) -> Run:
    return one.model_copy(update={"results": (result("first", found),) if found else ()})


@bounded
@given(runs(), profiles())
def test_full_score_go_and_every_required_gate_passing_are_one_thing(one: Run, judged_by: Profile) -> None:
    verdict = judge(one, judged_by, OWNERS)
    required = [found.status for found in verdict.findings if found.required]
    passing = all(status is Status.PASS for status in required)
    assert (verdict.score == 100.0) is passing
    assert (verdict.decision is Decision.GO) is passing
    assert (verdict.decision is Decision.NO_GO) is (Status.FAIL in required)
    assert len(verdict.findings) == len(judged_by.gates)


@bounded
@given(runs(), profiles())
def test_what_is_not_a_plain_pass_or_fail_has_a_machine_readable_reason(one: Run, judged_by: Profile) -> None:
    for found in judge(one, judged_by, OWNERS).findings:
        if found.status in (Status.NO_DATA, Status.UNDECIDED):
            assert found.reason is not None and found.reason.split(":")[0] in REASONS
            assert ": " in found.reason


def moved(one: Measurement, limit: Limit, by: float) -> Measurement:
    """Better by ``by`` for this limit (worse if negative), interval and all."""
    step = by if limit.min is not None else -by
    numbers = [min(max(x + step, -1.7e308), 1.7e308) for x in (one.interval[0], one.value, one.interval[1])]
    return one.model_copy(update={"value": numbers[1], "interval": (numbers[0], numbers[2])})


@bounded
@given(st.lists(measurements(), min_size=1, max_size=5), gates(required=True), st.data())
def test_a_better_number_never_lowers_and_a_worse_one_never_raises(
    found: list[Measurement], one: Gate, data: st.DataObject
) -> None:
    """Every gate on one metric must ask in the same direction for "better" to have a meaning: so one gate."""
    index = data.draw(st.integers(0, len(found) - 1))
    by = data.draw(st.one_of(st.floats(0, 5), st.sampled_from([math.ulp(1.0), 1e299])))
    base = run()
    before = judge(with_measurements(base, found), profile(one))
    for sign in (1, -1):
        changed = [moved(m, one.limit, sign * by) if i == index else m for i, m in enumerate(found)]
        after = judge(with_measurements(base, changed), profile(one))
        assert sign * RANK[after.decision] >= sign * RANK[before.decision]
        assert sign * after.score >= sign * before.score


@bounded
@given(runs(), profiles(), st.data())
def test_removing_what_a_required_gate_stands_on_never_gives_go(
    one: Run, judged_by: Profile, data: st.DataObject
) -> None:
    target = data.draw(st.sampled_from([g for g in judged_by.gates if g.required]))
    kept = [m for m in one.measurements() if m.metric != target.metric]
    verdict = judge(with_measurements(one, kept), judged_by, OWNERS)
    assert verdict.decision is not Decision.GO and verdict.score < 100.0


@bounded
@given(runs(), profiles())
def test_a_run_of_invalid_measurements_or_refused_stand_ins_decides_nothing(one: Run, judged_by: Profile) -> None:
    invalid = [m.model_copy(update={"invalid": "x"}) for m in one.measurements()]
    assert judge(with_measurements(one, invalid), judged_by).decision is Decision.INCONCLUSIVE
    stand_ins = [m.model_copy(update={"labels": {**m.labels, "stand_in": "cpu"}}) for m in one.measurements()]
    refusing = profile(*(g.model_copy(update={"accept_stand_in": False}) for g in judged_by.gates))
    assert judge(with_measurements(one, stand_ins), refusing).decision is Decision.INCONCLUSIVE


@bounded
@given(runs(), profiles())
def test_judging_again_gives_the_same(one: Run, judged_by: Profile) -> None:
    again = Run.model_validate_json(one.model_dump_json())
    assert judge(again, judged_by, OWNERS) == judge(one, judged_by, OWNERS)
