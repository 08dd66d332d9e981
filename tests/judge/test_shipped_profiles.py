"""The shipped profiles: they load, each limit has its source, and nothing unmeasured or stood in for gives GO."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench
from bench.judge.gate import judge
from bench.judge.profile import Gate, Profile, load
from bench.model import Decision, Measurement, Run, Status
from bench.workflows.catalog import declared
from tests.judge.make import measurement, result, run

FOLDER = Path(bench.__file__).parent / "profiles"
NAMES = ("batch-inference", "distributed-training", "realtime-inference")
METRICS = declared().metrics


def shipped(name: str) -> Profile:
    return load((FOLDER / f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml", METRICS)


def keeping(gate: Gate, **labels: str) -> Measurement:
    """A measurement that keeps the gate's limit with room."""
    value = 2.0 * gate.min if gate.min is not None else 0.5 * (gate.max or 0.0)
    return measurement(gate.metric, value, labels={**gate.labels, **labels})


def measured(profile: Profile, ports: int = 0, **labels: str) -> Run:
    """A node with one card and so many RDMA ports, on which every gate that asks it is kept."""
    when = "rdma" if ports else "no_rdma"
    found = [keeping(gate, **labels) for gate in profile.gates if gate.when in (None, "no_endpoint", when)]
    return node(*found, measurement("fabric_rdma_ports", float(ports)))


def node(*found: Measurement, cards: int = 1, accelerator: str = "auto") -> Run:
    one = run(result("all", found))
    facts = one.node.model_copy(update={"facts": {"gpus": ["NVIDIA H100"] * cards}})
    return one.model_copy(
        update={"node": facts, "request": one.request.model_copy(update={"accelerator": accelerator})}
    )


def test_exactly_these_are_shipped() -> None:
    found = {path.stem: shipped(path.stem).needs for path in FOLDER.glob("*.toml")}
    assert {name for name, needs in found.items() if needs is None} == set(NAMES)
    assert found["governance"] == "checks"


@pytest.mark.parametrize("name", ["governance"])
def test_a_profile_of_an_input_is_sourced_and_each_of_its_gates_can_prevent_go(name: str) -> None:
    profile = shipped(name)
    assert all(len(gate.source) > 30 and gate.remedy.endswith(".") for gate in profile.gates)
    whole = node(*[measurement(gate.metric, 0.0) for gate in profile.gates])
    assert judge(whole, profile).decision is Decision.GO
    for gate in profile.gates:
        others = [m for m in whole.measurements() if m.metric != gate.metric]
        assert judge(node(*others), profile).decision is Decision.INCONCLUSIVE
        assert judge(node(*others, measurement(gate.metric, 1.0)), profile).decision is Decision.NO_GO


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_small_sourced_and_says_what_to_do(name: str) -> None:
    profile = shipped(name)
    assert profile.name == name and profile.description
    assert 1 <= sum(gate.required for gate in profile.gates) <= 13
    for gate in profile.gates:
        assert len(gate.source) > 30 and gate.remedy.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_what_sessions_differ_in_is_known_of_every_rate_and_time(name: str) -> None:
    """Only counts, and shares of counts with exact bounds, are facts of their session."""
    exact = {"network_loss_ratio", "accelerator_throttle_ratio", "response_over_budget_ratio"}
    exact |= {"collective_fast_transport_ratio", "endpoint_success_ratio"}
    for gate in shipped(name).gates:
        metric = METRICS[gate.metric]
        assert (metric.session_spread is None) is (metric.unit == "" or metric.name in exact), metric.name


@pytest.mark.parametrize("ports", [0, 8])
@pytest.mark.parametrize("name", NAMES)
def test_go_when_everything_keeps_its_limit(name: str, ports: int) -> None:
    verdict = judge(measured(shipped(name), ports), shipped(name))
    assert (verdict.decision, verdict.score, verdict.weakest_measured_score) == (Decision.GO, 100.0, 100.0)
    assert verdict.measured == verdict.required == sum(finding.required for finding in verdict.findings)


@pytest.mark.parametrize("ports", [0, 8])
@pytest.mark.parametrize("name", NAMES)
def test_each_required_gate_alone_can_prevent_go(name: str, ports: int) -> None:
    profile, whole = shipped(name), measured(shipped(name), ports)
    asked = {finding.metric for finding in judge(whole, profile).findings if finding.required}
    for metric in asked:
        others = [m for m in whole.measurements() if m.metric != metric]
        assert judge(node(*others), profile).decision is Decision.INCONCLUSIVE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["cpu", "emulated", "loopback"])
