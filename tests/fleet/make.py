"""Node documents for the tests of the joiner: a sound node, and changes to it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from bench.fleet.join.join import Judgement
from bench.judge.profile import load
from bench.model import Effort, Measurement, Node, Outcome, ProbeResult, Request, Run
from bench.workflows.catalog import declared

PROFILE = """
name = "acceptance"
[[gate]]
metric = "storage_read_bytes_per_second"
min = 1e8
source = "the test's own"
[[gate]]
metric = "network_throughput_bytes_per_second"
min = 1e5
source = "the test's own"
"""


def judgement(text: str = PROFILE) -> Judgement:
    catalog = declared()
    return Judgement([load(text, "acceptance.toml", catalog.metrics)], catalog.metrics, catalog.owners)


def figure(metric: str, value: float, spread: float = 0.01, **labels: str) -> Measurement:
    interval = (value * (1 - spread), value * (1 + spread))
    return Measurement(metric=metric, value=value, interval=interval, samples=5, labels=labels)


def run_of(host: str, read: float = 1e9, sent: float = 5e9, seed: int = 0, more: int = 0, **changes: Any) -> Run:
    """A run whose figures scatter by 1 % about ``read`` and ``sent`` (bytes per second)."""
    rng = random.Random(f"{host}-{seed}")
    extra = [figure("storage_read_latency_seconds", 1e-3 + i, statistic="p50", pattern=f"x{i}") for i in range(more)]
    results = (
        ProbeResult(
            probe="storage",
            outcome=Outcome.OK,
            measurements=(
                figure("storage_read_bytes_per_second", read * rng.gauss(1, 0.01), path="/data", pattern="sequential"),
                *extra,
            ),
        ),
        ProbeResult(
            probe="network",
            outcome=Outcome.OK,
            measurements=(
                figure("network_throughput_bytes_per_second", sent * rng.gauss(1, 0.01), peer="p", direction="send"),
            ),
        ),
    )
    facts = {
        "cpu": {"model": "Test CPU", "logical": 64},
        "memory_bytes": 2 << 38,
        "gpus": ["H200"] * 8,
        "machine_id": f"{rng.getrandbits(64):016x}",
        "boot_id": f"boot-{host}-{seed}",
    }
    values: dict[str, Any] = {
        "id": f"{rng.getrandbits(48):012x}",
        "started_at": "2026-11-22T10:51:03.250Z",
        "node": Node(hostname=host, fingerprint="f", facts=facts),
        "request": Request(effort=Effort.QUICK, probes=("storage", "network")),
        "results": results,
    }
    return Run(**(values | changes))


def lay(folder: Path, run: Run, name: str | None = None) -> Path:
    """Put the run into the folder as a launcher would."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name or run.node.hostname}.json"
    path.write_text(run.model_dump_json(by_alias=True), encoding="utf-8")
    return path
