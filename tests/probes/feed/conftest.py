"""The child program on an exact software rate: the truth is known, and nothing of the machine's storage is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import forks

ROOT = Path(__file__).resolve().parents[3]
BATCH, SAMPLE, STEP = 32, 131_072, 0.05
DEMAND = BATCH / STEP
_ARMS = (
    ("transfer", 1, 0.2, 0.5, 0.5),
    ("preprocess", 1, 0.2, 0.8, 0.8),
    ("fetch", 1, 0.4, 1.2, 1.8),
    ("storage", 1, 0.4, 1.8, 3.0),
    ("fetch", 2, 0.4, 1.2, 1.8),
    ("storage", 2, 0.4, 1.8, 3.0),
)
_ROW = ("arm", "turn", "warm", "shortest", "longest")
FAST = [dict(zip(_ROW, arm, strict=True)) for arm in _ARMS]
#: Long enough to see which bytes came from where, too short for an exact rate.
SHORT = [{**row, "warm": 0.1, "shortest": 0.5, "longest": 0.5} for row in FAST[:4]]


def specification(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "folder": str(folder), "accelerator": "emulated", "sample_bytes": SAMPLE, "sample_sd_bytes": 0,
        "samples_per_file": 1, "batch": BATCH, "demand": DEMAND, "count": 1, "data_bytes": 64 << 20,
        "layout_seconds": 20.0, "schedule": FAST, "deadline_seconds": 30.0, "workers": 8, **changes,
    }  # fmt: skip


def run_child(folder: Path, **changes: Any) -> str:
    """Run the load program with changes to the specification; its standard output."""
    words = [json.dumps(specification(folder, **changes))]
    done = forks.run("probes.feed.load.main", words, env=os.environ, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., str]:
    """`run_child` in the test's own folder."""
    return partial(run_child, tmp_path)
