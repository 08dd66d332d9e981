"""Above a size random pairs, then the suspects against sound hosts: exactly the slow ports are named."""

from __future__ import annotations

import json
import random
import re
import shlex
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.fleet.files import write_json
from bench.fleet.jobs import Jobs, Log
from bench.fleet.join.pairs import pairs_in
from bench.fleet.pair_rounds import Round, Rounds, schedule, second_pass
from bench.fleet.plan import FleetPlan, HostVars
from bench.fleet.transport.base import OnReply, Reply, ReplyKind
from bench.judge.fleet.model import Outlier, PairOutcome, State
from bench.judge.fleet.ports import ports
from bench.measure.probe import Interrupted
from tests.fleet.make import figure, run_of
from tests.fleet.test_parts import frame
from tests.fleet.test_run import STORAGE_ONLY, states
from tests.fleet.testbed import Testbed, standing
from tests.fleet.ways import way_over

RATE = "network_throughput_bytes_per_second"


def measured(rounds: Sequence[Round], slow: set[str], rng: random.Random, noise: float = 0.02) -> list[PairOutcome]:
    """A pair runs at the slower of its ports; a slow port has a fifth."""

    def rate(a: str, b: str) -> float:
        return 1e9 * rng.gauss(1, noise) * (0.2 if {a, b} & slow else 1.0)

    return [
        PairOutcome(round=number, client=a, server=b, state=State.PASS, send_bytes_per_second=rate(a, b),
                    receive_bytes_per_second=rate(b, a))
        for number, one in enumerate(rounds) for a, b in one
    ]  # fmt: skip


def named(found: Sequence[Outlier]) -> set[tuple[str, str, bool]]:
    return {(o.host, o.part, o.confirmed) for o in found if o.level == "act"}


