"""A fleet run, phase after phase: contact, sweep, pairs, collective, late results, join.

Every phase looks into the run's folder for what is there and does what is missing, so that to resume is to run again.
A host that does not answer costs its phase ten seconds, and nobody else's result.
"""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import UserError, why
from bench.fleet import job_script, staging
from bench.fleet.files import AGAIN, FLEET, NODES, ROSTER, read_object, same_host, write_bytes, write_json
from bench.fleet.job_script import BadResult, Contacted, Frame
from bench.fleet.jobs import HostJob, Jobs, Log, OnNote
from bench.fleet.join.folder import COLLECTIVE, join_folder, trouble_of_line
from bench.fleet.join.join import Judgement
from bench.fleet.join.pairs import SHARED
from bench.fleet.pair_rounds import Rounds
from bench.fleet.plan import FleetPlan, waves
from bench.fleet.transport.base import Reply, ReplyKind, Transport
from bench.judge.fleet.model import Fleet, State
from bench.measure.lock import acquire
from bench.model import Run
from bench.show.terminal.progress import Note
from bench.store import documents
from bench.store.errors import UnusableRun, one_line

_CONTACT_SECONDS = 30.0
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_MOST_RANK_BYTES = 1 << 20


@dataclass(slots=True)
class FleetRun:
    """One controller at work on one run's folder. ``keep`` is given each node's run, for the store."""

    folder: Path
    plan: FleetPlan
    transport: Transport
    listen: OnNote = lambda _: None
    keep: Callable[[Run], None] = lambda _: None
    roster: dict[str, Contacted] = field(default_factory=dict)
    jobs: Jobs = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.transport, Log(self.folder), self.plan.id, self.listen)

    def run(self, by: Judgement) -> Fleet:
        """Everything that is missing, then the fleet document. Raises UserError, Interrupted."""
        with _alone(self.folder):
            self._contact()
            self._sweep()
            self._shared()
            if self.plan.pair_client and self.plan.pairs != "none":
                Rounds(self.folder, self.plan, self.jobs, self._sound(), self._hostname).all(self._named())
            self._collective()
            self._late()
            if self.plan.confirm:
                self._confirm(by)
            found = join_folder(self.folder, self.plan.hosts, by)
            write_json(self.folder / FLEET, found.model_dump(mode="json", by_alias=True))
            return found

    # --- who takes part

    def _contact(self) -> None:
        """Who is there, what it calls itself, which machine it is; nothing is measured."""
        scripts = {host: job_script.contact(self.plan.variables[host].python) for host in self.plan.hosts}
        replies = self.transport.each(scripts, _CONTACT_SECONDS)
        answers = {host: job_script.contacted(reply.stdout) for host, reply in replies.items()}
        unstaged = self._stage(answers)
        machines: dict[str, str] = {}
        rows = []
        for host in self.plan.hosts:
            found = answers[host]
            state, reason = self._met(host, replies[host], found, unstaged.get(host, ""), machines)
            rows.append({"phase": "contact", "key": host, "host": host, "state": state, "reason": reason})
            self.listen(Note("contact", host, state or "here", reason))
            if found is not None and state is None:
                self.roster[host] = found
        self.jobs.log.write(rows)
        names = {host: {"hostname": found.hostname, "machine": found.machine} for host, found in self.roster.items()}
        write_json(self.folder / ROSTER, read_object(self.folder / ROSTER) | names)

    def _met(
        self, host: str, reply: Reply, found: Contacted | None, unstaged: str, machines: dict[str, str]
    ) -> tuple[str | None, str]:
        """The state of a host that cannot take part, None for one that can."""
        if reply.kind is not ReplyKind.DONE:
            return reply.kind, f"{reply.kind}: {reply.detail}"
        if found is None:
            return State.BAD_RESULT, "bad_result: it ran the command, but did not say what it is"
        if found.machine in machines:
            return State.DUPLICATE, f"duplicate: is the same machine as {machines[found.machine]}"
        machines[found.machine] = host
        if found.version is None and "PYTHONPATH" not in self.plan.variables[host].env:
            python = self.plan.variables[host].python
            hint = f"{python} there has no aiready-bench; name another with --python, or give --stage"
            return State.NOT_RUN, f"not_installed: {unstaged or reply.detail or hint}"
        return None, ""

    def _stage(self, answers: Mapping[str, Contacted | None]) -> dict[str, str]:
        """Bring the product to those who lack it, if that was asked for. Why it could not be brought, by host."""
        lacking = {host: found for host, found in answers.items() if found is not None and found.version is None}
        if not self.plan.stage or not lacking:
            return {}
        ours = staging.fits(self.plan.bundle)
        like = {host: self.plan.variables[host].python for host, found in lacking.items() if found.python == ours}
        others = {host: found.python or "absent" for host, found in lacking.items() if host not in like}
        why = {host: f"cannot_stage: its Python is {python}, the bundle's {ours}" for host, python in others.items()}
        folder = self.folder / staging.STAGE
        brought = staging.bring(self.transport, like, folder, self.plan.bundle) if like else {}
        self.plan = self.plan.with_product({host: place for host, (place, _) in brought.items() if place})
        return why | {host: reason for host, (_, reason) in brought.items()}

    def _named(self) -> list[str]:
        """Every named host but those that are another one's machine."""
        return [host for host in self.plan.hosts if self.jobs.log.ended.get(("contact", host)) != State.DUPLICATE]

    def _sound(self) -> list[str]:
        """Those who are here and were not lost on the way."""
        return [host for host in self.plan.hosts if host in self.roster and not self.jobs.lost(host)]

    def _hostname(self, host: str) -> str:
        return self.roster[host].hostname if host in self.roster else host

    # --- `bench run` on nodes

    def _sweep(self) -> None:
        """On every host that has no result yet; at most ``at_once`` of one storage system at a time."""
        missing = [host for host in self.roster if not (self.folder / NODES / f"{host}.json").exists()]
        self._in_waves("sweep", {host: self._sweep_job(host) for host in missing})

    def _in_waves(self, phase: str, jobs: Mapping[str, HostJob]) -> None:
        groups = {host: self.plan.variables[host].storage for host in jobs}
        for wave in waves(list(jobs), groups, self.plan.at_once):
            self.jobs.perform(phase, {host: jobs[host] for host in wave})

    def _sweep_job(self, host: str) -> HostJob:
        """The start is spread by the host's own name: the same host begins at the same time every night."""
        delay = random.Random(f"{self.plan.seed}-{host}").uniform(0, self.plan.spread)
        return self._run_job(host, self.plan.sweep, self.folder / NODES, delay)

    def _run_job(self, host: str, command: str, place: Path, delay: float = 0.0) -> HostJob:
        return HostJob(
            key=host, host=host, command=self.plan.command(command, host), budget=self.plan.budget,
            env=self.plan.env(host), delay=delay,
            accept=lambda frame: self._accept_run(host, frame, place / f"{host}.json"),
        )  # fmt: skip

    def _accept_run(self, host: str, frame: Frame, path: Path) -> None:
        """Store the node's document, byte for byte, if it is a run of that host."""
        try:
            run = documents.parse(frame.out)
        except UnusableRun as error:
            twice = _is_twice(frame.out)
            raise BadResult("it answered twice" if twice else str(error), twice) from error
        if not same_host(self._hostname(host), run.node.hostname):
            raise BadResult(f"says it is of {run.node.hostname!r}, not of {self._hostname(host)!r}")
        write_bytes(path, frame.out)
        self.keep(run)

    def _shared(self) -> None:
        """One node alone, then all at once: what each one gets when all read is the figure that counts."""
        here, place = self._sound(), self.folder / SHARED
        if not self.plan.shared or not here:
            return
        write_json(place / "asked.json", {"path": self.plan.shared_path, "hosts": here})
        for kind, hosts in (("alone", here[:1]), ("together", here)):
            missing = [host for host in hosts if not (place / kind / f"{host}.json").exists()]
            jobs = {host: self._run_job(host, self.plan.shared, place / kind) for host in missing}
            self.jobs.perform(kind, jobs, width=len(jobs))

    def _late(self) -> None:
        """Hosts that were lost may be back, and may have finished: ask them once more."""
        late = (State.LOST, State.CONTROLLER_TIMEOUT)
        lost = [host for host in self.roster if self.jobs.log.ended.get(("sweep", host)) in late]
        for host in self.jobs.collect("sweep", {host: self._sweep_job(host) for host in lost}):
            self.listen(Note("sweep", host, State.LOST, f"its job {host} has no result; resume this run"))

    def _confirm(self, by: Judgement) -> None:
        """Measure once more those whom a single measurement accuses, and as many sound ones with them."""
        fleet, sound = join_folder(self.folder, self.plan.hosts, by), self._sound()
        accused = sorted({o.host for o in fleet.outliers if o.level == "act" and not o.confirmed} & set(sound))
        if not accused or (self.folder / AGAIN).exists():
            return
        good = [host for host in sound if host not in accused][: len(accused)]
        jobs = {host: self._run_job(host, self.plan.sweep, self.folder / AGAIN) for host in (*accused, *good)}
        self._in_waves("again", jobs)

    # --- collective

    def _collective(self) -> None:
        """On every survivor, all at once: fewer at a time than there are would wait for each other for ever."""
        here, place = self._sound(), self.folder / COLLECTIVE
        if not self.plan.collective or len(here) < 2:
            return
        asked = read_object(place / "ranks.json")
        before = asked.get("hosts", ())
        if set(before) >= set(here) and all((place / f"{host}.json").exists() for host in before):
            return
        attempt = 1 + int(asked.get("attempt", 0))
        for host in here:
            (place / f"{host}.json").unlink(missing_ok=True)
        write_json(place / "ranks.json", {"hosts": here, "attempt": attempt})
        jobs = {host: self._rank_job(host, rank, here) for rank, host in enumerate(here)}
        self.jobs.perform(f"{COLLECTIVE}{attempt}", jobs, width=len(jobs))

    def _rank_job(self, host: str, rank: int, ranks: list[str]) -> HostJob:
        plan, path = self.plan, self.folder / COLLECTIVE / f"{host}.json"
        command = plan.command(
            plan.collective, host, plan.variables[ranks[0]].address, rank=str(rank), world=str(len(ranks)),
            own=plan.variables[host].address,
        )  # fmt: skip
        return HostJob(
            key=host, host=host, command=command, budget=plan.collective_budget, env=plan.env(host),
            accept=lambda frame: _accept_rank(frame, path),
        )  # fmt: skip


