"""Slurm, inside an allocation: one ``srun --overlap`` step a call, a task a host, and Slurm's own word on who died.

Every task says that it is there and waits; the scripts are sent, on standard input, when all are there. So a node that
cannot be reached, for which Slurm gives up a whole step, costs ten seconds and nobody's work: nothing has begun, and
the next step does without it. ``srun`` outlives a controller that is killed, and the jobs with it, as they do over
ssh; ``--resume`` in the same allocation finds them. No ssh, and no folder that the nodes share.
"""

from __future__ import annotations

import base64
import os
import re
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.fleet.transport.base import OnReply, Replies, Reply, ReplyKind, last_line
from bench.fleet.transport.child import END, RUN, Child, Scripts, ended, limited
from bench.measure import tools
from bench.measure.probe import ProbeError
from bench.measure.tools import Signals
from bench.store.errors import one_line

_START_SECONDS, _GRACE_SECONDS = 90.0, 30.0
_DEAD = frozenset({"DOWN", "NOT_RESPONDING", "POWERED_DOWN", "POWERING_DOWN"})
_HERE = "AIREADY-HERE"
_MOST_LINES = 200_000  # of base64, which hold more than a task that is ours prints
#: What a task is: it takes its own line of the table, whose size and time limit stand before it. Variables of the
#: controller's own measurements are not the nodes'.
_TASK = f"""\
echo {_HERE}
read -r size limit || exit 76
line=$(head -c "$size" | gzip -dc | sed -n "$((SLURM_PROCID + 1))p")
[ "${{line%% *}}" = "$SLURMD_NODENAME" ] || exit 76
script=$(echo "${{line#* }}" | base64 -d)
unset line $(env | sed -n 's/^\\(BENCH_[A-Z0-9_]*\\)=.*/\\1/p')
{RUN}"""
_SRUN = """--overlap --distribution=arbitrary --label --input=all --output=all --error=all --no-kill
--kill-on-bad-exit=0 --wait=0 --mpi=none --mem=0 --cpu-bind=none --chdir=/ --export=ALL""".split()
_LABELLED = re.compile(r" *(\d+): (.*)")
_NO_LAUNCH = re.compile(r"launch for \S+ failed on node (\S+):")
_NODE_DIED = re.compile(r"srun: error: Node failure on (\S+)")


@dataclass(slots=True)
class Slurm(Scripts):
    """Scripts on the nodes of the allocation that this process is in. Raises UserError outside of one."""

    signals: Signals | None = None
    job: str = field(default_factory=lambda: os.environ.get("SLURM_JOB_ID", ""))
    _steps: list[_Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]+", self.job):
            raise UserError("--slurm: this is no allocation of Slurm; start it in one: salloc --no-kill -N NODES")

    def hosts(self, pattern: str = "all") -> dict[str, dict[str, Any]]:
        """The allocation's nodes, also those that died since, with their addresses. Raises UserError."""
        names = self._names(os.environ.get("SLURM_JOB_NODELIST") or self._about_job()["NodeList"])
        nodes = self._nodes(names)
        return {name: {"bench_addr": nodes.get(name, {}).get("NodeAddr", name)} for name in limited(names, pattern)}

    def _each(self, commands: Mapping[str, str], limit: float, file: Path | None, listen: OnReply) -> dict[str, Reply]:
        replies = Replies(commands, listen)
        for host, state in self._dead(list(commands)).items():
            replies.give(host, ReplyKind.UNREACHABLE, f"Slurm says of it: {state}")
        while replies.waiting:
            step = _Step(self.job, list(replies.waiting))
            self._steps = [one for one in self._steps if one.child.is_running()] + [step]
            try:
                if self._assembled(step, replies):
                    step.child.send(_table({host: commands[host] for host in step.hosts}, limit), last=file is None)
                    if file is not None:
                        step.child.send(file.read_bytes(), last=True)
                    self._follow(step, replies, limit + _GRACE_SECONDS)
            except BaseException:
                for one in self._steps:
                    one.child.end()
                raise
        return replies.given

    def _assembled(self, step: _Step, replies: Replies) -> bool:
        """Whether all tasks are there. If not, those that are the cause have their reply, and the step is over."""
        silent: list[str] = []
        for _ in step.child.polls(_START_SECONDS, self.signals):
            step.read(replies)
            silent = [host for i, host in enumerate(step.hosts) if i not in step.here and host in replies.waiting]
            if not silent:
                return True
        causes = step.unlaunched or (dict.fromkeys(silent, "Slurm did not start its task") if step.here else {})
        if not causes:
            raise UserError(one_line(f"srun: {step.said or 'no task began'}; the allocation may be over"))
        for host, cause in causes.items():
            replies.give(host, ReplyKind.UNREACHABLE, cause)
        step.child.end()
        return False

    def _follow(self, step: _Step, replies: Replies, seconds: float) -> None:
        for _ in step.child.polls(seconds, self.signals):
            step.read(replies)
            if not replies.waiting:
                return
        if step.child.is_running():
            step.child.end()
            replies.complete(ReplyKind.LATE, "the controller's limit was reached")
        else:
            replies.complete(ReplyKind.UNREACHABLE, step.said or "its task has ended")

    # --- what Slurm says

    def _dead(self, hosts: Sequence[str]) -> dict[str, str]:
        """Host -> its state, of those on which nothing can be started."""
        mine = set(self._names(self._about_job()["NodeList"]))
        states = {host: entry.get("State", "") for host, entry in self._nodes(hosts).items()}
        return {
            host: f"{states.get(host, 'unknown')}{'' if host in mine else f', and not in allocation {self.job}'}"
            for host in hosts
            if host not in mine or _DEAD & set(states.get(host, "").split("+"))
        }

    def _about_job(self) -> dict[str, str]:
        found = _fields(self._scontrol("-o", "show", "job", self.job))
        if found.get("JobState") != "RUNNING" or "NodeList" not in found:
            raise UserError(f"allocation {self.job} is {found.get('JobState')}; go on in another, by --resume")
        return found

    def _names(self, nodes: str) -> list[str]:
        return self._scontrol("show", "hostnames", nodes).split()

    def _nodes(self, hosts: Sequence[str]) -> dict[str, dict[str, str]]:
        text = self._scontrol("-o", "show", "node", ",".join(hosts), must=False)  # one unknown name is no fault
        entries = [_fields(line) for line in text.splitlines()]
        return {entry["NodeName"]: entry for entry in entries if "NodeName" in entry}

    def _scontrol(self, *words: str, must: bool = True) -> str:
        try:
            done = tools.run(["scontrol", *words], timeout=60, signals=self.signals, env=_environment())
        except ProbeError as error:
            raise UserError(one_line(f"scontrol: {error.reason}")) from error
        if done.returncode and must:
            raise UserError(one_line(f"scontrol {' '.join(words[:3])}: {last_line(done.stderr)}"))
        return done.stdout


