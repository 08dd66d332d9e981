"""What a statement says of a run, and what of a verdict does not follow from the run's own figures."""

from __future__ import annotations

from typing import Any

import pytest

from bench.judge.gate import judge
from bench.judge.profile import Profile
from bench.judge.sessions import Spread
from bench.judge.statement import OURS, Spreads, Told, as_told, judged_otherwise, measured_otherwise, of_run
from bench.model import Measurement, Outcome, ProbeResult, Run, Status, Verdict
from tests.judge.make import gate, measurement, profile, result, run

TOLD = Told(signed_at="2030-01-01T00:00:00Z")
PROFILE = profile(gate("host_things", max=10.0), gate("storage_read_bytes_per_second", min=100.0))


def measured(things: float = 5.0, read: float = 200.0, **more: Any) -> Run:
    found = [measurement("host_things", things), measurement("storage_read_bytes_per_second", read, 10.0)]
    return run(result("all", found), **more)


def otherwise(one: Run, verdict: Verdict, by: Profile = PROFILE) -> str | None:
    return judged_otherwise(one, verdict, by, {}, lambda _: Spread())


def changed(verdict: Verdict, **finding: Any) -> Verdict:
    """The verdict with another first finding."""
    first, *others = verdict.findings
    return verdict.model_copy(update={"findings": (first.model_copy(update=finding), *others)})


def test_a_verdict_of_the_run_s_own_figures_stands() -> None:
    for one in (measured(), measured(things=11.0), measured(read=105.0), run()):
        assert otherwise(one, judge(one, PROFILE)) is None


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (lambda v: v.model_copy(update={"decision": "GO"}), "NO-GO (score 90.9091) by its gates, GO"),
        (lambda v: v.model_copy(update={"score": 99.0}), "NO-GO (score 90.9091) by its gates, NO-GO (score 99)"),
        (lambda v: changed(v, status=Status.PASS), "host_things <= 10: fail with 11 by the run's figures, pass with"),
        (lambda v: changed(v, observed=9.0), "fail with 11 by the run's figures, fail with 9 in the verdict"),
        (lambda v: changed(v, required=False), "host_things <= 10: fail with 11"),
        (lambda v: changed(v, limit=v.findings[0].limit.model_copy(update={"max": 20.0})), "host_things <= 10: fail"),
        (lambda v: v.model_copy(update={"findings": v.findings[1:]}), "the profile has 2 gates for this run"),
    ],
)  # fmt: skip
def test_a_verdict_that_was_edited_does_not(lie: Any, words: str) -> None:
    one = measured(things=11.0)
    why = otherwise(one, lie(judge(one, PROFILE)))
    assert words in (why or "")


@pytest.mark.parametrize("code", ["suspect", "regressed", "missing", "undetectable"])
def test_what_the_nights_made_worse_stays_worse(code: str) -> None:
    one, whole = measured(), judge(measured(), PROFILE)
    status, decision = (Status.FAIL, "NO-GO") if code == "regressed" else (Status.UNDECIDED, "INCONCLUSIVE")
    worse = changed(whole, status=status, reason=f"{code}: than the nights").model_copy(
        update={"decision": decision, "score": 80.0}
    )
    assert otherwise(one, worse) is None
    assert otherwise(one, worse.model_copy(update={"decision": "GO"})) is not None


def test_nights_never_make_a_verdict_better() -> None:
    one = measured(things=11.0)
    better = changed(judge(one, PROFILE), status=Status.PASS, reason="regressed: so they say")
    assert otherwise(one, better.model_copy(update={"decision": "GO", "score": 100.0})) is not None
    sound = measured()
    richer = changed(judge(sound, PROFILE), status=Status.UNDECIDED, reason="suspect: once")
    assert otherwise(sound, richer.model_copy(update={"decision": "INCONCLUSIVE", "score": 101.0})) is not None


def test_without_the_nights_the_spreads_that_were_told_decide_the_same() -> None:
    """115 +-10 keeps a minimum of 100 by itself; with sessions that differ by 20 % it is undecided."""
    one = measured(read=115.0)
    noted = Spreads(lambda m: Spread(0.2, 8.0, logarithmic=True, looks=4) if "read" in m.metric else Spread())
    verdict = judge(one, PROFILE, {}, noted)
    assert [f.status for f in verdict.findings] == [Status.PASS, Status.UNDECIDED]
    assert judge(one, PROFILE).decision == "GO"
    told = noted.told()
    assert [spread.metric for spread in told] == ["storage_read_bytes_per_second"]  # the default needs no word
    assert judged_otherwise(one, verdict, PROFILE, {}, as_told(told)) is None
    assert judged_otherwise(one, verdict, PROFILE, {}, as_told(())) is not None


