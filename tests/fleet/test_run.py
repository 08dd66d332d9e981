"""A whole fleet run over four hosts with sshd: sweep, pairs, faults of every kind, resume.

The hosts are namespaces of this machine; what they run is a stand-in that starts in 30 ms, so that what is tested is
the engine. Each run's wait is bounded, and what hangs hangs for hours: a run that waited for it would not end.
Pairs with hosts that fail, and what is resumed of them, are in `tests.fleet.transport_cases`; the product itself, sent,
run, stored and resumed, in `tests.fleet.test_stage`.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.fleet.pair_rounds import schedule
from bench.judge.fleet.model import Fleet
from bench.model import Decision
from bench.show.html.page import render_fleet
from tests.cli.bench import bench
from tests.fleet.drive import STAND_IN
from tests.fleet.testbed import Testbed, must

ROOT = Path(__file__).resolve().parents[2]
ENV = {"PYTHONPATH": str(ROOT)}
STORAGE_ONLY = """
name = "storage-only"
[[gate]]
metric = "storage_read_bytes_per_second"
min = 1e8
source = "the test's own"
"""


def drive(
    hosts: Testbed, folder: Path, *, wait: float = 280, echo: bool = True, env: Mapping[str, str] = ENV, **options: Any
) -> tuple[Fleet, str, float]:
    """(the fleet, the progress lines, seconds)."""
    began = time.monotonic()
    words = json.dumps({"inventory": str(hosts.inventory), **options})
    argv = [sys.executable, "-m", "tests.fleet.drive", str(folder), words]
    done = hosts.controller(argv, timeout=wait, **env)
    if echo:  # pytest shows it with a failure
        sys.stdout.write(done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]
    return Fleet.model_validate_json(done.stdout), done.stderr, time.monotonic() - began


def states(fleet: Fleet) -> dict[str, str]:
    return {node.host: node.state.value for node in fleet.nodes}


def starts(path: Path) -> dict[str, int]:
    """How often each host was started."""
    lines = path.read_text().split("\n") if path.exists() else []
    hosts = [line.split()[0] for line in lines if line]
    return {host: hosts.count(host) for host in hosts}


RANK = (
    f"{shlex.quote(sys.executable)} -m probes.collective.load.rank --rank {{rank}} --world {{world}} "
    "--address {own} --master {address} --device cpu --bytes 1048576 --iterations 10"
)
#: n001 has two ranks, as a node with two GPUs has, the others one.
#: n003's, once it has come to the first, stands still for most of the time: by far the last, however busy this machine.
COLLECTIVE = f"""
export PYTHONPATH={shlex.quote(str(ROOT))}
[ {{host}} = n001 ] && exec {RANK} --ranks 2
[ {{host}} = n003 ] || exec {RANK}
{RANK} & p=$!
while kill -0 $p && [ -z "$(ss -Htn dst {{address}})" ]; do sleep 0.1; done
while grep -q 'State:.[RSD]' /proc/$p/status; do kill -STOP $p; sleep 0.3; kill -CONT $p; sleep 0.05; done
wait $p
"""


@pytest.mark.timeout(400)
def test_four_hosts_six_pairs_in_three_rounds_a_collective_one_verdict_and_page(hosts: Testbed, tmp_path: Path) -> None:
    folder, log, page = tmp_path / "a", tmp_path / "starts", tmp_path / "fleet.html"
    words = ["--starts", str(log)]
    more: dict[str, Any] = {"collective": COLLECTIVE, "collective_budget": 100.0, "shared_path": "/data"}
    fleet, progress, _ = drive(hosts, folder, node=words, shared=f"{STAND_IN} sweep", wait=200, **more)
    assert states(fleet) == dict.fromkeys(hosts.names, "pass")
    assert fleet.decision is Decision.GO
    assert [(v.profile, v.decision.value, dict(v.nodes)) for v in fleet.verdicts] == [("acceptance", "GO", {"GO": 4})]
    planned = [pair for one in schedule(hosts.names, "auto", 7) for pair in one]
    assert [(pair.client, pair.server) for pair in fleet.pairs] == planned
    assert len(fleet.pairs) == 6 and {pair.round for pair in fleet.pairs} == {0, 1, 2}
    assert all(pair.state.value == "pass" and pair.send_bytes_per_second for pair in fleet.pairs)
    found = fleet.collective
    assert found is not None and found.state.value == "pass", progress
    assert found.world == 5 and len(found.rows) == 4, "one outcome a host, however many ranks it has"
    assert found.ranks == tuple(hosts.names) and found.bus_bytes_per_second and found.straggler == "n003"
    assert len(fleet.shared) == 1 and fleet.shared[0].path == "/data"
    assert list(fleet.shared[0].alone) == ["n001"] and list(fleet.shared[0].together) == hosts.names
    page.write_text(render_fleet(fleet))
    assert "n003" in page.read_text() and "Each row sends to the columns." in page.read_text()
    again, progress, _ = drive(hosts, folder)
    assert starts(log) == dict.fromkeys(hosts.names, 1)
    assert " sweep " not in progress and " pairs " not in progress and " collective" not in progress
    assert again.nodes == fleet.nodes and again.pairs == fleet.pairs and again.collective == found
    left = [hosts.on(i, ["sh", "-c", "ps ax | grep -c '[n]ode.py'"]).stdout.strip() for i in hosts.numbers]
    assert left == ["0"] * 4, "a server of the pairs was left running"


@pytest.mark.timeout(400)
def test_every_kind_of_fault_has_its_one_true_outcome_and_resume_completes(hosts: Testbed, tmp_path: Path) -> None:
    """n001 is dead before, n002 hangs, n003's cable is cut in the middle, n004 returns garbage; then all are mended."""
    faults, log = tmp_path / "faults", tmp_path / "starts"
    faults.mkdir()
    (faults / "n002").write_text("hang")
    (faults / "n004").write_text("garbage")
    words = ["--faults", str(faults), "--starts", str(log), "--seconds", "3"]
    hosts.power_off(1)
    cut = threading.Thread(target=_cut_when_started, args=(hosts, 3, log))
    cut.start()
    try:
        fleet, progress, _ = drive(hosts, tmp_path / "b", node=words, budget=10.0, pairs="none", profile=STORAGE_ONLY)
    finally:
        cut.join()
        hosts.power_on(1)
        hosts.link(3, True)
    assert states(fleet) == {"n001": "unreachable", "n002": "node-timeout", "n003": "lost", "n004": "bad-result"}
    assert fleet.decision is Decision.INCONCLUSIVE
    assert hosts.on(2, ["pgrep", "-f", "node.py"]).returncode == 1, "the hung job outlived its bound"
    for fault in faults.iterdir():
        fault.unlink()
    mended, progress, _ = drive(hosts, tmp_path / "b", profile=STORAGE_ONLY)
    assert states(mended) == dict.fromkeys(hosts.names, "pass"), progress
    assert mended.decision is Decision.GO
    # n003 had finished behind the cut cable: its result was taken, it was not measured twice.
    assert starts(log) == {"n001": 1, "n002": 2, "n003": 1, "n004": 2}


