"""The shipped profiles: they load, each limit has its source, and nothing unmeasured or stood in for gives GO."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench
from bench.judge.gate import judge
from bench.judge.profile import Gate, Profile, load
from bench.model import Decision, Measurement, Metric, Status
from tests.judge.make import measurement, result, run

FOLDER = Path(bench.__file__).parent / "profiles"
NAMES = ("batch-inference", "distributed-training", "realtime-inference")
_NETWORK = ("peer", "direction", "state", "statistic")
_STORAGE = ("path", "pattern", "block_bytes", "queue_depth", "statistic")

#: The contract's names with the labels that gates may lean on.
LABELS = {
    "starvation_ratio": ("path", "component"),
    "storage_read_bytes_per_second": _STORAGE,
    "storage_write_bytes_per_second": _STORAGE,
    "storage_read_latency_seconds": _STORAGE,
    "network_throughput_bytes_per_second": _NETWORK,
    "network_round_trip_seconds": _NETWORK,
    "network_jitter_seconds": _NETWORK,
    "network_loss_ratio": _NETWORK,
    "inference_first_token_seconds": ("stage", "statistic"),
    "inference_inter_token_seconds": ("stage", "statistic"),
    "accelerator_uncorrected_errors": ("device",),
    "accelerator_throttle_ratio": ("device",),
    "accelerator_drain_reasons": ("device",),
    "response_over_budget_ratio": ("until",),
}
METRICS = {name: Metric(name=name, help="h", labels=labels) for name, labels in LABELS.items()}


def shipped(name: str) -> Profile:
    return load((FOLDER / f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml", METRICS)


def keeping(gate: Gate, **labels: str) -> Measurement:
    """A measurement that keeps the gate's limit with room."""
    value = 2.0 * gate.min if gate.min is not None else 0.5 * (gate.max or 0.0)
    return measurement(gate.metric, value, labels={**gate.labels, **labels})


def test_exactly_these_are_shipped() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_small_sourced_and_says_what_to_do(name: str) -> None:
    profile = shipped(name)
    assert profile.name == name and profile.description
    assert 1 <= sum(gate.required for gate in profile.gates) <= 9
    for gate in profile.gates:
        assert len(gate.source) > 30 and gate.remedy.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_go_when_everything_keeps_its_limit(name: str) -> None:
    profile = shipped(name)
    verdict = judge(run(result("all", [keeping(gate) for gate in profile.gates])), profile)
    assert (verdict.decision, verdict.score) == (Decision.GO, 100.0)


@pytest.mark.parametrize("name", NAMES)
def test_each_required_gate_alone_can_prevent_go(name: str) -> None:
    profile = shipped(name)
    for gate in (gate for gate in profile.gates if gate.required):
        others = [keeping(other) for other in profile.gates if other.metric != gate.metric]
        verdict = judge(run(result("all", others)), profile)
        assert verdict.decision is Decision.INCONCLUSIVE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["cpu", "emulated", "loopback"])
def test_stand_ins_alone_never_give_go(name: str, what: str) -> None:
    profile = shipped(name)
    verdict = judge(run(result("all", [keeping(gate, stand_in=what) for gate in profile.gates])), profile)
    assert verdict.decision is Decision.INCONCLUSIVE
    for finding in verdict.findings:
        if finding.metric.startswith(("network_", "accelerator_", "inference_")):
            assert finding.status is Status.NO_DATA


@pytest.mark.parametrize("name", NAMES)
def test_without_nvml_no_go(name: str) -> None:
    profile = shipped(name)
    rest = [keeping(gate) for gate in profile.gates if not gate.metric.startswith("accelerator_")]
    assert judge(run(result("all", rest)), profile).decision is Decision.INCONCLUSIVE


def test_the_real_time_budget_is_200_ms() -> None:
    parts = ("network_round_trip_seconds", "storage_read_latency_seconds", "inference_first_token_seconds")
    gates = {gate.metric: gate for gate in shipped("realtime-inference").gates}
    assert sum(gates[part].max or 0.0 for part in parts) == pytest.approx(0.2)
    assert {gates[part].labels["statistic"] for part in parts} == {"p99"}
