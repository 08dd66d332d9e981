"""What pairs and the fleet's own all-reduce say of each node: a fleet on InfiniBand is judged by RDMA and NCCL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from bench.fleet.join.folder import join_folder, trouble_of_line
from bench.judge.fleet.model import Fleet
from bench.model import Decision, Outcome, ProbeResult
from bench.workflows.catalog import shipped_profiles
from tests.fleet.make import figure, judgement, lay, run_of

HOSTS = ["n1", "n2", "n3", "n4"]
#: Those gates of the shipped profile that ask of a node with InfiniBand what training moves between nodes.
WHOLE = shipped_profiles()["distributed-training"].read_text(encoding="utf-8")
HEAD, *GATES = WHOLE.split("[[gate]]")
RDMA = HEAD + "".join("[[gate]]" + gate for gate in GATES if 'when = "' in gate)
NDR, MIB16 = 46e9, 16 << 20
FAILED = ProbeResult(probe="rdma", outcome=Outcome.FAILED, reason="rdma_failed: ib_write_bw: no route")
ABSENT = ProbeResult(probe="rdma", outcome=Outcome.UNSUPPORTED, reason="no_device: this node has no InfiniBand")


def wrote(rate: float) -> ProbeResult:
    made = figure("rdma_write_bytes_per_second", rate, peer="p"), figure("rdma_write_latency_seconds", 1e-6, peer="p")
    return ProbeResult(probe="rdma", outcome=Outcome.OK, measurements=made)


def fleet_of(
    folder: Path,
    rdma: Mapping[tuple[str, str], ProbeResult] | None = None,
    sums: float | None = 0.001,
    backend: str = "nccl",
    ports: int = 1,
    socketed: str = "",
    **changes: Any,
) -> Fleet:
    """Four nodes whose pairs all met, by ``rdma`` otherwise than at NDR's rate; seconds of 16 MiB over eight ranks.

    All connections between nodes are by RDMA, but on the host that is ``socketed``.
    """
    fabric = [figure(metric, float(ports), 0.0) for metric in ("fabric_rdma_ports", "fabric_active_rdma_ports")]
    watched = ProbeResult(probe="fabric", outcome=Outcome.OK, measurements=tuple(fabric))
    alone = [ProbeResult(probe=p, outcome=Outcome.SKIPPED, reason="not_asked_for: x") for p in ("rdma", "collective")]
    for host in HOSTS:
        sweep = run_of(host)
        lay(folder / "nodes", sweep.model_copy(update={"results": (*sweep.results, watched, *alone)}))
    pairs = list(combinations(HOSTS, 2))
    (folder / "pairs.json").write_text(json.dumps({"rounds": [[pair] for pair in pairs]}))
    (folder / "expected").write_text("\n".join(HOSTS))
    for client, server in pairs:
        met = run_of(client, seed=9)
        tcp = figure("network_throughput_bytes_per_second", 1e9, peer=server, direction="send")
        network = ProbeResult(probe="network", outcome=Outcome.OK, measurements=(tcp,))
        found = (network, (rdma or {}).get((client, server), wrote(NDR)))
        lay(folder / "pairs", met.model_copy(update={"results": found}), name=f"{client}--{server}")
    (folder / "collective").mkdir()
    (folder / "collective/ranks.json").write_text(json.dumps({"hosts": HOSTS}))
    for number, host in enumerate(HOSTS):
        own = [{"message_bytes": MIB16, "seconds": sums}] if sums else []
        way = ("sockets", False) if host == socketed else ("rdma_gpu_direct", True)
        between = {"scope": "between", "transport": way[0], "connections": 4, "fast": way[1]}
        ranks = [
            {"local": i, "seconds": 0.01, "wait_seconds": 0.001, "sums": own, "carried": [between]} for i in range(2)
        ]
        line = {"node": number, "world": 8, "backend": backend, "message_bytes": 256 << 20, "seconds": 0.01,
                "iterations": 20, "wait_seconds": 0.001, "ranks": ranks, **changes}  # fmt: skip
        (folder / f"collective/{host}.json").write_text(json.dumps(line))
    return join_folder(folder, HOSTS, judgement(RDMA))


def failed(fleet: Fleet, host: str) -> str:
    return " ".join(next(node.failed for node in fleet.nodes if node.host == host))


def decisions(fleet: Fleet) -> dict[str, str]:
    return {node.host: next(iter(node.decisions.values())).value for node in fleet.nodes}


def test_a_sound_fleet_on_infiniband_is_go(tmp_path: Path) -> None:
    """It was INCONCLUSIVE: pairs measured TCP alone, and nobody's all-reduce was a node's figure."""
    fleet = fleet_of(tmp_path)
    assert fleet.decision is Decision.GO, fleet.reasons
    assert {pair.rdma_bytes_per_second for pair in fleet.pairs} == {NDR}


def test_a_card_that_carries_nothing_is_told_of_its_host_alone(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, {pair: FAILED for pair in combinations(HOSTS, 2) if "n2" in pair})
    assert decisions(fleet) == {"n1": "GO", "n2": "INCONCLUSIVE", "n3": "GO", "n4": "GO"}
    assert "rdma_write_bytes_per_second: no_data (probe_failed: rdma_failed: ib_write_bw: no route)" in failed(
        fleet, "n2"
    )
    assert fleet.decision is Decision.INCONCLUSIVE
    without = {(pair.client, pair.server): pair.reason for pair in fleet.pairs if pair.rdma_bytes_per_second is None}
    assert set(without) == {pair for pair in combinations(HOSTS, 2) if "n2" in pair}
    assert set(without.values()) == {FAILED.reason}


def test_a_slow_card_is_no_go_and_its_pairs_accuse_nobody_else(tmp_path: Path) -> None:
    """n4 is server in each of its pairs: what it received counts for it."""
    fleet = fleet_of(tmp_path, {pair: wrote(3e9) for pair in combinations(HOSTS, 2) if "n4" in pair})
    assert decisions(fleet) == {"n1": "GO", "n2": "GO", "n3": "GO", "n4": "NO-GO"}
    assert failed(fleet, "n4") == "rdma_write_bytes_per_second: fail"


def test_a_client_without_the_hardware_says_nothing_of_the_other_end(tmp_path: Path) -> None:
    """Else the absence on one end would pass for that of the other, which is then judged by TCP."""
    fleet = fleet_of(tmp_path, {pair: ABSENT for pair in combinations(HOSTS, 2) if pair[0] == "n1"})
    assert decisions(fleet) == {"n1": "INCONCLUSIVE", "n2": "GO", "n3": "GO", "n4": "GO"}
    assert "no_device" in failed(fleet, "n1")


@pytest.mark.parametrize(
    ("words", "decision", "said"),
    [
        ({"sums": 0.01}, Decision.NO_GO, "collective_bus_bytes_per_second{size_bytes=16777216}: fail"),
        ({"backend": "gloo"}, Decision.INCONCLUSIVE, "stand_in: cpu"),
        ({"sums": None}, Decision.INCONCLUSIVE, "collective_failed: its nodes are of an older version"),
        ({"world": 9}, Decision.INCONCLUSIVE, "collective_failed: bad_result"),
    ],
    ids=["slow", "on CPUs", "of an older version", "of two collectives"],
)
def test_the_fleets_all_reduce_decides_for_each_node(
    tmp_path: Path, words: dict[str, Any], decision: Decision, said: str
) -> None:
    fleet = fleet_of(tmp_path, **words)
    assert fleet.decision is decision
    assert all(said in failed(fleet, host) for host in HOSTS), failed(fleet, "n1")


def test_a_node_whose_nccl_took_sockets_is_no_go_and_the_others_are_not(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, socketed="n3")
    assert decisions(fleet) == {"n1": "GO", "n2": "GO", "n3": "NO-GO", "n4": "GO"}
    assert failed(fleet, "n3") == "collective_fast_transport_ratio{scope=between}: fail"


@pytest.mark.parametrize("changes", [{"transport": "x" * 99}, {"connections": 0}, {"scope": "x"}, {"fast": 1}])
def test_what_a_node_says_of_its_transports_is_read_with_suspicion(changes: dict[str, Any]) -> None:
    carried = {"scope": "between", "transport": "rdma", "connections": 4, "fast": True, **changes}
    rank = {"local": 0, "seconds": 0.1, "wait_seconds": 0.1, "carried": [carried]}
    line = {"message_bytes": 16, "seconds": 0.1, "wait_seconds": 0.1, "ranks": [rank]}
    assert "bad_result: ranks.0.carried.0" in (trouble_of_line(line) or "")


def test_without_such_ports_tcp_decides_as_before(tmp_path: Path) -> None:
    """1 GB/s of TCP is below what the profile asks; RDMA and NCCL, however fast, are not asked."""
    fleet = fleet_of(tmp_path, ports=0)
    assert fleet.decision is Decision.NO_GO
    assert failed(fleet, "n1").startswith("network_throughput_bytes_per_second: fail")


@pytest.mark.parametrize("text", ['{"hosts": NaN}', '{"hosts": {"a": 1}}', '{"path": "/data"}', "[]"])
def test_shared_storage_that_names_no_hosts_was_not_asked_for(tmp_path: Path, text: str) -> None:
    lay(tmp_path / "nodes", run_of("n1"))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/asked.json").write_text(text)
    assert join_folder(tmp_path, ["n1"], judgement()).shared == ()
