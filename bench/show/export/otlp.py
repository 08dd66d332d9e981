"""OpenTelemetry metrics as one OTLP/HTTP request in JSON: send it to a collector with curl, no library needed.

``bench export --format otlp | curl -H 'Content-Type: application/json' --data-binary @- http://COLLECTOR:4318/v1/metrics``

Names and units stay the contract's: the ``hw.*`` conventions are in development and would change under our users.
Units are UCUM codes, as the OpenTelemetry specification asks. The same figures as in the Prometheus text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bench.model import Decision, unit_of
from bench.show.export import Export
from bench.show.text import clean
from bench.show.wording import ended

_UCUM = {
    "bytes_per_second": "By/s",
    "operations_per_second": "{operation}/s",
    "tokens_per_second": "{token}/s",
    "samples_per_second": "{sample}/s",
    "flops_per_second": "{flop}/s",
    "per_second": "/s",
    "seconds": "s",
    "bytes": "By",
    "ratio": "1",
    "watts": "W",
    "joules": "J",
    "celsius": "Cel",
    "hertz": "Hz",
}


def render(export: Export) -> str:
    run = export.run
    end = ended(run)
    nanoseconds = "0" if end is None else str(round(end.timestamp() * 1e6) * 1000)
    points: dict[str, list[dict[str, Any]]] = {}
    for m in run.measurements():
        labels = m.labels if m.invalid is None else {**m.labels, "invalid": m.invalid}
        points.setdefault(m.metric, []).append(_point(nanoseconds, m.value, labels))
    for verdict in run.verdicts:
        for decision in Decision:
            labels = {"profile": verdict.profile, "decision": decision.value}
            value = float(verdict.decision is decision)
            points.setdefault("bench_verdict", []).append(_point(nanoseconds, value, labels))
    metrics = [_metric(name, found, export) for name, found in points.items()]
    scope = {"name": "aiready-bench", "version": run.bench_version or ""}
    # By OpenTelemetry's semantic conventions for a service on a host.
    about = {"service.name": "aiready-bench", "host.name": run.node.hostname, "bench.run": run.id}
    resource = {"attributes": _attributes(about)}
    document = {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": scope, "metrics": metrics}]}]}
    return json.dumps(document) + "\n"


def _metric(name: str, points: list[dict[str, Any]], export: Export) -> dict[str, Any]:
    declared = export.metrics.get(name)
    found = {"name": name, "unit": _UCUM.get(unit_of(name), "1"), "gauge": {"dataPoints": points}}
    return found | ({"description": declared.help} if declared else {})


def _point(nanoseconds: str, value: float, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"timeUnixNano": nanoseconds, "asDouble": value, "attributes": _attributes(labels)}


def _attributes(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": clean(value, 500)}} for key, value in values.items()]
