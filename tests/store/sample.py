"""Small runs for the tests of the store."""

from __future__ import annotations

from typing import Any

from bench.model import (
    Attribution,
    Decision,
    Effort,
    Finding,
    Limit,
    Measurement,
    Node,
    Outcome,
    ProbeResult,
    Request,
    Run,
    Status,
    Verdict,
)


def measured(**changes: Any) -> Run:
    """A run that is not judged yet."""
    values: dict[str, Any] = {
        "id": "3f2a9c1b77de",
        "started_at": "2026-11-22T10:51:03.250Z",
        "finished_at": "2026-11-22T10:55:00.000Z",
        "node": Node(hostname="node-17", fingerprint="abc", facts={"kernel": "6.1", "cpu": {"logical": 2}}),
        "request": Request(effort=Effort.QUICK, probes=("storage", "network")),
        "results": (
            ProbeResult(
                probe="storage",
                outcome=Outcome.OK,
                duration_seconds=12.5,
                measurements=(
                    Measurement(
                        metric="storage_read_bytes_per_second",
                        value=1.5e9,
                        interval=(1.4e9, 1.6e9),
                        samples=5,
                        labels={"pattern": "sequential", "path": "/data"},
                    ),
                ),
            ),
            ProbeResult(probe="network", outcome=Outcome.UNSUPPORTED, reason="tool_missing: iperf3 is not installed"),
        ),
    }
    return Run(**(values | changes))


def judged(run: Run) -> Run:
    """The same run with attribution and one verdict."""
    finding = Finding(
        metric="storage_read_bytes_per_second", observed=1.5e9, limit=Limit(min=1e9), status=Status.PASS, required=True
    )
    verdict = Verdict(profile="batch-inference", digest="d", decision=Decision.GO, score=100.0, findings=(finding,))
    attribution = Attribution(bottleneck="undetermined", valid=False, explanation="not measured")
    return run.model_copy(update={"attribution": attribution, "verdicts": (verdict,)})
