"""What a node's cores decode against what its accelerators take: by arithmetic, and what the gate makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.judge.attribution import RATE, SAMPLE_BYTES
from bench.judge.composition import composed
from bench.judge.decoding import DECODING, HEADROOM
from bench.judge.gate import judge_gate
from bench.judge.profile import Gate
from bench.model import Code, Decision, Evidence, Finding, Measurement, Outcome, Run, Status, code_of
from bench.show.raw_output import RawOutput
from bench.workflows.catalog import declared, load_profiles
from bench.workflows.judging import concluded
from tests.judge.make import measurement, result, run

OWNERS = declared().owners
(PROFILE,) = load_profiles(["data"], declared().metrics)
GATE = next(gate for gate in PROFILE.gates if gate.metric == HEADROOM)


def survey(rate: float, width: float = 0.0, cores: float = 8.0, data: str = "/set") -> list[Measurement]:
    """A core decodes ``rate`` bytes a second, within that half-width."""
    at = {"data": data}
    sound = [measurement(f"data_{name}_ratio", 1.0, labels=at) for name in ("valid", "documented")]
    cores_of = measurement("data_available_cores", cores, labels=at)
    return [*sound, cores_of, measurement("data_decode_bytes_per_second", rate, width, labels=at)]


def feed(rate: float, size: float = 1e5, path: str = "/a", **labels: str) -> list[Measurement]:
    """An accelerator that takes so many samples of that size a second."""
    at = {"path": path, **labels}
    return [measurement(RATE, rate, labels={"stage": "resident", **at}), measurement(SAMPLE_BYTES, size, labels=at)]


def found(*measured: list[Measurement], accelerator: str = "auto", cards: int = 1) -> Run:
    data = [m for one in measured for m in one if m.metric.startswith("data_")]
    fed = [m for one in measured for m in one if not m.metric.startswith("data_")]
    results = [result("data", data)] + ([result("feed", fed)] if fed else [])
    made = run(*results)
    made = made.model_copy(update={"request": made.request.model_copy(update={"accelerator": accelerator})})
    gpus = {"gpus": [{"name": "card"}] * cards} if cards else {}
    return composed(made.model_copy(update={"node": made.node.model_copy(update={"facts": gpus})}))


def finding(of: Run, gate: Gate = GATE) -> Finding:
    return judge_gate(of, gate, OWNERS)[0]


def test_by_hand() -> None:
    """Eight cores of 100 MB/s decode 800 MB/s; 2,000 samples of 100 kB are 200 MB/s: enough for four."""
    whole = found(survey(1e8, 1e7), feed(2000))
    (m,) = whole.find(HEADROOM)
    assert m.value == pytest.approx(4.0) and m.interval == pytest.approx((3.6, 4.4)) and m.labels == {"data": "/set"}
    assert composed(whole) == whole


@pytest.mark.parametrize(
    ("rate", "cards", "status"),
    [(1e8, 1, Status.PASS), (1e8, 4, Status.UNDECIDED), (1e8, 8, Status.FAIL), (2.4e7, 1, Status.FAIL),
     (2.5e7, 1, Status.UNDECIDED), (2.8e7, 1, Status.PASS)],
)  # fmt: skip
def test_a_decoder_that_is_slower_by_a_known_factor_turns_the_finding(rate: float, cards: int, status: Status) -> None:
    said = finding(found(survey(rate, rate * 0.02), feed(2000), cards=cards))
    assert (said.status, said.required) == (status, False)
    if status is Status.FAIL:
        assert f"of {cards} accelerator" in (said.reason or "") and "cores" in said.remedy


def test_it_never_decides_the_verdict_of_a_sound_set() -> None:
    slow = found(survey(1.0), feed(2000))
    catalog = replace(declared(), profiles=(PROFILE,))
    (verdict,) = concluded(slow, catalog).verdicts
    assert verdict.decision is Decision.GO and verdict.score == 100.0
    assert next(f.status for f in verdict.findings if f.metric == HEADROOM) is Status.FAIL


def test_where_the_demand_is_not_known_nothing_is_said_of_it() -> None:
    alone = found(survey(1e8))
    assert not alone.find(HEADROOM)
    said = finding(alone)
    assert (said.status, code_of(said.reason), said.remedy) == (Status.NO_DATA, Code.NOT_MEASURED, "add --probe feed")
    broken = alone.model_copy(
        update={"results": (*alone.results, result("feed", outcome=Outcome.FAILED, reason="read_failed: no"))}
    )
    assert finding(broken).reason == "probe_failed: read_failed: no"
    assert not found(survey(1e8, cores=0.0), feed(2000)).find(HEADROOM), "nor where the cores are not"


def test_a_stand_in_says_so() -> None:
    cpu = finding(found(survey(1e8), feed(2000, stand_in="cpu")))
    assert (cpu.status, cpu.stand_in, code_of(cpu.reason)) == (Status.NO_DATA, "cpu", Code.STAND_IN)
    eight = "resnet50-h100*8"
    of_eight = found(survey(1e8), feed(16_000, stand_in="emulated", accelerator=eight), accelerator=f"emulated:{eight}")
    said = finding(of_eight)
    assert said.observed == pytest.approx(4.0), "what eight take together is what one takes, eight times"
    assert (said.status, said.stand_in, said.limit.min) == (Status.FAIL, "emulated", 8.0)


def test_the_path_with_most_demand_and_every_data_set_count() -> None:
    whole = found(survey(1e8), survey(1e7, data="/slow"), feed(2000), feed(4000, path="/b"))
    assert {m.labels["data"]: m.value for m in whole.find(HEADROOM)} == pytest.approx({"/set": 2.0, "/slow": 0.2})
    assert finding(whole).status is Status.FAIL and "/slow" in (finding(whole).reason or "")


def test_what_was_measured_under_doubt_decides_nothing() -> None:
    doubtful = [m.model_copy(update={"invalid": "host_contended: others"}) for m in feed(2000)]
    said = finding(found(survey(1.0), doubtful))
    assert (said.status, code_of(said.reason)) == (Status.UNDECIDED, Code.INVALID)


def test_it_leads_to_the_raw_output_of_both_probes(tmp_path: Path) -> None:
    whole = found(survey(1e8), feed(2000))
    files = [Evidence(path=f"{one.probe}.txt", sha256="0" * 64) for one in whole.results[:2]]
    made = [one.model_copy(update={"evidence": (file,)}) for one, file in zip(whole.results[:2], files, strict=True)]
    (last,) = composed(whole.model_copy(update={"results": tuple(made)})).results[2:]
    assert (last.probe, last.evidence) == (DECODING, tuple(files))
    lines = [
        {"probe": "data", "name": "survey-0", "argv": ["survey"], "stdout": "data.txt"},
        {"probe": "feed", "name": "feed-0", "argv": ["feed"], "stdout": "feed.txt"},
        {"probe": "gpu", "name": "other", "argv": ["other"], "stdout": "gpu.txt"},
    ]
    (tmp_path / "tools.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [call.name for call in RawOutput(tmp_path).calls(last)] == ["survey-0", "feed-0"]
