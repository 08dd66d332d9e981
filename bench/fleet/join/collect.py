"""The files that came, whoever brought them: each is read with suspicion and laid at one expected host.

A file is of the host whose name it bears inside; a file whose own name is that of an expected host must say the same
inside. What cannot be laid at an expected host is a stranger: named, and not counted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.fleet.hosts import same_host
from bench.model import Run
from bench.store import documents as reading
from bench.store.errors import UnusableRun, one_line

_MOST_FILES = 200_000
_NO_MACHINE = hashlib.sha256(b"").hexdigest()[:16]  # the digest of an /etc/machine-id that is not there
#: What the engine, and we ourselves, write beside the nodes' files.
_OURS = frozenset({"plan.json", "fleet.json", "pairs.json", "roster.json"})
_BESIDE = frozenset({"pairs", "collective", "shared", "again"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What one file says: a run, or why it is none."""

    path: Path
    run: Run | None
    trouble: str | None = None


def files(folder: Path) -> Iterator[Path]:
    """Every ``.json`` below ``folder``, in order; no link followed, nothing hidden, no raw tool output."""
    count = 0
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".raw"))
        top = Path(place) == folder
        folders[:] = [name for name in folders if not (top and name in _BESIDE)]
        for name in sorted(names):
            if name.endswith(".json") and not name.startswith(".") and not (top and name in _OURS):
                count += 1
                if count > _MOST_FILES:
                    return
                yield Path(place, name)


class Sorter:
    """Lays runs at expected hosts. ``hostnames``: what a host calls itself, where it was asked (host -> name)."""

    def __init__(self, expected: Sequence[str], hostnames: Mapping[str, str] | None = None) -> None:
        self._expected = frozenset(expected)
        self._own = dict(hostnames or {})
        self._by_name: dict[str, list[str]] = {}
        for host in expected:
            for name in {host.lower(), host.lower().partition(".")[0], self._own.get(host, host).lower()}:
                self._by_name.setdefault(name, []).append(host)

    def place(self, answer: Answer) -> tuple[str | None, Answer]:
        """The host that the answer is of, and the answer; None for a stranger, whose ``trouble`` then says why."""
        named = answer.path.stem if answer.path.stem in self._expected else None
        if answer.run is None:
            return named, answer
        hostname = answer.run.node.hostname
        if named is not None:
            return named, self._own_word(answer, named, hostname)
        hosts = self._hosts(hostname)
        if len(hosts) == 1:
            return hosts[0], answer
        many = f"could be of {', '.join(hosts[:3])}" if hosts else "is no host that was expected"
        return None, Answer(answer.path, None, one_line(f"{answer.path}: says it is of {hostname!r}, which {many}"))

    def _own_word(self, answer: Answer, host: str, hostname: str) -> Answer:
        if same_host(self._own.get(host, host), hostname):
            return answer
        trouble = one_line(f"{answer.path}: is named for {host} but says it is of {hostname!r}")
        return Answer(answer.path, None, trouble)

    def _hosts(self, hostname: str) -> list[str]:
        name = hostname.lower()
        found = self._by_name.get(name) or self._by_name.get(name.partition(".")[0], [])
        return [host for host in found if same_host(self._own.get(host, host), hostname)]


def read(path: Path) -> Answer:
    """The run in that file, never following a link."""
    try:
        run = reading.load(path, follow=False)
    except UnusableRun as error:
        return Answer(path, None, str(error))
    if run.replay_of is not None:
        return Answer(path, None, one_line(f"{path}: is a replay of {run.replay_of}, not a measurement"))
    return Answer(path, run)


def machine(run: Run) -> str | None:
    """Which machine measured: its machine-id and boot-id. None when it knows neither."""
    ids = [run.node.facts.get("machine_id"), run.node.facts.get("boot_id")]
    known = [word if isinstance(word, str) and word and word != _NO_MACHINE else "" for word in ids]
    return "/".join(known)[:200] if any(known) else None
