"""What a controller needs of a way to its hosts, whichever it is: a script for each in, one reply for every one out.

ssh is such a way (`bench.fleet.transport.ansible`), and so is a folder that all of them see (`bench.fleet.post`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


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


class Door(Protocol):
    """The narrow door to the hosts."""

    def each(
        self, commands: Mapping[str, str], limit: float, *, width: int | None = None, listen: Listen = lambda _: None
    ) -> dict[str, Reply]:
        """One reply for every host in ``commands`` (host -> a script for sh), at most ``limit`` seconds a host.

        At least ``width`` hosts are at work at once. Raises FleetError when the door itself fails, Interrupted.
        """
        ...
