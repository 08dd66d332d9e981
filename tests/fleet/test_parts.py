"""The engine's parts without hosts: schedules, waves, scripts and their frames, plans, what looks like a secret."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.fleet import job_script
from bench.fleet.job_script import BadResult
from bench.fleet.jobs import Log
from bench.fleet.pair_rounds import at_random, ceiling, circle, schedule, suspects
from bench.fleet.plan import FleetPlan, HostVars, checked_env, host_vars, load, waves
from bench.fleet.transport.ansible import _hosts, _last_line


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 31, 32])
def test_the_circle_meets_every_pair_once_and_nobody_twice_in_a_round(n: int) -> None:
    hosts = [f"n{i}" for i in range(n)]
    rounds = circle(hosts)
    assert len(rounds) == n - 1 + n % 2
    met = Counter(frozenset(pair) for one in rounds for pair in one)
    assert len(met) == n * (n - 1) // 2 and set(met.values()) == {1}
    for one in rounds:
        ends = [host for pair in one for host in pair]
        assert len(ends) == len(set(ends))
    clients = Counter(client for one in rounds for client, _ in one)
    assert n < 4 or min(clients[host] for host in hosts) >= 1


def test_random_rounds_are_disjoint_seeded_and_hardly_repeat() -> None:
    hosts = [f"n{i}" for i in range(64)]
    rounds = at_random(hosts, 3, seed=7)
    assert rounds == at_random(hosts, 3, seed=7) != at_random(hosts, 3, seed=8)
    met = Counter(frozenset(pair) for one in rounds for pair in one)
    assert set(met.values()) == {1} and len(met) >= 90
    assert len(schedule(hosts, "auto")) == 3 and len(schedule(hosts, "all")) == 63
    with pytest.raises(ValueError, match="pairs"):
        schedule(hosts, "some")


def test_suspects_meet_sound_hosts_and_a_ceiling_cuts_rounds() -> None:
    second = suspects({"s1": 2, "s2": 2}, ["a", "b", "c"], [("b", "s1")])
    met = [pair for one in second for pair in one]
    assert len({sound for _, sound in met}) == 3, "the sound ones take turns"
    assert ("s1", "b") not in met and Counter(a for a, _ in met) == {"s1": 2, "s2": 2}
    for one in second:
        assert len({host for pair in one for host in pair}) == 2 * len(one), "nobody twice in a round"
    assert suspects({"s1": 2}, []) == [] and suspects({"s1": 0}, ["a"]) == []
    assert suspects({"s1": 2}, ["a"]) == [(("s1", "a"),)], "as many as there are"
    cut = ceiling(circle([f"n{i}" for i in range(8)]), 3)
    assert max(len(one) for one in cut) == 3 and sum(len(one) for one in cut) == 28


def test_waves_bound_one_storage_system_and_not_another() -> None:
    hosts = [f"n{i}" for i in range(6)]
    group = {host: "a" if i < 4 else "b" for i, host in enumerate(hosts)}
    assert waves(hosts, group, 2) == [["n0", "n1", "n4", "n5"], ["n2", "n3"]]
    assert waves(hosts, group, None) == [hosts] and waves([], {}, 1) == []


# --- what runs on a node, run here


def frame(claim: str, out: bytes, rc: str = "0", digest: str | None = None) -> str:
    packed = base64.b64encode(gzip.compress(out)).decode()
    digest = digest or hashlib.sha256(out).hexdigest()
    return f"welcome to the node\nAIREADY {claim} {rc} {digest} {len(out)}\n{packed}\nAIREADY-END {claim}\nbye\n"


def test_a_frame_is_found_among_banners() -> None:
    found = job_script.parse(frame("r.sweep.1", b'{"a": 1}'), "r.sweep.1")
    assert (found.rc, found.out) == (0, b'{"a": 1}')


@pytest.mark.parametrize(
    ("stdout", "word"),
    [
        ("", "nothing"),
        ("Warning: libfoo not found\n{not json", "no result"),
        (frame("other.1", b"x"), "no result"),
        (frame("r.1", b"x").replace("AIREADY-END", "END"), "torn"),
        (frame("r.1", b"x", digest="0" * 64), "length or digest"),
        (frame("r.1", b"x", rc="zero"), "torn"),
        (frame("r.1", b"x") + frame("r.1", b"y"), "2 times"),
        ("AIREADY r.1 0 " + "0" * 64 + " 5\n####\nAIREADY-END r.1\n", "damaged"),
        (frame("r.1", bytes(40 << 20)), "larger than 32 MiB"),
    ],
)
def test_what_is_no_frame_is_refused_in_one_line(stdout: str, word: str) -> None:
    with pytest.raises(BadResult, match=word) as caught:
        job_script.parse(stdout, "r.1")
    assert "\n" not in str(caught.value) and caught.value.twice == ("2 times" in word)


def on_this_node(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def claim() -> Iterator[str]:
    """A claim of its own; its folders, and those of claims that begin so, are removed."""
    name = f"test-{os.getpid()}-{os.urandom(4).hex()}"
    yield name
    for folder in Path(f"/var/tmp/aiready-bench-{os.getuid()}").glob(f"{name}*"):
        shutil.rmtree(folder)


def test_a_job_runs_once_is_bounded_and_is_collected_later(claim: str) -> None:
    done = on_this_node(job_script.run(claim, "echo hello; echo trouble >&2; exit 3", 10, {"A_B": "it's"}))
    found = job_script.parse(done.stdout, claim)
    assert (found.rc, found.out, found.stderr) == (3, b"hello\n", "trouble\n")
    assert on_this_node(job_script.run(claim, "echo again", 10, {})).returncode == job_script.CLAIMED
    assert job_script.parse(on_this_node(job_script.collect(claim)).stdout, claim).out == b"hello\n"
    late = on_this_node(job_script.run(f"{claim}.b", "sleep 60", 1, {}))
    assert job_script.parse(late.stdout, f"{claim}.b").rc in job_script.TIMED_OUT
    assert job_script.marker(on_this_node(job_script.collect(f"{claim}.c")).stdout, f"{claim}.c") == "NONE"


def test_a_flood_of_garbage_does_not_come_back(claim: str) -> None:
    done = on_this_node(job_script.run(claim, "head -c 50000000 /dev/urandom", 30, {}))
    assert len(done.stdout) < 10_000
    with pytest.raises(BadResult, match="more than any run is"):
        job_script.parse(done.stdout, claim)


def test_a_job_that_died_with_its_machine_is_told_from_one_that_runs(claim: str) -> None:
    place = Path(f"/var/tmp/aiready-bench-{os.getuid()}") / claim
    place.mkdir(mode=0o700, parents=True)
    (place / "pid").write_text("1 12345678901\n")  # process 1 began at another time
    assert job_script.marker(on_this_node(job_script.collect(claim)).stdout, claim) == "DIED"
    stat = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()
    (place / "pid").write_text(f"{os.getpid()} {stat[19]}\n")
    assert job_script.marker(on_this_node(job_script.collect(claim, wait=1)).stdout, claim) == "RUNNING"


def running(pid: int) -> bool:
    """Not a zombie that nobody has waited for yet either."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_server_is_ready_and_is_ended(claim: str) -> None:
    family, address = claim, f"{claim}.1"
    up = on_this_node(job_script.serve(address, "echo it is ready; exec sleep 50", "is ready", 40, {}))
    assert job_script.marker(up.stdout, address) == "SERVING"
    pid = int((Path(f"/var/tmp/aiready-bench-{os.getuid()}") / address / "pid").read_text().split()[0])
    assert running(pid)
    assert on_this_node(job_script.stop(family)).returncode == 0
    assert not running(pid)
    broken = on_this_node(job_script.serve(f"{claim}.2", "echo no; exit 1", "is ready", 40, {}))
    assert broken.returncode == 1 and "no" in broken.stderr


