"""Every fault of a card, through the true ctypes path: its figure, its finding, the verdict and the remedy.

The library is the fake one of fake_nvml.c; each case is a whole run in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.judge.gate import judge, judge_gate
from bench.judge.profile import Gate, Profile, load
from bench.model import Decision, Finding, Measurement, Outcome, ProbeResult, Run, Status
from probes.gpu import probe as gpu
from probes.gpu.health import CardHealth
from tests.probes.gpu.conftest import PYTHONPATH, Fake

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, RESET_REQUIRED, UNKNOWN = 3, 4, 6, 16, 999
GO, NO_GO, INCONCLUSIVE = Decision.GO, Decision.NO_GO, Decision.INCONCLUSIVE


def observed(fake: Fake, before: dict[str, float], during: dict[str, float] | None = None, *more: str) -> Run:
    """The run of a load during which the library's answers change."""
    fake.tell(before)
    env = {**os.environ, **fake.env(), "PYTHONPATH": PYTHONPATH}
    argv = [sys.executable, "-m", "tests.probes.gpu.session", json.dumps(during or {}), str(fake.file), *more]
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return Run.model_validate_json(done.stdout)


def watched(run: Run) -> ProbeResult:
    return next(result for result in run.results if result.probe == "gpu")


def health() -> Profile:
    text = Path(__file__).with_name("health.toml").read_text()
    return load(text, "health.toml", {metric.name: metric for metric in gpu.METRICS})


def verdict(run: Run) -> tuple[Decision, dict[str, Finding]]:
    found = judge(run, health(), {metric.name: "gpu" for metric in gpu.METRICS})
    return found.decision, {finding.metric: finding for finding in found.findings}


def value(run: Run, metric: str, **labels: str) -> Measurement:
    found = run.find(metric, **labels)
    assert len(found) == 1, [m.labels for m in found]
    return found[0]


def test_a_healthy_card_passes_every_gate(fake: Fake) -> None:
    run = observed(fake, {"energy_millijoules.per_second": 450_000})
    decision, findings = verdict(run)
    assert decision is GO, findings
    assert watched(run).warnings == ()
    assert value(run, "accelerator_power_watts", stage="inference.decode").value == pytest.approx(450, rel=0.4)
    assert value(run, "accelerator_utilization_ratio", stage="inference.decode", source="gpm").value == pytest.approx(
        0.5
    )
    assert value(run, "accelerator_utilization_ratio", stage="inference.decode", source="nvml").value == pytest.approx(
        0.97
    )
    assert value(run, "accelerator_info").labels["driver"] == "570.00.fake"
    assert value(run, "accelerator_pcie_receive_bytes_per_second", stage="load", source="gpm").value == pytest.approx(
        50 * 2**20
    )


@dataclass(frozen=True)
class Fault:
    """What the card does from the middle of the load on, and what must come of it."""

    name: str
    gate: str
    status: Status
    during: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    remedy: str = ""

    @property
    def decision(self) -> Decision:
        return NO_GO if self.status is Status.FAIL else INCONCLUSIVE


