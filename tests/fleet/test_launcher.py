"""Who a task is, and who the others are, by what the site's launcher says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.fleet.errors import FleetError
from bench.fleet.launcher import host_of, hosts_of, own_address

HOSTS = ["gpu-1", "gpu-2", "gpu-3"]


def test_the_nodes_are_those_named_or_slurms_or_those_of_the_folder(tmp_path: Path) -> None:
    assert hosts_of("a,b", tmp_path, {}) == ["a", "b"]
    (tmp_path / "list").write_text("a # the first\n\nb\n")
    assert hosts_of(str(tmp_path / "list"), tmp_path, {"SLURM_JOB_NODELIST": "x"}) == ["a", "b"]
    (tmp_path / "hosts.txt").write_text("c\n")
    assert hosts_of(None, tmp_path, {}) == ["c"]
    with pytest.raises(FleetError, match="--hosts FILE"):
        hosts_of(None, tmp_path / "empty", {})
    with pytest.raises(FleetError, match="twice"):
        hosts_of("a,a", tmp_path, {})


@pytest.mark.parametrize(
    ("host", "rank", "env", "expected"),
    [
        ("gpu-2", None, {}, "gpu-2"),
        (None, 2, {}, "gpu-3"),
        (None, None, {"SLURMD_NODENAME": "gpu-1", "SLURM_LOCALID": "0"}, "gpu-1"),
        (None, None, {"SLURMD_NODENAME": "gpu-3.site"}, "gpu-3"),
        (None, None, {"JOB_COMPLETION_INDEX": "1"}, "gpu-2"),
        (None, None, {"OMPI_COMM_WORLD_RANK": "0"}, "gpu-1"),
    ],
)
def test_a_task_learns_which_node_it_is(host: str | None, rank: int | None, env: dict[str, str], expected: str) -> None:
    assert host_of(HOSTS, host, rank, env) == expected


@pytest.mark.parametrize(
    ("host", "rank", "env", "words"),
    [
        ("other", None, {}, "--host other"),
        (None, 3, {}, "--rank 3: there are 3 nodes"),
        (None, None, {}, "none of the 3 nodes"),
        (None, None, {"JOB_COMPLETION_INDEX": "7"}, "JOB_COMPLETION_INDEX 7"),
        (None, None, {"JOB_COMPLETION_INDEX": "x"}, "--host or --rank"),
        ("gpu-1", None, {"SLURM_LOCALID": "1"}, "--ntasks-per-node=1"),
    ],
)
def test_a_task_that_cannot_say_which_node_it_is_says_so(
    host: str | None, rank: int | None, env: dict[str, str], words: str
) -> None:
    with pytest.raises(FleetError, match=re.escape(words)) as caught:
        host_of(HOSTS, host, rank, env)
    assert "\n" not in str(caught.value)


def test_a_network_that_this_node_is_not_in_is_refused() -> None:
    with pytest.raises(FleetError, match="--network"):
        own_address("no-such-card")
