"""What carried an all-reduce, from NCCL's own log to the verdict."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.judge.gate import judge_gate
from bench.judge.profile import Gate
from bench.model import Code, Finding, Measurement, Status, code_of
from probes.collective import nccl
from probes.collective.load.rank import listen, said
from probes.collective.parse import parse, transports
from tests.judge.test_shipped_profiles import shipped
from tests.show.terminal.sample import measurement, talking_run

RECORDED = Path(__file__).parents[2] / "recorded" / "nccl-2.28.9"
HERE, PEER = "this node", "10.0.0.2"
FAST = "collective_fast_transport_ratio"


def output(log: str, names: tuple[str, str], backend: str = "nccl") -> str:
    """What the program prints for two ranks, of which the first has this log."""
    times = [{"kind": "times", "rank": rank, "backend": backend, "sizes": {"16777216": [0.01]}, "links": {}}
             for rank in range(2)]  # fmt: skip
    lines: list[dict[str, Any]] = [
        {"kind": "ranks", "names": list(names)},
        {"kind": "nccl", "rank": 0, "log": log},
        *times,
    ]
    return "".join(json.dumps(line) + "\n" for line in lines if backend == "nccl" or line["kind"] != "nccl")


def found(log: str, names: tuple[str, str], backend: str = "nccl", **labels: str) -> dict[str, Measurement]:
    text = output(log, names, backend)
    return {m.metric: m for m in transports(text, parse(text), labels)}


def recorded(name: str, names: tuple[str, str]) -> dict[str, Measurement]:
    return found((RECORDED / f"{name}.log").read_text(), names)


@pytest.mark.parametrize(
    ("name", "names", "scope", "transport", "fast"),
    [
        ("nvlink", (HERE, HERE), "within", "nvlink", 1.0),
        ("nccl-2.18", (HERE, HERE), "within", "nvlink", 1.0),
        ("shm-beside-nvlink", (HERE, HERE), "within", "shm", 0.0),
        ("pcie", (HERE, HERE), "within", "pcie", None),  # a card without NVLink is not accused of it
        ("shm", (HERE, HERE), "within", "shm", None),
        ("ib-gdr", (HERE, PEER), "between", "rdma_gpu_direct", 1.0),
        ("ib", (HERE, PEER), "between", "rdma", 1.0),
        ("ib-plugin", (HERE, PEER), "between", "rdma_gpu_direct", 1.0),
        ("mnnvl", (HERE, PEER), "between", "nvlink", 1.0),
        ("sockets", (HERE, PEER), "between", "sockets", 0.0),
        ("mixed", (HERE, PEER), "between", "rdma_gpu_direct,sockets", 0.5),
        ("new-transport", (HERE, PEER), "between", "rdma_gpu_direct,unknown", 1.0),
    ],
)
def test_nccl_says_what_carried_its_traffic(
    name: str, names: tuple[str, str], scope: str, transport: str, fast: float | None
) -> None:
    got = recorded(name, names)
    info = got["collective_transport_info"]
    assert info.labels == {"backend": "nccl", "scope": scope, "transport": transport}
    assert (got[FAST].value if FAST in got else None) == fast


def test_what_is_unknown_may_be_either() -> None:
    share = recorded("new-transport", (HERE, PEER))[FAST]
    assert share.interval == (0.5, 1.0) and share.samples == 4


@pytest.mark.parametrize("log", ["", "NCCL version 2.28.9\n", "Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM\n",
                                 "n:1:2 [0] NCCL INFO Channel 00/0 : 0[0] -> 9[1] via NET/IB/0\n"])  # fmt: skip
def test_a_log_that_says_nothing_makes_no_figure(log: str) -> None:
    """The last but one is no line of NCCL's log, and the last one of a rank that there is not."""
    assert found(log, (HERE, PEER)) == {}


def test_cards_whose_path_is_not_told_are_unknown() -> None:
    got = found("n:1:2 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM\n", (HERE, HERE))
    assert got["collective_transport_info"].labels["transport"] == "unknown" and FAST not in got


def test_gloo_has_sockets_and_stands_in() -> None:
    got = found("", (HERE, PEER), "gloo", stand_in="cpu")
    for one in got.values():
        assert one.stand_in == "cpu" and one.labels["backend"] == "gloo" and one.labels["transport"] == "sockets"
    assert got[FAST].value == 0.0


def test_a_rank_of_a_fleet_tells_within_from_between_by_the_ranks_of_its_node() -> None:
    """Node 1 of two nodes with two cards each has the ranks 2 and 3."""
    form = "n:1:2 [0] NCCL INFO Channel 00/0 : {}[0] -> {}[1] via {}\n"
    log = (
        form.format(2, 3, "SHM/direct/direct")
        + form.format(3, 0, "NET/IB/0/GDRDMA")
        + form.format(1, 2, "NET/Socket/0")
    )
    said_of = nccl.carried(nccl.read([log]), lambda one, other: {one, other} <= {2, 3})
    assert [(one.scope, one.transport, one.connections, one.fast) for one in said_of] == [
        ("within", "shm", 1, None), ("between", "rdma_gpu_direct", 1, True), ("between", "sockets", 1, False),
    ]  # fmt: skip


def gate() -> Gate:
    return next(one for one in shipped("distributed-training").gates if one.metric == FAST)


def judged(got: dict[str, Measurement], ports: int) -> Finding:
    plain = talking_run()
    fabric = measurement("fabric_rdma_ports", float(ports))
    result = plain.results[0].model_copy(update={"probe": "collective", "measurements": (fabric, *got.values())})
    return judge_gate(plain.model_copy(update={"results": (result,)}), gate(), {FAST: "collective"})[0]


@pytest.mark.parametrize(
    ("name", "ports", "status"),
    [
        ("ib-gdr", 8, Status.PASS),
        ("sockets", 8, Status.FAIL),
        ("mixed", 8, Status.FAIL),
        ("new-transport", 8, Status.UNDECIDED),
        ("sockets", 0, Status.NO_DATA),
    ],
)
def test_sockets_beside_rdma_are_no_go(name: str, ports: int, status: Status) -> None:
    finding = judged(recorded(name, (HERE, PEER)), ports)
    assert finding.status is status and finding.required is (ports > 0)
    if status is Status.FAIL:
        assert finding.remedy and "NCCL_IB_HCA" in finding.remedy


def test_between_the_cards_of_one_node_nothing_is_shown_of_the_network() -> None:
    finding = judged(recorded("nvlink", (HERE, HERE)), 8)
    assert finding.status is Status.NO_DATA and code_of(finding.reason) is Code.NOT_MEASURED


def test_nccls_log_goes_to_memory_and_leaves_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_DEBUG_FILE"):
        monkeypatch.setenv(name, "as the user has it")
    log = listen()
    assert log is not None and said(log) == ""
    try:
        assert os.environ["NCCL_DEBUG"] == "INFO" and os.environ["NCCL_DEBUG_SUBSYS"] == "INIT,NET,GRAPH"
        with open(os.environ["NCCL_DEBUG_FILE"], "w", buffering=1) as library:
            library.write("NCCL version 2.28.9\n")
            assert said(log) == "NCCL version 2.28.9\n"
    finally:
        os.close(log)


def test_where_the_log_cannot_be_opened_nccl_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be printed among the program's own lines."""
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(OSError("no /proc")))
    monkeypatch.setenv("NCCL_DEBUG_FILE", "before")
    assert listen() is None and said(None) == "" and os.environ["NCCL_DEBUG_FILE"] == "before"
