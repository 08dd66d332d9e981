"""The fleet for other programs: every named host with its one state, by the readers of those formats."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_classic

from bench.cli.app import run as bench
from bench.judge.fleet.model import ANSWERED, Fleet, State
from bench.model import Decision
from bench.show.export import FLEET_FORMATS, PLUGIN_STATUS, Export, render
from bench.show.export.openmetrics import FLEET_FAMILIES
from bench.show.text import clean
from tests.fleet.make import PROFILE, lay, run_of
from tests.fleet.sample import RATE, go, holes, hostile, no_go

SCHEMAS = Path(__file__).parents[1] / "show" / "export"
FLEETS = {"go": go, "no_go": no_go, "holes": holes, "hostile": hostile}
CONTROLS = [chr(c) for c in (*range(9), *range(11, 32), *range(127, 160))] + ["\u202e"]
each_fleet = pytest.mark.parametrize("make", FLEETS.values(), ids=FLEETS)
Make = Callable[[], Fleet]


def text(name: str, fleet: Fleet, stale: str | None = None) -> str:
    return render(name, Export(fleet, stale=stale)).decode()


@each_fleet
@pytest.mark.parametrize("name", FLEET_FORMATS)
def test_every_named_host_is_there_and_no_control_character(name: str, make: Make) -> None:
    found = text(name, make())
    assert not [c for c in CONTROLS if c in found] and "\r" not in found
    if make is not hostile:
        assert all(node.host in found for node in make().nodes)


# --- CI


@each_fleet
def test_junit_keeps_the_schema(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(text("junit", make()))
    xmllint = shutil.which("xmllint")
    assert xmllint, "the test packages have xmllint (libxml2-utils)"
    argv = [xmllint, "--noout", "--schema", str(SCHEMAS / "junit.xsd"), str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@each_fleet
def test_in_junit_a_host_without_a_result_is_an_error_and_never_skipped_or_absent(make: Make) -> None:
    root = ElementTree.fromstring(text("junit", make()))
    assert not root.findall(".//skipped") and not root.findall(".//script")
    cases = root.findall("testsuite[@name='nodes']/testcase")
    assert len(cases) == len(make().nodes)
    for node, case in zip(make().nodes, cases, strict=True):
        answers = {State.PASS: [], State.FAIL: ["failure"]}.get(node.state, ["error"])
        assert [child.tag for child in case] == answers, node
        assert case.attrib["name"] == clean(node.host, 255)
    for suite in root.findall("testsuite"):
        for word, tag in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error")):
            assert int(suite.attrib[word]) == len(suite.findall(tag))
        names = [case.attrib["name"] for case in suite.findall("testcase")]
        assert len(names) == len(set(names)), "CI would take two cases of one name for one"


def test_pairs_outliers_the_collective_and_shifts_are_cases_by_what_follows_from_them() -> None:
    root = ElementTree.fromstring(text("junit", no_go()))
    cases = [(suite.attrib["name"], case) for suite in root for case in suite.findall("testcase")]
    found = {
        (suite, case.attrib["name"]): (case[0].tag, case[0].attrib["type"]) if len(case) else ("pass", "")
        for suite, case in cases
    }
    assert found["fleet", "acceptance"] == ("failure", "NO-GO")
    assert found["pairs", "n1 - n2"][0] == "pass" and found["pairs", "n1 - n3"] == ("error", "lost")
    assert found["siblings", "n2: disk /data"] == ("failure", "outlier")
    assert found["siblings", "n3: disk /data"] == ("error", "suspect")
    assert found["siblings", "n1: disk /data"][0] == "pass", "what only warns does not fail a build"
    assert "warns, does not decide: n1" in (root.findtext("testsuite[@name='siblings']/system-out") or "")
    assert found["collective", "all-reduce"][0] == "pass" and found["shared storage", "/s"] == ("error", "no_data")
    assert found["whole fleet", "storage_read_bytes_per_second"] == ("failure", "regressed")
    assert "moved, does not decide" in (root.findtext("testsuite[@name='whole fleet']/system-out") or "")
    lost = ElementTree.fromstring(text("junit", holes())).find("testsuite[@name='collective']/testcase/error")
    assert lost is not None and lost.attrib["type"] == "lost"


@each_fleet
def test_ctrf_keeps_the_schema_and_never_calls_a_hole_green(make: Make) -> None:
    import jsonschema

    report = json.loads(text("ctrf", make()))
    jsonschema.validate(report, json.loads((SCHEMAS / "ctrf.schema.json").read_text()))
    nodes = [test for test in report["results"]["tests"] if test["suite"] == ["nodes"]]
    expected = [("passed" if node.state is State.PASS else "failed", node.state.value) for node in make().nodes]
    assert [(test["status"], test["rawStatus"]) for test in nodes] == expected


# --- Prometheus


@each_fleet
def test_promtool_and_both_parsers_read_the_same(make: Make) -> None:
    found = text("openmetrics", make())
    promtool = shutil.which("promtool")
    assert promtool, "the test packages have promtool (prometheus)"
    argv = [promtool, "check", "metrics"]
    done = subprocess.run(argv, input=found, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr + done.stdout) == (0, "")
    strict = [(s.name, s.labels, s.value) for f in read_openmetrics(found) for s in f.samples]  # type: ignore[no-untyped-call]
    assert strict == [(s.name, s.labels, s.value) for f in read_classic(found) for s in f.samples]
    assert {name for name, _, _ in strict} <= set(FLEET_FAMILIES)


def samples(fleet: Fleet, name: str) -> list[tuple[dict[str, str], float]]:
    families = read_classic(text("openmetrics", fleet))
    return [(sample.labels, sample.value) for family in families for sample in family.samples if sample.name == name]


@pytest.mark.parametrize("make", [go, no_go, holes])
def test_each_host_has_exactly_one_state_and_what_was_not_measured_has_no_number(make: Make) -> None:
    fleet = make()
    states = samples(fleet, "bench_fleet_node_state")
    assert [(one["host"], one["state"]) for one, value in states if value] == [(n.host, n.state) for n in fleet.nodes]
    assert len(states) == len(fleet.nodes) * len(State)
    scored = [one["host"] for one, _ in samples(fleet, "bench_fleet_node_score_ratio")]
    assert scored == [node.host for node in fleet.nodes if node.state in ANSWERED]
    counts = {one["state"]: value for one, value in samples(fleet, "bench_fleet_nodes")}
    assert sum(counts.values()) == len(fleet.nodes) and set(counts) == set(State)
    (decision,) = [one["decision"] for one, value in samples(fleet, "bench_fleet_verdict") if value]
    assert decision == fleet.decision
    rates = samples(fleet, "bench_fleet_pair_throughput_bytes_per_second")
    assert len(rates) == 2 * sum(pair.state is State.PASS for pair in fleet.pairs)
    assert len(samples(fleet, "bench_fleet_pair_measured")) == len(fleet.pairs)
    assert bool(samples(fleet, "bench_fleet_measured_timestamp_seconds")) is (fleet.measured_at is not None)
    assert bool(samples(fleet, "bench_fleet_collective_bus_bytes_per_second")) is (make is no_go)


def test_outliers_say_what_follows_from_them() -> None:
    found = {(one["host"], one["level"]): v for one, v in samples(no_go(), "bench_fleet_outlier_deviation_ratio")}
    assert found == {("n2", "outlier"): 0.5, ("n3", "suspect"): 0.5, ("n1", "warn"): 0.5}
    shifts = {(one["metric"], one["level"]) for one, _ in samples(no_go(), "bench_fleet_shift_ratio")}
    assert shifts == {("storage_read_bytes_per_second", "regressed"), (RATE, "moved")}


# --- Nagios, Markdown, JSON


def test_nagios_says_the_verdict_first_and_the_bad_hosts_before_the_rest() -> None:
    lines = text("nagios", no_go()).splitlines()
    assert lines[0].startswith("FLEET CRITICAL: NO-GO 3 nodes: no_go: n2 | 'pass'=1 'fail'=1;;0 ")
    assert lines[-3:] == ["n2: fail: storage read: fail", "n3: inconclusive", "n1: pass"]
    assert text("nagios", go()).startswith("FLEET OK: GO 2 nodes | ")
    assert text("nagios", holes()).startswith("FLEET UNKNOWN: INCONCLUSIVE 8 nodes: lost: n-lost | ")
    assert text("nagios", go(), "stale: measured 50 h ago") == "FLEET UNKNOWN: stale: measured 50 h ago\n"
    lines = text("nagios", hostile()).splitlines()
    assert lines[0].count("|") == 1 and all("|" not in line for line in lines[1:])
    assert not [line for line in lines if line.startswith("::")]


def test_markdown_shows_hostile_text_as_text_and_only_our_own_markup() -> None:
    import markdown_it

    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table"])
    ours = set("h2 p table thead tbody tr th td strong code ul li details summary".split())
    for make in FLEETS.values():
        found = text("markdown", make())
        shown = parser.render(found)
        assert set(re.findall(r"<\s*/?\s*([a-zA-Z][a-zA-Z0-9]*)", re.sub(r"<!--.*?-->", "", shown))) <= ours
        assert shown.count("<table>") == 2 + bool(make().pairs)
        assert "http://" not in found and "@root" not in found
        assert not [line for line in found.splitlines() if line.startswith("::")]
    assert "<details open>" in text("markdown", holes()) and "<details open>" not in text("markdown", go())


@each_fleet
def test_json_is_the_document(make: Make) -> None:
    assert Fleet.model_validate_json(text("json", make())) == make()


def test_every_decision_and_state_has_its_place() -> None:
    """A new one must not fall through as a pass in any format."""
    for decision in Decision:
        verdict = go().verdicts[0].model_copy(update={"decision": decision})
        changed = go().model_copy(update={"decision": decision, "verdicts": (verdict,)})
        green = decision is Decision.GO
        assert text("nagios", changed).startswith("FLEET OK") is green
        assert (ElementTree.fromstring(text("junit", changed)).find("testsuite/testcase[1]/*") is None) is green


# --- the command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "fleet"
    for host in ("n1", "n2", "n3"):
        lay(place, run_of(host))
    (place / "hosts.txt").write_text("n1\nn2\nn3\n")
    return place


@pytest.fixture
def words(folder: Path, tmp_path: Path) -> list[str]:
    path = tmp_path / "acceptance.toml"
    path.write_text(PROFILE)
    return ["fleet", "export", str(folder), "--profile", str(path)]


def test_nagios_exits_by_its_protocol_and_the_others_with_0(
    folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for status in (0, 3, 1):  # GO, a host missing, a host that fails
        if status == 3:
            (folder / "n3.json").unlink()
        if status == 1:
            lay(folder, run_of("n1", read=1e6))
        assert bench([*words, "-f", "nagios"]) == PLUGIN_STATUS["nagios"][status]
        assert bench([*words, "-f", "openmetrics"]) == 0
        assert ('bench_fleet_node_state{host="n3",state="lost"} 1' in capsys.readouterr().out) is (status != 0)
    assert bench([*words, "-f", "nagios", "--expect", "n1,n1"]) == 3
    assert capsys.readouterr().out.startswith("FLEET UNKNOWN: --expect: n1 is named twice")


def test_an_old_fleet_is_unknown_by_its_oldest_run(
    folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from datetime import UTC, datetime

    for host in ("n1", "n2"):
        lay(folder, run_of(host, started_at=datetime.now(UTC).isoformat()))
    lay(folder, run_of("n3", started_at="2020-01-01T00:00:00Z"))
    assert bench([*words, "-f", "nagios", "--max-age", "26h"]) == 3
    assert "stale" in capsys.readouterr().out
    lay(folder, run_of("n3", started_at=datetime.now(UTC).isoformat()))
    assert bench([*words, "-f", "nagios", "--max-age", "26h"]) == 0


def test_the_file_is_put_in_place_and_wrong_usage_is_one_line(
    folder: Path, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench([*words, "-f", "junit", "-o", str(tmp_path / "fleet.xml")]) == 0
    assert capsys.readouterr().out == ""
    assert len(ElementTree.parse(tmp_path / "fleet.xml").findall("testsuite[@name='nodes']/testcase")) == 3
    absent = str(tmp_path / "absent")
    for more in ([], ["-f", "npd"], ["-f", "junit", "--against", absent], ["-f", "junit", "--max-age", "x"]):
        assert bench([*words, *more]) == 2
        found = capsys.readouterr()
        assert (found.out, len(found.err.splitlines())) == ("", 1)
