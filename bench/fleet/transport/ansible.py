"""ansible-core over OpenSSH, driven by ansible-runner. Both are started as programs: ansible-core is GPL, and nothing
of it is imported. The inventory, keys, bastions, become and vault are the site's own.

The traps that these settings avoid were each reproduced: ssh retries start a command twice, a tty kills what was just
started in the background, ``async`` does not see a lost host for minutes.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.fleet.job_script import MOST_PACKED_BYTES
from bench.fleet.transport.base import OnReply, Replies, Reply, ReplyKind, last_line
from bench.fleet.transport.child import Child
from bench.measure import tools
from bench.measure.probe import ProbeError
from bench.measure.tools import Signals
from bench.store.errors import one_line

CONNECT_SECONDS = 10
INSTALL = "pip install 'aiready-bench[fleet]'"
_KEEP_ALIVE = "-o ServerAliveInterval=5 -o ServerAliveCountMax=3"  # a lost host is seen after 15 s
_SITE = ("SSH_AUTH_SOCK", "SSH_AGENT_PID", "KRB5CCNAME", "SSH_ASKPASS", "DISPLAY")
_CONFIG = "[defaults]\ninternal_poll_interval = 0.05\nretry_files_enabled = False\n"
_TASK = "job"
_OWN_WORD = "{{ aiready_words[inventory_hostname] }}"
_START_SECONDS, _HOST_SECONDS = 30.0, 15.0
_MOST_HOSTS_AT_ONCE = 512  # of one start of ansible: its output is held in memory
_MOST_STDOUT = 4 * MOST_PACKED_BYTES  # of its end: what a login prints comes first
_BEFORE = re.compile(r"^(Task failed: |Failed to connect to the host via ssh: |ERROR! |\[ERROR\]: )+")


@dataclass(slots=True)
class Ansible:
    """Commands on hosts of a site's ansible inventory. ``inventory`` holds what ansible takes with ``-i``."""

    inventory: Sequence[str]
    signals: Signals | None = None

    def hosts(self, pattern: str = "all") -> dict[str, dict[str, Any]]:
        """In the inventory's order, with their variables."""
        argv = [program("ansible-inventory"), *self._inventory(), "--list", "--limit", pattern]
        with private() as folder:
            try:
                done = tools.run(argv, timeout=120, signals=self.signals, env=environment(folder))
            except ProbeError as error:
                raise UserError(one_line(f"inventory: {error.reason}")) from error
        if done.returncode:
            raise UserError(one_line(f"inventory: {_last_line(done.stderr)}; see: ansible-inventory --list"))
        try:
            return _hosts(json.loads(done.stdout))
        except (ValueError, AttributeError, TypeError) as error:
            raise UserError(one_line(f"inventory: ansible-inventory answered what is no inventory: {error}")) from error

    def each(
        self, commands: Mapping[str, str], limit: float, *, width: int | None = None, listen: OnReply = lambda _: None
    ) -> dict[str, Reply]:
        """Each host's script travels in base64, so that nothing in it is a template or a quote."""
        raw = f"""sh -c "$(echo {_OWN_WORD} | base64 -d)" """.strip()
        task = {"ansible.builtin.raw": raw, "failed_when": False}
        scripts = [(host, base64.b64encode(script.encode()).decode()) for host, script in commands.items()]
        step = max(_MOST_HOSTS_AT_ONCE, width or 0)
        replies: dict[str, Reply] = {}
        for start in range(0, len(scripts), step):
            replies |= self._play(task, dict(scripts[start : start + step]), limit, width, listen)
        return replies

    def put(
        self, source: Path, places: Mapping[str, str], pythons: Mapping[str, str], limit: float
    ) -> dict[str, Reply]:
        task = {
            "ansible.builtin.copy": {"src": str(source), "dest": _OWN_WORD, "mode": "0600"},
            "vars": {"aiready_pythons": dict(pythons),
                     "ansible_python_interpreter": "{{ aiready_pythons[inventory_hostname] }}"},
        }  # fmt: skip
        return self._play(task, places, limit, None, lambda _: None)

    def _play(
        self, task: Mapping[str, Any], words: Mapping[str, str], limit: float, width: int | None, listen: OnReply
    ) -> dict[str, Reply]:
        """Run a play of that task. More hosts at once than 16 a core only slow the controller."""
        width = width or min(len(words), 16 * (os.cpu_count() or 1))
        deadline = (limit + CONNECT_SECONDS + _HOST_SECONDS) * -(-len(words) // width) + _START_SECONDS
        replies, events = Replies(words, listen), _Events()
        with private() as folder:
            _write_plays(folder, task, words, limit)
            argv = [
                program("ansible-runner"), "run", str(folder), "-p", "plays.json", "--ident", "r", "-j",
                "--omit-env-files", "--forks", str(width), f"--cmdline={shlex.join(self._inventory())}",
            ]  # fmt: skip
            runner = Child(argv, environment(folder))
            try:
                runner.send(b"", last=True)
                for _ in runner.polls(deadline, self.signals):
                    for line in runner.out.lines():
                        events.hear(line, replies)
                if runner.is_running():
                    return replies.complete(ReplyKind.LATE, f"the controller's limit of {deadline:.0f} s was reached")
                if not events.begun:
                    complaint = events.said or "\n".join(runner.err.lines())
                    raise UserError(one_line(f"ansible did not begin: {_last_line(complaint) or 'it said nothing'}"))
            finally:
                runner.end()
        return replies.complete(ReplyKind.NOT_RUN, "ansible ended before it came to this host")

    def _inventory(self) -> list[str]:
        return [word for source in self.inventory for word in ("-i", source)]


class _Events:
    """Sorts ansible-runner's events into replies."""

    begun, said = False, ""

    def hear(self, text: str, replies: Replies) -> None:
        event: dict[str, Any] = {"stdout": text}
        if text.startswith("{"):
            with suppress(ValueError):
                event = json.loads(text)
        self.said = str(event.get("stdout", "")).strip() or self.said
        kind, data = event.get("event"), event.get("event_data") or {}
        self.begun = self.begun or kind == "playbook_on_play_start"
        if kind in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable") and data.get("task") == _TASK:
            self._give(kind, str(data.get("host")), data.get("res") or {}, replies)

    @staticmethod
    def _give(kind: str, host: str, result: Mapping[str, Any], replies: Replies) -> None:
        detail = _last_line(str(result.get("stderr") or result.get("msg") or ""))
        rc = result.get("rc", 0 if kind == "runner_on_ok" else None)
        if kind == "runner_on_unreachable":
            replies.give(host, ReplyKind.UNREACHABLE, detail)
        elif "timedout" in result:
            replies.give(host, ReplyKind.LATE, "its task reached the controller's limit")
        elif isinstance(rc, int):
            replies.give(host, ReplyKind.DONE, detail, rc, str(result.get("stdout") or "")[-_MOST_STDOUT:])
        else:
            replies.give(host, ReplyKind.NOT_RUN, detail)


def _write_plays(folder: Path, task: Mapping[str, Any], words: Mapping[str, str], limit: float) -> None:
    """One play of one task; ``words`` is what the task needs, by host."""
    whole = {"name": _TASK, "timeout": int(limit) + 1, "changed_when": False, **task}
    play = {
        "name": "fleet", "hosts": list(words), "gather_facts": False, "strategy": "linear",
        "vars": {"aiready_words": dict(words)}, "tasks": [whole],
    }  # fmt: skip
    project = folder / "project"
    project.mkdir()
    (project / "plays.json").write_text(json.dumps([play]), encoding="utf-8")


def _hosts(listing: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every host of the listing's groups, each once."""
    variables = listing.get("_meta", {}).get("hostvars", {})
    found: dict[str, dict[str, Any]] = {}
    queue, seen = ["all"], set()
    while queue:
        group = queue.pop(0)
        if group in seen or not isinstance(listing.get(group), dict):
            continue
        seen.add(group)
        found |= {host: dict(variables.get(host, {})) for host in listing[group].get("hosts", ()) if host not in found}
        queue += listing[group].get("children", ())
    return found | {host: dict(values) for host, values in variables.items() if host not in found}


def _last_line(text: str) -> str:
    """The last line, without what ansible says before ssh's own words."""
    return one_line(_BEFORE.sub("", last_line(text)))


def program(name: str) -> str:
    """The absolute path of a program of the extra ``fleet``: beside this Python, else on PATH. Raises UserError."""
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.is_file() else shutil.which(name)
    if path is None:
        raise UserError(f"{name} is not installed; {INSTALL}")
    return path


@contextmanager
def private() -> Iterator[Path]:
    """A 0700 folder, in memory where the system has such a place, for what ansible writes; gone afterwards. What a
    controller that was killed has left there is removed by the next.
    """
    places = (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm", tempfile.gettempdir())
    base = next(place for place in places if place and os.access(place, os.W_OK | os.X_OK))
    for left in Path(base).glob("aiready-fleet-*-*"):
        owner = left.name.split("-")[2]
        with suppress(FileNotFoundError):  # another controller was quicker
            if owner.isdigit() and not Path(f"/proc/{owner}").exists() and left.stat().st_uid == os.geteuid():
                shutil.rmtree(left, ignore_errors=True)
    prefix = f"aiready-fleet-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=base, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def environment(folder: Path) -> dict[str, str]:
    """The site's own ansible and ssh settings, and ours where they must be so."""
    site = {k: v for k, v in os.environ.items() if k in _SITE or k.startswith("ANSIBLE_")}
    config = _site_config()
    if config is None:
        config = folder / "ansible.cfg"
        config.write_text(_CONFIG, encoding="utf-8")
        site.setdefault("ANSIBLE_SSH_ARGS", f"-o ControlMaster=no {_KEEP_ALIVE}")
    else:
        site.setdefault("ANSIBLE_SSH_EXTRA_ARGS", _KEEP_ALIVE)  # ssh takes the first that is given: the site's stand
    ours = {
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_SSH_RETRIES": "0",
        "ANSIBLE_SSH_USETTY": "False",
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_GATHERING": "explicit",
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "c"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "t"),
        "MAX_EVENT_RES": str(1 << 30),  # ansible-runner drops a result of more characters, 700000 if it is not told
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    return {**site, "ANSIBLE_TIMEOUT": site.get("ANSIBLE_TIMEOUT", str(CONNECT_SECONDS)), **ours}


def _site_config() -> Path | None:
    """The configuration that ansible itself would take, seen from where the user stands."""
    given = os.environ.get("ANSIBLE_CONFIG")
    places = (given, "ansible.cfg", os.path.expanduser("~/.ansible.cfg"), "/etc/ansible/ansible.cfg")
    return next((Path(place).resolve() for place in places if place and os.path.isfile(place)), None)