# --- raw output


def test_figures_that_the_raw_output_does_not_have() -> None:
    one = measured()
    assert list(measured_otherwise(one, measured())) == []
    assert list(measured_otherwise(one, measured(read=201.0))) == [
        "all: storage_read_bytes_per_second is 201 B/s by the raw output, 200 B/s in the run"
    ]
    assert list(measured_otherwise(one, run())) == ["all: nothing by the raw output, ok in the run"]
    fewer = run(result("all", [measurement("host_things", 5.0)]))
    assert list(measured_otherwise(one, fewer)) == ["all: 1 figures by the raw output, 2 in the run"]
    failed = run(ProbeResult(probe="all", outcome=Outcome.FAILED, reason="internal: it broke"))
    assert list(measured_otherwise(one, failed)) == ["all: failed by the raw output, ok in the run"]


def test_a_figure_that_was_void_may_be_sound_by_the_output_and_not_the_other_way_round() -> None:
    def void(one: Run) -> Run:
        (found,) = one.results
        marked = tuple(m.model_copy(update={"invalid": "contended: others"}) for m in found.measurements)
        return one.model_copy(update={"results": (found.model_copy(update={"measurements": marked}),)})

    assert list(measured_otherwise(void(measured()), measured())) == []
    assert len(list(measured_otherwise(measured(), void(measured())))) == 1


def test_what_a_probe_could_not_measure_is_not_asked_of_the_output() -> None:
    skipped = run(ProbeResult(probe="all", outcome=Outcome.SKIPPED, reason="interrupted: SIGINT"))
    assert list(measured_otherwise(skipped, measured())) == []


# --- what is said


def said(one: Run) -> dict[str, Any]:
    judged = one.model_copy(update={"verdicts": (judge(one, PROFILE),)})
    predicate: dict[str, Any] = of_run(judged, {"b": "1" * 64, "a": "2" * 64}, TOLD)["predicate"]
    return predicate


@pytest.mark.parametrize(
    ("one", "result", "decision", "unmeasured"),
    [
        (measured(), "PASSED", "GO", 0),
        (measured(things=11.0), "FAILED", "NO-GO", 0),
        (measured(read=105.0), "FAILED", "INCONCLUSIVE", 0),
        (run(), "FAILED", "INCONCLUSIVE", 2),
    ],
)
def test_only_go_is_passed(one: Run, result: str, decision: str, unmeasured: int) -> None:
    found = said(one)
    assert (found["result"], found[OURS]["decision"], len(found[OURS]["unmeasured"])) == (result, decision, unmeasured)
    assert set(found[OURS]["unmeasured"]) <= set(found["failedTests"])
    assert len(found["passedTests"]) + len(found["failedTests"]) == 2


def test_an_invalid_figure_is_unmeasured() -> None:
    bad = measurement("host_things", 5.0).model_copy(update={"invalid": "contended: others"})
    one = run(result("all", [bad, measurement("storage_read_bytes_per_second", 200.0, 10.0)]))
    assert said(one)[OURS]["unmeasured"] == ["a-profile: host_things <= 10 (invalid)"]


def test_subjects_stand_in_order_and_packages_have_urls() -> None:
    node = measured().node.model_copy(
        update={"facts": {"versions": {"fio": "fio-3.33", "torch": "2.9+cu130", "iperf3": "iperf 3.12 (x)", "odd": 3}}}
    )
    one = measured().model_copy(update={"node": node})
    found = of_run(one.model_copy(update={"verdicts": (judge(one, PROFILE),)}), {"b": "1" * 64, "a": "2" * 64}, TOLD)
    assert [subject["name"] for subject in found["subject"]] == ["a", "b"]
    urls = [one["uri"] for one in found["predicate"]["configuration"] if "uri" in one]
    assert urls == ["pkg:generic/fio@fio-3.33", "pkg:generic/iperf3@iperf%203.12%20%28x%29", "pkg:pypi/torch@2.9+cu130"]


def test_a_measurement_is_known_by_its_labels_in_any_order() -> None:
    spread = Spread(0.1, 3.0)
    noted = Spreads(lambda _: spread)
    noted(Measurement(metric="m_seconds", value=1, interval=(1, 1), samples=1, labels={"a": "1", "b": "2"}))
    again = Measurement(metric="m_seconds", value=2, interval=(2, 2), samples=1, labels={"b": "2", "a": "1"})
    assert as_told(noted.told())(again) == spread
