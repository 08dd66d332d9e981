"""Jobs on hosts: each is started once, is bounded on its node, and ends in one recorded outcome.

The log is written before a job starts and after it ends. A controller that comes back asks the nodes first: what has
ended is taken, what still runs is waited for, what was never claimed is started, what died with its machine or gave no
result is started anew under the next attempt. So nothing that was finished is lost, and nothing runs twice.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.fleet import job_script as node_script
from bench.fleet.errors import FleetError
from bench.fleet.files import LOG, entries
from bench.fleet.job_script import BadFrame, Frame
from bench.fleet.transport.base import Kind, Reply, Transport
from bench.judge.fleet.model import State
from bench.show.terminal.progress import Note
from bench.store.errors import one_line, why

ANSWERED = "answered"  # in the log: a result was stored; what it says is judged when it is joined
_GRACE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """One command on one host. ``accept`` stores its result and returns None, or why it is none.

    Two jobs with the same ``claim`` never both run on one machine. ``alone``: it is known that no other name is of this
    machine, so that a claim that is taken already was taken by an earlier start of the same job.
    """

    key: str
    host: str
    command: str
    budget: float
    env: Mapping[str, str]
    accept: Callable[[Frame], str | None]
    delay: float = 0.0
    claim: str = ""
    alone: bool = False


Listen = Callable[[Note], None]


@dataclass(slots=True)
class Log:
    """``log.jsonl``: one line a start and an outcome, durable before the next step."""

    path: Path
    started: dict[tuple[str, str], int] = field(default_factory=dict)
    ended: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Log:
        log = cls(folder / LOG)
        for entry in entries(folder):
            log._learn(entry)
        return log

    def _learn(self, entry: Mapping[str, Any]) -> None:
        key, attempt = (str(entry.get("phase")), str(entry.get("key"))), entry.get("attempt")
        if isinstance(attempt, int):
            self.started[key] = max(attempt, self.started.get(key, 0))
        if entry.get("state") is not None:
            self.ended[key] = str(entry["state"])
        else:
            self.ended.pop(key, None)

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append. Raises FleetError: a run that cannot be recorded must not go on."""
        text = "".join(json.dumps({"t": round(time.time(), 3), **row}, ensure_ascii=True) + "\n" for row in rows)
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            try:
                os.write(fd, text.encode())
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise FleetError(one_line(f"{self.path}: cannot be written: {why(error)}")) from error
        for row in rows:
            self._learn(row)