@pytest.mark.parametrize(("n", "trials"), [(8, 30), (33, 20), (64, 10), (257, 3), (1000, 1)])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_exactly_the_slow_ports_are_named_after_the_second_pass(n: int, trials: int, k: int) -> None:
    hosts = [f"n{i}" for i in range(n)]
    k = min(k, n // 8)
    for seed in range(trials):
        rng = random.Random(seed)
        slow = set(rng.sample(hosts, k))
        rounds = schedule(hosts, "random", seed)
        pairs = measured(rounds, slow, rng)
        accused = {o.host for o in ports(pairs)}
        assert slow <= accused, "the first pass misses nobody"
        second = second_pass(rounds, len(rounds), [host for host in hosts if host in accused], hosts)
        met = Counter(frozenset(pair) for one in (*rounds, *second) for pair in one)
        assert set(met.values()) == {1} and len(met) <= 3 * n / 2 + 2 * len(accused), "nothing twice, and not much more"
        both = ports(pairs + measured(second, slow, rng))
        assert named(both) == {(host, "port", True) for host in slow}, (n, k, seed)


def test_who_met_only_slow_ones_is_a_suspicion_until_sound_ones_speak_for_it() -> None:
    """The victim's three random pairs were all with slow ports: no median of its own can tell."""
    hosts = [f"n{i}" for i in range(40)]
    victim, slow = "n0", {"n1", "n2", "n3"}
    rounds = [tuple((a, b) for a, b in one if victim not in (a, b)) for one in schedule(hosts, "random", 1)]
    rounds.append(((victim, "n1"),))
    rounds += [((victim, other),) for other in ("n2", "n3")]
    rng = random.Random(5)
    pairs = measured(rounds, slow, rng)
    assert {(o.host, o.confirmed) for o in ports(pairs)} == {("n0", False), ("n1", True), ("n2", True), ("n3", True)}
    second = second_pass(rounds, len(rounds), [victim, *sorted(slow)], hosts)
    assert {other for one in second for _, other in one} & {victim, *slow} == set(), "only sound ones speak"
    assert named(ports(pairs + measured(second, slow, rng))) == {(host, "port", True) for host in slow}


def test_of_thousands_of_paths_none_is_accused_by_chance_and_a_slow_one_is() -> None:
    hosts = [f"n{i}" for i in range(300)]
    rounds = schedule(hosts, "random", 3)
    for seed in range(3):
        pairs = measured(rounds, set(), random.Random(seed))
        assert not named(ports(pairs))
        a, b = rounds[0][0]
        cut = {"send_bytes_per_second": 5e8}
        assert named(ports([pairs[0].model_copy(update=cut), *pairs[1:]])) == {(a, f"path to {b}", False)}


# --- the controller's side, with a door behind which pairs are told by a rule


class Fabric:
    """A way to hosts that measure pairs by the rule above; ``left``: after so many pairs the controller is interrupted.

    It keeps claims as nodes do: a pair that is measured twice is a mistake.
    """

    def __init__(self, slow: set[str]) -> None:
        self.slow, self.left = slow, 10**6
        self.done: dict[str, str] = {}
        self.rng = random.Random(1)

    def each(
        self, commands: Mapping[str, str], limit: float, *, width: int | None = None, listen: OnReply = lambda _: None
    ) -> dict[str, Reply]:
        replies = {}
        for host, script in commands.items():
            replies[host] = Reply(host, ReplyKind.DONE, 0, self._answer(script))
            listen(replies[host])
        return replies

    def hosts(self, pattern: str = "all") -> dict[str, dict[str, Any]]:
        raise AssertionError("the plan has them")

    def put(
        self, source: Path, places: Mapping[str, str], pythons: Mapping[str, str], limit: float
    ) -> dict[str, Reply]:
        raise AssertionError("nothing is staged")

    def _answer(self, script: str) -> str:
        claim = re.findall(r'd="\$b/(.+)"', script)[0]
        if "AIREADY-SERVING" in script:
            return f"AIREADY-SERVING {claim}\n"
        if "AIREADY-NONE" in script:
            return self.done.get(claim, f"AIREADY-NONE {claim}\n")
        if "timeout -k" in script:
            self._measure(claim, re.findall(r"pair (\S+) ([^\s'\"]+)", script)[0])
        return self.done.get(claim, "")

    def _measure(self, claim: str, ends: tuple[str, str]) -> None:
        if not self.left:
            raise Interrupted(signal.SIGTERM)
        self.left -= 1
        assert claim not in self.done, "measured twice"
        (pair,) = measured([(ends,)], self.slow, self.rng)
        figures = tuple(
            figure(RATE, rate or 0.0, peer=ends[1], direction=way)
            for way, rate in (("send", pair.send_bytes_per_second), ("receive", pair.receive_bytes_per_second))
        )
        run = run_of(f"{ends[0]}.own")
        run = run.model_copy(update={"results": (run.results[1].model_copy(update={"measurements": figures}),)})
        self.done[claim] = frame(claim, run.model_dump_json(by_alias=True).encode())


def rounds_of(folder: Path, fabric: Fabric, hosts: Sequence[str]) -> Rounds:
    """A controller that begins on that folder, or goes on with it. Hosts call themselves otherwise than the list."""
    write_json(folder / "roster.json", {host: {"hostname": f"{host}.own", "machine": host} for host in hosts})
    variables = {host: HostVars(address=host) for host in hosts}
    plan = FleetPlan("r", ("/i",), tuple(hosts), variables, "true", 5.0, pairs="random",
                     pair_client="pair {host} {address}", pair_server="serve", pair_budget=9.0)  # fmt: skip
    assert shlex.split(plan.command(plan.pair_client, hosts[0], hosts[1])) == ["pair", hosts[0], hosts[1]]
    return Rounds(folder, plan, Jobs(fabric, Log(folder), "r"), hosts, lambda host: f"{host}.own")


def outcome(folder: Path, hosts: Sequence[str]) -> Sequence[PairOutcome]:
    return pairs_in(folder, {host: f"{host}.own" for host in hosts}, {})[0]


@pytest.mark.parametrize("stop", [50, 49, 48])
def test_interrupted_in_the_second_pass_it_goes_on_with_it_and_adds_nothing_twice(stop: int, tmp_path: Path) -> None:
    hosts, fabric = [f"n{i:02d}" for i in range(32)], Fabric({"n05", "n17"})
    fabric.left = stop  # 48 pairs in the first pass, four in the second
    with pytest.raises(Interrupted):
        rounds_of(tmp_path, fabric, hosts).all(hosts)
    planned = json.loads((tmp_path / "pairs.json").read_text())
    assert (len(planned["rounds"]), planned["first"]) == (5, 3)
    assert sum(pair.state is State.PASS for pair in outcome(tmp_path, hosts)) == stop
    fabric.left = 10**6
    for _ in range(2):  # and to go on with what is whole does nothing
        rounds_of(tmp_path, fabric, hosts).all(hosts)
        assert json.loads((tmp_path / "pairs.json").read_text()) == planned
        pairs = outcome(tmp_path, hosts)
        assert len(pairs) == 52 == len(fabric.done) and all(pair.state is State.PASS for pair in pairs)
        assert named(ports(pairs)) == {("n05", "port", True), ("n17", "port", True)}


def test_interrupted_in_the_first_pass_the_suspects_are_found_later(tmp_path: Path) -> None:
    hosts, fabric = [f"n{i:02d}" for i in range(32)], Fabric({"n05"})
    fabric.left = 20
    with pytest.raises(Interrupted):
        rounds_of(tmp_path, fabric, hosts).all(hosts)
    fabric.left = 10**6
    rounds_of(tmp_path, fabric, hosts).all(hosts)
    assert len(fabric.done) == 50 and named(ports(outcome(tmp_path, hosts))) == {("n05", "port", True)}


# --- on hosts


@pytest.fixture
def six() -> Iterator[Testbed]:
    with standing(6) as testbed:
        yield testbed


@pytest.mark.slow
def test_on_six_hosts_the_shaped_port_meets_sound_hosts_that_it_has_not_met_and_is_named_alone(
    six: Testbed, tmp_path: Path
) -> None:
    """Over Slurm, which starts a round in a tenth of the time that ansible takes; the rounds are the controller's."""
    for i in six.numbers:
        six.shape(i, 8.0 if i == 4 else 40.0)
    with way_over("slurm", six) as way:
        fleet, progress, _ = way.drive(tmp_path / "r", pairs="random", pair_bytes=1 << 19, profile=STORAGE_ONLY)
    assert states(fleet) == dict.fromkeys(six.names, "pass")
    first = [pair for pair in fleet.pairs if pair.round < 3]
    second = [pair for pair in fleet.pairs if pair.round >= 3]
    assert len(first) <= 9 and {pair.client for pair in second if "n004" in (pair.client, pair.server)} == {"n004"}
    ends = [{pair.client, pair.server} for pair in first]
    met = {host for both in ends if "n004" in both for host in both}
    again = {pair.server for pair in second if pair.client == "n004"}
    assert len(again) == 2 and not again & met, progress
    assert all(pair.state is State.PASS for pair in fleet.pairs)
    confirmed = {(o.host, o.part) for o in fleet.outliers if o.level == "act" and o.confirmed}
    assert confirmed == {("n004", "port")}, [(p.client, p.server, p.send_bytes_per_second) for p in fleet.pairs]
    assert fleet.reasons[0].startswith("outlier: port of n004 is ")
    assert all(0.7 < o.deviation_ratio < 0.97 for o in fleet.outliers if o.host == "n004"), "a fifth, and its bursts"
