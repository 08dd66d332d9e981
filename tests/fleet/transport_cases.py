"""What a fleet run does over a transport other than ansible, whose own tests stand in `tests.fleet.test_run`.

One verdict, and one true outcome for every named host. Each function takes a transport that stands on four hosts, so
that `test_slurm` and `test_ray` run beside each other, each with one cluster; controllers that are killed or
interrupted do so at the same time, because they mostly wait. More moments are in `tests.accuracy.fleet_kills`.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.fleet import staging
from bench.fleet.pair_rounds import schedule
from bench.judge.fleet.model import Fleet
from bench.model import Decision
from tests.accuracy.fleet_kills import Moment, kills
from tests.fleet.test_run import RANK, ROOT, STORAGE_ONLY, starts, states
from tests.fleet.testbed import Testbed
from tests.fleet.ways import Way

WHOLE: dict[str, Any] = {
    "collective": f"export PYTHONPATH={shlex.quote(str(ROOT))}; exec {RANK}",
    "collective_budget": 100.0,
}
VERDICTS = [("acceptance", "GO", {"GO": 4})]
BENCH = [sys.executable, "-m", "bench", "fleet", "run"]
#: By lines of the log: all hosts have begun; three of four have answered; in the first round of pairs.
MOMENTS = [Moment("begun", lines=8, alone=True), Moment("answered", lines=11), Moment("pairs", lines=18, alone=True)]


@dataclass(frozen=True)
class Whole:
    """A run of sweep, pairs and collective that has come to its end; ``log``: who was started."""

    folder: Path
    log: Path
    fleet: Fleet
    progress: str


def whole_run(way: Way, place: Path) -> Whole:
    folder, log = place / f"whole-{way.name}", place / "starts"
    fleet, progress, _ = way.drive(folder, node=["--starts", str(log)], wait=200, **WHOLE)
    return Whole(folder, log, fleet, progress)


def pairs(fleet: Fleet) -> dict[tuple[str, str], str]:
    return {(pair.client, pair.server): pair.state.value for pair in fleet.pairs}


def left(hosts: Testbed) -> list[str]:
    return [hosts.on(i, ["sh", "-c", "ps ax | grep -c '[n]ode.py'"]).stdout.strip() for i in hosts.numbers]


def check_whole(way: Way, run: Whole) -> None:
    """Sweep, six pairs in three rounds, an all-reduce; and nothing of it again when the run is resumed."""
    fleet = run.fleet
    assert states(fleet) == dict.fromkeys(way.hosts.names, "pass"), run.progress
    assert fleet.decision is Decision.GO
    assert [(v.profile, v.decision.value, dict(v.nodes)) for v in fleet.verdicts] == VERDICTS
    planned = [pair for one in schedule(way.hosts.names, "auto", 7) for pair in one]
    assert pairs(fleet) == dict.fromkeys(planned, "pass") and {p.round for p in fleet.pairs} == {0, 1, 2}
    assert all(p.send_bytes_per_second for p in fleet.pairs)
    found = fleet.collective
    assert found is not None and found.state.value == "pass" and found.bus_bytes_per_second
    assert found.ranks == tuple(way.hosts.names)
    again, progress, _ = way.drive(run.folder)
    assert starts(run.log) == dict.fromkeys(way.hosts.names, 1)
    assert " sweep " not in progress and " pairs " not in progress and " collective" not in progress
    assert again.nodes == fleet.nodes and again.pairs == fleet.pairs and again.collective == found
    assert left(way.hosts) == ["0"] * 4, "a server of the pairs was left running"


def check_faults(way: Way, place: Path) -> None:
    """n001 is dead before, n003 is switched off while it measures, n004 answers with garbage; then all are mended."""
    faults, log, folder = place / "faults", place / "starts", place / f"faults-{way.name}"
    faults.mkdir()
    (faults / "n004").write_text("garbage")
    words = ["--faults", str(faults), "--starts", str(log), "--seconds", "5"]
    off = threading.Thread(target=_off_when_started, args=(way.hosts, 3, log))
    way.hosts.power_off(1)
    off.start()
    try:
        fleet, progress, _ = way.drive(folder, node=words, budget=60.0, pair_budget=10.0, wait=200)
    finally:
        off.join()
        way.power_on(1, 3)
    assert states(fleet) == {"n001": "unreachable", "n002": "pass", "n003": "lost", "n004": "bad-result"}, progress
    assert fleet.decision is Decision.INCONCLUSIVE
    assert {pair: state for pair, state in pairs(fleet).items() if state == "pass"} == {("n004", "n002"): "pass"}
    assert len(fleet.pairs) == 6
    (faults / "n004").unlink()
    mended, progress, _ = way.drive(folder, wait=200)
    assert states(mended) == dict.fromkeys(way.hosts.names, "pass"), progress
    assert mended.decision is Decision.GO
    assert set(pairs(mended).values()) == {"pass"} and len(mended.pairs) == 6
    assert starts(log) == {"n001": 1, "n002": 1, "n003": 2, "n004": 2}
    assert left(way.hosts) == ["0"] * 4


def _off_when_started(hosts: Testbed, i: int, log: Path) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end and hosts.name(i) not in (log.read_text() if log.exists() else ""):
        time.sleep(0.1)
    hosts.power_off(i)


def check_kills(way: Way, place: Path) -> None:
    """Four runs at once, each resumed: three whose controller is killed at three moments, with all that it has started
    or alone, so that what it had started goes on without it; and one that is interrupted, which ends what runs.
    """
    with ThreadPoolExecutor() as pool:
        interrupted = pool.submit(_interrupt, way, place)
        assert kills(way, MOMENTS) == [True] * len(MOMENTS)
        fleet, progress = interrupted.result()
    assert states(fleet) == dict.fromkeys(way.hosts.names, "pass"), progress


def _interrupt(way: Way, place: Path) -> tuple[Fleet, str]:
    folder, log = place / f"int-{way.name}", place / "starts"
    options = {**way.options, "node": ["--starts", str(log), "--seconds", "5"], "pairs": "none"}
    argv = [sys.executable, "-m", "tests.fleet.drive", str(folder), json.dumps(options)]
    env = way.hosts.environment(**way.env)
    process = subprocess.Popen(way.hosts.controller_argv(argv), env=env, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while len(starts(log)) < 4 and time.monotonic() < end:
        time.sleep(0.1)
    process.terminate()
    _, said = process.communicate(timeout=90)
    assert process.returncode != 0 and b"Interrupted" in said
    fleet, progress, _ = way.drive(folder, profile=STORAGE_ONLY)
    return fleet, progress


def check_command(way: Way, place: Path) -> None:
    """The command itself brings the product to a host whose Python lacks it, measures, and stores. There is no GPU to
    probe, so it is INCONCLUSIVE.
    """
    results, bare = place / "results", str(Path(sys.executable).resolve())
    words = [*way.words, "--limit", "n001", "--probe", "gpu", "--pairs", "none", "--no-collective",
             "--results", str(results), "--python", bare]  # fmt: skip
    env = {name: value for name, value in way.env.items() if name != "PYTHONPATH"}  # srun takes it to the nodes
    way.hosts.on(1, ["rm", "-rf", "/var/tmp/aiready-bench-0/stage"])
    before = [[*BENCH, *words, "--dry-run"], [*BENCH, *way.words, "--limit", "n009", "--results", str(results)]]
    with ThreadPoolExecutor() as pool:
        dry, unknown = pool.map(lambda argv: way.hosts.controller(argv, timeout=100, **env), before)
    assert unknown.returncode == 2 and len(unknown.stderr.strip().splitlines()) == 1
    assert dry.returncode == 0 and "hosts (1): n001" in dry.stdout and not results.exists(), dry.stderr
    done = way.hosts.controller([*BENCH, *words, "--stage", "--json"], timeout=200, **env)
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert states(Fleet.model_validate_json(done.stdout)) == {"n001": "inconclusive"}
    there = way.hosts.on(1, ["sh", "-c", "ls -A /var/tmp/aiready-bench-0/stage"]).stdout.split()
    assert len(there) == 1 and staging.fits().replace(" ", "-") in there[0]
    run = next((results / "fleet").glob("*/plan.json")).parent.name
    again = way.hosts.controller([*BENCH, "--resume", run, "--results", str(results), "--quiet"], timeout=100, **env)
    assert again.returncode == 3 and again.stdout.count("INCONCLUSIVE") == 3
