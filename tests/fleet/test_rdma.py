"""Pairs by RDMA on real hosts, through the real commands.

This kernel has no `rxe`, so two things stand in, and nothing else: a /sys/class/infiniband of our own on each host, and
an ``ib_write_bw`` and ``ib_write_lat`` that meet over TCP and print the tables of perftest 4.5 that the tests of the
probe read.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.model import Decision
from tests.fleet.test_run import drive, states
from tests.fleet.testbed import Testbed
from tests.probes.test_rdma import with_perftest

ROOT = Path(__file__).resolve().parents[2]
PORT = {"state": "4: ACTIVE", "link_layer": "InfiniBand", "rate": "400 Gb/sec (4X NDR)"}
PROFILE = """
name = "by-rdma"
[[gate]]
metric = "fabric_active_rdma_ports"
min = 1
when = "rdma"
source = "the test's own"
[[gate]]
metric = "rdma_write_bytes_per_second"
min = 11250000000
when = "rdma"
source = "the test's own"
"""
SHOWN = """
mkdir -p "$1" && mount -t tmpfs tmpfs "$1" && mkdir "$1/net" && mount --bind /sys/class/net "$1/net"
cp -r "$2" "$1/infiniband" && mount --rbind "$1" /sys/class
"""


@pytest.fixture
def cards(hosts: Testbed, tmp_path: Path) -> Iterator[Path]:
    """Hosts 1 and 2 have a card and perftest; the folder that holds perftest."""
    port = tmp_path / "infiniband/mlx5_0/ports/1"
    port.mkdir(parents=True)
    for name, text in PORT.items():
        (port / name).write_text(f"{text}\n")
    tools = with_perftest(tmp_path / "tools")
    shown = tmp_path / "class"
    for i in (1, 2):
        done = hosts.on(i, ["sh", "-ec", SHOWN, "-", str(shown), str(port.parents[2])])
        assert done.returncode == 0, done.stderr
    try:
        yield tools
    finally:
        for i in (1, 2):
            hosts.on(i, ["umount", "-R", "/sys/class"])
            hosts.on(i, ["umount", "-R", str(shown)])


@pytest.mark.timeout(400)
def test_two_hosts_with_such_cards_are_measured_by_rdma_in_their_pair(
    hosts: Testbed, cards: Path, tmp_path: Path
) -> None:
    """`bench run` and `bench peer` as a fleet run starts them, but for the look whether this machine is quiet."""
    inventory = tmp_path / "two.ini"
    own = hosts.inventory.read_text().splitlines()
    inventory.write_text("\n".join(line for line in own if not line.startswith(("n003", "n004"))) + "\n")
    path = os.pathsep.join([str(cards), os.environ["PATH"]])
    python = shlex.quote(sys.executable)
    bench = f"export PATH={shlex.quote(path)} PYTHONPATH={shlex.quote(str(ROOT))}; exec {python} -m bench"
    profile = tmp_path / "by-rdma.toml"
    profile.write_text(PROFILE)
    words = f"--effort quick --json --no-quiet-check --profile {shlex.quote(str(profile))}"
    measure = f'{bench} run {words} --results "$PWD/results"'
    plan: dict[str, Any] = {
        "inventory": str(inventory), "sweep": f"{measure} --probe fabric --probe rdma", "budget": 100.0,
        "pair_client": f"{measure} --probe network --probe rdma --peer {{address}}", "pair_budget": 200.0,
        "pair_server": f"{bench} peer --bind {{address}} --port 5201", "pair_ready": "bench peer: ready",
    }  # fmt: skip
    fleet, progress, _ = drive(hosts, tmp_path / "fleet", profile=PROFILE, wait=380, **plan)
    (pair,) = fleet.pairs
    assert pair.rdma_bytes_per_second == pytest.approx(375.25e9 / 8), (pair, progress)
    assert (fleet.decision, states(fleet)) == (Decision.GO, {"n001": "pass", "n002": "pass"}), fleet.reasons