def test_stand_ins_alone_never_give_go(name: str, what: str) -> None:
    profile = shipped(name)
    verdict = judge(measured(profile, stand_in=what), profile)
    assert verdict.decision is Decision.INCONCLUSIVE
    for finding in verdict.findings:
        if finding.metric.startswith(("network_", "accelerator_", "inference_")):
            assert finding.status is Status.NO_DATA


@pytest.mark.parametrize("name", NAMES)
def test_without_nvml_no_go(name: str) -> None:
    profile = shipped(name)
    rest = [m for m in measured(profile).measurements() if not m.metric.startswith("accelerator_")]
    assert judge(node(*rest), profile).decision is Decision.INCONCLUSIVE


def beside_a_server(name: str, *more: Measurement) -> Run:
    """A node whose cards are a server's: what the feed and our own load would say is not there, all else is kept."""
    absent = {"starvation_ratio", "storage_headroom_ratio"}
    asked = [gate for gate in shipped(name).gates if gate.when in (None, "endpoint") and gate.metric not in absent]
    found = [keeping(gate) for gate in asked if gate.metric != "accelerator_mismatched_values"]
    one = node(*found, *more)
    return one.model_copy(update={"request": one.request.model_copy(update={"options": {"endpoint": "http://s"}})})


def test_a_server_can_be_go_in_real_time() -> None:
    profile = shipped("realtime-inference")
    assert judge(beside_a_server(profile.name), profile).decision is Decision.GO
    wrong = measurement("accelerator_mismatched_values", 3.0)
    assert judge(beside_a_server(profile.name, wrong), profile).decision is Decision.NO_GO, "asked for by --probe"


def test_whether_the_cards_wait_for_data_is_not_seen_beside_a_server() -> None:
    """Two nodes, one with storage that starves its cards: the same figures beside a server, so neither has a verdict.
    What the feed found without it tells them apart.
    """
    profile = shipped("batch-inference")
    assert judge(beside_a_server(profile.name), profile).decision is Decision.INCONCLUSIVE
    decided = []
    for starved in (0.02, 0.6):
        parts = [measurement("starvation_ratio", starved, labels={"component": part}) for part in ("total", "storage")]
        fed = [*parts, measurement("storage_headroom_ratio", 1.0 / starved)]
        decided.append(judge(beside_a_server(profile.name, *fed), profile).decision)
    assert decided == [Decision.GO, Decision.NO_GO]


def test_the_real_time_budget_is_200_ms() -> None:
    parts = ("network_round_trip_seconds", "storage_read_latency_seconds", "inference_first_token_seconds")
    gates = {gate.metric: gate for gate in shipped("realtime-inference").gates}
    assert sum(gates[part].max or 0.0 for part in parts) == pytest.approx(0.2)
    assert {gates[part].labels["statistic"] for part in parts} == {"p99"}


# --- nodes whose answer was wrong


def decision(name: str, one: Run, **instead: Measurement | None) -> tuple[Decision, dict[str, Status]]:
    """What the profile says when these figures take the place of those that keep their limits (None: of none)."""
    kept = [m for m in one.measurements() if m.metric not in instead]
    found = [*kept, *(m for m in instead.values() if m is not None)]
    changed = one.model_copy(update={"results": (result("all", found),)})
    verdict = judge(changed, shipped(name))
    return verdict.decision, {finding.metric: finding.status for finding in verdict.findings if finding.required}


def headroom(path_bytes: float, one_asks_bytes: float, **labels: str) -> Measurement:
    return measurement("storage_headroom_ratio", path_bytes / one_asks_bytes, labels={"path": "/data", **labels})


@pytest.mark.parametrize("name", ["batch-inference", "distributed-training"])
def test_eight_cards_are_asked_for_the_appetite_of_eight(name: str) -> None:
    """Storage of 3.5 GB/s was GO for eight H100 on unet3d, which take 25.4 GB/s: one card alone was asked."""
    one = measured(shipped(name))
    eight = node(*one.measurements(), cards=8)
    assert decision(name, one, storage_headroom_ratio=headroom(3.5e9, 0.2e9))[0] is Decision.GO
    said, statuses = decision(name, eight, storage_headroom_ratio=headroom(3.5e9, 25.4e9 / 8))
    assert (said, statuses["storage_headroom_ratio"]) == (Decision.NO_GO, Status.FAIL)
    assert decision(name, eight, storage_headroom_ratio=headroom(30e9, 25.4e9 / 8))[0] is Decision.GO


