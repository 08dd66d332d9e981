"""An all-reduce between real hosts, with real torch: its figures, its straggler, and a rank that is lost."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from tests.probes.network.test_faults import running, wait_for
from tests.probes.network.test_truth import child_of
from tests.probes.network.testbed import Net

RATE = 200e6


def start(net: Net) -> Any:
    words = ("--probe", "collective", "--effort", "quick", "--accelerator", "cpu", "--peer", "10.98.0.2")
    return net.start(net.python("a", "bench", "run", *words, "--json", "--results", str(net.folder)))


def result(run: Any, seconds: float = 110) -> dict[str, Any]:
    out, err = run.communicate(timeout=seconds)
    assert out.strip(), err
    (one,) = (r for r in json.loads(out)["results"] if r["probe"] == "collective")
    return dict(one)


def test_two_hosts_reduce_at_the_speed_of_their_cable(cable: Net) -> None:
    for host in ("a", "b"):
        cable.shape(host, RATE, 0.02, burst=100_000)
    cable.peer("b", "10.98.0.2")
    got = result(start(cable))
    assert got["outcome"] == "ok", got["reason"]
    bus = {
        m["labels"]["size_bytes"]: m for m in got["measurements"] if m["metric"] == "collective_bus_bytes_per_second"
    }
    goodput = RATE / 8 * 1448 / 1514
    assert 0.7 <= bus[str(16 << 20)]["value"] / goodput <= 1.1
    assert all(m["labels"]["stand_in"] == "cpu" and m["labels"]["backend"] == "gloo" for m in bus.values())
    links = [m for m in got["measurements"] if m["metric"] == "collective_link_bytes_per_second"]
    assert [0.7 <= m["value"] / goodput <= 1.2 for m in links] == [True, True]
    (carried,) = (m["labels"] for m in got["measurements"] if m["metric"] == "collective_transport_info")
    assert carried == {"backend": "gloo", "scope": "between", "transport": "sockets", "stand_in": "cpu"}
    assert running("a") == []
    assert len(running("b")) == 1, "the peer itself"


def test_a_plain_iperf3_server_has_no_ranks(cable: Net) -> None:
    cable.iperf3_server("b")
    got = result(start(cable))
    assert got["outcome"] == "failed"
    assert got["reason"].startswith("peer_without_ranks: 10.98.0.2")


def test_a_rank_that_is_lost_in_the_middle(cable: Net) -> None:
    peer = cable.peer("b", "10.98.0.2")
    cable.shape("a", 20e6, 0.05)  # so slow that there is a middle
    run = start(cable)
    rank = child_of(peer.pid, "probes.collective.load.rank ", 90)
    cable.wait_until_sent("a", 3_000_000)  # torch is imported, the ranks have met, and reduce
    os.kill(rank, signal.SIGKILL)
    got = result(run)
    assert got["outcome"] in ("failed", "timed_out")
    assert "\n" not in got["reason"] and ": " in got["reason"]
    assert running("a") == []
    peer.terminate()
    assert peer.wait(10) == 0
    wait_for("b", "probes.collective.load.rank ", False)