DRAIN, ECC, SLOW = "accelerator_drain_reasons", "accelerator_uncorrected_errors", "accelerator_throttle_ratio"
LINK, FOREIGN = "accelerator_pcie_link_ratio", "accelerator_foreign_processes"
SM = "accelerator_utilization_ratio"
PCIE = "accelerator_pcie_receive_bytes_per_second"
FAIL, UNDECIDED, NO_DATA = Status.FAIL, Status.UNDECIDED, Status.NO_DATA
FAULTS = [
    Fault("uncorrected error", ECC, FAIL, {"uncorrected": 1}, remedy="replaced"),
    Fault("uncorrected error on card 1 of 2", ECC, FAIL, {"1.uncorrected": 2}, {"count": 2}),
    Fault("lost card", DRAIN, FAIL, {"lost": 1}, remedy="Drain"),
    Fault("lost card 1 of 2", DRAIN, FAIL, {"1.lost": 1}, {"count": 2}),
    Fault("lost before the run", DRAIN, FAIL, {}, {"count": 2, "1.lost": 1}),
    Fault("card that must be reset", DRAIN, FAIL, {"error.nvmlDeviceGetPowerUsage": RESET_REQUIRED}),
    Fault("lost card has no error count", ECC, UNDECIDED, {"lost": 1}),
    Fault("Xid 79 (fell off the bus)", DRAIN, FAIL, {"xids": 1, "xid": 79}),
    Fault("Xid 48 (double bit error)", DRAIN, FAIL, {"xids": 1, "xid": 48}),
    Fault("Xid on card 1 of 2", DRAIN, FAIL, {"xids": 3, "xid": 94, "xid_card": 1}, {"count": 2}),
    Fault("row remap pending", DRAIN, FAIL, {"remap_pending": 1}, remedy="pending"),
    Fault("row remap pending from before", DRAIN, FAIL, {}, {"remap_pending": 1}),
    Fault("row remap failed", DRAIN, FAIL, {"remap_failed": 1}),
    Fault("recovery: reset", DRAIN, FAIL, {"field.230": 1}, remedy="recovery action"),
    Fault("recovery: drain peer to peer", DRAIN, FAIL, {"field.230": 3}),
    Fault("recovery: unknown number", DRAIN, FAIL, {"field.230": 42}),
    Fault("hardware thermal slowdown", SLOW, FAIL, {}, {"field.270.per_second": 1e9}, remedy="cooling"),
    Fault("power brake", SLOW, FAIL, {}, {"field.271.per_second": 5e8}, remedy="power"),
    Fault("software thermal slowdown", SLOW, FAIL, {}, {"field.269.per_second": 1e9}),
    Fault("link generation 2 of 5", LINK, FAIL, {"generation": 2}, {"generation": 2}, remedy="Reseat"),
    Fault("link width 8 of 16", LINK, FAIL, {}, {"width": 8}),
    Fault("link of card 1 of 2", LINK, FAIL, {}, {"count": 2, "1.generation": 1}),
    Fault("others on the card before", FOREIGN, UNDECIDED, {}, {"processes": 1}),
    Fault("others on the card after", FOREIGN, UNDECIDED, {"processes": 2}),
    Fault("no ECC counters", ECC, NO_DATA, {}, {"error.nvmlDeviceGetTotalEccErrors": NOT_SUPPORTED}),
    Fault("ECC counters forbidden", ECC, NO_DATA, {}, {"error.nvmlDeviceGetTotalEccErrors": NO_PERMISSION}),
    Fault("ECC counters reset", ECC, UNDECIDED, {"uncorrected": 0}, {"uncorrected": 7}),
    Fault("link not readable", LINK, NO_DATA, {}, {
        "error.nvmlDeviceGetCurrPcieLinkGeneration": UNKNOWN, "error.nvmlDeviceGetCurrPcieLinkWidth": UNKNOWN}),
    Fault("process list not readable", FOREIGN, NO_DATA, {}, {
        "error.nvmlDeviceGetComputeRunningProcesses_v3": NO_PERMISSION}),
    Fault("no counters, slowdown bit always there", SLOW, FAIL, {}, {
        "error.nvmlDeviceGetFieldValues": NOT_SUPPORTED, "reasons": 0x8}),
    Fault("no counters, no bit, too few samples", SLOW, UNDECIDED, {}, {
        "error.nvmlDeviceGetFieldValues": NOT_SUPPORTED}),
    Fault("neither counters nor bits", SLOW, NO_DATA, {}, {
        "error.nvmlDeviceGetFieldValues": NOT_SUPPORTED, "error.nvmlDeviceGetCurrentClocksEventReasons": UNKNOWN}),
    Fault("counters are NaN", SLOW, UNDECIDED, {}, {"field_nan": 1}),
]  # fmt: skip