class _Step:
    """A step of ``srun``: task i is on the i-th host. It outlives its replies where a script left a server running."""

    def __init__(self, job: str, hosts: Sequence[str]) -> None:
        self.hosts = hosts
        self._names = tempfile.NamedTemporaryFile("w", prefix="aiready-hosts-")  # noqa: SIM115 - read when srun starts
        self._names.write("".join(f"{host}\n" for host in hosts))
        self._names.flush()
        # In a session of its own, because srun that dies with us would take its tasks with it.
        srun = ["setsid", "--fork", "--wait", "srun", f"--jobid={job}", f"--ntasks={len(hosts)}", *_SRUN]
        self.child = Child([*srun, "sh", "-c", _TASK], {**_environment(), "SLURM_HOSTFILE": self._names.name})
        self.here: set[int] = set()
        self.unlaunched: dict[str, str] = {}
        self.said = ""
        self._lines: list[list[str]] = [[] for _ in hosts]

    def read(self, replies: Replies) -> None:
        """Take what has come."""
        for line in self.child.err.lines():
            self._complaint(line, replies)
        for line in self.child.out.lines():
            labelled = _LABELLED.fullmatch(line)
            if labelled is None or int(labelled[1]) >= len(self.hosts):
                continue
            index, text = int(labelled[1]), labelled[2]
            if text.startswith(END):
                ended(replies, self.hosts[index], self._lines[index], text)
            elif text == _HERE and index not in self.here:
                self.here.add(index)
            elif len(self._lines[index]) < _MOST_LINES:
                self._lines[index].append(text)

    def _complaint(self, line: str, replies: Replies) -> None:
        if line.startswith("srun: error:"):
            self.said = line.removeprefix("srun: error: ")
            if launch := _NO_LAUNCH.search(line):
                self.unlaunched[launch[1]] = self.said
            if died := _NODE_DIED.match(line):
                replies.give(died[1], ReplyKind.UNREACHABLE, f"Slurm says: {self.said}")


def _table(commands: Mapping[str, str], limit: float) -> bytes:
    rows = (f"{host} {base64.b64encode(script.encode()).decode()}\n" for host, script in commands.items())
    packed = zlib.compress("".join(rows).encode(), 9, wbits=31)
    return f"{len(packed)} {limit:g}\n".encode() + packed


def _environment() -> dict[str, str]:
    """Of our own words for srun only which cluster it is: others (tasks, memory) would change the step."""
    return {name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CLUSTERS") if name in os.environ}


def _fields(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.split() if "=" in word)
