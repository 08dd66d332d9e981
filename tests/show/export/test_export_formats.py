"""Each format against its own reader or schema, on runs of every decision and on one that is hostile throughout."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.model import Decision, Run, Verdict
from bench.show.export import FORMATS, Export, ExportError, render
from tests.show.export.sample import HOSTILE, good, hostile, inconclusive, starved

HERE = Path(__file__).parent
RUNS = {"good": good, "starved": starved, "inconclusive": inconclusive, "hostile": hostile}
CONTROLS = [chr(n) for n in (*range(9), 11, 12, *range(14, 32), 127, *range(128, 160))] + ["\u202e", "\u2066"]
each_run = pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)


def export(run: Run, stale: str | None = None) -> Export:
    from bench.workflows.catalog import declared

    return Export(run, declared().metrics, stale)


def text(name: str, run: Run) -> str:
    return render(name, export(run)).decode()


@each_run
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "parquet"])
def test_no_control_character_leaves_the_house(name: str, make: Callable[[], Run]) -> None:
    found = text(name, make())
    assert not [c for c in CONTROLS if c in found]
    assert "\r" not in found


# --- JUnit and CTRF


@each_run
def test_junit_keeps_the_schema(make: Callable[[], Run], tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(text("junit", make()))
    xmllint = shutil.which("xmllint")
    assert xmllint, "the test packages have xmllint (libxml2-utils)"
    done = subprocess.run(
        [xmllint, "--noout", "--schema", str(HERE / "junit.xsd"), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("make", "answer"),
    [(good, None), (starved, "failure"), (inconclusive, "error")],
    ids=["GO", "NO-GO", "INCONCLUSIVE"],
)
def test_junit_maps_the_decision(make: Callable[[], Run], answer: str | None) -> None:
    root = ElementTree.fromstring(text("junit", make()))
    case = root.find("testsuite/testcase[@name='verdict']")
    assert case is not None
    assert [child.tag for child in case] == ([answer] if answer else [])
    assert not root.findall(".//skipped")


def test_junit_counts_are_those_of_its_cases() -> None:
    for suite in ElementTree.fromstring(text("junit", starved())).findall("testsuite"):
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert int(suite.attrib["errors"]) == len(suite.findall("testcase/error"))


def test_an_optional_gate_never_fails_a_build_and_is_still_told() -> None:
    suite = ElementTree.fromstring(text("junit", starved())).find("testsuite[@name='distributed-training']")
    assert suite is not None
    case = next(c for c in suite.findall("testcase") if "[optional]" in c.attrib["name"])
    assert list(case) == []
    assert "optional, does not decide: starvation (total)" in (suite.findtext("system-out") or "")


def test_junit_shows_hostile_text_as_text() -> None:
    root = ElementTree.fromstring(text("junit", hostile()))
    assert not root.findall(".//script")
    assert "<script>" in root.findall("testsuite")[0].attrib["hostname"]


def test_an_unjudged_run_is_an_error_everywhere() -> None:
    run = good().model_copy(update={"verdicts": ()})
    assert ElementTree.fromstring(text("junit", run)).find(".//error") is not None
    assert json.loads(text("ctrf", run))["results"]["summary"]["failed"] == 1


@each_run
def test_ctrf_keeps_the_schema(make: Callable[[], Run]) -> None:
    import jsonschema

    report = json.loads(text("ctrf", make()))
    jsonschema.validate(report, json.loads((HERE / "ctrf.schema.json").read_text()))
    summary, tests = report["results"]["summary"], report["results"]["tests"]
    assert summary["tests"] == len(tests) == summary["passed"] + summary["failed"]
    assert summary["failed"] == sum(test["status"] == "failed" for test in tests)


def test_ctrf_never_calls_the_undecided_green() -> None:
    tests = json.loads(text("ctrf", inconclusive()))["results"]["tests"]
    assert {(test["rawStatus"], test["status"]) for test in tests} == {
        ("INCONCLUSIVE", "failed"),
        ("no_data", "failed"),
    }


# --- plugins, byte for byte


def test_nagios_byte_for_byte() -> None:
    assert text("nagios", good()) == (
        "BENCH OK: GO batch-inference | 'storage_read_latency_seconds.random.1.p99'=0.00231s;;0.01\n"
        "batch-inference GO 100\n"
    )
    assert text("nagios", inconclusive()) == (
        "BENCH UNKNOWN: INCONCLUSIVE batch-inference: storage read latency (random, queue depth 1, p99) not measured\n"
        "batch-inference INCONCLUSIVE 0\n"
        "batch-inference: no data: storage read latency (random, queue depth 1, p99): not measured, needs <= 10 ms; "
        "tool_missing: fio is not installed\n"
    )
    first = text("nagios", starved()).splitlines()[0]
    assert first.startswith(
        "BENCH CRITICAL: NO-GO distributed-training: starvation (storage) 66 %, needs <= 10 % | "
        "'starvation_ratio.storage'=0.66;;0.1 "
    )
    assert "'storage_read_bytes_per_second.1048576.sequential.deep'=1050000000.0;;2147483648.0:" in first


def test_npd_byte_for_byte() -> None:
    assert text("npd", good()) == "GO batch-inference\n"
    assert text("npd", starved()) == "NO-GO distributed-training: starvation (storage) 66 %, needs <= 10 %\n"
    cut = "INCONCLUSIVE batch-inference: storage read latency (random, queue depth 1, p..."
    assert (text("npd", inconclusive()), len(cut) + 1) == (cut + "\n", 80)


@each_run
def test_npd_is_one_line_of_at_most_80_bytes(make: Callable[[], Run]) -> None:
    wide = make()
    verdicts = tuple(v.model_copy(update={"profile": "ü" * 200 + v.profile}) for v in wide.verdicts)
    for run in (wide, wide.model_copy(update={"verdicts": verdicts}), wide.model_copy(update={"verdicts": ()})):
        data = render("npd", export(run))
        assert len(data) <= 80
        assert data.decode().count("\n") == 1
        assert data.endswith(b"\n")


@pytest.mark.parametrize("name", ["nagios", "npd"])
def test_a_stale_run_is_no_answer(name: str) -> None:
    found = render(name, export(good(), "stale: the newest run is 50 h old")).decode()
    assert (
        found
        == {
            "nagios": "BENCH UNKNOWN: stale: the newest run is 50 h old\n",
            "npd": "no verdict: stale: the newest run is 50 h old\n",
        }[name]
    )


def test_nagios_has_one_pipe_and_no_line_of_the_enemy() -> None:
    lines = text("nagios", hostile()).splitlines()
    assert lines[0].count("|") == 1
    assert not [line for line in lines if line.startswith("::")]
    assert all("|" not in line for line in lines[1:])


# --- Markdown


def test_markdown_shows_hostile_text_as_text() -> None:
    found = text("markdown", hostile())
    assert "<script" not in found
    assert "](" not in found.replace("\\](", "")
    assert not [line for line in found.splitlines() if line.startswith("::")]
    assert "@root" not in found
    assert "http://" not in found


def test_markdown_tables_have_even_rows() -> None:
    for make in RUNS.values():
        rows = [line for line in text("markdown", make()).splitlines() if line.startswith("|")]
        widths = {line.replace("\\|", "").count("|") for line in rows}
        assert widths <= {5, 6}, rows


# --- numbers there and back


@each_run
def test_parquet_has_the_same_numbers(make: Callable[[], Run]) -> None:
    import pandas

    run = make()
    frame = pandas.read_parquet(io.BytesIO(render("parquet", export(run))))
    assert list(frame["value"]) == [m.value for m in run.measurements()]
    assert list(zip(frame["low"], frame["high"], strict=True)) == [m.interval for m in run.measurements()]
    assert list(frame["samples"]) == [m.samples for m in run.measurements()]
    assert [json.loads(labels) for labels in frame["labels"]] == [m.labels for m in run.measurements()]
    assert list(frame["metric"]) == [m.metric for m in run.measurements()]
    assert frame["started_at"].dt.strftime("%Y-%m-%dT%H:%M:%S").unique().tolist() == ["2026-11-22T10:51:03"]


@each_run
def test_json_is_the_document(make: Callable[[], Run]) -> None:
    run = make()
    assert Run.model_validate_json(render("json", export(run))) == run


def test_otlp_has_the_same_numbers() -> None:
    run = starved()
    request = json.loads(render("otlp", export(run)))
    (scope,) = request["resourceMetrics"][0]["scopeMetrics"]
    found = {
        (metric["name"], point["asDouble"], *sorted((a["key"], a["value"]["stringValue"]) for a in point["attributes"]))
        for metric in scope["metrics"]
        if not metric["name"].startswith("bench_")
        for point in metric["gauge"]["dataPoints"]
    }
    labels = {(m.metric, m.value, *sorted((m.labels | ({"invalid": m.invalid} if m.invalid else {})).items()))
              for m in run.measurements()}  # fmt: skip
    assert found == labels


def test_every_decision_has_its_place() -> None:
    """A new decision must not fall through as a pass in any format."""
    run = good()
    for decision in Decision:
        verdicts = (run.verdicts[0].model_copy(update={"decision": decision}),)
        changed = run.model_copy(update={"verdicts": verdicts})
        green = decision is Decision.GO
        assert text("nagios", changed).startswith("BENCH OK") is green
        assert (ElementTree.fromstring(text("junit", changed)).find("testsuite/testcase[1]/*") is None) is green
        assert (json.loads(text("ctrf", changed))["results"]["tests"][0]["status"] == "passed") is green
    assert isinstance(run.verdicts[0], Verdict)
    assert HOSTILE.startswith("\x1b")


def test_without_pyarrow_parquet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExportError, match=r"pip install 'aiready-bench\[parquet\]'"):
        render("parquet", export(good()))


def test_markdown_of_a_hostile_run_holds_only_our_own_markup() -> None:
    """Through a CommonMark parser with raw HTML on: what is left are tables, emphasis and the folds."""
    import markdown_it

    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for make in RUNS.values():
        found = parser.render(text("markdown", make()))
        tags = set(re.findall(r"<\s*/?\s*([a-zA-Z][a-zA-Z0-9]*)", re.sub(r"<!--.*?-->", "", found)))
        ours = {
            "h2",
            "p",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "strong",
            "code",
            "ul",
            "li",
            "details",
            "summary",
        }
        assert tags <= ours
        assert "alert(1)" not in found or "&lt;script&gt;" in found