def test_what_is_emulated_by_number_is_multiplied_by_it() -> None:
    gates = shipped("distributed-training")
    emulated = headroom(3.5e9, 25.4e9 / 8, stand_in="emulated", accelerator="unet3d-h100*8")
    whole = node(*[m for m in measured(gates).measurements() if m.metric != emulated.metric], emulated, cards=0,
                 accelerator="emulated:unet3d-h100*8")  # fmt: skip
    found = next(f for f in judge(whole, gates).findings if f.metric == emulated.metric)
    assert (found.status, found.reason) == (Status.FAIL, "enough for 0.9 of 8 accelerators")
    assert found.limit.min == pytest.approx(8 * 1.11)


def test_network_storage_that_feeds_its_card_is_no_failure() -> None:
    """A cloud H200 on network storage of 0.8 GB/s was NO-GO at 0 % starvation: 2 GiB/s is ten times what it takes."""
    pattern = {"pattern": "sequential", "block_bytes": "1048576", "queue_depth": "deep"}
    read = measurement("storage_read_bytes_per_second", 0.8e9, labels=pattern)
    one = measured(shipped("batch-inference"))
    more = {"storage_read_bytes_per_second": read, "storage_headroom_ratio": headroom(0.8e9, 0.2e9)}
    assert decision("batch-inference", one, **more)[0] is Decision.GO


def test_slow_decoding_does_not_hide_slow_storage() -> None:
    """With C=100, P=60, F=55 storage's part of the starvation is 5 %, and its gate passed: GO for storage."""
    one = measured(shipped("batch-inference"))
    _, statuses = decision("batch-inference", one, storage_headroom_ratio=headroom(55.0, 100.0))
    assert statuses["storage_headroom_ratio"] is Status.FAIL


def test_a_slow_front_end_does_not_fail_a_node_that_trains_over_infiniband() -> None:
    """Eight H100 with 400 Gbit/s InfiniBand were NO-GO because the peer was reached by a 25 Gbit/s Ethernet."""
    one = measured(shipped("distributed-training"), ports=8)
    tcp = measurement("network_throughput_bytes_per_second", 2.9e9, labels={"peer": "n2"})
    rdma = measurement("rdma_write_bytes_per_second", 46e9, labels={"peer": "n2"})
    more = {"network_throughput_bytes_per_second": tcp, "rdma_write_bytes_per_second": rdma}
    assert decision("distributed-training", one, **more)[0] is Decision.GO


def test_fast_ethernet_does_not_hide_a_dead_infiniband_card() -> None:
    """A dead card beside Ethernet of 100 Gbit/s was GO: no gate asked for RDMA."""
    one = measured(shipped("distributed-training"), ports=1)
    tcp = measurement("network_throughput_bytes_per_second", 11.8e9, labels={"peer": "n2"})
    dead = measurement("fabric_active_rdma_ports", 0.0)
    more = {"network_throughput_bytes_per_second": tcp, "fabric_active_rdma_ports": dead}
    assert decision("distributed-training", one, rdma_write_bytes_per_second=None, **more)[0] is Decision.NO_GO


def test_rdma_that_nobody_measured_is_no_go_ahead() -> None:
    """An InfiniBand node without a peer on it was GO by TCP alone."""
    one = measured(shipped("distributed-training"), ports=8)
    for metric in ("rdma_write_bytes_per_second", "collective_bus_bytes_per_second", "fabric_active_rdma_ports"):
        assert decision("distributed-training", one, **{metric: None})[0] is Decision.INCONCLUSIVE


def test_where_nobody_looked_for_rdma_neither_way_counts() -> None:
    one = measured(shipped("distributed-training"))
    slow = measurement("network_throughput_bytes_per_second", 1e9, labels={"peer": "n2"})
    for tcp in (slow, keeping(next(g for g in shipped("distributed-training").gates if g.when == "no_rdma"))):
        said, _ = decision("distributed-training", one, fabric_rdma_ports=None, network_throughput_bytes_per_second=tcp)
        assert said is Decision.INCONCLUSIVE
