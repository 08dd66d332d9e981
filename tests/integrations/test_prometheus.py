"""Export, scrape, query: with the real node_exporter and Prometheus; the rules by promtool, the board by Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.export import generated
from bench.model import Outcome, ProbeResult, Run
from bench.workflows.catalog import declared
from tests.cli.bench import bench
from tests.integrations.monitoring import alerts, node_exporter, prometheus, query, tool, wait_for
from tests.show.export.sample import good, starved, stored
from tests.show.export.test_export_command import listening
from tests.show.terminal.sample import READ, measurement

pytestmark = pytest.mark.slow

PINNED = Path(__file__).parents[2] / "docs" / "integrations" / "prometheus"


def everything() -> Run:
    """The starved run with one figure of every metric that some probe declares."""
    run = starved()
    known = {m.metric for m in run.measurements()}
    extra = [
        measurement(metric.name, 0.5, 0.05, **{label: "x" for label in metric.labels if label != "stand_in"})
        for metric in declared().metrics.values()
        if metric.name not in known or all(m.invalid for m in run.find(metric.name))
    ]
    result = ProbeResult(probe="extra", outcome=Outcome.OK, measurements=tuple(extra))
    return run.model_copy(update={"results": (*run.results, result)})


def queries() -> list[str]:
    """Every query of the dashboard, those in folded rows included."""
    panels = [panel for row in json.loads(generated("grafana"))["panels"] for panel in (row, *row.get("panels", ()))]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def exported(results: Path, folder: Path) -> None:
    done = bench("export", "-f", "openmetrics", "-o", folder / "bench.prom", "--results", results, cwd=results)
    assert done.returncode == 0, done.stderr


def test_scraped_through_node_exporter_and_queried_back(results: Path, tmp_path: Path) -> None:
    run = everything()
    stored(results, run)
    exported(results, tmp_path)
    board = [q.replace("$instance", ".*").replace("$profile", ".*") for q in queries()]
    with node_exporter(tmp_path) as port, prometheus(tmp_path, [port], generated("rules")) as address:
        assert wait_for(lambda: query(address, "bench_verdict == 1"))
        decisions = {(s["metric"]["profile"], s["metric"]["decision"]) for s in query(address, "bench_verdict == 1")}
        assert decisions == {(v.profile, v.decision.value) for v in run.verdicts}
        (read,) = query(address, f'{READ.metric}{{path="/data"}}')
        assert float(read["value"][1]) == READ.value
        assert query(address, "node_textfile_scrape_error")[0]["value"][1] == "0"
        assert [expression for expression in board if not query(address, expression)] == []
        expected = {"AIReadyBenchNoGo", "AIReadyBenchGateFailed", "AIReadyBenchStarved", "AIReadyBenchProbeBroken"}
        assert wait_for(lambda: expected <= alerts(address)), alerts(address)


def test_a_healthy_node_raises_no_alert_and_is_scraped_from_bench_itself(results: Path, tmp_path: Path) -> None:
    run = good()
    whole = tuple(result for result in run.results if result.outcome is Outcome.OK)
    stored(results, run.model_copy(update={"results": whole}))
    with listening(results) as (_, url):
        port = int(url.rpartition(":")[2].partition("/")[0])
        with prometheus(tmp_path, [port], generated("rules")) as address:
            assert wait_for(lambda: query(address, 'bench_verdict{decision="GO"} == 1'))
            assert query(address, "up")[0]["value"][1] == "1"
            assert not alerts(address) & {"AIReadyBenchNoGo", "AIReadyBenchGateFailed", "AIReadyBenchProbeBroken"}


def test_a_board_with_a_metric_that_nobody_exports_would_fail(results: Path, tmp_path: Path) -> None:
    """The check above can fail: a query of what is not there returns nothing."""
    stored(results, good())
    exported(results, tmp_path)
    with node_exporter(tmp_path) as port, prometheus(tmp_path, [port]) as address:
        assert wait_for(lambda: query(address, "bench_verdict"))
        assert query(address, 'storage_read_furlongs{instance=~".*"}') == []


def test_promtool_accepts_the_rules_and_they_fire_as_meant(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(generated("rules"))
    checked = subprocess.run(
        [tool("promtool"), "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    no_go = 'bench_verdict{instance="n",profile="p",decision="NO-GO"}'
    unsure = 'bench_verdict{instance="n",profile="p",decision="INCONCLUSIVE"}'
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": no_go, "values": "0x60 1x60"},
                    {"series": unsure, "values": "1x120"},
                    {"series": 'bench_last_run_timestamp_seconds{instance="n"}', "values": "-93000x120"},
                ],
                "alert_rule_test": [
                    _fires("10m", "AIReadyBenchNoGo", []),
                    _fires("70m", "AIReadyBenchNoGo", [{"decision": "NO-GO", "severity": "critical"}]),
                    _fires("30m", "AIReadyBenchInconclusive", []),
                    _fires("90m", "AIReadyBenchInconclusive", [{"decision": "INCONCLUSIVE", "severity": "warning"}]),
                ],
                "promql_expr_test": [
                    {"expr": "time() - bench_last_run_timestamp_seconds > 93600", "eval_time": "20m",
                     "exp_samples": [{"labels": '{instance="n"}', "value": 94200}]},
                ],
            }
        ],
    }  # fmt: skip
    (tmp_path / "test.yml").write_text(json.dumps(test))
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _fires(at: str, name: str, found: list[dict[str, str]]) -> dict[str, object]:
    texts = {
        "AIReadyBenchNoGo": ("n is not ready for p", "A required gate failed. On the node: bench gate; bench report"),
        "AIReadyBenchInconclusive": (
            "n could not be judged for p",
            "A required gate has no data or could not be decided. On the node: bench doctor",
        ),
    }
    summary, description = texts[name]
    expected = [
        {
            "exp_labels": {"instance": "n", "profile": "p", **labels},
            "exp_annotations": {"summary": summary, "description": description},
        }
        for labels in found
    ]
    return {"eval_time": at, "alertname": name, "exp_alerts": expected}


@pytest.mark.parametrize(("name", "file"), [("grafana", "dashboard.json"), ("rules", "rules.yml")])
def test_the_files_in_docs_are_what_the_declarations_make(name: str, file: str) -> None:
    made = generated(name)
    assert (PINNED / file).read_text() == made, (
        f"make them again: bench export -f {name} -o docs/integrations/prometheus/{file}"
    )


def test_every_declared_metric_has_a_panel() -> None:
    board = generated("grafana")
    assert [m.name for m in declared().metrics.values() if m.unit != "info" and f'"{m.name}{{' not in board] == []


def test_the_unit_of_the_exporter_is_valid_and_confined(tmp_path: Path) -> None:
    text = (PINNED / "aiready-bench-exporter.service").read_text()
    (command,) = re.findall(r"^ExecStart=\S+/bench (.*)$", text, re.M)
    assert command.startswith("export --listen 127.0.0.1:")
    unit = tmp_path / "aiready-bench-exporter.service"
    unit.write_text(text.replace("/opt/aiready-bench/bin/bench", f'"{sys.executable}"'))
    analyze = tool("systemd-analyze")
    verified = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert (verified.returncode, unit.name in verified.stderr) == (0, False), verified.stderr
    words = [analyze, "security", "--offline=true", "--threshold=25", "--no-pager", str(unit)]
    confined = subprocess.run(words, capture_output=True, text=True, check=False)
    assert confined.returncode == 0, confined.stdout[-300:]
