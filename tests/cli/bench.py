"""Runs the real command as a user would, in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import forks


def bench(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    words, whole = [str(word) for word in arguments], {"BENCH_QUIET_CHECK": "0", **os.environ, **(env or {})}
    if any(name.startswith(("LD_", "PYTHON", "LC_", "LANG")) for name in env or ()):  # they count where one starts
        argv = [sys.executable, "-m", "bench", *words]
        return subprocess.run(argv, cwd=cwd, env=whole, capture_output=True, text=True, timeout=timeout, check=False)
    return forks.run("bench", words, cwd=cwd, env=whole, timeout=timeout)


def measurement(metric: str, value: float, low: float, high: float, **labels: str) -> dict[str, Any]:
    """By the contract's letter: nothing that it does not name."""
    return {"metric": metric, "value": value, "interval": [low, high], "samples": 5, "labels": labels}


def document(measurements: Sequence[Mapping[str, Any]], run_id: str = "abc123", **changes: Any) -> dict[str, Any]:
    """A run document with only what the contract names."""
    result = {
        "probe": "storage",
        "outcome": "ok",
        "reason": None,
        "duration_seconds": 1.0,
        "evidence": [],
        "measurements": list(measurements),
    }
    return {
        "schema": "aiready-bench/run",
        "schema_version": 1,
        "id": run_id,
        "started_at": "2026-11-22T10:00:00Z",
        "finished_at": "2026-11-22T10:01:00Z",
        "node": {"hostname": socket.gethostname(), "fingerprint": "f00d", "facts": {}},
        "request": {"effort": "quick", "probes": ["storage"], "storage": ["/"], "peers": [], "accelerator": "auto"},
        "results": [result],
        "attribution": None,
        "verdicts": [],
        **changes,
    }


def stored(results: Path, run: Mapping[str, Any], stem: str = "20261122T100000Z-abc123") -> Path:
    folder = results / "runs" / str(run["node"]["hostname"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.json"
    path.write_text(json.dumps(run))
    return path
