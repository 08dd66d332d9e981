"""The same suite started by ``srun``, joined to the same verdict: the launcher does not matter, the files do."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.fleet.files import join_folder
from bench.judge.fleet.model import Fleet
from bench.model import Decision
from tests.fleet import slurm
from tests.fleet.attend import NETWORK
from tests.fleet.drive import NODE
from tests.fleet.make import judgement
from tests.fleet.test_run import RANK, ROOT, STORAGE_ONLY, drive, starts, states
from tests.fleet.testbed import Testbed

WHOLE: dict[str, Any] = {"collective": f"export PYTHONPATH={ROOT}; exec {RANK}", "collective_budget": 100.0}


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
    inner = f"exec {sys.executable} {NODE} sweep {words} >{folder}/$(hostname).json"
    done = cluster.srun("sh", "-c", inner)
    return join_folder(folder, cluster.hosts.names, judgement(STORAGE_ONLY)), done.returncode


def by_members(cluster: slurm.Slurm, folder: Path, absent: str = "nobody", **options: Any) -> tuple[Fleet, str, float]:
    """(the joined fleet of the whole suite, the members' progress, seconds). The hosts outlive a test, and a job runs
    once on a host: each test has a folder of its own name, which is the run's id.
    """
    began = time.monotonic()
    command = f'exec {sys.executable} -m tests.fleet.attend {folder} "$0" >>{folder.parent}/$(hostname).out 2>&1'
    inner = f"[ $(hostname) != {absent} ] || exit 1; export PYTHONPATH={ROOT}; {command}"
    done = cluster.srun("sh", "-c", inner, json.dumps(options), timeout=200)
    seconds = time.monotonic() - began
    logs = [*sorted(folder.parent.glob("*.log")), *sorted(folder.parent.glob("*.out"))]
    progress = "".join(f"--- {path.name}\n{path.read_text()}" for path in logs)
    sys.stdout.write(progress + done.stderr)
    return join_folder(folder, None, judgement(options.get("profile", STORAGE_ONLY))), progress, seconds


@pytest.mark.timeout(300)
def test_srun_and_the_engine_come_to_the_same_verdict(cluster: slurm.Slurm, ours: Path, tmp_path: Path) -> None:
    engine = join_folder(ours, None, judgement(STORAGE_ONLY))
    theirs, status = by_slurm(cluster, tmp_path / "theirs")
    assert status == 0
    assert states(theirs) == states(engine) == dict.fromkeys(cluster.hosts.names, "pass")
    assert theirs.decision is engine.decision is Decision.GO
    assert [v.nodes for v in theirs.verdicts] == [v.nodes for v in engine.verdicts]


@pytest.mark.timeout(300)
def test_the_whole_suite_by_srun_is_judged_as_that_of_the_engine(
    cluster: slurm.Slurm, ours: Path, tmp_path: Path
) -> None:
    """Six pairs in three rounds, a 4-rank all-reduce."""
    engine, log = join_folder(ours, None, judgement()), tmp_path / "starts"
    fleet, progress, _ = by_members(cluster, tmp_path / "whole", node=["--starts", str(log)], **WHOLE)
    assert states(fleet) == states(engine) == dict.fromkeys(cluster.hosts.names, "pass")
    assert fleet.decision is engine.decision is Decision.GO
    assert [v.nodes for v in fleet.verdicts] == [v.nodes for v in engine.verdicts]
    assert pairs(fleet) == pairs(engine) and len(fleet.pairs) == 6 and {p.round for p in fleet.pairs} == {0, 1, 2}
    assert set(pairs(fleet).values()) == {"pass"} and all(p.send_bytes_per_second for p in fleet.pairs)
    found = fleet.collective
    assert found is not None and found.state.value == "pass" and found.bus_bytes_per_second
    assert found.ranks == tuple(cluster.hosts.names)
    assert "n001.log" in progress and progress.count("I led") == 1
    left = [cluster.hosts.on(i, ["sh", "-c", "ps ax | grep -c '[n]ode.py'"]).stdout.strip() for i in (1, 2, 3, 4)]
    assert left == ["0"] * 4, "a server of the pairs was left running"


@pytest.mark.timeout(300)
def test_a_leader_that_is_killed_and_a_node_that_never_comes_cost_the_others_nothing(
    cluster: slurm.Slurm, tmp_path: Path
) -> None:
    """n001 leads and is killed in the sweep, n004 never comes: n002 goes on. The same command later completes it."""
    log = tmp_path / "starts"
    options: dict[str, Any] = {
        "node": ["--starts", str(log), "--seconds", "2"], "silent_beats": 4, "wait": 8.0, "profile": STORAGE_ONLY,
    }  # fmt: skip
    killer = threading.Thread(target=_kill_when_started, args=(cluster.hosts, 1, log))
    killer.start()
    try:
        fleet, progress, seconds = by_members(cluster, tmp_path / "killed", absent="n004", **options)
    finally:
        killer.join()
    assert states(fleet) == {"n001": "unreachable", "n002": "pass", "n003": "pass", "n004": "unreachable"}, progress
    assert "n001 has fallen silent" in progress and "n004 has not come" in progress
    assert {pair: state for pair, state in pairs(fleet).items() if state == "pass"} == {("n002", "n003"): "pass"}
    assert set(pairs(fleet).values()) == {"pass", "not-run"} and len(fleet.pairs) == 6
    assert fleet.decision is Decision.INCONCLUSIVE
    assert seconds < 8 + 4 + 2 + 60, "absent for 8 s, silent for 4 s, a sweep of 2 s, and a minute"
    mended, progress, _ = by_members(cluster, tmp_path / "killed", **options)
    assert states(mended) == dict.fromkeys(cluster.hosts.names, "pass"), progress
    assert mended.decision is Decision.GO and set(pairs(mended).values()) == {"pass"}
    assert starts(log) == {"n001": 2, "n002": 1, "n003": 1, "n004": 1}


def pairs(fleet: Fleet) -> dict[tuple[str, str], str]:
    return {(pair.client, pair.server): pair.state.value for pair in fleet.pairs}


def _kill_when_started(hosts: Testbed, i: int, log: Path) -> None:
    """SIGKILL, once three nodes sweep."""
    _until(lambda: len(starts(log)) == 3)
    hosts.on(i, ["pkill", "-KILL", "-f", "tests.fleet.attend"])


def test_a_second_start_gives_way_and_sigterm_leaves_nothing_running(hosts: Testbed, tmp_path: Path) -> None:
    """A run of one node is enough for this, and needs no launcher."""
    log = tmp_path / "starts"
    options = json.dumps({"node": ["--starts", str(log), "--seconds", "90"], "budget": 100.0, "hosts": "n002,"})
    argv = hosts.on_argv(2, [sys.executable, "-m", "tests.fleet.attend", str(tmp_path / "ended"), options])
    env = hosts.environment(PYTHONPATH=str(ROOT))
    first = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
    try:
        _until(lambda: bool(starts(log)))
        second = subprocess.run(argv, env=env, timeout=60, check=False)
        assert second.returncode == 2, "two processes took part as one node"
        assert "another process takes part as n002" in (tmp_path / "n002.log").read_text()
        assert first.poll() is None and hosts.on(2, ["pgrep", "-f", "node.py"]).returncode == 0
    finally:
        hosts.on(2, ["pkill", "-TERM", "-f", "tests.fleet.attend"])
    assert first.wait(30) == 128 + 15
    assert hosts.on(2, ["pgrep", "-f", "node.py"]).returncode == 1, "what it had started runs on"
    assert json.loads((tmp_path / "ended" / ".mail" / "beat.0").read_text())["left"] is True
    assert starts(log) == {"n002": 1}


def _until(there: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not there():
        time.sleep(0.1)


@pytest.mark.timeout(200)
def test_the_command_itself_under_srun_and_its_verdict(cluster: slurm.Slurm, tmp_path: Path) -> None:
    """Slurm's own environment says who is who; the hosts have no GPU to probe, so it is INCONCLUSIVE."""
    bench = [sys.executable, "-m", "bench", "fleet"]
    words = [
        "--probe",
        "gpu",
        "--pairs",
        "none",
        "--no-collective",
        "--wait",
        "60",
        "--network",
        NETWORK,
        "--profile",
        "batch-inference",
    ]
    inner = f'unset BENCH_LOCK; export PYTHONPATH={ROOT}; exec "$@"'
    done = cluster.srun("sh", "-c", inner, "_", *bench, "member", str(tmp_path / "run"), *words, timeout=150)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("bench fleet join") == 1 and "Traceback" not in done.stderr
    joined = cluster.hosts.controller([*bench, "join", str(tmp_path / "run"), "--json"], PYTHONPATH=str(ROOT))
    assert joined.returncode == 3, joined.stderr
    assert states(Fleet.model_validate_json(joined.stdout)) == dict.fromkeys(cluster.hosts.names, "inconclusive")


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
