"""What a controller needs of a way to its hosts, whichever it is: a script for each in, one reply for every one out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from bench.store.errors import one_line


class ReplyKind(StrEnum):
    DONE = "done"  # the command ended by itself; ``rc`` is its own status
    LATE = "controller-timeout"  # the task's limit was reached
    UNREACHABLE = "unreachable"  # no connection, or it was lost
    NOT_RUN = "not-run"  # the controller's side ended before it came to this host


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a host's command."""

    host: str
    kind: ReplyKind
    rc: int | None = None
    stdout: str = ""
    detail: str = ""


OnReply = Callable[[Reply], None]


class Transport(Protocol):
    """The way to the hosts: `bench.fleet.transport` has three."""

    def hosts(self, pattern: str = "all") -> dict[str, dict[str, Any]]:
        """The hosts that ``--limit`` leaves, in order, with what is known of each: `bench.fleet.plan.host_vars`.

        Raises UserError.
        """
        ...

    def each(
        self, commands: Mapping[str, str], limit: float, *, width: int | None = None, listen: OnReply = lambda _: None
    ) -> dict[str, Reply]:
        """One reply for every host in ``commands`` (host -> a script for sh), at most ``limit`` seconds a host.

        At least ``width`` hosts are at work at once. Raises UserError when the transport itself fails, Interrupted.
        """
        ...

    def put(
        self, source: Path, places: Mapping[str, str], pythons: Mapping[str, str], limit: float
    ) -> dict[str, Reply]:
        """Copy a file to every host in ``places`` (host -> the path there); status 0 where it has arrived.

        ``pythons``: the Python of each host, where the transport needs one there.
        """
        ...


class Replies:
    """One reply for every host of a call; the first that is given counts, and none for a host that was not named."""

    def __init__(self, hosts: Iterable[str], listen: OnReply) -> None:
        self.waiting = dict.fromkeys(hosts)
        self.given: dict[str, Reply] = {}
        self._listen = listen

    def give(self, host: str, kind: ReplyKind, detail: str = "", rc: int | None = None, stdout: str = "") -> None:
        if host in self.waiting:
            del self.waiting[host]
            self.given[host] = Reply(host, kind, rc, stdout, one_line(detail))
            self._listen(self.given[host])

    def complete(self, kind: ReplyKind, detail: str) -> dict[str, Reply]:
        """All of them; those who still wait get this one."""
        for host in list(self.waiting):
            self.give(host, kind, detail)
        return self.given


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