HARMLESS: list[tuple[str, dict[str, float], dict[str, float]]] = [
    ("power limit reached", {}, {"field.74.per_second": 9e8, "reasons": 0x4}),
    ("clocks set by somebody", {}, {"reasons": 0x2}),
    ("a reason without a name", {}, {"reasons": 0x8000}),
    ("Xid of a program", {"xids": 1, "xid": 13}, {}),
    ("corrected errors", {"corrected": 5}, {}),
    ("uncorrected errors of long ago", {"uncorrected": 4}, {"uncorrected": 4}),
    ("no GPM", {}, {"gpm": 0}),
    ("GPM forbidden", {}, {"error.nvmlGpmSampleGet": NO_PERMISSION}),
    ("GPM is NaN", {}, {"gpm_nan": 1}),
    ("one GPM metric fails", {}, {"error.gpm.5": NOT_SUPPORTED}),
    ("no energy counter", {}, {"error.nvmlDeviceGetTotalEnergyConsumption": NOT_SUPPORTED}),
    ("no utilization buffer", {}, {"error.nvmlDeviceGetSamples": NOT_SUPPORTED}),
    ("one field unknown", {}, {"error.field.230": 2}),
    ("no power, no clocks, no temperature", {}, {
        "error.nvmlDeviceGetPowerUsage": UNKNOWN, "error.nvmlDeviceGetClockInfo": UNKNOWN,
        "error.nvmlDeviceGetTemperatureV": UNKNOWN}),
    ("no events", {}, {"error.nvmlDeviceRegisterEvents": NOT_SUPPORTED}),
    ("NVML cannot be ended, which lost the whole run", {}, {"error.nvmlShutdown": UNKNOWN}),
    ("a card that is slow to be touched, which had no data", {}, {"hang.nvmlDeviceGetHandleByIndex_v2": 3.2}),
    ("name not readable", {}, {"error.nvmlDeviceGetName": UNKNOWN}),
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(new_driver: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The runs of all faults and of all that is none, by name; three at a time, because they mostly wait."""
    asked = [(fault.name, fault.before, fault.during) for fault in FAULTS]
    asked += [(name, before, during) for name, during, before in HARMLESS]
    folder = tmp_path_factory.mktemp("answers")

    def made(number: int) -> Run:
        _, before, during = asked[number]
        return observed(Fake(new_driver, folder / f"{number}.txt"), before, during)

    with ThreadPoolExecutor(3) as pool:
        return dict(zip((name for name, *_ in asked), pool.map(made, range(len(asked))), strict=True))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_has_its_finding_status_and_remedy(runs: dict[str, Run], fault: Fault) -> None:
    run = runs[fault.name]
    assert watched(run).outcome is Outcome.OK
    decision, findings = verdict(run)
    finding = findings[fault.gate]
    assert finding.status is fault.status, finding
    lost = any(m.value for m in run.find("accelerator_lost_devices"))
    assert decision is (NO_GO if lost else fault.decision)
    if fault.status is Status.NO_DATA:  # no number: the reason names the metric, the warning the reading
        assert finding.reason and fault.gate in finding.reason
        assert any("not readable" in warning for warning in watched(run).warnings)
    else:
        assert finding.remedy and fault.remedy in finding.remedy
        assert finding.status is Status.FAIL or finding.reason


@pytest.mark.parametrize("name", [name for name, *_ in HARMLESS])
def test_what_is_no_fault_costs_its_own_figure_and_nothing_else(runs: dict[str, Run], name: str) -> None:
    decision, findings = verdict(runs[name])
    assert decision is GO, findings


def test_cards_of_others_are_neither_watched_nor_judged(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two cards one was given to this process; the other one's faults, and its users, were held against it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    run = observed(fake, {"count": 2, "0.remap_failed": 1, "0.processes": 2}, {"0.uncorrected": 3})
    decision, findings = verdict(run)
    assert decision is GO, findings
    assert {m.labels["device"] for m in watched(run).measurements if "device" in m.labels} == {"1"}


def test_what_a_kind_of_card_lacks_is_no_warning(fake: Fake) -> None:
    """A healthy H200 in a virtual machine always warned "not readable": no NVLink, and nothing new in a buffer."""
    run = observed(fake, {"error.field.215": NOT_SUPPORTED, "error.nvmlDeviceGetSamples": NOT_FOUND})
    assert watched(run).warnings == ()
    (polled,) = run.find("accelerator_utilization_ratio", stage="inference.decode", source="nvml")
    assert polled.labels["method"] == "polled"


def test_bytes_over_pcie_are_the_activity_counters_where_the_card_has_them(fake: Fake) -> None:
    """The 32-bit count of the card stood beside them, wrapped: a 24th of the bytes on a real H200."""
    grows = {"field.197.per_second": 1e8, "field.198.per_second": 1e8}
    sources = {
        gpm: {m.labels["source"] for m in observed(fake, {**grows, "gpm": gpm}).find(PCIE, stage="inference.decode")}
        for gpm in (0, 1)
    }
    assert sources == {0: {"nvml"}, 1: {"gpm"}}


def test_a_forbidden_reading_is_named_and_absent_rather_than_zero(fake: Fake) -> None:
    run = observed(fake, {"error.nvmlGpmSampleGet": NO_PERMISSION, "error.nvmlDeviceGetPowerUsage": NOT_SUPPORTED})
    assert not run.find("accelerator_tensor_utilization_ratio")
    (warning,) = watched(run).warnings
    assert "gpm_sample (NoPermission)" in warning and "power (NotSupported)" in warning


def test_reasons_are_told_by_name_and_unknown_bits_by_number(fake: Fake) -> None:
    run = observed(fake, {"reasons": 0x4 | 0x8000, "field.74.per_second": 5e8})
    limits = run.find("accelerator_clock_limit_ratio", stage="inference.decode")
    by_reason = {m.labels["reason"]: m for m in limits}
    assert by_reason["sw_power_cap"].value == pytest.approx(0.5, abs=0.3)
    assert by_reason["sw_power_cap"].labels["method"] == "counter"
    assert by_reason["unknown_0x8000"].value == 1.0
    assert not [m for m in run.find("accelerator_throttle_ratio") if m.value]


def test_modes_that_a_person_should_know_are_told(fake: Fake) -> None:
    run = observed(fake, {"persistence": 0, "mig": 1, "ecc": 0, "ecc_pending": 1})
    text = "\n".join(watched(run).warnings)
    assert all(words in text for words in ("persistence mode is off", "MIG is on", "ECC is off", "waits for a reset"))
    assert value(run, "accelerator_info").labels["mig"] == "on"


def test_an_nvlink_that_is_down_is_counted(fake: Fake) -> None:
    run = observed(fake, {"nvlinks": 18, "nvlinks_down": 2}, {"nvlink_errors": 5})
    assert value(run, "accelerator_nvlink_inactive_links").value == 2.0
    assert value(run, "accelerator_nvlink_errors").value == 16 * 3 * 5  # links that are up, kinds, errors


@pytest.mark.parametrize(
    ("before", "inactive"),
    [
        ({"nvlinks": 0}, {}),
        ({"nvlinks": 12, "nvlinks_down": 12}, {}),  # A100 PCIe without a bridge was told to have 12 dead links
        ({"nvlinks": 18, "1.nvlinks_down": 18}, {"0": 0.0, "1": 18.0}),  # one that has lost all of its own is named
    ],
)
def test_cards_without_nvlink_are_not_accused_of_it(
    fake: Fake, before: dict[str, float], inactive: dict[str, float]
) -> None:
    run = observed(fake, {"count": 2, **before})
    assert {m.labels["device"]: m.value for m in run.find("accelerator_nvlink_inactive_links")} == inactive
    assert not any("nvlink" in text.lower() for text in watched(run).warnings)
    assert verdict(run)[0] is GO


SAG = "accelerator_clock_sustained_ratio"


@pytest.mark.parametrize(
    ("before", "during", "share"),
    [
        ({}, {"1.sm_clock": 1190, "1.temperature": 88, "1.reasons": 0x20}, 0.7),
        ({}, {"sm_clock": 1650}, None),
        ({"1.utilization": 0}, {"1.sm_clock": 345}, None),  # it only stands by while another is at work
    ],
)
def test_a_card_that_sags_through_the_soak_is_named(
    fake: Fake, before: dict[str, float], during: dict[str, float], share: float | None
) -> None:
    run = observed(fake, {"count": 2, **before}, during, "15", "6")
    kept = {m.labels["device"]: m.value for m in run.find(SAG)}
    gate = Gate(metric=SAG, min=0.9, source="as the shipped profiles", remedy="look at its cooling")
    finding, _ = judge_gate(run, gate, {SAG: "gpu"})
    told = [text for text in watched(run).warnings if "its clock fell" in text]
    if share is None:
        assert finding.status is Status.PASS and not told
        assert set(kept) == ({"0"} if before else {"0", "1"})
        return
    assert kept == {"0": 1.0, "1": pytest.approx(share)}
    assert finding.status is Status.FAIL and "device=1" in (finding.reason or "")
    assert told == ["GPU 1: its clock fell from 1700 MHz (55 C) to 1190 MHz (88 C) under one load; "
                    "held down by sw_thermal_slowdown"]  # fmt: skip


def test_the_drain_reason_is_named(fake: Fake) -> None:
    run = observed(fake, {}, {"remap_pending": 1, "field.230": 1})
    reasons = value(run, "accelerator_drain_reasons")
    assert (reasons.value, reasons.labels["reasons"]) == (2.0, "pending_row_remap,recovery_action")
    assert value(run, "accelerator_recovery_actions").labels["action"] == "gpu_reset"


def test_a_driver_that_hangs_does_not_hang_the_run(fake: Fake) -> None:
    run = observed(fake, {}, {"hang": 20}, "1.0")
    assert watched(run).outcome is Outcome.OK
    decision, findings = verdict(run)
    assert decision is NO_GO and findings[DRAIN].observed == 1.0


@pytest.mark.parametrize(
    ("before", "during"),
    [
        ({"3.hang": 600}, {}),
        ({}, {"3.hang": 600}),
        ({}, {"3.hang.nvmlDeviceGetPowerUsage": 600}),
        ({}, {"3.hang.nvmlGpmSampleGet": 600}),
    ],
    ids=["at once", "in the middle", "in one query", "in its counters"],
)
def test_one_card_of_eight_that_hangs_costs_its_own_figures(
    fake: Fake, before: dict[str, float], during: dict[str, float]
) -> None:
    """All eight were lost with it, and one that hung at the start had no card measured."""
    run = observed(fake, {"count": 8, **before}, during, "1.0")
    assert watched(run).outcome is Outcome.OK
    lost = {m.labels["device"]: m.value for m in run.find("accelerator_lost_devices")}
    assert lost == {str(index): float(index == 3) for index in range(8)}
    drained = {m.labels["device"]: m.labels["reasons"] for m in run.find("accelerator_drain_reasons")}
    assert drained == {str(index): "lost" if index == 3 else "none" for index in range(8)}
    for index in set(range(8)) - {3}:
        assert value(run, "accelerator_memory_used_bytes", stage="inference.decode", device=str(index)).value == 1e9
        assert value(run, SM, stage="inference.decode", source="gpm", device=str(index)).value == 0.5
    assert not run.find(SM, stage="inference.decode", source="gpm", device="3")
    assert {warning.partition(":")[0] for warning in watched(run).warnings} == {"GPU 3"}
    assert any("still does not: " in warning for warning in watched(run).warnings)
    assert verdict(run)[0] is NO_GO


def test_an_old_driver_says_less_and_nothing_wrong(fake_old: Fake) -> None:
    run = observed(fake_old, {"reasons": 0x40})
    assert watched(run).outcome is Outcome.OK
    (polled,) = run.find("accelerator_utilization_ratio", stage="inference.decode")
    assert polled.labels["method"] == "polled"
    _, findings = verdict(run)
    assert findings[SLOW].status is FAIL  # the older name of the call answers
    (warning,) = watched(run).warnings
    assert "gpm (FunctionNotFound)" in warning and "remapped (FunctionNotFound)" in warning


def test_a_run_without_a_stage_sees_what_forbids_work(fake: Fake) -> None:
    """`bench run --probe gpu` found a card sound that a row remap or the driver's word keeps from work."""
    fake.tell({"remap_pending": 1, "field.230": 2})
    program = "import json; from probes.gpu.sampler import GpuWatch; print(json.dumps(GpuWatch().sample('tick')))"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **fake.env(), "PYTHONPATH": PYTHONPATH}, cwd=ROOT,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    own = CardHealth([{**(sample := json.loads(done.stdout)), **sample["cards"]["0"]}], "0")
    (drain,) = [m for m in own.figures([], {}) if m.metric == "accelerator_drain_reasons"]
    assert drain.labels["reasons"] == "pending_row_remap,recovery_action"


# --- no card, no driver, a driver that does not start


@pytest.mark.parametrize(
    ("answers", "outcome", "word", "remedy"),
    [
        ({"error.nvmlInitWithFlags": 9}, Outcome.UNSUPPORTED, "nvml_missing: ", "modprobe nvidia"),
        ({"error.nvmlInitWithFlags": 18}, Outcome.FAILED, "nvml_broken: ", "reboot"),
        ({"error.nvmlInitWithFlags": 999}, Outcome.FAILED, "nvml_broken: ", "nvidia-smi"),
        ({"error.nvmlDeviceGetCount_v2": 999}, Outcome.FAILED, "nvml_broken: ", "nvidia-smi"),
        ({"count": 0}, Outcome.UNSUPPORTED, "no_gpu: ", "lspci"),
    ],
)
def test_a_driver_that_does_not_start_says_why(
    fake: Fake, answers: dict[str, float], outcome: Outcome, word: str, remedy: str
) -> None:
    result = watched(observed(fake, answers))
    assert result.outcome is outcome
    assert result.reason is not None and result.reason.startswith(word)
    assert result.remedy is not None and remedy in result.remedy


def test_no_library_is_unsupported_and_neither_an_error_nor_health(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "nothing" / "libnvidia-ml.so.1", tmp_path / "answers.txt")
    result = watched(observed(fake, {}))
    if result.outcome is Outcome.OK:
        pytest.skip("this machine has an NVIDIA driver")
    assert result.outcome is Outcome.UNSUPPORTED
    assert result.reason is not None and result.reason.startswith("nvml_missing: ")
    assert result.measurements == ()


def declared(m: Measurement) -> set[str]:
    return {*next(metric for metric in gpu.METRICS if metric.name == m.metric).labels}


def test_every_figure_is_declared_with_its_labels(fake: Fake) -> None:
    run = observed(fake, {"count": 2, "nvlinks": 4, "energy_millijoules.per_second": 1000})
    measured: list[Any] = list(watched(run).measurements)
    assert len(measured) > 60
    for m in measured:
        assert set(m.labels) <= declared(m), m
