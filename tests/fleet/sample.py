"""Fleet documents for the exports: one that is GO, one NO-GO with everything in it, one with holes, one hostile."""

from __future__ import annotations

from typing import Any

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
from tests.show.export.sample import HOSTILE

READ, RATE = "storage_read_bytes_per_second", "network_throughput_bytes_per_second"
PROFILE = "acceptance"


def node(host: str, state: State = State.PASS, **changes: Any) -> NodeOutcome:
    decisions = {State.PASS: Decision.GO, State.FAIL: Decision.NO_GO, State.INCONCLUSIVE: Decision.INCONCLUSIVE}
    if state not in decisions:
        return NodeOutcome(host=host, state=state, reason=f"{state.value}: nothing came of it", **changes)
    values: dict[str, Any] = {"run": f"run-{host}", "score": 100.0 if state is State.PASS else 40.0}
    return NodeOutcome(host=host, state=state, decisions={PROFILE: decisions[state]}, **(values | changes))


def fleet(decision: Decision, nodes: tuple[NodeOutcome, ...], **changes: Any) -> Fleet:
    profile = changes.pop("profile", PROFILE)
    verdict = FleetVerdict(profile=profile, digest="d", decision=decision, score=50.0, nodes={"GO": len(nodes)},
                           reasons=changes.get("reasons", ()))  # fmt: skip
    values = {"id": "f1", "joined_at": "2026-11-22T11:00:00Z", "measured_at": "2026-11-22T10:00:00Z",
              "bench_version": "1.2.3", "verdicts": (verdict,)}  # fmt: skip
    return Fleet(nodes=nodes, decision=decision, **(values | changes))


def pair(a: str, b: str, state: State = State.PASS, reason: str | None = None) -> PairOutcome:
    rates = {"send_bytes_per_second": 5e9, "receive_bytes_per_second": 4e9} if state is State.PASS else {}
    return PairOutcome(round=0, client=a, server=b, state=state, reason=reason, **rates)  # type: ignore[arg-type]


def outlier(host: str, level: str = "act", confirmed: bool = True, part: str = "disk /data") -> Outlier:
    return Outlier(host=host, part=part, metric=READ, labels={"path": "/data"}, observed=5e8, expected=1e9,
                   deviation_ratio=0.5, modified_z=20.0, siblings=4, level=level, confirmed=confirmed)  # type: ignore[arg-type]  # fmt: skip


def go() -> Fleet:
    return fleet(Decision.GO, (node("n1"), node("n2")), pairs=(pair("n1", "n2"),))


def no_go() -> Fleet:
    """Every kind of case at once."""
    nodes = (node("n1"), node("n2", State.FAIL, failed=("storage read: fail",)), node("n3", State.INCONCLUSIVE))
    return fleet(
        Decision.NO_GO, nodes, reasons=("no_go: n2", "outlier: disk of n2"),
        pairs=(pair("n1", "n2"), pair("n1", "n3", State.LOST, "connection_lost: gone")),
        outliers=(outlier("n2"), outlier("n3", confirmed=False), outlier("n1", level="warn")),
        collective=Collective(state=State.PASS, ranks=("n1", "n2", "n3"), world=24, message_bytes=1 << 20,
                              bus_bytes_per_second=3e11, straggler="n3 GPU 5", straggler_late_seconds=0.01),
        shared=(SharedStorage(path="/s", alone={"n1": 2e9}, together={"n1": 5e8, "n2": 4e8}, missing=("n3",)),),
        shifts=(Shift(node_class="c", metric=READ, shift_ratio=0.2, nodes=3, level="act", confirmed=True),
                Shift(node_class="c", metric=RATE, shift_ratio=-0.1, nodes=3)),
    )  # fmt: skip


def holes() -> Fleet:
    """One host for every state that is not a pass."""
    nodes = tuple(node(f"n-{state.value}", state) for state in State if state not in (State.PASS, State.FAIL))
    failed = Collective(state=State.LOST, reason="1 of 2 ranks without a result", ranks=("a", "b"))
    return fleet(Decision.INCONCLUSIVE, nodes, reasons=("lost: n-lost",), collective=failed, measured_at=None)


def hostile() -> Fleet:
    bad = HOSTILE[:200]
    nodes = (
        node(bad, State.FAIL, hostname=bad, node_class=bad, run=bad, failed=(bad,)),
        node(f"{bad}2", State.LOST).model_copy(update={"reason": f"x: {bad}"}),
    )
    return fleet(
        Decision.NO_GO, nodes, id=bad, bench_version=bad, profile=bad, reasons=(bad,), strangers=(bad,),
        pairs=(pair(bad, "n2"), pair("n2", bad, State.BAD_RESULT, bad)),
        outliers=(outlier(bad, part=bad), outlier(bad, part=bad)),
        collective=Collective(state=State.PASS, ranks=(bad,), bus_bytes_per_second=1.0, straggler=bad,
                              straggler_late_seconds=1.0, rows=((bad, State.LOST, bad),)),
        shared=(SharedStorage(path=bad, alone={bad: 1.0}, together={bad: 1.0}, missing=(bad,)),),
        shifts=(Shift(node_class=bad, metric=READ, labels={"path": bad}, shift_ratio=0.2, nodes=3, level="act"),),
    )  # fmt: skip
