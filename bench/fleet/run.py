"""A fleet run, phase after phase: contact, sweep, pairs, collective, late results, join.

Every phase looks into the run's folder for what is there and does what is missing, so that to resume is to run again.
A host that does not answer costs its phase ten seconds, and nobody else's result.
"""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.fleet import job_script as node_script
from bench.fleet import staging as stage
from bench.fleet.errors import FleetError, Occupied
from bench.fleet.files import AGAIN, FLEET, NODES, ROSTER, join_folder, read_json, write_bytes, write_json
from bench.fleet.hosts import same_host
from bench.fleet.job_script import Contacted, Frame
from bench.fleet.jobs import Job, Jobs, Listen, Log
from bench.fleet.join import pairs as extras
from bench.fleet.join.collective import COLLECTIVE, trouble_of_line
from bench.fleet.join.join import Judgement
from bench.fleet.pair_rounds import Rounds
from bench.fleet.plan import Plan, waves
from bench.fleet.transport.base import Kind, Transport
from bench.judge.fleet.model import Fleet, State
from bench.measure.lock import acquire
from bench.model import Run
from bench.show.terminal.progress import Note
from bench.store import documents as reading
from bench.store.errors import UnusableRun, one_line, why

_CONTACT_SECONDS = 30.0
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_LATE = (State.LOST.value, State.CONTROLLER_TIMEOUT.value)