@dataclass(slots=True)
class Jobs:
    """Performs jobs, at most one a host at a time. ``prefix`` begins every claim."""

    engine: Transport
    log: Log
    prefix: str
    listen: Listen = lambda _: None
    gone: dict[str, bool] = field(default_factory=dict)

    def lost(self, host: str) -> bool:
        """Whether the connection to that host was lost in this run, by what was said of it last."""
        return self.gone.get(host, False)

    def perform(self, phase: str, jobs: Mapping[str, Job], width: int | None = None) -> None:
        """Do what has no result yet of these jobs (host -> its job). Raises FleetError, Interrupted."""
        begun = {host: job for host, job in jobs.items() if self._attempt(phase, job)}
        fresh = {host: (job, 1) for host, job in jobs.items() if host not in begun}
        todo = fresh | self.collect(phase, begun)
        if todo:
            self._start(phase, todo, width)

    def collect(self, phase: str, jobs: Mapping[str, Job], wait: bool = True) -> dict[str, tuple[Job, int]]:
        """Take what has ended meanwhile. Returns what is to be started (again), with the attempt's number."""
        if not jobs:
            return {}
        seconds = max(job.budget + job.delay for job in jobs.values()) + node_script.KILL_AFTER_SECONDS if wait else 0.0
        claims = {host: self._claim(phase, job, self._attempt(phase, job)) for host, job in jobs.items()}
        scripts = {host: node_script.collect(claim, seconds) for host, claim in claims.items()}
        replies = self.engine.each(scripts, seconds + _GRACE_SECONDS)
        todo = {}
        for host, job in jobs.items():
            attempt = self._attempt(phase, job)
            again = self._collected(phase, job, replies[host], claims[host], attempt)
            if again:
                todo[host] = (job, again)
        return todo

    def _collected(self, phase: str, job: Job, reply: Reply, claim: str, attempt: int) -> int:
        """The number of the attempt that is to be started; 0 for none."""
        found = node_script.marker(reply.stdout, claim) if reply.kind is Kind.DONE else None
        if found == "NONE":
            return attempt
        if found == "DIED":
            return attempt + 1
        if found == "RUNNING":
            self._end(phase, job, attempt, State.CONTROLLER_TIMEOUT.value, "still_running: it is within its bound")
            return 0
        ended = self._settle(phase, job, reply, claim, attempt)
        return attempt + 1 if reply.kind is Kind.DONE and ended != ANSWERED else 0

    def _start(self, phase: str, todo: Mapping[str, tuple[Job, int]], width: int | None) -> None:
        rows = [
            {"phase": phase, "key": job.key, "host": job.host, "attempt": attempt} for job, attempt in todo.values()
        ]
        self.log.write(rows)
        for job, _ in todo.values():
            self.listen(Note(phase, job.host, None))
        claims = {host: self._claim(phase, job, attempt) for host, (job, attempt) in todo.items()}
        scripts = {
            host: node_script.run(claims[host], job.command, job.budget, job.env, job.delay)
            for host, (job, _) in todo.items()
        }
        limit = max(job.budget + job.delay for job, _ in todo.values())
        self.engine.each(
            scripts,
            limit + node_script.KILL_AFTER_SECONDS + _GRACE_SECONDS,
            width=width,
            listen=lambda reply: self._heard(phase, todo, claims, reply),
        )

    def _heard(self, phase: str, todo: Mapping[str, tuple[Job, int]], claims: Mapping[str, str], reply: Reply) -> None:
        job, attempt = todo[reply.host]
        self._settle(phase, job, reply, claims[reply.host], attempt)

    def _settle(self, phase: str, job: Job, reply: Reply, claim: str, attempt: int) -> str:
        state, reason = self._outcome(job, reply, claim)
        return self._end(phase, job, attempt, state, reason)

    def _end(self, phase: str, job: Job, attempt: int, state: str, reason: str) -> str:
        row = {"phase": phase, "key": job.key, "host": job.host, "attempt": attempt, "state": state, "reason": reason}
        self.log.write([row])
        self.gone[job.host] = state in (State.LOST.value, State.CONTROLLER_TIMEOUT.value)
        self.listen(Note(phase, job.host, state, reason))
        return state

    def _outcome(self, job: Job, reply: Reply, claim: str) -> tuple[str, str]:
        if reply.kind is Kind.UNREACHABLE:
            return State.LOST.value, f"connection_lost: {reply.detail}"
        if reply.kind is Kind.LATE:
            return State.CONTROLLER_TIMEOUT.value, f"controller_timeout: {reply.detail}"
        if reply.kind is Kind.NOT_RUN:
            return State.NOT_RUN.value, f"not_run: {reply.detail}"
        if reply.rc == node_script.CLAIMED and job.alone:
            return State.LOST.value, "taken_already: by an earlier start of this run, whose result is not here yet"
        if reply.rc == node_script.CLAIMED:
            return State.DUPLICATE.value, "duplicate: this machine has taken the job already, under another name"
        try:
            return self._judged(job, node_script.parse(reply.stdout, claim))
        except BadFrame as error:
            state = State.DUPLICATE if error.twice else State.BAD_RESULT
            return state.value, one_line(f"{'duplicate' if error.twice else 'bad_result'}: {error}")

    def _judged(self, job: Job, frame: Frame) -> tuple[str, str]:
        if frame.rc in node_script.TIMED_OUT:
            return State.NODE_TIMEOUT.value, f"node_timeout: did not end within its {job.budget:.0f} s"
        trouble = job.accept(frame)
        if trouble is None:
            return ANSWERED, ""
        if trouble.startswith("duplicate:"):
            return State.DUPLICATE.value, trouble
        said = f"; it said: {' '.join(frame.stderr.split())[-200:]}" if frame.stderr.strip() else ""
        return State.BAD_RESULT.value, one_line(f"bad_result: status {frame.rc}: {trouble}{said}")

    def _attempt(self, phase: str, job: Job) -> int:
        return self.log.started.get((phase, job.key), 0)

    def _claim(self, phase: str, job: Job, attempt: int) -> str:
        return f"{self.prefix}.{phase}{job.claim}.{attempt}"
