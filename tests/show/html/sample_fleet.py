"""A fleet of any size, with one slow port, one host that never answered and pairs that have no figure for it."""

from __future__ import annotations

from itertools import combinations

from bench.judge.fleet.model import (
    Collective,
    Fleet,
    FleetVerdict,
    NodeOutcome,
    Outlier,
    PairOutcome,
    SharedStorage,
    Shift,
    State,
)
from bench.model import Decision

RATE = "network_throughput_bytes_per_second"


def fleet(size: int) -> Fleet:
    hosts = [f"gpu-node-{n:03}.cluster.example.com" for n in range(size)]
    slow, lost = hosts[1], hosts[-1]
    kind = "64 x AMD EPYC 9454, 2 sockets; 8 x NVIDIA H100 80GB HBM3; mlx5 400 Gb/s"
    nodes = [
        NodeOutcome(host=host, state=State.PASS, run="0123456789ab", node_class=kind, score=100.0)
        for host in hosts[:-1]
    ]
    nodes.append(NodeOutcome(host=lost, state=State.UNREACHABLE, reason="no_route: ssh: connect to port 22: no route"))
    return Fleet(
        id="20261126-acceptance",
        joined_at="2026-11-26T12:00:00Z",
        bench_version="1.0",
        nodes=tuple(nodes),
        pairs=tuple(_pair(a, b, slow, lost) for a, b in combinations(hosts, 2)),
        collective=Collective(state=State.PASS, ranks=tuple(hosts[:-1]), world=8 * size, bus_bytes_per_second=3.1e11,
                              straggler=slow),
        shared=(SharedStorage(path="/shared/data", alone={hosts[0]: 8.1e9}, together=dict.fromkeys(hosts, 1.4e9),
                              missing=(lost,)),),
        outliers=(Outlier(host=slow, part="port", metric=RATE, observed=1.1e10, expected=4.6e10, deviation_ratio=0.76,
                          modified_z=80.0, siblings=size - 2, level="act", confirmed=True),),
        shifts=(Shift(node_class=kind, metric="storage_read_bytes_per_second", shift_ratio=0.2, nodes=size - 1),),
        verdicts=(FleetVerdict(profile="distributed-training", digest="0", decision=Decision.NO_GO, score=0.0,
                               nodes={"GO": size - 1, "unreachable": 1}, reasons=("1 node is missing",)),),
        decision=Decision.NO_GO,
        reasons=("1 node is missing", f"{slow}: port: confirmed"),
    )  # fmt: skip


def _pair(a: str, b: str, slow: str, lost: str) -> PairOutcome:
    if lost in (a, b):
        return PairOutcome(round=0, client=a, server=b, state=State.UNREACHABLE, reason="not_run: it never answered")
    rate = 1.1e10 if slow in (a, b) else 4.6e10
    return PairOutcome(round=0, client=a, server=b, state=State.PASS, send_bytes_per_second=rate,
                       receive_bytes_per_second=0.99 * rate)  # fmt: skip