@dataclass(slots=True)
class Session:
    """One controller at work on one run's folder. ``keep`` is given each node's run, for the store."""

    folder: Path
    plan: Plan
    engine: Transport
    listen: Listen = lambda _: None
    keep: Callable[[Run], None] = lambda _: None
    roster: dict[str, Contacted] = field(default_factory=dict)
    log: Log = field(init=False)
    jobs: Jobs = field(init=False)

    def __post_init__(self) -> None:
        self.log = Log.of(self.folder)
        self.jobs = Jobs(self.engine, self.log, self.plan.id, self.listen)

    def run(self, by: Judgement) -> Fleet:
        """Everything that is missing, then the fleet document. Raises FleetError, Interrupted."""
        with _alone(self.folder):
            self.contact()
            self.sweep()
            self.shared()
            self.pairs()
            self.collective()
            self.late()
            if self.plan.confirm:
                self.confirm(by)
            return self.conclude(by)

    def conclude(self, by: Judgement) -> Fleet:
        found = join_folder(self.folder, self.plan.hosts, by)
        write_json(self.folder / FLEET, found.model_dump(mode="json", by_alias=True))
        return found

    # --- contact

    def contact(self) -> None:
        """Who is there, what it calls itself, which machine it is; nothing is measured."""
        scripts = {host: node_script.contact(self.plan.variables[host].python) for host in self.plan.hosts}
        replies = self.engine.each(scripts, _CONTACT_SECONDS)
        machines: dict[str, str] = {}
        rows = []
        answers = {h: node_script.contacted(r.stdout) if r.kind is Kind.DONE else None for h, r in replies.items()}
        staged = self._stage(answers)
        for host in self.plan.hosts:
            reply, found = replies[host], answers[host]
            state, reason = self._met(host, reply.kind, staged.get(host, reply.detail), found, machines)
            rows.append({"phase": "contact", "key": host, "host": host, "state": state, "reason": reason})
            self.listen(Note("contact", host, state or "here", reason))
            if found is not None and state is None:
                self.roster[host] = found
        self.log.write(rows)
        known = read_json(self.folder / ROSTER)
        names = {host: {"hostname": f.hostname, "machine": f.machine} for host, f in self.roster.items()}
        write_json(self.folder / ROSTER, {**(known if isinstance(known, dict) else {}), **names})

    def _met(
        self, host: str, kind: Kind, detail: str, found: Contacted | None, machines: dict[str, str]
    ) -> tuple[str | None, str]:
        """The state of a host that cannot take part, None for one that can."""
        if kind is not Kind.DONE:
            return (kind.value, f"{kind.value}: {detail}")
        if found is None:
            return State.BAD_RESULT.value, "bad_result: it ran the command, but did not say what it is"
        if found.machine in machines:
            return State.DUPLICATE.value, f"duplicate: is the same machine as {machines[found.machine]}"
        machines[found.machine] = host
        if self.plan.needs_bench and found.version is None and "PYTHONPATH" not in self.plan.variables[host].env:
            python = self.plan.variables[host].python
            hint = detail or f"{python} there has no aiready-bench; name another with --python, or give --stage"
            return State.NOT_RUN.value, f"not_installed: {hint}"
        return None, ""

    def _stage(self, answers: Mapping[str, Contacted | None]) -> dict[str, str]:
        """Bring the product to those who lack it, if that was asked for. Why it could not be brought, by host."""
        lacking = {host: found for host, found in answers.items() if found is not None and found.version is None}
        if not self.plan.stage or not lacking:
            return {}
        fit = [host for host, found in lacking.items() if found.python == stage.fits()]
        like = {host: self.plan.variables[host].python for host in fit}
        why = {
            h: f"cannot_stage: its Python is {f.python or 'absent'}, ours {stage.fits()}" for h, f in lacking.items()
        }
        brought = stage.bring(self.engine, like, self.folder / stage.STAGE) if like else {}
        self.plan = self.plan.with_product({host: place for host, (place, _) in brought.items() if place})
        return why | {host: reason for host, (_, reason) in brought.items()}

    # --- sweep

    def sweep(self) -> None:
        """`bench run` on every host that has no result yet; at most ``at_once`` of one storage system at a time."""
        missing = [host for host in self.roster if not (self.folder / NODES / f"{host}.json").exists()]
        groups = {host: self.plan.variables[host].storage for host in missing}
        for wave in waves(missing, groups, self.plan.at_once):
            self.jobs.perform("sweep", {host: self._sweep_job(host) for host in wave})

    def _sweep_job(self, host: str, folder: str = NODES, phase: str = "sweep") -> Job:
        # The start is spread by the host's own name: the same host begins at the same time every night.
        delay = random.Random(f"{self.plan.seed}-{host}").uniform(0, self.plan.spread) if phase == "sweep" else 0.0
        command = self.plan.command(self.plan.sweep, host)
        keep = self.folder / folder / f"{host}.json"
        return Job(
            key=host, host=host, command=command, budget=self.plan.budget, env=self.plan.env(host), delay=delay,
            accept=lambda frame: self._accept_run(host, frame, keep), alone=True,
        )  # fmt: skip

    def _accept_run(self, host: str, frame: Frame, path: Path) -> str | None:
        """Store the node's document, byte for byte, if it is a run of that host."""
        try:
            run = reading.parse(frame.out)
        except UnusableRun as error:
            return _twice(frame.out) or str(error)
        if not same_host(self._hostname(host), run.node.hostname):
            return f"says it is of {run.node.hostname!r}, not of {self._hostname(host)!r}"
        write_bytes(path, frame.out)
        self.keep(run)
        return None

    def _hostname(self, host: str) -> str:
        return self.roster[host].hostname if host in self.roster else host

    # --- shared storage

    def shared(self) -> None:
        """One node alone, then all at once: what each one gets when all read is the figure that counts."""
        here = self._sound()
        if not self.plan.shared or not here:
            return
        write_json(self.folder / extras.SHARED / "asked.json", {"path": self.plan.shared_path, "hosts": here})
        for kind, hosts in (("alone", here[:1]), ("together", here)):
            self._read_shared(
                kind, [h for h in hosts if not (self.folder / extras.SHARED / kind / f"{h}.json").exists()]
            )

    def _read_shared(self, kind: str, hosts: Sequence[str]) -> None:
        place = self.folder / extras.SHARED / kind
        jobs = {
            host: Job(
                key=host, host=host, command=self.plan.command(self.plan.shared, host), budget=self.plan.budget,
                env=self.plan.env(host), alone=True,
                accept=lambda frame, host=host: self._accept_run(host, frame, place / f"{host}.json"),  # type: ignore[misc]
            )
            for host in hosts
        }  # fmt: skip
        if jobs:
            self.jobs.perform(kind, jobs, width=len(jobs))

    # --- pairs, collective

    def pairs(self) -> None:
        """Every pair of the schedule that has no figure yet."""
        if self.plan.pair_client and self.plan.pairs != "none":
            Rounds(self.folder, self.plan, self.jobs, self._sound(), self._hostname).all(self._named())

    def collective(self) -> None:
        """On every survivor, all at once: fewer at a time than there are would wait for each other for ever."""
        here, place = self._sound(), self.folder / COLLECTIVE
        if not self.plan.collective or len(here) < 2:
            return
        asked = read_json(place / "ranks.json")
        done = isinstance(asked, dict) and all((place / f"{h}.json").exists() for h in asked.get("hosts", ()))
        if done and set(asked.get("hosts", ())) >= set(here):
            return
        attempt = 1 + (int(asked.get("attempt", 0)) if isinstance(asked, dict) else 0)
        for host in here:
            (place / f"{host}.json").unlink(missing_ok=True)
        write_json(place / "ranks.json", {"hosts": here, "attempt": attempt})
        self.jobs.perform(f"collective{attempt}", {h: self._rank_job(h, here) for h in here}, width=len(here))

    def _rank_job(self, host: str, ranks: Sequence[str]) -> Job:
        plan = self.plan
        command = plan.command(
            plan.collective, host, plan.variables[ranks[0]].address, rank=str(ranks.index(host)), world=str(len(ranks)),
            own=plan.variables[host].address,
        )  # fmt: skip
        path = self.folder / COLLECTIVE / f"{host}.json"
        return Job(
            key=host, host=host, command=command, budget=plan.collective_budget, env=plan.env(host), alone=True,
            accept=lambda frame: _accept_rank(frame, path),
        )  # fmt: skip

    # --- late results, and a second look

    def late(self) -> None:
        """Hosts that were lost may be back, and may have finished: ask them once more."""
        lost = [host for host in self.roster if self.log.ended.get(("sweep", host)) in _LATE]
        for host, (job, _) in self.jobs.collect("sweep", {host: self._sweep_job(host) for host in lost}).items():
            self.listen(Note("sweep", host, State.LOST.value, f"its job {job.key} has no result; resume this run"))

    def confirm(self, by: Judgement) -> None:
        """Measure once more those whom a single measurement accuses, and as many sound ones with them."""
        fleet = join_folder(self.folder, self.plan.hosts, by)
        acting = (o for o in fleet.outliers if o.level == "act" and not o.confirmed)
        accused = sorted({o.host for o in acting} & set(self._sound()))
        if not accused or (self.folder / AGAIN).exists():
            return
        good = [host for host in self._sound() if host not in accused]
        both = [*accused, *good[: len(accused)]]
        jobs = {host: self._sweep_job(host, AGAIN, "again") for host in both}
        for wave in waves(both, {h: self.plan.variables[h].storage for h in both}, self.plan.at_once):
            self.jobs.perform("again", {host: jobs[host] for host in wave})

    # --- who takes part

    def _named(self) -> list[str]:
        """Every named host but those that are another one's machine."""
        return [host for host in self.plan.hosts if self.log.ended.get(("contact", host)) != State.DUPLICATE.value]

    def _sound(self) -> list[str]:
        """Those who are here and were not lost on the way."""
        return [host for host in self.plan.hosts if host in self.roster and not self.jobs.lost(host)]


