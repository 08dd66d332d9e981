"""Jobs on hosts: each is started once, is bounded on its node, and ends in one recorded outcome.

The log is written before a job starts and after it ends. A controller that comes back asks the nodes first: what has
ended is taken, what still runs is waited for, what was never claimed is started, what died with its machine or gave no
result is started anew under the next attempt. So nothing that was finished is lost, and nothing runs twice.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UserError, why
from bench.fleet import job_script
from bench.fleet.files import LOG, entries
from bench.fleet.job_script import BadResult, Frame
from bench.fleet.transport.base import Reply, ReplyKind, Transport
from bench.judge.fleet.model import State
from bench.show.terminal.progress import Note
from bench.store.errors import one_line

ANSWERED = "answered"  # in the log: a result was stored; what it says is judged when it is joined
_GRACE_SECONDS = 30.0
_NO_END = {
    ReplyKind.UNREACHABLE: (State.LOST, "connection_lost"),
    ReplyKind.LATE: (State.CONTROLLER_TIMEOUT, "controller_timeout"),
    ReplyKind.NOT_RUN: (State.NOT_RUN, "not_run"),
}


@dataclass(frozen=True, slots=True)
class HostJob:
    """One command on one host. ``accept`` stores its result, or raises BadResult.

    No other name is known to be of this machine. Two jobs with the same ``claim`` never both run there.
    """

    key: str
    host: str
    command: str
    budget: float
    env: Mapping[str, str]
    accept: Callable[[Frame], None]
    delay: float = 0.0
    claim: str = ""


OnNote = Callable[[Note], None]


class Log:
    """``log.jsonl``: one line a start and an outcome, durable before the next step.

    By phase and key: the last attempt that was ``started``, and the state in which it has ``ended``.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG
        self.started: dict[tuple[str, str], int] = {}
        self.ended: dict[tuple[str, str], str] = {}
        for entry in entries(folder):
            self._learn(entry)

    def _learn(self, entry: Mapping[str, Any]) -> None:
        key, attempt = (str(entry.get("phase")), str(entry.get("key"))), entry.get("attempt")
        if isinstance(attempt, int):
            self.started[key] = max(attempt, self.started.get(key, 0))
        if entry.get("state") is not None:
            self.ended[key] = str(entry["state"])
        else:
            self.ended.pop(key, None)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append. Raises UserError: a run that cannot be recorded must not go on."""
        text = "".join(json.dumps({"t": round(time.time(), 3), **row}, ensure_ascii=True) + "\n" for row in rows)
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            try:
                os.write(fd, text.encode())
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise UserError(one_line(f"{self._path}: cannot be written: {why(error)}")) from error
        for row in rows:
            self._learn(row)


@dataclass(slots=True)
class Jobs:
    """Performs jobs, at most one a host at a time. ``prefix`` begins every claim."""

    transport: Transport
    log: Log
    prefix: str
    listen: OnNote = lambda _: None
    _lost: dict[str, bool] = field(default_factory=dict)

    def lost(self, host: str) -> bool:
        """Whether the connection to that host was lost in this run, by what was said of it last."""
        return self._lost.get(host, False)

    def perform(self, phase: str, jobs: Mapping[str, HostJob], width: int | None = None) -> None:
        """Do what has no result yet of these jobs (host -> its job). Raises UserError, Interrupted."""
        begun = {host: job for host, job in jobs.items() if (phase, job.key) in self.log.started}
        todo = {host: (job, 1) for host, job in jobs.items() if host not in begun} | self.collect(phase, begun)
        if todo:
            self._start(phase, todo, width)

    def collect(self, phase: str, jobs: Mapping[str, HostJob]) -> dict[str, tuple[HostJob, int]]:
        """Take what has ended meanwhile. Returns what is to be started (again), with the attempt's number."""
        if not jobs:
            return {}
        seconds = max(job.budget + job.delay for job in jobs.values()) + job_script.KILL_AFTER_SECONDS
        attempts = {host: self.log.started.get((phase, job.key), 0) for host, job in jobs.items()}
        claims = {host: self._claim(phase, job, attempts[host]) for host, job in jobs.items()}
        scripts = {host: job_script.collect(claim, seconds) for host, claim in claims.items()}
        replies = self.transport.each(scripts, seconds + _GRACE_SECONDS)
        todo = {}
        for host, job in jobs.items():
            attempt, reply = attempts[host], replies[host]
            found = job_script.marker(reply.stdout, claims[host])
            if found == "NONE":
                todo[host] = (job, attempt)
            elif found == "DIED":
                todo[host] = (job, attempt + 1)
            elif found == "RUNNING":
                self._end(phase, job, attempt, State.CONTROLLER_TIMEOUT, "still_running: it is within its bound")
            else:
                state = self._end(phase, job, attempt, *self._outcome(job, reply, claims[host]))
                if reply.kind is ReplyKind.DONE and state != ANSWERED:
                    todo[host] = (job, attempt + 1)
        return todo

    def _start(self, phase: str, todo: Mapping[str, tuple[HostJob, int]], width: int | None) -> None:
        self.log.write([
            {"phase": phase, "key": job.key, "host": job.host, "attempt": attempt} for job, attempt in todo.values()
        ])  # fmt: skip
        claims, scripts = {}, {}
        for host, (job, attempt) in todo.items():
            self.listen(Note(phase, host, None))
            claims[host] = self._claim(phase, job, attempt)
            scripts[host] = job_script.run(claims[host], job.command, job.budget, job.env, job.delay)

        def heard(reply: Reply) -> None:
            job, attempt = todo[reply.host]
            self._end(phase, job, attempt, *self._outcome(job, reply, claims[reply.host]))

        limit = max(job.budget + job.delay for job, _ in todo.values()) + job_script.KILL_AFTER_SECONDS + _GRACE_SECONDS
        self.transport.each(scripts, limit, width=width, listen=heard)

    def _claim(self, phase: str, job: HostJob, attempt: int) -> str:
        return f"{self.prefix}.{phase}{job.claim}.{attempt}"

    def _end(self, phase: str, job: HostJob, attempt: int, state: str, reason: str) -> str:
        row = {"phase": phase, "key": job.key, "host": job.host, "attempt": attempt, "state": state, "reason": reason}
        self.log.write([row])
        self._lost[job.host] = state in (State.LOST, State.CONTROLLER_TIMEOUT)
        self.listen(Note(phase, job.host, state, reason))
        return state

    @staticmethod
    def _outcome(job: HostJob, reply: Reply, claim: str) -> tuple[str, str]:
        """(state, reason). The result is stored where there is one."""
        if reply.kind in _NO_END:
            state, word = _NO_END[reply.kind]
            return state, f"{word}: {reply.detail}"
        if reply.rc == job_script.CLAIMED:
            return State.LOST, "taken_already: by an earlier start of this run, whose result is not here yet"
        status, said = "", f"; it said: {reply.detail}" if reply.detail else ""
        try:
            frame = job_script.parse(reply.stdout, claim)
            if frame.rc in job_script.TIMED_OUT:
                return State.NODE_TIMEOUT, f"node_timeout: did not end within its {job.budget:.0f} s"
            status, complaint = f"status {frame.rc}: ", " ".join(frame.stderr.split())[-200:]
            said = f"; it said: {complaint}" if complaint else ""
            job.accept(frame)
        except BadResult as error:
            if error.twice:
                return State.DUPLICATE, one_line(f"duplicate: {error}")
            return State.BAD_RESULT, one_line(f"bad_result: {status}{error}{said}")
        return ANSWERED, ""
