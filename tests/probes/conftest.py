"""What several tests of the storage probe stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.storage import probe as storage
from tests.probes.storage import run as storage_run


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files and short jobs, put back at the end."""
    for name in ("JOBS", "REPEATS", "job_seconds", "_READ_BYTES"):
        monkeypatch.setattr(storage, name, getattr(storage, name))
    storage_run.shorten()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory on a disk; pytest's own may be in memory."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder
