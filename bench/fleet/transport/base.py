"""What a controller needs of a way to its hosts, whichever it is: a script for each in, one reply for every one out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol


class Kind(StrEnum):
    DONE = "done"  # the command ended by itself; ``rc`` is its own status
    LATE = "controller-timeout"  # the task's limit was reached
    UNREACHABLE = "unreachable"  # no connection, or it was lost
    NOT_RUN = "not-run"  # the controller's side ended before it came to this host


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a host's command. ``after`` in seconds since the start."""

    host: str
    kind: Kind
    rc: int | None = None
    stdout: str = ""
    detail: str = ""
    after: float = 0.0


Listen = Callable[[Reply], None]


class Transport(Protocol):
    """The way to the hosts: `bench.fleet.transport` has three."""

    def hosts(self, pattern: str = "all") -> dict[str, dict[str, Any]]:
        """The hosts that ``--limit`` leaves, in order, with what is known of each: `bench.fleet.plan.host_vars`.

        Raises FleetError.
        """
        ...

    def each(
        self, commands: Mapping[str, str], limit: float, *, width: int | None = None, listen: Listen = lambda _: None
    ) -> dict[str, Reply]:
        """One reply for every host in ``commands`` (host -> a script for sh), at most ``limit`` seconds a host.

        At least ``width`` hosts are at work at once. Raises FleetError when the transport itself fails, Interrupted.
        """
        ...

    def put(
        self, source: Path, places: Mapping[str, str], pythons: Mapping[str, str], limit: float
    ) -> dict[str, Reply]:
        """Copy a file to every host in ``places`` (host -> the path there); status 0 where it has arrived.

        ``pythons``: the Python of each host, where the transport needs one there.
        """
        ...
