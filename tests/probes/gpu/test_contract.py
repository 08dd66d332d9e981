"""What must hold of the watcher on every card: on the fake library here, on a real one with ``make test-gpu``."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.model import Measurement, Outcome, Run
from probes.common.nvml import survey
from probes.common.pipe import refusal
from probes.gpu import probe as gpu
from probes.inference.events import read
from probes.inference.parse import parse
from tests.probes.gpu.conftest import PYTHONPATH, Fake

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
real = pytest.mark.gpu


def no_card() -> str | None:
    """Why there is no card to test with, or None."""
    return None if survey().driver else "no NVIDIA driver answers on this machine"


def no_cuda() -> str | None:
    """Why torch cannot use the card, or None."""
    if no_card() or importlib.util.find_spec("torch") is None:
        return no_card() or "torch is not installed"
    code = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    return None if done.returncode == 0 else "this torch cannot use the card"


@pytest.fixture(params=["fake", pytest.param("real", marks=real)])
def card(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, str]]:
    """(the file that the session may change, the environment in which it finds its library)."""
    if request.param == "real":
        if (why := no_card()) is not None:
            pytest.skip(why)
        return "-", {}
    fake: Fake = request.getfixturevalue("fake")
    fake.tell({"energy_millijoules.per_second": 300_000})
    return str(fake.file), fake.env()


@pytest.fixture
def run(card: tuple[str, Mapping[str, str]]) -> Run:
    file, env = card
    argv = [sys.executable, "-m", "tests.probes.gpu.session", "{}", file]
    full = {**os.environ, **env, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(argv, env=full, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return Run.model_validate_json(done.stdout)


def test_a_card_is_described_and_measured_in_every_stage(run: Run) -> None:
    (result,) = (r for r in run.results if r.probe == "gpu")
    assert result.outcome is Outcome.OK, result.reason
    assert run.find("accelerator_info")
    for stage in ("load", "inference.prefill", "inference.decode"):
        assert run.find("accelerator_memory_used_bytes", stage=stage), stage
        assert run.find("accelerator_clock_hertz", stage=stage)
        assert run.find("accelerator_power_watts", stage=stage)


def test_every_figure_is_possible_and_declared(run: Run) -> None:
    declared = {metric.name: metric for metric in gpu.METRICS}
    for m in run.measurements():
        if m.metric == "load_steps":
            continue
        assert set(m.labels) <= set(declared[m.metric].labels), m
        assert m.value >= 0
        if m.metric.endswith("_ratio"):
            assert m.value <= 1, m
    for m in run.find("accelerator_temperature_celsius"):
        assert 1 < m.value < 150
    for m in run.find("accelerator_clock_hertz"):
        assert 1e7 < m.value < 1e10
    for m in run.find("accelerator_power_watts"):
        assert m.value < 3000


def test_health_is_read_or_said_to_be_unreadable(run: Run) -> None:
    (result,) = (r for r in run.results if r.probe == "gpu")
    said = " ".join(result.warnings)
    for metric, reading in (
        ("accelerator_uncorrected_errors", "ecc_uncorrected"),
        ("accelerator_pcie_replays", "replays"),
    ):
        assert run.find(metric) or reading in said
    assert all(m.value == 0 for m in run.find("accelerator_lost_devices"))


def test_reading_everything_is_cheap(run: Run) -> None:
    """A sample once a second must not take a hundredth of it; a noisy machine's worst is no measure."""
    (cost,) = run.find("accelerator_telemetry_seconds", statistic="p50")
    assert cost.value < 0.25


def test_a_card_without_its_folder_in_proc_is_still_tested(fake: Fake) -> None:
    """Every test that needs a GPU was skipped there, and the suite was green without one."""
    words = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", __file__, "-k", "is_described and real"]
    environment = {**os.environ, **fake.env(), "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-2000:]


# --- the load on a real card


@pytest.fixture(scope="module")
def figures() -> list[Measurement]:
    if (why := no_cuda()) is not None:
        pytest.skip(why)
    argv = [
        sys.executable,
        "-m",
        "probes.inference.load.main",
        "--accelerator",
        "cuda",
        "--seconds",
        "40",
        "--rounds",
        "3",
    ]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    found = read(done.stdout)
    error = refusal(found, done.returncode, done.stderr, "the inference load")
    assert error is None, error
    print(found[0])
    return parse(found)


def best(figures: list[Measurement], metric: str, **labels: str) -> float:
    values = [m.value for m in figures if m.metric == metric and labels.items() <= m.labels.items()]
    assert values, metric
    return max(values)


@real
@pytest.mark.timeout(400)
def test_decode_reaches_three_quarters_of_the_copy_bandwidth(figures: list[Measurement]) -> None:
    assert best(figures, "inference_bandwidth_utilization_ratio", batch="1") >= 0.75


@real
@pytest.mark.timeout(400)
def test_prefill_reaches_six_tenths_of_the_matrix_ceiling(figures: list[Measurement]) -> None:
    assert best(figures, "inference_flops_utilization_ratio") >= 0.6


@real
@pytest.mark.timeout(400)
def test_a_real_card_stands_in_for_nothing_and_is_within_its_data_sheet(figures: list[Measurement]) -> None:
    assert not any("stand_in" in m.labels for m in figures)
    for m in figures:
        if m.metric == "accelerator_datasheet_ratio":
            assert 0.3 < m.value < 1.05, m
