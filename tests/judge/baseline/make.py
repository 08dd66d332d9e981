"""Stores of synthetic runs by the contract: many nights of known truth."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2025, 1, 1, 2, 0, tzinfo=UTC)  # 400 nights end before today
READ = "storage_read_bytes_per_second"
LATENCY = "storage_read_latency_seconds"
SEQUENTIAL = {"path": "/data", "pattern": "sequential", "block_bytes": "1048576"}
P99 = {"path": "/data", "pattern": "random", "statistic": "p99"}

PROFILE = """
name = "nightly"
description = "a test"
[[gate]]
metric = "storage_read_bytes_per_second"
labels = { pattern = "sequential" }
min = 1.0e8
source = "a test"
[[gate]]
metric = "storage_read_latency_seconds"
labels = { statistic = "p99" }
max = 1.0
source = "a test"
"""

Values = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def measurement(metric: str, value: float, labels: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A measurement with only the contract's fields."""
    wide = abs(value) * 0.01
    return {
        "metric": metric,
        "value": value,
        "interval": [value - wide, value + wide],
        "samples": 5,
        "labels": dict(labels),
        **more,
    }


def document(
    number: int,
    measurements: Sequence[dict[str, Any]],
    *,
    host: str = "node01",
    fingerprint: str = "f00d",
    at: datetime | None = None,
    verdicts: Iterable[dict[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """Night ``number``'s run document, by the contract."""
    started = at or START + timedelta(days=number)
    return {
        "schema": "aiready-bench/run",
        "schema_version": 1,
        "id": f"{host}-{number:05d}",
        "started_at": started.isoformat().replace("+00:00", "Z"),
        "finished_at": (started + timedelta(minutes=5)).isoformat().replace("+00:00", "Z"),
        "node": {"hostname": host, "fingerprint": fingerprint, "facts": {}},
        "request": {
            "effort": "standard",
            "probes": ["storage"],
            "storage": ["/data"],
            "peers": [],
            "accelerator": "auto",
        },
        "results": [
            {
                "probe": "storage",
                "outcome": "ok",
                "reason": None,
                "duration_seconds": 60.0,
                "evidence": [],
                "measurements": list(measurements),
            }
        ],
        "attribution": None,
        "verdicts": list(verdicts),
        **more,
    }


def store(root: Path, found: dict[str, Any]) -> Path:
    """Write the document where the contract says."""
    stamp = datetime.fromisoformat(found["started_at"]).strftime("%Y%m%dT%H%M%SZ")
    folder = root / "runs" / str(found["node"]["hostname"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stamp}-{found['id']}.json"
    path.write_text(json.dumps(found))
    return path


class Nights:
    """A node that measures about the same every night: log-normal with this standard deviation."""

    def __init__(self, root: Path, *, spread: float = 0.02, seed: int = 1, **kept: Any) -> None:
        self.root = root
        self.spread = spread
        self.kept = kept
        self.number = 0
        self._random = random.Random(seed)

    def add(self, *, read: float = 1.0, latency: float = 1.0, **more: Any) -> dict[str, Any]:
        """One more night; ``read`` and ``latency`` are factors on what is normal. Returns the document."""
        found = document(
            self.number,
            [
                measurement(READ, 1e9 * read * math.exp(self._random.gauss(0, self.spread)), SEQUENTIAL),
                measurement(LATENCY, 1e-3 * latency * math.exp(self._random.gauss(0, self.spread)), P99),
            ],
            **{**self.kept, **more},
        )
        self.number += 1
        store(self.root, found)
        return found

    def add_many(self, nights: int, **more: Any) -> None:
        for _ in range(nights):
            self.add(**more)
