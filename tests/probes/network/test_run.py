"""`bench run --peer` as a user types it, but brief, over a cable of known rate and queue; and that run replayed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.probes.network.testbed import Net, bench_run, measured

RATE, LATENCY, BURST = 100e6, 0.02, 16_000
BRIEF = "tests.probes.network.brief"
NO_GATE = ("--profile", "batch-inference")  # none on the network: nothing straddles a limit and is measured again
GOODPUT = RATE / 8 * 1448 / 1514


def one(document: dict[str, Any], metric: str, **labels: str) -> dict[str, Any]:
    (found,) = measured(document, metric, **labels)
    return dict(found)


def network(document: dict[str, Any]) -> dict[str, Any]:
    (result,) = (r for r in document["results"] if r["probe"] == "network")
    return dict(result)


def test_a_quick_run_against_a_peer(cable: Net) -> None:
    for host in ("a", "b"):
        cable.shape(host, RATE, LATENCY, burst=BURST)
    peer = cable.peer("b", "10.98.0.2")
    document = bench_run(cable, "a", "--effort", "quick", "--peer", "10.98.0.2", *NO_GATE, module=BRIEF)
    assert network(document)["outcome"] == "ok", network(document)["reason"]
    for direction in ("send", "receive"):
        throughput = one(document, "network_throughput_bytes_per_second", direction=direction, peer="10.98.0.2")
        assert throughput["value"] == pytest.approx(GOODPUT, rel=0.02)
        assert one(document, "network_loss_ratio", direction=direction)["value"] == 0.0
        assert 0.0 <= one(document, "network_jitter_seconds", direction=direction)["value"] < 0.01
        assert one(document, "network_retransmits", direction=direction)["value"] >= 0
    assert one(document, "network_round_trip_seconds", state="idle", statistic="p50")["value"] < 0.001
    full = LATENCY + BURST * 8 / RATE
    loaded = one(document, "network_round_trip_seconds", state="loaded", statistic="p50")["value"]
    assert 0.7 * full <= loaded <= 1.2 * full, "eight TCP streams keep the queue full"
    for place in ("network", "egress"):
        assert one(document, "network_spike_events", state="idle", place=place, threshold_seconds="0.05")["value"] == 0
    bound = one(document, "network_spike_rate_upper_bound_per_second", state="idle")["value"]
    assert 0 < bound < 1
    assert not [m for result in document["results"] for m in result["measurements"] if m["labels"].get("stand_in")]
    peer.terminate()
    _replayed(cable, document)


def test_a_peer_on_this_very_machine_is_said_to_be(cable: Net) -> None:
    """Its packets never see a network, though the address is that of a real port."""
    peer = cable.peer("a", "10.98.0.1")
    document = bench_run(cable, "a", "--effort", "quick", "--peer", "10.98.0.1", *NO_GATE, module=BRIEF)
    peer.terminate()
    found = network(document)
    assert found["outcome"] == "ok" and "10.98.0.1 is this very machine" in " ".join(found["warnings"])


def _replayed(cable: Net, document: dict[str, Any]) -> None:
    """Without a peer, from the recorded output alone: the same figures."""
    (raw,) = cable.folder.rglob("*.raw")
    again = bench_run(cable, "a", "--replay", str(raw), *NO_GATE, module=BRIEF)
    before, after = network(document)["measurements"], network(again)["measurements"]
    plain = [(m["metric"], m["labels"], m["value"], m["interval"]) for m in before]
    assert plain == [(m["metric"], m["labels"], m["value"], m["interval"]) for m in after]
