"""The files that came, whoever brought them: each is read with suspicion and laid at one expected host.

A file is of the host whose name it bears inside; a file whose own name is that of an expected host must say the same
inside. What cannot be laid at an expected host is a stranger: named, and not counted.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from bench.fleet.files import same_host
from bench.model import Run
from bench.store import documents
from bench.store.errors import UnusableRun, one_line
from bench.store.evidence import is_run_name

_MOST_FILES = 200_000
_NO_MACHINE = hashlib.sha256(b"").hexdigest()[:16]  # the digest of an /etc/machine-id that is not there
#: What a controller writes beside the nodes' files.
_OURS = frozenset({"plan.json", "fleet.json", "pairs.json", "roster.json"})
_BESIDE = frozenset({"pairs", "collective", "shared", "again"})


def files(folder: Path) -> Iterator[Path]:
    """Every ``.json`` below ``folder``, in order; no link followed, nothing hidden, no raw tool output."""
    return islice(_files(folder), _MOST_FILES)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, followlinks=False):
        ours, beside = (_OURS, _BESIDE) if Path(place) == folder else (frozenset(), frozenset())
        shown = (name for name in folders if not name.startswith(".") and name not in beside)
        folders[:] = sorted(name for name in shown if not name.endswith(".raw"))
        for name in sorted(names):
            if is_run_name(name) and name not in ours:
                yield Path(place, name)


def read(path: Path) -> Run | str:
    """The run in that file, never following a link; or why it is none."""
    try:
        run = documents.load(path, follow=False)
    except UnusableRun as error:
        return str(error)
    if run.replay_of is not None:
        return one_line(f"{path}: is a replay of {run.replay_of}, not a measurement")
    return run


class Sorter:
    """Lays runs at expected hosts. ``hostnames``: what a host calls itself, where it was asked (host -> name)."""

    def __init__(self, expected: Sequence[str], hostnames: Mapping[str, str]) -> None:
        self._own = {host: hostnames.get(host, host) for host in expected}
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for host, own in self._own.items():
            for name in {host.lower(), host.lower().partition(".")[0], own.lower()}:
                self._by_name[name].append(host)

    def place(self, path: Path, found: Run | str) -> tuple[str | None, Run | str]:
        """The host that the file is of, None for a stranger; and its run, or why it is none of that host."""
        named = path.stem if path.stem in self._own else None
        if isinstance(found, str):
            return named, found
        hostname = found.node.hostname
        if named is not None:
            if same_host(self._own[named], hostname):
                return named, found
            return named, one_line(f"{path}: is named for {named} but says it is of {hostname!r}")
        hosts = self._hosts(hostname)
        if len(hosts) == 1:
            return hosts[0], found
        many = f"could be of {', '.join(hosts[:3])}" if hosts else "is no host that was expected"
        return None, one_line(f"{path}: says it is of {hostname!r}, which {many}")

    def _hosts(self, hostname: str) -> list[str]:
        name = hostname.lower()
        found = self._by_name.get(name) or self._by_name.get(name.partition(".")[0], [])
        return [host for host in found if same_host(self._own[host], hostname)]


def machine(run: Run) -> str | None:
    """Which machine measured: its machine-id and boot-id. None when it knows neither."""
    ids = [run.node.facts.get("machine_id"), run.node.facts.get("boot_id")]
    known = [word if isinstance(word, str) and word and word != _NO_MACHINE else "" for word in ids]
    return "/".join(known)[:200] if any(known) else None
