"""A Grafana dashboard and Prometheus rules, made from what the probes declare and what `bench export` writes.

Nothing here names a probe's metric by hand, so a metric that is added, renamed or removed changes both, and a test
holds the files in docs/ to what this makes. Queries of measurements ask for ``invalid=""``: figures for the record only
carry that label, and never count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import starmap
from typing import Any

from bench.measure.probe import Probe
from bench.model import Metric, unit_of

#: Base unit -> Grafana's name for it.
_UNITS = {
    "bytes_per_second": "Bps",
    "bytes": "decbytes",
    "seconds": "s",
    "ratio": "percentunit",
    "watts": "watt",
    "joules": "joule",
    "celsius": "celsius",
    "hertz": "hertz",
    "operations_per_second": "iops",
    "flops_per_second": "flops",
    "per_second": "cps",
    "tokens_per_second": "cps",
    "samples_per_second": "cps",
}
_HERE = 'instance=~"$instance"'
_STALE_SECONDS = 26 * 3600
_COLUMNS, _HEIGHT = 24, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
Panel = dict[str, Any]


def dashboard(probes: Iterable[Probe]) -> str:
    """Grafana's JSON model; import it by hand, or provision the file."""
    readiness = list(_laid(_readiness(), 1, 1))
    panels = [_row("Readiness", 0, [], number=1000), *readiness]
    below = readiness[-1]["gridPos"]["y"] + _HEIGHT
    measuring = [(probe, [_of_metric(m) for m in probe.metrics if m.unit != "info"]) for probe in probes]
    for top, (probe, group) in enumerate(((probe, group) for probe, group in measuring if group), below):
        laid = list(_laid(group, top + 1, len(panels) + 1))
        panels.append(_row(f"{probe.name}: {probe.help}", top, laid, number=1000 + len(panels)))
    board = {
        "uid": "aiready-bench",
        "title": "AI readiness of the nodes",
        "description": "Made by `bench export --format grafana`; see docs/prometheus.md.",
        "tags": ["aiready-bench"],
        "editable": True,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "5m",
        "time": {"from": "now-30d", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                _variable("instance", "bench_run_info"),
                _variable("profile", "bench_verdict"),
            ]
        },
        "panels": panels,
    }
    return json.dumps(board, indent=1) + "\n"


def _readiness() -> list[Panel]:
    both = f'{_HERE},profile=~"$profile"'
    required = f'{both},required="true"'
    whose, gate = "{{instance}} {{profile}}", "{{instance}} {{profile}} {{metric}} {{selector}}"
    age = f"time() - bench_last_run_timestamp_seconds{{{_HERE}}}"
    holes = f'bench_probe_outcome{{{_HERE},outcome!="ok"}} == 1'
    waits = f"bench_bottleneck{{{_HERE}}} == 1"
    reached = f"bench_gate_reached_ratio{{{required}}}"
    spent = f"bench_probe_duration_seconds{{{_HERE}}}"
    return [
        _panel("Verdict", f"bench_verdict{{{both}}} == 1", whose + ": {{decision}}", kind="stat", width=16),
        _panel("Age of the last run", age, "{{instance}}", "s", "stat"),
        _panel("GO over time", f'bench_verdict{{{both},decision="GO"}}', whose, width=12),
        _panel("Score", f"bench_score_ratio{{{both}}}", whose, "percentunit", width=12),
        _panel("Share of each requirement that was reached", reached, gate, "percentunit", width=12),
        _panel(
            "Gates that did not pass", f'bench_gate{{{required},status!="pass"}} == 1', gate + ": {{status}}",
            kind="table", width=12,
        ),
        _panel("What the accelerator waits for", waits, "{{instance}}: {{bottleneck}}", kind="stat"),
        _panel("Demand", f"bench_demand_bytes_per_second{{{_HERE}}}", "{{instance}} {{path}}", "Bps"),
        _panel("Supply", f"bench_supply_bytes_per_second{{{_HERE}}}", "{{instance}} {{path}}", "Bps"),
        _panel("Probes that did not measure", holes, "{{instance}} {{probe}}: {{outcome}}", kind="table", width=12),
        _panel("Time of the probes", spent, "{{instance}} {{probe}}", "s", width=12),
    ]  # fmt: skip


def _of_metric(metric: Metric) -> Panel:
    labels = [name for name in metric.labels if name != "stand_in"]
    legend = " ".join(["{{instance}}", *(f"{{{{{label}}}}}" for label in labels), "{{stand_in}}"])
    better = "" if metric.better == "none" else f" ({metric.better} is better)"
    unit = _UNITS.get(unit_of(metric.name), "none")
    return _panel(f"{metric.name}{better}", f'{metric.name}{{{_HERE},invalid=""}}', legend, unit, text=metric.help)


def _panel(
    title: str, query: str, legend: str, unit: str = "none", kind: str = "timeseries", *, width: int = 8, text: str = ""
) -> Panel:
    """A panel that has its width, and no number and place yet."""
    instant = kind in ("stat", "table")
    target: Panel = {"refId": "A", "datasource": _SOURCE, "expr": query, "legendFormat": legend}
    target |= {"instant": instant, "range": not instant} | ({"format": "table"} if kind == "table" else {})
    panel: Panel = {
        "id": 0,
        "type": kind,
        "title": title,
        "description": text,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": width, "x": 0, "y": 0},
        "fieldConfig": {"defaults": {"unit": unit, "custom": {}}, "overrides": []},
        "targets": [target],
    }
    if kind == "stat":
        mode = "name" if unit == "none" else "value_and_name"
        panel["options"] = {"textMode": mode, "reduceOptions": {"calcs": ["last"]}}
    return panel


def _laid(panels: Iterable[Panel], top: int, first: int) -> Iterator[Panel]:
    """Left to right, then down."""
    x, y = 0, top
    for number, panel in enumerate(panels, first):
        place = panel["gridPos"]
        if x + place["w"] > _COLUMNS:
            x, y = 0, y + _HEIGHT
        yield panel | {"id": number, "gridPos": place | {"x": x, "y": y}}
        x += place["w"]


def _row(title: str, top: int, panels: list[Panel], number: int) -> Panel:
    """A heading; it holds the panels that are folded up under it."""
    place = {"h": 1, "w": _COLUMNS, "x": 0, "y": top}
    return {"id": number, "type": "row", "title": title, "gridPos": place, "collapsed": bool(panels), "panels": panels}


def _variable(name: str, family: str) -> dict[str, Any]:
    return {
        "name": name, "type": "query", "datasource": _SOURCE, "query": f"label_values({family}, {name})",
        "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }  # fmt: skip


#: Name, query, how long it must hold, severity, summary, description.
_ALERTS = (
    (
        "AIReadyBenchNoGo", 'bench_verdict{decision="NO-GO"} == 1', "0m", "critical",
        "{{ $labels.instance }} is not ready for {{ $labels.profile }}",
        "A required gate failed. On the node: bench gate; bench report",
    ),
    (
        "AIReadyBenchInconclusive", 'bench_verdict{decision="INCONCLUSIVE"} == 1', "1h", "warning",
        "{{ $labels.instance }} could not be judged for {{ $labels.profile }}",
        "A required gate has no data or could not be decided. On the node: bench doctor",
    ),
    (
        "AIReadyBenchGateFailed", 'bench_gate{status="fail",required="true"} == 1', "0m", "info",
        "{{ $labels.instance }}: {{ $labels.metric }} {{ $labels.selector }} fails for {{ $labels.profile }}",
        "Its limit is {{ $labels.bound }} {{ $labels.limit }}, in the base unit of the metric's name.",
    ),
    (
        "AIReadyBenchStarved", "bench_starved == 1 and bench_attribution_valid == 1", "0m", "warning",
        "{{ $labels.instance }}: storage starves the accelerator ({{ $labels.path }})",
        "bench_demand_bytes_per_second against bench_supply_bytes_per_second shows by how much.",
    ),
    (
        "AIReadyBenchProbeBroken", 'bench_probe_outcome{outcome=~"failed|timed_out"} == 1', "0m", "warning",
        "{{ $labels.instance }}: the probe {{ $labels.probe }} {{ $labels.outcome }}",
        "It should have worked. On the node: bench explain",
    ),
    (
        "AIReadyBenchStale", f"time() - bench_last_run_timestamp_seconds > {_STALE_SECONDS}", "15m", "warning",
        "{{ $labels.instance }} was not measured for {{ $value | humanizeDuration }}",
        "The nightly run did not end. On the node: bench schedule status",
    ),
)  # fmt: skip


def rules(gated: Iterable[str], metrics: Mapping[str, Metric]) -> str:
    """Prometheus rules, YAML: alerts on the verdict, and for each gated rate or time its ratio to its own median.

    ``gated`` are the metrics that shipped profiles name. The ratio is above 1 where the metric got better.
    """
    found = (metrics[name] for name in dict.fromkeys(gated) if name in metrics)
    ratios = [m for m in found if m.better != "none" and m.unit.endswith(("second", "seconds"))]
    head = ("# Made by `bench export --format rules`; see docs/prometheus.md.", "groups:")
    alerts = ("- name: aiready-bench", "  rules:", *starmap(_alert, _ALERTS))
    records = ("- name: aiready-bench-ratios", "  interval: 5m", "  rules:", *map(_ratio, ratios))
    return "\n".join((*head, *alerts, *records)) + "\n"


def _alert(name: str, query: str, wait: str, severity: str, summary: str, description: str) -> str:
    return f"""\
  - alert: {name}
    expr: {json.dumps(query)}
    for: {wait}
    labels: {{severity: {severity}}}
    annotations:
      summary: {json.dumps(summary)}
      description: {json.dumps(description)}"""


def _ratio(metric: Metric) -> str:
    now, usual = f'{metric.name}{{invalid=""}}', f'quantile_over_time(0.5, {metric.name}{{invalid=""}}[30d])'
    above, below = (now, usual) if metric.better == "higher" else (usual, now)
    ratio = json.dumps(f"{above} / ({below} > 0)")
    return f"  - record: aiready_bench:{metric.name}:ratio_to_median_30d\n    expr: {ratio}"
