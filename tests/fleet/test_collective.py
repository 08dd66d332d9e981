"""An all-reduce over four hosts: a figure, its straggler, and an end in time when a rank is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.model import Decision
from tests.fleet.test_run import ROOT, STORAGE_ONLY, drive
from tests.fleet.testbed import Testbed

COMMAND = (
    f"PYTHONPATH={ROOT} exec {sys.executable} -m probes.loads.fleet_rank --rank {{rank}} --world {{world}} "
    "--address {own} --master {address} --device cpu --bytes 1048576 --iterations 10"
)


@pytest.mark.timeout(240)
def test_four_ranks_reduce_and_the_slow_one_arrives_last(hosts: Testbed, tmp_path: Path) -> None:
    if not hosts.has_cgroups:
        pytest.skip("no cgroup v1 here: a host's CPU cannot be throttled")
    hosts.limit(3, "cpu", "cpu.cfs_quota_us", "15000")  # of 100,000: a seventh of a core
    try:
        fleet, progress, _ = drive(
            hosts,
            tmp_path / "a",
            collective=COMMAND,
            collective_budget=100.0,
            pairs="none",
            profile=STORAGE_ONLY,
            wait=200,
        )
    finally:
        hosts.limit(3, "cpu", "cpu.cfs_quota_us", "-1")
    found = fleet.collective
    assert found is not None and found.state.value == "pass", progress
    assert found.ranks == tuple(hosts.names) and found.message_bytes == 1 << 20
    assert found.bus_bytes_per_second and found.bus_bytes_per_second > 0
    assert found.straggler == "n003"
    assert fleet.decision is Decision.GO
