"""A fleet run over a real Slurm: `tests.fleet.transport_cases`; and ``srun bench run``, joined: the launcher does not
matter, the files do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.fleet.join.folder import join_folder
from bench.judge.fleet.model import Fleet
from bench.model import Decision
from tests.fleet.drive import STAND_IN
from tests.fleet.make import judgement
from tests.fleet.test_run import STORAGE_ONLY, states
from tests.fleet.testbed import Testbed
from tests.fleet.transport_cases import Whole, check_command, check_faults, check_kills, check_whole, whole_run
from tests.fleet.ways import SlurmWay, way_over


@pytest.fixture(scope="module")
def slurm(hosts: Testbed) -> Iterator[SlurmWay]:
    with way_over("slurm", hosts) as way:
        assert isinstance(way, SlurmWay)
        yield way


@pytest.fixture(scope="module")
def whole(slurm: SlurmWay, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return whole_run(slurm, tmp_path_factory.mktemp("whole"))


@pytest.mark.timeout(400)
def test_the_whole_suite_comes_to_one_verdict(slurm: SlurmWay, whole: Whole) -> None:
    check_whole(slurm, whole)


def by_srun(slurm: SlurmWay, folder: Path, words: str = "") -> tuple[Fleet, int]:
    """(the joined fleet of a sweep alone, srun's own status)."""
    folder.mkdir()
    inner = f"exec {STAND_IN} sweep {words} >{folder}/$(hostname).json"
    done = slurm.cluster.srun("sh", "-c", inner)
    return join_folder(folder, slurm.hosts.names, judgement(STORAGE_ONLY)), done.returncode


def test_srun_and_the_controller_come_to_the_same_verdict(slurm: SlurmWay, whole: Whole, tmp_path: Path) -> None:
    ours = join_folder(whole.folder, None, judgement(STORAGE_ONLY))
    theirs, status = by_srun(slurm, tmp_path / "theirs")
    assert status == 0
    assert states(theirs) == states(ours) == dict.fromkeys(slurm.hosts.names, "pass")
    assert theirs.decision is ours.decision is Decision.GO
    assert [v.nodes for v in theirs.verdicts] == [v.nodes for v in ours.verdicts]


def test_a_node_that_returns_garbage_under_srun_is_a_hole(slurm: SlurmWay, tmp_path: Path) -> None:
    """srun's own status is 0 although a node has no result: only the list of names and the files can tell."""
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / "n002").write_text("garbage")
    fleet, status = by_srun(slurm, tmp_path / "run", f"--faults {faults}")
    assert status == 0
    assert states(fleet) == {"n001": "pass", "n002": "bad-result", "n003": "pass", "n004": "pass"}
    assert fleet.decision is Decision.INCONCLUSIVE
    assert json.loads(fleet.model_dump_json(by_alias=True))["schema"] == "aiready-bench/fleet"


@pytest.mark.timeout(400)
def test_a_controller_that_is_killed_or_interrupted_loses_nothing_and_nothing_runs_twice(
    slurm: SlurmWay, tmp_path: Path
) -> None:
    check_kills(slurm, tmp_path)


@pytest.mark.timeout(300)
def test_the_command_itself_brings_the_product_measures_and_stores(slurm: SlurmWay, tmp_path: Path) -> None:
    check_command(slurm, tmp_path)


@pytest.mark.timeout(400)
def test_every_named_host_has_its_one_true_outcome_and_resume_completes(slurm: SlurmWay, tmp_path: Path) -> None:
    check_faults(slurm, tmp_path)