def _cut_when_started(hosts: Testbed, i: int, log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and hosts.name(i) not in (log.read_text() if log.exists() else ""):
        time.sleep(0.1)
    hosts.link(i, False)


def test_frozen_twice_answering_and_two_names_of_one_machine(hosts: Testbed, tmp_path: Path) -> None:
    """n001 accepts connections and is silent, n002 answers twice, n003 has a second name, n004 says it is another."""
    faults, log = tmp_path / "faults", tmp_path / "starts"
    faults.mkdir()
    (faults / "n002").write_text("twice")
    (faults / "n004").write_text("wrong-host")
    second = tmp_path / "two.ini"
    second.write_text(
        hosts.inventory.read_text().replace("[gpu:vars]", f"n9 ansible_host={hosts.address(3)}\n[gpu:vars]")
    )
    hosts.freeze(1)
    try:
        words = ["--faults", str(faults), "--starts", str(log)]
        fleet, progress, _ = drive(
            hosts, tmp_path / "c", inventory=str(second), node=words, pairs="none", profile=STORAGE_ONLY
        )
    finally:
        hosts.freeze(1, stopped=False)
    expected = {"n001": "unreachable", "n002": "duplicate", "n003": "pass", "n004": "bad-result", "n9": "duplicate"}
    assert states(fleet) == expected, progress
    assert starts(log) == {"n002": 1, "n003": 1, "n004": 1}


#: What each host prints at a login, or what is wrong with the folder of its jobs.
LOGINS = {
    1: "printf 'Welcome, without an end of line'",
    2: "head -c 2000000 /dev/urandom | base64",  # more than ansible-runner keeps of a result
}
JOBS = "/var/tmp/aiready-bench-$(id -u)"


def test_what_a_login_prints_hides_nothing_and_a_folder_that_takes_nothing_is_said(
    hosts: Testbed, tmp_path: Path
) -> None:
    """n003 has no space for a job, n004 may not write there."""
    for i, text in LOGINS.items():  # sshd has all else from its own folder
        must(hosts.on_argv(i, ["sh", "-c", 'mount -t tmpfs tmpfs /etc/ssh; echo "$0" >/etc/ssh/sshrc', text]))
    must(hosts.on_argv(3, ["sh", "-c", f"head -c 300000000 /dev/zero >{JOBS}/fill || true"]))
    must(hosts.on_argv(4, ["sh", "-c", f"mount -o remount,ro {JOBS}"]))
    try:
        fleet, progress, _ = drive(hosts, tmp_path / "l", pairs="none", profile=STORAGE_ONLY)
    finally:
        must(hosts.on_argv(4, ["sh", "-c", f"mount -o remount,rw {JOBS}"]))
        must(hosts.on_argv(3, ["sh", "-c", f"rm {JOBS}/fill"]))
        for i in LOGINS:
            must(hosts.on_argv(i, ["umount", "/etc/ssh"]))
    assert states(fleet) == {"n001": "pass", "n002": "pass", "n003": "bad-result", "n004": "bad-result"}, progress
    reasons = {node.host: node.reason or "" for node in fleet.nodes}
    assert "nothing can be written" in reasons["n003"] and "Read-only file system" in reasons["n004"]
    mended, progress, _ = drive(hosts, tmp_path / "l", profile=STORAGE_ONLY)
    assert states(mended) == dict.fromkeys(hosts.names, "pass"), progress


def test_a_killed_controller_leaves_a_run_that_is_completed_once(hosts: Testbed, tmp_path: Path) -> None:
    """SIGKILL in the middle of the sweep: what had begun ends on its node, is taken on resume, and runs only once; but
    for n002, which loses its power meanwhile and what it had begun with it.
    """
    log = tmp_path / "starts"
    words = json.dumps(
        {"inventory": str(hosts.inventory), "node": ["--starts", str(log), "--seconds", "4"], "pairs": "none"}
    )
    argv = hosts.controller_argv([sys.executable, "-m", "tests.fleet.drive", str(tmp_path / "d"), words])
    process = subprocess.Popen(
        argv,
        cwd=tmp_path,
        env=hosts.environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while len(starts(log)) < 4 and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait(10)
    hosts.power_off(2)
    hosts.power_on(2)
    assert not list((tmp_path / "d" / "nodes").glob("*.json"))
    fleet, _, _ = drive(hosts, tmp_path / "d", profile=STORAGE_ONLY)
    assert states(fleet) == dict.fromkeys(hosts.names, "pass")
    assert starts(log) == {"n001": 1, "n002": 2, "n003": 1, "n004": 1}


@pytest.mark.parametrize(
    "options",
    [
        ["-i", "absent.ini"],
        ["--resume", "nothing"],
        [],
        ["-i", "n1,", "--effort", "x"],
        ["-i", "n1,", "--probe", "storag"],
        ["-i", "n1,", "--accelerator", "tpu"],
        ["-i", "n1,", "--slurm"],
        ["--slurm", "--ray", "auto"],
        ["-i", "n1,", "--ray", "auto"],
        ["--slurm"],
        ["--ray", "nonsense"],
        ["--ray", "nonsense", "--dry-run"],
        ["-i", "n1,", "--dry-run", "--profile", "nonsense"],
    ],
)
def test_wrong_usage_is_one_line_and_status_2(options: list[str], tmp_path: Path) -> None:
    done = bench("fleet", "run", *options, "--results", tmp_path, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_dry_run_leaves_to_the_pairs_what_needs_a_peer(tmp_path: Path) -> None:
    """RDMA was left to the sweep, where each node is alone: it was never measured."""
    done = bench("fleet", "run", "-i", "n1,n2,", "--dry-run", "--results", tmp_path, cwd=tmp_path)
    sweep, pairs = (
        next(line for line in done.stdout.splitlines() if line.startswith(f"{w}:")) for w in ("sweep", "pairs")
    )
    assert "--probe network --probe rdma --effort" in pairs, done.stderr
    assert "--probe storage" in sweep
    assert not [probe for probe in ("network", "rdma", "collective") if f"--probe {probe}" in sweep]
