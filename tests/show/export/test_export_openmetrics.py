"""The Prometheus text, read by both of its parsers and by promtool."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_classic

from bench.model import Run
from bench.show.export import ExportError, render
from bench.show.export.openmetrics import FAMILIES
from bench.show.text import clean
from tests.show.export.sample import HOSTILE, good, hostile, inconclusive, starved
from tests.show.export.test_export_formats import RUNS, export

each_run = pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def text(run: Run) -> str:
    return render("openmetrics", export(run)).decode()


def samples(run: Run) -> Series:
    """Read by the OpenMetrics parser, which is the strict one."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read_openmetrics(text(run))  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


@each_run
def test_promtool_has_nothing_to_say(make: Callable[[], Run]) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "the test packages have promtool (prometheus)"
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text(make()), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr + done.stdout) == (0, "")


@each_run
def test_both_formats_read_the_same(make: Callable[[], Run]) -> None:
    run = make()
    classic = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in read_classic(text(run)) for s in f.samples}
    assert samples(run) == classic
    assert text(run).endswith("\n# EOF\n")


def test_measurements_keep_their_names_labels_and_numbers() -> None:
    run = starved()
    found = samples(run)
    for m in run.measurements():
        labels = m.labels | ({"invalid": "true"} if m.invalid else {})
        assert found[m.metric, tuple(sorted(labels.items()))] == m.value


@pytest.mark.parametrize(
    ("make", "profile", "decision"),
    [
        (good, "batch-inference", "GO"),
        (starved, "distributed-training", "NO-GO"),
        (inconclusive, "batch-inference", "INCONCLUSIVE"),
    ],
)
def test_the_verdict_is_one_of_three_states(make: Callable[[], Run], profile: str, decision: str) -> None:
    found = {
        dict(labels)["decision"]: value
        for (name, labels), value in samples(make()).items()
        if name == "bench_verdict" and dict(labels)["profile"] == profile
    }
    assert found == {word: float(word == decision) for word in ("GO", "NO-GO", "INCONCLUSIVE")}


def test_when_it_ran_and_what_it_is() -> None:
    found = samples(good())
    assert found["bench_last_run_timestamp_seconds", ()] == 1795344900.0
    (info,) = [dict(labels) for name, labels in found if name == "bench_run_info"]
    assert (info["id"], info["effort"], info["version"]) == ("3f2a9c1b77de", "standard", "1.2.3")


def test_what_was_not_measured_is_absent_and_never_zero() -> None:
    found = samples(inconclusive())
    assert not [labels for name, labels in found if name == "bench_gate_observed"]
    run = inconclusive()
    assert run.attribution is not None
    unknown = run.attribution.model_copy(update={"starved": None, "supply_bytes_per_second": None})
    names = {name for name, _ in samples(run.model_copy(update={"attribution": unknown}))}
    assert not names & {"bench_starved", "bench_supply_bytes_per_second"}


def test_hostile_labels_come_back_as_cleaned_text_and_doubles_are_told_apart() -> None:
    labels = [dict(labels) for name, labels in samples(hostile()) if name == "storage_read_latency_seconds"]
    assert [found["path"] for found in labels] == [clean(HOSTILE, 500)] * 2
    assert sorted(found.get("again", "1") for found in labels) == ["1", "2"]
    assert all(found["invalid"] for found in labels)


def test_a_measurement_cannot_forge_a_verdict() -> None:
    run = good()
    forged = run.results[0].measurements[0].model_copy(update={"metric": "bench_verdict", "labels": {"decision": "GO"}})
    result = run.results[0].model_copy(update={"measurements": (forged,)})
    with pytest.raises(ExportError, match="bench_verdict"):
        text(run.model_copy(update={"results": (result,)}))


def test_every_family_is_declared_once() -> None:
    assert all(name.startswith("bench_") and text for name, text in FAMILIES.items())
    names = [line.split()[2] for line in text(starved()).splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
