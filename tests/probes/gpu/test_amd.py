"""AMD cards through a stand-in for amdsmi: the same names, the same units, and what it cannot say is absent."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from bench.measure.probe import Unsupported
from bench.measure.watchers import Observers, Watching, from_lines, to_lines
from bench.model import Code, Measurement
from probes.common import nvml
from probes.gpu import probe as gpu
from probes.gpu.sampler import GpuWatch
from tests.probes.gpu.fake_amdsmi import AmdSmiException, FakeAmdsmi


def watched(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> tuple[list[Measurement], list[str]]:
    def no_nvml() -> None:
        raise Unsupported(Code.NVML_MISSING, "none", "install it")

    monkeypatch.setattr(nvml, "load", no_nvml)
    monkeypatch.setitem(sys.modules, "amdsmi", FakeAmdsmi(**answers))
    watching = Watching(gpu.PROBE, GpuWatch())
    observers = Observers([watching])
    with observers.staged("inference"), observers.staged("inference.decode"):
        time.sleep(0.15)
    observers.stop()
    warnings: list[str] = []
    context: Any = SimpleNamespace(series=[], warn=warnings.append, request=SimpleNamespace(options={}))
    return list(gpu.parse(from_lines(to_lines(watching.samples)), context)), warnings


def one(found: list[Measurement], metric: str, **labels: str) -> Measurement:
    matching = [m for m in found if m.metric == metric and labels.items() <= m.labels.items()]
    assert len(matching) == 1, [m.labels for m in matching]
    return matching[0]


def test_the_same_metrics_in_the_same_units(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = watched(monkeypatch)
    stage = {"device": "1", "stage": "inference.decode"}
    utilization = one(found, "accelerator_utilization_ratio", **stage)
    assert (utilization.value, utilization.labels["source"]) == (0.88, "amdsmi")
    assert one(found, "accelerator_memory_used_bytes", **stage).value == 1000 * 2**20
    assert one(found, "accelerator_clock_hertz", clock="sm", statistic="min", **stage).value == 2.1e9
    assert one(found, "accelerator_temperature_celsius", place="gpu", **stage).value == 61
    assert one(found, "accelerator_energy_joules", **stage).value == 0.0
    assert one(found, "accelerator_pcie_link_ratio", device="0", aspect="width").value == 1.0
    assert one(found, "accelerator_uncorrected_errors", device="0").value == 0.0
    assert one(found, "accelerator_info", device="0").labels["name"] == "AMD Instinct MI300X"


def test_violations_are_shares_of_the_time_and_power_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = watched(monkeypatch)
    stage = {"device": "0", "stage": "inference.decode"}
    held = one(found, "accelerator_throttle_ratio", reason="sw_thermal_slowdown", **stage)
    assert 0.0 < held.value < 0.25, "a quarter of a stage that was much shorter than 5 s"
    assert one(found, "accelerator_throttle_ratio", reason="hw_thermal_slowdown", **stage).value == 0.0
    assert one(found, "accelerator_clock_limit_ratio", reason="sw_power_cap", **stage).value == pytest.approx(
        1, abs=0.6
    )
    assert not [m for m in found if m.labels.get("reason") == "memory_thermal_slowdown"]  # N/A is absent


def test_one_failing_call_costs_its_own_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = AmdSmiException("AMDSMI_STATUS_NOT_SUPPORTED - feature not supported")
    found, warnings = watched(monkeypatch, amdsmi_get_gpu_activity=broken, amdsmi_get_gpu_total_ecc_count=broken)
    names = {m.metric for m in found}
    assert "accelerator_utilization_ratio" not in names and "accelerator_uncorrected_errors" not in names
    assert "accelerator_power_watts" in names or "accelerator_energy_joules" in names
    assert any("ecc_uncorrected (AMDSMI_STATUS_NOT_SUPPORTED" in warning for warning in warnings)


@pytest.mark.parametrize("answers", [{"amdsmi_init": AmdSmiException("no ROCm")}, {"amdsmi_get_processor_handles": ()}])
def test_no_amd_card_leaves_nvmls_reason(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="nvml_missing: none"):
        watched(monkeypatch, **answers)