def _twice(out: bytes) -> str | None:
    """Several documents where one was asked for: nobody can say which is true."""
    try:
        text = out.decode("utf-8").strip()
        rest = text[json.JSONDecoder().raw_decode(text)[1] :].strip()
        return "duplicate: it answered twice" if rest and json.JSONDecoder().raw_decode(rest) else None
    except (ValueError, RecursionError):
        return None


def _accept_rank(frame: Frame, path: Path) -> str | None:
    try:
        entry = json.loads(frame.out[: 1 << 20].decode("utf-8").strip().splitlines()[-1])
    except (ValueError, IndexError, RecursionError):
        return "no line of a rank"
    trouble = trouble_of_line(entry)
    if trouble is None:
        write_json(path, entry)
    return trouble


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One controller a run. Raises Occupied when another one works there."""
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise FleetError(one_line(f"{folder / 'lock'}: {why(error)}")) from error
    try:
        acquire(fd)
    except BlockingIOError as error:
        os.close(fd)
        raise Occupied(one_line(f"{folder}: another controller works on this run; wait for it")) from error
    except OSError as error:  # shared storage may be mounted without locks; a job still runs once, by its claim
        if error.errno not in _NO_LOCKS:
            os.close(fd)
            raise FleetError(one_line(f"{folder / 'lock'}: {why(error)}")) from error
    try:
        yield
    finally:
        os.close(fd)