def _is_twice(out: bytes) -> bool:
    """Whether these are several documents where one was asked for: nobody can say which is true."""
    try:
        text, decoder = out.decode("utf-8").strip(), json.JSONDecoder()
        rest = text[decoder.raw_decode(text)[1] :].strip()
        return bool(rest) and bool(decoder.raw_decode(rest))
    except (ValueError, RecursionError):
        return False


def _accept_rank(frame: Frame, path: Path) -> None:
    """Store the node's line, the last that it printed."""
    try:
        entry = json.loads(frame.out[:_MOST_RANK_BYTES].decode("utf-8").strip().splitlines()[-1])
    except (ValueError, IndexError, RecursionError) as error:
        raise BadResult("no line of a rank") from error
    if trouble := trouble_of_line(entry):
        raise BadResult(trouble)
    write_json(path, entry)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One controller a run. Raises UserError when another one works there."""
    path = folder / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise UserError(one_line(f"{path}: {why(error)}")) from error
    with os.fdopen(fd):
        try:
            acquire(fd)
        except BlockingIOError as error:
            raise UserError(one_line(f"{folder}: another controller works on this run; wait for it")) from error
        except OSError as error:  # shared storage may be mounted without locks; a job still runs once, by its claim
            if error.errno not in _NO_LOCKS:
                raise UserError(one_line(f"{path}: {why(error)}")) from error
        yield
