"""Rules of the verdict that hold for every run and profile."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from bench.judge.gate import REASONS, applies, judge
from bench.judge.profile import Gate, Profile
from bench.model import Decision, Limit, Measurement, Outcome, ProbeResult, Run, Status
from tests.judge.make import bounded, gate, measurement, profile, result, run

RANK = {Decision.NO_GO: 0, Decision.INCONCLUSIVE: 1, Decision.GO: 2}
# Few names and numbers, so that gates and measurements meet often.
NUMBERS = st.one_of(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), st.floats(-3, 3), st.floats(-1e300, 1e300))
METRICS = st.sampled_from(["a_ratio", "b_ratio"])
LABELS = st.dictionaries(st.sampled_from(["path", "peer"]), st.sampled_from(["/a", "/b"]), max_size=2)
OWNERS = {"a_ratio": "first", "b_ratio": "second"}


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    low, value, high = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
    labels = draw(LABELS) | draw(st.sampled_from([{}, {}, {"stand_in": "cpu"}, {"stand_in": "emulated"}]))
    invalid = draw(st.sampled_from([None, None, "busy"]))
    return measurement(draw(METRICS), value, interval=(low, high), labels=labels, invalid=invalid)


@st.composite
def gates(draw: st.DrawFn, required: bool | None = None) -> Gate:
    bound, limit = draw(st.sampled_from(["min", "max"])), draw(NUMBERS)
    return gate(
        draw(METRICS),
        labels=draw(LABELS),
        required=draw(st.booleans()) if required is None else required,
        accept_stand_in=draw(st.booleans()),
        per="accelerator" if bound == "min" and limit > 0 and draw(st.booleans()) else None,
        when=draw(st.sampled_from([None, None, "rdma", "no_rdma"])),
        **{bound: limit},
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
    ports = draw(st.sampled_from([None, 0.0, 8.0]))
    results += [result("fabric", [measurement("fabric_rdma_ports", ports)])] if ports is not None else []
    one = run(*results, storage=draw(st.sampled_from([(), ("/a",), ("/a", "/b")])))
    facts = draw(st.sampled_from([{}, {"gpus": []}, {"gpus": ["H100"] * 8}]))
    return one.model_copy(update={"node": one.node.model_copy(update={"facts": facts})})


def with_measurements(one: Run, found: list[Measurement]) -> Run:
    return one.model_copy(update={"results": (result("first", found),) if found else ()})


@bounded
@given(runs(), profiles())
def test_full_score_go_and_every_required_gate_passing_are_one_thing(one: Run, judged_by: Profile) -> None:
    verdict = judge(one, judged_by, OWNERS)
    required = [found.status for found in verdict.findings if found.required]
    passing = bool(required) and all(status is Status.PASS for status in required)
    assert (verdict.score == 100.0) is passing
    assert (verdict.decision is Decision.GO) is passing
    assert (verdict.decision is Decision.NO_GO) is (Status.FAIL in required)
    assert len(verdict.findings) == len(judged_by.gates)
    assert verdict.required == len(required)
    assert (verdict.weakest_measured_score is None) is (verdict.measured == 0)
    if verdict.measured == verdict.required != 0:
        assert verdict.weakest_measured_score == verdict.score
    if verdict.weakest_measured_score is not None:
        assert verdict.score <= verdict.weakest_measured_score


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
    assume(applies(one, target) is not False)
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