def test_claims_and_variables_are_checked_before_they_reach_a_shell() -> None:
    for claim in ("a b", "$(x)", "../x", ""):
        with pytest.raises(ValueError, match="claim"):
            job_script.run(claim, "true", 1, {})
    with pytest.raises(ValueError, match="variable"):
        job_script.run("ok", "true", 1, {"a;b": "1"})


# --- plans, inventories, logs


@pytest.mark.parametrize("word", ["API_TOKEN=x", "DB_PASSWORD=x", "AWS_SECRET_ACCESS_KEY=x", "novalue", "a b=c"])
def test_what_looks_like_a_secret_does_not_go_to_a_node(word: str) -> None:
    with pytest.raises(UserError):
        checked_env([word])


def test_only_our_own_variables_of_the_inventory_are_kept(tmp_path: Path) -> None:
    values = {"ansible_host": "10.0.0.1", "ansible_become_pass": "hunter2", "bench_env": {"BENCH_LOCK": "/l/{host}"}}
    kept = host_vars("n1", values, {}, "python3")
    assert kept == HostVars(address="10.0.0.1", python="python3", env={"BENCH_LOCK": "/l/{host}"})
    plan = FleetPlan("id", ("/i",), ("n1",), {"n1": kept}, "exec {python} x {host} {address} ${HOME}", 5.0)
    plan.save(tmp_path)
    assert "hunter2" not in (tmp_path / "plan.json").read_text()
    assert load(tmp_path) == plan
    assert plan.env("n1") == {"BENCH_LOCK": "/l/n1"}
    assert plan.command(plan.sweep, "n1", "a b") == "exec python3 x n1 'a b' ${HOME}"
    (tmp_path / "plan.json").write_text(json.dumps({"schema": "other"}))
    with pytest.raises(UserError, match="plan"):
        load(tmp_path)


def test_hosts_of_nested_groups_come_once_in_order() -> None:
    listing = {
        "_meta": {"hostvars": {"b": {"x": 1}}},
        "all": {"children": ["ungrouped", "gpu"]},
        "gpu": {"children": ["rack1"], "hosts": ["b"]},
        "rack1": {"hosts": ["a", "b"]},
    }
    assert _hosts(listing) == {"b": {"x": 1}, "a": {}}
    assert _last_line("x\nTask failed: Failed to connect to the host via ssh: no route\n\n") == "no route"


def test_a_torn_log_is_read_to_its_last_whole_line(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write([{"phase": "sweep", "key": "n1", "host": "n1", "attempt": 1}])
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write("[" * 100_000 + "\n")
        file.write('{"phase": "sweep", "key": "n2", "ho')
    assert Log(tmp_path).started == {("sweep", "n1"): 1}
