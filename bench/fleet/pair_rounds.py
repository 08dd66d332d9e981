"""The phase of pairs: servers up, round after round without overlap, servers down whatever happened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.fleet import job_script as node_script
from bench.fleet.files import hostnames_in, write_bytes, write_json
from bench.fleet.job_script import Frame
from bench.fleet.jobs import Job, Jobs
from bench.fleet.join import pairs as extras
from bench.fleet.pair_schedule import Round, ceiling, schedule, second_pass
from bench.fleet.plan import Plan
from bench.fleet.transport.base import Kind
from bench.judge.fleet.model import State
from bench.judge.fleet.ports import ports
from bench.show.terminal.progress import Note
from bench.store import documents as reading
from bench.store.errors import UnusableRun

_SERVER_SECONDS = 25.0
_SERVE = "serve"


@dataclass(slots=True)
class Rounds:
    """``here``: the hosts that can take part now. ``hostname`` says what a host calls itself."""

    folder: Path
    plan: Plan
    jobs: Jobs
    here: Sequence[str]
    hostname: Callable[[str], str]

    def all(self, named: Sequence[str]) -> None:
        """Every pair without a figure. Above a size random pairs, and then the suspects against sound hosts."""
        self._end_servers()
        rounds = extras.rounds_in(self.folder) or schedule(named, self.plan.pairs, self.plan.seed)
        first = extras.first_rounds_in(self.folder, len(rounds))
        self._walk(rounds, first)
        whole = len(named) * (len(named) - 1) // 2
        if sum(len(one) for one in rounds[:first]) < whole:
            second = self._second_look(rounds, first)
            if second:
                self._walk([*rounds, *second], first)

    def _second_look(self, rounds: Sequence[Round], first: int) -> list[Round]:
        """Those whom few pairs accuse, against sound hosts that they have not met."""
        found = extras.pairs_in(self.folder, hostnames_in(self.folder), {}).outcomes
        measured = {host for pair in found if pair.state is State.PASS for host in (pair.client, pair.server)}
        here = [host for host in self.here if host in measured and not self.jobs.lost(host)]
        accused = {outlier.host for outlier in ports(found)}
        return second_pass(rounds, first, [host for host in here if host in accused], here)

    def _walk(self, rounds: Sequence[Round], first: int) -> None:
        write_json(self.folder / extras.PAIRS, {"rounds": rounds, "first": first})
        pending = [one for one in self._pending(ceiling(rounds, self.plan.pairs_at_once)) if one]
        if not pending:
            return
        seconds = len(pending) * (self.plan.pair_budget + _SERVER_SECONDS)
        up = self._servers_up(sorted({server for one in pending for _, server in one}), seconds)
        try:
            for one in pending:
                self._round([(client, server) for client, server in one if server in up])
        finally:
            self._end_servers()

    def _pending(self, rounds: Sequence[Round]) -> Iterator[Round]:
        """The pairs without a figure of which both ends are here."""
        here = set(self.here)
        for one in rounds:
            yield tuple((a, b) for a, b in one if {a, b} <= here and not self._file(a, b).exists())

    def _file(self, client: str, server: str) -> Path:
        return self.folder / extras.PAIR_FOLDER / extras.pair_file(client, server)

    def _end_servers(self) -> None:
        """Those of this run, and those that a killed controller left: the log says on which hosts."""
        rows = self.jobs.log
        open_ = [
            host for host in self.plan.hosts if (_SERVE, host) in rows.started and (_SERVE, host) not in rows.ended
        ]
        there = [host for host in open_ if host in self.here]
        if there:
            replies = self.jobs.engine.each(dict.fromkeys(there, node_script.stop(self._family)), _SERVER_SECONDS)
            done = [host for host in there if replies[host].kind is Kind.DONE]
            rows.write([{"phase": _SERVE, "key": host, "host": host, "state": "ended"} for host in done])

    @property
    def _family(self) -> str:
        return f"{self.plan.id}.{_SERVE}"

    def _servers_up(self, hosts: Sequence[str], seconds: float) -> list[str]:
        plan, stamp = self.plan, f"{self._family}.{os.urandom(4).hex()}"
        self.jobs.log.write([{"phase": _SERVE, "key": host, "host": host, "attempt": 1} for host in hosts])
        scripts = {
            host: node_script.serve(
                stamp, plan.command(plan.pair_server, host, plan.variables[host].address), plan.pair_ready, seconds,
                plan.env(host),
            )
            for host in hosts
        }  # fmt: skip
        replies = self.jobs.engine.each(scripts, _SERVER_SECONDS + 5)
        up = [host for host in hosts if node_script.marker(replies[host].stdout, stamp) == "SERVING"]
        for host in set(hosts) - set(up):
            self.jobs.listen(Note("pairs", host, State.NOT_RUN.value, f"no server: {replies[host].detail}"))
        return up

    def _round(self, pairs: Sequence[tuple[str, str]]) -> None:
        """One round: every client at once; it is over when the last has answered or used up its time."""
        gone = {pair for pair in pairs if {self.jobs.lost(host) for host in pair} != {False}}
        jobs = {a: self._job(a, b) for a, b in pairs if (a, b) not in gone}
        if jobs:
            self.jobs.perform("pairs", jobs, width=len(jobs))

    def _job(self, client: str, server: str) -> Job:
        plan = self.plan
        numbers = "-".join(str(plan.hosts.index(host)) for host in (client, server))
        return Job(
            key=extras.pair_file(client, server), host=client, budget=plan.pair_budget, env=plan.env(client),
            command=plan.command(plan.pair_client, client, plan.variables[server].address), claim=f".{numbers}",
            accept=lambda frame: self._accept(client, server, frame), alone=True,
        )  # fmt: skip

    def _accept(self, client: str, server: str, frame: Frame) -> str | None:
        try:
            run = reading.parse(frame.out)
        except UnusableRun as error:
            return str(error)
        trouble = extras.trouble_of_pair(run, self.hostname(client))
        if trouble is None:
            write_bytes(self._file(client, server), frame.out)
        return trouble
