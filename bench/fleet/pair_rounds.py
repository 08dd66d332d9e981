"""The phase of pairs: which pairs in which rounds, and walking them: servers up, round after round without overlap,
servers down whatever happened.

In a round no host appears twice. A schedule is data, not code: ``{"rounds": [[["a", "b"], ["c", "d"]], ...]}`` is
written into the run's folder, so that another launcher (``srun``) can walk it as well.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.fleet import job_script
from bench.fleet.files import hostnames_in, write_bytes, write_json
from bench.fleet.job_script import BadResult, Frame
from bench.fleet.jobs import HostJob, Jobs
from bench.fleet.join.pairs import PAIR_FOLDER, PAIRS, first_rounds_in, pair_file, pairs_in, rounds_in, trouble_of_pair
from bench.fleet.plan import FleetPlan
from bench.fleet.transport.base import ReplyKind
from bench.judge.fleet.model import State
from bench.judge.fleet.ports import ports
from bench.show.terminal.progress import Note
from bench.store import documents
from bench.store.errors import UnusableRun

Pair = tuple[str, str]
Round = tuple[Pair, ...]

#: Up to here every pair is measured: 31 rounds. Above it, random pairs and a second pass of suspects.
MOST_FOR_ALL = 32
RANDOM_ROUNDS = 3
#: With how many more sound hosts a suspect is measured: then most of its pairs have a sound other end.
SECOND_PAIRS = 2
_SERVER_SECONDS = 25.0
_SERVE = "serve"


def circle(hosts: Sequence[str]) -> list[Round]:
    """Every pair once, in N - 1 rounds (N for an odd number): one host stands still, the others walk round it.

    The circle method of round-robin tournaments (Kirkman 1847). Whoever was client less often is client, so that each
    host measures about as often as it serves.
    """
    ring: list[str | None] = [*hosts, *([None] if len(hosts) % 2 else [])]
    rounds, times = [], Counter[str]()
    for _ in range(len(ring) - 1):
        half = len(ring) // 2
        pairs = []
        for a, b in zip(ring[:half], reversed(ring[half:]), strict=True):
            if a is not None and b is not None:
                pairs.append((a, b) if times[a] <= times[b] else (b, a))
                times[pairs[-1][0]] += 1
        rounds.append(tuple(pairs))
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return [one for one in rounds if one]


def at_random(hosts: Sequence[str], rounds: int, seed: int) -> list[Round]:
    """``rounds`` rounds of random disjoint pairs, no pair twice as far as that goes. The same seed, the same pairs."""
    rng, seen, found = random.Random(seed), set[frozenset[str]](), []
    for _ in range(rounds):
        best: Round = ()
        for _ in range(20):
            order = list(hosts)
            rng.shuffle(order)
            pairs = zip(order[::2], order[1::2], strict=False)
            best = max(best, tuple(pair for pair in pairs if frozenset(pair) not in seen), key=len)
        seen |= {frozenset(pair) for pair in best}
        found.append(best)
    return [one for one in found if one]


def suspects(wanted: Mapping[str, int], good: Sequence[str], met: Iterable[Pair] = ()) -> list[Round]:
    """Each suspect against so many sound hosts that it has not met; nobody twice in a round. The sound ones take turns,
    so that none of them is measured mostly against suspects. Fewer where there are not so many sound ones.
    """
    known, turns, left, found = {frozenset(pair) for pair in met}, Counter[str](), dict(wanted), list[Round]()
    while True:
        free, pairs = sorted(good, key=lambda host: turns[host]), []
        for host in (host for host, number in left.items() if number > 0):
            other = next((one for one in free if frozenset((host, one)) not in known), None)
            if other is not None:
                free.remove(other)
                pairs.append((host, other))
                known.add(frozenset((host, other)))
                turns[other] += 1
                left[host] -= 1
        if not pairs:
            return found
        found.append(tuple(pairs))


def second_pass(rounds: Sequence[Round], first: int, accused: Sequence[str], good: Sequence[str]) -> list[Round]:
    """What is still to be added for those whom few pairs accuse. The first ``first`` rounds are those at random; what
    was added behind them before, for the same suspects, counts: a run that goes on adds nothing twice.
    """
    done = Counter(suspect for one in rounds[first:] for suspect, _ in one)
    wanted = {host: SECOND_PAIRS - done[host] for host in accused}
    return suspects(wanted, [host for host in good if host not in wanted], [pair for one in rounds for pair in one])


def schedule(hosts: Sequence[str], mode: str, seed: int = 7) -> list[Round]:
    """``all``, ``random``, ``none``, or ``auto``: all up to `MOST_FOR_ALL` hosts. Raises ValueError."""
    if mode not in ("all", "random", "none", "auto"):
        raise ValueError(f"pairs {mode!r}: must be auto, all, random or none")
    if mode == "none" or len(hosts) < 2:
        return []
    every = mode == "all" or (mode == "auto" and len(hosts) <= MOST_FOR_ALL)
    return circle(hosts) if every else at_random(hosts, RANDOM_ROUNDS, seed)


def ceiling(rounds: Sequence[Round], most: int | None) -> list[Round]:
    """The same pairs with at most ``most`` at once: a wide round is cut into several."""
    if most is None:
        return list(rounds)
    return [one[i : i + most] for one in rounds for i in range(0, len(one), most)]


@dataclass(slots=True)
class Rounds:
    """``here``: the hosts that can take part now. ``hostname`` says what a host calls itself."""

    folder: Path
    plan: FleetPlan
    jobs: Jobs
    here: Sequence[str]
    hostname: Callable[[str], str]

    def all(self, named: Sequence[str]) -> None:
        """Every pair without a figure. Above a size random pairs, and then the suspects against sound hosts."""
        self._end_servers()
        rounds = rounds_in(self.folder) or schedule(named, self.plan.pairs, self.plan.seed)
        first = first_rounds_in(self.folder, len(rounds))
        self._walk(rounds, first)
        whole = len(named) * (len(named) - 1) // 2
        if sum(len(one) for one in rounds[:first]) < whole and (second := self._second_look(rounds, first)):
            self._walk([*rounds, *second], first)

    def _second_look(self, rounds: Sequence[Round], first: int) -> list[Round]:
        """Those whom few pairs accuse, against sound hosts that they have not met."""
        found, _ = pairs_in(self.folder, hostnames_in(self.folder), {})
        measured = {host for pair in found if pair.state is State.PASS for host in (pair.client, pair.server)}
        here = [host for host in self.here if host in measured and not self.jobs.lost(host)]
        accused = {outlier.host for outlier in ports(found)}
        return second_pass(rounds, first, [host for host in here if host in accused], here)

    def _walk(self, rounds: Sequence[Round], first: int) -> None:
        write_json(self.folder / PAIRS, {"rounds": rounds, "first": first})
        here = set(self.here)
        missing = (
            [(a, b) for a, b in one if {a, b} <= here and not self._file(a, b).exists()]
            for one in ceiling(rounds, self.plan.pairs_at_once)
        )
        pending = [one for one in missing if one]
        if not pending:
            return
        seconds = len(pending) * (self.plan.pair_budget + _SERVER_SECONDS)
        up = self._servers_up(sorted({server for one in pending for _, server in one}), seconds)
        try:
            for one in pending:  # every client at once; over when the last has answered or used up its time
                able = [(a, b) for a, b in one if b in up and not self.jobs.lost(a) and not self.jobs.lost(b)]
                jobs = {client: self._job(client, server) for client, server in able}
                if jobs:
                    self.jobs.perform("pairs", jobs, width=len(jobs))
        finally:
            self._end_servers()

    def _file(self, client: str, server: str) -> Path:
        return self.folder / PAIR_FOLDER / pair_file(client, server)

    def _end_servers(self) -> None:
        """Those of this run, and those that a killed controller left: the log says on which hosts."""
        log = self.jobs.log
        begun = [host for host in self.plan.hosts if host in self.here and (_SERVE, host) in log.started]
        there = [host for host in begun if (_SERVE, host) not in log.ended]
        if there:
            stop = job_script.stop(f"{self.plan.id}.{_SERVE}")
            replies = self.jobs.transport.each(dict.fromkeys(there, stop), _SERVER_SECONDS)
            done = [host for host in there if replies[host].kind is ReplyKind.DONE]
            log.write([{"phase": _SERVE, "key": host, "host": host, "state": "ended"} for host in done])

    def _servers_up(self, hosts: Sequence[str], seconds: float) -> list[str]:
        plan, claim = self.plan, f"{self.plan.id}.{_SERVE}.{os.urandom(4).hex()}"
        self.jobs.log.write([{"phase": _SERVE, "key": host, "host": host, "attempt": 1} for host in hosts])
        commands = {host: plan.command(plan.pair_server, host, plan.variables[host].address) for host in hosts}
        scripts = {
            host: job_script.serve(claim, command, plan.pair_ready, seconds, plan.env(host))
            for host, command in commands.items()
        }
        replies = self.jobs.transport.each(scripts, _SERVER_SECONDS + 5)
        up = [host for host in hosts if job_script.marker(replies[host].stdout, claim) == "SERVING"]
        for host in set(hosts) - set(up):
            self.jobs.listen(Note("pairs", host, State.NOT_RUN, f"no server: {replies[host].detail}"))
        return up

    def _job(self, client: str, server: str) -> HostJob:
        plan = self.plan
        numbers = "-".join(str(plan.hosts.index(host)) for host in (client, server))
        return HostJob(
            key=pair_file(client, server), host=client, budget=plan.pair_budget, env=plan.env(client),
            command=plan.command(plan.pair_client, client, plan.variables[server].address), claim=f".{numbers}",
            accept=lambda frame: self._accept(client, server, frame),
        )  # fmt: skip

    def _accept(self, client: str, server: str, frame: Frame) -> None:
        try:
            run = documents.parse(frame.out)
        except UnusableRun as error:
            raise BadResult(str(error)) from error
        if trouble := trouble_of_pair(run, self.hostname(client)):
            raise BadResult(trouble)
        write_bytes(self._file(client, server), frame.out)
