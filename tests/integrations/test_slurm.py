"""The shipped Slurm files on a real Slurm of two nodes: who is drained, with which reason, and who is left alone."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.model import Run
from tests.cli.test_start import HEAVY, imported
from tests.integrations.monitoring import wait_for
from tests.integrations.slurm import Slurm, cluster
from tests.show.export.sample import good, here, inconclusive, starved, stored

FILES = Path(__file__).parents[2] / "docs" / "integrations" / "slurm"
NODES = ("n1", "n2")
REASON = "aiready-bench: NO-GO distributed-training: starvation (storage) 66 %, needs <= 10 %"
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd must be root"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the cluster: one results folder a node, and the shipped script as slurm.conf names it."""
    made = tmp_path_factory.mktemp("slurm")
    made.chmod(0o755)
    for program in ("health", "prolog"):
        wrapper = made / f"{program}.sh"
        wrapper.write_text(
            "#!/bin/bash\n"
            f"export AIREADY_SETTINGS={made}/$SLURMD_NODENAME.env SLURM_CONF={made}/cluster/slurm.conf\n"
            f"{shlex.quote(str(FILES))}/aiready-bench-{program}; status=$?\n"
            f"echo . >> {made}/{program}.$SLURMD_NODENAME; exit $status\n"
        )
        wrapper.chmod(0o755)
    command = made / "bench"
    root, python = (shlex.quote(str(path)) for path in (Path.cwd(), sys.executable))
    command.write_text(f'#!/bin/bash\ncd {root} && exec {python} -m bench "$@"\n')
    command.chmod(0o755)
    for node in NODES:
        (made / node).mkdir()
        settings(made, node)
    return made


def settings(folder: Path, node: str, mode: int = 0o644, **extra: str) -> None:
    """The settings that /etc/aiready-bench/slurm.env would hold, put in place at once."""
    found = {"BENCH": f"{folder}/bench", "BENCH_RESULTS": f"{folder}/{node}", "AIREADY_MAX_AGE": "99999h",
             "AIREADY_LOCK": str(folder), "AIREADY_TIMEOUT": "60", **extra}  # fmt: skip
    path, new = folder / f"{node}.env", folder / f"{node}.new"
    new.write_text("".join(f"{name}={value}\n" for name, value in found.items()))
    new.chmod(mode)
    new.replace(path)


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Slurm]:
    health = f"HealthCheckProgram={folder}/health.sh\nHealthCheckInterval=2\nHealthCheckNodeState=ANY\n"
    made = folder / "cluster"
    made.mkdir(mode=0o755)
    with cluster(made, f"{health}Prolog={folder}/prolog.sh\nPrologFlags=Alloc") as running:
        yield running


@pytest.fixture
def slurm(running: Slurm, folder: Path) -> Slurm:
    """The cluster with two nodes that are good and take jobs, whatever the test before left, or the try before."""
    for node in NODES:
        settings(folder, node)
        measured(folder, node, good())
        resume(running, node)
    assert wait_for(lambda: not any(drained(running, node)[0] for node in NODES), 60)
    return running


def resume(slurm: Slurm, node: str) -> None:
    """Drained by somebody else first, so that the health check keeps away."""
    slurm.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=between tests")
    slurm.call("scontrol", "update", f"nodename={node}", "state=resume")


def measured(folder: Path, node: str, run: Run) -> None:
    """A newer run than all before."""
    count = len(list((folder / node).rglob("*.json")))
    started_at = f"2026-11-22T12:{count // 60:02d}:{count % 60:02d}Z"
    stored(folder / node, run.model_copy(update={"id": f"run{count}", "started_at": started_at}))


def becomes(slurm: Slurm, node: str, word: str) -> bool:
    return wait_for(lambda: word in slurm.state(node)[0], 60)


def stays(slurm: Slurm, node: str) -> bool:
    """Drain and reason do not change over two more health checks of that node, however long these take."""
    counted = slurm.folder.parent / f"health.{node}"

    def checks() -> int:
        return len(counted.read_text().split()) if counted.exists() else 0

    before, first = drained(slurm, node), checks()
    assert wait_for(lambda: checks() >= first + 2, 90), "the health check did not run"
    return drained(slurm, node) == before


def drained(slurm: Slurm, node: str) -> tuple[bool, str]:
    """What the script decides about; a busy machine may make a node COMPLETING or NOT_RESPONDING for a while."""
    state, reason = slurm.state(node)
    return "DRAIN" in state, reason


def test_no_go_drains_with_the_reason_and_go_does_not(slurm: Slurm, folder: Path) -> None:
    measured(folder, "n1", starved())
    measured(folder, "n2", good())
    assert becomes(slurm, "n1", "DRAIN")
    assert slurm.state("n1")[1] == REASON
    assert stays(slurm, "n2")
    assert drained(slurm, "n2") == (False, "")


