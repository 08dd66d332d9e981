"""What every test may rely on: its own lock, its own results, no settings of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("BENCH_LOCK", str(home / "lock"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    for name in ("BENCH_RESULTS", "BENCH_PROFILE", "BENCH_STORAGE", "BENCH_PEER", "BENCH_EFFORT", "BENCH_ACCELERATOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Only what is absent is left out, and says so: root for namespaces and mounts, a GPU for the GPU's tests."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: it makes namespaces, cgroups or mounts")
    if item.get_closest_marker("gpu") and not Path("/proc/driver/nvidia/version").exists():
        pytest.skip("needs an NVIDIA GPU: no NVIDIA driver is loaded here")
