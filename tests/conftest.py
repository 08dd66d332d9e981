"""What every test may rely on: its own lock, its own results, no settings of this machine; and how tests share time.

The suite mostly waits, so `make test` runs several files at once, the longest first. A test marked ``alone``
waits until no other runs, and holds up the rest meanwhile.

A test marked ``slow`` drives real tools in real time, and a machine that itself stands still for a moment is a fault
that no test injected: such a test that fails is tried again, alone, and the summary names it (``R``). A fault of the
product fails each time.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from probes.common.nvml import survey

_HERE = Path(__file__).parent
#: Whatever stands on one of these makes hosts or a cluster, runs fio or the feed's load, builds.
_SLOW_FIXTURES = {"brief", "cable", "child", "hosts", "server", "slurm", "wheel"}
#: How often a slow test that failed is tried again.
_RERUNS = 2
#: Files that take longest, the longest first, as `make test ARGS=--durations=60` tells: none of them may begin last.
_LONGEST = (
    "fleet/test_run.py", "probes/network/test_faults.py", "fleet/test_ray.py", "fleet/test_slurm.py",
    "fleet/test_stage.py", "probes/network/test_truth.py", "cli/test_run_faults.py", "probes/endpoint/test_load.py",
    "probes/feed/test_failures.py", "cli/test_run.py", "probes/endpoint/test_faults.py", "fleet/test_rdma.py",
    "probes/feed/test_ways.py", "probes/collective/test_collective.py", "probes/inference/test_child.py",
    "integrations/test_slurm.py", "probes/data/test_survey.py", "probes/endpoint/test_probe.py",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("BENCH_LOCK", str(home / "lock"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    for name in ("BENCH_RESULTS", "BENCH_PROFILE", "BENCH_STORAGE", "BENCH_PEER", "BENCH_EFFORT", "BENCH_ACCELERATOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def _heard_signals() -> None:
    """Of nohup or a shell's background the suite inherits signals that are ignored, and so would all that it starts."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Only what is absent is left out, and says so: root for namespaces and mounts, a GPU for the GPU's tests."""
    if getattr(item, "execution_count", 1) > 1:
        _wait_for_turn(alone=True)
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: it makes namespaces, cgroups or mounts")
    if item.get_closest_marker("gpu") and not _driver_answers():
        pytest.skip("needs an NVIDIA GPU: no NVIDIA driver answers here")


@cache
def _driver_answers() -> bool:
    """Asked of the driver itself: in a container /proc/driver/nvidia may be absent although there is a card."""
    return survey().driver is not None


# --- which tests run together


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by what it stands on; files with long tests first, last those whose tests must be alone."""
    for item in items:
        if _SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    longest = {_HERE / name: place for place, name in enumerate(_LONGEST)}
    assert all(path.exists() for path in longest), f"tests/conftest.py: {_LONGEST}: one of them is no file any more"
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.flaky(reruns=_RERUNS))
    marked = {name: {item.path for item in items if item.get_closest_marker(name)} for name in ("alone", "slow")}
    items.sort(
        key=lambda item: (
            item.path in marked["alone"],
            longest.get(item.path, len(longest)),
            item.path not in marked["slow"],
        )
    )


_running = os.open(_HERE / "conftest.py", os.O_RDONLY)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _wait_for_turn(alone=item.get_closest_marker("alone") is not None)
    try:
        return (yield)
    finally:
        fcntl.flock(_running, fcntl.LOCK_UN)


def _wait_for_turn(*, alone: bool) -> None:
    """Until no test runs, or until none runs that must be alone."""
    fcntl.flock(_running, fcntl.LOCK_UN)
    with (_HERE / "__init__.py").open("ab") as turn:  # who waits holds it, so that no other begins meanwhile
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(_running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