def test_go_again_resumes_our_own_drain(slurm: Slurm, folder: Path) -> None:
    measured(folder, "n1", starved())
    assert becomes(slurm, "n1", "DRAIN")
    measured(folder, "n1", good())
    assert wait_for(lambda: not drained(slurm, "n1")[0], 60)


def test_a_foreign_drain_is_left_alone_whatever_the_verdict(slurm: Slurm, folder: Path) -> None:
    slurm.call("scontrol", "update", "nodename=n1", "state=drain", "reason=bad fan, ticket 12")
    assert stays(slurm, "n1")
    assert drained(slurm, "n1") == (True, "bad fan, ticket 12")
    measured(folder, "n1", starved())
    assert stays(slurm, "n1")
    assert drained(slurm, "n1") == (True, "bad fan, ticket 12")
    measured(folder, "n1", good())
    assert stays(slurm, "n1")
    slurm.call("scontrol", "update", "nodename=n1", "state=resume")
    assert wait_for(lambda: not drained(slurm, "n1")[0], 60)


def test_inconclusive_and_no_run_at_all_drain_only_when_asked(slurm: Slurm, folder: Path) -> None:
    measured(folder, "n1", inconclusive())
    assert stays(slurm, "n1")
    assert not drained(slurm, "n1")[0]
    settings(folder, "n1", AIREADY_INCONCLUSIVE="drain")
    assert becomes(slurm, "n1", "DRAIN")
    assert slurm.state("n1")[1].startswith("aiready-bench: INCONCLUSIVE batch-inference: ")
    settings(folder, "n1")
    measured(folder, "n1", good())
    assert wait_for(lambda: not drained(slurm, "n1")[0], 60)


def test_a_job_does_not_start_on_a_node_that_is_no_go(slurm: Slurm, folder: Path) -> None:
    assert slurm.call("srun", "-w", "n2", "-n1", "echo", "started").strip() == "started"
    resume(slurm, "n2")
    measured(folder, "n2", starved())
    ended = subprocess.run(
        ["srun", "-w", "n2", "-n1", "--immediate=8", "--no-requeue", "echo", "started"],
        env=slurm.environment(), capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ended.stdout == ""
    assert becomes(slurm, "n2", "DRAIN")


def test_dry_run_and_loose_settings_change_nothing(slurm: Slurm, folder: Path) -> None:
    settings(folder, "n1", AIREADY_DRY_RUN="yes")
    measured(folder, "n1", starved())
    assert stays(slurm, "n1")
    assert not drained(slurm, "n1")[0]
    settings(folder, "n1", 0o666)  # anybody could have written it: not read, so there is no run and no verdict
    assert stays(slurm, "n1")
    assert not drained(slurm, "n1")[0]


def test_the_nightly_run_measures_inside_its_reservation_and_joins(slurm: Slurm, folder: Path) -> None:
    nightly, seen = str(FILES / "aiready-bench-nightly"), folder / "seen"
    shutil.rmtree(seen, ignore_errors=True)
    seen.mkdir()
    fake = folder / "fake-bench"  # what is under test is the reservation, the steps and the join, not the measuring
    fake.write_text(
        f'#!/bin/bash\necho "$*" > {seen}/$1.${{SLURMD_NODENAME:-login}}\n[ $1 = run ] || cat $6 >> {seen}/hosts\n'
    )
    fake.chmod(0o755)
    env = {**slurm.environment(), "BENCH": str(fake), "BENCH_RESULTS": str(folder / "night"), "AIREADY_MINUTES": "1"}
    try:
        for words in (["reserve", "now", "5"], ["run"]):
            done = subprocess.run(
                ["timeout", "-k", "5", "140", nightly, *words], env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in seen.iterdir()) == ["fleet.login", "hosts", "run.n1", "run.n2"]
        assert (seen / "run.n1").read_text() == f"run --quiet --results {folder}/night\n"
        assert (seen / "fleet.login").read_text().startswith(f"fleet join {folder}/night --newest --expect ")
        assert (seen / "hosts").read_text().split() == ["n1", "n2"]
    finally:
        subprocess.run([nightly, "remove"], env=env, capture_output=True, timeout=60, check=True)


def test_the_answer_loads_nothing_heavy(folder: Path) -> None:
    """A node that starts a job waits for it: `python -m tests.perf.startup` tells how long `bench gate` takes."""
    measured(folder, "n1", here())
    assert not imported("export", "-f", "npd", "--results", str(folder / "n1"), cwd=folder) & set(HEAVY)


def test_the_scripts_are_sound_shell() -> None:
    for script in FILES.glob("aiready-bench-*"):
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
        assert os.access(script, os.X_OK)
