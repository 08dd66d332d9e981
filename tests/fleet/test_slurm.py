"""``srun bench run``, joined: the launcher does not matter, the files do. (``--slurm``: `test_transports`.)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.fleet.join.folder import join_folder
from bench.judge.fleet.model import Fleet
from bench.model import Decision
from tests.fleet import slurm
from tests.fleet.drive import STAND_IN
from tests.fleet.make import judgement
from tests.fleet.test_run import STORAGE_ONLY, drive, states
from tests.fleet.testbed import Testbed


@pytest.fixture(scope="module")
def cluster(hosts: Testbed) -> Iterator[slurm.Slurm]:
    reason = slurm.reason_for_none()
    if reason:
        pytest.skip(reason)
    found = slurm.Slurm(hosts)
    try:
        yield found.up()
    finally:
        found.down()


@pytest.fixture(scope="module")
def ours(hosts: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what the engine makes of these hosts: sweep and pairs. (Its collective: `tests.fleet.test_run`.)"""
    folder = tmp_path_factory.mktemp("ours") / "engine"
    drive(hosts, folder, wait=200)
    return folder


def by_slurm(cluster: slurm.Slurm, folder: Path, words: str = "") -> tuple[Fleet, int]:
    """(the joined fleet of a sweep alone, srun's own status)."""
    folder.mkdir()
    inner = f"exec {STAND_IN} sweep {words} >{folder}/$(hostname).json"
    done = cluster.srun("sh", "-c", inner)
    return join_folder(folder, cluster.hosts.names, judgement(STORAGE_ONLY)), done.returncode


@pytest.mark.timeout(300)
def test_srun_and_the_engine_come_to_the_same_verdict(cluster: slurm.Slurm, ours: Path, tmp_path: Path) -> None:
    engine = join_folder(ours, None, judgement(STORAGE_ONLY))
    theirs, status = by_slurm(cluster, tmp_path / "theirs")
    assert status == 0
    assert states(theirs) == states(engine) == dict.fromkeys(cluster.hosts.names, "pass")
    assert theirs.decision is engine.decision is Decision.GO
    assert [v.nodes for v in theirs.verdicts] == [v.nodes for v in engine.verdicts]


def test_a_node_that_returns_garbage_under_srun_is_a_hole(cluster: slurm.Slurm, tmp_path: Path) -> None:
    """srun's own status is 0 although a node has no result: only the list of names and the files can tell."""
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / "n002").write_text("garbage")
    fleet, status = by_slurm(cluster, tmp_path / "run", f"--faults {faults}")
    assert status == 0
    assert states(fleet) == {"n001": "pass", "n002": "bad-result", "n003": "pass", "n004": "pass"}
    assert fleet.decision is Decision.INCONCLUSIVE
    assert json.loads(fleet.model_dump_json(by_alias=True))["schema"] == "aiready-bench/fleet"
